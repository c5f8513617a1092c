"""Which number format suits a base on this processor: decided by its shapes, by times that the test makes up."""

import torch
from transformers import LlamaConfig

from workers.model.describe import LEAST_HIDDEN, bfloat16_is_faster, product_seconds

SMOLLM2 = LlamaConfig(hidden_size=576, intermediate_size=1536)
Shape = tuple[int, int, int]


def twice_as_fast(shape: Shape, dtype: torch.dtype) -> float:
    """As on a processor with bfloat16 everywhere."""
    return shape[0] * shape[1] * shape[2] * (1.0 if dtype is torch.float32 else 0.5)


def test_bfloat16_is_chosen_where_it_is_faster_over_all_shapes() -> None:
    asked: list[Shape] = []

    def seconds(shape: Shape, dtype: torch.dtype) -> float:
        asked.append(shape)
        return twice_as_fast(shape, dtype)

    assert bfloat16_is_faster(SMOLLM2, seconds)
    assert {(inputs, outputs) for _, inputs, outputs in asked} == {(576, 576), (576, 1536), (1536, 576)}
    assert not bfloat16_is_faster(SMOLLM2, lambda shape, dtype: twice_as_fast(shape, torch.float32))


def test_one_shape_that_falls_into_a_slow_kernel_decides_against_it() -> None:
    """As torch 2.13 does at 8 rows of 32 tokens with avx512_bf16 and without AMX."""

    def seconds(shape: Shape, dtype: torch.dtype) -> float:
        slow = dtype is torch.bfloat16 and shape == (256, 576, 576)
        return 2 * twice_as_fast(shape, torch.float32) if slow else twice_as_fast(shape, dtype)

    assert not bfloat16_is_faster(SMOLLM2, seconds)


def test_a_small_base_stays_in_float32_and_a_large_one_is_measured_with_few_tokens() -> None:
    assert not bfloat16_is_faster(LlamaConfig(hidden_size=LEAST_HIDDEN // 2), twice_as_fast)
    asked: list[Shape] = []

    def seconds(shape: Shape, dtype: torch.dtype) -> float:
        asked.append(shape)
        return twice_as_fast(shape, dtype)

    assert bfloat16_is_faster(LlamaConfig(hidden_size=8192, intermediate_size=28672), seconds)
    assert asked and all(2.0 * a * b * c <= 8e9 for a, b, c in asked)
    assert 0 < product_seconds((8, 16, 32), torch.bfloat16) < 60
