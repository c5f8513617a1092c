"""A few rows with the log-probabilities that the trainer gave them, and how far an engine's are from these.

Rows are data of a user: they lie with the job's tokenised files in storage and go when these go, never into the
database or a log. Knows numbers and keys; must not know engines or jobs' states.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from service.domain.storage_keys import sample_key
from service.storage import ObjectStore
from service.storage.base import read
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.jobs.staging import store_bytes
from workers.trainer.protocol import ScoredRow

# Nats per token, by the base's dtype: how far two right computations of one model may lie apart on average. Other
# kernels and shapes round otherwise: in bfloat16 that makes 0.01 to 0.02, in float32 0.000001. One of an
# adapter's tensors doubled makes 0.08 and more. ADR 0010 has the measurements.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}

_rows: TypeAdapter[list[ScoredRow]] = TypeAdapter(list[ScoredRow])


async def store_sample(store: ObjectStore, job_id: str, model: str, rows: list[ScoredRow]) -> tuple[str, str]:
    """Stores the rows that the job's `model` has scored; answers their key and sha256. Raises StorageError."""
    key = sample_key(job_id, model)
    return key, await store_bytes(store, key, _rows.dump_json(rows))


async def fetch_sample(store: ObjectStore, key: str, sha256: str) -> list[ScoredRow]:
    """The rows that were stored. Raises ObjectCorrupt, ObjectMissing, StorageError."""
    content = await storage_retry(read)(store, key)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ObjectCorrupt(key)
    return _rows.validate_json(content)


@dataclass(frozen=True)
class Comparison:
    """Two opinions of the same tokens, in nats per token; what cannot be compared is infinitely far away."""

    trained: float  # mean log-probability that the trainer gave
    served: float  # and the engine
    mean: float  # of the absolute differences
    largest: float
    num_tokens: int


def compare(rows: Sequence[ScoredRow], served: Sequence[Sequence[float]]) -> Comparison:
    """`served` are an engine's log-probabilities of the same tokens. Raises ValueError for other shapes."""
    ours = [logprob for row in rows for logprob in row.logprobs]
    theirs = [logprob for row in served for logprob in row]
    differences = [_distance(one, other) for one, other in zip(ours, theirs, strict=True)]
    if not differences:
        raise ValueError("there is nothing to compare")
    count = len(differences)
    return Comparison(sum(ours) / count, sum(theirs) / count, sum(differences) / count, max(differences), count)


def _distance(one: float, other: float) -> float:
    return abs(one - other) if math.isfinite(one) and math.isfinite(other) else math.inf
