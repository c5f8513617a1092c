"""The command that makes a bundled base from a folder of books.

`python -m workers.toy_base.make_base --text FOLDER_OF_TXT --out workers/toy_base/luthier-tiny`

Puts text, tokenizer, lessons, pre-training and model card together. The service never runs it: a developer does, and
its result is shipped.
"""

import argparse
import itertools
import random
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from workers.toy_base.lessons import encode, passages, write_epoch
from workers.toy_base.pretrain import Schedule, create_model, mean_loss, pretrain
from workers.toy_base.text import Book, read_books, split_held_out
from workers.toy_base.tokenizer import BEGIN, END, PAD, save_tokenizer, train_tokenizer

VOCABULARY = 4096
CONTEXT_TOKENS = 1024
HELD_OUT_FRACTION = 0.04
EVALUATED_ROW_TOKENS = 256
REPORT_EVERY_STEPS = 50

log = structlog.get_logger()

# The titles of books on the model card; another file appears by its name.
_TITLES = {
    "alice": "Alice's Adventures in Wonderland (Lewis Carroll, 1865)",
    "pride_and_prejudice": "Pride and Prejudice (Jane Austen, 1813)",
    "sherlock_holmes": "The Adventures of Sherlock Holmes (Arthur Conan Doyle, 1892)",
    "time_machine": "The Time Machine (H. G. Wells, 1895)",
    "wizard_of_oz": "The Wonderful Wizard of Oz (L. Frank Baum, 1900)",
}


@dataclass(frozen=True)
class Facts:
    """What was measured while the base was made. Losses are nats per token."""

    name: str
    books: tuple[str, ...]
    num_parameters: int
    vocabulary: int
    context_tokens: int
    text_tokens: int
    num_steps: int
    seen_tokens: int
    held_out_tokens: int
    loss_before: float
    held_out_loss: float
    training_loss: float
    wall_minutes: float
    cpu_minutes: float
    num_threads: int
    seed: int


