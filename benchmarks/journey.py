"""A job as its user sees it: from the POST to the event of its first step, and from its end to its model's first token.

    python -m benchmarks.journey [--minutes 5] [--rounds 9]

writes benchmarks/journey.txt and .svg. `luthierd up` on the bundled base, through the `openai` client: a small job (50
of the demo's rows, one epoch, batches of 8) is posted, its events are read as a stream, and when that ends its model is
asked for a streamed token. Cold is the same with a trainer that was killed just before. The peers: a script with
transformers' Trainer and PEFT, started for the job, until its own first step; and, for the token, a warm process by
hand: it has the base in memory, loads the finished adapter from its folder with PEFT and generates one token. In turns.
Then the same with vLLM as the engine, where it is installed (`make servers`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from openai import OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from benchmarks import train_many_peft
from benchmarks.bars import Spread, draw
from benchmarks.comparison import in_turns, machine
from benchmarks.train_many import BATCH, RATE, ROWS, service_on
from benchmarks.train_one import TINY, Rows, demo_texts, tokenised
from service.recipes.base import Base, Serving
from tests.given.journey import artifact_folder, upload
from tests.given.running_service import ROOT, RunningService, answers, descendants, kill, wait_for, write_catalogue
from tests.servers.vllm import INSTALLED, START_SECONDS

OUTPUT = Path(__file__).parent
LIMIT_SECONDS = 600.0
TRAINER = "workers.trainer.process.loop"
QUESTION = "Where is my parcel?"
FIRST_STEP, END, FIRST_TOKEN = "to the first step", "to the end", "end to token"
LUTHIER, COLD, SCRIPT, BY_HAND, AGAIN = (
    "luthier", "luthier, cold trainer", "a script", "by hand, warm", "luthier, asked again"
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Seconds. What a contender has not is missing."""

    first_step: float | None = None
    end: float | None = None
    first_token: float | None = None
    by_hand: float | None = None
    again: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=9, help="at most (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer is not None:
        be_script(options.peer)
        return
    with tempfile.TemporaryDirectory() as scratch, service_on("tiny", TINY, Path(scratch)) as service:
        lines = measure(service, Path(scratch), options.minutes, options.rounds, options.output)
    with tempfile.TemporaryDirectory() as scratch:
        lines += with_vllm(Path(scratch), options.rounds)
    (options.output / "journey.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(service: RunningService, scratch: Path, minutes: float, rounds: int, output: Path) -> list[str]:
    """The table, printed; writes the picture."""
    lines = [machine(), ""]
    texts = demo_texts()[:ROWS]
    rows = tokenised(texts)
    client, hand = service.client(), ByHand()
    content = "\n".join(json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in texts)
    file = upload(client, content.encode())
    ours(service, client, file, hand)  # what is done once: the file's validation, connections
    found = in_turns(
        {
            LUTHIER: lambda: ours(service, client, file, hand),
            SCRIPT: lambda: script(rows, scratch),
            COLD: lambda: cold(service, client, file, hand),
        },
        time.monotonic() + 60 * minutes,
        rounds,
    )
    groups = {
        FIRST_STEP: {who: _spread(runs, "first_step") for who, runs in found.items()},
        END: {who: _spread(runs, "end") for who, runs in found.items()},
        FIRST_TOKEN: {
            LUTHIER: _spread(found[LUTHIER], "first_token"),
            BY_HAND: _spread(found[LUTHIER], "by_hand"),
            AGAIN: _spread(found[LUTHIER], "again"),
        },
    }
    for title, group in groups.items():
        lines += table(title, group)
    print("\n".join(lines), flush=True)
    draw(output / "journey.svg", "A small job on the bundled base", "seconds", groups)
    return lines


def with_vllm(scratch: Path, rounds: int) -> list[str]:
    """The lines of vLLM, printed."""
    if not (ROOT / INSTALLED).exists():
        lines = ["vLLM is left out: it is not installed (make servers)", ""]
    else:
        with vllm_service(scratch) as service:
            client, hand = service.client(), ByHand()
            texts = demo_texts()[:ROWS]
            content = "\n".join(
                json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in texts
            )
            file = upload(client, content.encode())
            ours(service, client, file, hand)
            runs = [ours(service, client, file, hand) for _ in range(rounds)]
        group = {
            LUTHIER: _spread(runs, "first_token"), BY_HAND: _spread(runs, "by_hand"), AGAIN: _spread(runs, "again")
        }  # fmt: skip
        lines = table(f"{FIRST_TOKEN}, vLLM", group)
    print("\n".join(lines), flush=True)
    return lines


@contextmanager
def vllm_service(scratch: Path) -> Iterator[RunningService]:
    """The bundled base, trained by `luthierd up` and served by `luthier-worker vllm` on the same data folder."""
    base = Base(
        id="measured", source=str(TINY), context_tokens=1024, learning_rate={"lora": RATE},
        serving=Serving(engine="vllm", tunings=frozenset({"lora"}), max_rank=16),
    )  # fmt: skip
    catalogue = write_catalogue(scratch / "bases.toml", base)
    service = RunningService(scratch / "service", {"LUTHIER_CATALOGUE": str(catalogue), "LUTHIER_TRAINER_THREADS": "0"})
    service.folder.mkdir()
    more = {"LUTHIER_VLLM_PYTHON": str(ROOT / INSTALLED), "LUTHIER_VLLM_KV_CACHE_GIB": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "workers", "vllm", "--base", base.id, "--die-with-parent"]
    with (
        (scratch / "vllm.log").open("wb") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=service.variables() | more, stdin=subprocess.PIPE, stdout=log, stderr=log
        ) as vllm,
    ):
        try:
            health = f"http://127.0.0.1:{service.engine_port}/health"
            wait_for(lambda: vllm.poll() is not None or answers(health), START_SECONDS, "vLLM")
            assert vllm.poll() is None, (scratch / "vllm.log").read_text(encoding="utf-8", errors="replace")[-3000:]
            service.start()
            yield service
        finally:
            service.end()
            for pid in [vllm.pid, *descendants(vllm.pid)]:
                kill(pid)


