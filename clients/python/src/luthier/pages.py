"""Lists that come in pages. Iterating goes through all of them: the next page is requested when it is needed."""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from typing import Any, Generic, Optional, TypeVar

from luthier.records import Record

T = TypeVar("T", bound=Record)


class Page(Generic[T]):
    """One page, and by iteration what follows it."""

    def __init__(self, data: Sequence[T], has_more: bool, fetch: "Callable[[str], Page[T]]") -> None:
        self.data = list(data)
        self.has_more = has_more
        self._fetch = fetch

    def next_page(self) -> "Optional[Page[T]]":
        """The page after this one; None if this is the last."""
        after = following(self.data, self.has_more)
        return None if after is None else self._fetch(after)

    def __iter__(self) -> Iterator[T]:
        page: Optional[Page[T]] = self
        while page is not None:
            yield from page.data
            page = page.next_page()


class AsyncPage(Generic[T]):
    """`Page` for asyncio."""

    def __init__(self, data: Sequence[T], has_more: bool, fetch: "Callable[[str], Awaitable[AsyncPage[T]]]") -> None:
        self.data = list(data)
        self.has_more = has_more
        self._fetch = fetch

    async def next_page(self) -> "Optional[AsyncPage[T]]":
        after = following(self.data, self.has_more)
        return None if after is None else await self._fetch(after)

    async def __aiter__(self) -> AsyncIterator[T]:
        page: Optional[AsyncPage[T]] = self
        while page is not None:
            for one in page.data:
                yield one
            page = await page.next_page()


class AsyncPages(Generic[T]):
    """A list that was asked for: `await` it for its first page, or go through everything with `async for`."""

    def __init__(self, first: Callable[[], Awaitable[AsyncPage[T]]]) -> None:
        self._first = first

    def __await__(self) -> Generator[Any, None, AsyncPage[T]]:
        return self._first().__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for one in await self._first():
            yield one


def following(data: Sequence[Record], has_more: bool) -> Optional[str]:
    """The `after` of the next page; None if there is none."""
    last = vars(data[-1]).get("id") if has_more and data else None
    return None if last is None else str(last)
