"""Lessons: the documents that the pre-training reads, made from books without any label written by a person.

Independent of models and of any task that a base is tuned for later. Three kinds of
document, each begun by the bos token, drawn at random for every stretch of text:

passage       consecutive paragraphs, as in the book
conversation  the same, dealt out as turns, so that role tokens and the end of a turn are familiar
index         a user turn of one to three sentences, answered by book and page ("alice_12"). To answer, the model must
              gather at one place what a short message is about, which is what a tuning later builds on: after equally
              short pre-training, a tuned classifier was right in 93 % with these lessons, in 61 % with passages only
"""

import random
from collections.abc import Iterator

from tokenizers import Tokenizer

from workers.toy_base.text import Book, sentences
from workers.toy_base.tokenizer import ASSISTANT, BEGIN, END, SYSTEM, USER

CONVERSATION_SHARE = 0.2
INDEX_SHARE = 0.5  # the rest are passages
STRETCH_PARAGRAPHS = (2, 8)
PAGE_PARAGRAPHS = 20
SHORTEST_INDEXED_CHARACTERS = 12
SYSTEM_TURN_SHARE = 0.3
# People who type do without capitals more often than books do.
LOWER_CASE_SHARE = {"passage": 0.1, "turn": 0.3}


def write_epoch(books: list[Book], rng: random.Random) -> list[str]:
    """Every paragraph of `books` in one document or another, in random order; other documents with every call."""
    documents = [document for book in books for document in _documents(book, rng)]
    rng.shuffle(documents)
    return documents


def passages(books: list[Book]) -> list[str]:
    """Every book as one plain document: what losses on held-out text are measured on."""
    return [BEGIN + "\n".join(book.paragraphs) for book in books]


def encode(tokenizer: Tokenizer, documents: list[str]) -> list[int]:
    """One long row of token ids, document after document."""
    return [token for encoding in tokenizer.encode_batch(documents) for token in encoding.ids]


def _documents(book: Book, rng: random.Random) -> Iterator[str]:
    first = rng.randrange(STRETCH_PARAGRAPHS[0])
    while first < len(book.paragraphs):
        stretch = book.paragraphs[first : first + rng.randint(*STRETCH_PARAGRAPHS)]
        kind = rng.random()
        if kind < CONVERSATION_SHARE:
            yield _conversation(stretch, rng)
        elif kind < CONVERSATION_SHARE + INDEX_SHARE:
            yield from _index(book.name, first, stretch, rng)
        else:
            yield BEGIN + _typed("\n".join(stretch), "passage", rng) + END
        first += len(stretch)


def _conversation(stretch: tuple[str, ...], rng: random.Random) -> str:
    roles = [USER, ASSISTANT] * len(stretch)
    if rng.random() < SYSTEM_TURN_SHARE:
        roles.insert(0, SYSTEM)
    turns = (role + _typed(text, "turn", rng) + END for role, text in zip(roles, stretch, strict=False))
    return BEGIN + "".join(turns)


def _index(book_name: str, first: int, stretch: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    for number, paragraph in enumerate(stretch, start=first):
        page = f"{book_name}_{number // PAGE_PARAGRAPHS}"
        rest = sentences(paragraph)
        while rest:
            count = rng.randint(1, 3)
            message, rest = " ".join(rest[:count]), rest[count:]
            if len(message) >= SHORTEST_INDEXED_CHARACTERS:
                yield BEGIN + USER + _typed(message, "turn", rng) + END + ASSISTANT + page + END


def _typed(text: str, kind: str, rng: random.Random) -> str:
    return text.lower() if rng.random() < LOWER_CASE_SHARE[kind] else text
