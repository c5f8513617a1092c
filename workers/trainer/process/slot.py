"""One job's place in the trainer: its parameters, optimizer, schedule, data cursor and random state.

A slot does whole steps and nothing between them, so a neighbour cannot change one bit of its result. It knows folders
and tensors; whose turn it is, it does not know. Entered once per step, from `process`.
"""

import functools
import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from service.domain.errors import JobError
from workers.data.batches import epoch_order, steps_per_epoch
from workers.data.tokenized import TokenizedDataset
from workers.files.folders import whole_folder
from workers.model.load import LoadedBase, tensors_digest
from workers.objectives import create_objective
from workers.trainer.process.faults import check_room, job_errors
from workers.trainer.process.optimizer import JobOptimizer
from workers.trainer.process.passes import Measured, Passes
from workers.trainer.process.randomness import RandomState
from workers.trainer.process.reference import Reference
from workers.trainer.process.snapshot import State, read_snapshot, write_snapshot
from workers.trainer.protocol import JobSpec, ScoredRow
from workers.tunings import AdapterMismatch, create_tuning

VALIDATIONS_PER_EPOCH = (
    20  # of one batch, forward only: at most a third of an epoch's training, of a long one's far less
)
SAMPLE_ROWS = 4
PARAMETER, RANDOM = "parameter/", "random/"
TRAINING, VALIDATION = "train", "valid"
_epoch_order = functools.lru_cache(maxsize=16)(epoch_order)  # several slots, asked at every step


@dataclass(frozen=True)
class Step:
    """What one step did. `cost_tokens` went through the base, validation included: what a turn is charged."""

    metrics: dict[str, float]
    cost_tokens: int
    seconds: float


