"""Books as paragraphs: the raw material of the tokenizer and of the lessons.

Reads plain .txt files; has no tokens and no models.
"""

import re
from dataclasses import dataclass
from pathlib import Path

# Lines about the transcription, not of the book.
_PRODUCTION_NOTE = re.compile(r"project gutenberg|^produced by", re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[A-Z\"'(])")


@dataclass(frozen=True)
class Book:
    """One text file: its name without ending, and its paragraphs in reading order."""

    name: str
    paragraphs: tuple[str, ...]


def read_books(folder: Path) -> list[Book]:
    """Read every .txt file of `folder`, sorted by name.

    Raises ValueError where there is nothing to read.
    """
    books = [Book(path.stem, _paragraphs(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.txt"))]
    books = [book for book in books if book.paragraphs]
    if not books:
        raise ValueError(f"no text in {folder}: put at least one non-empty .txt file there")
    return books


def split_held_out(books: list[Book], fraction: float) -> tuple[list[Book], list[Book]]:
    """Hold out the last `fraction` of every book's paragraphs, to measure the loss on text never trained on."""
    kept, held_out = [], []
    for book in books:
        cut = len(book.paragraphs) - int(len(book.paragraphs) * fraction)
        kept.append(Book(book.name, book.paragraphs[:cut]))
        held_out.append(Book(book.name, book.paragraphs[cut:]))
    return kept, held_out


def sentences(paragraph: str) -> list[str]:
    """Split a paragraph at the ends of its sentences, roughly."""
    return [sentence for sentence in _SENTENCE_END.split(paragraph) if sentence]


def _paragraphs(text: str) -> tuple[str, ...]:
    blocks = (" ".join(block.split()) for block in _BLANK_LINES.split(text.replace("\ufeff", "")))
    # Underscores mark italics in these transcriptions.
    blocks = (block.replace("_", "") for block in blocks if not _PRODUCTION_NOTE.search(block))
    return tuple(block for block in blocks if re.search(r"[A-Za-z]{2}", block))
