"""Generating in the embedded engine: prompts and tokens at 1, 4 and 16 rows, beside `generate` of transformers.

    python -m benchmarks.engine [--minutes 5] [--bases tiny,135m] [--rows 1,4,16] [--tokens 32]

writes benchmarks/engine.txt and .svg. Ours are what the engine's thread computes (`workers.model.generate`): short
prompts of one model together, then all rows token by token. The peer has the same prompts in one padded batch, and
PEFT's LoRA where ours has one adapter; eight adapters among the rows of one batch it cannot have. Greedy, one thread,
float32; in turns in one process, which both share. Prompts are those of the demo's rows. Of one call of the peer, what
comes before its second pass is the prompts' and the first tokens', the rest the other tokens'; so it is with ours.

vLLM and llama.cpp (`benchmarks.engine_peers`) have the same base, float32 and one thread, each in a process of its own,
whose CPU seconds count: a call for one token is the prompts', one for all tokens less that the tokens'. The last column
counts the rows whose first tokens are ours.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from benchmarks import llama_gguf
from benchmarks.bars import Spread, draw
from benchmarks.comparison import in_turns, machine
from benchmarks.engine_peers import Absent, Peer
from benchmarks.train_one import demo_texts, make_base, tokenised
from service.recipes.base import Base, Serving
from workers.model.adapters import Adapter, Adapters
from workers.model.generate import BatchRow, DecodingBatch
from workers.model.load import LoadedBase, load_base
from workers.model.sampling import Sampling

OUTPUT = Path(__file__).parent
ADAPTERS = 8
BASE, ONE, EIGHT = "a base", "one adapter", "eight adapters"
LUTHIER, PEER = "luthier", "transformers"
OTHERS = ("vllm", "llama.cpp")  # not goals: printed
FIRST = 8  # tokens of a row that are compared; later, rounding may decide between two that are equally likely


@dataclass(frozen=True)
class Run:
    """CPU seconds of one batch."""

    prompts: float
    tokens: float
    ids: Sequence[Sequence[int]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=9, help="at most (default: %(default)s)")
    parser.add_argument("--bases", default="tiny,135m")
    parser.add_argument("--rows", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--peers", default=",".join(OTHERS), help="besides generate (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    counts = [int(count) for count in options.rows.split(",")]
    peers = [name for name in options.peers.split(",") if name]
    bases = options.bases.split(",")
    lines = measure(options.minutes, options.rounds, bases, counts, options.tokens, peers, options.output)
    (options.output / "engine.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(
    minutes: float, rounds: int, bases: Sequence[str], counts: Sequence[int], tokens: int, others: Sequence[str],
    output: Path,
) -> list[str]:  # fmt: skip
    """The table, which is printed as it grows; writes the picture."""
    torch.set_num_threads(1)
    lines = [f"{machine()}; {tokens} tokens for each row, one thread", ""]
    print(lines[0], flush=True)
    texts = demo_texts()
    groups: dict[str, dict[str, Spread]] = {}
    for name in bases:
        with tempfile.TemporaryDirectory() as scratch, peers_of(name, others, Path(scratch)) as (peers, told):
            print("\n".join(told), flush=True)
            lines += told
            sides = Sides(make_base(name, Path(scratch) / name), Path(scratch) / "adapters", peers)
            for count in counts:
                prompts = prompts_of(texts[:count])
                deadline = time.monotonic() + 60 * minutes / len(bases) / len(counts)
                found = in_turns(sides.contenders(prompts, tokens), deadline, rounds)
                title = f"{name}, {count} rows" if count > 1 else f"{name}, 1 row"
                part = table(title, found, sum(map(len, prompts)), count * (tokens - 1))
                print("\n".join(part), flush=True)
                lines += part
                for what, side in ((BASE, f"{title}"), (ONE, f"{title}, adapter")):
                    groups[side] = {
                        who: Spread([count * (tokens - 1) / run.tokens for run in found[f"{who}, {what}"]])
                        for who in (LUTHIER, PEER, *peers)
                        if f"{who}, {what}" in found
                    }
    draw(output / "engine.svg", "Generating, one CPU thread", "tokens per CPU second", groups)
    return lines


def prompts_of(texts: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The tokens before each completion."""
    return [[id for id, label in zip(ids, labels, strict=True) if label < 0] for ids, labels in tokenised(texts)]


@contextmanager
def peers_of(name: str, others: Sequence[str], scratch: Path) -> Iterator[tuple[Mapping[str, Peer], list[str]]]:
    """Those that can be started with this base, and a line on each."""
    base, file = make_base(name, scratch / name), scratch / "base.gguf"
    peers: dict[str, Peer] = {}
    told: list[str] = []
    try:
        for other in others:
            if other == "llama.cpp":
                llama_gguf.write(base, file)
            try:
                peers[other] = Peer(other, file if other == "llama.cpp" else base, scratch / f"{other}.log")
                told.append(f"{other}: {peers[other].about}")
            except Absent as reason:
                told.append(f"without {other}: {reason}")
        yield peers, told
    finally:
        for peer in peers.values():
            peer.close()


