"""Which engines the announcement refuses: planted faults that it finds, and healthy engines that it refuses.

    nice -n 19 python -m benchmarks.agreement_power [--cpu-minutes 20] > benchmarks/agreement_power.txt

Jobs of random strength (learning rate, steps, rank, alpha) train on tiny random models of several families, in float32
and in bfloat16. Trainer and comparison are the product's own. An engine is the same model in either format, with
another implementation of attention, rows in padded batches and the adapter's weights rounded to the engine's format, as
vLLM has them. Each job is compared with a healthy engine on several sets of rows, and with an engine of each fault on
one of them. Families take turns, so that a run that ends early has all of them; what was missed goes to stderr.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
MEASURED = ("llama", "qwen3", "gpt2", "bloom")
ALIKE = {"llama": ("gate_proj", "up_proj"), "qwen3": ("k_proj", "v_proj")}  # modules of one shape in each layer
FUSED = {"gpt2": "attn.c_attn", "bloom": "query_key_value"}  # one matrix that has queries, keys and values
HEADS = 4
OUTPUT = {"llama": "o_proj", "qwen3": "o_proj", "gpt2": "attn.c_proj", "bloom": "self_attention.dense"}
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
    """In every layer two modules have each other's weights: two of one shape, or keys and values of a fused one."""
    if family in FUSED:
        return {
            name: _keys_for_values(family, tensor) if FUSED[family] in name and "lora_B" in name else tensor
            for name, tensor in tensors.items()
        }
    one, two = ALIKE[family]
    return _exchanged(tensors, f".{one}.", f".{two}.")


def _keys_for_values(family: str, tensor_OR: Tensor) -> Tensor:
    """GPT-2 has all queries, then keys, then values; BLOOM has the three of each head together."""
    width, rank = tensor_OR.shape
    groups = HEADS if family == "bloom" else 1
    return tensor_OR.view(groups, 3, width // 3 // groups, rank)[:, [0, 2, 1]].reshape(width, rank).clone()


def _other_layer(family: str, tensors: Tensors) -> Tensors:
    """One module of each layer has the weights of the other layer: the smallest fault of the table."""
    module = f".{OUTPUT[family]}."
    ours = {name: tensor for name, tensor in tensors.items() if module in name}
    return tensors | _exchanged(ours, ".0.", ".1.")


def _exchanged(tensors: Tensors, one: str, two: str) -> Tensors:
    changed = dict(tensors)
    for name in tensors:
        if one in name:
            other = name.replace(one, two)
            changed[name], changed[other] = tensors[other].clone(), tensors[name].clone()
    assert changed, one
    return changed


ADAPTERS: Mapping[str, Callable[[str, Tensors], Tensors]] = {
    "half its strength": _scaled(0.5),
    "twice its alpha": _scaled(2.0),
    "a swapped module": _swapped,
    "another layer's module": _other_layer,
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
                if found.verdict.contradicts is (fault == "healthy"):
                    print(f"{fault}, {dtype} -> {engine_dtype}, {job}: {found}", file=sys.stderr)


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


def _engines(family: str) -> Mapping[str, Mapping[str, Engine]]:
    return {
        name: {
            "healthy": _engine(family, dtype),
            "another base": _engine(family, dtype, _mix_all),
            "a layer of another": _engine(family, dtype, _mix_a_layer),
        }
        for name, dtype in DTYPES.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=20, help="of each family and format, at most")
    parser.add_argument("--cpu-minutes", type=float, default=20, help="after which no other job begins")
    parser.add_argument("--first-seed", type=int, default=100, help="of the jobs; others than bounds were chosen by")
    parser.add_argument("--families", nargs="+", choices=MEASURED, default=MEASURED)
    arguments = parser.parse_args()
    families: Sequence[str] = arguments.families
    torch.set_num_threads(1)
    table = Table()
    engines = {family: _engines(family) for family in families}
    bases = {(family, name): load_family(family, dtype) for family in families for name, dtype in DTYPES.items()}
    jobs = 0
    with suppress(KeyboardInterrupt):  # after which the table has the whole rounds and a part of one
        while jobs < arguments.jobs and time.process_time() < 60 * arguments.cpu_minutes:
            for family, name in bases:
                job = Job.random(family, arguments.first_seed + jobs)
                _compare_job(job, bases[family, name], name, engines[family], table)
            jobs += 1
            print(f"{jobs} jobs of each, {time.process_time():.0f} CPU seconds", file=sys.stderr, flush=True)
    print(
        f"Engines that were refused; {jobs} jobs of each of {', '.join(families)}, in each format, seeds from "
        f"{arguments.first_seed}; trainer -> engine"
    )
    table.print(sys.stdout)
    print(
        f"\n{table.without_effect} jobs ended as adapter_without_effect and were not compared. "
        f"{time.process_time():.0f} CPU seconds."
    )


if __name__ == "__main__":
    main()
