"""A tokenised file in storage, shared by every job that needs the same tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StoredDataset:
    """One row of the datasets table: `key` hashes all that decides the tokens, `sha256` is the object's.

    `described` is the version of what a check has stored about the rows beside them (`workers.jobs.check`);
    None where nothing is.
    """

    key: str
    object_key: str
    sha256: str
    num_examples: int
    described: int | None = None
