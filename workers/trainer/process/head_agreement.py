"""The agreement rows of a model with a head: some texts, and what the head returns, with the tuning and without it.

An engine computes the same rows before the model is announced (`workers.jobs.announce`). What the tuning changes is
stored too, so that it is known whether the comparison could see an engine that leaves the tuning out.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from service.domain.errors import JobError
from workers.data.tokenized import TokenizedDataset
from workers.model.head import Head
from workers.trainer.process.agreement import candidates
from workers.trainer.process.passes import Passes
from workers.trainer.protocol import HeadRow

LIMIT_ROWS = 32
LIMIT_TOKENS = 4096
UNNOTICED = 1e-3  # the distance between two vectors of length 1, below which no search finds another text


def texts(files: Iterable[TokenizedDataset], num_tokens: int) -> Iterator[list[int]]:
    """Tokens of some rows, each at most `num_tokens` of them."""
    seen = 0
    for count, row in enumerate(candidates(files, num_tokens)):
        if count == LIMIT_ROWS or seen + len(row.ids) > LIMIT_TOKENS:
            return
        seen += len(row.ids)
        yield row.ids


def tuned_values(passes: Passes, head: Head, ids: list[int]) -> list[float]:
    """What the model returns; the tuning is active."""
    return passes.values(ids, head, tuned=True)


def row(passes: Passes, head: Head, ids: list[int], values: list[float]) -> HeadRow:
    """The row with what the head returns on the base alone; the tuning is not active."""
    return HeadRow(ids=ids, values=values, base_values=passes.values(ids, head, tuned=False))


def check_moved(rows: Sequence[HeadRow]) -> None:
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
