"""Rows of other tools: named, with how to write them here; rows of ours and of extensions never taken for theirs."""

import json
import re
from typing import Any

import pytest

from service.recipes.dataset import ForeignRow, Problem, WrongFormat, parse_row
from service.recipes.objective import ObjectiveSettings
from service.recipes.objectives.dpo import DpoSettings
from service.recipes.objectives.embedding import EmbeddingSettings
from service.recipes.objectives.supervised import SupervisedSettings

USER = {"role": "user", "content": "How long does it dry?"}
ANSWER = {"role": "assistant", "content": "A day."}
TURNS = [{"from": "human", "value": "How long?"}, {"from": "gpt", "value": "A day."}]
GEMINI = [{"role": "user", "parts": [{"text": "How long?"}]}, {"role": "model", "parts": [{"text": "A day."}]}]

# row -> whose it is, and what the rewriting must name
CHAT: list[tuple[dict[str, Any], str, str]] = [
    ({"instruction": "a", "input": "", "output": "b"}, "an Alpaca row", "<instruction and input>"),
    ({"instruction": "a", "output": "b"}, "an Alpaca row", "<output>"),
    ({"instruction": "a", "input": "", "output": "b", "system": "c", "history": []}, "an Alpaca row", '"system"'),
    ({"instruction": "a", "context": "", "response": "b", "category": "qa"}, "a Dolly row", "<response>"),
    ({"conversations": TURNS}, "a ShareGPT conversation", '"from" becomes "role"'),
    ({"id": 7, "conversations": TURNS, "system": "s", "tools": "[]"}, "a ShareGPT conversation", '"value"'),
    ({"messages": TURNS}, "a ShareGPT conversation", '"human" is "user"'),
    ({"contents": GEMINI}, "a conversation of Gemini's", '"contents" becomes "messages"'),
    ({"systemInstruction": {}, "contents": GEMINI}, "a conversation of Gemini's", "systemInstruction"),
    ({"messages": GEMINI}, "a conversation of Gemini's", '"parts"'),
    ({"system": "s", "messages": [USER, ANSWER]}, "a conversation of Anthropic's", '"role": "system"'),
    ({"schemaVersion": "bedrock", "system": [], "messages": [USER, ANSWER]}, "a conversation of Amazon", "string"),
    ({"prompt": [USER], "completion": [ANSWER]}, "a conversational prompt/completion row of TRL", '"messages"'),
    ({"prompt": [USER], "completion": "A day."}, "a conversational prompt", "<completion>"),
    ({"input_text": "a", "output_text": "b"}, "a pair of Vertex AI", "<input_text>"),
    ({"custom_id": "1", "method": "POST", "url": "/v1", "body": {}}, "a request of OpenAI's Batch API", '"body"'),
    ({"id": "c", "object": "chat.completion", "choices": []}, "a response of the chat API", '"choices"[0]'),
    ({"question": "a", "answer": "b"}, "a question with its answer", "<question>"),
    ({"prompt": "a", "response": "b"}, "a question with its answer", "<response>"),
    ({"input": "a", "output": "b"}, "a question with its answer", "<input>"),
    ({"input_ids": [1], "labels": [1]}, "tokens, not text", "text"),
    ({"dialogue": [USER, ANSWER]}, "a conversation under another key", 'rename "dialogue"'),
    ({"data": [{"messages": [USER, ANSWER]}]}, "a list of rows", "a line of its own"),
]
COMPLETION: list[tuple[dict[str, Any], str, str]] = []
PREFERENCE: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, "a preference of TRL", "<chosen>"),
    ({"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, "a preference of TRL", "lists of messages"),
    ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "a preference of TRL", "last message"),
    ({"prompt": "a", "messages": [USER, ANSWER], "chosen": [], "rejected": []}, "a preference of TRL", "<rejected>"),
    ({"conversations": TURNS, "chosen": TURNS[1], "rejected": TURNS[1]}, "a preference of LLaMA-Factory", "messages"),
    ({"messages": [USER, ANSWER], "rejected_response": "b"}, "a preference of ms-swift", "<rejected_response>"),
]


CONTRASTIVE: list[tuple[dict[str, Any], str, str]] = [
    ({"query": "a", "pos": ["b"], "neg": ["c"]}, "a row of FlagEmbedding", '"anchor": <query>'),
    ({"query": "a", "positive": "b", "negative": "c"}, "a pair of texts under other names", 'rename "query"'),
    ({"text": "a", "positive": "b"}, "a pair of texts under other names", 'rename "text"'),
]


