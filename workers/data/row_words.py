"""A row as three texts: what is asked, what is answered, and everything. For what compares rows with each other.

Does not depend on a base: a row that two templates render differently is the same row.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from service.recipes.formats.chat import ChatRow, Message
from service.recipes.formats.completion import PromptRow
from service.recipes.formats.contrastive import ContrastiveRow
from service.recipes.formats.labelled import LabelledRow
from service.recipes.formats.preference import PreferenceRow
from service.recipes.formats.unpaired import UnpairedChatRow, UnpairedPromptRow
from workers.data.render import AnyRow


@dataclass(frozen=True)
class RowWords:
    """`question` decides what may be answered; `said` is what people and assistants say in it, without instructions.

    `whole` is all of the row, equal for equal rows only.
    """

    question: str
    answer: str
    said: str
    whole: str


def row_words(row: AnyRow) -> RowWords:
    """The texts of a row of any format."""
    whole = json.dumps(row.model_dump(mode="json", exclude_none=True), sort_keys=True, ensure_ascii=False)
    if isinstance(row, UnpairedChatRow | UnpairedPromptRow):
        question, answer, said = _asked_and_answered(row)
        # Two labels contradict each other where they are about the same answer.
        return RowWords(json.dumps([question, answer]), json.dumps(row.label), said, whole)
    if isinstance(row, PreferenceRow):
        preferred, other = (_answer(conversation) for conversation in row.conversations)
        # Two pairs contradict each other where they are about the same two answers.
        question = json.dumps([_question(row.conversations[0]), *sorted((preferred, other))])
        return RowWords(question, preferred, f"{_said(row.conversations[0])} {other}", whole)
    if isinstance(row, ChatRow | PromptRow):
        return RowWords(*_asked_and_answered(row), whole)
    if isinstance(row, LabelledRow):
        content = row.content
        said = content if isinstance(content, str) else _spoken(content)
        question = content if isinstance(content, str) else _dumped(content)
        return RowWords(question, json.dumps(sorted(row.names), ensure_ascii=False), said, whole)
    if isinstance(row, ContrastiveRow):  # an anchor may have several positives: only equal rows are about the same
        return RowWords(whole, whole, " ".join(row.texts.values()), whole)
    return RowWords(row.text, row.text, row.text, whole)


def _asked_and_answered(row: ChatRow | PromptRow) -> tuple[str, str, str]:
    """Question, answer, and what is said."""
    if isinstance(row, PromptRow):
        return row.prompt, row.completion, f"{row.prompt} {row.completion}"
    return _question(row), _answer(row), _said(row)


def _question(row: ChatRow) -> str:
    """All before the last trained message, with the tools."""
    tools = [tool.model_dump(mode="json") for tool in row.tools]
    return _dumped(row.messages[: row.trained[-1]]) + json.dumps(tools, sort_keys=True, ensure_ascii=False)


def _dumped(messages: Sequence[Message]) -> str:
    plain = [message.model_dump(mode="json", exclude_none=True) for message in messages]
    return json.dumps(plain, sort_keys=True, ensure_ascii=False)


def _answer(row: ChatRow) -> str:
    """The last trained message: its content, or all of it where it calls tools."""
    message = row.messages[row.trained[-1]]
    content = message.content if isinstance(message.content, str) else ""
    calls = message.model_dump(mode="json", include={"tool_calls", "function_call"}, exclude_defaults=True)
    return content + json.dumps(calls, sort_keys=True) if calls else content


def _said(row: ChatRow) -> str:
    return _spoken(row.messages)


def _spoken(messages: Sequence[Message]) -> str:
    """Without system and tool messages, which many rows of a file share."""
    spoken = (message.content for message in messages if message.role in ("user", "assistant"))
    return " ".join(content for content in spoken if isinstance(content, str))
