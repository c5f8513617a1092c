"""A tokenised file in storage, shared by every job that needs the same tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StoredDataset:
    """One row of the datasets table: `key` hashes all that decides the tokens, `sha256` is the object's."""

    key: str
    object_key: str
    sha256: str
    num_examples: int
