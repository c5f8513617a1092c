"""Our S3 store beside boto3's own transfer, on the same server: 256 MiB up and down, by turns.

    python -m benchmarks.storage          starts a radosgw (see tests/servers/install_radosgw.sh)

boto3 sends and fetches with its defaults: parts of 8 MiB, ten threads. The store streams, and verifies sizes.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from service.installation.storage import open_storage
from service.settings.settings import MIB, Settings
from service.storage import ObjectStore
from service.storage.base import CHUNK_BYTES
from tests.servers.radosgw import Radosgw

SIZE_BYTES = 256 * MIB
ROUNDS = 5


async def chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


async def put(store: ObjectStore, path: Path) -> None:
    assert await store.put("ours", chunks(path)) == SIZE_BYTES


async def fetch(store: ObjectStore, path: Path) -> None:
    size = 0
    with path.open("wb") as stream:
        async for chunk in store.open("ours"):
            size += stream.write(chunk)
    assert size == SIZE_BYTES


async def run(server: Radosgw, folder: Path) -> None:
    url = server.new_bucket()
    store, client = open_storage(Settings(**server.settings, storage_url=url)), server.client()
    source, target = folder / "source", folder / "target"
    source.write_bytes(bytes(range(256)) * (SIZE_BYTES // 256))
    seconds: dict[str, list[float]] = {name: [] for name in ("boto3 up", "ours up", "boto3 down", "ours down")}
    for turn in range(ROUNDS + 1):  # the first one warms up
        for name in seconds:
            started = time.perf_counter()
            match name:
                case "boto3 up":
                    await asyncio.to_thread(client.upload_file, str(source), url[5:], "theirs")
                case "ours up":
                    await put(store, source)
                case "boto3 down":
                    await asyncio.to_thread(client.download_file, url[5:], "theirs", str(target))
                case "ours down":
                    await fetch(store, target)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    report(seconds)
    await store.close()


def report(seconds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(f"{SIZE_BYTES // MIB} MiB, radosgw on the same machine, medians of {ROUNDS} interleaved rounds")
    for name, taken in seconds.items():
        spread = f"{min(taken):.2f} to {max(taken):.2f}"
        print(f"{name:11} {medians[name]:6.2f} s ({spread})  {SIZE_BYTES / MIB / medians[name]:6.0f} MiB/s")
    for way in ("up", "down"):
        print(f"speed of ours over boto3, {way}: {medians[f'boto3 {way}'] / medians[f'ours {way}']:.2f}")


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        server = Radosgw(Path(folder) / "radosgw")
        try:
            server.start()
            asyncio.run(run(server, Path(folder)))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
