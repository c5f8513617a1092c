"""What is seen of one row of a file by whoever compares it with others (`workers.data.advice`).

Depends on that row alone, so it may come from another process; not on a base: a row that two templates render
differently is the same row. The row's three texts (what is asked, what is answered, and everything) become numbers,
and nothing else of them is kept.
"""

import hashlib
import json
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from rensa import RMinHash

from service.recipes.formats.chat import ChatRow, Message
from service.recipes.formats.completion import PromptRow
from service.recipes.formats.contrastive import ContrastiveRow
from service.recipes.formats.labelled import LabelledRow
from service.recipes.formats.preference import PreferenceRow
from service.recipes.formats.unpaired import UnpairedChatRow, UnpairedPromptRow
from workers.data.lines import Glance
from workers.data.personal import kinds_in
from workers.data.render import AnyRow

PERMUTATIONS = 64  # of a signature
WORDS_READ, SHINGLE, FEWEST_WORDS = 2000, 3, 6
LABEL_LETTERS = 40  # of an answer that may be a label
_WORD = re.compile(r"\w+")
_EMPTY = re.compile(r"[\s.…,;:_\-–—'\"]*")


def glance(row: AnyRow, sign: bool) -> Glance:
    """What advice on a file needs of the row; `sign`: with its signature."""
    words = _row_words(row)
    return Glance(
        _hash(words.whole),
        _hash(words.question),
        _hash(words.answer),
        _signature(words.said) if sign else None,
        _EMPTY.fullmatch(words.answer) is not None,
        len(words.answer) <= LABEL_LETTERS,
        sorted(kinds_in(words.whole)),
    )


@dataclass(frozen=True)
class _RowWords:
    """`question` decides what may be answered; `said` is what people and assistants say in it, without instructions.

    `whole` is all of the row, equal for equal rows only.
    """

    question: str
    answer: str
    said: str
    whole: str


def _row_words(row: AnyRow) -> _RowWords:
    """The texts of a row of any format."""
    whole = json.dumps(row.model_dump(mode="json", exclude_none=True), sort_keys=True, ensure_ascii=False)
    if isinstance(row, UnpairedChatRow | UnpairedPromptRow):
        question, answer, said = _asked_and_answered(row)
        # Two labels contradict each other where they are about the same answer.
        return _RowWords(json.dumps([question, answer]), json.dumps(row.label), said, whole)
    if isinstance(row, PreferenceRow):
        preferred, other = (_answer(conversation) for conversation in row.conversations)
        # Two pairs contradict each other where they are about the same two answers.
        question = json.dumps([_question(row.conversations[0]), *sorted((preferred, other))])
        return _RowWords(question, preferred, f"{_said(row.conversations[0])} {other}", whole)
    if isinstance(row, ChatRow | PromptRow):
        return _RowWords(*_asked_and_answered(row), whole)
    if isinstance(row, LabelledRow):
        content = row.content
        said = content if isinstance(content, str) else _spoken(content)
        question = content if isinstance(content, str) else _dumped(content)
        return _RowWords(question, json.dumps(sorted(row.names), ensure_ascii=False), said, whole)
    if isinstance(row, ContrastiveRow):  # an anchor may have several positives: only equal rows are about the same
        return _RowWords(whole, whole, " ".join(row.texts.values()), whole)
    return _RowWords(row.text, row.text, row.text, whole)


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


def _hash(text: str) -> int:
    """64 bits: of ten million rows, two that differ look equal with a probability of 1 in 370,000."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _signature(said: str) -> bytes | None:
    words = _WORD.findall(said.lower())[:WORDS_READ]
    if len(words) < FEWEST_WORDS:
        return None  # too short to be nearly anything
    minhash = RMinHash(num_perm=PERMUTATIONS, seed=1)
    minhash.update([" ".join(words[place : place + SHINGLE]) for place in range(len(words) - SHINGLE + 1)])
    return array("I", minhash.digest()).tobytes()