class Slot:
    """Takes its place at once; `leave` gives it back. Not to be used after an exception except to leave."""

    def __init__(
        self,
        base: LoadedBase,
        environment: dict[str, str],
        spec: JobSpec,
        train: TokenizedDataset,
        valid: TokenizedDataset | None,
    ) -> None:
        self.spec = spec
        self.step = 0
        self.trained_tokens = 0  # all tokens of an example, each time it is trained
        self._base = base
        self._environment = {**environment, "base": base.hashes["weights"]}
        self._train = train
        self._valid = valid
        self._random = RandomState(spec.seed, base.device)
        self._tuning = create_tuning(spec.recipe.tuning, base.model, _module_name(spec.job_id))
        check_room(self._tuning.memory_bytes(), base.device)
        with self._working():
            self._tuning.attach()
        self._initial = tensors_digest(self._tuning.parameters())
        self._optimizer = JobOptimizer(self._tuning.parameters(), spec.learning_rate)
        objective = create_objective(spec.recipe.objective)
        self._passes = Passes(base, self._tuning, objective)
        self._reference = self._new_reference(objective.needs_reference)

    @property
    def total_steps(self) -> int:
        return self._steps_per_epoch * self.spec.n_epochs

    @property
    def at_epoch_end(self) -> bool:
        return self.step > 0 and self.step % self._steps_per_epoch == 0

    @property
    def prepared(self) -> bool:
        """Whether steps can begin: what the objective compares the policy with is known."""
        return self._reference.complete

    @property
    def finished(self) -> bool:
        return self.step == self.total_steps

    @property
    def changed(self) -> bool:
        """Whether the training has moved the adapter from where it began: from no effect, or from its parent's."""
        return tensors_digest(self._tuning.parameters()) != self._initial

    def check_changed(self) -> None:
        """Raises JobError when all the training changed nothing: such an adapter is of use to nobody."""
        if not self.changed:
            raise JobError(
                "adapter_unchanged",
                f"The training changed nothing: after {self.step} steps the adapter is what it was before the first. "
                "The learning rate may be too small to matter, or the examples leave nothing to learn: "
                "try a larger learning_rate_multiplier, or other examples.",
                param="hyperparameters.learning_rate_multiplier",
            )

    def prepare(self) -> int:
        """One turn of what comes before the first step, until `prepared`; answers its cost in tokens."""
        with self._working():
            return self._reference.advance()

    def train_step(self) -> Step:
        """One optimizer step, with the validation that is due at it. Raises JobError when the job cannot go on."""
        started_at = time.perf_counter()
        examples = self._examples(self.step)
        with self._working():
            train = self._passes.train(self._train, examples, self._reference.of(TRAINING))
            self.step += 1
            self._check_finite("training loss", train.loss)
            self._check_finite("gradient", self._optimizer.step(self.step, self.total_steps))
            self.trained_tokens += train.cost_tokens
            metrics, valid_tokens = self._validate()
        metrics = {
            "step": self.step,
            "total_steps": self.total_steps,
            **train.named("train"),
            **metrics,
        }
        return Step(metrics, train.cost_tokens + valid_tokens, time.perf_counter() - started_at)

    def sample(self) -> list[ScoredRow]:
        """The beginnings of a few rows, held out where there are such, scored with the weights as they stand."""
        dataset = self._train if self._valid is None else self._valid
        rows = [dataset.row(row)[0][: self.spec.sample_tokens] for row in range(min(SAMPLE_ROWS, len(dataset)))]
        with self._working():
            scored = [(ids.tolist(), self._passes.score(ids.tolist())) for ids in rows if len(ids) > 1]
        for _, logprobs in scored:
            self._check_finite("log-probability of a row", sum(logprobs))
        return [ScoredRow(ids=ids, logprobs=logprobs) for ids, logprobs in scored]

    def save_adapter(self, folder: Path) -> None:
        """Writes the adapter in PEFT's format."""
        with whole_folder(folder) as partial:
            self._tuning.save(partial, self._base.public_source)

    def continue_from(self, folder: Path) -> None:
        """Starts from the weights of a saved adapter, with a fresh optimizer. Raises JobError."""
        try:
            self._tuning.load(folder)
        except AdapterMismatch as error:
            raise JobError("parent_mismatch", f"The job cannot continue its model: {error}", param="model") from error
        self._initial = tensors_digest(self._tuning.parameters())

    def snapshot(self, folder: Path) -> None:
        """Writes everything that the rest of the job depends on."""
        state = State(
            job_id=self.spec.job_id,
            step=self.step,
            trained_tokens=self.trained_tokens,
            environment=self._environment,
        )
        parameters = {PARAMETER + name: tensor for name, tensor in self._tuning.parameters().items()}
        random = {RANDOM + name: tensor for name, tensor in self._random.state().items()}
        write_snapshot(folder, state, {**parameters, **random, **self._optimizer.state(), **self._reference.state()})

    def restore(self, folder: Path) -> str:
        """Goes on from a snapshot. Answers why the rest will not be bit-exact; empty when it will. Raises JobError."""
        state, tensors = read_snapshot(folder)
        with torch.no_grad():
            for name, parameter in self._tuning.parameters().items():
                parameter.copy_(tensors[PARAMETER + name])
        self._optimizer.restore(tensors)
        self._reference.restore(tensors)
        self._random.restore(
            {name.removeprefix(RANDOM): tensor for name, tensor in tensors.items() if name.startswith(RANDOM)}
        )
        self.step, self.trained_tokens = state.step, state.trained_tokens
        return _difference(state.environment, self._environment)

    def leave(self) -> None:
        """Gives the place back: the base is as if the job had never been there."""
        self._tuning.detach()

    @property
    def _steps_per_epoch(self) -> int:
        return steps_per_epoch(self._train.num_examples, self.spec.batch_size)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Inside, the base and the random generators are this job's."""
        with self._random.in_force(), job_errors():
            self._tuning.activate()
            try:
                yield
            finally:
                self._tuning.deactivate()

    def _examples(self, step: int) -> list[int]:
        """What the step after `step` others trains."""
        epoch, position = divmod(step, self._steps_per_epoch)
        begin = position * self.spec.batch_size
        return _epoch_order(self.spec.seed, epoch, self._train.num_examples)[begin : begin + self.spec.batch_size]

    def _new_reference(self, needed: bool) -> Reference:
        """The training file goes through the very batches of the first epoch: equal shapes give equal bits, so that at
        the first step nothing lies between policy and reference."""
        files = {TRAINING: self._train}
        parts: list[tuple[str, Sequence[int]]] = [
            (TRAINING, self._examples(step)) for step in range(self._steps_per_epoch)
        ]
        if self._valid is not None:
            files[VALIDATION] = self._valid
            parts += [(VALIDATION, part) for part in _parts(self._valid.num_examples, self.spec.batch_size)]
        return Reference(self._passes, files, parts if needed else [])

    def _validate(self) -> tuple[dict[str, float], int]:
        """The metrics that are due at this step, and the tokens that they cost.

        `valid_*`: one batch, the next rows of the file in a ring, at about VALIDATIONS_PER_EPOCH steps of an epoch and
        at its last. `full_valid_*`: the whole file, at the last step of an epoch.
        """
        if self._valid is None:
            return {}, 0
        metrics: dict[str, float] = {}
        cost_tokens = 0
        every = math.ceil(self._steps_per_epoch / VALIDATIONS_PER_EPOCH)
        position = (self.step - 1) % self._steps_per_epoch + 1
        if position % every == 0 or self.at_epoch_end:
            some = self._measure(_ring(self.step // every, self.spec.batch_size, self._valid.num_examples))
            metrics |= some.named("valid")
            cost_tokens += some.cost_tokens
        if self.at_epoch_end:
            full = self._measure(range(self._valid.num_examples))
            metrics |= full.named("full_valid")
            cost_tokens += full.cost_tokens
        return metrics, cost_tokens

    def _measure(self, examples: Sequence[int]) -> Measured:
        assert self._valid is not None
        measured = self._passes.measure(self._valid, examples, self._reference.of(VALIDATION))
        self._check_finite("validation loss", measured.loss)
        return measured

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise JobError(
                "training_diverged",
                f"The training diverged: the {what} became {value} at step {self.step}. "
                "Try a smaller learning_rate_multiplier, or look for unusual examples.",
                param="hyperparameters.learning_rate_multiplier",
            )


def _module_name(job_id: str) -> str:
    """A name that may stand inside a module's name, whatever characters the job's id has."""
    return f"job_{hashlib.sha256(job_id.encode()).hexdigest()[:16]}"


def _parts(num_examples: int, size: int) -> list[range]:
    """All examples in their order, `size` at a time."""
    return [range(begin, min(begin + size, num_examples)) for begin in range(0, num_examples, size)]


def _ring(turn: int, size: int, num_examples: int) -> Sequence[int]:
    """The `turn`-th `size` of an endless repetition of `num_examples` examples; each at most once."""
    size = min(size, num_examples)
    return [(turn * size + offset) % num_examples for offset in range(size)]


def _difference(before: dict[str, str], now: dict[str, str]) -> str:
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name}: {before.get(name, 'unknown')} -> {now.get(name, 'unknown')}" for name in names)
