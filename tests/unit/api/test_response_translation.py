"""A request of /v1/responses as a chat completion's, value by value, and every kind of request that is refused."""

from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from pydantic import ValidationError

from service.api.responses.places import Place, Places
from service.api.responses.request import chat_request
from service.api.responses.writer import begun, streamed
from service.api.schemas.inference import CreateChatCompletionRequest
from service.api.schemas.responses import ITEM_LIMIT, CreateResponseRequest
from service.domain.errors import InvalidRequest, RateLimited
from tests.given.chat_chunks import chunk

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
OTHER_TOOL = {"type": "function", "name": "g"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "4"}


def asked(**fields: Any) -> CreateResponseRequest:
    return CreateResponseRequest.model_validate({"model": "m", "input": "Hi", **fields})


def messages(*items: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """The messages of a request with these items, valid as those of a chat completion."""
    chat = chat_request(asked(input=list(items), **fields))
    CreateChatCompletionRequest.model_validate(chat.fields)
    assert len(chat.places.messages) == len(chat.fields["messages"])
    found: list[dict[str, Any]] = chat.fields["messages"]
    return found


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_messages_of_every_role_and_form() -> None:
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "output_text", "text": "b", "annotations": [], "logprobs": []},
    ]
    chat_parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    typed = {"type": "message", "id": "msg_1", "status": "completed", "phase": "final_answer"}
    assert messages(
        said("system", "s"), said("developer", "d"), said("user", parts), typed | said("assistant", parts),
        said("assistant", "again"), instructions="i",
    ) == [
        said("system", "i"), said("system", "s"), said("developer", "d"), said("user", chat_parts),
        said("assistant", chat_parts), said("assistant", "again"),
    ]  # fmt: skip


