"""One request in the batcher: its choices, those that still wait for a row, and a queue of their pieces.

Used by the event loop only. Has no HTTP, no names of models and no batch.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from service.domain.errors import LuthierError
from workers.engines.embedded.choice import Choice, Piece


class GenerationRequest:
    """A submitted request. Close it when its client has disconnected: its rows leave the batch at the next token."""

    def __init__(self, prompts: Sequence[Sequence[Choice]]) -> None:
        self._choices = [choice for choices in prompts for choice in choices]
        self._waiting = deque(prompts)
        self._news: asyncio.Queue[Piece | LuthierError] = asyncio.Queue()
        self._unfinished = len(self._choices)
        self.generated = asyncio.Event()  # set with the last token: what follows is only sending

    @property
    def num_choices(self) -> int:
        return len(self._choices)

    @property
    def num_waiting(self) -> int:
        return sum(len(choices) for choices in self._waiting)

    @property
    def generated_tokens(self) -> int:
        """Of all choices so far, with the tokens that ended them."""
        return sum(len(choice.row.generated) for choice in self._choices)

    def take(self, limit: int) -> list[Choice]:
        """The next choices to compute, all of one prompt, at most `limit`; none when the client has disconnected."""
        wanted = [choice for choice in self._waiting.popleft() if choice.wanted]
        if wanted[limit:]:
            self._waiting.appendleft(wanted[limit:])
        return wanted[:limit]

    def deliver(self, news: Piece | LuthierError) -> None:
        self._news.put_nowait(news)
        self._unfinished -= isinstance(news, Piece) and news.finish_reason is not None
        if isinstance(news, LuthierError) or not self._unfinished:
            self.generated.set()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Until every choice is finished. Raises the LuthierError that ended the request instead."""
        unfinished = len(self._choices)
        while unfinished:
            news = await self._news.get()
            if isinstance(news, LuthierError):
                raise news
            unfinished -= news.finish_reason is not None
            yield news

    def close(self) -> None:
        for choice in self._choices:
            choice.wanted = False
