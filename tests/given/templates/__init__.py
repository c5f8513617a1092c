"""Chat templates of the shapes that bases have, each with a small tokenizer; written by us from documented strings."""

from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from workers.toy_base.tokenizer import BEGIN, CHAT_TEMPLATE, END, SPECIAL_TOKENS

# name of the template -> (special tokens, bos, eos, does the tokenizer itself put bos before a text)
SHAPES: dict[str, tuple[tuple[str, ...], str | None, str, bool]] = {
    "chatml": (("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|im_end|>", False),
    "thinking": (("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|im_end|>", False),
    "llama3": (
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
        True,
    ),
    "mistral_first": (("<s>", "</s>"), "<s>", "</s>", True),
    "mistral_last": (("<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>", True),
    "bundled": (SPECIAL_TOKENS, BEGIN, END, False),
}

# How Llama 3 and Qwen cut text into words: line ends stay together whatever follows. The others cut as GPT-2 does.
WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEXT = """\
The luthier glues the neck of a guitar and lets it dry. assistant user system developer tool
Question: how long does shipping take?\n\nAnswer: three days.\n\n\n  - one\n  - two
"""


def chat_template(name: str) -> str:
    if name == "bundled":
        return CHAT_TEMPLATE
    return (Path(__file__).parent / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def tokenizer_for(name: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the special tokens and the template of that shape. Shared: do not change it."""
    special, bos, eos, adds_bos = SHAPES[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name in ("chatml", "thinking", "llama3"):
        words = pre_tokenizers.Split(WORDS, behavior="isolated")
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 20, trainer)
    tokenizer.add_tokens([AddedToken("<tool_call>"), AddedToken("</tool_call>")])
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, chat_template=chat_template(name)
    )
