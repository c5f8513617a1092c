"""Tokenised rows, flat, in named columns: validation writes them once, every trainer reads them.

Does not depend on text or models. N rows, T tokens of all rows together. A step counts examples: an example is one row,
or the adjacent rows of a pair. Which columns a file has depends on the job's objective (`require`). Of an
encoder-decoder a row's second sequence is what the encoder reads; its tokens are the decoder's, the start token first.

The file is safetensors; its header's metadata has the version:

    2   tokens, offsets, rows_per_example and the columns of `COLUMNS` that exist; where rows have classes, `labels`
    -   older files have no version: tokens, trained, offsets, and (except the oldest) rows_per_example
"""

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from workers.data.safetensors_file import forget_pages, write_safetensors

VERSION = 2
SPOOL_BYTES = 1024 * 1024
CHUNK_NUMBERS = 1024 * 1024
LABELS = "labels"  # JSON in UTF-8: as an array, since a header's metadata has no certain order


@dataclass(frozen=True)
class Column:
    """One number per token or per row; `second` columns hold one sequence of any length per row, with offsets."""

    per: Literal["token", "row", "second token", "second offset", "example offset"]
    dtype: type[np.generic]


COLUMNS: Mapping[str, Column] = {
    "trained": Column("token", np.uint8),
    "token_weights": Column("token", np.float32),
    "prompt_lengths": Column("row", np.int32),
    "row_labels": Column("row", np.int64),
    "row_label_sets": Column("row", np.uint8),
    "row_label_probabilities": Column("row", np.float32),
    "row_weights": Column("row", np.float32),
    "second_tokens": Column("second token", np.int32),
    "second_offsets": Column("second offset", np.int64),
    "example_offsets": Column("example offset", np.int64),
}


