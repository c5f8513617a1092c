"""The benchmarks of the service run, and write what they promise: each here in its smallest size, once."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GgufConfig, LlamaForCausalLM

from benchmarks import engine, engine_peers, fair_share, gateway, growth, ingest, journey, llama_gguf, run
from tests.given.running_service import RunningService
from tests.given.tiny_models import make_tiny_base

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


@pytest.mark.usefixtures("forks")
def test_files_are_measured_beside_what_others_do_with_them(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    ingest.write_rows(rows, LITTLE)
    checks = [(name, kind) for kind, names in ingest.CHECKED.items() for name in names]
    for kind in ingest.CHECKED:
        ingest.write_rows(tmp_path / kind, LITTLE, kind)
    found = {f"{name}, {kind}": [ingest.run_check(name, tmp_path / kind)] for name, kind in checks}
    found |= {name: [ingest.uploaded(name, rows)] for name in ingest.UPLOADS}
    ingest.report(found, dict.fromkeys(found, 1), tmp_path)
    text = written(tmp_path, "ingest")
    assert all(f"\n{name}" in text for name in (*ingest.UPLOADS, *found))


def test_generating_is_measured_beside_transformers(tmp_path: Path) -> None:
    lines = engine.measure(0.0, 1, ["tiny"], [2], 3, [], tmp_path)
    of = [f"{who}, {what}" for what in (engine.BASE, engine.ONE) for who in (engine.LUTHIER, engine.PEER)]
    assert [line[:30].strip() for line in lines[4:9]] == [*of, f"{engine.LUTHIER}, {engine.EIGHT}"]
    assert (tmp_path / "engine.svg").exists()


def test_a_peer_of_the_engine_that_does_not_start_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine_peers.PYTHONS, "vllm", tmp_path / "python")
    monkeypatch.setitem(engine_peers.PYTHONS, "llama.cpp", Path(sys.executable))  # where it is not installed
    with engine.peers_of("tiny", engine.OTHERS, tmp_path) as (peers, told):
        assert not peers
    assert told[0] == f"without vllm: not installed, {engine_peers.REMEDIES['vllm']}"
    assert "No module named 'xllamacpp'" in told[1]


def test_llama_cpp_gets_the_weights_of_the_base(tmp_path: Path) -> None:
    make_tiny_base(tmp_path / "base")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    llama_gguf.write(tmp_path / "base", tmp_path / "base.gguf")
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="base.gguf", quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(read(input_ids=ids).logits, model(input_ids=ids).logits)


def test_jobs_are_measured_as_their_users_see_them(measured_service: RunningService, tmp_path: Path) -> None:
    """A job from its POST to a token, then jobs beside each other."""
    found = journey.measure(measured_service, tmp_path, 0.0, 1, tmp_path)
    shares = fair_share.measure(measured_service, 1, 1.0, tmp_path, count=2)
    assert [one for one in found if one.startswith((journey.SCRIPT, journey.COLD, journey.BY_HAND))]
    assert any(line.startswith("Jain index") for line in shares)
    assert all((tmp_path / f"{name}.svg").exists() for name in ("journey", "fair_share"))


def test_a_run_of_all_benchmarks_continues_where_it_was_stopped(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def commands(code: int) -> dict[str, list[str]]:
        said = (
            f"import sys; open({str(trace)!r}, 'a').write(sys.argv[1] + ' '); sys.exit({code} * (sys.argv[1] == 'b'))"
        )
        return {name: [sys.executable, "-c", said, name] for name in ("a", "b", "c")}

    done = tmp_path / "done"
    assert run.run(commands(1), tmp_path / "out", done) == ["b"]
    assert run.run(commands(1), tmp_path / "out", done) == ["b"]
    assert trace.read_text(encoding="utf-8").split() == ["a", "b", "c", "b"]
    assert run.run(commands(0), tmp_path / "out", None) == []
    assert trace.read_text(encoding="utf-8").split()[4:] == ["a", "b", "c"]
    (tmp_path / "b.txt").write_text("seconds 1.5\n", encoding="utf-8")
    (tmp_path / "b.svg").write_text("<svg/>", encoding="utf-8")
    results = run.page(["a", "b"], tmp_path)
    assert "seconds 1.5\n" in results and "![b](b.svg)" in results and "## a" not in results


def test_a_run_names_every_benchmark_that_the_documentation_names() -> None:
    pages = (run.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(f"`python -m benchmarks.{module}`" in pages for module, _, _ in run.BENCHMARKS.values())
