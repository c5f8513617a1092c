"""The benchmarks of the service run, and write what they promise: each here in its smallest size, once."""

from pathlib import Path

import pytest

from benchmarks import gateway, growth, ingest

pytestmark = pytest.mark.slow
LITTLE = 20_000  # bytes


def written(folder: Path, name: str) -> str:
    assert (folder / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
    return (folder / f"{name}.txt").read_text(encoding="utf-8")


async def test_every_operation_of_a_grown_installation_is_measured(tmp_path: Path) -> None:
    size = growth.Size(jobs=20, events=40, models=3, files=5)
    await growth.main(size, deadline=0.0, rounds=1, output=tmp_path)
    text = written(tmp_path, "growth")
    assert all(f"\n{name}" in text for name in growth.OPERATIONS)


async def test_the_gateway_is_measured_beside_its_engine(tmp_path: Path) -> None:
    await gateway.main(requests=4, streams=2, deadline=0.0, litellm=None, output=tmp_path)
    text = written(tmp_path, "gateway")
    assert text.count("\nthe API, a tuned model ") == len(gateway.CLIENTS) + 1


def test_files_are_measured_beside_what_others_do_with_them(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    ingest.write_rows(rows, LITTLE)
    found = {name: [ingest.run_check(name, rows)] for name in ingest.CHECKS}
    found |= {name: [ingest.uploaded(name, rows)] for name in ingest.UPLOADS}
    ingest.report(found, dict.fromkeys(found, 1), tmp_path)
    text = written(tmp_path, "ingest")
    assert all(f"\n{name}" in text for name in (*ingest.UPLOADS, *ingest.CHECKS))
