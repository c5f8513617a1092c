"""One job against TRL's: trained tokens per CPU second, and peak memory, of separate processes in turns.

    python -m benchmarks.train_one [--minutes 60] [--bases tiny,12m,135m] [--data demo,banking77,mix] [--steps 12]

writes benchmarks/train_one.txt and .svg. LoRA of rank 16 on every linear layer, no dropout, batches of 8, one thread,
the same rows for all; the first step of each is left out. TRL runs in its own environment (`make servers`), with its
defaults and `tuned`; with `--dtypes float32,bfloat16` both sides have the base in each. Rows: the demo's; BANKING77
(../shared/data/banking77, left out where it is missing); a mix of random rows of log-normal length, mean 206. The
useful share is of the roofline: the operations that rows need (4 for each weight and token, 4 for each weight of the
output layer and trained token) by the processor's own rate for one large product.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.bars import Spread, draw
from benchmarks.comparison import in_turns, machine, run_process
from service.recipes.base import Base, Serving
from service.recipes.formats.completion import PromptRow
from tests.given.running_service import ROOT
from tests.servers.trl import PYTHON, REMEDY
from workers.data.batches import IGNORED
from workers.data.render import Renderer
from workers.model.load import load_text

TINY = ROOT / "workers" / "toy_base" / "luthier-tiny"
BANKING77 = ROOT.parent / "shared" / "data" / "banking77" / "train.csv"
OUTPUT = Path(__file__).parent
SHAPES = {  # hidden, intermediate, layers, heads, heads of keys and values, vocabulary
    "12m": (288, 768, 8, 6, 6, 8192),
    "135m": (576, 1536, 30, 9, 3, 49152),
    "0.5b": (896, 4864, 24, 14, 2, 151936),
    "8b": (4096, 14336, 32, 32, 8, 128256),
}
BATCH = 8
LIMIT_SECONDS = 1800.0  # of one run
Rows = list[tuple[list[int], list[int]]]  # ids and labels


@dataclass(frozen=True)
class Run:
    """What one process measured."""

    trained_per_cpu_second: float
    cpu_seconds: float
    wall_seconds: float
    peak_megabytes: float
    losses: Sequence[float]
    useful_share: float | None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5, help="at most (default: %(default)s)")
    parser.add_argument("--bases", default="tiny,12m,135m")
    parser.add_argument("--data", default="demo,banking77,mix")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--name", default="train_one", help="of the two files that are written (default: %(default)s)")
    options = parser.parse_args()
    lines = measure(
        options.minutes, options.rounds, options.bases.split(","), options.data.split(","),
        options.dtypes.split(","), options.steps, options.output, options.name,
    )  # fmt: skip
    (options.output / f"{options.name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(
    minutes: float,
    rounds: int,
    bases: Sequence[str],
    kinds: Sequence[str],
    dtypes: Sequence[str],
    steps: int,
    output: Path,
    name: str = "train_one",
) -> list[str]:
    """The table, which is printed as it grows; writes the picture."""
    lines = [f"{machine()}; TRL in an environment of its own; {steps} steps of {BATCH} rows, one thread", ""]
    print(lines[0], flush=True)
    cases = [(base, kind, dtype) for base in bases for kind in kinds for dtype in dtypes]
    groups: dict[str, dict[str, Spread]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (base, kind, dtype) in enumerate(cases):
            rows = rows_of(kind, (steps + 1) * BATCH)
            if rows is None:
                lines += [f"{base} {kind}: left out, its rows are missing", ""]
                continue
            job = Job(make_base(base, Path(scratch) / base), dtype, rows, steps, Path(scratch))
            deadline = time.monotonic() + 60 * minutes / len(cases)
            found = in_turns({name: partial(job.run, name) for name in CONTENDERS}, deadline, rounds)
            title = f"{base}, {kind}" + ("" if dtype == "float32" else f", {dtype}")
            groups[title] = {one: Spread([run.trained_per_cpu_second for run in runs]) for one, runs in found.items()}
            part = table(title, found)
            print("\n".join(part), f"({number + 1} of {len(cases)})", flush=True)
            lines += part
    if groups:
        draw(output / f"{name}.svg", "one job of LoRA, one CPU thread", "trained tokens per CPU second", groups)
    return lines


CONTENDERS = ("luthier", "TRL, tuned", "TRL, defaults")


@dataclass(frozen=True)
class Job:
    """The same for every contender."""

    base: Path
    dtype: str
    rows: Rows
    steps: int
    scratch: Path

    def run(self, contender: str) -> Run:
        """One process."""
        given = {
            "base": str(self.base), "dtype": self.dtype, "rows": self.rows, "steps": self.steps, "epochs": 1,
            "batch_size": BATCH, "learning_rate": 1e-3, "seed": 1, "threads": 1, "tuned": contender == "TRL, tuned",
            "peft_path": str(Path(peft.__file__).parents[1]),
        }  # fmt: skip
        job, result = self.scratch / "job.json", self.scratch / "result.json"
        job.write_text(json.dumps(given), encoding="utf-8")
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}
        python = [sys.executable, "-m", "benchmarks.train_one_ours"]
        command = python if contender == "luthier" else [str(PYTHON), str(OUTPUT / "train_one_trl.py")]
        run_process([*command, str(job), str(result)], quiet, LIMIT_SECONDS)
        return _run(json.loads(result.read_text(encoding="utf-8")))


def _run(found: dict[str, Any]) -> Run:
    steps = found["steps"][1:]
    cpu = sum(step["cpu"] for step in steps)
    trained, tokens = sum(step["trained"] for step in steps), sum(step["tokens"] for step in steps)
    share = None
    if "shape" in found:
        needed = 4 * found["shape"]["blocks"] * tokens + 4 * found["shape"]["head"] * trained
        share = needed / cpu / found["gemm_flops"]
    losses = [step["loss"] for step in found["steps"]]
    return Run(trained / cpu, cpu, sum(step["wall"] for step in steps), found["peak_bytes"] / 1e6, losses, share)


def table(title: str, found: dict[str, list[Run]]) -> list[str]:
    """A line for each contender."""
    ours = Spread([run.trained_per_cpu_second for run in found["luthier"]]).median
    lines = [f"{title}, {len(found['luthier'])} rounds", f"{'':16}{'trained/CPU s':>24}{'ours/it':>9}{'CPU s':>8}"
             f"{'wall s':>8}{'peak MB':>9}{'useful':>8}  losses"]  # fmt: skip
    for name, runs in found.items():
        speed = Spread([run.trained_per_cpu_second for run in runs])
        shares = [run.useful_share for run in runs if run.useful_share is not None]
        losses = runs[0].losses
        lines.append(
            f"{name:16}{speed!s:>24}{ours / speed.median:>9.2f}"
            f"{Spread([run.cpu_seconds for run in runs]).median:>8.1f}"
            f"{Spread([run.wall_seconds for run in runs]).median:>8.1f}"
            f"{Spread([run.peak_megabytes for run in runs]).median:>9.0f}"
            f"{f'{Spread(shares).median:.0%}' if shares else '':>8}  {losses[0]:.2f} -> {losses[-1]:.2f}"
        )
    return [*lines, ""]


def make_base(name: str, folder: Path, dtype: str = "float32", device: str = "cpu") -> Path:
    """The bundled base, or a Llama of random weights in another shape with the bundled one's tokenizer.

    The weights are drawn in `dtype` on `device`: for 8 billion that takes a CPU minutes.
    """
    if name == "tiny":
        return TINY
    if not folder.exists():
        hidden, intermediate, layers, heads, shared, vocabulary = SHAPES[name]
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=shared, vocab_size=vocabulary,
            max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            with torch.device(device):
                LlamaForCausalLM(config).save_pretrained(folder)
        finally:
            torch.set_default_dtype(torch.float32)
        for file in TINY.iterdir():
            if not (folder / file.name).exists() and file.suffix != ".safetensors":
                (folder / file.name).write_bytes(file.read_bytes())
    return folder


def rows_of(kind: str, count: int) -> Rows | None:
    """That many rows; None where they are missing."""
    if kind == "mix":
        numbers = np.random.RandomState(1)
        lengths = np.clip(np.exp(numbers.normal(5.0, 0.8, count)), 8, 1000).astype(int)
        random = [numbers.randint(10, 4000, length).tolist() for length in lengths]
        return [(ids, [IGNORED] * (len(ids) // 2) + ids[len(ids) // 2 :]) for ids in random]
    texts = demo_texts() if kind == "demo" else _banking77()
    return None if texts is None else tokenised((texts * (count // len(texts) + 1))[:count])


def tokenised(texts: Sequence[tuple[str, str]]) -> Rows:
    """Prompts and completions, by the bundled base's tokenizer."""
    entry = Base(id="t", source=str(TINY), context_tokens=1024, serving=Serving(tunings=frozenset({"lora"})))
    renderer = Renderer(load_text(entry), entry.context_tokens)
    rows: Rows = []
    for prompt, completion in texts:
        (rendered, *_) = renderer.render(PromptRow(prompt=prompt, completion=completion))
        ids = list(rendered.ids)
        rows.append((ids, [id if flag else IGNORED for id, flag in zip(ids, rendered.trained, strict=True)]))
    return rows


def demo_texts() -> list[tuple[str, str]]:
    lines = (ROOT / "examples" / "demo" / "training.jsonl").read_text(encoding="utf-8").splitlines()
    conversations = [json.loads(line)["messages"] for line in lines]
    return [("\n".join(one["content"] for one in messages[:-1]), messages[-1]["content"]) for messages in conversations]


def _banking77() -> list[tuple[str, str]] | None:
    if not BANKING77.exists():
        return None
    with BANKING77.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))[1:]
    order = np.random.RandomState(0).permutation(len(rows))
    return [(rows[place][0], " " + rows[place][1]) for place in order[:2000]]


if __name__ == "__main__":
    if not PYTHON.exists():
        sys.exit(f"TRL is missing: {REMEDY}")
    main()
