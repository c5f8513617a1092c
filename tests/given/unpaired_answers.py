"""Answers with labels, as a tokenised file of `kto`, from random tokens."""

import numpy as np

from tests.given.tiny_models import VOCABULARY
from workers.data.examples import with_mismatched
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.toy_base.tokenizer import SPECIAL_TOKENS


def random_answers(num_answers: int, seed: int = 0) -> TokenizedDataset:
    """A random prompt and a random answer in each example; every third is unwanted."""
    numbers = np.random.RandomState(seed)
    rows = DatasetBuilder()
    for place in range(num_answers):
        prompt, answer = (
            numbers.randint(len(SPECIAL_TOKENS), VOCABULARY, numbers.randint(low, 9)).tolist() for low in (3, 2)
        )
        rows.add(prompt + answer, [0] * len(prompt) + [1] * len(answer), label=int(place % 3 != 2))
    return with_mismatched(rows.build(), 256)
