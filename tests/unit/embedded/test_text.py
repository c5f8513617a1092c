"""Tokens to text: whole characters, whole words on stops, nothing twice and nothing lost."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.given.engines import load_tiny
from workers.engines.embedded.text import BROKEN, TextStream
from workers.engines.embedded.vocabulary import Vocabulary
from workers.model.sampling import Token
from workers.toy_base.tokenizer import train_tokenizer

TEXT = "naïve 😀 café — 東京 end"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Single bytes: every character that is not ASCII comes in several tokens."""
    return train_tokenizer([], 262)


def stream(tokenizer: Tokenizer, text: str | list[int], stops: list[str]) -> tuple[list[str], TextStream]:
    """What each token released, and last what `finish` did."""
    ids = tokenizer.encode(text).ids if isinstance(text, str) else text
    text_stream = TextStream(tokenizer, stops)
    released = []
    for id in ids:
        released.append(text_stream.push(id))
        if text_stream.stopped:
            break
    return [*released, text_stream.finish()], text_stream


def test_characters_come_whole(tokenizer: Tokenizer) -> None:
    released, _ = stream(tokenizer, TEXT, [])
    assert "".join(released) == TEXT
    assert not any(BROKEN in part for part in released)
    assert len([part for part in released if part]) == len(TEXT)


def test_bytes_that_are_no_text_come_as_the_decoder_shows_them(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("a").ids, *tokenizer.encode("é").ids[:1], *tokenizer.encode("b😀").ids[:-1]]
    released, _ = stream(tokenizer, ids, [])
    assert "".join(released) == tokenizer.decode(ids)


def test_special_tokens_are_not_text(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("a").ids, 3, 4, *tokenizer.encode("b").ids]
    assert "".join(stream(tokenizer, ids, [])[0]) == "ab"


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ["two"], "one "),
        ("one two three", ["three", "o t"], "one tw"),
        ("ab ac abc", ["abc"], "ab ac "),
        ("aaab", ["aab"], "a"),
        ("one two", ["two!"], "one two"),
        ("日本語", ["本"], "日"),
        ("stop", ["stop"], ""),
        ("xyxyz", ["xyz"], "xy"),
    ],
)
def test_stop_texts_end_the_text_before_them(tokenizer: Tokenizer, text: str, stops: list[str], expected: str) -> None:
    released, text_stream = stream(tokenizer, text, stops)
    assert "".join(released) == expected
    assert text_stream.stopped == (expected != text)


def test_text_is_held_back_while_a_stop_may_begin_in_it(tokenizer: Tokenizer) -> None:
    released, _ = stream(tokenizer, "a stab", ["star"])
    assert released == ["a", " ", "", "", "", "stab", ""]


def test_offsets_count_the_characters_before_a_token(tokenizer: Tokenizer) -> None:
    text_stream = TextStream(tokenizer, ["zz"], offset=10)
    offsets = []
    for id in tokenizer.encode("aéz!").ids:
        offsets.append(text_stream.offset)
        text_stream.push(id)
    assert offsets == [10, 11, 11, 12, 13]


def test_single_tokens_tell_their_bytes(tmp_path: Path) -> None:
    vocabulary = Vocabulary(load_tiny(tmp_path)[1])
    ids = vocabulary.tokenizer.encode("é\n").ids
    entries = [vocabulary.entry(Token(id, -1.0, ((2, -2.0),)), 0) for id in ids]
    assert bytes(byte for entry in entries for byte in entry.bytes or ()) == "é\n".encode()
    assert [entry.text for entry in entries] == [BROKEN, BROKEN, "\n"]
    assert entries[0].top[0].text == "<|end|>"
    assert bytes(entries[0].top[0].bytes or ()) == b"<|end|>"
    assert vocabulary.end_tokens == {2}
