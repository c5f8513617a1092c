"""Anchors with their positives, as a tokenised file of `embedding`, from random tokens."""

import numpy as np

from tests.given.tiny_models import VOCABULARY
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.toy_base.tokenizer import SPECIAL_TOKENS


def random_contrasts(
    num_examples: int, seed: int = 0, *, negatives: bool = False, weighted: bool = False
) -> TokenizedDataset:
    """An anchor in each example and a text that begins and ends otherwise around some of its tokens; with `negatives` a
    third text that has nothing of it. Every second example has a weight of a half, if they are `weighted`."""
    numbers = np.random.RandomState(seed)
    rows = DatasetBuilder()

    def some(least: int, most: int) -> list[int]:
        found: list[int] = numbers.randint(len(SPECIAL_TOKENS), VOCABULARY, numbers.randint(least, most)).tolist()
        return found

    for number in range(num_examples):
        core = some(3, 6)
        texts = [some(1, 9) + core, core + some(1, 9), *([some(3, 12)] if negatives else [])]
        for text in texts:
            rows.add(text, [0] * len(text), weight=0.5 if weighted and number % 2 else None)
    return rows.build(rows_per_example=3 if negatives else 2)