def foreign(row: dict[str, Any], objective: type[ObjectiveSettings]) -> str:
    with pytest.raises(ForeignRow) as caught:
        parse_row(json.dumps(row).encode(), 1, objective)
    return caught.value.reason


@pytest.mark.parametrize(("row", "name", "says"), CHAT + COMPLETION)
def test_a_row_of_another_tool_is_named_with_how_to_write_it(row: dict[str, Any], name: str, says: str) -> None:
    reason = foreign(row, SupervisedSettings)
    assert reason.startswith(f"looks like {name}") and says in reason
    assert "which is for" not in reason
    if row.keys() != {"messages"} and row.keys() != {"prompt", "completion"}:
        assert ", which is for the method 'supervised'; " in foreign(row, DpoSettings)


@pytest.mark.parametrize(("row", "name", "says"), CONTRASTIVE)
def test_texts_of_another_tool_are_named_with_how_to_write_them(row: dict[str, Any], name: str, says: str) -> None:
    reason = foreign(row, EmbeddingSettings)
    assert reason.startswith(f"looks like {name};") and says in reason
    assert ", which is for the method 'embedding'; " in foreign(row, SupervisedSettings)


@pytest.mark.parametrize(("row", "name", "says"), PREFERENCE)
def test_a_preference_of_another_tool_is_named_with_how_to_write_it(row: dict[str, Any], name: str, says: str) -> None:
    reason = foreign(row, DpoSettings)
    assert reason.startswith(f"looks like {name};") and says in reason
    readers = "'dpo', 'kto', 'orpo', 'reward_model' or 'simpo'"
    assert f", which is for the method {readers}; " in foreign(row, SupervisedSettings)


def test_turns_of_sharegpt_within_a_preference_are_named() -> None:
    row = {"input": {"messages": TURNS}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
    assert foreign(row, DpoSettings).startswith("looks like a ShareGPT conversation;")


@pytest.mark.parametrize(
    ("rows", "objective", "begin"),
    [(CHAT, SupervisedSettings, r'\{"messages": \[\{'), (PREFERENCE, DpoSettings, r'\{"input"')],
)
def test_what_is_advised_is_a_row(
    rows: list[tuple[dict[str, Any], str, str]], objective: type[ObjectiveSettings], begin: str
) -> None:
    advised = []
    for row, _, _ in rows:
        reason = re.sub(r'"content": (\.\.\.|"?<[\w\s]+>"?)', '"content": "x"', foreign(row, objective))
        for start in re.finditer(begin, reason):
            advised.append(json.JSONDecoder().raw_decode(reason, start.start())[0])
    assert len(advised) >= 6
    for row in advised:
        assert isinstance(parse_row(json.dumps(row).encode(), 1, objective), tuple), row


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER], "text": "as one", "question": "a", "answer": "b"},
        {"messages": [USER, ANSWER], "dialogue": [USER, ANSWER]},
        {"prompt": "a", "completion": "b", "text": "ab"},
    ],
)
def test_a_complete_row_with_notes_beside_it_is_ours(row: dict[str, Any]) -> None:
    found = parse_row(json.dumps(row).encode(), 1, SupervisedSettings)
    assert isinstance(found, list)
    assert {problem.reason.split(' "')[0] for problem in found} == {"contains an extra"}


def test_a_row_of_ours_for_another_method_is_named_by_its_format() -> None:
    row = {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}
    with pytest.raises(WrongFormat):
        parse_row(json.dumps(row).encode(), 1, SupervisedSettings)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("output_text", "is one of the Responses API; write it as"),
        ("tool_use", 'into "tool_calls"'),
        ("tool_result", 'the role "tool"'),
        ("thinking", '"reasoning_content"'),
        ("refusal", "no chat template shows"),
    ],
)
def test_a_content_part_of_another_api_is_named(kind: str, says: str) -> None:
    row = {"messages": [USER, ANSWER | {"content": [{"type": kind, "text": "A day."}]}]}
    found = parse_row(json.dumps(row).encode(), 4, SupervisedSettings)
    assert isinstance(found, list)
    (problem,) = found
    assert isinstance(problem, Problem)
    assert (problem.line, problem.field) == (4, "messages[1].content")
    assert f'holds a "{kind}" part' in problem.reason and says in problem.reason
