"""The agreement rows on their way: into storage, and to an engine that scores them.

    store     the trainer scores some rows with the weights it saved and without them; they are stored with the job's
              tokenised files
    score     an engine returns its log-probabilities of the same tokens under the model's name and under its base's:
              POST /v1/completions with `echo`, `logprobs`

The rows are a user's data: they are deleted with the job's files, and never reach the database or a log. Has no job
states; `comparison` compares the numbers, and `announce` decides what a result means.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.domain.storage_keys import agreement_key
from service.storage import ObjectStore
from service.storage.base import read
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.jobs.staging import store_bytes
from workers.trainer.protocol import ScoredRow

CONNECT_SECONDS = 2.0
RESPONSE_SECONDS = 60.0  # an engine that has to fetch the adapter first continues after this, for the next request
RESPONSE_LIMIT_BYTES = 16 * 1024 * 1024
MESSAGE_LIMIT = 300
REFUSALS = frozenset({400, 413, 422})  # waiting does not change these
UNUSABLE = "adapter_unusable"  # the code of our own engines for an adapter that no waiting makes loadable

_rows: TypeAdapter[list[ScoredRow]] = TypeAdapter(list[ScoredRow])


async def store_agreement(store: ObjectStore, job_id: str, model: str, rows: list[ScoredRow]) -> tuple[str, str]:
    """Stores the rows that the job's `model` has scored; returns their key and sha256. Raises StorageError."""
    key = agreement_key(job_id, model)
    return key, await store_bytes(store, key, _rows.dump_json(rows))


async def fetch_agreement(store: ObjectStore, key: str, sha256: str) -> list[ScoredRow]:
    """The rows that were stored. Raises ObjectCorrupt, ObjectMissing, StorageError."""
    content = await storage_retry(read)(store, key)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ObjectCorrupt(key)
    return _rows.validate_json(content)


class EngineUnavailable(Exception):
    """No engine can score the rows now; a later try may succeed."""


class EngineRefused(Exception):
    """The engine has the adapter and cannot serve it, or its response cannot be read; the message says why."""


class _Logprobs(BaseModel):
    token_logprobs: list[float | None]  # the first token of a row has none


class _Choice(BaseModel):
    logprobs: _Logprobs


class _Completion(BaseModel):
    choices: list[_Choice]


class _Error(BaseModel):
    message: str = ""
    code: str | int | None = None


class _Envelope(BaseModel):
    error: _Error


class Engines:
    """The engines of one base, in rotation: each call begins with the engine after the last one that was tried."""

    def __init__(self, urls: Sequence[str], headers: Mapping[str, str] | None = None) -> None:
        """`headers` of every request, which prove to an engine who calls."""
        self._urls = list(urls)
        self._headers = dict(headers or {})

    async def score(self, models: Sequence[str], rows: Sequence[Sequence[int]]) -> list[list[list[float]]]:
        """For each model log p(token | tokens before) of every token of every row but its first.

        All of them from the first engine that has all the models. NaN where it could not compute one. Raises
        EngineUnavailable when no engine responds, EngineRefused.
        """
        reasons = []
        for url in list(self._urls):
            try:
                return [await _score(url, self._headers, model, rows) for model in models]
            except EngineUnavailable as error:
                reasons.append(f"{url}: {error}")
            finally:
                self._urls = [*self._urls[1:], self._urls[0]]
        raise EngineUnavailable("; ".join(reasons))


async def _score(url: str, headers: Mapping[str, str], model: str, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    """One request per row: several scored prompts in one request crash vLLM 0.32 on a CPU."""
    timeout = aiohttp.ClientTimeout(total=RESPONSE_SECONDS, sock_connect=CONNECT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            return [await _score_row(session, url, model, row) for row in rows]
    except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
        raise EngineUnavailable(type(error).__name__) from error


async def _score_row(session: aiohttp.ClientSession, url: str, model: str, row: Sequence[int]) -> list[float]:
    # One token is generated and ignored: not every engine accepts `max_tokens` 0.
    body = {
        "model": model, "prompt": list(row), "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1
    }  # fmt: skip
    async with session.post(f"{url}/v1/completions", json=body, allow_redirects=False) as response:
        content = await _read(response)
    if response.status != 200:
        raise _refusal(response.status, content, model)
    return _logprobs(content, len(row))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        content += chunk
        if len(content) > RESPONSE_LIMIT_BYTES:
            raise EngineRefused(f"Its response is longer than {RESPONSE_LIMIT_BYTES} bytes.")
    return bytes(content)


def _refusal(status: int, content: bytes, model: str) -> Exception:
    try:
        error = _Envelope.model_validate_json(content).error
    except ValidationError:
        error = _Error()
    if status in REFUSALS or error.code == UNUSABLE:
        return EngineRefused(error.message[:MESSAGE_LIMIT] or f"It responded with status {status}.")
    return EngineUnavailable(f"status {status} for the model '{model}'")


def _logprobs(content: bytes, num_tokens: int) -> list[float]:
    try:
        (choice,) = _Completion.model_validate_json(content).choices
    except ValueError as error:  # a ValidationError is one
        raise EngineRefused("Its response has no log-probabilities.") from error
    found = choice.logprobs.token_logprobs
    if len(found) < num_tokens:
        raise EngineRefused("Its response has log-probabilities of fewer tokens than it was sent.")
    return [math.nan if logprob is None else logprob for logprob in found[1:num_tokens]]
