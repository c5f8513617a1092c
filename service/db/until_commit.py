"""Values that were read from the database and are right until anybody commits, kept in memory so long.

With SQLite, `Database.last_commit` shows at no cost whether anybody has; then what a request needs of the database
is found without asking it. With PostgreSQL nothing is kept, and every request asks.
"""

from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from service.domain.shared_reads import SharedReads

LIMIT_VALUES = 10_000
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class UntilCommit(Generic[Key, Value]):
    """Exact, so no request sees what a commit before it has replaced.

    What is read while a mark holds may be kept with it: a commit in between changes the mark.
    """

    def __init__(self, last_commit: Callable[[], int | None]) -> None:
        self._last_commit = last_commit
        self._mark: int | None = None
        self._values: dict[Key, Value] = {}
        self._reads: SharedReads[tuple[int, Key], Value] = SharedReads()

    async def find(self, key: Key, read: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """The value of `key` in the database's state of now: kept, being read for another caller, or read by `read`."""
        mark = self._current_mark()
        if mark is None:
            return await read()
        kept = self._values.get(key)
        return await self._reads.read((mark, key), partial(self._read, mark, key, read)) if kept is None else kept

    async def _read(self, mark: int, key: Key, read: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        value = await read()
        if mark == self._mark and len(self._values) < LIMIT_VALUES:
            self._values[key] = value
        return value

    def _current_mark(self) -> int | None:
        """The state of the database now; None where it is unknown. Drops the values of any other state."""
        mark = self._last_commit()
        if mark != self._mark:
            self._mark = mark
            self._values.clear()
        return mark
