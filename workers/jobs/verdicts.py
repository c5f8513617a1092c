"""What a job's last report says of its end, in the user's words: where it ended, which step it is of, what it forgot.

Written as events by `train`, whose keys make a repeated report harmless.
"""

from service.domain import event as wording
from service.domain.event import NewEvent
from workers.trainer.protocol import Checkpointed


def verdicts(report: Checkpointed) -> list[NewEvent]:
    """The events of one checkpoint; none for a job without safeguards, or before its end."""
    found: list[NewEvent] = []
    if report.chosen is not None:
        found += wording.chosen(report.chosen.model_dump())
    if report.forgetting is not None:
        measured = report.forgetting
        found.append(wording.forgetting(measured.tokens, measured.loss_before, measured.loss_after))
    return found