def _spread(runs: Sequence[Run], name: str) -> Spread:
    return Spread([value for run in runs if (value := asdict(run)[name]) is not None])


def table(title: str, group: dict[str, Spread]) -> list[str]:
    lines = [f"{title}, {len(group[LUTHIER].values)} rounds", f"{'':24}{'seconds':>26}{'it/ours':>9}"]
    mine = group[LUTHIER].median
    return [*lines, *(f"{who:24}{one!s:>26}{one.median / mine:>9.2f}" for who, one in group.items()), ""]


def ours(service: RunningService, client: OpenAI, file: str, hand: "ByHand") -> Run:
    """One job from its POST to a token of its model."""
    began = time.perf_counter()
    hyperparameters = {"n_epochs": 1, "batch_size": BATCH}
    job = client.fine_tuning.jobs.create(
        model="measured",
        training_file=file,
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},  # type: ignore[typeddict-item]
        extra_body={"tuning": {"type": "lora", "lora": {"r": 16, "alpha": 32}}},
    )
    first_step = None
    for event in events(client, job.id):
        if event.type == "metrics" and first_step is None:
            first_step = time.perf_counter() - began
    ended = time.perf_counter()
    model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert model is not None and first_step is not None, service.log[-3000:]
    first_token(client, model)
    told = time.perf_counter()
    first_token(client, model)
    again = time.perf_counter() - told
    by_hand = hand.seconds(artifact_folder(service, model))
    return Run(first_step, ended - began, told - ended, by_hand, again)


def cold(service: RunningService, client: OpenAI, file: str, hand: "ByHand") -> Run:
    """The same where no trainer runs: its process and the base's weights have to be loaded first."""
    for pid in service.processes(TRAINER):
        kill(pid)
    wait_for(lambda: not service.processes(TRAINER), 30, "the trainer's end")
    return ours(service, client, file, hand)


def events(client: OpenAI, job_id: str) -> Stream[FineTuningJobEvent]:
    """As they come, until the job ends."""
    return client.get(
        f"/fine_tuning/jobs/{job_id}/events",
        cast_to=FineTuningJobEvent,
        stream=True,
        stream_cls=Stream[FineTuningJobEvent],
        options={"params": {"stream": True}, "timeout": LIMIT_SECONDS},
    )


def first_token(client: OpenAI, model: str) -> None:
    """Returns when the first chunk with text is there."""
    for chunk in client.completions.create(model=model, prompt=QUESTION, max_tokens=8, temperature=0, stream=True):
        if chunk.choices and chunk.choices[0].text:
            return


class ByHand:
    """A warm process: a base in memory, to which PEFT loads an adapter from a folder."""

    def __init__(self, base: Path = TINY, dtype: str = "float32", device: str = "cpu") -> None:
        torch.set_num_threads(1)
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self._base: Any = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype)).to(device).eval()

    @torch.inference_mode()
    def seconds(self, folder: Path) -> float:
        """From a folder to a token."""
        began = time.perf_counter()
        tuned: Any = PeftModel.from_pretrained(self._base, folder).eval()
        ids = self._tokenizer(QUESTION, return_tensors="pt").to(self._base.device)
        tuned.generate(**ids, max_new_tokens=1, do_sample=False, pad_token_id=0)
        seconds = time.perf_counter() - began
        self._base = tuned.unload()
        return seconds


def script(rows: Rows, scratch: Path) -> Run:
    """A process with transformers' Trainer: until it says that its first step is done, and until it has ended."""
    given = {
        "kind": "process", "base": str(TINY), "rows": rows, "jobs": 1, "epochs": 1, "batch_size": BATCH,
        "learning_rate": RATE,
    }  # fmt: skip
    job = scratch / "script.json"
    job.write_text(json.dumps(given), encoding="utf-8")
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.journey", "--peer", str(job)]
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    first_step = None
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | quiet, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(SAID) and first_step is None:
                first_step = time.perf_counter() - began
        code = process.wait(LIMIT_SECONDS)
    assert code == 0 and first_step is not None, "the script failed"
    return Run(first_step, time.perf_counter() - began)


SAID = "first step"


class _Says(TrainerCallback):
    def on_step_end(self, *arguments: object, **more: object) -> None:
        print(SAID, flush=True)


def be_script(job: Path) -> None:
    """What a user runs without a service."""
    given = json.loads(job.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(given["base"], dtype=torch.float32)
    train_many_peft.with_trainer(model, given, job.parent, [_Says()])


if __name__ == "__main__":
    main()
