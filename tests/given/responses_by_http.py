"""Requests to POST /v1/responses over HTTP, and the events of its streams, each held against the SDK's own types."""

from typing import Any

import httpx
import orjson
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

CATALOGUE = """
[[base]]
id = "tiny"
aliases = ["gpt-4o-mini"]
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { tunings = ["lora"], engine = "vllm", tool_call_parser = "hermes" }

[[base]]
id = "embedded"
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { tunings = ["lora"] }
"""
ASK = {"model": "tiny", "input": "Hello"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True, "description": "Of a city."}
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


async def events_of(client: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, each valid by the SDK's own type, numbered in order, named as it says."""
    response = await client.post("/responses", json={**ASK, **fields, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    found = []
    for number, event in enumerate(response.content.split(b"\n\n")[:-1]):
        name, data = event.split(b"\n")
        said = orjson.loads(data.removeprefix(b"data: "))
        assert name.removeprefix(b"event: ").decode() == said["type"] == EVENTS.validate_python(said).type
        assert said["sequence_number"] == number
        found.append(said)
    return found


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]
