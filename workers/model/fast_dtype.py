"""Whether a processor computes a base faster in bfloat16: measured on the base's own shapes, once, when it is added.

A processor that can is no proof. torch 2.13 takes a kernel of one thread for some bfloat16 shapes on processors with
avx512_bf16 and without AMX: a step of 8 rows of 32 tokens took 13.8 s, and 1.5 s in float32. So a shape that is slow
decides against it. Shapes: N tokens, I inputs, O outputs.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

LEAST_HIDDEN = 512  # of smaller bases most of a step is no product of matrices
TOKENS = (8, 32, 104, 256, 416, 1024)
LIMIT_OPERATIONS = 8e9  # of one product: a large base is measured with fewer tokens
GAIN = 0.8  # of float32's time, at most, over all shapes
SLOWEST = 1.5  # times float32's, of no shape
REPETITIONS = 3  # the least of them counts, in turns with float32
LIMIT_SECONDS = 60.0  # after which the shapes so far decide

Stopwatch = Callable[[tuple[int, int, int], torch.dtype], float]


@dataclass(frozen=True)
class Measured:
    """Seconds of one shape."""

    float32: float
    bfloat16: float


def bfloat16_is_faster(config: PreTrainedConfig, seconds: Stopwatch | None = None) -> bool:
    """Over the products of the base's blocks, forward and backward. `seconds` times one; without it, this processor."""
    hidden = config.get_text_config().hidden_size
    if hidden < LEAST_HIDDEN:
        return False
    wide = config.get_text_config().to_dict().get("intermediate_size") or 4 * hidden
    measured = list(_measured([(hidden, hidden), (wide, hidden), (hidden, wide)], seconds or product_seconds))
    return chooses_bfloat16(measured)


def chooses_bfloat16(measured: Sequence[Measured]) -> bool:
    """Whether all of them together are enough faster, and none is much slower."""
    if not measured or any(one.bfloat16 > SLOWEST * one.float32 for one in measured):
        return False
    return sum(one.bfloat16 for one in measured) <= GAIN * sum(one.float32 for one in measured)


def _measured(layers: Sequence[tuple[int, int]], seconds: Stopwatch) -> Iterator[Measured]:
    begin = time.monotonic()
    for num_tokens in TOKENS:
        for num_outputs, num_inputs in layers:
            shape = (num_tokens, num_inputs, num_outputs)
            if 2.0 * num_tokens * num_inputs * num_outputs > LIMIT_OPERATIONS:
                continue
            if time.monotonic() - begin > LIMIT_SECONDS:
                return
            pairs = [(seconds(shape, torch.float32), seconds(shape, torch.bfloat16)) for _ in range(REPETITIONS)]
            yield Measured(*map(min, zip(*pairs, strict=True)))


def product_seconds(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    """Of a linear layer's output and of its input's gradient."""
    num_tokens, num_inputs, num_outputs = shape
    x_NI = torch.ones(num_tokens, num_inputs, dtype=dtype)
    weight_OI = torch.ones(num_outputs, num_inputs, dtype=dtype)
    begin = time.perf_counter()
    y_NO = torch.nn.functional.linear(x_NI, weight_OI)
    torch.mm(y_NO, weight_OI)
    return time.perf_counter() - begin
