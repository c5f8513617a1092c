"""What an engine thinks of given tokens: POST /v1/completions with `echo` and `logprobs`, in vLLM's dialect.

Knows HTTP and numbers; must not know jobs, storage, or what the answer is compared with.
"""

import math
from collections.abc import Sequence

import aiohttp
from pydantic import BaseModel, ValidationError

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 60.0  # an engine that first fetches the adapter goes on doing so when nobody waits any more
ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
MESSAGE_LIMIT = 300
REFUSALS = frozenset({400, 413, 422})  # of a request that will not become better by waiting
UNUSABLE = "adapter_unusable"  # our own engine's word for the same


class EngineAway(Exception):
    """No engine could answer now: asking again is right."""


class EngineRefused(Exception):
    """The engine has the adapter and will not serve it, or says what nobody understands; the message says why."""


class _Logprobs(BaseModel):
    token_logprobs: list[float | None]  # the first token of a row has none


class _Choice(BaseModel):
    logprobs: _Logprobs


class _Answer(BaseModel):
    choices: list[_Choice]


class _Error(BaseModel):
    message: str = ""
    code: str | int | None = None


class _Envelope(BaseModel):
    error: _Error


class Engines:
    """The engines of one base, asked in turn: each question begins with the one after the last that answered."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)

    async def score(self, model: str, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """log p(token | tokens before) of every token of every row but its first, by the first engine that answers.

        What an engine could not compute is NaN. Raises EngineAway when none answers, EngineRefused.
        """
        reasons = []
        for url in list(self._urls):
            try:
                return await _ask(url, model, rows)
            except EngineAway as error:
                reasons.append(f"{url}: {error}")
            finally:
                self._urls = [*self._urls[1:], self._urls[0]]
        raise EngineAway("; ".join(reasons))


async def _ask(url: str, model: str, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    """One row after another: several in one request are more than vLLM 0.32 without a GPU survives."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return [await _ask_row(session, url, model, row) for row in rows]
    except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
        raise EngineAway(type(error).__name__) from error


async def _ask_row(session: aiohttp.ClientSession, url: str, model: str, row: Sequence[int]) -> list[float]:
    # One token is generated and left out of the answer: not every engine can generate none.
    question = {
        "model": model, "prompt": list(row), "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1
    }  # fmt: skip
    async with session.post(f"{url}/v1/completions", json=question, allow_redirects=False) as response:
        content = await _read(response)
    if response.status != 200:
        raise _refusal(response.status, content)
    return _scores(content, len(row))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        content += chunk
        if len(content) > ANSWER_LIMIT_BYTES:
            raise EngineRefused("Its answer is too long to be one.")
    return bytes(content)


def _refusal(status: int, content: bytes) -> Exception:
    try:
        error = _Envelope.model_validate_json(content).error
    except ValidationError:
        error = _Error()
    if status in REFUSALS or error.code == UNUSABLE:
        return EngineRefused(error.message[:MESSAGE_LIMIT] or f"It answered with status {status}.")
    return EngineAway(f"status {status}")


def _scores(content: bytes, num_tokens: int) -> list[float]:
    try:
        (choice,) = _Answer.model_validate_json(content).choices
    except ValueError as error:  # a ValidationError is one
        raise EngineRefused("Its answer has no log-probabilities.") from error
    found = choice.logprobs.token_logprobs
    if len(found) < num_tokens:
        raise EngineRefused("Its answer has log-probabilities of fewer tokens than it was asked for.")
    return [math.nan if logprob is None else logprob for logprob in found[1:num_tokens]]
