"""What becomes of a training file: its upload, and its check with all tokens, beside what others do with it.

    python -m benchmarks.ingest [--minutes 20] [--upload-megabytes 1000] [--check-megabytes 200]

writes benchmarks/ingest.txt and .svg. Uploads go over HTTP to `luthierd serve` on local storage, to a FastAPI route
that takes an `UploadFile`, hashes and keeps it, and to one that parses each line besides, as ours checks each. Checks
read the file for the bundled base as a job's validation does: ours are a large file's check in processes, as many as
CPUs may be used, and `check_file`, which reads in one; the peers are a loop over lines with `apply_chat_template`, and
`datasets.map`'s way, a thousand rows at a time with the prompt apart for the mask. Rows of three kinds are checked: of
few words; the same behind a system prompt of about 300 tokens that all share; and of 50,000 made-up words, each as
often as in a language (Zipf's law). Each run is a process of its own, in turns, beside a fork server that has imported;
memory is the process' highest, above what it had before the file, with all that its processes have for themselves.
"""

import argparse
import asyncio
import gc
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bars import Spread, draw, machine
from service.processes.forks import ADDRESS, fork_server, start_fork
from tests.given.running_service import ROOT, answers, free_ports, wait_for

OUTPUT = Path(__file__).parent
TINY = ROOT / "workers" / "toy_base" / "luthier-tiny"
MEGABYTE = 1_000_000
CHUNK_BYTES = 1024 * 1024
BATCH = 1000
ROW_LIMIT_BYTES = 8 * CHUNK_BYTES
UPLOADS = ("luthierd serve", "UploadFile", "UploadFile, json per line")
CHECKS = ("in processes", "check_file", "per line", "batches")
FEW_WORDS, SHARED_PROMPT, MANY_WORDS = "few words", "shared prompt", "many words"
# Of each kind of rows, the contenders.
CHECKED = {FEW_WORDS: CHECKS, SHARED_PROMPT: CHECKS[:3], MANY_WORDS: CHECKS[:3]}
# Of each kind: ours, the peer that the goal names, and how many times as fast ours shall be.
GOALS = (
    ("luthierd serve", "UploadFile, json per line", 2),
    *((f"in processes, {rows}", f"per line, {rows}", 3) for rows in CHECKED),
)
WORDS = "the card payment was declined at a shop please help me to find out why 支払い 拒否 されました café order"
PROMPT_WORDS = 105  # about 300 of the bundled base's tokens
SYLLABLES = [first + second for first, second in product("bdfgklmnprstvz", ("a", "e", "in", "or", "us"))]
NUM_WORDS = 50_000


@dataclass(frozen=True)
class Run:
    """One run; `megabytes` is the highest memory above what the process had before."""

    cpu_seconds: float
    wall_seconds: float
    megabytes: float


def main(upload_megabytes: int, check_megabytes: int, deadline: float, output: Path) -> None:
    checks = [(name, rows) for rows, names in CHECKED.items() for name in names]
    found: dict[str, list[Run]] = {name: [] for name in (*UPLOADS, *(f"{name}, {rows}" for name, rows in checks))}
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "upload.jsonl"
        write_rows(large, upload_megabytes * MEGABYTE)
        for rows in CHECKED:
            write_rows(Path(folder) / rows, check_megabytes * MEGABYTE, rows)
        turn = 0
        while not turn or time.monotonic() < deadline:
            for name in UPLOADS[:: 1 if turn % 2 else -1]:
                found[name].append(uploaded(name, large))
            for name, rows in checks[:: 1 if turn % 2 else -1]:
                found[f"{name}, {rows}"].append(checked(name, Path(folder) / rows))
            turn += 1
    sizes = {name: upload_megabytes if name in UPLOADS else check_megabytes for name in found}
    report(found, sizes, output)


