"""Lines of training files: what is read, what is refused, and in which words."""

import json
from typing import Any

import pytest

from service.recipes.dataset import Problem, details, parse_row, report, report_too_few
from service.recipes.format import Row
from service.recipes.formats.chat import MESSAGES_LIMIT, ChatRow
from service.recipes.formats.completion import PromptRow
from service.recipes.objectives.supervised import SupervisedSettings

USER = {"role": "user", "content": "How long does it dry?"}
ANSWER = {"role": "assistant", "content": "A day."}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"shelf": 2}'}}
ONE_LINE = "a row is one line: write a line break in a text as \\n"
PYTHON = "it looks like a Python object: write rows with json.dumps"
LINE_FEED = "end each with a line feed (LF)"
JOINED = "as where files were joined; write a line feed instead"
ARRAY = 'write a conversation as {"messages": [...]}, and each row on a line of its own'


def line(*messages: Any, **rest: Any) -> bytes:
    return json.dumps({"messages": list(messages)} | rest).encode()


def chat(*messages: Any, **rest: Any) -> ChatRow:
    row = parsed(line(*messages, **rest))
    assert isinstance(row, ChatRow)
    return row


def parsed(text: bytes, number: int = 1) -> Row:
    found = parse_row(text, number, SupervisedSettings)
    assert isinstance(found, tuple), found
    return found[1]


def problems(data: bytes | dict[str, Any], number: int = 3) -> list[tuple[str, str]]:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    found = parse_row(text, number, SupervisedSettings)
    assert isinstance(found, list), found
    assert all(problem.line == number for problem in found)
    return [(problem.field, problem.reason) for problem in found]


def test_every_documented_role_is_read() -> None:
    row = chat(
        {"role": "system", "content": ""},
        {"role": "developer", "content": "Be brief.", "name": "Ann"},
        USER | {"name": "Ben"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "", "tool_call_id": "c1"},
        {"role": "assistant", "function_call": {"name": "look", "arguments": "{}"}, "weight": 0},
        {"role": "function", "content": None, "name": "look"},
        ANSWER | {"weight": 1},
        tools=[{"type": "function", "function": {"name": "look", "strict": True, "parameters": {"type": "object"}}}],
        functions=[{"name": "look"}],
        parallel_tool_calls=False,
    )
    assert [message.role for message in row.messages] == [
        "system", "developer", "user", "assistant", "tool", "assistant", "function", "assistant",
    ]  # fmt: skip
    assert row.trained == [3, 7]


