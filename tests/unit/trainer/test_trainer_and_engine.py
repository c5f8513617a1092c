"""Trainer and engine find the same tokens equally likely, and a tensor that is not the trained one shows."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.domain.errors import JobError
from service.recipes.base import Base
from service.recipes.served_form import ServedForm
from tests.given.engines import CPU, calling, local_store, logits_of, make_engine, publish
from tests.given.recipes import recipe
from tests.given.slots import LORA, PROMPT, TRAIN, VALID, adapter, every_tuning, run, seat
from tests.given.tiny_models import make_tiny_base, random_rows, rows_of
from workers.jobs.comparison import Comparison, Verdict, compare
from workers.model.load import KeptStates, LoadedBase, environment, load_base
from workers.trainer.process import agreement
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec, ScoredRow

pytestmark = pytest.mark.slow

PARTIAL = {"type": "partial", "partial": {"parameters": ["norm"]}}
BOTTLENECK = {"type": "bottleneck", "bottleneck": {"placement": "houlsby", "size": 8}}
LOREFT = {"type": "loreft", "loreft": {"first": 3, "last": 3}}
WEIGHTS = "adapter_model.safetensors"
FILES = ("adapter_config.json", WEIGHTS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), CPU)


async def served(base: Base, folder: Path, name: str, rows: Sequence[ScoredRow], tuning: str) -> Comparison:
    """What the embedded engine computes with the adapter in `folder / name`."""
    loaded = load_base(base, CPU)
    model = await publish(local_store(folder / "objects"), base, loaded, folder / name, name, tuning)
    found = []
    async with calling(make_engine(base, loaded, folder)) as client:
        for asked in (model, base.id):
            question = {
                "model": asked, "prompt": [row.ids for row in rows], "max_tokens": 1, "temperature": 0, "echo": True,
                "logprobs": 1,
            }  # fmt: skip
            answer = await client.post("/v1/completions", json=question, timeout=60)
            assert answer.status_code == 200, answer.text
            choices = answer.json()["choices"]
            found.append([choices[i]["logprobs"]["token_logprobs"][1 : len(row.ids)] for i, row in enumerate(rows)])
    return compare(rows, found[0], found[1], base.dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("tuning", [LORA, PROMPT, PARTIAL], ids=["lora", "prompt", "partial"])
async def test_the_engine_agrees_with_the_trainer_and_not_with_a_doubled_tensor(
    tmp_path: Path, tuning: dict[str, Any], dtype: str
) -> None:
    base = make_tiny_base(tmp_path / "base", dtype=dtype)
    slot = seat(load_base(base, CPU), tuning=tuning, learning_rate=base.learning_rate.get(tuning["type"], 1e-2))
    run(slot)
    rows = slot.agreement_rows()
    slot.save_adapter(tmp_path / "trained1")
    agreeing = await served(base, tmp_path, "trained1", rows, tuning["type"])
    assert agreeing.num_tokens == sum(len(row.ids) - 1 for row in rows)
    assert agreeing.verdict is Verdict.AGREES, agreeing
    assert agreeing.served == pytest.approx(agreeing.trained, rel=0.05)
    slot.save_adapter(tmp_path / "doubled1")
    tensors = load_file(tmp_path / "doubled1" / WEIGHTS)
    moved = min(name for name in tensors if "lora_A" not in name)
    save_file(tensors | {moved: tensors[moved] * 2}, tmp_path / "doubled1" / WEIGHTS, metadata={"format": "pt"})
    contradicting = await served(base, tmp_path, "doubled1", rows, tuning["type"])
    assert contradicting.verdict.contradicts, contradicting


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("tuning", [BOTTLENECK, LOREFT], ids=["bottleneck", "loreft"])
async def test_the_engine_agrees_where_layers_are_our_own(tmp_path: Path, tuning: dict[str, Any], dtype: str) -> None:
    base = make_tiny_base(tmp_path / "base", dtype=dtype)
    slot = seat(load_base(base, CPU), tuning=tuning, learning_rate=3e-2)
    run(slot)
    rows = slot.agreement_rows()
    slot.save_adapter(tmp_path / "trained1")
    agreeing = await served(base, tmp_path, "trained1", rows, tuning["type"])
    assert agreeing.verdict is Verdict.AGREES, agreeing


@pytest.mark.parametrize(
    ("tuning", "rank"),
    [({"type": "vera", "vera": {"r": 8, "dropout": 0.1}}, 8), ({"type": "full", "full": {}}, 16)],
    ids=["vera", "full"],
)
async def test_what_an_engine_loads_instead_is_what_it_is_compared_by_and_changes_no_training(
    tmp_path: Path, tuning: dict[str, Any], rank: int
) -> None:
    base = make_tiny_base(tmp_path / "base")
    plain, slot = (
        seat(load_base(base, CPU), tuning=tuning, learning_rate=1e-2, served_form=form)
        for form in (None, ServedForm(serve_rank=rank, serve_min_share=0.1))
    )
    plain.train_step()
    slot.train_step()
    slot.save_adapter(tmp_path / "midway")
    run(plain)
    run(slot)
    conversion = slot.save_adapter(tmp_path / "served01")
    assert adapter(plain, tmp_path / "plain") == tuple((tmp_path / "served01" / name).read_bytes() for name in FILES)
    trained = slot.agreement_rows()
    with slot.serving(tmp_path / "served01") as form:
        rows = slot.agreement_rows()
        assert conversion is not None and conversion.rank == rank
        measured = form.measured(conversion)
    agreeing = await served(base, tmp_path, "served01", rows, tuning["type"])
    assert agreeing.verdict is Verdict.AGREES, agreeing
    assert measured.outputs == agreeing.num_tokens and measured.effect > 0.01 and measured.changed is not None
    differences = [abs(a - b) for one, other in zip(trained, rows, strict=True)
                   for a, b in zip(one.logprobs, other.logprobs, strict=True)]  # fmt: skip
    assert measured.difference == pytest.approx(sum(differences) / len(differences), abs=1e-9)
    if tuning["type"] == "vera":
        assert conversion.share == 1 and max(differences) < 1e-5 and measured.changed < 1e-5
    else:  # norms and embeddings are in no LoRA
        assert 0.3 < conversion.share < 1 and measured.difference > 1e-4
    assert slot.agreement_rows() == trained


def test_a_job_of_which_no_lora_can_be_made_is_refused_before_its_first_step(base: LoadedBase) -> None:
    with pytest.raises(JobError, match="nothing that the job trains is the weight of a linear layer"):
        seat(base, tuning=PARTIAL, served_form=ServedForm(serve_rank=4))


@every_tuning
def test_the_agreement_rows_have_what_plain_passes_give_first_to_held_out_rows(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    vars(base)["kept_states"] = KeptStates()
    slot = seat(base, tuning=tuning)
    run(slot)
    passes: list[None] = []
    counting = base.model.base_model.layers[0].register_forward_hook(lambda *_: passes.append(None))
    rows = slot.agreement_rows()
    assert len(passes) == 2, "guard: all rows together, with the tuning and without it"
    assert slot.agreement_rows() == rows
    counting.remove()
    assert len(passes) == 3, "guard: without the tuning once for all jobs with these rows"
    slot.save_adapter(tmp_path / "adapter")
    slot.leave()
    files = [*((VALID, row) for row in range(len(VALID))), *((TRAIN, row) for row in range(len(TRAIN)))]
    assert [row.ids for row in rows] == [file.row(row)[0].tolist() for file, row in files]
    for row in rows:
        base_TV = logits_of(base, None, row.ids).log_softmax(-1)
        expected = [float(base_TV[place][id]) for place, id in enumerate(row.ids[1:])]
        assert row.base_logprobs == pytest.approx(expected, abs=1e-5)
        logits_TV = logits_of(base, tmp_path / "adapter", row.ids)
        expected = [float(logits_TV[place].log_softmax(0)[id]) for place, id in enumerate(row.ids[1:])]
        assert row.logprobs == pytest.approx(expected, abs=1e-5)


@every_tuning
def test_scoring_agreement_rows_changes_no_bit_of_the_training(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    calm, scored = seat(base, "calm", tuning), seat(base, "scored", tuning)
    run(calm)
    outside = torch.get_rng_state()
    while not scored.finished:
        scored.train_step()
        scored.agreement_rows()
    assert torch.equal(torch.get_rng_state(), outside)
    assert adapter(scored, tmp_path / "scored") == adapter(calm, tmp_path / "calm")
    for slot in (calm, scored):
        slot.leave()


def test_without_a_validation_file_training_rows_are_cut_to_what_an_engine_can_take(base: LoadedBase) -> None:
    spec = JobSpec(
        job_id="cut", recipe=recipe(LORA), n_epochs=1, batch_size=5, learning_rate=1e-2, seed=1,
        snapshot_steps=100, agreement_tokens=5,
    )  # fmt: skip
    slot = Slot(base, environment(CPU), spec, TRAIN, None)
    run(slot)
    assert [row.ids for row in slot.agreement_rows()] == [TRAIN.row(row)[0][:5].tolist() for row in range(len(TRAIN))]
    slot.leave()


def test_weights_that_broke_in_the_last_step_are_a_divergence(base: LoadedBase) -> None:
    spec = JobSpec(
        job_id="broken", recipe=recipe(LORA), n_epochs=1, batch_size=3, learning_rate=1e-2, seed=1,
        snapshot_steps=100,
    )  # fmt: skip
    slot = Slot(base, environment(CPU), spec, random_rows(3), None)
    run(slot)
    with torch.no_grad():
        next(iter(slot._tuning.parameters().values())).fill_(math.nan)
    with pytest.raises(JobError) as raised:
        slot.agreement_rows()
    assert raised.value.code == "training_diverged"
    slot.leave()


def test_more_rows_are_scored_where_the_effect_is_small(base: LoadedBase) -> None:
    """The error of an effect's strength falls with its size and with the number of tokens."""
    counts = []
    for rate in (3e-2, 1e-4):
        spec = JobSpec(
            job_id="few", recipe=recipe(LORA), n_epochs=4, batch_size=100, learning_rate=rate, seed=1,
            snapshot_steps=100,
        )  # fmt: skip
        slot = Slot(base, environment(CPU), spec, random_rows(300), None)
        run(slot)
        counts.append(sum(len(row.ids) - 1 for row in slot.agreement_rows()))
        slot.leave()
    assert agreement.ENOUGH_TOKENS <= counts[0] < agreement.ENOUGH_TOKENS + 24
    assert counts[0] < counts[1] <= agreement.LIMIT_TOKENS


