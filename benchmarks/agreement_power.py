"""Which engines the announcement refuses: planted faults that it finds, and healthy engines that it refuses.

    python -m benchmarks.agreement_power [--jobs 8] [--families llama qwen3] > benchmarks/agreement_power.txt

Jobs of random strength (learning rate, steps, rank, alpha) train on tiny random models of several families, in float32
and in bfloat16. Trainer and comparison are the product's own. An engine is the same model in either format, with
another implementation of attention, rows in padded batches and the adapter's weights rounded to the engine's format, as
vLLM has them. Each job is compared with a healthy engine on several sets of rows, and with an engine of each fault on
one of them.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.recipes.tuning import TUNINGS
from tests.given.families import FAMILIES, FAMILY_VOCABULARY, load_family, make_family
from tests.given.recipes import recipe
from tests.given.tiny_models import rows_of
from workers.jobs.comparison import Verdict, compare
from workers.model.load import LoadedBase, environment
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec, ScoredRow
from workers.tunings import create_tuning

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ROW_SETS = 8  # on which each job is compared with a healthy engine
ROWS, BATCH = 40, 5
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ALIKE = {  # modules of one shape that an engine could take for one another
    "llama": ("gate_proj", "up_proj"),
    "qwen3": ("k_proj", "v_proj"),
    "bloom": ("self_attention.dense", "self_attention.dense"),
    "gpt2": ("attn.c_proj", "attn.c_proj"),
}
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """What one job trains with; the same in both formats."""

    family: str
    seed: int
    rank: int
    alpha: int
    learning_rate: float
    n_epochs: int

    @classmethod
    def random(cls, family: str, seed: int) -> "Job":
        numbers = np.random.default_rng([seed, FAMILIES.index(family)])
        return cls(
            family,
            seed,
            int(numbers.choice([2, 4, 8])),
            int(numbers.choice([8, 16, 32])),
            float(10 ** numbers.uniform(-3.7, -1.7)),
            int(numbers.choice([1, 2, 4])),
        )

    @property
    def tuning(self) -> dict[str, object]:
        return {"type": "lora", "lora": {"r": self.rank, "alpha": self.alpha, "target_modules": "all-linear"}}

    def rows(self, number: int) -> list[list[int]]:
        """Rows of a few patterns, one token in five another; `number` 0 trains, 9 trains another adapter."""
        numbers = np.random.default_rng([self.seed, FAMILIES.index(self.family), 1 if number == 9 else 0])
        patterns = [numbers.integers(3, FAMILY_VOCABULARY, int(numbers.integers(16, 60))) for _ in range(4)]
        noise = np.random.default_rng([self.seed, number])
        rows = [patterns[place % 4].copy() for place in range(ROWS)]
        for row in rows:
            changed = noise.random(len(row)) < 0.2
            row[changed] = noise.integers(3, FAMILY_VOCABULARY, int(changed.sum()))
        return [row.tolist() for row in rows]

    def train(self, base: LoadedBase, train: int, valid: int, folder: Path, seed: int = 1) -> Slot:
        spec = JobSpec(
            job_id=f"job-{seed}", recipe=recipe(self.tuning), n_epochs=self.n_epochs, batch_size=8,
            learning_rate=self.learning_rate, seed=seed, snapshot_steps=1000,
        )  # fmt: skip
        slot = Slot(base, environment(base.device), spec, rows_of(self.rows(train)), None)
        while not slot.finished:
            slot.train_step()
        slot.save_adapter(folder)
        slot._valid = rows_of(self.rows(valid))  # rows to be scored; validation itself would only take time
        return slot


class Engine:
    """A model in a format, which scores rows with an adapter or without one."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype) -> None:
        self._model = model
        self._dtype = dtype

    def score(self, rows: Sequence[Sequence[int]], job: Job, adapter: Path | None) -> list[list[float]]:
        if adapter is None:
            return [scores for part in _parts(rows) for scores in self._scored(part, self._model)]
        settings = TUNINGS.find("lora")
        assert settings is not None
        tuning = create_tuning(settings.model_validate(job.tuning["lora"]), self._model, "engine")
        tuning.attach()
        try:
            tuning.load(adapter)
            with torch.no_grad():
                for parameter in tuning.parameters().values():
                    parameter.copy_(parameter.to(self._dtype))
            tuning.activate()
            return [scores for part in _parts(rows) for scores in self._scored(part, tuning.model)]
        finally:
            tuning.detach()

    def _scored(self, rows: Sequence[Sequence[int]], model: PreTrainedModel) -> Iterator[list[float]]:
        width = max(map(len, rows))
        ids_BT = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        with torch.no_grad():
            logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
        logprobs_BTV = logits_BTV.float().log_softmax(-1)
        for place, row in enumerate(rows):
            next_T1 = torch.tensor(row[1:])[:, None]
            yield logprobs_BTV[place, : len(row) - 1].gather(1, next_T1)[:, 0].tolist()


