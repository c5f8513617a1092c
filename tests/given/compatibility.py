"""Whether a tuning can tune a base, by family and kind: what docs/compatibility.md says and tests prove."""

from functools import cache

from service.domain.errors import JobError
from service.recipes.tuning import tuning_of
from tests.given.families import load_family
from tests.given.tunings import KINDS
from workers.model.load import LoadedBase
from workers.tunings import create_tuning


@cache
def family(name: str) -> LoadedBase:
    """The one base of that family in this process; whoever uses it leaves no trace."""
    return load_family(name)


def refusal(name: str, kind: str) -> str:
    """Why a base of that family cannot have that tuning, as the job's error says it; empty: it can."""
    tuning = create_tuning(tuning_of(KINDS[kind]), family(name).model, "tried")
    try:
        tuning.attach()
    except JobError as error:
        return error.message
    tuning.detach()
    return ""
