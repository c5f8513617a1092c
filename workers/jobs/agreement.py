"""Whether an engine computes what was trained: the agreement rows, an engine's scores of them, and their difference.

    store     the trainer scores a few rows with the weights it saved; they are stored with the job's tokenised files
    score     an engine returns its log-probabilities of the same tokens: POST /v1/completions with `echo`, `logprobs`
    compare   both, per token

The rows are a user's data: they are deleted with the job's files, and never reach the database or a log. Has no job
states; `announce` decides what a result means.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.domain.storage_keys import agreement_key
from service.storage import ObjectStore
from service.storage.base import read
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.jobs.staging import store_bytes
from workers.trainer.protocol import ScoredRow

# Mean difference in nats per token that is tolerated, by the base's dtype. Two correct computations of one model differ
# because kernels and shapes round differently: 0.01 to 0.02 in bfloat16, 0.000001 in float32. Doubling one of an
# adapter's tensors makes a difference of 0.08 or more. ADR 0010 has the measurements.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}

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


@dataclass(frozen=True)
class Comparison:
    """The trainer's and an engine's log-probabilities of the same tokens, in nats; a difference may be infinite."""

    trained: float  # mean of the trainer's
    served: float  # mean of the engine's
    mean: float  # of the absolute differences
    largest: float
    num_tokens: int


def compare(rows: Sequence[ScoredRow], served: Sequence[Sequence[float]]) -> Comparison:
    """`served` are an engine's log-probabilities of the same tokens. Raises ValueError where the shapes differ."""
    ours = [logprob for row in rows for logprob in row.logprobs]
    theirs = [logprob for row in served for logprob in row]
    differences = [_difference(one, other) for one, other in zip(ours, theirs, strict=True)]
    if not differences:
        raise ValueError("there is nothing to compare")
    count = len(differences)
    return Comparison(sum(ours) / count, sum(theirs) / count, sum(differences) / count, max(differences), count)


def _difference(one: float, other: float) -> float:
    return abs(one - other) if math.isfinite(one) and math.isfinite(other) else math.inf


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

    async def score(self, model: str, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """log p(token | tokens before) of every token of every row but its first, from the first engine that has it.

        NaN where the engine could not compute it. Raises EngineUnavailable when no engine responds, EngineRefused.
        """
        reasons = []
        for url in list(self._urls):
            try:
                return await _score(url, self._headers, model, rows)
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
        raise _refusal(response.status, content)
    return _logprobs(content, len(row))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        content += chunk
        if len(content) > RESPONSE_LIMIT_BYTES:
            raise EngineRefused(f"Its response is longer than {RESPONSE_LIMIT_BYTES} bytes.")
    return bytes(content)


def _refusal(status: int, content: bytes) -> Exception:
    try:
        error = _Envelope.model_validate_json(content).error
    except ValidationError:
        error = _Error()
    if status in REFUSALS or error.code == UNUSABLE:
        return EngineRefused(error.message[:MESSAGE_LIMIT] or f"It responded with status {status}.")
    return EngineUnavailable(f"status {status}")


def _logprobs(content: bytes, num_tokens: int) -> list[float]:
    try:
        (choice,) = _Completion.model_validate_json(content).choices
    except ValueError as error:  # a ValidationError is one
        raise EngineRefused("Its response has no log-probabilities.") from error
    found = choice.logprobs.token_logprobs
    if len(found) < num_tokens:
        raise EngineRefused("Its response has log-probabilities of fewer tokens than it was sent.")
    return [math.nan if logprob is None else logprob for logprob in found[1:num_tokens]]
