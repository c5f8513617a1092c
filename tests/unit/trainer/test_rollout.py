"""An objective that samples: its phases, its exact continuation, and a wait for rewards that costs no turn."""

from pathlib import Path
from typing import Any

import pytest

from service.recipes.recipe import Recipe
from service.recipes.tuning import tuning_of
from tests.given.own_objectives import EvenSettings, evenness, known
from tests.given.recipes import recipe
from tests.given.slots import ADAPTER_FILES, LORA, PROMPT, TRAIN, adapter, every_tuning, seat
from tests.given.trainer_in_process import Script, job_folder, run
from workers.model.load import LoadedBase
from workers.objectives import Sampled
from workers.trainer.process import rollout
from workers.trainer.process.slot import Phase, Slot
from workers.trainer.protocol import (
    Checkpointed,
    JobSpec,
    Leave,
    Left,
    Report,
    Reward,
    RolledOut,
    RolloutRows,
    Snapshotted,
    Stepped,
    Turn,
)

LOOP: dict[str, Any] = {"n_epochs": 2, "batch_size": 3, "learning_rate": 1e-2, "seed": 7, "snapshot_steps": 100}


def even(tuning: dict[str, Any], **settings: Any) -> Recipe:
    return Recipe(objective=EvenSettings(**settings), tuning=tuning_of(tuning))


def step(slot: Slot) -> dict[str, float]:
    """The turns of one step."""
    while slot.phase is Phase.ROLL_OUT:
        assert slot.roll_out() > 0
    return slot.train_step().metrics


def train(slot: Slot) -> list[dict[str, float]]:
    metrics = []
    while not slot.finished:
        metrics.append(step(slot))
    return metrics


@every_tuning
def test_what_is_rewarded_becomes_likelier(base: LoadedBase, tuning: dict[str, Any]) -> None:
    slot = seat(base, recipe=even(tuning), tuning=tuning, n_epochs=8, batch_size=10, learning_rate=3e-2)
    rewards = []
    while not slot.finished:
        while slot.phase is Phase.ROLL_OUT:
            slot.roll_out()
        rewards.append(sum(evenness(row) for row in slot.rolled_out) / len(slot.rolled_out))
        slot.train_step()
    slot.leave()
    assert sum(rewards[-2:]) > sum(rewards[:2])


