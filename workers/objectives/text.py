"""Continued pre-training on plain text: the supervised loss, over every token of the documents' pieces.

What is trained of a piece, and that each goes through the base alone, is said by the rows (`workers.data.examples`).
"""

from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.objectives.text import TextSettings
from workers.objectives.base import OBJECTIVES
from workers.objectives.supervised import Supervised


@OBJECTIVES.of(TextSettings)
class Text(Supervised):
    """The sum of -w log p(token | tokens of the piece before) over the trained tokens."""

    def __init__(self, settings: TextSettings) -> None:
        super().__init__(SupervisedSettings())
