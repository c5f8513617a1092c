"""VeRA (Kopiczko et al., 2023, arXiv 2310.11454), without tensors. Those are in `workers.tunings.vera`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from service.recipes.base import EngineKind
from service.recipes.fields import Integer, Number, Whole
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS, BaseSize, LoraForm, TuningSettings


@TUNINGS.register
class VeraSettings(TuningSettings):
    """Vector-based random matrix adaptation (VeRA; Kopiczko et al., 2023,
    [arXiv 2310.11454](https://arxiv.org/abs/2310.11454)): as `lora`, but A and B are random, frozen, and the same for
    all layers; each layer learns two vectors, y = W x + b * B (d * A dropout(x)). b begins at zero, so the first step
    starts from the base's own answers. A tenth of LoRA's trained parameters and less. The artifact holds A and B too:
    their numbers must be the same wherever it is loaded. Jobs of one base and seed share them in memory.
    """

    name: ClassVar[str] = "vera"
    peft_type: ClassVar[str] = "VERA"
    merges: ClassVar[bool] = True
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder", "encoder-decoder"})
    lora_form: ClassVar[LoraForm] = "exact"
    changeable: ClassVar[frozenset[str]] = frozenset({"dropout"})

    r: Annotated[Integer, Whole] = Field(256, ge=1, le=4096, description="rank of A and B")
    dropout: Number = Field(0.0, ge=0, lt=1, description="share of a layer's inputs that a training step leaves out")
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1, max_length=32)] = Field(
        "all-linear",
        description="which linear layers, by the last part of their name; the output layer is none of them",
    )
    d_initial: Number = Field(0.1, gt=0, le=1, description="where d begins")
    projection_seed: Annotated[Integer, Whole] = Field(0, ge=0, le=65535, description="the seed of A and B")

    @property
    def lora_rank(self) -> int:
        return self.r

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """4e-3 whatever the size: the paper's rate for Llama of 7 and 13 billion parameters, ten times its LoRA's.

        The vectors scale the outputs of random matrices that are normed to their width, so the rate does not follow
        the hidden size.
        """
        return 4e-3
