"""One job's state in the trainer: its parameters, optimizer, learning rate, data cursor and random numbers.

A slot does whole steps and nothing between them, so another job cannot change one bit of its result. Works on folders
and tensors; `loop` calls it, one turn at a time.
"""

import functools
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from torch import nn

from service.domain.errors import JobError
from service.domain.model import SERVED, HeadConfig
from service.recipes.tasks import KIND_COLUMNS, TASKS
from workers.data.batches import epoch_order, steps_per_epoch
from workers.data.tokenized import TokenizedDataset
from workers.files.folders import whole_folder
from workers.model.head import HeadMismatch, load_head, save_head
from workers.model.load import LoadedBase, tensors_digest
from workers.objectives import HeadObjective, Sampled, SamplingObjective, create_objective
from workers.trainer.process.decision import Evaluation
from workers.trainer.process.faults import OUT_OF_MEMORY, check_finite, check_room, job_errors, ran_out
from workers.trainer.process.optimizer import JobOptimizer
from workers.trainer.process.passes import Passes, Sums
from workers.trainer.process.randomness import RandomState
from workers.trainer.process.reference import Reference
from workers.trainer.process.rollout import Rollout, TuningSampler
from workers.trainer.process.safeguarding import GeneralText, Guard
from workers.trainer.process.scoring import Scoring
from workers.trainer.process.served_form import Served, check_convertible, save_form, served
from workers.trainer.process.snapshot import Snapshot, State, read_snapshot
from workers.trainer.process.threads import threads_in_force
from workers.trainer.process.validation import Validation
from workers.trainer.protocol import Chosen, Conversion, Forgetting, HeadRow, JobSpec, ScoredRow
from workers.tunings import AdapterMismatch, create_tuning
from workers.tunings.virtual_tokens import tokenized

PARAMETER, RANDOM = "parameter/", "random/"
OWN = "objective/"  # before the names of the objective's own parameters, among the tuning's
TRAINING, VALIDATION = "train", "valid"
_epoch_order = functools.lru_cache(maxsize=16)(epoch_order)  # several slots call it at every step


class Phase(Enum):
    """What a slot does at its next turn."""

    PREPARE = "prepare"  # before the first step: part of the reference
    ROLL_OUT = "roll out"  # sampling what the step learns from
    WAIT = "wait"  # for rewards: no turn
    UPDATE = "update"  # the optimizer step


@dataclass(frozen=True)
class Step:
    """The result of one step. `cost_tokens` went through the base, validation included: the charge of the turn."""

    metrics: dict[str, float]
    cost_tokens: int
    seconds: float
    learning_rate: float
    grad_norm: float  # before it is clipped


