"""Questions whose answers are known: reading them, asking a model, counting exact matches.

Knows the rows of a chat data set and the official `openai` SDK, and nothing of Luthier.
"""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from openai import OpenAI

CONCURRENT_REQUESTS = 16


@dataclass(frozen=True)
class Question:
    """What a user writes, and the one right answer."""

    text: str
    answer: str


def read_questions(path: Path) -> list[Question]:
    """Every row of a JSONL file in chat format: one user message, one assistant message."""
    rows = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [Question(user["content"], assistant["content"]) for user, assistant in rows]


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """The questions as rows in chat format, as a fine-tuning job reads them."""
    with path.open("w", encoding="utf-8") as stream:
        for question in questions:
            user = {"role": "user", "content": question.text}
            assistant = {"role": "assistant", "content": question.answer}
            stream.write(json.dumps({"messages": [user, assistant]}) + "\n")


def not_among(questions: Sequence[Question], others: Sequence[Question]) -> list[Question]:
    """The questions that are not in `others`; case and spaces make no difference."""
    known = {_plain(other.text) for other in others}
    return [question for question in questions if _plain(question.text) not in known]


def ask_all(client: OpenAI, model: str, questions: Sequence[Question], max_tokens: int, told: str = "") -> list[str]:
    """The model's answers in the order of the questions; several are asked at once."""
    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        return list(pool.map(lambda question: ask(client, model, question, max_tokens, told), questions))


def ask(client: OpenAI, model: str, question: Question, max_tokens: int, told: str = "") -> str:
    """One chat completion, the most probable tokens; `told` precedes the question."""
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": told + question.text}], temperature=0, max_tokens=max_tokens
    )
    return (answer.choices[0].message.content or "").strip()


def count_right(questions: Sequence[Question], answers: Sequence[str]) -> int:
    """Exact matches."""
    return sum(is_right(question, answer) for question, answer in zip(questions, answers, strict=True))


def is_right(question: Question, answer: str) -> bool:
    """Letter by letter; spaces and the order of keys make no difference in JSON."""
    return answer == question.answer or _object(answer) == _object(question.answer) != {}


def _object(text: str) -> dict[str, object]:
    """What `text` is as JSON; empty for what is no object."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