@every_tuning
def test_a_job_that_samples_ends_in_the_same_bits_after_a_lost_roll_out_and_beside_neighbours(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    slot, metrics = seat(base, recipe=even(tuning)), []
    for place in range(slot.total_steps):
        slot.snapshot().write(tmp_path / f"snapshot-{place}")
        metrics.append(step(slot))
    expected = adapter(slot, tmp_path / "undisturbed")
    slot.leave()
    lost = seat(base, recipe=even(tuning))
    lost.restore(tmp_path / "snapshot-4")
    lost.roll_out()  # and dies
    sampled = list(lost.rolled_out)
    lost.leave()
    neighbours = [seat(base, "even", recipe=even(LORA), seed=9), seat(base, "dropout", LORA), seat(base, "p", PROMPT)]
    again = seat(base, recipe=even(tuning))
    assert again.restore(tmp_path / "snapshot-4") == ""
    again.roll_out()
    assert list(again.rolled_out) == sampled
    for place in range(4, again.total_steps):
        assert step(again) == metrics[place]
        for neighbour in neighbours:
            step(neighbour)
    assert adapter(again, tmp_path / "resumed") == expected
    for one in (again, *neighbours):
        one.leave()


def test_a_long_roll_out_is_several_turns(base: LoadedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "PART_ROWS", 4)
    slot = seat(base, recipe=even(PROMPT))
    turns = 0
    while slot.phase is Phase.ROLL_OUT:
        slot.roll_out()
        turns += 1
    assert (turns, len(slot.rolled_out)) == (3, 12)
    assert len({row.completion[0] for row in slot.rolled_out}) > 3  # each row draws for itself
    slot.leave()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A job that asks for its rewards, and a supervised neighbour of twice as many steps."""
    known(monkeypatch)
    (tmp_path / "jobs").mkdir()
    asking = JobSpec(job_id="asking", recipe=even(LORA, asks=True), **LOOP)
    beside = JobSpec(job_id="beside", recipe=recipe(PROMPT), **{**LOOP, "n_epochs": 4})
    return job_folder(tmp_path / "jobs", asking, TRAIN), job_folder(tmp_path / "jobs", beside, TRAIN)


def rewards_of(report: RolledOut) -> list[float]:
    """What a parent answers."""
    rows = RolloutRows.model_validate_json(Path(report.file).read_bytes()).rows
    return [evenness(Sampled(row.prompt, row.completion)) for row in rows]


def test_who_waits_for_rewards_takes_no_turn_and_ends_in_the_bits_of_who_has_its_own(
    base: LoadedBase, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    waiting: list[RolledOut] = []

    def answer(report: Report) -> None:
        """Nothing before the neighbour has ended; then at once."""
        if isinstance(report, RolledOut):
            waiting.append(report)
        if waiting and script.of("beside", Left):
            one = waiting.pop()
            script.put(Reward(job_id="asking", step=one.step - 1, rewards=[1.0]))  # of a step before: too late
            script.put(Reward(job_id="asking", step=one.step, rewards=rewards_of(one)))

    script = Script(*folders, watch_report=answer)
    run(base, script)
    asked = script.reports.index(script.of("asking", RolledOut)[0])
    meanwhile = script.reports[asked + 1 : script.reports.index(script.of("beside", Left)[0])]
    assert len([one for one in meanwhile if isinstance(one, Stepped)]) > 10
    assert {one.job_id for one in meanwhile if not isinstance(one, Turn)} == {"beside"}
    assert [one.step for one in script.of("asking", RolledOut)] == list(range(8))
    alone = seat(base, "alone", recipe=even(LORA))
    train(alone)
    expected = adapter(alone, tmp_path / "alone")
    alone.leave()
    last = Path(script.of("asking", Checkpointed)[-1].folder)
    assert tuple((last / name).read_bytes() for name in ADAPTER_FILES) == expected


def test_who_waits_can_be_asked_to_leave_and_asks_again_when_it_is_resumed(
    base: LoadedBase, folders: tuple[Path, Path]
) -> None:
    asking, _ = folders

    def leave(report: Report) -> None:
        if isinstance(report, RolledOut):
            if report.step < 2:
                script.put(Reward(job_id="asking", step=report.step, rewards=rewards_of(report)))
            else:
                script.put(Leave(job_id="asking", snapshot=True))

    script = Script(asking, watch_report=leave)
    run(base, script)
    assert script.reports[-1] == Left(job_id="asking", finished=False)
    (snapshot,) = script.of("asking", Snapshotted)
    assert snapshot.step == 2
    asked = Path(script.of("asking", RolledOut)[-1].file).read_bytes()
    Path(snapshot.folder).rename(asking / "resume")

    again = Script(asking, watch_report=lambda report: leave_at_once(again, report))
    run(base, again)
    (report,) = again.of("asking", RolledOut)
    assert (report.step, Path(report.file).read_bytes()) == (2, asked)


def leave_at_once(script: Script, report: Report) -> None:
    if isinstance(report, RolledOut):
        script.put(Leave(job_id=report.job_id))


def test_a_wrong_number_of_rewards_is_the_parents_mistake(base: LoadedBase) -> None:
    slot = seat(base, recipe=even(PROMPT, asks=True))
    slot.roll_out()
    assert slot.phase is Phase.WAIT
    with pytest.raises(ValueError, match="11 rewards for 12 rows"):
        slot.reward([1.0] * 11)
    slot.reward([1.0] * 12)
    assert slot.phase is Phase.UPDATE
    slot.leave()
