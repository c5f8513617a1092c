"""Units of texts have the tokens of the whole texts, for tokenizers of every kind; and each is encoded once."""

import random
from collections.abc import Callable, Sequence

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.given.templates import SHAPES, tokenizer_for
from tests.given.templates.kinds import old_sentencepiece
from workers.data.base_text import BaseText
from workers.data.units import Cuts, Units

_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    + _SUFFIX
    + r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    + _SUFFIX
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
AS_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def isolated(expression: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(expression), behavior="isolated")


def changed(change: Callable[[Tokenizer], object]) -> BaseText:
    """A base with a tokenizer of ChatML's shape, except for this."""
    backend = Tokenizer.from_str(tokenizer_for("chatml").backend_tokenizer.to_str())
    change(backend)
    return BaseText(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>"))


def with_token(content: str, **settings: bool) -> BaseText:
    return changed(lambda backend: backend.add_tokens([AddedToken(content, **settings)]))


def with_words(*steps: pre_tokenizers.PreTokenizer) -> BaseText:
    return changed(lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.Sequence(list(steps))))


def with_normalizer(normalizer: normalizers.Normalizer) -> BaseText:
    return changed(lambda backend: setattr(backend, "normalizer", normalizer))


# Of each kind: the base, and where its texts may be cut: before tokens, before words.
KINDS: dict[str, tuple[Callable[[], BaseText], tuple[bool, bool]]] = {
    **{name: (lambda name=name: BaseText(tokenizer_for(name)), (True, True)) for name in SHAPES},
    "Qwen": (lambda: with_words(isolated(_QWEN), AS_BYTES), (True, True)),
    "GPT-4o": (lambda: with_words(isolated(_GPT_4O), AS_BYTES), (True, True)),
    "SmolLM": (
        lambda: with_words(
            pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        ),
        (True, True),
    ),
    "digits alone": (lambda: with_words(isolated(r"\p{N}{1,3}"), AS_BYTES), (True, False)),
    "words with spaces": (lambda: with_words(isolated(r"\p{L}+ \p{L}+|\s+"), AS_BYTES), (True, False)),
    "looks behind": (lambda: with_words(isolated(r"(?<=n )\p{L}+|\s+"), AS_BYTES), (True, False)),
    "a space before all": (lambda: with_words(pre_tokenizers.ByteLevel(add_prefix_space=True)), (True, False)),
    "old SentencePiece": (old_sentencepiece, (True, False)),
    "a space before the first": (
        lambda: with_words(pre_tokenizers.Metaspace(prepend_scheme="first", split=False), AS_BYTES),
        (True, False),
    ),
    "NFC": (lambda: with_normalizer(normalizers.NFC()), (True, True)),
    "NFKC": (lambda: with_normalizer(normalizers.NFKC()), (True, False)),
    "no space at ends": (lambda: with_normalizer(normalizers.Strip()), (True, False)),
    "a letter before each": (lambda: with_normalizer(normalizers.Prepend("_")), (True, False)),
    "takes space behind it": (lambda: with_token("<|user|>", rstrip=True, special=True), (False, False)),
    "takes space before it": (lambda: with_token("<|user|>", lstrip=True, special=True), (False, False)),
    "a word of its own": (lambda: with_token("tone", single_word=True), (False, False)),
    "with a space in it": (lambda: with_token("a tone"), (True, False)),
    "spaces": (lambda: with_token("   "), (True, True)),
    "within another": (lambda: with_token("|im_end|> <", normalized=False), (True, False)),
    "overlapping": (lambda: with_token("n<|im", normalized=False), (True, True)),
    "normalized": (lambda: with_token("tone<|", normalized=True), (True, True)),
}

_PIECES = [
    *(" ", " ", " ", "  ", "   ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\x1c", "\u200b", " \n"),
    *("the", "tone", "a", "n", "_", "It's", "'S", "12345", "1", ".", "...\n", "!?", "/", "\u00e9", "e\u0301", "\u0301"),
    *("支払い", "\U0001f600", "\u0e33", "\ufb01", "\uac00", "<", "|", ">", "|im_end|> <", "n<|im_start|>", "tone<|"),
    *("<s>", "</s>", "[INST]", "<|im_start|>", "<|im_end|>", "<|user|>", "<|eot_id|>", "<tool_call>", "<|end|>"),
]


def hostile_texts() -> list[str]:
    chosen = random.Random(7)
    texts = ["".join(chosen.choices(_PIECES, k=chosen.randint(1, 24))) for _ in range(600)]
    return ["", " ", "the tone", "  the  tone ", *texts]


@pytest.mark.parametrize("kind", KINDS)
def test_units_have_the_tokens_of_the_whole_text(kind: str) -> None:
    make, (at_tokens, at_words) = KINDS[kind]
    text, texts = make(), hostile_texts()
    assert text.rust is not None
    cuts, units = Cuts.of(text.rust), Units(text)
    assert (cuts.tokens is not None, cuts.words) == (at_tokens, at_words)
    whole = text.batch_ids(texts, add_special_tokens=False)
    # In parts, so that later ones find what earlier ones encoded.
    found = [ids for begin in range(0, len(texts), 50) for ids in units.batch_ids(texts[begin : begin + 50])]
    assert [(one, ids) for one, ids in zip(texts, found, strict=True)] == list(zip(texts, whole, strict=True))


def asked_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the tokenizer is asked for from now on."""
    asked: list[str] = []
    encodes = BaseText.batch_ids

    def count(self: BaseText, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        asked.extend(texts)
        return encodes(self, texts, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(BaseText, "batch_ids", count)
    return asked


def test_what_texts_share_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = old_sentencepiece()
    units, asked = Units(text), asked_of(monkeypatch)
    for number in range(5):
        units.batch_ids([f"<s>[INST] All of the rules. </s><s>{number}</s>"])
    assert sorted(asked) == sorted(["<s>[INST] All of the rules. ", "</s>", *(f"<s>{number}" for number in range(5))])


def test_units_are_kept_up_to_a_limit_and_the_last_ones_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    text = BaseText(tokenizer_for("chatml"))
    units, asked = Units(text, limit_bytes=20_000), asked_of(monkeypatch)
    kept = 0
    for number in range(1000):
        units.batch_ids([f"rules {number} of"])
        kept = max(kept, units.num_known)
    assert asked.count("rules") == 1 and asked.count(" of") == 1  # asked for all the time
    assert 50 < kept < 200
    units.batch_ids(["rules 0 of"])
    assert asked.count(" 0") == 2
