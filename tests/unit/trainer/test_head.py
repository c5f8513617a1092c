"""An objective's own parameters: they train, are snapshotted, saved and continued as the tuning's are."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from service.domain.errors import JobError
from service.domain.model import Manifest
from service.recipes.recipe import Recipe
from service.recipes.tuning import tuning_of
from service.storage.local import LocalStore
from tests.given.own_objectives import GuessSettings
from tests.given.slots import ADAPTER_FILES, LORA, PROMPT, every_tuning, run, seat
from workers.files.artifacts import ArtifactCorrupt, store_artifact, verify_artifact
from workers.model.head import HEAD
from workers.model.load import LoadedBase
from workers.trainer.process.slot import Slot

FILES = (*ADAPTER_FILES, HEAD)


def guessing(base: LoadedBase, tuning: dict[str, Any] = LORA, *, detached: bool = False, outputs: int = 1) -> Slot:
    settings = GuessSettings(detached=detached, outputs=outputs)
    return seat(base, tuning=tuning, recipe=Recipe(objective=settings, tuning=tuning_of(tuning)))


def saved(slot: Slot, folder: Path) -> dict[str, bytes]:
    """The bytes of the adapter's folder."""
    slot.save_adapter(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@every_tuning
def test_a_head_trains_beside_the_tuning_and_is_saved_beside_it(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    slot = guessing(base, tuning)
    before = saved(slot, tmp_path / "before")
    metrics = run(slot)
    after = saved(slot, tmp_path / "after")
    slot.leave()
    assert set(after) == set(FILES)
    assert all(before[name] != after[name] for name in FILES[1:])
    assert set(load_file(tmp_path / "after" / HEAD)) == {"weight", "bias"}
    assert metrics[-1]["full_valid_distance"] < metrics[0]["train_distance"]


@every_tuning
def test_a_job_with_a_head_resumed_at_any_step_ends_in_the_same_bits(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    slot, metrics = guessing(base, tuning), []
    neighbour = seat(base, "neighbour", PROMPT)
    for step in range(slot.total_steps):
        slot.snapshot().write(tmp_path / f"snapshot-{step}")
        metrics.append(slot.train_step().metrics)
        neighbour.train_step()
    expected = saved(slot, tmp_path / "undisturbed")
    slot.leave()
    neighbour.leave()
    names = load_file(tmp_path / "snapshot-4/state.safetensors")
    assert {"parameter/objective/weight", "optimizer/exp_avg/objective/bias"} <= set(names)
    for step in (0, 1, 4, 7):
        again = guessing(base, tuning)
        assert again.restore(tmp_path / f"snapshot-{step}") == ""
        assert run(again) == metrics[step:]
        assert saved(again, tmp_path / f"resumed-{step}") == expected
        again.leave()


def test_a_head_alone_is_a_change(base: LoadedBase, tmp_path: Path) -> None:
    slot = guessing(base, detached=True)
    before = saved(slot, tmp_path / "before")
    assert not slot.changed
    slot.train_step()
    assert slot.changed
    after = saved(slot, tmp_path / "after")
    assert [name for name in FILES if before[name] != after[name]] == [HEAD]
    slot.leave()


def test_a_continued_job_goes_on_from_its_parents_head_where_there_is_one(base: LoadedBase, tmp_path: Path) -> None:
    parent = guessing(base)
    run(parent)
    head = saved(parent, tmp_path / "parent")[HEAD]
    parent.leave()
    child = guessing(base)
    child.continue_from(tmp_path / "parent")
    assert saved(child, tmp_path / "child")[HEAD] == head and not child.changed
    child.leave()
    (tmp_path / "parent" / HEAD).unlink()  # as of a parent with another objective
    child = guessing(base)
    fresh = saved(child, tmp_path / "fresh")[HEAD]
    child.continue_from(tmp_path / "parent")
    assert saved(child, tmp_path / "first")[HEAD] == fresh != head
    child.leave()


def test_a_head_of_another_shape_is_not_continued(base: LoadedBase, tmp_path: Path) -> None:
    parent = guessing(base)
    saved(parent, tmp_path / "parent")
    parent.leave()
    child = guessing(base, outputs=2)
    with pytest.raises(JobError, match="other shapes") as raised:
        child.continue_from(tmp_path / "parent")
    assert raised.value.code == "parent_mismatch"
    child.leave()


def test_a_head_too_large_for_the_memory_leaves_no_trace(base: LoadedBase) -> None:
    with pytest.raises(JobError) as raised:
        guessing(base, outputs=2**45)
    assert raised.value.code == "out_of_memory"


async def test_the_manifest_lists_the_head_and_notices_damage(base: LoadedBase, tmp_path: Path) -> None:
    slot = guessing(base)
    saved(slot, tmp_path / "checkpoint")
    slot.leave()
    store = LocalStore(tmp_path / "objects")
    texts = dict.fromkeys(("base", "base_source", "base_revision", "tuning", "objective", "job_id"), "x")
    empty = {key: {} for key in ("base_hashes", "hyperparameters", "data_hashes", "environment", "metrics", "files")}
    values: Any = {**texts, **empty, **dict.fromkeys(("step", "seed", "created_at"), 1), "parent": None}
    manifest = Manifest(name="ft:tiny:me::a1b2c3d4", **values)
    complete = await store_artifact(store, tmp_path / "checkpoint", manifest)
    assert set(complete.files) == set(FILES)
    (tmp_path / "checkpoint" / HEAD).write_bytes(b"damaged")
    with pytest.raises(ArtifactCorrupt, match=HEAD):
        await verify_artifact(tmp_path / "checkpoint", complete)
