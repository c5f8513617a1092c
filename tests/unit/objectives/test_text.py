"""Plain text: rows that are read, pieces, packing; and that a packed step is each document alone."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.objectives.text import TextSettings
from service.recipes.tuning import tuning_of
from tests.given.recipes import recipe
from tests.given.slots import LORA, PROMPT, adapter
from tests.given.templates import tokenizer_for
from tests.given.tiny_models import VOCABULARY, make_tiny_base
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.data.examples import packed, pieces
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.model.load import LoadedBase, environment, load_base
from workers.objectives import create_objective
from workers.trainer.process.passes import Passes
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec
from workers.tunings import Tuning, create_tuning

CONTEXT = 32
END = "<|end|>"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


def check(rows: Iterable[dict[str, Any]], context_tokens: int = CONTEXT, **options: Any) -> TokenizedDataset:
    lines = (json.dumps(row).encode() for row in rows)
    return check_file(
        lines, BaseText(tokenizer_for("bundled")), context_tokens=context_tokens, row_limit_bytes=10_000,
        examples_minimum=1, param="training_file", file_id="file-X", **{"objective": TextSettings} | options,
    )  # fmt: skip


def documents(number: int, seed: int = 0) -> TokenizedDataset:
    """Documents of random tokens, packed; every token but a document's first is trained."""
    numbers = np.random.RandomState(seed)
    rows = DatasetBuilder()
    for _ in range(number):
        ids = numbers.randint(9, VOCABULARY, numbers.randint(3, 15)).tolist()
        rows.add(ids, [0] + [1] * (len(ids) - 1))
    return packed(rows.build(), CONTEXT)


def test_every_token_but_the_first_is_trained_once_and_ends_with_the_end_of_text() -> None:
    decode = tokenizer_for("bundled").decode
    long = " ".join(f"word{number}" for number in range(60))
    dataset = check([{"text": "One."}, {"text": long}])
    tokens, trained = dataset.row(0)
    assert decode(tokens.tolist()) == f"One.{END}" and trained.tolist() == [0] + [1] * (len(tokens) - 1)
    rows = [dataset.row(row) for row in range(1, len(dataset))]
    assert len(rows) > 2 and all(2 <= len(tokens) <= CONTEXT for tokens, _ in rows)
    whole = [*rows[0][0][:1].tolist(), *(int(token) for tokens, _ in rows for token in tokens[1:])]
    assert decode(whole) == long + END
    assert all(flags.tolist() == [0] + [1] * (len(flags) - 1) for _, flags in rows)


def test_pieces_share_one_token_and_none_is_a_single_one() -> None:
    assert pieces([1, 2, 3, 4, 5, 6], 3) == [[1, 2, 3], [3, 4, 5], [5, 6]]
    assert pieces([1, 2, 3], 3) == [[1, 2, 3]]
    assert pieces([1, 2, 3, 4], 3) == [[1, 2, 3], [3, 4]]


def test_an_example_is_as_many_adjacent_documents_as_fit(tmp_path: Path) -> None:
    rows = DatasetBuilder()
    for length in (3, 4, 2, 8, 1, 7, 8):
        rows.add(range(length), [0] + [1] * (length - 1))
    dataset = packed(rows.build(), 8)
    assert dataset.example_offsets is not None and dataset.example_offsets.tolist() == [0, 2, 3, 4, 6, 7]
    assert dataset.num_examples == 5 and dataset.rows_of([3, 0]) == [4, 5, 0, 1]
    assert dataset.cost_tokens([0, 3]) == 15
    dataset.save(tmp_path / "file")
    assert TokenizedDataset.load(tmp_path / "file").rows_of([3, 0]) == [4, 5, 0, 1]
    with pytest.raises(ValueError, match="examples do not fit"):
        replace(dataset, example_offsets=np.array([0, 2, 9]))


def test_pieces_and_examples_have_the_context_that_a_tuning_leaves_them() -> None:
    rows = [{"text": " ".join(f"word{number}" for number in range(count))} for count in (60, 3, 4, 5)]
    whole, left = check(rows), check(rows, CONTEXT + 8, prefix_tokens=8)
    assert np.array_equal(left.offsets, whole.offsets) and left.offsets[1] == CONTEXT
    assert left.example_offsets is not None and whole.example_offsets is not None
    assert np.array_equal(left.example_offsets, whole.example_offsets)


