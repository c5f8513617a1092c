"""The agreement rows on their way: into storage, and to an engine that scores them.

    store     the trainer scores some rows with the weights it saved and without them; they are stored with the job's
              tokenised files
    score     an engine returns its log-probabilities of the same tokens under the model's name and under its base's:
              POST /v1/completions with `echo`, `logprobs`; or, of a model with a head, what it returns for the same
              texts: POST /v1/classifications, POST /v1/embeddings

The rows are a user's data: they are deleted with the job's files, and never reach the database or a log. Has no job
states; `comparison` compares the numbers, and `announce` decides what a result means.
"""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.domain.storage_keys import agreement_key
from service.storage import ObjectStore
from service.storage.base import read
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.jobs.staging import store_bytes
from workers.trainer.protocol import HeadRow, ScoredRow

CONNECT_SECONDS = 2.0
RESPONSE_SECONDS = 60.0  # an engine that has to fetch the adapter first continues after this, for the next request
RESPONSE_LIMIT_BYTES = 16 * 1024 * 1024
MESSAGE_LIMIT = 300
REFUSALS = frozenset({400, 413, 422})  # waiting does not change these
UNUSABLE = "adapter_unusable"  # the code of our own engines for an adapter that no waiting makes loadable

T = TypeVar("T")
R = TypeVar("R")
ScoreRow = Callable[[aiohttp.ClientSession, str, str, R], Awaitable[list[float]]]
_rows: TypeAdapter[list[ScoredRow]] = TypeAdapter(list[ScoredRow])
_head_rows: TypeAdapter[list[HeadRow]] = TypeAdapter(list[HeadRow])


async def store_agreement(
    store: ObjectStore, job_id: str, model: str, rows: list[ScoredRow] | list[HeadRow]
) -> tuple[str, str]:
    """Stores the rows that the job's `model` has scored; returns their key and sha256. Raises StorageError."""
    key = agreement_key(job_id, model)
    return key, await store_bytes(store, key, TypeAdapter(list[ScoredRow] | list[HeadRow]).dump_json(rows))


async def fetch_agreement(store: ObjectStore, key: str, sha256: str) -> list[ScoredRow]:
    """The rows that were stored, of a model that generates. Raises ObjectCorrupt, ObjectMissing, StorageError."""
    return _rows.validate_json(await _fetch(store, key, sha256))


async def fetch_head_agreement(store: ObjectStore, key: str, sha256: str) -> list[HeadRow]:
    """The same of a model with a head."""
    return _head_rows.validate_json(await _fetch(store, key, sha256))


async def _fetch(store: ObjectStore, key: str, sha256: str) -> bytes:
    content = await storage_retry(read)(store, key)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ObjectCorrupt(key)
    return content


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


class _Classified(BaseModel):
    probs: list[float]


class _Classification(BaseModel):
    data: list[_Classified]


class _Embedded(BaseModel):
    embedding: list[float]


class _Embedding(BaseModel):
    data: list[_Embedded]


class _Error(BaseModel):
    message: str = ""
    code: str | int | None = None


class _Envelope(BaseModel):
    error: _Error


