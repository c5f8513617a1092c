"""From a problem of a training file to a finding that says what to do: the reason and the remedy apart.

A reason that names its remedy does so behind a semicolon; for the others the remedy follows from the kind of mistake.
"""

import re

from service.domain.check import Finding
from service.recipes.dataset import Problem

_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r'has no "([^"]+)"'), r'add "\1"'),
    (re.compile(r"Discriminator 'role' is missing"), 'add "role"'),
    (re.compile(r"has no messages"), "add the messages of the conversation"),
    (re.compile(r"has no assistant message"), "add the answer that is to be learned, as an assistant message"),
    (re.compile(r"trains no token"), "leave the weight of one assistant message out"),
    (re.compile(r"contains an extra"), "remove it"),
    (re.compile(r"has more than"), "split the row"),
    (re.compile(r"is not an object|is an array"), "write an object: {...}"),
    (re.compile(r"must hold exactly one"), "keep one assistant message"),
    (re.compile(r"must be 0 or 1"), "write 0 or 1"),
    (re.compile(r"is empty"), "write text here, or remove the row"),
    (re.compile(r"Unexpected file format|has a different format"), "write every row of the file in one of its formats"),
)
_OTHERWISE = "correct it as docs/methods.md shows the rows that train"


def finding(problem: Problem) -> Finding:
    """The problem as a check reports it."""
    reason, _, remedy = problem.reason.partition("; ")
    return Finding(problem.line, problem.field, reason, remedy or _remedy(reason))


def _remedy(reason: str) -> str:
    for pattern, remedy in _REMEDIES:
        if found := pattern.match(reason):
            return found.expand(remedy)
    return _OTHERWISE
