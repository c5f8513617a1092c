"""Who may use the engines next, so that no project keeps the others out. `create_places` picks the implementation."""

from service.gateway.places.base import Capacity, Places, Release
from service.gateway.places.memory import MemoryPlaces
from service.gateway.places.redis import RedisPlaces
from service.queue.redis import RedisConnection

__all__ = ["Capacity", "MemoryPlaces", "Places", "RedisPlaces", "Release", "create_places"]


def create_places(capacity: Capacity, redis: RedisConnection | None) -> Places:
    """The places of all API processes, counted in Redis, or those of this process alone."""
    memory = MemoryPlaces(capacity)
    return memory if redis is None else RedisPlaces(capacity, redis, memory)
