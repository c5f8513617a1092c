"""Who makes room for whom. Pure rules over counts: knows neither database nor worker.

Places are held to the end of a piece of work, so a fair claim alone does not help a project that finds every place
taken. Then one that holds more gives a place back, at its next whole step and with everything stored, and goes on
later. Two conditions keep places from being passed to and fro: only work that has had its own turn is asked
(`LUTHIER_SLOT_STEPS`), and after the change the giver holds no less than the receiver, unless the receiver held
nothing at all.
"""

from collections.abc import Mapping, Sequence

from service.domain.work import Work


def makes_room(giver: str, receiver: str, holdings: Mapping[str, int]) -> bool:
    """Whether a project with these holdings gives a place to another one that waits."""
    if giver == receiver:
        return False
    receives = holdings.get(receiver, 0)
    return receives == 0 or holdings.get(giver, 0) - receives >= 2


def who_leaves(next_up: Work, ripe: Sequence[Work], holdings: Mapping[str, int]) -> list[Work]:
    """Which of the `ripe` (those that may be asked, the longest-held first) leaves for `next_up`: one, or nobody.

    It is of the project that holds most, and of that project's the one that has held its place longest.
    """
    willing = [work for work in ripe if makes_room(work.project_id, next_up.project_id, holdings)]
    return [max(willing, key=lambda work: holdings.get(work.project_id, 0))] if willing else []


def may_change_base(next_up: Work, seated: Sequence[Work], ripe: Sequence[Work], holdings: Mapping[str, int]) -> bool:
    """Whether all that are seated leave, since `next_up` needs another base than theirs.

    Only for a project that holds nothing anywhere, and only once each of them has had its turn. A project's own work
    on another base waits until these have ended.
    """
    return holdings.get(next_up.project_id, 0) == 0 and {work.id for work in seated} <= {work.id for work in ripe}
