"""The rows that announce a job, scored by its passes: with the weights of the moment and without them.

Which rows, how many and what their effect is says `agreement`. Of a model with a head they are some texts with what the
head returns; an engine computes the same rows before the model is announced (`workers.jobs.announce`). What the tuning
changes is stored too, so that it is known whether the comparison could see an engine that leaves the tuning out. While
engines get the adapter in another form, that form scores the same rows, and what it loses is counted.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor

from service.domain.errors import JobError
from workers.data.tokenized import TokenizedDataset
from workers.model.head import Head
from workers.model.load import LoadedBase
from workers.model.output_layer import LOGITS
from workers.trainer.process import agreement
from workers.trainer.process.agreement import Beginning, Candidate, EffectMeter
from workers.trainer.process.faults import check_finite
from workers.trainer.process.passes import Passes
from workers.trainer.process.served_form import Served
from workers.trainer.protocol import HeadRow, ScoredRow

Inside = Callable[[], AbstractContextManager[None]]
HEAD_ROWS = 32
HEAD_TOKENS = 4096
UNNOTICED = 1e-3  # the distance between two vectors of length 1, below which no search finds another text


class Scoring:
    """Of one job. `row_tokens` are taken of each row of `files`.

    In `in_force` threads and random generators are the job's, in `working` its tuning is active, too.
    """

    def __init__(
        self,
        base: LoadedBase,
        passes: Passes,
        files: Sequence[TokenizedDataset],
        row_tokens: int,
        in_force: Inside,
        working: Inside,
    ) -> None:
        self.continued = False  # whether the job starts from a tuned model
        self._base = base
        self._passes = passes
        self._files = files
        self._row_tokens = row_tokens
        self._in_force = in_force
        self._working = working
        self._beginnings: list[Beginning] = []  # what that model says of the first rows
        self._served: Served | None = None

    def begin(self, *, generates: bool) -> None:
        """The job continues a tuned model, whose weights it has now: what that model says is kept if it generates."""
        self.continued = True
        if generates:
            with self._working():
                rows = list(self._first_rows())
                self._beginnings = [Beginning.of(self._passes.next_logprobs(row.ids, row.second)) for row in rows]

    @contextmanager
    def also_by(self, form: Served) -> Iterator[None]:
        """Within, rows are scored by the form that engines get, too."""
        self._served = form
        try:
            yield
        finally:
            self._served = None

    def rows(self, step: int) -> list[ScoredRow]:
        """Rows of the validation file, then of the training file, scored with the current weights and without them.

        More of them where the effect is small. Raises JobError where it could not change an answer.
        """
        meter = EffectMeter(self._beginnings)
        rows: list[ScoredRow] = []
        for row in self._scored_rows(meter, step, self._places_at_once):
            rows.append(row)
            if meter.enough:
                break
        agreement.check_noticeable(meter.effect(), continues=self.continued)
        return rows

    def head_rows(self, head: Head, step: int) -> list[HeadRow]:
        """Rows of the validation file, then of the training file, with what the model's head returns.

        Raises JobError where nothing but the tuning could change it, and that does not.
        """
        rows = []
        for ids in _texts(self._files, self._row_tokens):
            with self._working():
                values = self._passes.values(ids, head, tuned=True)
            with self._in_force():  # the tuning is not active
                base_values = self._passes.values(ids, head, tuned=False)
                row = HeadRow(ids=ids, values=values, base_values=base_values)
                if self._served is not None:
                    row = row.model_copy(update={"values": self._served.values(ids, head)})
                    self._served.count_outputs(values, row.values, row.base_values)
                rows.append(row)
            check_finite("output for a row", sum(values), step)
        if not head.parameters and not self.continued:
            _check_moved(rows)
        return rows

    def has_effect(self, step: int) -> bool:
        """Whether the adapter could change an answer now; mostly known after one row."""
        meter = EffectMeter(self._beginnings)
        return any(meter.effect().noticeable for _ in self._scored_rows(meter, step)) or meter.num_tokens == 0

    def score(self, candidate: Candidate, meter: EffectMeter) -> ScoredRow:
        """The row alone; in a coarse format also what one rounding step does to it."""
        row, tuned_KV, base_KV = self._score_once(candidate)
        nudged_KV = None
        if agreement.is_coarse(self._base.model.dtype):
            with agreement.nudged(self._base.model, self._passes.model):
                aside, _, nudged_KV = self._score_once(candidate)
            row = row.model_copy(update={"nudged_effects": agreement.effects(aside)})
        meter.add(row, tuned_KV, base_KV, nudged_KV)
        return row

    def _candidates(self) -> Iterator[Candidate]:
        return agreement.candidates(self._files, self._row_tokens)

    def _first_rows(self) -> Iterator[Candidate]:
        """As many as are enough where the effect is large."""
        num_tokens = 0
        for count, row in enumerate(self._candidates()):
            if count == agreement.LIMIT_ROWS or num_tokens >= agreement.ENOUGH_TOKENS:
                return
            num_tokens += len(row.ids)
            yield row

    @property
    def _places_at_once(self) -> int:
        """How many places of rows are scored in one pass; of 1 every row goes alone.

        Packed rows round otherwise than a row alone, as an engine has it. In float32 that is 1e-6 of a log-probability;
        in a coarse format it would count as the adapter's effect, and so it would for rows that were scored alone
        before: those of a continued model, those of another form.
        """
        alone = not self._passes.packed or self.continued or self._served is not None
        if alone or agreement.is_coarse(self._base.model.dtype):
            return 1
        vocabulary: int = self._base.model.config.get_text_config().vocab_size
        return min(agreement.ENOUGH_TOKENS, LOGITS // vocabulary)

    def _scored_rows(self, meter: EffectMeter, step: int, places_at_once: int = 1) -> Iterator[ScoredRow]:
        for group in agreement.groups(agreement.bounded(self._candidates()), places_at_once):
            rows = self._score_all(group, meter) if len(group) > 1 else [self.score(group[0], meter)]
            for row in rows:
                check_finite("log-probability of a row", sum(row.logprobs), step)
                yield row

    def _score_all(self, group: Sequence[Candidate], meter: EffectMeter) -> Iterator[ScoredRow]:
        """The rows in one pass with the tuning and one without it."""
        ids = [candidate.ids for candidate in group]
        with self._working():
            tuned = self._passes.next_logprobs_together(ids, tuned=True)
        with self._in_force():  # the tuning is not active
            base = self._passes.next_logprobs_together(ids, tuned=False)
        for candidate, tuned_KV, base_KV in zip(group, tuned, base, strict=True):
            row = agreement.scored(candidate, tuned_KV, base_KV)
            meter.add(row, tuned_KV, base_KV, None)
            yield row

    def _score_once(self, row: Candidate) -> tuple[ScoredRow, Tensor, Tensor]:
        """With the row, the log-probabilities of all tokens at its places, tuned and the base's."""
        with self._working():
            tuned_KV = self._passes.next_logprobs(row.ids, row.second)
        with self._in_force():  # the tuning is not active
            base_KV = self._passes.base_next_logprobs(row.ids, row.second)
            if self._served is not None:
                served_KV = self._served.next_logprobs(row.ids, row.second)
                self._served.count_row(row.ids, tuned_KV, served_KV, base_KV)
                tuned_KV = served_KV
            return agreement.scored(row, tuned_KV, base_KV), tuned_KV, base_KV


def _texts(files: Iterable[TokenizedDataset], num_tokens: int) -> Iterator[list[int]]:
    """Tokens of some rows for a head, each at most `num_tokens` of them."""
    seen = 0
    for count, row in enumerate(agreement.candidates(files, num_tokens)):
        if count == HEAD_ROWS or seen + len(row.ids) > HEAD_TOKENS:
            return
        seen += len(row.ids)
        yield row.ids


def _check_moved(rows: Sequence[HeadRow]) -> None:
    """Of a model that returns vectors. Raises JobError where they are the base's: it is useless, and looks like a
    model."""
    moved = max((math.dist(row.values, row.base_values) for row in rows), default=math.inf)
    if moved <= UNNOTICED:
        raise JobError(
            "adapter_without_effect",
            f"The trained model returns the vectors of its base: over {len(rows)} texts of the job's own rows none is "
            f"further than {moved:.2g} from the base's (less than {UNNOTICED:.2g} is not noticeable). The learning "
            "rate is probably far too small: learning_rate_multiplier multiplies the base's own rate, so that 1 is the "
            "usual value. Try 1, more epochs, or other examples.",
            param="hyperparameters.learning_rate_multiplier",
        )
