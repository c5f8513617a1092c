"""Bases whose rotary frequencies depend on a row's length: what stands beside a row changes nothing of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Phi3Config,
    PhimoeConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from tests.given.recipes import recipe
from tests.given.tiny_models import VOCABULARY, make_tiny_base, random_rows
from workers.model.generate import BatchRow, DecodingBatch
from workers.model.load import LoadedBase, environment, load_base
from workers.model.sampling import Sampling
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec

SWITCH, CONTEXT = 32, 128  # tokens: of the rows that the bases were trained on first, and of the longest
SHORT, LONG = range(10, 22), [7 + 3 * token % 200 for token in range(60)]
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TWO_FACTORS = {"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [4.0] * 4, "short_factor": [1.0] * 4}
TWO_LIMITS = {"max_position_embeddings": CONTEXT, "original_max_position_embeddings": SWITCH}


def longrope() -> PreTrainedConfig:
    return Phi3Config(**SIZES, **TWO_LIMITS, rope_parameters={**TWO_FACTORS})


def longrope_with_scales() -> PreTrainedConfig:
    parameters = {**TWO_FACTORS, "long_mscale": 1.5, "short_mscale": 1.0, "original_max_position_embeddings": SWITCH}
    return PhimoeConfig(
        **SIZES, max_position_embeddings=CONTEXT, rope_parameters=parameters, num_local_experts=2, num_experts_per_tok=1
    )


def dynamic() -> PreTrainedConfig:
    parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    return LlamaConfig(**SIZES, max_position_embeddings=SWITCH, rope_parameters=parameters)


LORA = {"type": "lora", "lora": {"r": 4, "alpha": 8, "target_modules": ["o_proj"]}}
every_family = pytest.mark.parametrize("make", [longrope, longrope_with_scales, dynamic])


def load(make: Any, folder: Path, context_tokens: int) -> LoadedBase:
    base = make_tiny_base(folder)
    for weights in folder.glob("model*"):
        weights.unlink()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(make()).save_pretrained(folder)
    return load_base(base.model_copy(update={"context_tokens": context_tokens}), torch.device("cpu"))


@torch.no_grad()
def logits(model: PreTrainedModel, *rows: Any) -> list[Tensor]:
    """logits_TV of each row, padded to the longest."""
    longest = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    found_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
    return [one_TV[: len(row)] for one_TV, row in zip(found_BTV, rows, strict=True)]


@every_family
def test_a_row_is_the_same_alone_and_beside_a_long_one(make: Any, tmp_path: Path) -> None:
    base = load(make, tmp_path, CONTEXT)
    (alone,), (beside, _) = logits(base.model, SHORT), logits(base.model, SHORT, LONG)
    (again,) = logits(base.model, SHORT)
    assert torch.allclose(alone, beside, atol=1e-4)
    assert torch.allclose(alone, again, atol=0)


@every_family
def test_an_answer_is_the_same_alone_and_beside_a_long_row(make: Any, tmp_path: Path) -> None:
    base = load(make, tmp_path, CONTEXT)

    def answer(*beside: list[int]) -> list[int]:
        row = BatchRow(list(SHORT), Sampling(temperature=0.0))
        batch = DecodingBatch(base)
        for one in (row, *(BatchRow(ids, Sampling(temperature=0.0)) for ids in beside)):
            batch.join(batch.prefill([one]))
        while len(row.generated) < 40:  # past the length where the frequencies would change
            batch.sample()
            batch.advance()
        return row.generated[:40]

    found = answer()
    assert answer(LONG) == found
    (whole,) = logits(base.model, [*SHORT, *found])  # what was cached is of the same frequencies as what follows
    assert whole[len(SHORT) - 1 : -1].argmax(dim=-1).tolist() == found


@every_family
def test_rows_of_a_step_have_the_loss_that_each_has_alone(make: Any, tmp_path: Path) -> None:
    base = load(make, tmp_path, CONTEXT)
    rows = random_rows(6, 1, shortest=10, longest=60)
    spec = JobSpec(
        job_id="one", recipe=recipe(LORA), n_epochs=1, batch_size=6, learning_rate=0.0, seed=3, snapshot_steps=100
    )
    slot = Slot(base, environment(base.device), spec, rows, None)
    together = slot.train_step().metrics["train_loss"]
    slot.leave()
    losses = []
    for row in range(len(rows)):
        tokens, trained = rows.row(row)
        (found_TV,) = logits(base.model, tokens.tolist())
        of_tokens = -found_TV.log_softmax(dim=-1)[:-1].gather(1, torch.tensor(tokens[1:, None].astype("int64")))[:, 0]
        losses += of_tokens[torch.tensor(trained[1:] == 1)].tolist()
    assert together == pytest.approx(sum(losses) / len(losses), abs=1e-4)


@pytest.mark.parametrize("make", [longrope, dynamic])
def test_frequencies_are_those_of_the_longest_row(make: Any, tmp_path: Path) -> None:
    """transformers' own for a row of that length; of a context that never needs others, those of all rows."""
    base = load(make, tmp_path / "long", CONTEXT)
    row = [7 + 3 * token % 200 for token in range(CONTEXT)]
    own = AutoModelForCausalLM.from_pretrained(tmp_path / "long").eval()
    assert torch.allclose(logits(base.model, row)[0], logits(own, row)[0], atol=1e-4)
    short = load(make, tmp_path / "short", SWITCH)
    own = AutoModelForCausalLM.from_pretrained(tmp_path / "short").eval()
    assert torch.allclose(logits(short.model, SHORT)[0], logits(own, SHORT)[0], atol=1e-4)
    assert not torch.allclose(logits(base.model, SHORT)[0], logits(short.model, SHORT)[0], atol=1e-2)


def test_a_saved_model_has_the_config_that_its_base_has(tmp_path: Path) -> None:
    base = load(longrope, tmp_path / "base", CONTEXT)
    base.model.save_pretrained(tmp_path / "saved")
    configs = [AutoModelForCausalLM.from_pretrained(tmp_path / name).config for name in ("base", "saved")]
    assert configs[0].rope_parameters == configs[1].rope_parameters
    assert configs[0].rope_parameters["short_factor"] != configs[0].rope_parameters["long_factor"]