def report(found: dict[str, list[Run]], sizes: dict[str, int], output: Path) -> None:
    lines = [
        machine(["tokenizers", "transformers", "fastapi", "python-multipart"]),
        f"{len(found[UPLOADS[0]])} rounds; median (least-most)",
        "",
        f"{'':28}{'MB':>6}{'CPU s':>26}{'wall s':>26}{'MB/s':>8}{'peak MB':>9}",
    ]
    for name, runs in found.items():
        cpu, wall = Spread([run.cpu_seconds for run in runs]), Spread([run.wall_seconds for run in runs])
        peak = Spread([run.megabytes for run in runs]).median
        lines.append(f"{name:28}{sizes[name]:6}{cpu!s:>26}{wall!s:>26}{sizes[name] / wall.median:8.2f}{peak:9.1f}")
    for ours, peer, goal in GOALS:
        cpu, wall = (
            Spread([value(run) for run in found[peer]]).median / Spread([value(run) for run in found[ours]]).median
            for value in (lambda run: run.cpu_seconds, lambda run: run.wall_seconds)
        )
        lines.append(f"{ours}: {cpu:.2f} times {peer} by CPU seconds, {wall:.2f} by wall seconds; the goal is {goal}")
    text = "\n".join(lines) + "\n"
    (output / "ingest.txt").write_text(text, encoding="utf-8")
    print(text, end="")
    groups = {
        "upload": {name: Spread([sizes[name] / run.wall_seconds for run in found[name]]) for name in UPLOADS},
        "check": {
            name: Spread([sizes[name] / run.wall_seconds for run in runs])
            for name, runs in found.items()
            if name not in UPLOADS
        },
    }
    draw(output / "ingest.svg", "A training file", "MB per second", groups)


