"""How many requests and tokens a key may use per minute. `create_limits` picks the implementation."""

from service.gateway.limits.base import Kind, PerMinute, RateLimits, Standing, duration, estimated_tokens
from service.gateway.limits.memory import MemoryLimits
from service.gateway.limits.redis import RedisLimits
from service.queue.redis import RedisConnection

__all__ = ["Kind", "PerMinute", "RateLimits", "Standing", "create_limits", "duration", "estimated_tokens"]


def create_limits(per_minute: PerMinute, redis: RedisConnection | None) -> RateLimits:
    """The limits of all API processes, counted in Redis, or those of this process alone."""
    return MemoryLimits(per_minute) if redis is None else RedisLimits(per_minute, redis)
