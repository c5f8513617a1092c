"""What a checked job needs of a worker's memory, by part."""

from service.domain.check import Counts
from service.domain.json import JsonObject
from service.domain.memory import MemoryNeed
from service.recipes.base import Base
from service.recipes.tuning import tuning_of
from workers.data.base_text import BaseText
from workers.model.footprint import footprint
from workers.trainer.process.plan import LIMIT_TOKENS
from workers.tunings import create_tuning
from workers.tunings.virtual_tokens import tokenized


def memory_need(base: Base, text: BaseText, tuning: JsonObject, counts: Counts, batch_size: int) -> MemoryNeed:
    """Blocks for a moment. Raises OSError, ValueError or RuntimeError where the base's config.json does not say,
    and JobError where the job would fail for its tuning."""
    size = footprint(base)
    parameter_bytes = create_tuning(tokenized(tuning_of(tuning), text.tokenizer), size.model, "checked").memory_bytes()
    return MemoryNeed.of(size.weights_bytes, parameter_bytes, size.activation_bytes(_widest(counts, batch_size)))


def _widest(counts: Counts, batch_size: int) -> int:
    """Tokens of the largest micro-batch, at most: an example that is longer than the limit goes alone."""
    example = counts.longest_tokens * -(-counts.sequences // max(1, counts.examples))
    return max(example, min(LIMIT_TOKENS, batch_size * example))
