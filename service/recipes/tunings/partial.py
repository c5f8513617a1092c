"""Fine-tuning of some of the base's weights, without tensors. Those are in `workers.tunings.partial`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from service.domain.errors import InvalidRequest
from service.recipes.base import EngineKind
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS, BaseSize, LoraForm, TuningSettings
from service.recipes.tunings.full import FullSettings

Last = Annotated[str, StringConstraints(pattern=r"^last:[1-9][0-9]{0,3}$"), Field(examples=["last:2"])]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=200)]


@TUNINGS.register
class PartialSettings(TuningSettings):
    """Some weights of the base move, in a copy of their own that shares the others with the base. `last:2` are the last
    two blocks, as guides freeze the layers below (Lee et al., 2019,
    [arXiv 1911.03090](https://arxiv.org/abs/1911.03090), who found a quarter of the layers enough for 90 % of the
    quality). `biases` are all biases (BitFit; Ben Zaken et al., 2021,
    [arXiv 2106.10199](https://arxiv.org/abs/2106.10199)), about 0.1 % of a model that has some; Llama-shaped bases have
    none. Names choose any other part. A job takes four times the size of what moves (over a bfloat16 base twelve
    times); the model holds what moves and nothing else, and an engine computes its requests in a batch of their own.
    """

    name: ClassVar[str] = "partial"
    peft_type: ClassVar[str] = "LUTHIER_PARTIAL"
    merges: ClassVar[bool] = True
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder", "encoder-decoder"})
    moves_the_base: ClassVar[bool] = True
    lora_form: ClassVar[LoraForm] = "truncated"

    parameters: Literal["biases"] | Last | Annotated[list[Name], Field(min_length=1, max_length=256)] = Field(
        "last:1",
        description="what moves: `last:n` (the last n blocks, without the norm and the output layer above them), "
        "`biases`, or parts of parameters' names, such as `layers.3.mlp`, `norm` or `lm_head`",
    )

    def check_lora_form(self) -> None:
        if self.parameters == "biases":
            raise InvalidRequest(
                "Biases cannot be served as a LoRA, which changes the weights of linear layers alone. Leave serve_as "
                "out, or choose other parameters.",
                param="tuning.serve_as",
            )

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """As `full`. Biases need more: BitFit's authors chose among 1e-4, 4e-4, 7e-4 and 1e-3 for BERT."""
        return FullSettings.default_learning_rate(size)
