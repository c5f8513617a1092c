"""Which replica gets a request: the model's own one, unless that is down or far busier than the others.

Rendezvous hashing (Thaler and Ravishankar, 1998) keeps a model on one replica, so that each adapter is loaded once and
a lost replica moves only its own models. Bounded loads (Mirrokni et al., 2016, arXiv 1608.01350) let a model that
is called very often, such as a base, use its next replica too. Per process; uses no HTTP and stores nothing.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

DOWN_SECONDS = 3.0
LOAD_FACTOR = 1.25
BATCHED_REQUESTS = 8  # an engine processes these together about as fast as one: no reason to use another


class Replicas:
    """The engines' URLs, which of them were down a moment ago, and how many requests each is serving."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._serving = dict.fromkeys(urls, 0)
        self._down_until = dict.fromkeys(urls, -math.inf)

    def order(self, model: str) -> list[str]:
        """Every URL, best first. Down and full ones come last, not never: there may be no others."""
        by_rank = sorted(self._serving, key=lambda url: _rank(url, model), reverse=True)
        return sorted(by_rank, key=lambda url: (self._is_down(url), self._is_full(url)))

    def mark_down(self, url: str) -> None:
        """Puts `url` last for the next `DOWN_SECONDS`."""
        self._down_until[url] = self._clock() + DOWN_SECONDS

    @contextmanager
    def serving(self, url: str) -> Iterator[None]:
        """Counts one request at `url` until its response is closed."""
        self._serving[url] += 1
        try:
            yield
        finally:
            self._serving[url] -= 1

    def _is_down(self, url: str) -> bool:
        return self._clock() < self._down_until[url]

    def _is_full(self, url: str) -> bool:
        """True when one more request would lift `url` above LOAD_FACTOR times the mean, and above a batch."""
        mean = (sum(self._serving.values()) + 1) / len(self._serving)
        return self._serving[url] + 1 > max(BATCHED_REQUESTS, math.ceil(LOAD_FACTOR * mean))


def _rank(url: str, model: str) -> bytes:
    return blake2b(f"{url}\0{model}".encode(), digest_size=8).digest()
