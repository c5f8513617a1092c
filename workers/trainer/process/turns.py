"""Fair turns, counted in tokens: which job's step is next. Knows names and numbers only.

Deficit round robin (Shreedhar & Varghese, 1995) charged after the step, since a step's tokens are known only
then: each round a job's credit grows by `turn_tokens`; it steps while its credit is positive, and may overdraw it by
one step. So over time every job gets the same number of tokens, give or take one step.
"""

from collections import deque


class Turns:
    """The jobs in a ring; the first one has the turn."""

    def __init__(self, turn_tokens: int) -> None:
        self._turn_tokens = turn_tokens
        self._ring: deque[str] = deque()
        self._credit: dict[str, int] = {}

    def enter(self, name: str) -> None:
        """Puts `name` at the end of the ring."""
        if name in self._credit:
            raise ValueError(f"'{name}' is in the ring already")
        self._credit[name] = self._turn_tokens
        self._ring.append(name)

    def leave(self, name: str) -> None:
        """Removes `name`, if it is there."""
        if self._credit.pop(name, None) is not None:
            self.hold(name)

    def hold(self, name: str) -> None:
        """Skips `name` until `release`, so that nobody waits for it. May be called twice."""
        if name in self._ring:
            self._ring.remove(name)

    def release(self, name: str) -> None:
        """Puts `name` at the end of the ring again, with the credit that it had. May be called twice."""
        if name in self._credit and name not in self._ring:
            self._ring.append(name)

    def charge(self, name: str, tokens: int) -> None:
        """Takes the tokens of a finished step from the credit of `name`."""
        self._credit[name] -= tokens

    @property
    def idle(self) -> bool:
        """Whether no job can step."""
        return not self._ring

    def next(self) -> str | None:
        """Whose step is next; None when no job can step."""
        if not self._ring:
            return None
        while self._credit[self._ring[0]] <= 0:
            self._credit[self._ring[0]] += self._turn_tokens
            self._ring.rotate(-1)
        return self._ring[0]
