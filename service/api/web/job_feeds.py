"""One poller per followed job and process, however many clients follow it: they share what it finds.

The database is polled because workers in other processes write events: often right after one was found, since a new
job and one that trains have the next soon, and less and less often while there are none. A follower that is further
behind than what the poller remembers reads the database itself until it has caught up. Used by `routes.jobs`.
"""

import asyncio
from asyncio import sleep
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service.domain.event import Event
from service.installation.context import Context
from service.operations import jobs
from service.operations.jobs import NextEvents
from service.operations.keys import Caller

REMEMBERED_EVENTS = 1000
SHORTEST = 1 / 8  # of the longest time between two polls: the one after events were found
GROWTH = 1.5  # from one poll without events to the next


class JobFeed:
    """The events of one job from a number on, for every follower of it in this process."""

    def __init__(self, ctx: Context, caller: Caller, job_id: str, sequence: int, poll_seconds: float) -> None:
        self._ctx = ctx
        self._caller = caller  # of the first follower: the job is its project's
        self._job_id = job_id
        self._poll_seconds = poll_seconds  # at most, between two polls
        self._sequence = sequence  # of the last event that was found
        self._recent: deque[Event] = deque(maxlen=REMEMBERED_EVENTS)
        self._ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()  # once
        self.num_followers = 0
        self.polling: asyncio.Task[None] | None = None

    async def next(self, sequence: int, limit: int, wait_seconds: float) -> NextEvents:
        """At most `limit` events behind number `sequence`; none after `wait_seconds`. Raises what ended the polling."""
        if self.polling is None:
            self.polling = asyncio.create_task(self._poll(limit))
        await self._looked.wait()
        if sequence >= self._sequence and not self._ended and self._error is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._changed.wait()
        if self._error is not None:
            raise self._error
        if sequence < self._sequence and (not self._recent or self._recent[0].sequence > sequence + 1):
            return await jobs.next_events(self._ctx, self._caller, self._job_id, sequence, limit)
        found = [event for event in self._recent if event.sequence > sequence]
        return NextEvents(found[:limit], ended=self._ended and len(found) <= limit)

    async def _poll(self, limit: int) -> None:
        pause = SHORTEST * self._poll_seconds
        try:
            while not self._ended:
                found = await jobs.next_events(self._ctx, self._caller, self._job_id, self._sequence, limit)
                self._recent.extend(found.events)
                self._ended = found.ended
                if found.events:
                    self._sequence = found.events[-1].sequence
                self._looked.set()
                if found.events or found.ended:
                    pause = SHORTEST * self._poll_seconds
                    self._notify()
                if not found.ended and len(found.events) < limit:
                    await sleep(pause)
                    pause = min(self._poll_seconds, GROWTH * pause)
        except Exception as error:
            self._error = error
            self._looked.set()
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class JobFeeds:
    """The feeds of one process; a feed lives as long as it has followers."""

    def __init__(self) -> None:
        self._feeds: dict[str, JobFeed] = {}

    @contextmanager
    def following(
        self, ctx: Context, caller: Caller, job_id: str, sequence: int, poll_seconds: float
    ) -> Iterator[JobFeed]:
        """The job's feed, for a caller that may see the job and has seen its events up to `sequence`."""
        feed = self._feeds.get(job_id)
        if feed is None or (feed.polling is not None and feed.polling.done()):
            feed = self._feeds[job_id] = JobFeed(ctx, caller, job_id, sequence, poll_seconds)
        feed.num_followers += 1
        try:
            yield feed
        finally:
            feed.num_followers -= 1
            if not feed.num_followers:
                if feed.polling is not None:
                    feed.polling.cancel()
                if self._feeds.get(job_id) is feed:
                    del self._feeds[job_id]