class Engines:
    """The engines of one base, in rotation: each call begins with the engine after the last one that was tried."""

    def __init__(
        self, urls: Sequence[str], headers: Mapping[str, str] | None = None, *, at_once: int = 1, generated: int = 1
    ) -> None:
        """`headers` of every request, which prove to an engine who calls; `at_once`: requests beside each other;
        `generated`: tokens that it generates after a row, which are ignored: not every engine accepts 0.
        """
        self._at_once = at_once
        self._generated = generated
        self._urls = list(urls)
        self._headers = dict(headers or {})

    async def score(
        self,
        models: Sequence[str],
        rows: Sequence[Sequence[int]],
        seconds: Sequence[Sequence[int]] | None = None,
    ) -> list[list[list[float]]]:
        """For each model log p(token | tokens before) of every token of every row but its first. `seconds`: what the
        encoder of an encoder-decoder reads for each row.

        All of them from the first engine that has all the models. NaN where it could not compute one. Raises
        EngineUnavailable when no engine responds, EngineRefused.
        """

        asked = list(zip(rows, [()] * len(rows) if seconds is None else seconds, strict=True))

        async def scores(url: str) -> list[list[list[float]]]:
            score_row = partial(_score_row, self._generated)
            return [await self._score(url, model, asked, score_row) for model in models]

        return await self._first(scores)

    async def classify(self, model: str, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """What the head of `model` returns for each row. Raises EngineUnavailable, EngineRefused."""
        return await self._first(lambda url: self._score(url, model, rows, _classify_row))

    async def embed(self, model: str, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """The vector of each row. Raises EngineUnavailable, EngineRefused."""
        return await self._first(lambda url: self._score(url, model, rows, _embed_row))

    async def _score(self, url: str, model: str, rows: Sequence[R], score_row: ScoreRow[R]) -> list[list[float]]:
        """One request per row: several scored prompts in one request crash vLLM 0.32 on a CPU."""
        timeout = aiohttp.ClientTimeout(total=RESPONSE_SECONDS, sock_connect=CONNECT_SECONDS)
        found: list[list[float]] = []
        try:
            async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
                for begin in range(0, len(rows), self._at_once):
                    some = rows[begin : begin + self._at_once]
                    asked = (score_row(session, url, model, row) for row in some)
                    for scores in await asyncio.gather(*asked, return_exceptions=True):
                        if isinstance(scores, BaseException):
                            raise scores
                        found.append(scores)
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise EngineUnavailable(type(error).__name__) from error
        return found

    async def _first(self, ask: Callable[[str], Awaitable[T]]) -> T:
        """The result of the first engine that is not unavailable."""
        reasons = []
        for url in list(self._urls):
            try:
                return await ask(url)
            except EngineUnavailable as error:
                reasons.append(f"{url}: {error}")
            finally:
                self._urls = [*self._urls[1:], self._urls[0]]
        raise EngineUnavailable("; ".join(reasons))


async def _score_row(
    generated: int, session: aiohttp.ClientSession, url: str, model: str, asked: tuple[Sequence[int], Sequence[int]]
) -> list[float]:
    row, second = asked
    body = {
        "model": model, "prompt": list(row), "max_tokens": generated, "temperature": 0, "echo": True, "logprobs": 1
    }  # fmt: skip
    if second:  # of an encoder-decoder, whose engine puts the start token first
        body |= {"prompt": list(second), "written": list(row[1:])}
    content = await _post(session, f"{url}/v1/completions", body)
    return _logprobs(content, first=0 if second else 1, num_tokens=len(row) - 1)


async def _classify_row(session: aiohttp.ClientSession, url: str, model: str, row: Sequence[int]) -> list[float]:
    body = {"model": model, "input": list(row)}
    content = await _post(session, f"{url}/v1/classifications", body)
    try:
        (classified,) = _Classification.model_validate_json(content).data
    except ValueError as error:  # a ValidationError is one
        raise EngineRefused("Its response has no probabilities.") from error
    return classified.probs


async def _embed_row(session: aiohttp.ClientSession, url: str, model: str, row: Sequence[int]) -> list[float]:
    body = {"model": model, "input": list(row), "encoding_format": "float"}
    content = await _post(session, f"{url}/v1/embeddings", body)
    try:
        (embedded,) = _Embedding.model_validate_json(content).data
    except ValueError as error:  # a ValidationError is one
        raise EngineRefused("Its response has no vector.") from error
    return embedded.embedding


async def _post(session: aiohttp.ClientSession, url: str, body: Mapping[str, object]) -> bytes:
    """The content of an engine's 200. Raises what `_refusal` makes of any other status."""
    async with session.post(url, json=body, allow_redirects=False) as response:
        content = await _read(response)
    if response.status != 200:
        raise _refusal(response.status, content, str(body["model"]))
    return content


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


def _logprobs(content: bytes, *, first: int, num_tokens: int) -> list[float]:
    """Of so many tokens, from the place `first` on."""
    try:
        (choice,) = _Completion.model_validate_json(content).choices
    except ValueError as error:  # a ValidationError is one
        raise EngineRefused("Its response has no log-probabilities.") from error
    found = choice.logprobs.token_logprobs
    if len(found) < first + num_tokens:
        raise EngineRefused("Its response has log-probabilities of fewer tokens than it was sent.")
    return [math.nan if logprob is None else logprob for logprob in found[first : first + num_tokens]]