def write_rows(path: Path, num_bytes: int, rows: str = FEW_WORDS) -> None:
    """Conversations of one to three turns, in several scripts or of many words; the same each time."""
    chosen = random.Random(14)
    words, weights = WORDS.split(), None
    if rows == MANY_WORDS:
        words = ["".join(chosen.choices(SYLLABLES, k=chosen.randint(1, 4))) for _ in range(NUM_WORDS)]
        weights = list(accumulate(1 / place for place in range(1, NUM_WORDS + 1)))

    def said(least: int, most: int) -> str:
        return " ".join(chosen.choices(words, cum_weights=weights, k=chosen.randint(least, most)))

    system = [{"role": "system", "content": said(PROMPT_WORDS, PROMPT_WORDS)}] if rows == SHARED_PROMPT else []
    with path.open("wb") as file:
        while file.tell() < num_bytes:
            messages = list(system)
            for _ in range(chosen.randint(1, 3)):
                messages.append({"role": "user", "content": said(6, 60)})
                messages.append({"role": "assistant", "content": said(2, 160)})
            file.write(json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n")


# Uploads


def uploaded(name: str, path: Path) -> Run:
    with tempfile.TemporaryDirectory() as folder, _server(name, Path(folder)) as (url, key, process):
        before, cpu, began = process.memory_info().rss, sum(process.cpu_times()[:2]), time.perf_counter()
        arguments = ["-F", "purpose=fine-tune", "-F", f"file=@{path}", "-H", f"Authorization: Bearer {key}"]
        response = subprocess.run(
            ["curl", "-sS", "--fail-with-body", *arguments, url], capture_output=True, text=True, check=False
        )
        assert response.returncode == 0, response.stdout + response.stderr
        wall = time.perf_counter() - began
        return Run(sum(process.cpu_times()[:2]) - cpu, wall, (_highest_bytes(process.pid) - before) / MEGABYTE)


@contextmanager
def _server(name: str, folder: Path) -> Iterator[tuple[str, str, psutil.Process]]:
    """Where to send the file, with which key, and the server's process."""
    (port,) = free_ports(1)
    key, path = "none", "/files"
    environment = dict(os.environ)
    command = [sys.executable, "-m", "benchmarks.ingest", "--serve", name, "--port", str(port), "--folder", str(folder)]
    if name == UPLOADS[0]:
        key, path = asyncio.run(_installed(folder)), "/v1/files"
        more = {"DATA_DIR": folder, "PORT": port, "ENGINE_URLS": "http://127.0.0.1:1", "FILE_LIMIT_BYTES": 10**12}
        environment |= {f"LUTHIER_{setting}": str(value) for setting, value in more.items()}
        environment["LUTHIER_PROJECT_BYTES"] = str(10**12)
        command = [sys.executable, "-m", "service", "serve"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    with process:
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/livez"), 120, name)
            yield f"http://127.0.0.1:{port}{path}", key, psutil.Process(process.pid)
        finally:
            process.kill()


async def _installed(folder: Path) -> str:
    from service.operations import keys  # noqa: PLC0415  the peers' servers need none of it
    from service.settings.settings import Settings  # noqa: PLC0415
    from tests.given.installation import installed  # noqa: PLC0415

    async with installed(Settings(data_dir=folder)) as ctx:
        key = await keys.ensure_installation(ctx)
    assert key is not None
    return key


def _highest_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def serve_peer(name: str, port: int, folder: Path) -> None:
    """A route as many write it: the file is received, hashed and kept; the second parses every line first."""
    import uvicorn  # noqa: PLC0415
    from fastapi import FastAPI, UploadFile  # noqa: PLC0415

    app = FastAPI()

    @app.get("/livez")
    def livez() -> str:
        return "ok"

    @app.post("/files")
    def upload(file: UploadFile) -> dict[str, str]:
        if name == UPLOADS[2]:
            for line in file.file:
                json.loads(line)
            file.file.seek(0)
        digest = hashlib.sha256()
        with (folder / "kept").open("wb") as kept:
            while chunk := file.file.read(CHUNK_BYTES):
                digest.update(chunk)
                kept.write(chunk)
            kept.flush()
            os.fsync(kept.fileno())
        return {"sha256": digest.hexdigest()}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


# Checks


def checked(name: str, path: Path) -> Run:
    command = [sys.executable, "-m", "benchmarks.ingest", "--check", name, "--file", str(path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return Run(**json.loads(found.stdout.splitlines()[-1]))


def run_check(name: str, path: Path) -> Run:
    """What the run cost, without what was imported and loaded before."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    if name == CHECKS[0]:
        with fork_server(), tempfile.TemporaryDirectory() as folder:
            return asyncio.run(_in_processes(path, path.stat().st_size, Path(folder)))
    work = {
        CHECKS[1]: lambda: _check_file(path, tokenizer),
        CHECKS[2]: lambda: _per_line(path, tokenizer),
        CHECKS[3]: lambda: _batches(path, tokenizer),
    }
    gc.collect()
    gc.freeze()  # as a worker does once it has imported
    before, began, cpu = _peak(), time.perf_counter(), time.process_time()
    work[name]()
    return Run(time.process_time() - cpu, time.perf_counter() - began, (_peak() - before) / MEGABYTE)


def _about(folder: Path) -> dict[str, Any]:
    from service.recipes.objective import find_objective  # noqa: PLC0415

    return {
        "context_tokens": 4096,
        "examples_minimum": 1,
        "param": "training_file",
        "file_id": "file-1",
        "objective": find_objective("supervised"),
        "folder": folder,
    }


def _check_file(path: Path, tokenizer: object) -> None:
    from service.recipes.json_lines import split_lines  # noqa: PLC0415
    from workers.data.base_text import BaseText  # noqa: PLC0415
    from workers.data.check import check_file  # noqa: PLC0415

    with path.open("rb") as file, tempfile.TemporaryDirectory() as folder:
        lines = split_lines(iter(lambda: file.read(CHUNK_BYTES), b""), ROW_LIMIT_BYTES)
        dataset = check_file(lines, BaseText(tokenizer), row_limit_bytes=ROW_LIMIT_BYTES, **_about(Path(folder)))  # type: ignore[arg-type]
        dataset.save(Path(folder) / "rows")


async def _in_processes(path: Path, file_bytes: int, folder: Path) -> Run:
    """The same by processes. Theirs is what they cost the fork server, and what memory each has for itself at most."""
    from service.recipes.base import Base, Serving  # noqa: PLC0415
    from workers.data.check import FileCheck  # noqa: PLC0415
    from workers.data.content_key import text_digest  # noqa: PLC0415
    from workers.jobs.check_processes import CheckProcesses, read_in_processes  # noqa: PLC0415
    from workers.jobs.part_reader import PartOrder  # noqa: PLC0415
    from workers.model.load import load_text  # noqa: PLC0415

    base = Base(id="tiny", source=str(TINY), context_tokens=4096, serving=Serving(tunings=frozenset({"lora"})))
    text = text_digest(load_text(base))
    waiting = await start_fork([sys.executable, "-m", "this"], os.environ, stdout=subprocess.PIPE)
    assert waiting.stdout is not None
    await waiting.stdout.read()
    await waiting.wait()  # the server has imported
    server = _listening_at(os.environ[ADDRESS])
    gc.collect()
    gc.freeze()
    highest: dict[int, int] = {}

    async def watch() -> None:
        while True:
            for child in server.children():
                with suppress(psutil.Error):
                    highest[child.pid] = max(highest.get(child.pid, 0), child.memory_full_info().uss)
            await asyncio.sleep(0.25)

    watching, below = asyncio.create_task(watch()), server.cpu_times()
    before, began, cpu = _peak(), time.perf_counter(), time.process_time()
    with path.open("rb") as file, CheckProcesses(0).taken(file_bytes) as count:
        check = FileCheck([file.readline() for _ in range(2)], **_about(folder))
        order = PartOrder(
            path=str(path), file_bytes=file_bytes, base=base, objective="supervised", row_limit_bytes=ROW_LIMIT_BYTES,
            day=date(2026, 1, 1), glances=False,
        )  # fmt: skip
        await read_in_processes(check, order, count or 2, text)  # by two where the file is so small
    check.finish().save(folder / "rows")
    own, wall, after = time.process_time() - cpu, time.perf_counter() - began, server.cpu_times()
    watching.cancel()
    theirs = after.children_user + after.children_system - below.children_user - below.children_system
    return Run(own + theirs, wall, (_peak() - before + sum(highest.values())) / MEGABYTE)


def _listening_at(address: str) -> psutil.Process:
    """The fork server that listens there; a fork of its own looks like it for a moment."""
    found = [one for one in psutil.process_iter(["cmdline"]) if address in (one.info["cmdline"] or ())]
    return min(found, key=lambda one: one.create_time())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _per_line(path: Path, tokenizer: object) -> None:
    """One call for each line; no masks."""
    rows = []
    with path.open("rb") as file:
        for line in file:
            rows.append(tokenizer.apply_chat_template(json.loads(line)["messages"])["input_ids"])  # type: ignore[attr-defined]


def _batches(path: Path, tokenizer: object) -> None:
    """A thousand rows at a time; prompt and whole conversation are encoded, so that the last answer's mask is known."""
    rows = []
    with path.open("rb") as file:
        lines = list(file)
    for begin in range(0, len(lines), BATCH):
        talks = [json.loads(line)["messages"] for line in lines[begin : begin + BATCH]]
        for some, more in ((talks, {}), ([talk[:-1] for talk in talks], {"add_generation_prompt": True})):
            rows.append(tokenizer.apply_chat_template(some, **more)["input_ids"])  # type: ignore[attr-defined]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--upload-megabytes", type=int, default=1000)
    parser.add_argument("--check-megabytes", type=int, default=200)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    for hidden in ("serve", "check"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    for hidden in ("folder", "file"):
        parser.add_argument(f"--{hidden}", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve_peer(asked.serve, asked.port, asked.folder)
    elif asked.check:
        print(json.dumps(asdict(run_check(asked.check, asked.file))))
    else:
        until = time.monotonic() + 60 * asked.minutes
        main(asked.upload_megabytes, asked.check_megabytes, until, asked.output)