class Sides:
    """One base several times: as the engine has it, with adapters, as transformers and PEFT have it, as others do."""

    def __init__(self, folder: Path, adapters: Path, others: Mapping[str, Peer]) -> None:
        self._others = others
        entry = Base(
            id="base", source=str(folder), dtype="float32", context_tokens=1024,
            serving=Serving(tunings=frozenset({"lora"})),
        )  # fmt: skip
        self._ours: LoadedBase = load_base(entry, torch.device("cpu"))
        self.packs = not self._ours.unpacked_because  # tried here once, before anything is measured
        for number in range(ADAPTERS):
            make_adapter(folder, adapters / str(number), number)
        attached = Adapters(self._ours.model)
        self._adapters = [attached.attach(adapters / str(number)) for number in range(ADAPTERS)]
        self._theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tuned: Any = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), adapters / "0"
        ).eval()

    def contenders(self, prompts: Sequence[Sequence[int]], tokens: int) -> Mapping[str, Callable[[], Run]]:
        """Each computes all prompts, then `tokens` for each row."""
        nobody: list[Adapter | None] = [None]
        return {
            f"{LUTHIER}, {BASE}": lambda: self._generate(prompts, nobody, tokens),
            f"{PEER}, {BASE}": lambda: self._peer(self._theirs, prompts, tokens),
            f"{LUTHIER}, {ONE}": lambda: self._generate(prompts, self._adapters[:1], tokens),
            f"{PEER}, {ONE}": lambda: self._peer(self._tuned, prompts, tokens),
            f"{LUTHIER}, {EIGHT}": lambda: self._generate(prompts, self._adapters, tokens),
        } | {f"{name}, {BASE}": partial(self._other, peer, prompts, tokens) for name, peer in self._others.items()}

    @staticmethod
    def _other(peer: Peer, prompts: Sequence[Sequence[int]], tokens: int) -> Run:
        found = peer.run(prompts, tokens)
        return Run(found.prompts, max(1e-6, found.tokens), found.ids)

    def _generate(self, prompts: Sequence[Sequence[int]], adapters: Sequence[Adapter | None], tokens: int) -> Run:
        batch = DecodingBatch(self._ours)
        rows = [
            BatchRow(ids, Sampling(temperature=0), adapters[place % len(adapters)]) for place, ids in enumerate(prompts)
        ]
        began = time.process_time()
        batch.join(*batch.prefill_all([[row] for row in rows]))
        batch.sample()
        between = time.process_time()
        for _ in range(tokens - 1):
            batch.advance()
            batch.sample()
        return Run(between - began, time.process_time() - between, [row.generated for row in rows])

    @torch.inference_mode()
    def _peer(self, model: Any, prompts: Sequence[Sequence[int]], tokens: int) -> Run:
        longest = max(map(len, prompts))
        ids_BT = torch.tensor([[*[0] * (longest - len(ids)), *ids] for ids in prompts])
        mask_BT = torch.tensor([[*[0] * (longest - len(ids)), *[1] * len(ids)] for ids in prompts])

        passes: list[float] = []
        embedding: nn.Module = model.get_input_embeddings()
        hook = embedding.register_forward_pre_hook(lambda *_: passes.append(time.process_time()))
        began = time.process_time()
        written = model.generate(
            input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        ended = time.process_time()
        hook.remove()
        assert written.shape[1] == longest + tokens
        return Run(passes[1] - began, ended - passes[1], written[:, longest:].tolist())


def make_adapter(base: Path, folder: Path, seed: int) -> None:
    """A LoRA of rank 16 on every linear layer, of random numbers."""
    torch.manual_seed(seed)
    model: nn.Module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.01 * torch.randn_like(parameter))
    tuned.save_pretrained(str(folder))


def table(title: str, found: Mapping[str, list[Run]], prompt_tokens: int, tokens: int) -> list[str]:
    """A line for each contender."""
    lines = [f"{title}, {len(next(iter(found.values())))} rounds", f"{'':30}{'prompt tokens/CPU s':>28}"
             f"{'tokens/CPU s':>26}{'prompts: ours/it':>18}{'tokens: ours/it':>17}{'rows alike':>12}"]  # fmt: skip
    for who, runs in found.items():
        prompts = Spread([prompt_tokens / run.prompts for run in runs])
        decoded = Spread([tokens / run.tokens for run in runs])
        line = f"{who:30}{prompts!s:>28}{decoded!s:>26}"
        name, _, what = who.partition(", ")
        if name != LUTHIER:
            ours = found[f"{LUTHIER}, {what}"]
            line += f"{Spread([prompt_tokens / run.prompts for run in ours]).median / prompts.median:>18.2f}"
            line += f"{Spread([tokens / run.tokens for run in ours]).median / decoded.median:>17.2f}"
            pairs = list(zip(ours[0].ids, runs[0].ids, strict=True))
            alike = sum(list(mine[:FIRST]) == list(its[:FIRST]) for mine, its in pairs)
            line += f"{f'{alike} of {len(pairs)}':>12}"
        lines.append(line)
    return [*lines, ""]


if __name__ == "__main__":
    main()
