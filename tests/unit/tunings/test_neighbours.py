"""The matrix of neighbours: every tuning beside every other, attached, trained and detached as if it were alone.

Also one batch with rows of all of them and of the base.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from service.recipes.tuning import tuning_of
from tests.given.recipes import recipe
from tests.given.tiny_models import make_tiny_base, random_rows
from tests.given.tuned import tuned_logits
from tests.given.tunings import KINDS
from workers.data.batches import collate
from workers.model.adapters import Adapter, Adapters
from workers.model.generate import BatchRow, DecodingBatch
from workers.model.load import LoadedBase, environment, load_base, weights_digest
from workers.model.sampling import Sampling
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec
from workers.tunings import create_tuning

pytestmark = pytest.mark.slow

ROWS = random_rows(8)
Seen = tuple[str, list[str], Tensor]  # the digest of the files, the names in them, logits_BTV


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


@pytest.fixture
def base(loaded: LoadedBase) -> Iterator[LoadedBase]:
    """The base; afterwards not one module, hook, attribute or bit of it is another."""
    before, own = trace(loaded), set(vars(loaded.model))
    yield loaded
    assert trace(loaded) == before
    assert set(vars(loaded.model)) == own
    assert weights_digest(loaded.model) == loaded.hashes["weights"]


def trace(base: LoadedBase) -> list[tuple[str, int, int, bool]]:
    return [
        (name, id(module), len(module._forward_hooks) + len(module._forward_pre_hooks), module.training)
        for name, module in base.model.named_modules()
    ]


def seat(base: LoadedBase, kind: str, place: int) -> Slot:
    """The same kind twice is two jobs with seeds of their own."""
    spec = JobSpec(
        job_id=f"{kind}-{place}", recipe=recipe(KINDS[kind]), n_epochs=1, batch_size=4, learning_rate=1e-2, seed=place,
        snapshot_steps=100,
    )  # fmt: skip
    return Slot(base, environment(base.device), spec, ROWS, None)


def seen(base: LoadedBase, slot: Slot, folder: Path) -> Seen:
    """What the world would notice of a job's tuning."""
    slot.save_adapter(folder)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()
    tuning = slot._tuning
    batch = collate(ROWS, range(3), base.pad_id)
    with torch.no_grad():
        tuning.activate()
        logits_BTV = tuned_logits(tuning, batch.input_ids_BT, batch.attention_mask_BT)
        tuning.deactivate()
    return digest, sorted(tuning.parameters()), logits_BTV


def same(one: Seen, other: Seen) -> bool:
    return one[:2] == other[:2] and torch.equal(one[2], other[2])


@pytest.fixture(scope="module")
def alone(loaded: LoadedBase, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], Seen]:
    """By kind, place and number of steps, of a job that has the base to itself."""
    found = {}
    for kind, place in product(KINDS, (1, 2)):
        slot = seat(loaded, kind, place)
        for step in range(3):
            found[kind, place, step] = seen(loaded, slot, tmp_path_factory.mktemp("alone") / "adapter")
            if step < 2:
                slot.train_step()
        slot.leave()
    return found


@pytest.mark.parametrize(("first", "second"), list(product(KINDS, KINDS)))
def test_neighbours_never_notice_each_other(
    base: LoadedBase,
    alone: dict[tuple[str, int, int], Seen],
    first: str,
    second: str,
    tmp_path: Path,
) -> None:
    """Of every two kinds, the first leaves before the other in one order of arrival, the second in the other."""
    order = list(KINDS)
    first_leaves = order.index(first) <= order.index(second)
    one, other = seat(base, first, 1), seat(base, second, 2)
    for _ in range(2):
        one.train_step()
    assert same(seen(base, one, tmp_path / "one"), alone[first, 1, 2])
    assert same(seen(base, other, tmp_path / "other"), alone[second, 2, 0])
    assert weights_digest(base.model) == base.hashes["weights"]
    assert not torch.equal(alone[first, 1, 0][2], alone[first, 1, 2][2])  # the training was to be noticed
    if first_leaves:
        one.leave()
        assert same(seen(base, other, tmp_path / "stays"), alone[second, 2, 0])
        for _ in range(2):
            other.train_step()
        assert same(seen(base, other, tmp_path / "trained"), alone[second, 2, 2])
        other.leave()
    else:
        other.leave()
        assert same(seen(base, one, tmp_path / "stays"), alone[first, 1, 2])
        one.leave()


def test_rows_of_all_and_of_the_base_decode_together_as_alone(base: LoadedBase, tmp_path: Path) -> None:
    """A batch's matrix products add in another order than a single row's. Rows of the base differ by that as well,
    which is the measure here; within one forward pass rows that choose adapters are exact (`test_sites`)."""
    adapters = Adapters(base.model)
    attached: list[Adapter | None] = [None]
    for seed, spec in enumerate(KINDS.values()):
        tuning = create_tuning(tuning_of(spec), base.model, "made")
        if not tuning.mixes_rows:
            continue  # its rows decode in a batch of their own
        torch.manual_seed(seed)
        tuning.attach()
        with torch.no_grad():
            for parameter in tuning.parameters().values():
                parameter.add_(torch.randn(parameter.shape) * 0.1)
        tuning.save(tmp_path, base.public_source)
        tuning.detach()
        attached.append(adapters.attach(tmp_path))
    prompts = [random_rows(len(attached)).row(row)[0].tolist() for row in range(len(attached))]

    def decode(rows: list[BatchRow]) -> list[Tensor]:
        """logits_NV of each row over ten tokens."""
        batch = DecodingBatch(base)
        for row in rows:
            batch.join(batch.prefill([row]))
        logits = []
        for _ in range(10):
            batch.sample()
            batch.advance()
            logits.append(batch._logits_BV.clone())
        return list(torch.stack(logits, dim=1))

    def row(place: int, adapter: int) -> BatchRow:
        return BatchRow(prompts[place], Sampling(temperature=0.0), attached[adapter])

    def furthest(adapters: Sequence[int]) -> float:
        """The greatest difference between a row's logits in the batch and alone."""
        together = decode([row(place, adapter) for place, adapter in enumerate(adapters)])
        singles = [decode([row(place, adapter)])[0] for place, adapter in enumerate(adapters)]
        return max(float((one - other).abs().max()) for one, other in zip(together, singles, strict=True))

    everyone = range(len(attached))
    without = max(furthest([0] * len(attached)), 1e-6)
    assert without < 1e-4
    assert furthest(everyone) <= 4 * without  # tuned states are larger than the base's, and so is their rounding
    assert len({tuple(decode([row(0, adapter)])[0][-1].tolist()) for adapter in everyone}) == len(attached)
    for one in attached[1:]:
        assert one is not None
        adapters.detach(one)
