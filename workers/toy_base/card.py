"""The model card of a bundled base: what it is, what it was made of, what was measured, what it is not for.

Knows numbers and names only: whoever trained the model measured them.
"""

from dataclasses import dataclass
from pathlib import Path

# Books that may stand on a card by title; another file is named by its file name.
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
