"""OpenAI's form of a job's result file: base64 of the CSV, which published scripts decode (RFC 4648, 4).

A client that says `Accept: text/csv` gets the CSV itself; what else it accepts does not matter, since SDKs and browsers
accept everything.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Iterable

GROUP = 3  # bytes that become four letters


def asks_for_csv(accept: Iterable[str]) -> bool:
    """Whether `Accept` names text/csv itself."""
    named = (kind.partition(";")[0].strip().lower() for header in accept for kind in header.split(","))
    return "text/csv" in named


def base64_bytes(num_bytes: int) -> int:
    """The length of `num_bytes` bytes in base64."""
    return -(-num_bytes // GROUP) * 4


async def in_base64(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The bytes of `chunks`, of any lengths, as one text without line breaks."""
    left = b""
    async for chunk in chunks:
        left += chunk
        whole = len(left) // GROUP * GROUP
        if whole:
            yield b64encode(left[:whole])
        left = left[whole:]
    if left:
        yield b64encode(left)
