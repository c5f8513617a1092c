"""ASGI middleware of vLLM's API server: refuses `tools` where the base's chat template does not show them.

vLLM gives them to the template, whatever that does with them: the model would never learn of its functions, and the
caller would never hear of it. Reads the body of a chat completion and passes it on as it came. Loaded by
`--middleware`; does not import vLLM.
"""

import asyncio
import json
from collections.abc import Callable
from functools import cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from transformers import AutoTokenizer

from service.domain.json import JsonObject
from service.recipes.catalogue import read_catalogue
from service.settings.settings import Settings
from workers.data.base_text import BaseText
from workers.data.template import ChatTemplate
from workers.engines.vllm.middleware import refuse

CHAT = "/v1/chat/completions"
LIMIT_BYTES = 32 * 1024 * 1024  # twice what the gateway sends on
REASON = (
    "Unsupported parameter: 'tools' is not supported with this model: its base's chat template does not show them, so "
    "that the model would never learn of them. Remove it, or describe the functions in a message."
)


@cache
def base_shows_tools() -> bool:
    """Whether the template of this process's base shows tools; true where it has none, which vLLM refuses itself."""
    settings = Settings()
    base = read_catalogue(settings.catalogue).of_engine(settings.engine_base)
    tokenizer = AutoTokenizer.from_pretrained(base.source, revision=base.revision or None, trust_remote_code=False)
    return not tokenizer.chat_template or ChatTemplate(BaseText(tokenizer)).shows_tools


class ToolsMiddleware:
    """In front of vLLM's application."""

    def __init__(self, app: ASGIApp, shows_tools: Callable[[], bool] = base_shows_tools) -> None:
        self._app = app
        self._shows_tools = shows_tools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != CHAT:
            await self._app(scope, receive, send)
            return
        messages = await _read(receive)
        body = b"".join(message.get("body", b"") for message in messages)
        if len(body) > LIMIT_BYTES:
            await refuse(send, 413, "The request is too large.")
        elif _has_tools(body) and not await asyncio.to_thread(self._shows_tools):
            await refuse(send, 400, REASON, "unsupported_parameter", "tools")
        else:
            await self._app(scope, _again(messages, receive), send)


async def _read(receive: Receive) -> list[Message]:
    """All of the body's messages, or as many as are too large; the caller's end ends them too."""
    messages: list[Message] = []
    size = 0
    while not messages or (messages[-1].get("more_body") and size <= LIMIT_BYTES):
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
    return messages


def _again(messages: list[Message], receive: Receive) -> Receive:
    """The messages once more, then what still comes."""

    async def next_message() -> Message:
        return messages.pop(0) if messages else await receive()

    return next_message


def _has_tools(body: bytes) -> bool:
    if b'"tools"' not in body:
        return False
    try:
        fields: JsonObject = json.loads(body)
    except ValueError:
        return False  # vLLM says what is wrong with it
    return isinstance(fields, dict) and bool(fields.get("tools"))
