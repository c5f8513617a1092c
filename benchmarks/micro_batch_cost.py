"""What a micro-batch costs besides its tokens.

    python -m benchmarks.micro_batch_cost > benchmarks/micro_batch_cost.txt

CPU seconds of one forward and backward pass of LoRA on all layers, one thread, the least of four, for growing numbers
of tokens; and where a line through them begins, in tokens: `workers.trainer.process.plan` weighs that against padding.
"""

import resource
import sys

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from service.recipes.tunings.lora import LoraSettings
from workers.tunings import create_tuning

SHAPES = [(1, 16), (1, 32), (2, 32), (4, 32), (8, 32)]  # rows, tokens of each
LLAMAS = {  # hidden, intermediate, layers, heads, heads of keys and values, vocabulary
    "12 M": (288, 768, 8, 6, 6, 8192),
    "135 M (SmolLM2's shape)": (576, 1536, 30, 9, 3, 49152),
}


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread, float32")
    measure("4 M (luthier-tiny)", AutoModelForCausalLM.from_pretrained("workers/toy_base/luthier-tiny"))
    for name, (hidden, intermediate, layers, heads, shared, vocabulary) in LLAMAS.items():
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=shared,
        )  # fmt: skip
        measure(name, LlamaForCausalLM(config))


def measure(name: str, model: PreTrainedModel) -> None:
    """Prints the milliseconds of each shape, and what stands before the first token."""
    model.requires_grad_(False)
    tuning = create_tuning(LoraSettings(), model, "adapter")
    tuning.attach()
    tuning.activate()
    tuning.train(True)
    tokens = [rows * length for rows, length in SHAPES]
    seconds = [min(one_pass(model, rows, length) for _ in range(4)) for rows, length in SHAPES]
    per_token = (seconds[-1] - seconds[0]) / (tokens[-1] - tokens[0])
    for count, one in zip(tokens, seconds, strict=True):
        print(f"{name:24} {count:5} tokens {one * 1e3:8.1f} ms")
    print(f"{name:24} a micro-batch costs as much as {seconds[0] / per_token - tokens[0]:.0f} tokens\n")
    sys.stdout.flush()


def one_pass(model: PreTrainedModel, rows: int, length: int) -> float:
    """CPU seconds of this process."""
    ids_BT = torch.randint(0, model.config.vocab_size, (rows, length))
    before = cpu_seconds()
    keep_K = torch.arange(length // 2, length)
    logits_BKV = model(
        input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False, logits_to_keep=keep_K
    ).logits
    logits_BKV.float().log_softmax(-1).mean().backward()
    return cpu_seconds() - before


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