def test_what_a_model_made_in_one_turn_is_one_message() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    second = CALL | {"call_id": "c2", "id": "fc_2", "status": "completed"}
    found = messages(
        said("user", "u"), thought, said("assistant", "a"), CALL, second, OUTPUT, OUTPUT | {"call_id": "c2"},
        CALL, said("assistant", "late"), OUTPUT, thought, CALL,
    )  # fmt: skip
    assert found == [
        said("user", "u"),
        {"role": "assistant", "reasoning": "hm", "content": "a", "tool_calls": [CHAT_CALL, CHAT_CALL | {"id": "c2"}]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
        {"role": "tool", "content": "4", "tool_call_id": "c2"},
        {"role": "assistant", "tool_calls": [CHAT_CALL], "content": "late"},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
        {"role": "assistant", "reasoning": "hm", "tool_calls": [CHAT_CALL]},
    ]


def test_reasoning_begins_a_turn_of_its_own() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert messages(said("assistant", "a"), thought, thought, said("assistant", "b")) == [
        said("assistant", "a"),
        {"role": "assistant", "reasoning": "hmhm", "content": "b"},
    ]


def test_an_output_may_be_parts_or_empty() -> None:
    parts = [{"type": "input_text", "text": "4"}]
    chat_parts = [{"type": "text", "text": "4"}]
    assert messages(OUTPUT | {"output": parts, "name": "f"}) == [
        {"role": "tool", "content": chat_parts, "tool_call_id": "c1", "name": "f"}
    ]
    assert messages(OUTPUT | {"output": []})[0]["content"] == messages(OUTPUT | {"output": ""})[0]["content"] == ""


def test_items_come_back_as_the_sdks_classes_dump_them() -> None:
    call = ResponseFunctionToolCall(**CALL, id="fc_1", status="completed")
    text = ResponseOutputText(type="output_text", text="a", annotations=[])
    message = ResponseOutputMessage(id="msg_1", type="message", role="assistant", status="completed", content=[text])
    assert messages(message.model_dump(), call.model_dump(), OUTPUT) == [
        {"role": "assistant", "content": [{"type": "text", "text": "a"}], "tool_calls": [CHAT_CALL]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]


def test_formats_limits_and_choices() -> None:
    def fields(**given: Any) -> dict[str, Any]:
        found = chat_request(asked(**given)).fields
        CreateChatCompletionRequest.model_validate(found)
        return {name: value for name, value in found.items() if name not in ("model", "messages")}

    shape = {"name": "n", "schema": {"type": "object"}, "strict": True}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert fields() == {}
    assert fields(store=True, background=False, truncation="disabled", include=[], reasoning={"effort": None}) == {}
    assert fields(text={"format": {"type": "json_schema", **shape}}) == {
        "response_format": {"type": "json_schema", "json_schema": shape}
    }
    assert fields(text={"format": {"type": "json_object"}, "verbosity": "low"}) == {
        "verbosity": "low", "response_format": {"type": "json_object"},
    }  # fmt: skip
    assert fields(max_output_tokens=3, reasoning={"effort": "none"}) == {
        "max_completion_tokens": 3, "reasoning_effort": "none",
    }  # fmt: skip
    assert fields(tools=[TOOL | {"async": False, "strict": None}]) == {"tools": tools}
    assert fields(max_output_tokens=3.0) == {"max_completion_tokens": 3}
    assert fields(tools=[TOOL], tool_choice="required") == {"tools": tools, "tool_choice": "required"}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    assert fields(tools=[OTHER_TOOL, TOOL], tool_choice=allowed) == {"tools": tools, "tool_choice": "auto"}
    assert fields(include=["reasoning.encrypted_content"]) == {}


ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"background": True}, "background"),
    ({"truncation": "auto"}, "truncation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"include": ["file_search_call.results"]}, "include[0]"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL, {"type": "file_search", "vector_store_ids": ["v"]}]}, "tools[1].type"),
    ({"tools": [{"type": "mcp", "server_label": "s"}]}, "tools[0].type"),
    ({"tools": [{"type": "custom", "name": "c"}]}, "tools[0].type"),
    ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
    ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    ({"tools": [TOOL], "tool_choice": ALLOWED}, "tool_choice.tools"),
    ({"input": [said("user", [{"type": "input_text", "text": "a"}, IMAGE])]}, "input[0].content[1]"),
    ({"input": [said("user", [{"type": "input_file", "file_id": "f"}])]}, "input[0].content[0]"),
    ({"input": [CALL, OUTPUT | {"output": [IMAGE]}]}, "input[1].output[0]"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ({"input": [{"type": "web_search_call", "id": "ws_1", "status": "completed"}]}, "input[0]"),
    ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input[0].encrypted_content"),
    ({"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}]}, "input[0].summary"),
    ({"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}]}]}, "input[0]"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
    ({"input": [CALL | {"caller": {"type": "program", "caller_id": "p"}}]}, "input[0].caller"),
    ({"input": [CALL] * 129}, "input[128]"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[param for _, param in REFUSED])
def test_what_has_no_translation_is_refused_by_its_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat_request(asked(**fields))
    assert (refused.value.status, refused.value.param) == (400, param)


def test_a_reference_to_what_is_not_stored_says_what_to_send() -> None:
    for fields in ({"previous_response_id": "resp_1"}, {"input": [{"type": "item_reference", "id": "msg_1"}]}):
        with pytest.raises(InvalidRequest, match="not stored here: send the earlier items themselves in 'input'"):
            chat_request(asked(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"input": ""}, {"input": []}, {"input": [said("tool", "x")]}, {"input": [{}]}, {"input": ["Hi"]}, {"seed": 1},
        {"input": [said("user", "x")] * (ITEM_LIMIT + 1)}, {"max_output_tokens": 0}, {"temperature": 3},
        {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, {"text": {"format": "xml"}},
        {"input": [CALL | {"async": True}]}, {"tools": [TOOL | {"async": True}]},
        {"input": [said("user", [{"text": "a"}])]}, {"tools": [{"type": "function"}]}, {"input": "\ud800"},
    ],
)  # fmt: skip
def test_what_openai_would_not_accept_is_invalid(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        asked(**fields)


def test_the_longest_request_is_a_valid_chat_completion() -> None:
    assert len(messages(*[said("user", "x")] * ITEM_LIMIT, instructions="i")) == ITEM_LIMIT + 1


@pytest.mark.parametrize(
    ("chat", "own"),
    [
        ("messages", "input"),
        ("messages[0]", "instructions"),
        ("messages[0].content", "instructions"),
        ("messages[1].content[2]", "input[0].content[2]"),
        ("messages[2].tool_calls[1].function.arguments", "input[2].arguments"),
        ("messages[2].tool_calls[0].id", "input[1].call_id"),
        ("messages[3].tool_call_id", "input[3].call_id"),
        ("messages[3].content", "input[3].output"),
        ("messages[9]", "input"),
        ("response_format.type", "text.format.type"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("max_tokens", "max_output_tokens"),
        ("tools[1].function.name", "tools[1].name"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("temperature", "temperature"),
    ],
)
def test_a_chat_completions_field_is_named_as_the_caller_sent_it(chat: str, own: str) -> None:
    items = [said("user", "u"), CALL, CALL | {"call_id": "c2"}, OUTPUT]
    places = chat_request(asked(instructions="i", input=items)).places
    assert places.caller_name(chat) == own
    error = places.caller_error(InvalidRequest(f"'{chat}' is wrong.", param=chat, code="x"))
    assert (error.param, error.code) == (own, "x")


async def test_an_error_in_a_stream_has_openais_codes() -> None:
    async def broken(error: Exception) -> AsyncGenerator[bytes]:
        yield chunk({"content": "a"})
        raise error

    async def last(error: Exception) -> dict[str, Any]:
        places = Places((Place("input", ""),))
        pieces = [piece async for piece in streamed(begun(asked(), "m"), places, broken(error))]
        events = b"".join(pieces).split(b"\n\n")[:-1]
        event, failed = (orjson.loads(event.split(b"data: ")[1]) for event in events[-2:])
        assert event["message"] == failed["response"]["error"]["message"]
        Response.model_validate(failed["response"])
        return {"code": failed["response"]["error"]["code"], "param": event["param"]}

    assert await last(RateLimited("Slower.")) == {"code": "rate_limit_exceeded", "param": None}
    refused = InvalidRequest("Too long.", param="messages[0].content")
    assert await last(refused) == {"code": "invalid_prompt", "param": "input"}