def test_text_parts_are_joined_by_newlines() -> None:
    row = chat({"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}, ANSWER)
    assert row.messages[0].content == "one\ntwo"


def test_a_message_pasted_from_an_api_answer_is_read_with_its_nulls() -> None:
    pasted = ANSWER | {"refusal": None, "audio": None, "tool_calls": None, "function_call": None, "weight": None}
    assert chat(USER, pasted).trained == [1]


def test_a_message_pasted_from_an_api_answer_is_read_with_what_is_empty_in_it() -> None:
    empty = {"refusal": "", "annotations": [], "audio": {}, "tool_calls": [], "function_call": {}, "reasoning": None}
    assert chat(USER | {"annotations": []}, ANSWER | empty).trained == [1]


@pytest.mark.parametrize(
    ("name", "value"), [("refusal", "No."), ("annotations", [{"type": "url_citation"}]), ("audio", {"id": "a"})]
)
def test_what_an_api_answer_says_beside_its_text_is_refused(name: str, value: Any) -> None:
    reason = f'contains an extra "{name}" that is not empty, which no chat template shows; remove it'
    assert problems(line(USER, ANSWER | {name: value})) == [(f"messages[1].{name}", reason)]


@pytest.mark.parametrize(("weight", "trained"), [(1.0, [1, 3]), (0.0, [3]), (1, [1, 3]), (0, [3])])
def test_a_weight_is_a_number_of_json(weight: float, trained: list[int]) -> None:
    assert chat(USER, ANSWER | {"weight": weight}, USER, ANSWER).trained == trained


@pytest.mark.parametrize(
    ("text", "field", "key"),
    [
        ('{"prompt": "a", "completion": "b", "completion": "c"}', "completion", "completion"),
        ('{"messages": [{"role": "user", "content": "a", "content": "a"}]}', "messages[0].content", "content"),
        ('{"messages": [], "tools": [{"function": {"parameters": {"x": {"y": 1, "z": 2, "y": 1}}}}]}',
         "tools[0].function.parameters.x.y", "y"),
        ('{"prompt": "a", "completion": "b", "pr\\u006fmpt": "c"}', "prompt", "prompt"),
        ('{"a": ' + "9" * 4000 + ', "a": 1e5}', "a", "a"),
    ],
)  # fmt: skip
def test_a_doubled_key_is_named_at_any_depth(text: str, field: str, key: str) -> None:
    assert problems(text.encode()) == [(field, f'has the key "{key}" twice; remove one of them')]


def test_a_doubled_key_in_the_arguments_of_a_call_is_named() -> None:
    call = CALL | {"function": {"name": "look", "arguments": '{"shelf": 2, "shelf": 3}'}}
    field = "messages[1].tool_calls[0].function.arguments"
    found = problems(line(USER, {"role": "assistant", "tool_calls": [call]}))
    assert found == [(field, 'has the key "shelf" twice; remove one of them')]


def test_the_same_key_in_two_objects_is_fine() -> None:
    assert chat(USER, ANSWER, USER, ANSWER).trained == [1, 3]


def test_columns_that_a_table_left_empty_do_not_decide_the_format() -> None:
    row = parsed(json.dumps({"messages": [USER, ANSWER], "prompt": None, "completion": None}).encode())
    assert isinstance(row, ChatRow)


def test_prompt_and_completion_are_read_as_they_stand() -> None:
    assert parsed(b'{"prompt": " a ", "completion": " b\\n"}') == PromptRow(prompt=" a ", completion=" b\n")


def test_a_bom_is_fine_on_the_first_line_only() -> None:
    marked = b"\xef\xbb\xbf" + line(USER, ANSWER)
    assert isinstance(parsed(marked), ChatRow)
    joined = "as where two files were joined; remove the mark"
    assert problems(marked, 2) == [("", f"begins with a byte-order mark (BOM), {joined}")]
    assert problems(b"\xef\xbb\xbf" + marked, 1) == [("", f"begins with a byte-order mark (BOM), {joined}")]


def test_a_carriage_return_at_the_end_is_fine() -> None:
    assert isinstance(parsed(line(USER, ANSWER) + b"\r", 2), ChatRow)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"messages": "\xff"}', [("", "is not UTF-8 (byte 15); save the file as UTF-8")]),
        ("größe".encode("utf-16"), [("", "is not UTF-8 (byte 1); save the file as UTF-8")]),
        (b'{"messages": [', [("", f"is not JSON: EOF while parsing a list at column 14; {ONE_LINE}")]),
        (b"{} {}", [("", "is not JSON: trailing characters at column 4; write one object on each line")]),
        (b"{},", [("", "is not JSON: trailing characters at column 3; remove the comma at the end of the line")]),
        (b"{'a': 1}", [("", f"is not JSON: key must be a string at column 2; {PYTHON}")]),
        (b"{}\r{}", [("", f"holds several rows, separated by carriage returns (CR) alone; {LINE_FEED}")]),
        (b"{}\xef\xbb\xbf{}", [("", f"holds a byte-order mark (BOM) between two rows, {JOINED}")]),
        (b'[{"role": "user"}]', [("", f"is an array; {ARRAY}")]),
        (b"[1]", [("", "is not an object")]),
        (b"null", [("", "is not an object")]),
        ({}, [("", "Unexpected file format, expected either prompt/completion pairs or chat messages.")]),
        ({"messages": []}, [("messages", "has no messages")]),
        ({"messages": None}, [("messages", 'has no "messages"')]),
        ({"messages": "hi"}, [("messages", "Input should be a valid list")]),
        ({"messages": [USER]}, [("messages", "has no assistant message")]),
        (
            {"messages": [USER, ANSWER | {"weight": 0}]},
            [("messages", "trains no token: every assistant message has weight 0")],
        ),
        ({"messages": [USER, "hi"]}, [("messages[1]", "is not an object")]),
        ({"messages": [{"content": "hi"}]}, [("messages[0].role", "Discriminator 'role' is missing in value")]),
        (
            {"messages": [{"role": "bot", "content": "hi"}]},
            [
                (
                    "messages[0].role",
                    'has the unknown role "bot"; write "assistant": the roles are '
                    "system, developer, user, assistant, tool, function",
                )
            ],
        ),
        (
            {"messages": [USER | {"weight": 1}, ANSWER]},
            [("messages[0].weight", 'contains an extra "weight": only assistant messages have one')],
        ),
        ({"messages": [USER, ANSWER | {"weight": 2}]}, [("messages[1].weight", "must be a number from 0 to 1")]),
        ({"messages": [USER, ANSWER | {"weight": -0.5}]}, [("messages[1].weight", "must be a number from 0 to 1")]),
        ({"messages": [USER, ANSWER | {"weight": True}]}, [("messages[1].weight", "must be a number from 0 to 1")]),
        ({"messages": [USER, ANSWER], "weight": 1.5}, [("weight", "must be a number from 0 to 1")]),
        ({"messages": [USER, ANSWER], "weight": "1"}, [("weight", "must be a number from 0 to 1")]),
        ({"messages": [USER, ANSWER | {"mood": "good"}]}, [("messages[1].mood", 'contains an extra "mood"')]),
        ({"messages": [USER, ANSWER], "prompt": "hi"}, [("prompt", 'contains an extra "prompt"')]),
        ({"messages": [USER | {"content": " \n"}, ANSWER]}, [("messages[0].content", "is empty")]),
        ({"messages": [USER, ANSWER | {"content": ""}]}, [("messages[1].content", "is empty")]),
        ({"messages": [USER, {"role": "assistant", "tool_calls": []}]}, [("messages[1].content", "is empty")]),
        ({"messages": [{"role": "user"}, ANSWER]}, [("messages[0].content", 'has no "content"')]),
        ({"messages": [{"role": "function", "content": "x"}, ANSWER]}, [("messages[0].name", 'has no "name"')]),
        ({"prompt": "hi"}, [("completion", 'has no "completion"')]),
        ({"prompt": "hi", "completion": ""}, [("completion", "is empty")]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(data: bytes | dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert problems(data) == expected


def test_all_problems_of_a_row_are_found() -> None:
    found = problems({"messages": [USER | {"weight": 1}, {"role": "bot"}, ANSWER | {"weight": 3}]})
    assert [field for field, _ in found] == ["messages[0].weight", "messages[1].role", "messages[2].weight"]


def test_images_are_refused() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    found = problems(line({"role": "user", "content": [{"type": "text", "text": "see"}, image]}, ANSWER))
    assert found == [("messages[0].content", "holds an image; only text can be trained on")]


def test_a_part_that_is_not_text_is_refused() -> None:
    found = problems(line({"role": "user", "content": [{"type": "input_audio"}]}, ANSWER))
    assert found == [("messages[0].content", 'holds a part that is not {"type": "text", "text": "..."}')]


def test_arguments_that_are_not_an_object_are_refused() -> None:
    call = CALL | {"function": {"name": "look", "arguments": "[1]"}}
    field = "messages[1].tool_calls[0].function.arguments"
    assert problems(line(USER, {"role": "assistant", "tool_calls": [call]})) == [
        (field, "is not the JSON text of an object")
    ]


def test_a_lone_surrogate_is_not_text() -> None:
    assert problems(b'{"prompt": "\\ud800", "completion": "x"}')[0][1].startswith("is not JSON")


def test_a_bottomless_line_is_a_problem_and_no_crash() -> None:
    assert problems(b"[" * 100_000)[0][1].startswith("is not JSON: recursion limit exceeded")


def test_a_row_of_too_many_messages_is_one_problem() -> None:
    assert problems(line(*[USER] * MESSAGES_LIMIT, ANSWER)) == [("messages", "has more than 2048 messages")]


def test_a_row_tells_at_most_a_hundred_problems() -> None:
    assert len(problems(line(*[{}] * MESSAGES_LIMIT))) == 100


def test_what_the_user_wrote_is_repeated_in_short() -> None:
    field, reason = problems(line(USER, ANSWER | {"k" * 1000: 1}))[0]
    assert len(field) < 100 and len(reason) < 100


def test_the_error_names_example_and_message_from_one() -> None:
    error = report([Problem(100, "messages[1].role", "Discriminator 'role' is missing in value")], 1, "training_file")
    assert (error.code, error.param) == ("invalid_training_file", "training_file")
    assert error.message == (
        "The job failed due to an invalid training file. Invalid file format. "
        "Example 100, message 2: Discriminator 'role' is missing in value (messages[1].role)"
    )


def test_the_error_of_a_validation_file_has_its_own_code() -> None:
    error = report([Problem(1, "", "is not JSON")], 1, "validation_file")
    assert (error.code, error.param) == ("invalid_validation_file", "validation_file")
    assert error.message == (
        "The job failed due to an invalid validation file. Invalid file format. Example 1: is not JSON"
    )


def test_an_extra_key_is_an_error_of_the_format() -> None:
    found = parse_row(line(USER, ANSWER, mood=1), 1, SupervisedSettings)
    assert isinstance(found, list)
    error = report(found, 1, "training_file")
    assert error.code == "invalid_file_format"
    assert error.message == (
        "The job failed due to a file format error in the training file. Invalid file format. "
        'Example 1: contains an extra "mood" (mood)'
    )


def test_the_error_shows_twenty_problems_and_the_event_ten_thousand() -> None:
    found = [Problem(number, "", "is blank") for number in range(1, 12_001)]
    message = report(found, 12_345, "training_file").message
    assert "Example 20: is blank; and 12325 more" in message
    assert "Example 21:" not in message
    data = details(found, 12_345)
    assert (len(data["problems"]), data["total"]) == (10_000, 12_345)
    assert data["problems"][0] == {"line": 1, "field": "", "reason": "is blank"}


def test_too_few_examples_are_told_in_openais_words() -> None:
    error = report_too_few(7, 10, "training_file")
    assert (error.code, error.param) == ("invalid_n_examples", "training_file")
    assert error.message == "Training file has 7 example(s), but must have at least 10 examples"
    assert report_too_few(0, 1, "validation_file").message == (
        "Validation file has 0 example(s), but must have at least 1 example"
    )