def _parts(rows: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    for begin in range(0, len(rows), BATCH):
        yield rows[begin : begin + BATCH]


def _engine(family: str, dtype: torch.dtype, change: Callable[[PreTrainedModel], None] | None = None) -> Engine:
    model = make_family(family, dtype)
    if family != "bloom":  # which has one implementation
        model.set_attn_implementation("eager")
    if change is not None:
        change(model)
    return Engine(model, dtype)


def _mix_all(model: PreTrainedModel) -> None:
    _mix(parameter for _, parameter in model.named_parameters())


def _mix_a_layer(model: PreTrainedModel) -> None:
    _mix(parameter for name, parameter in model.named_parameters() if ".1." in name)


def _mix(parameters: Iterator[Tensor]) -> None:
    """The weights of every matrix in another order: others, of the same size."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            if parameter.dim() >= 2:
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))


def _scaled(factor: float) -> Callable[[str, Tensors], Tensors]:
    def change(_: str, tensors: Tensors) -> Tensors:
        return {name: tensor * factor if "lora_B" in name else tensor for name, tensor in tensors.items()}

    return change


def _swapped(family: str, tensors: Tensors) -> Tensors:
    """Two modules have each other's weights, in every layer; where a family has no two alike, two layers have."""
    one, two = ALIKE[family]
    changed = dict(tensors)
    for name in tensors:
        other = name.replace(f".{one}.", f".{two}.") if one != two else name.replace(".0.", ".1.")
        if f".{one}." in name and other in tensors and other != name:
            changed[name], changed[other] = tensors[other].clone(), tensors[name].clone()
    return changed


ADAPTERS: Mapping[str, Callable[[str, Tensors], Tensors]] = {
    "half its strength": _scaled(0.5),
    "twice its alpha": _scaled(2.0),
    "a swapped module": _swapped,
}


class Table:
    """Verdicts by fault and by the formats of trainer and engine."""

    def __init__(self) -> None:
        self._found: dict[str, Counter[tuple[str, str]]] = {}
        self.without_effect = 0

    def add(self, fault: str, formats: str, verdict: Verdict) -> None:
        what = "refused" if verdict.contradicts else verdict.value
        self._found.setdefault(fault, Counter())[formats, what] += 1

    def print(self, file: TextIO) -> None:
        formats = [f"{one} -> {two}" for one in DTYPES for two in DTYPES]
        print(
            f"{'engine':22}" + "".join(f"{name:>24}" for name in formats) + f"{'all':>16}{'undecided':>11}", file=file
        )
        for fault, found in self._found.items():
            cells = [(found[name, "refused"], sum(found[name, what] for what in VERDICTS)) for name in formats]
            every = (sum(refused for refused, _ in cells), sum(total for _, total in cells))
            undecided = sum(found[name, "undecided"] for name in formats)
            print(
                f"{fault:22}"
                + "".join(f"{f'{refused} of {total}':>24}" for refused, total in cells)
                + f"{f'{every[0]} of {every[1]}':>16}{undecided:>11}",
                file=file,
            )


VERDICTS = ("refused", "agrees", "undecided")


@contextmanager
def _seated(slot: Slot) -> Iterator[Slot]:
    try:
        yield slot
    finally:
        slot.leave()


def _compare_job(
    job: Job, base: LoadedBase, dtype: str, engines: Mapping[str, Mapping[str, Engine]], table: Table
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job.train(base, 9, 1, folder / "another adapter", seed=2).leave()
        with _seated(job.train(base, 0, 1, folder / "trained")) as slot:
            sets = []
            for number in range(1, ROW_SETS + 1):
                slot._valid = rows_of(job.rows(number))
                try:
                    sets.append(slot.agreement_rows())
                except JobError:
                    table.without_effect += 1
                    return
        tensors = load_file(folder / "trained" / WEIGHTS)
        for fault, change in ADAPTERS.items():
            (folder / fault).mkdir()
            save_file(change(job.family, tensors), folder / fault / WEIGHTS)
            (folder / fault / CONFIG).write_bytes((folder / "trained" / CONFIG).read_bytes())
        for engine_dtype in DTYPES:
            for fault, rows, tuned, without in _comparisons(job, folder, engines[engine_dtype], sets):
                found = compare(rows, tuned, without, dtype)
                table.add(fault, f"{dtype} -> {engine_dtype}", found.verdict)


def _comparisons(
    job: Job, folder: Path, engines: Mapping[str, Engine], sets: Sequence[list[ScoredRow]]
) -> Iterator[tuple[str, list[ScoredRow], list[list[float]], list[list[float]]]]:
    healthy = engines["healthy"]
    for rows in sets:
        ids = [row.ids for row in rows]
        yield "healthy", rows, healthy.score(ids, job, folder / "trained"), healthy.score(ids, job, None)
    rows, ids = sets[0], [row.ids for row in sets[0]]
    without = healthy.score(ids, job, None)
    yield "no adapter", rows, without, without
    for fault in ("another adapter", *ADAPTERS):
        yield fault, rows, healthy.score(ids, job, folder / fault), without
    for fault in ("another base", "a layer of another"):
        yield fault, rows, engines[fault].score(ids, job, folder / "trained"), engines[fault].score(ids, job, None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=8, help="of each family and format")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    arguments = parser.parse_args()
    jobs, families = arguments.jobs, arguments.families
    torch.set_num_threads(1)
    table = Table()
    for family in families:
        engines = {
            name: {
                "healthy": _engine(family, dtype),
                "another base": _engine(family, dtype, _mix_all),
                "a layer of another": _engine(family, dtype, _mix_a_layer),
            }
            for name, dtype in DTYPES.items()
        }
        for name, dtype in DTYPES.items():
            base = load_family(family, dtype)
            for seed in range(jobs):
                _compare_job(Job.random(family, seed), base, name, engines, table)
        print(f"{family} is done, with the families before it:", file=sys.stderr)
        table.print(sys.stderr)
    print(f"Engines that were refused; {jobs} jobs of each of {', '.join(families)}, in each format; trainer -> engine")
    table.print(sys.stdout)
    print(f"\n{table.without_effect} jobs ended as adapter_without_effect and were not compared.")


if __name__ == "__main__":
    main()
