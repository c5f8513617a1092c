"""The error tables of OpenAI's API: what a user does, and the error that comes of it. Here is the user.

Of the openai-api reference: errors of creating a job (1.3.5, with the limits of 1.3.2: `creation_errors`), of a job's
files (1.3.5: `file_errors`), of states, uploads and permissions (1.2, 1.3.4, 1.3.8: `state_errors`), of what is not
there (1.1 to 1.6) and by HTTP status (1.9: `status_errors`). What this service never answers is not here: 403
`training_not_available` (it trains), 409 (the SDKs would try again), 422, `insufficient_quota`, moderation.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import openai
from fastapi import FastAPI

from service.installation.context import Context
from tests.given.scripted_engine import ScriptedEngine


@dataclass
class Api:
    """The service as one user has it: an SDK, a file to train on, and the engine behind."""

    sdk: openai.AsyncOpenAI
    app: FastAPI
    ctx: Context
    engine: ScriptedEngine
    file: str

    async def create(self, **fields: Any) -> Any:
        """A job by the SDK, without its own idea of what may be sent."""
        body = {"model": "tiny", "training_file": self.file, **fields}
        return await self.sdk.fine_tuning.jobs.create(
            model=body.pop("model"), training_file=body.pop("training_file"), extra_body=body
        )

    async def upload(self, *lines: bytes, purpose: Any = "fine-tune") -> str:
        return (await self.sdk.files.create(file=b"\n".join(lines), purpose=purpose)).id


Call = Callable[[Api], Awaitable[Any]]


def row(number: int) -> bytes:
    said = [{"role": "user", "content": f"{number} + 1?"}, {"role": "assistant", "content": f"{number + 1}"}]
    return json.dumps({"messages": said}).encode()


ROWS = [row(number) for number in range(12)]


def creating(**fields: Any) -> Call:
    return lambda api: api.create(**fields)
