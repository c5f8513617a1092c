"""Texts that belong together, for embeddings: pairs, or pairs with a text that looks alike and does not belong there.

The fields have the names of sentence-transformers.
"""

from typing import ClassVar

from service.recipes.fields import Weight
from service.recipes.format import FORMATS, Format, Row
from service.recipes.formats.chat import FilledText


class ContrastiveRow(Row):
    """An anchor, such as a question, and a text that shall be near it; `weight` is how much the row counts."""

    anchor: FilledText
    positive: FilledText
    weight: Weight | None = None

    @property
    def texts(self) -> dict[str, str]:
        """By the names of their fields, in the order of the tokenised file's rows."""
        return {"anchor": self.anchor, "positive": self.positive}


class TripletRow(ContrastiveRow):
    """The same with a text that shall be far from the anchor."""

    negative: FilledText

    @property
    def texts(self) -> dict[str, str]:
        return {**super().texts, "negative": self.negative}


@FORMATS.register
class ContrastivePair(Format):
    """`{"anchor": ..., "positive": ...}`: two texts that belong together, such as a question and the passage where it
    is explained. The positives of the other rows of a step are what does not belong to the anchor.
    """

    name: ClassVar[str] = "contrastive_pair"
    rows: ClassVar[str] = "pairs of anchor and positive"
    models: ClassVar[tuple[type[Row], ...]] = (ContrastiveRow,)
    rows_per_example: ClassVar[int | None] = 2


@FORMATS.register
class ContrastiveTriplet(Format):
    """`{"anchor": ..., "positive": ..., "negative": ...}`: the same with a text that does not belong to the anchor
    though it looks like it (a hard negative). Every row of the file has one.
    """

    name: ClassVar[str] = "contrastive_triplet"
    rows: ClassVar[str] = "triplets of anchor, positive and negative"
    models: ClassVar[tuple[type[Row], ...]] = (TripletRow,)
    rows_per_example: ClassVar[int | None] = 3
