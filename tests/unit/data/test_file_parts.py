"""Parts of a file: each line is in one of them, wherever the bounds fall."""

import random
from io import BytesIO

import pytest

from service.recipes.json_lines import split_lines
from workers.data.file_parts import num_parts, part_chunks

LIMIT = 20


def lines_of(content: bytes) -> list[bytes]:
    return list(split_lines([content], LIMIT))


@pytest.mark.parametrize("part_bytes", [1, 2, 3, 7, 64, 1000])
def test_all_parts_together_have_the_lines_of_the_file_once(part_bytes: int) -> None:
    numbers = random.Random(part_bytes)
    for _ in range(200):
        pieces = [b"\n", b"\n", b"\r\n", b"a", b"\xef\xbb\xbf", b"b" * numbers.randint(1, 90)]
        content = b"".join(numbers.choices(pieces, k=numbers.randint(0, 40)))
        file, found, num_bytes = BytesIO(content), [], 0
        for part in range(num_parts(len(content), part_bytes)):
            chunks = list(part_chunks(file, part, part_bytes))
            num_bytes += sum(map(len, chunks))
            found += split_lines(chunks, LIMIT)
        assert found == lines_of(content)
        assert num_bytes == len(content)


def test_a_line_over_many_parts_belongs_to_the_first_of_them_and_is_read_in_pieces() -> None:
    content = b"x\n" + b"y" * 300_000 + b"\nz"
    file = BytesIO(content)
    first, *middle, last = (list(part_chunks(file, part, 1000)) for part in range(num_parts(len(content), 1000)))
    assert lines_of(b"".join(first)) == [b"x", b"y" * (LIMIT + 1)]
    assert max(map(len, first)) < 100_000
    assert not any(middle)
    assert last == [b"z"]


def test_an_empty_file_has_no_parts() -> None:
    assert num_parts(0) == 0
