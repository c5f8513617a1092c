"""Four frameworks, unmodified, ask a model through /v1/responses: run in their own environment by test_frameworks.py.

    ask.py URL KEY MODEL URL KEY MODEL

Of two servers, because the frameworks take long to import. Writes JSON, for each server what each framework read as a
whole and as a stream; from the first also what it read after it ran the function `weather`, whole and streamed, and the
error that it raised for a stream that breaks.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

os.environ |= {"OPENAI_AGENTS_DISABLE_TRACING": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}

import litellm
from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticModel
from pydantic_ai.providers.openai import OpenAIProvider

TEXT, WEATHER, BROKEN = "Hello", "Weather in Oslo?", "Break off"
MAX_TOKENS = 64


class Framework(Protocol):
    async def whole(self, prompt: str, tools: bool = False) -> str: ...

    async def stream(self, prompt: str, tools: bool = False) -> str: ...


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


class PydanticAi:
    def __init__(self, url: str, key: str, model: str) -> None:
        self._model = PydanticModel(model, provider=OpenAIProvider(base_url=url, api_key=key))

    def _agent(self, tools: bool) -> PydanticAgent[None, str]:
        settings: Any = {"max_tokens": MAX_TOKENS, "temperature": 0.0}
        return PydanticAgent(self._model, tools=[weather] if tools else [], model_settings=settings)

    async def whole(self, prompt: str, tools: bool = False) -> str:
        return (await self._agent(tools).run(prompt)).output

    async def stream(self, prompt: str, tools: bool = False) -> str:
        async with self._agent(tools).run_stream(prompt) as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])


class OpenaiAgents:
    def __init__(self, url: str, key: str, model: str) -> None:
        self._model = OpenAIResponsesModel(model, AsyncOpenAI(base_url=url, api_key=key, max_retries=0))

    def _agent(self, tools: bool) -> Agent[None]:
        settings = ModelSettings(max_tokens=MAX_TOKENS, temperature=0.0)
        return Agent("a", model=self._model, tools=[function_tool(weather)] if tools else [], model_settings=settings)

    async def whole(self, prompt: str, tools: bool = False) -> str:
        return str((await Runner.run(self._agent(tools), prompt)).final_output)

    async def stream(self, prompt: str, tools: bool = False) -> str:
        result = Runner.run_streamed(self._agent(tools), prompt)
        said = ""
        async for event in result.stream_events():
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                said += event.data.delta
        assert said.endswith(str(result.final_output))
        return said


class Litellm:
    """It asks for a stream of those models only that its own table says can stream; of others it makes one itself."""

    def __init__(self, url: str, key: str, model: str) -> None:
        litellm.suppress_debug_info = True  # else it prints where the result is to be
        litellm.register_model({f"openai/{model}": {"litellm_provider": "openai", "supports_native_streaming": True}})
        self._asked: dict[str, Any] = {
            "model": f"openai/{model}", "api_base": url, "api_key": key, "max_output_tokens": MAX_TOKENS,
            "temperature": 0, "max_retries": 0,
        }  # fmt: skip

    async def whole(self, prompt: str, tools: bool = False) -> str:
        response = await litellm.aresponses(input=prompt, **self._asked, **_declared(tools))
        calls = [item.model_dump() for item in response.output if item.type == "function_call"]
        if not calls:
            return _text(response)
        history = [{"role": "user", "content": prompt}, *calls, *map(_ran, calls)]
        return _text(await litellm.aresponses(input=history, **self._asked, **_declared(tools)))

    async def stream(self, prompt: str, tools: bool = False) -> str:
        said, calls = await self._read(prompt, tools)
        if calls:
            said, _ = await self._read([{"role": "user", "content": prompt}, *calls, *map(_ran, calls)], tools)
        return said

    async def _read(self, asked: Any, tools: bool) -> tuple[str, list[dict[str, Any]]]:
        said, calls, last = "", [], ""
        async for event in await litellm.aresponses(input=asked, stream=True, **self._asked, **_declared(tools)):
            last = str(event.type.value if hasattr(event.type, "value") else event.type)
            if last == "response.output_text.delta":
                said += event.delta
            if last == "response.output_item.done" and (item := _as_dict(event.item))["type"] == "function_call":
                calls.append(item)
            if last in ("error", "response.failed"):
                raise RuntimeError(last)
        assert last == "response.completed", last
        return said, calls


class Langchain:
    def __init__(self, url: str, key: str, model: str) -> None:
        self._chat = ChatOpenAI(
            model=model, base_url=url, api_key=key, max_tokens=MAX_TOKENS, temperature=0, max_retries=0,
            use_responses_api=True, reasoning={"effort": "none"},
        )  # type: ignore[call-arg, arg-type]  # fmt: skip

    async def whole(self, prompt: str, tools: bool = False) -> str:
        chat: Any = self._chat.bind_tools([tool(weather)]) if tools else self._chat
        history: list[Any] = [HumanMessage(prompt)]
        message = await chat.ainvoke(history)
        if message.tool_calls:
            message = await chat.ainvoke([*history, message, *map(_answered, message.tool_calls)])
        return str(message.text)

    async def stream(self, prompt: str, tools: bool = False) -> str:
        chat: Any = self._chat.bind_tools([tool(weather)]) if tools else self._chat
        history: list[Any] = [HumanMessage(prompt)]
        message = await _sum(chat, history)
        if message.tool_calls:
            message = await _sum(chat, [*history, message, *map(_answered, message.tool_calls)])
        return str(message.text)


async def _sum(chat: Any, history: list[Any]) -> Any:
    chunks = [chunk async for chunk in chat.astream(history)]
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


def _answered(call: Any) -> ToolMessage:
    return ToolMessage(weather(**call["args"]), tool_call_id=call["id"])


def _declared(tools: bool) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"tools": [{"type": "function", "name": "weather", "parameters": parameters}]} if tools else {}


def _ran(call: dict[str, Any]) -> dict[str, Any]:
    output = weather(**json.loads(call["arguments"]))
    return {"type": "function_call_output", "call_id": call["call_id"], "output": output}


def _as_dict(item: Any) -> dict[str, Any]:
    found: dict[str, Any] = item if isinstance(item, dict) else item.model_dump()
    return found


def _text(response: Any) -> str:
    return "".join(part.text for item in response.output if item.type == "message" for part in item.content)


FRAMEWORKS: dict[str, Callable[[str, str, str], Framework]] = {
    "pydantic-ai": PydanticAi,
    "openai-agents": OpenaiAgents,
    "litellm": Litellm,
    "langchain": Langchain,
}


async def asked(framework: Framework, tools: bool) -> dict[str, str]:
    said = {"whole": await framework.whole(TEXT), "stream": await framework.stream(TEXT)}
    if tools:
        said["tools whole"] = await framework.whole(WEATHER, tools=True)
        said["tools stream"] = await framework.stream(WEATHER, tools=True)
        said["broken"] = await _error(framework.stream(BROKEN))
    return said


async def _error(asking: Coroutine[Any, Any, str]) -> str:
    try:
        return f"no error: {await asking}"
    except Exception as error:
        return f"raised {type(error).__name__}"


async def main(*words: str) -> None:
    servers = ((words[:3], True), (words[3:], False))
    found = [
        {name: await asked(make(url, key, model), tools) for name, make in FRAMEWORKS.items()}
        for (url, key, model), tools in servers
    ]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
