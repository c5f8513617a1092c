"""How many CPU threads suit a trainer of a base: one step's forward and backward, with 1 thread, 2, 4, ... in turns.

`python -m benchmarks.trainer_threads`. Random weights in the shapes of the bundled base,
of one between and of SmolLM2-135M, frozen, with the gradient of the input embeddings: what an adapter's training costs.
Prints the median of each, interleaved so that a busy moment hits all alike. `workers.trainer.process.threads` has the
rule that follows.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Shape:
    """A Llama of random weights, tied embeddings."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int

    def model(self) -> LlamaForCausalLM:
        config = LlamaConfig(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            intermediate_size=self.intermediate,
            vocab_size=self.vocabulary,
            tie_word_embeddings=True,
        )
        return LlamaForCausalLM(config).eval().requires_grad_(False)


SHAPES = (
    Shape("luthier-tiny", 256, 4, 4, 4, 768, 4096),
    Shape("between", 384, 12, 6, 2, 1024, 8192),
    Shape("smollm2-135m", 576, 30, 9, 3, 1536, 49152),
)
ROWS = ((8, 24), (8, 96), (8, 256))  # of a step: how many, how many tokens each


def main() -> None:
    """Prints one line per shape and batch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each (default: %(default)s)")
    parser.add_argument("--limit-threads", type=int, default=16)
    options = parser.parse_args()
    cpus = len(os.sched_getaffinity(0))
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count <= min(cpus, options.limit_threads)]
    print(f"torch {torch.__version__}, {cpus} CPUs, {platform.processor() or platform.machine()}, {_processor()}")
    print(f"{'base':14} {'parameters':>11} {'rows':>9}  " + "".join(f"{count:>5} thr" for count in counts) + "  best")
    for shape in SHAPES:
        model = shape.model()
        for num_rows, num_tokens in ROWS:
            medians = _medians(model, num_rows, num_tokens, counts, options.steps)
            best = counts[medians.index(min(medians))]
            cells = "".join(f"{1000 * seconds:9.1f}" for seconds in medians)
            sizes = f"{shape.name:14} {model.num_parameters():11,} {num_rows:4} x{num_tokens:3}"
            print(f"{sizes}  {cells}  {best} (ms)", flush=True)


def _medians(model: LlamaForCausalLM, num_rows: int, num_tokens: int, counts: Sequence[int], steps: int) -> list[float]:
    ids_BT = torch.randint(0, model.config.vocab_size, (num_rows, num_tokens))
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for turn in range(steps + 1):
        for count in counts:
            torch.set_num_threads(count)
            began = time.perf_counter()
            embedded_BTH = model.get_input_embeddings()(ids_BT).requires_grad_(True)
            model(inputs_embeds=embedded_BTH, labels=ids_BT, use_cache=False).loss.backward()
            if turn:  # the first warms up
                seconds[count].append(time.perf_counter() - began)
    return [statistics.median(seconds[count]) for count in counts]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
