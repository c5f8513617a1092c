"""Why a job fails by its training file: method, lines, code, parts of the message with the number of the line."""

import json
from typing import Any

from tests.contract.error_table import ROWS


def chat(*messages: Any) -> bytes:
    return json.dumps({"messages": list(messages)}).encode()


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
PREFERENCE = json.dumps({"input": {"messages": [USER]}, "preferred_output": [ASSISTANT]}).encode()
INVALID = "The job failed due to an invalid training file. Invalid file format. Example"


def preference(**fields: Any) -> bytes:
    row = {"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [WORSE]}
    return json.dumps(row | fields).encode()


WORSE = {"role": "assistant", "content": "c"}
PREFERRED = preference()

FILES: list[tuple[str, list[bytes], str, list[str]]] = [
    (
        "supervised",
        ROWS[:7],
        "invalid_n_examples",
        ["Training file has 7 example(s), but must have at least 10 examples"],
    ),
    (
        "supervised",
        [*ROWS[:10], chat(USER, {"content": "b"})],
        "invalid_training_file",
        [INVALID, "Example 11, message 2", "Discriminator 'role' is missing in value"],
    ),
    ("supervised", [*ROWS, b"{"], "invalid_training_file", [INVALID, "Example 13", "is not JSON"]),
    ("supervised", [*ROWS, PREFERENCE], "invalid_training_file", [INVALID, "Example 13"]),
    (
        "supervised",
        [PREFERENCE] * 12,
        "invalid_training_file",
        ["as the training method (provided method=supervised)", "'dpo', 'kto', "],
    ),
    (
        "supervised",
        [b'{"question": "a", "answer": "b"}', *ROWS],
        "invalid_training_file",
        [INVALID, "Example 1", "looks like a question with its answer"],
    ),
    (
        "supervised",
        [b'{"mood": "a"}', *ROWS],
        "invalid_training_file",
        [INVALID, "Example 1", "Unexpected file format, expected either prompt/completion pairs or chat messages."],
    ),
    (
        "supervised",
        [chat(USER | {"weight": 1}, ASSISTANT), *ROWS],
        "invalid_file_format",
        ["The job failed due to a file format error in the training file.", "Example 1", 'contains an extra "weight"'],
    ),
    (
        "supervised",
        [
            *ROWS[:4],
            chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ASSISTANT),
            *ROWS,
        ],
        "invalid_training_file",
        [INVALID, "Example 5, message 1", "holds an image"],
    ),
    ("supervised", [*ROWS, chat(USER)], "invalid_training_file", [INVALID, "Example 13", "no assistant message"]),
    (
        "supervised",
        [*ROWS, chat(USER, ASSISTANT | {"weight": 0})],
        "invalid_training_file",
        [INVALID, "Example 13", "trains no token"],
    ),
    ("supervised", [*ROWS, chat(USER, ASSISTANT | {"weight": 2})], "invalid_training_file", ["Example 13", "0 to 1"]),
    ("supervised", [*ROWS, chat()], "invalid_training_file", [INVALID, "Example 13", "has no messages"]),
    (
        "supervised",
        [*ROWS, b'{"prompt": "a"}'],
        "invalid_training_file",
        [INVALID, "Example 13", 'has no "completion"'],
    ),
    (
        "dpo",
        [PREFERRED] * 9,
        "invalid_n_examples",
        ["Training file has 9 example(s), but must have at least 10 examples"],
    ),
    (
        "dpo",
        ROWS,
        "invalid_training_file",
        [
            "is in the fine-tune-chat format, but the specified fine-tuning job is not using 'supervised' "
            "as the training method (provided method=dpo)."
        ],
    ),
    ("dpo", [*[PREFERRED] * 10, PREFERENCE], "invalid_training_file", [INVALID, "Example 11", "non_preferred_output"]),
    (
        "dpo",
        [*[PREFERRED] * 10, preference(preferred_output=[ASSISTANT, ASSISTANT])],
        "invalid_training_file",
        [INVALID, "Example 11", "must hold exactly one assistant message"],
    ),
    (
        "dpo",
        [*[PREFERRED] * 10, preference(input={"messages": [{"role": "robot", "content": "x"}]})],
        "invalid_training_file",
        [INVALID, "Example 11, message 1", 'unknown role "robot"'],
    ),
    (
        "dpo",
        [*[PREFERRED] * 10, preference(preferred_completion=[ASSISTANT])],
        "invalid_training_file",
        ["Example 11", "preferred_output"],
    ),
    ("dpo", [*[PREFERRED] * 10, b"{"], "invalid_training_file", [INVALID, "Example 11", "is not JSON"]),
]
