"""The bell: a message that says "look at the database now". `create_queue` picks the implementation."""

from service.queue.base import Handler, Queue
from service.queue.embedded import EmbeddedQueue

__all__ = ["Handler", "Queue", "create_queue"]


def create_queue(poll_seconds: float) -> Queue:
    """The bell without a server."""
    return EmbeddedQueue(poll_seconds)