def test_rows_that_are_alike_are_scored_once(base: LoadedBase) -> None:
    spec = JobSpec(
        job_id="alike", recipe=recipe(LORA), n_epochs=2, batch_size=3, learning_rate=1e-2, seed=1, snapshot_steps=100
    )
    slot = Slot(base, environment(CPU), spec, rows_of([[7, 8, 9, 10], [7, 8, 9, 10], [9], [7, 8, 11, 12]]), None)
    run(slot)
    assert [row.ids for row in slot.agreement_rows()] == [[7, 8, 9, 10], [7, 8, 11, 12]]
    slot.leave()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_adapter_that_could_not_change_an_answer_is_an_error_with_the_figure(tmp_path: Path, dtype: str) -> None:
    """As of an absolute rate under the name of a multiplier: its weights have moved, its answers have not."""
    base = load_base(make_tiny_base(tmp_path, dtype=dtype), CPU)
    slot = seat(base, learning_rate=2e-5 * 1e-2)
    run(slot)
    slot.check_changed()  # to the last bit
    with pytest.raises(JobError, match=r"answers as its base does: over 2[0-9][0-9] tokens") as raised:
        slot.agreement_rows()
    assert raised.value.code == "adapter_without_effect"
    assert raised.value.param == "hyperparameters.learning_rate_multiplier"
    slot.leave()
    short = seat(base, learning_rate=1e-2, n_epochs=1, batch_size=10)  # one step
    run(short)
    assert short.total_steps == 1
    assert short.agreement_rows()
    short.leave()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@every_tuning
def test_a_job_that_continues_a_model_must_change_what_that_model_says(
    tmp_path: Path, tuning: dict[str, Any], dtype: str
) -> None:
    """Beside the base it has its parent's effect, however little it learnt itself."""
    base = load_base(make_tiny_base(tmp_path / "base", dtype=dtype), CPU)
    parent = seat(base, "parent", tuning, learning_rate=5e-2)
    run(parent)
    adapter(parent, tmp_path / "parent")
    parent.leave()
    for rate in (1e-9, 5e-2):
        child = seat(base, "child", tuning, learning_rate=rate)
        child.continue_from(tmp_path / "parent")
        assert not child.has_effect()  # before the first step
        run(child)
        child.check_changed()
        assert child.has_effect() is (rate == 5e-2)
        if rate == 5e-2:
            assert child.agreement_rows()[0].base_logprobs is not None  # which an engine is compared with, as ever
        else:
            with pytest.raises(JobError, match="answers as the model that it continues does") as raised:
                child.agreement_rows()
            assert raised.value.code == "adapter_without_effect"
        child.leave()