def test_a_documents_weight_is_that_of_its_tokens() -> None:
    dataset = check([{"text": "One."}, {"text": "Two.", "weight": 0.5}])
    assert dataset.token_weights is not None
    begin = int(dataset.offsets[1])
    assert set(dataset.token_weights[1:begin].tolist()) == {1.0}
    assert dataset.token_weights[begin:].tolist() == [0.0] + [0.5] * (len(dataset.token_weights) - begin - 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "  "}, r"Example 2: is empty \(text\)"),
        ({"text": f"a {END}"}, "Example 2: contains '<|end|>'".replace("|", r"\|")),
        ({"text": 3}, "Example 2: Input should be a valid string"),
        ({"text": "a", "weight": 7}, r"Example 2: must be a number from 0 to 1 \(weight\)"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DatasetInvalid, match=reason):
        check([{"text": "One."}, row])


def test_a_supervised_job_says_which_method_reads_texts() -> None:
    with pytest.raises(DatasetInvalid, match=r"fine-tune-text format, .* is not using 'text'"):
        check([{"text": "One."}], objective=SupervisedSettings)


@pytest.mark.parametrize("spec", [LORA, PROMPT], ids=["lora", "prompt"])
def test_a_packed_step_is_every_document_alone(base: LoadedBase, spec: dict[str, Any]) -> None:
    dataset = documents(9)
    assert dataset.num_examples < 9
    tuning = attached(base, spec)
    passes = Passes(base, tuning, create_objective(TextSettings()))
    measured, _ = passes.train(dataset, range(dataset.num_examples)).read()
    together = gradient(tuning)
    total, count = torch.zeros(()), 0
    apart = torch.zeros_like(together)
    for row in range(9):
        tokens, trained = dataset.row(row)
        builder = DatasetBuilder()
        builder.add(tokens.tolist(), trained.tolist())
        alone, _ = passes.train(builder.build(), [0]).read()
        trained_tokens = int(trained.sum())
        total, count = total + alone.loss * trained_tokens, count + trained_tokens
        apart += gradient(tuning) * trained_tokens
    tuning.detach()
    assert measured.loss == pytest.approx(float(total) / count, abs=1e-5)
    assert float(together.abs().max()) > 1e-3
    assert torch.allclose(together, apart / count, rtol=0, atol=1e-5)


def test_a_text_job_learns_and_resumes_in_the_same_bits(base: LoadedBase, tmp_path: Path) -> None:
    slot = seat(base)
    metrics = []
    while not slot.finished:
        if slot.step == 5:
            slot.snapshot().write(tmp_path / "snapshot")
        metrics.append(slot.train_step().metrics)
    expected = adapter(slot, tmp_path / "undisturbed")
    slot.leave()
    again = seat(base)
    assert again.restore(tmp_path / "snapshot") == ""
    while not again.finished:
        assert again.train_step().metrics == metrics[again.step - 1]
    assert adapter(again, tmp_path / "resumed") == expected
    assert again.trained_tokens == 6 * documents(12, seed=1).num_tokens
    again.leave()
    assert metrics[-1]["full_valid_loss"] > 0
    assert metrics[-1]["train_loss"] < 0.9 * metrics[0]["train_loss"]


def seat(base: LoadedBase) -> Slot:
    spec = JobSpec(
        job_id="ftjob-1", recipe=recipe(LORA, "text"), n_epochs=6, batch_size=2, learning_rate=1e-2, seed=7,
        snapshot_steps=100,
    )  # fmt: skip
    return Slot(base, environment(base.device), spec, documents(12, seed=1), documents(5, seed=2))


def attached(base: LoadedBase, spec: dict[str, Any]) -> Tuning:
    spec = {"type": spec["type"], spec["type"]: spec[spec["type"]] | ({"dropout": 0.0} if spec is LORA else {})}
    torch.manual_seed(0)
    tuning = create_tuning(tuning_of(spec), base.model, "one")
    tuning.attach()
    tuning.activate()
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return tuning


def gradient(tuning: Tuning) -> torch.Tensor:
    """Taken from the parameters, which have none afterwards."""
    found = torch.cat([p.grad.flatten().clone() for p in tuning.parameters().values() if p.grad is not None])
    for parameter in tuning.parameters().values():
        parameter.grad = None
    return found
