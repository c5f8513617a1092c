"""A base tried before anybody uses it: it loads, its template renders, one step trains, one answer is generated.

`luthier-worker check` runs it for `luthierd bases check`, in a process of its own. Each finding is one sentence; what
cannot be tried without an earlier part is left out. Uses what jobs and engines use, and no database.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from service.domain.errors import JobError
from service.recipes.base import Base
from service.recipes.base_description import MAX_RANK
from service.recipes.formats.completion import PromptRow
from service.recipes.formats.labelled import TextWithLabel
from service.recipes.objective import OBJECTIVES
from service.recipes.objectives.classification import ClassificationSettings
from service.recipes.recipe import Recipe
from service.recipes.tuning import TuningSettings, tuning_of
from workers.data.labels import Labels, row_labels
from workers.data.messages import RenderError
from workers.data.render import Rendered, Renderer, encode_chat, encode_prompt
from workers.data.template import ChatTemplate
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.model.describe import longest_context
from workers.model.generate import BatchRow
from workers.model.load import BaseUnusable, LoadedBase, base_size, environment, load_or_explain
from workers.model.nf4 import num_parameters
from workers.model.sampling import Sampling
from workers.model.two_sided import batch_for
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec

QUESTION = [{"role": "user", "content": "Say yes."}]
ROW = PromptRow(prompt="Say yes.", completion=" yes")
TEXTS = (TextWithLabel(text="Say yes.", label="yes"), TextWithLabel(text="Say no.", label="no"))
ANSWER_TOKENS = 8


@dataclass(frozen=True)
class TrialResult:
    """The result of one part of the trial."""

    state: Literal["ok", "warning", "problem"]
    message: str


def try_base(base: Base, device: torch.device) -> Iterator[TrialResult]:
    """Every part in turn. The base is gone from memory afterwards."""
    try:
        loaded = load_or_explain(base, device)
    except BaseUnusable as error:
        yield TrialResult("problem", str(error))
        return
    size, packed = num_parameters(loaded.model), f", packed as {base.quantization}" if base.quantization else ""
    yield TrialResult("ok", f"kind: {base.kind}, as its config.json says")
    yield TrialResult(
        "ok", f"loads: {size:,} parameters in {base.dtype}{packed} on {device.type}, revision {loaded.revision}"
    )
    yield _context(base, loaded)
    if base.serving.engine == "vllm":
        yield _rank(base)
    prompt = None
    for finding, ids in _prompts(base, loaded):
        prompt = ids or prompt
        yield finding
    for name in sorted(base.serving.tunings):
        yield _step(base, loaded, tuning_of({"type": name, name: {}}))
    if prompt is not None and base.kind != "encoder":
        yield _answer(loaded, prompt)


def _context(base: Base, loaded: LoadedBase) -> TrialResult:
    """The context of the entry beside the model's own, of a hub's base too."""
    own = longest_context(loaded.model.config)
    if own is None:
        return TrialResult("ok", f"context: {base.context_tokens} tokens; the model names no limit")
    if base.context_tokens > own:
        text = f"context_tokens is {base.context_tokens}, but the model reads {own}: write at most that"
        return TrialResult("problem", text)
    return TrialResult("ok", f"context: {base.context_tokens} of the model's {own} tokens")


def _rank(base: Base) -> TrialResult:
    """vLLM computes every adapter at the rank that it was started for, which costs most where computing is slow."""
    rank = base.serving.max_rank
    if rank <= MAX_RANK["vllm"]:
        return TrialResult("ok", f"vLLM starts with max_lora_rank {rank}")
    text = (
        f"serving.max_rank is {rank}, at which vLLM computes every adapter: on a CPU, 64 made adapters of rank 16 "
        "slower than 16 did, 2.3 times alone and 6 times in a batch of eight; write the highest rank that jobs need"
    )
    return TrialResult("warning", text)


def _prompts(base: Base, loaded: LoadedBase) -> Iterator[tuple[TrialResult, list[int] | None]]:
    """What text becomes a prompt: a plain one, then a conversation. Yields the prompt's tokens with the finding."""
    try:
        plain = encode_prompt(loaded.text, ROW.prompt)
    except RenderError as error:
        yield TrialResult("problem", f"a plain prompt cannot be used: {error}"), None
    else:
        called = "classifications: a text" if base.kind == "encoder" else "completions: a plain prompt"
        yield TrialResult("ok", f"{called} becomes tokens"), plain
    if base.kind == "encoder" and not loaded.tokenizer.chat_template:
        return
    if base.kind == "encoder-decoder" and not loaded.tokenizer.chat_template:
        said = "chat: without a chat template the base reads one user message, with system messages before it"
        yield TrialResult("ok", said), encode_chat(ChatTemplate(loaded.text), QUESTION)
        return
    if not loaded.tokenizer.chat_template:
        text = "no chat template: chat rows and chat completions are refused; prompts and completions work"
        yield TrialResult("warning", text), None
        return
    template = ChatTemplate(loaded.text)
    try:
        chat = encode_chat(template, QUESTION)
    except RenderError as error:
        yield TrialResult("problem", f"the chat template cannot be used: {error}"), None
        return
    dialect = template.dialect
    shown = {
        "tools": template.shows_tools,
        "tool calls": dialect.calls,
        "reasoning": bool(dialect.reasoning),
        "the role developer": dialect.developer,
    }
    named = [name for name, is_shown in shown.items() if is_shown]
    yield TrialResult("ok", f"chat: the template shows {', '.join(['messages', *named])}"), chat
    if base.serving.tool_call_parser and not template.shows_tools:
        text = "serving.tool_call_parser is set, but the template shows no tools, which nobody would see: remove it"
        yield TrialResult("problem", text), None


