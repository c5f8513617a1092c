"""Values that were read from the database and are right until anybody commits, kept in memory so long.

With SQLite, `Database.last_commit` shows at no cost whether anybody has; then what a request needs of the database
is found without asking it. With PostgreSQL nothing is kept, and every request asks.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

LIMIT_VALUES = 10_000
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class UntilCommit(Generic[Key, Value]):
    """`mark` first, then `find`; what is read after a `mark` may be kept with it: a commit in between changes the mark.

    Exact, so no request sees what a commit before it has replaced.
    """

    def __init__(self, last_commit: Callable[[], int | None]) -> None:
        self._last_commit = last_commit
        self._mark: int | None = None
        self._values: dict[Key, Value] = {}

    def mark(self) -> int | None:
        """The state of the database now; None where it is unknown. Drops the values of any other state."""
        mark = self._last_commit()
        if mark != self._mark:
            self._mark = mark
            self._values.clear()
        return mark

    def find(self, key: Key) -> Value | None:
        """The value that was kept in the state of the last `mark`."""
        return self._values.get(key)

    def keep(self, mark: int | None, key: Key, value: Value) -> None:
        """Keeps what was read after this `mark`, unless the state is another by now."""
        if mark is not None and mark == self._mark and len(self._values) < LIMIT_VALUES:
            self._values[key] = value
