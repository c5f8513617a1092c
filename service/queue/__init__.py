"""The bell: a message that asks workers to check the database now. `create_queue` picks the implementation."""

from pathlib import Path

from service.queue.arq import ArqQueue
from service.queue.base import Handler, Queue, Turns
from service.queue.embedded import EmbeddedQueue, EmbeddedTurns, LastCommit
from service.queue.pipes import Pipes
from service.queue.redis import RedisConnection, RedisTurns

__all__ = ["Handler", "Queue", "RedisConnection", "Turns", "create_queue", "create_turns"]

LOOK_SECONDS = 2.0  # without a server: how long a lease may have expired, or a pause ended, before a worker sees it


def create_queue(
    redis: RedisConnection | None,
    *,
    poll_seconds: float,
    sweep_seconds: float,
    last_commit: LastCommit | None = None,
    folder: Path | None = None,
) -> Queue:
    """The bell on Redis, or the one without a server: through pipes in `folder` where all processes share one."""
    if redis is None:
        pipes = None if folder is None else Pipes(folder)
        return EmbeddedQueue(poll_seconds, min(sweep_seconds, LOOK_SECONDS), last_commit, pipes)
    return ArqQueue(redis, poll_seconds, sweep_seconds)


def create_turns(redis: RedisConnection | None) -> Turns:
    """Turns that the processes of an installation share, or those of a process that is alone."""
    return EmbeddedTurns() if redis is None else RedisTurns(redis)