def _step(base: Base, loaded: LoadedBase, tuning: TuningSettings) -> TrialResult:
    """One optimizer step of one row, which is undone when the slot is left."""
    renderer = Renderer(loaded.text, base.context_tokens, prefix_tokens=tuning.prefix_tokens)
    try:
        data = _texts(renderer) if base.kind == "encoder" else _dataset(renderer.render(ROW)[0])
    except RenderError as error:
        return TrialResult("problem", f"{tuning.name}: a row cannot be used: {error}")
    rate = base.learning_rate.get(tuning.name) or tuning.default_learning_rate(base_size(base))
    try:
        slot = Slot(loaded, environment(loaded.device, loaded.quantization), _spec(base, tuning, rate), data, None)
    except JobError as error:
        text = f"{tuning.name}: {error.message} Jobs that ask for it will fail: take it out of serving.tunings."
        return TrialResult("warning", text)
    try:
        loss = slot.train_step().metrics["train_loss"]
    finally:
        slot.leave()
    if not math.isfinite(loss):
        return TrialResult(
            "problem", f"{tuning.name}: the loss of one step is {loss}: try another dtype, such as float32"
        )
    source = "the entry's" if tuning.name in base.learning_rate else "by the tuning's rule for this size"
    return TrialResult("ok", f"{tuning.name}: one step trains, loss {loss:.3f}, learning rate {rate:.2g} ({source})")


def _spec(base: Base, tuning: TuningSettings, rate: float) -> JobSpec:
    objective = ClassificationSettings() if base.kind == "encoder" else OBJECTIVES.default()
    recipe = Recipe(objective=objective, tuning=tuning, task=objective.task)
    return JobSpec(
        job_id="trial", recipe=recipe, n_epochs=1, batch_size=2, learning_rate=rate, seed=0, snapshot_steps=1_000
    )


def _texts(renderer: Renderer) -> TokenizedDataset:
    builder, labels = DatasetBuilder(), Labels()
    for number, row in enumerate(TEXTS, start=1):
        (rendered,) = renderer.render(row)
        builder.add(rendered.ids, rendered.trained)
        found = row_labels(row)
        assert labels.find(found, number) is None
        labels.add(found)
    return labels.column(builder.build())


def _dataset(rendered: Rendered) -> TokenizedDataset:
    builder = DatasetBuilder()
    builder.add(rendered.ids, rendered.trained, second=rendered.second)
    return builder.build()


def _answer(loaded: LoadedBase, prompt: list[int]) -> TrialResult:
    """A few greedy tokens, as the embedded engine makes them."""
    row = BatchRow(prompt, Sampling(temperature=0.0))
    batch = batch_for(loaded)
    batch.join(batch.prefill([row]))
    for _ in range(ANSWER_TOKENS):
        batch.sample()
        batch.advance()
    return TrialResult("ok", f"generates: {loaded.tokenizer.decode(row.generated)!r}")
