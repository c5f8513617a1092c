"""Whether a training changed anything: asked before an adapter is published, however often the job was resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from service.domain.errors import JobError
from tests.given.slots import adapter, every_tuning, run, seat
from tests.given.tiny_models import make_tiny_base
from workers.model.load import LoadedBase, load_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


@every_tuning
def test_a_training_that_changes_nothing_is_an_error(base: LoadedBase, tuning: dict[str, Any], tmp_path: Path) -> None:
    parent = seat(base, "parent", tuning)
    assert not parent.changed
    parent.train_step()
    assert parent.changed
    run(parent)
    parent.check_changed()
    adapter(parent, tmp_path / "parent")
    parent.leave()
    for folder in (None, tmp_path / "parent"):
        idle = seat(base, "idle", tuning, learning_rate=0.0)
        if folder is not None:
            idle.continue_from(folder)
        run(idle)
        with pytest.raises(JobError) as raised:
            idle.check_changed()
        assert raised.value.code == "adapter_unchanged"
        idle.leave()


@every_tuning
def test_a_resumed_job_knows_where_it_began(base: LoadedBase, tuning: dict[str, Any], tmp_path: Path) -> None:
    slot = seat(base, tuning=tuning, learning_rate=0.0)
    slot.train_step()
    slot.snapshot().write(tmp_path / "unchanged")
    slot.leave()
    slot = seat(base, tuning=tuning)
    slot.train_step()
    slot.snapshot().write(tmp_path / "changed")
    slot.leave()
    for name, changed in (("unchanged", False), ("changed", True)):
        again = seat(base, tuning=tuning, learning_rate=0.0)
        again.restore(tmp_path / name)
        run(again)
        assert again.changed is changed
        again.leave()
