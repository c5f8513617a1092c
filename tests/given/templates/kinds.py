"""Templates that treat an answer in ways of their own, written by us: for each a base's text with a small tokenizer."""

import re
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.given.templates import tokenizer_for
from workers.data.base_text import BaseText

# name of the template -> the tokens that the base's own settings end an answer with
KINDS = {
    "cutting": ("<|end|>",),
    "prefilled": ("<|im_end|>",),
    "splitting": ("<|im_end|>",),
    "channels": ("<|return|>",),
    "endless": ("<|endoftext|>", "<|user|>", "<|observation|>"),
}
_SPECIAL = re.compile(r"<\|\w+\|>")


@cache
def kind(name: str, ends: tuple[str, ...] | None = None) -> BaseText:
    """The base whose template is `name`. Shared: do not change it."""
    return text_of((Path(__file__).parent / f"{name}.jinja").read_text(encoding="utf-8"), ends or KINDS[name])


def text_of(template: str, ends: tuple[str, ...]) -> BaseText:
    """A base of that template. What is in <| |> is a special token; the first of `ends` is its end of text."""
    backend = Tokenizer.from_str(tokenizer_for("chatml").backend_tokenizer.to_str())
    names = [*_SPECIAL.findall(template), *ends, "<|system|>"]
    backend.add_tokens([AddedToken(name, special=True) for name in dict.fromkeys(names)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=ends[0], chat_template=template)
    return BaseText(tokenizer, frozenset(tokenizer.convert_tokens_to_ids(list(ends))))


@cache
def old_sentencepiece() -> BaseText:
    """As Llama 2's: a space before whatever is tokenised, special tokens excepted, and `][` is one token."""
    letters = ["<unk>", "<s>", "</s>", "▁", *(chr(code) for code in range(33, 127)), "▁[", "]["]
    vocabulary = {letter: id for id, letter in enumerate(letters)}
    merges = [("▁", "["), ("]", "[")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    template = (
        "{%- for message in messages -%}"
        "{{- '<s>[INST] ' ~ message['content'] ~ ' [/INST]' if message['role'] == 'user' else "
        "message['content'] ~ '</s>' -}}"
        "{%- endfor -%}"
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )
    return BaseText(tokenizer)