class Slot:
    """Attaches to the base when created, until `leave`. After an exception only `leave` may be called."""

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
        self._objective = create_objective(spec.recipe.objective)
        _require_columns([*TASKS[spec.recipe.task].columns, *KIND_COLUMNS.get(base.kind, ())], train, valid)
        tuning = tokenized(spec.recipe.tuning, base.tokenizer)
        self._tuning = create_tuning(tuning, base.model, _module_name(spec.job_id))
        check_room(self._tuning.memory_bytes(), base.device)
        try:
            with self._working():
                self._tuning.attach()
                if spec.served_form is not None:
                    check_convertible(self._tuning, spec.served_form)
                self._objective.prepare(train, base.kind)
                self._objective.attach(base.model.config.get_text_config().hidden_size, base.device)
            self._parameters = self._all_parameters()
            self._initial = tensors_digest(self._parameters)
            self._optimizer = JobOptimizer(self._parameters, spec.learning_rate)
            because = spec.recipe.tuning.unpacked_because or spec.recipe.objective.unpacked_because
            self._passes = Passes(base, self._tuning, self._objective, because)
            self._reference = self._new_reference(self._objective.needs_reference)
            self._rollout = self._new_rollout()
            self._validation = Validation(self._passes, self._objective, valid, spec.batch_size, self._steps_per_epoch)
            self._guard = Guard(spec.safeguards, self._parameters)
            self._text = GeneralText(base.text, spec.agreement_tokens)
            self._scoring = Scoring(
                base, self._passes, self._files, spec.agreement_tokens, self._in_force, self._working
            )
        except BaseException:
            self.leave()
            raise

    @property
    def total_steps(self) -> int:
        return self._steps_per_epoch * self.spec.n_epochs

    @property
    def at_epoch_end(self) -> bool:
        return self.step > 0 and self.step % self._steps_per_epoch == 0

    @property
    def phase(self) -> Phase:
        """What comes next."""
        if not self._reference.complete or self._guard.measures_text:
            return Phase.PREPARE
        if self._rollout is None:
            return Phase.UPDATE
        if self._rollout.step != self.step or not self._rollout.sampled:
            return Phase.ROLL_OUT
        return Phase.UPDATE if self._rollout.rewarded else Phase.WAIT

    @property
    def finished(self) -> bool:
        return self.step == self.total_steps or self._guard.ends_early

    @property
    def changed(self) -> bool:
        """Whether the adapter differs from where it began: from no effect, or from its parent's weights."""
        return tensors_digest(self._parameters) != self._initial

    def check_changed(self) -> None:
        """Raises JobError when the training changed nothing: such an adapter is useless."""
        if not self.changed:
            raise JobError(
                "adapter_unchanged",
                f"The training changed nothing: after {self.step} steps the adapter is what it was before the first. "
                "The learning rate may be too small to matter, or the examples leave nothing to learn: "
                "try a larger learning_rate_multiplier, or other examples.",
                param="hyperparameters.learning_rate_multiplier",
            )

    def prepare(self) -> int:
        """One turn of what comes before the first step. Returns its cost in tokens."""
        if self._reference.complete:
            self._guard.general_loss_before = self._text_loss(tuned=self._scoring.continued)
            return self._text.num_tokens
        if self._scoring.continued:
            with self._working():
                return self._reference.advance(self._passes)
        with self._in_force():  # the tuning is not active
            return self._reference.advance(self._passes.by_base())

    def roll_out(self) -> int:
        """One turn of sampling what the next step learns from. Returns its cost in tokens."""
        assert self._rollout is not None
        if self._rollout.step != self.step:
            rows = self._train.rows_of(self._examples(self.step))
            self._rollout.begin(self.step, [self._train.prompt(row).tolist() for row in rows])
        with self._working():
            return self._rollout.advance()

    @property
    def rolled_out(self) -> Sequence[Sampled]:
        """The rows without rewards yet."""
        assert self._rollout is not None
        return self._rollout.rows

    def reward(self, rewards: Sequence[float]) -> None:
        """Ends the wait. Raises ValueError unless there is one reward for each row."""
        assert self._rollout is not None
        self._rollout.reward(rewards)

    def train_step(self) -> Step:
        """One optimizer step, with the validation that is due. Raises JobError when the job cannot continue."""
        assert self.phase is Phase.UPDATE
        started_at = time.perf_counter()
        with self._working():
            sums = self._gradient()
            self.step += 1
            train, (gradient_norm,) = sums.read(self._optimizer.clip())  # the step's only transfer
            check_finite("training loss", train.loss, self.step)
            check_finite("gradient", gradient_norm, self.step)
            self._optimizer.step(self.step, self.total_steps)
            self.trained_tokens += train.cost_tokens
            metrics, valid_tokens = self._validation.measure(self.step, self._reference.of(VALIDATION))
        metrics = {
            "step": self.step,
            "total_steps": self.total_steps,
            **train.named("train"),
            **metrics,
        }
        if self.at_epoch_end:
            self._guard.evaluated(self.step, metrics)
        rate = self._optimizer.learning_rate(self.step, self.total_steps)
        cost_tokens, seconds = train.cost_tokens + valid_tokens, time.perf_counter() - started_at
        return Step(metrics, cost_tokens, seconds, rate, gradient_norm)

    def chosen(self) -> Chosen | None:
        """What the safeguards decided, once the job is finished; None where it asked for no decision."""
        return self._guard.chosen(self.step, self.total_steps)

    def choose(self) -> Evaluation:
        """Takes the weights of the best evaluation, which is returned; no step may follow."""
        assert self.finished
        return self._guard.choose()

    def forgetting(self) -> Forgetting | None:
        """The forgetting report of the weights as they are now; None for a job that asked for none."""
        if not self.spec.safeguards.forgetting_report:
            return None
        return self._guard.forgetting(self._text.num_tokens, self._text_loss(tuned=True))

    def agreement_rows(self) -> list[ScoredRow]:
        """See `Scoring.rows`; none of a model that generates nothing."""
        return [] if isinstance(self._objective, HeadObjective) else self._scoring.rows(self.step)

    def head_rows(self) -> list[HeadRow]:
        """See `Scoring.head_rows`; none of a model without a head."""
        if not isinstance(self._objective, HeadObjective):
            return []
        return self._scoring.head_rows(self._objective.head, self.step)

    def has_effect(self) -> bool:
        """Whether the adapter could change an answer now; mostly known after one row. A trained head always could."""
        return isinstance(self._objective, HeadObjective) or self._scoring.has_effect(self.step)

    def _text_loss(self, *, tuned: bool) -> float:
        """The general text's loss: of the model as it is now, or of its base."""
        if tuned:
            with self._working():
                return self._text.loss(self._passes.next_logprobs)
        with self._in_force():  # the tuning is not active
            return self._text.loss(self._passes.base_next_logprobs)

    def tables(self) -> Mapping[str, str]:
        """About the job's files, by the current weights, for its result: name -> text."""
        if not isinstance(self._objective, HeadObjective):
            return {}
        with self._working():
            of_validation = self._validation.tables(self.step, self._reference.of(VALIDATION))
        return {**of_validation, **self._objective.training_tables(self._train)}

    def save_adapter(self, folder: Path, tables: Mapping[str, str] | None = None) -> Conversion | None:
        """Writes the adapter in PEFT's format, and beside it the objective's own parameters, and `tables`.

        And what engines load instead, if the job asked for another form: returns what that keeps.
        """
        with whole_folder(folder) as partial:
            self._tuning.save(partial, self._base.public_source)
            save_head(partial, self._objective.parameters(), self._head_config)
            for name, text in (tables or {}).items():
                (partial / name).write_text(text, encoding="utf-8")
                (partial / name).chmod(0o600)
            if self.spec.served_form is None:
                return None
            with self._in_force(), whole_folder(partial / SERVED) as other:
                conversion = save_form(self._tuning, self.spec.served_form, self._base, other)
                save_head(other, self._objective.parameters(), self._head_config)
            return conversion

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Served]:
        """Within, agreement rows are scored by the form that engines get of the adapter in `folder`, too."""
        with served(folder / SERVED, self._base, self._objective) as form, self._scoring.also_by(form):
            yield form

    def continue_from(self, folder: Path) -> None:
        """Starts from the weights of a saved adapter, with a fresh optimizer. Raises JobError.

        A head continues from the saved one, if any: the parent may have had another objective.
        """
        try:
            self._tuning.load(folder)
            load_head(folder, self._objective.parameters(), self._head_config)
        except (AdapterMismatch, HeadMismatch) as error:
            raise JobError("parent_mismatch", f"The job cannot continue its model: {error}", param="model") from error
        self._initial = tensors_digest(self._parameters)
        self._scoring.begin(generates=not isinstance(self._objective, HeadObjective))

    def snapshot(self) -> Snapshot:
        """Everything that the rest of the job depends on."""
        state = State(
            job_id=self.spec.job_id,
            step=self.step,
            trained_tokens=self.trained_tokens,
            environment=self._environment,
            plan=self._passes.plan,
            packed=self._passes.packed,
            limit_tokens=self._passes.limit_tokens,
            evaluations=self._guard.evaluations,
            general_loss_before=self._guard.general_loss_before,
        )
        parameters = {PARAMETER + name: tensor for name, tensor in self._parameters.items()}
        random = {RANDOM + name: tensor for name, tensor in self._random.state().items()}
        parts = (parameters, random, self._optimizer.state(), self._reference.state(), self._guard.state())
        return Snapshot.of(state, {name: tensor for part in parts for name, tensor in part.items()})

    def restore(self, folder: Path) -> str:
        """Continues from a snapshot. Returns why the rest is not bit-exact, or an empty string. Raises JobError."""
        state, tensors = read_snapshot(folder)
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[PARAMETER + name])
        self._optimizer.restore(tensors)
        self._reference.restore(tensors)
        self._random.restore(
            {name.removeprefix(RANDOM): tensor for name, tensor in tensors.items() if name.startswith(RANDOM)}
        )
        self.step, self.trained_tokens = state.step, state.trained_tokens
        self._passes.plan, self._passes.packed = state.plan, state.packed and not self._passes.unpacked_because
        self._passes.limit_tokens = state.limit_tokens
        self._rollout = self._new_rollout()
        self._guard.restore(state.evaluations, state.general_loss_before, tensors)
        if "threads" in state.environment:  # it keeps those that it began with
            self._environment["threads"] = state.environment["threads"]
        other = state.difference(self._environment)
        return other or ("packed: True -> False" if state.packed and not self._passes.packed else "")

    @property
    def unpacked_because(self) -> str:
        """Why its rows are padded, where they are."""
        return "" if self._passes.packed else self._passes.unpacked_because or "it began with padded rows"

    def leave(self) -> None:
        """Detaches from the base, which is then as it was before the job. May be called twice."""
        self._tuning.detach()

    @property
    def _files(self) -> list[TokenizedDataset]:
        """The validation file, if there is one, and the training file."""
        return [file for file in (self._valid, self._train) if file is not None]

    @property
    def _steps_per_epoch(self) -> int:
        return steps_per_epoch(self._train.num_examples, self.spec.batch_size)

    @contextmanager
    def _in_force(self) -> Iterator[None]:
        """Inside, the threads and the random generators are this job's."""
        with threads_in_force(int(self._environment["threads"])), self._random.in_force(), job_errors():
            yield

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Inside, the base is this job's too."""
        with self._in_force():
            self._tuning.activate()
            try:
                yield
            finally:
                self._tuning.deactivate()

    @property
    def _head_config(self) -> HeadConfig | None:
        return self._objective.config if isinstance(self._objective, HeadObjective) else None

    def _all_parameters(self) -> dict[str, nn.Parameter]:
        own = {OWN + name: parameter for name, parameter in self._objective.parameters().items()}
        return {**self._tuning.parameters(), **own}

    @property
    def limit_tokens(self) -> int | None:
        """Of a micro-batch, since a step ran out of memory; None: the plan's."""
        return self._passes.limit_tokens

    def _gradient(self) -> Sums:
        """Computes the next step's gradient: from the file's rows, or from those of the roll-out.

        If that runs out of memory it is computed once more, in smaller micro-batches, as are the steps after it: of the
        same examples and with the same random numbers, so that the result differs by rounding alone.
        """
        data, reference_N = self._train, self._reference.of(TRAINING)
        examples: Sequence[int] = self._examples(self.step)
        if self._rollout is not None:
            data, reference_N = self._rollout.data(), None
            examples = range(data.num_examples)
        go_back = self._random.mark()
        while True:
            try:
                return self._passes.train(data, examples, reference_N)
            except OUT_OF_MEMORY as error:
                if not ran_out(error) or not self._passes.cut_smaller(data, examples):
                    raise
            self._optimizer.drop_gradients()
            go_back()

    def _examples(self, step: int) -> list[int]:
        """The examples of the step that follows `step` steps."""
        epoch, position = divmod(step, self._steps_per_epoch)
        begin = position * self.spec.batch_size
        return _epoch_order(self.spec.seed, epoch, self._train.num_examples)[begin : begin + self.spec.batch_size]

    def _new_rollout(self) -> Rollout | None:
        if not isinstance(self._objective, SamplingObjective):
            return None
        return Rollout(self._objective, TuningSampler(self._base, self._tuning), self.spec.seed)

    def _new_reference(self, needed: bool) -> Reference:
        """The training file goes through the same batches as in the first epoch: equal shapes give equal bits, so that
        at the first step policy and reference are equal where the tuning changes nothing yet."""
        files = {TRAINING: self._train}
        parts: list[tuple[str, Sequence[int]]] = [
            (TRAINING, self._examples(step)) for step in range(self._steps_per_epoch)
        ]
        if self._valid is not None:
            files[VALIDATION] = self._valid
            parts += [(VALIDATION, part) for part in _parts(self._valid.num_examples, self.spec.batch_size)]
        return Reference(files, parts if needed else [])


def _require_columns(columns: Iterable[str], *files: TokenizedDataset | None) -> None:
    try:
        for file in files:
            if file is not None:
                file.require(columns)
    except ValueError as error:
        message = (
            f"The job cannot continue: {error}. It was checked by an earlier version; please create the job again."
        )
        raise JobError("data_unavailable", message) from error


def _module_name(job_id: str) -> str:
    """A valid part of a module's name, whatever characters the job's id has."""
    return f"job_{hashlib.sha256(job_id.encode()).hexdigest()[:16]}"


def _parts(num_examples: int, size: int) -> list[range]:
    """All examples in their order, `size` at a time."""
    return [range(begin, min(begin + size, num_examples)) for begin in range(0, num_examples, size)]
