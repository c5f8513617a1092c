"""The form in which a job's model is served, where that is not the one that it trains: made, compared, loaded again.

Made beside every adapter that is saved, from the tensors as they are. Of a job's result the agreement rows are scored
once as trained and once as served: what is stored for the engine's comparison are the numbers of the served form, as it
was written and read again, and both together say what the conversion costs. Shapes: K places, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from service.domain.errors import JobError
from service.recipes.served_form import ServedForm
from workers.model.head import Head
from workers.model.load import LoadedBase
from workers.objectives import Objective
from workers.trainer.process import agreement
from workers.trainer.process.passes import Passes
from workers.trainer.protocol import Conversion
from workers.tunings import Tuning, open_tuning
from workers.tunings.lora_form import lora_form, own_random_numbers
from workers.tunings.weight_changes import WeightChanging


def check_convertible(tuning: Tuning, form: ServedForm) -> None:
    """Raises JobError for an attached tuning of which no LoRA can be made."""
    if isinstance(tuning, WeightChanging) and tuning.changed_layers:
        return
    raise JobError(
        "not_convertible",
        f"The model cannot be served as '{form.serve_as}': nothing that the job trains is the weight of a linear "
        "layer. Leave serve_as out, or train other parameters.",
        param="tuning.serve_as",
    )


def save_form(tuning: Tuning, form: ServedForm, base: LoadedBase, folder: Path) -> Conversion:
    """Writes what engines load instead of the tuning."""
    assert isinstance(tuning, WeightChanging), "checked when the job was seated"
    made = lora_form(tuning, form.serve_rank)
    made.save(base.model, folder, base.public_source)
    return Conversion(form=form.serve_as, rank=made.rank, share=made.share, min_share=form.serve_min_share)


class Served:
    """A saved form, loaded beside the tuning that it was made of. Counts what lies between both."""

    def __init__(self, tuning: Tuning, passes: Passes) -> None:
        self._tuning = tuning
        self._passes = passes
        self._outputs = self._tokens = 0
        self._effect = self._difference = self._changed = 0.0

    def next_logprobs(self, ids: Sequence[int], second: Sequence[int] = ()) -> Tensor:
        """As `Passes.next_logprobs`; no other tuning may be active."""
        with self._active():
            return self._passes.next_logprobs(ids, second)

    def values(self, ids: Sequence[int], head: Head) -> list[float]:
        """As `Passes.values`; no other tuning may be active."""
        with self._active():
            return self._passes.values(ids, head, tuned=True)

    def count_row(self, ids: Sequence[int], trained_KV: Tensor, served_KV: Tensor, base_KV: Tensor) -> None:
        """One row of a model that generates."""
        trained, served, base = (
            agreement.of_tokens(ids, logprobs_KV) for logprobs_KV in (trained_KV, served_KV, base_KV)
        )
        self.count_outputs(trained, served, base)
        self._tokens += len(trained)
        self._changed += agreement.distance(trained_KV, served_KV)

    def count_outputs(self, trained: Sequence[float], served: Sequence[float], base: Sequence[float]) -> None:
        """Some outputs: as trained, as served, and without either."""
        self._outputs += len(trained)
        self._effect += sum(abs(one - other) for one, other in zip(trained, base, strict=True))
        self._difference += sum(abs(one - other) for one, other in zip(trained, served, strict=True))

    def measured(self, conversion: Conversion) -> Conversion:
        """With the means over what was counted."""
        count = max(1, self._outputs)
        return conversion.model_copy(
            update={
                "outputs": self._outputs,
                "effect": self._effect / count,
                "difference": self._difference / count,
                "changed": self._changed / self._tokens if self._tokens else None,
            }
        )

    @contextmanager
    def _active(self) -> Iterator[None]:
        self._tuning.activate()
        try:
            yield
        finally:
            self._tuning.deactivate()


@contextmanager
def served(folder: Path, base: LoadedBase, objective: Objective) -> Iterator[Served]:
    """The form that was saved in `folder`, until the block ends."""
    with own_random_numbers(base.model):
        tuning = open_tuning(folder, base.model, "served_form")
    try:
        yield Served(tuning, Passes(base, tuning, objective))
    finally:
        tuning.detach()
