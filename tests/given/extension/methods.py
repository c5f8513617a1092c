"""A made-up tuning and a made-up objective without tensors: `LUTHIER_EXTENSIONS=tests.given.extension.methods`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from service.recipes.base import EngineKind
from service.recipes.fields import Auto, AutoRule, Integer, Number, Whole
from service.recipes.format import Format
from service.recipes.formats.chat import Chat
from service.recipes.objective import OBJECTIVES, ObjectiveSettings
from service.recipes.tuning import TUNINGS, BaseSize, TuningSettings

TENSORS = "tests.given.extension.tensors"


@TUNINGS.register
class GreetingSettings(TuningSettings):
    """Made up for a test: learned words before the input, all of which begin as the mean of the vocabulary."""

    name: ClassVar[str] = "greeting"
    peft_type: ClassVar[str] = "GREETING"
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    changeable: ClassVar[frozenset[str]] = frozenset()
    module: ClassVar[str] = TENSORS

    num_words: Annotated[Integer, Whole] = Field(4, ge=1, le=16, description="how many words are learned")

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """Falls with the hidden size, so that a test sees that the size is known."""
        return 4.0 / size.hidden_size

    @property
    def prefix_tokens(self) -> int:
        return self.num_words


@OBJECTIVES.register
class SmoothedSettings(ObjectiveSettings):
    """Made up for a test: cross entropy with smoothed labels (Szegedy et al., 2016), of chat rows only."""

    name: ClassVar[str] = "smoothed"
    formats: ClassVar[tuple[type[Format], ...]] = (Chat,)
    auto: ClassVar[Mapping[str, AutoRule]] = {"epsilon": AutoRule("0.1", lambda num_examples: 0.1)}
    columns: ClassVar[Mapping[str, str]] = {"step": "step", "train_loss": "train_loss", "sureness": "train_sureness"}
    metrics: ClassVar[tuple[str, ...]] = ("sureness",)
    module: ClassVar[str] = TENSORS

    epsilon: Auto | Annotated[Number, Field(ge=0, lt=1)] = Field(
        "auto", description="the share of probability that goes to the other tokens"
    )
