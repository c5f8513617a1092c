"""LoReFT (Wu et al., 2024, arXiv 2404.03592), without tensors. Those are in `workers.tunings.loreft`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from service.recipes.base import EngineKind
from service.recipes.fields import Integer, Whole
from service.recipes.tuning import TUNINGS, BaseSize, TuningSettings

Layer = Annotated[int, Field(strict=True, ge=0, le=1023), Whole]


@TUNINGS.register
class LoreftSettings(TuningSettings):
    """Low-rank representation finetuning (Wu et al., 2024, [arXiv 2404.03592](https://arxiv.org/abs/2404.03592)): no
    weight changes; instead the states h after chosen blocks are edited in a subspace of `r` dimensions,
    h + R^T (W h + b - R h), where R has orthonormal rows. Only the first and the last positions of the prompt are
    edited, with the same R, W and b; generated tokens are left alone and feel the edit through the cache, so generating
    costs what the base costs. W begins as R and b at zero, so the first step starts from the base's own answers. Few
    parameters; for prompts that all ask for the same kind of answer. A conversation with several trained turns becomes
    a row for each, whose prompt is all before the turn, as an engine gets it; plain text has no prompt, and is refused.
    """

    name: ClassVar[str] = "loreft"
    peft_type: ClassVar[str] = "LUTHIER_LOREFT"
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    edits_prompts: ClassVar[bool] = True
    no_lora_form: ClassVar[str] = "it edits states at some positions of the prompt, and changes no weights"

    r: Annotated[Integer, Whole] = Field(8, ge=1, le=512, description="dimensions of the edited subspace")
    first: Annotated[Integer, Whole] = Field(7, ge=0, le=1024, description="how many positions at the prompt's start")
    last: Annotated[Integer, Whole] = Field(7, ge=0, le=1024, description="how many positions at the prompt's end")
    layers: Literal["all"] | Annotated[list[Layer], Field(min_length=1, max_length=1024)] = Field(
        "all", description="after which blocks, counted from 0"
    )

    @model_validator(mode="after")
    def _edits_something(self) -> "LoreftSettings":
        if self.first + self.last == 0:
            raise ValueError("'first' and 'last' are both 0, so nothing would be edited")
        return self

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """9e-4 whatever the size: the authors' choice for LLaMA 7B and 13B.

        An edit is as long as the states that it moves, not as the weights.
        """
        return 9e-4
