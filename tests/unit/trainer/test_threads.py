"""A trainer's threads: by a rule that the machine's load cannot change, and kept by each job wherever it continues."""

from pathlib import Path

import pytest
import torch

from service.processes.cpus import available_cpus
from tests.given.slots import adapter, run, seat
from tests.given.tiny_models import make_tiny_base
from workers.model.load import load_base
from workers.trainer.process.threads import usual_threads, usual_trainers

pytestmark = pytest.mark.slow


def test_small_bases_have_one_thread_and_others_what_the_machine_has_up_to_eight() -> None:
    assert [usual_threads(4_000_000, cpus) for cpus in (1, 2, 64)] == [1, 1, 1]
    assert [usual_threads(135_000_000, cpus) for cpus in (1, 2, 64)] == [1, 2, 8]


def test_as_many_trainers_as_keep_the_cpus_busy_and_two_where_threads_wait_for_each_other() -> None:
    assert [usual_trainers(cpus, 1, 1, 1000) for cpus in (1, 2, 64)] == [1, 2, 4]
    assert [usual_trainers(cpus, cpus, 1, 1000) for cpus in (1, 2, 8)] == [1, 2, 2]
    assert [usual_trainers(cpus, 8, 1, 1000) for cpus in (8, 24, 64)] == [2, 3, 4]


def test_those_after_the_first_share_half_of_the_memory_that_is_free() -> None:
    assert [usual_trainers(64, 8, 100, free) for free in (0, 199, 200, 599, 600, 10_000)] == [1, 1, 2, 3, 4, 4]


@pytest.mark.parametrize(("written", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_a_containers_quota_bounds_them(tmp_path: Path, written: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(written + "\n")
    without = available_cpus(tmp_path / "no such file")
    assert available_cpus(tmp_path / "cpu.max") == (cpus or without)


def test_a_job_that_continues_keeps_its_threads_and_nobody_else_gets_them(tmp_path: Path) -> None:
    base = load_base(make_tiny_base(tmp_path / "base"), torch.device("cpu"))
    seen: list[int] = []
    base.model.get_input_embeddings().register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    try:
        slot = seat(base, tuning={"type": "lora", "lora": {"r": 2}})
        slot.train_step()
        slot.snapshot().write(tmp_path / "snapshot")
        run(slot)
        expected = adapter(slot, tmp_path / "undisturbed")
        slot.leave()
    finally:
        torch.set_num_threads(1)
    assert set(seen) == {2}
    seen.clear()
    again = seat(base, tuning={"type": "lora", "lora": {"r": 2}})
    assert again.restore(tmp_path / "snapshot") == ""
    run(again)
    assert set(seen) == {2} and torch.get_num_threads() == 1
    assert adapter(again, tmp_path / "resumed") == expected
    again.leave()
    fresh = seat(base, tuning={"type": "lora", "lora": {"r": 2}})
    seen.clear()
    fresh.train_step()
    assert set(seen) == {1}
    fresh.leave()
