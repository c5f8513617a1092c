"""Weights of rows and messages between 0 and 1: what they become, and that the loss is the plain formula."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from service.recipes.objective import ObjectiveSettings
from service.recipes.objectives.dpo import DpoSettings
from service.recipes.objectives.supervised import SupervisedSettings
from tests.given.templates import tokenizer_for
from tests.given.tiny_models import Saying
from workers.data.base_text import BaseText
from workers.data.batches import collate
from workers.data.check import DatasetInvalid, check_file
from workers.data.tokenized import TokenizedDataset
from workers.objectives import create_objective

USER = {"role": "user", "content": "How long does it dry?"}
ANSWER = {"role": "assistant", "content": "A day."}


def check(
    rows: Iterable[dict[str, Any]], objective: type[ObjectiveSettings] = SupervisedSettings, minimum: int = 1
) -> TokenizedDataset:
    lines = (json.dumps(row).encode() for row in rows)
    return check_file(
        lines, BaseText(tokenizer_for("bundled")), context_tokens=512, row_limit_bytes=10_000,
        examples_minimum=minimum, param="training_file", file_id="file-X", objective=objective,
    )  # fmt: skip


def weights(dataset: TokenizedDataset, row: int = 0) -> list[float]:
    """The weight of each trained token of a row."""
    assert dataset.token_weights is not None
    begin, end = dataset.offsets[row : row + 2]
    found: list[float] = dataset.token_weights[begin:end][dataset.trained[begin:end] == 1].tolist()
    assert not dataset.token_weights[begin:end][dataset.trained[begin:end] == 0].any()
    return found


def test_a_messages_weight_times_its_rows_is_the_weight_of_its_tokens() -> None:
    half, quarter = ANSWER | {"weight": 0.5}, ANSWER | {"weight": 0.25}
    dataset = check([{"messages": [USER, half, USER, ANSWER, USER, quarter], "weight": 0.5}])
    length = len(weights(dataset)) // 3
    assert weights(dataset) == [0.25] * length + [0.5] * length + [0.125] * length


def test_one_weighted_row_gives_the_others_the_weight_1() -> None:
    plain, prompt = {"messages": [USER, ANSWER]}, {"prompt": "one", "completion": " two"}
    dataset = check([plain, plain | {"weight": 0.5}, plain])
    assert [set(weights(dataset, row)) for row in range(3)] == [{1}, {0.5}, {1}]
    assert set(weights(check([prompt | {"weight": 0.75}]))) == {0.75}


def test_a_file_whose_weights_are_0_and_1_is_the_file_without_that_column() -> None:
    earlier = {"messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER]}
    given = check([{"messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER | {"weight": 1}], "weight": 1.0}])
    plain = check([earlier])
    assert given.token_weights is None and given.row_weights is None and given.columns == plain.columns
    assert np.array_equal(given.tokens, plain.tokens) and np.array_equal(given.trained, plain.trained)


def test_a_row_without_weight_is_checked_and_not_trained() -> None:
    row = {"messages": [USER, ANSWER]}
    assert check([row, row | {"weight": 0}, row]).num_examples == 2
    with pytest.raises(DatasetInvalid, match="has 2 example"):
        check([row, row | {"weight": 0}, row], minimum=3)
    with pytest.raises(DatasetInvalid, match=r"is 0, as that of every row: nothing would be trained \(weight\)"):
        check([row | {"weight": 0}] * 3)
    with pytest.raises(DatasetInvalid, match="Example 2, message 2: contains"):
        check([row, {"messages": [USER, ANSWER | {"content": "<|end|>"}], "weight": 0}])


def test_a_pairs_weight_is_of_both_its_rows() -> None:
    pair = {"input": {"messages": [USER]}, "preferred_output": [ANSWER]}
    pair |= {"non_preferred_output": [ANSWER | {"content": "No."}]}
    dataset = check([pair, pair | {"weight": 0.25}], DpoSettings)
    assert dataset.row_weights is not None and dataset.row_weights.tolist() == [1, 1, 0.25, 0.25]
    assert dataset.token_weights is None
    assert check([pair | {"weight": 1}], DpoSettings).row_weights is None


def test_the_loss_is_the_weighted_sum_over_the_number_of_trained_tokens() -> None:
    half = ANSWER | {"weight": 0.5}
    dataset = check([{"messages": [USER, half, USER, ANSWER]}, {"messages": [USER, ANSWER], "weight": 0.125}])
    batch = collate(dataset, [0, 1], pad_id=0)
    logits_BTV = torch.randn(*batch.input_ids_BT.shape, int(dataset.tokens.max()) + 1, requires_grad=True)
    objective = create_objective(SupervisedSettings())
    loss = objective.loss(Saying(logits_BTV), batch)
    total = torch.zeros(())
    for row in range(2):
        tokens, trained = dataset.row(row)
        assert dataset.token_weights is not None
        row_weights = dataset.token_weights[dataset.offsets[row] : dataset.offsets[row + 1]]
        for place in np.flatnonzero(trained).tolist():
            logprob = logits_BTV[row, place - 1].log_softmax(-1)[int(tokens[place])]
            total = total - float(row_weights[place]) * logprob
    assert objective.count(batch) == dataset.num_trained_tokens
    assert float(loss.total.detach()) == pytest.approx(float(total.detach()), rel=1e-6)
    expected = torch.autograd.grad(total, logits_BTV)[0]
    loss.total.backward()
    assert logits_BTV.grad is not None and torch.allclose(logits_BTV.grad, expected, atol=1e-6)