@dataclass(frozen=True)
class TokenizedDataset:
    """Row i is `tokens[offsets[i]:offsets[i + 1]]`; `trained` is 1 for its trained tokens and 0 for others.

    A column that is None does not exist, except `prompt_lengths`, which is computed if it is missing.
    """

    tokens: NDArray[np.int32]  # T
    trained: NDArray[np.uint8]  # T
    offsets: NDArray[np.int64]  # N + 1
    rows_per_example: int = 1  # example k is the rows from k * rows_per_example on
    prompt_lengths: NDArray[np.int32] | None = None  # N; the tokens before the first trained one
    token_weights: NDArray[np.float32] | None = None  # T; the weight of each trained token
    row_labels: NDArray[np.int64] | None = None  # N; a class, or 0 and 1 for unwanted and wanted
    row_label_sets: NDArray[np.uint8] | None = None  # N, C; 1 for each of C classes that is true of the row
    row_label_probabilities: NDArray[np.float32] | None = None  # N, C; where a row's class is estimated from votes
    row_weights: NDArray[np.float32] | None = None  # N; the weight of each row
    second_tokens: NDArray[np.int32] | None = None  # second sequence of row i: [second_offsets[i]:second_offsets[i+1]]
    second_offsets: NDArray[np.int64] | None = None  # N + 1
    example_offsets: NDArray[np.int64] | None = None  # example k is rows [example_offsets[k]:example_offsets[k + 1]]
    labels: tuple[str, ...] = ()  # the names of the classes, where rows have classes

    def __post_init__(self) -> None:
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.tokens) or not _rising(self.offsets):
            raise ValueError("the offsets do not fit the tokens")
        if len(self) % self.rows_per_example:
            raise ValueError("the last example lacks rows")
        bounds = self.example_offsets
        if bounds is not None and (bounds[0] != 0 or bounds[-1] != len(self) or np.any(np.diff(bounds) <= 0)):
            raise ValueError("the examples do not fit the rows")
        for name, values in self._columns().items():
            if len(values) != self._expected_length(COLUMNS[name]):
                raise ValueError(f"the column '{name}' does not fit the rows")
        if (self.second_tokens is None) != (self.second_offsets is None):
            raise ValueError("a second sequence needs its tokens and its offsets")
        if self.prompt_lengths is None:
            object.__setattr__(self, "prompt_lengths", _prompt_lengths(self.trained, self.offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns that exist."""
        return frozenset(self._columns())

    def require(self, columns: Iterable[str]) -> None:
        """Raises ValueError unless all these columns exist, which the objective uses."""
        if missing := sorted(set(columns) - self.columns):
            raise ValueError(f"the tokenised file has no column {', '.join(missing)}")

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Tokens and trained flags of one row."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[span], self.trained[span]

    def prompt(self, index: int) -> NDArray[np.int32]:
        """The tokens of one row before its first trained one."""
        assert self.prompt_lengths is not None
        return self.row(index)[0][: self.prompt_lengths[index]]

    @property
    def num_examples(self) -> int:
        if self.example_offsets is not None:
            return len(self.example_offsets) - 1
        return len(self) // self.rows_per_example

    @property
    def packed(self) -> bool:
        """Whether an example is any number of rows, none of which depends on another."""
        return self.example_offsets is not None

    def rows_of(self, examples: Iterable[int]) -> list[int]:
        """The rows of these examples, in their order."""
        if (bounds := self.example_offsets) is not None:
            return [row for example in examples for row in range(bounds[example], bounds[example + 1])]
        return [example * self.rows_per_example + row for example in examples for row in range(self.rows_per_example)]

    def second(self, index: int) -> NDArray[np.int32]:
        """The second sequence of one row; empty where the file has none."""
        if self.second_tokens is None or self.second_offsets is None:
            return np.zeros(0, dtype=np.int32)
        return self.second_tokens[self.second_offsets[index] : self.second_offsets[index + 1]]

    def row_length(self, row: int) -> int:
        """Tokens of the row, without its second sequence."""
        return int(self.offsets[row + 1] - self.offsets[row])

    def length(self, example: int) -> int:
        """Tokens of the longest row of an example, which is not packed, without second sequences."""
        return max(self.row_length(row) for row in self.rows_of([example]))

    def second_length(self, example: int) -> int:
        """Tokens of the longest second sequence of an example, which is not packed."""
        return max(len(self.second(row)) for row in self.rows_of([example]))

    def cost_tokens(self, examples: Iterable[int]) -> int:
        """All tokens of these examples' rows."""
        return sum(self.row_length(row) + len(self.second(row)) for row in self.rows_of(examples))

    @property
    def num_tokens(self) -> int:
        return len(self.tokens) + (0 if self.second_tokens is None else len(self.second_tokens))

    @property
    def num_trained_tokens(self) -> int:
        count = int(self.trained.sum(dtype=np.int64))
        forget_pages(self.trained)
        return count

    def save(self, path: Path) -> None:
        """Writes one safetensors file; equal rows result in equal bytes."""
        arrays: dict[str, NDArray[Any]] = {
            "tokens": self.tokens,
            "offsets": self.offsets,
            "rows_per_example": np.array([self.rows_per_example], dtype=np.int64),
            **({LABELS: _as_bytes(self.labels)} if self.labels else {}),
            **{name: values.astype(COLUMNS[name].dtype, copy=False) for name, values in self._columns().items()},
        }
        write_safetensors(arrays, path, metadata={"version": str(VERSION)})

    @classmethod
    def load(cls, path: Path) -> "TokenizedDataset":
        """Reads a file that `save` of this or an earlier version wrote. Raises ValueError or KeyError for any other."""
        with safe_open(path, framework="numpy") as file:
            version = int((file.metadata() or {}).get("version", 1))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        if version > VERSION:
            raise ValueError(f"the tokenised file has version {version}; this installation reads up to {VERSION}")
        rows_per_example = arrays.get("rows_per_example", np.array([1]))  # files of 0.1.0 have no such array
        columns = {name: arrays[name] for name in COLUMNS if name in arrays}
        labels = json.loads(arrays[LABELS].tobytes()) if LABELS in arrays else ()
        return cls(
            tokens=arrays["tokens"],
            offsets=arrays["offsets"],
            rows_per_example=int(rows_per_example[0]),
            labels=tuple(labels),
            **columns,
        )

    def _columns(self) -> dict[str, NDArray[Any]]:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name in COLUMNS}
        return {name: column for name, column in values.items() if column is not None}

    def _expected_length(self, column: Column) -> int:
        match column.per:
            case "token":
                return len(self.tokens)
            case "row":
                return len(self)
            case "second token":
                return 0 if self.second_offsets is None else int(self.second_offsets[-1])
            case "second offset":
                return len(self.offsets)
            case "example offset":
                return self.num_examples + 1


class _Growing:
    """Numbers of one kind that come one after another; beyond SPOOL_BYTES they are in a file of `folder`."""

    def __init__(self, typecode: str, folder: Path | None) -> None:
        self._recent: array[Any] = array(typecode)
        self._folder = folder
        self._file: BinaryIO | None = None
        self._in_file = 0

    def __len__(self) -> int:
        return self._in_file + len(self._recent)

    def append(self, value: float) -> None:
        self._recent.append(value)
        self._spool()

    def extend(self, values: Iterable[float]) -> None:
        # An array is made of a list at once, and appended at once; anything else goes number by number.
        self._recent.extend(array(self._recent.typecode, values) if isinstance(values, list) else values)
        self._spool()

    def so_far(self, dtype: type[np.generic]) -> NDArray[Any]:
        """All of them; of a file only what is looked at is read."""
        if self._file is None:
            return np.array(self._recent, dtype=dtype)
        self._write()
        self._file.flush()
        return np.memmap(self._file, dtype=dtype, mode="r", shape=(self._in_file,))

    def finish(self, dtype: type[np.generic]) -> NDArray[Any]:
        """All of them, when none will follow."""
        values = self.so_far(dtype)
        if self._file is not None:
            self._file.close()  # what is mapped stays
        return values

    def _spool(self) -> None:
        if self._folder is not None and len(self._recent) * self._recent.itemsize >= SPOOL_BYTES:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115  closed by `finish`, or with this
        self._recent.tofile(self._file)
        self._in_file += len(self._recent)
        del self._recent[:]


class DatasetBuilder:
    """Collects rows one by one. All rows must have the same columns.

    With a `folder`, what is collected lies in files there that have no name, and memory holds little of it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        def growing(typecode: str) -> _Growing:
            return _Growing(typecode, folder)

        self._tokens, self._trained, self._offsets = growing("i"), growing("B"), growing("q")
        self._prompt_lengths = growing("i")
        self._labels, self._weights = growing("q"), growing("f")
        self._token_weights: _Growing | None = None
        self._second_tokens, self._second_offsets = growing("i"), growing("q")
        self._offsets.append(0)
        self._second_offsets.append(0)
        self._growing = growing

    def add(
        self,
        ids: Sequence[int],
        trained: Iterable[int],
        *,
        label: int | None = None,
        weight: float | None = None,
        second: Sequence[int] | None = None,
        token_weights: Sequence[float] | None = None,
    ) -> None:
        """One row; `second` is its second sequence. Once any row has weights, all others have the weight 1."""
        flags = bytes(trained)
        if token_weights is not None and self._token_weights is None:
            self._token_weights = self._growing("f")
            for begin in range(0, len(self._trained), SPOOL_BYTES):
                self._token_weights.extend(self._trained.so_far(np.uint8)[begin : begin + SPOOL_BYTES].tolist())
        if weight is not None and not len(self._weights):
            for _ in range(len(self._offsets) - 1):
                self._weights.append(1.0)
        self._tokens.extend(ids)
        self._trained.extend(array("B", flags))
        self._offsets.append(len(self._tokens))
        first = flags.find(1)
        self._prompt_lengths.append(first if first >= 0 else len(flags))
        if self._token_weights is not None:
            self._token_weights.extend(flags if token_weights is None else token_weights)
        if label is not None:
            self._labels.append(label)
        if weight is not None or len(self._weights):
            self._weights.append(1.0 if weight is None else weight)
        if second is not None:
            self._second_tokens.extend(second)
            self._second_offsets.append(len(self._second_tokens))

    def build(self, rows_per_example: int = 1) -> TokenizedDataset:
        """Raises ValueError if only some rows have a label or a second sequence."""
        has_second = len(self._second_offsets) > 1
        return TokenizedDataset(
            self._tokens.finish(np.int32),
            self._trained.finish(np.uint8),
            self._offsets.finish(np.int64),
            rows_per_example,
            prompt_lengths=self._prompt_lengths.finish(np.int32),
            row_labels=self._labels.finish(np.int64) if len(self._labels) else None,
            token_weights=None if self._token_weights is None else self._token_weights.finish(np.float32),
            row_weights=self._weights.finish(np.float32) if len(self._weights) else None,
            second_tokens=self._second_tokens.finish(np.int32) if has_second else None,
            second_offsets=self._second_offsets.finish(np.int64) if has_second else None,
        )


def _rising(offsets: NDArray[np.int64]) -> bool:
    """Whether each is above the one before; looked at in pieces, for there may be many."""
    try:
        return all(
            bool(np.all(np.diff(offsets[begin : begin + CHUNK_NUMBERS + 1]) > 0))
            for begin in range(0, len(offsets) - 1, CHUNK_NUMBERS)
        )
    finally:
        forget_pages(offsets)


def _as_bytes(labels: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(list(labels), ensure_ascii=False).encode(), dtype=np.uint8)


def _prompt_lengths(trained: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int32]:
    """The number of tokens before the first trained one in each row; the row's length if none is trained."""
    lengths = np.diff(offsets)
    # The next trained token at or after each row's first token; T if there is none.
    places = np.append(np.flatnonzero(trained), len(trained))
    first = places[np.searchsorted(places, offsets[:-1])]
    return np.minimum(first - offsets[:-1], lengths).astype(np.int32)