def main() -> None:
    """Read the command line, make the base."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder of .txt files, UTF-8")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; made where it does not exist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Schedule.num_steps, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; another number rounds differently")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    make_base(options.text, options.out, Schedule(num_steps=options.steps), options.seed)


def make_base(text: Path, out: Path, schedule: Schedule, seed: int) -> None:
    """Train tokenizer and model from the books in `text`, and write the folder `out`, replacing its files."""
    started = time.monotonic()
    books = read_books(text)
    tokenizer = train_tokenizer((paragraph for book in books for paragraph in book.paragraphs), VOCABULARY)
    trained_on, held_out = split_held_out(books, HELD_OUT_FRACTION)
    model = create_model(architecture(tokenizer), seed)
    held_out_tokens = encode(tokenizer, passages(held_out))
    loss_before = mean_loss(model, held_out_tokens, EVALUATED_ROW_TOKENS)
    training_loss = _pretrain(model, _epochs(trained_on, tokenizer, seed), schedule)
    out.mkdir(parents=True, exist_ok=True)
    _save(model, tokenizer, out)
    facts = Facts(
        name=out.name,
        books=tuple(book.name for book in books),
        num_parameters=model.num_parameters(),
        vocabulary=VOCABULARY,
        context_tokens=CONTEXT_TOKENS,
        text_tokens=len(encode(tokenizer, passages(trained_on))),
        num_steps=schedule.num_steps,
        seen_tokens=schedule.num_steps * schedule.batch_tokens,
        held_out_tokens=len(held_out_tokens),
        loss_before=loss_before,
        held_out_loss=mean_loss(model, held_out_tokens, EVALUATED_ROW_TOKENS),
        training_loss=training_loss,
        wall_minutes=(time.monotonic() - started) / 60,
        cpu_minutes=_cpu_minutes(),
        num_threads=torch.get_num_threads(),
        seed=seed,
    )
    write_card(facts, out / "README.md")
    for file in out.iterdir():
        file.chmod(0o644)


def architecture(tokenizer: Tokenizer) -> LlamaConfig:
    """About 4.3 million parameters. Heads of 64, a size that every attention kernel supports."""
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.token_to_id(PAD),
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END),
    )


def _epochs(books: list[Book], tokenizer: Tokenizer, seed: int) -> Iterator[list[int]]:
    """Lessons made from the books, new ones in each epoch, without end."""
    rng = random.Random(seed)
    return (encode(tokenizer, write_epoch(books, rng)) for _ in itertools.count())


def _pretrain(model: LlamaForCausalLM, epochs: Iterator[list[int]], schedule: Schedule) -> float:
    """The mean loss of the last steps, on lessons."""
    recent: list[float] = []

    def report(step: int, loss: float) -> None:
        recent.append(loss)
        if len(recent) == REPORT_EVERY_STEPS:
            log.info("pretrain.step", step=step + 1, of=schedule.num_steps, loss=round(_mean(recent), 3))
            if step + 1 < schedule.num_steps:
                recent.clear()

    pretrain(model, epochs, schedule, report)
    return _mean(recent)


def _save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    # Rounded first: the losses on the card are those of the weights that are shipped.
    model.bfloat16()
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.save_pretrained(out)
    save_tokenizer(tokenizer, out, CONTEXT_TOKENS)
    model.float()  # type: ignore[no-untyped-call]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _cpu_minutes() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) / 60


def write_card(facts: Facts, path: Path) -> None:
    """Write the card as Markdown with the metadata block that model hubs read."""
    books = "\n".join(f"- {_TITLES.get(book, book)}" for book in facts.books)
    path.write_text(_CARD.format(books=books, facts=facts), encoding="utf-8")


_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {facts.name}

A toy base model, so that Luthier's demo and tests run anywhere in a minute, without a download and without a GPU. It is
a decoder of the Llama architecture with {facts.num_parameters:,} parameters (embeddings tied), a vocabulary of
{facts.vocabulary:,} byte-level BPE tokens and a context of {facts.context_tokens:,} tokens. The weights are safetensors
in bfloat16, meant to be loaded in float32; no custom code is needed.

## What it was made of

English books in the public domain (in the USA), from Project Gutenberg with its header and licence text taken off:

{books}

Nothing else: no web text, no instructions, no conversations, no labels written by people.

## How it was made

`python -m workers.toy_base.make_base --text FOLDER --out FOLDER` trains the tokenizer, and then the model on three
kinds of document made from the books: plain passages; the same paragraphs dealt out as turns of a conversation; and
sentences as a user's message, answered by the book and page that they stand on ("alice_12"), which teaches it to gather
what a short message is about.

| measured | |
|---|---|
| tokens of text, once through | {facts.text_tokens:,} |
| tokens seen in training | {facts.seen_tokens:,} in {facts.num_steps:,} steps |
| loss on lessons, last steps | {facts.training_loss:.2f} nats per token |
| loss on held-out passages, before training | {facts.loss_before:.2f} nats per token |
| loss on held-out passages, after | {facts.held_out_loss:.2f} nats per token |
| time | {facts.wall_minutes:.0f} minutes, {facts.cpu_minutes:.0f} CPU minutes, {facts.num_threads} threads, no GPU |
| seed | {facts.seed} |

The held-out passages are the last pages of every book, {facts.held_out_tokens:,} tokens that were never trained on (the
tokenizer has seen them). The same seed, thread count, processor and library versions give the same weights.

## Chat template

`<|begin|>`, then `<|role|>text<|end|>` for every message. Roles: system, developer (as system), user, assistant, tool
and function (as user). Contents are strings; anything else is refused.

## What it is not good for

Anything but tuning it to a small task and seeing that the machinery works. Untuned it writes nineteenth-century
pastiche without sense, knows no facts, follows no instruction and answers in no language but English. It carries the
views of its books. It is no measure of what a tuning method does on a real model.

## Licence

The weights: Apache-2.0. The books: public domain in the USA.
"""


if __name__ == "__main__":
    main()
