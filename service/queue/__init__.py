"""The bell: a message that says "look at the database now". `create_queue` picks the implementation."""

from arq.connections import ArqRedis

from service.queue.arq import ArqQueue
from service.queue.base import Handler, Queue
from service.queue.embedded import EmbeddedQueue

__all__ = ["Handler", "Queue", "create_queue"]


def create_queue(redis: ArqRedis | None, *, poll_seconds: float, sweep_seconds: float) -> Queue:
    """The bell on Redis, or the one without a server."""
    if redis is None:
        return EmbeddedQueue(poll_seconds)
    return ArqQueue(redis, poll_seconds, sweep_seconds)
