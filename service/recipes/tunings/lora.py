"""Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685), without tensors. Those are in `workers.tunings.lora`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from service.domain.errors import InvalidRequest
from service.recipes.base import Base, EngineKind
from service.recipes.fields import Integer, Number, Whole
from service.recipes.tuning import TUNINGS, BaseSize, TuningSettings


@TUNINGS.register_default
class LoraSettings(TuningSettings):
    """Low-rank adaptation (Hu et al., 2021, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)): beside the frozen
    matrix W of a linear layer come two small ones, y = W x + (alpha / r) B A dropout(x). B begins at zero, so the first
    step starts from the base's own answers. The first choice for most jobs. `use_dora` learns the magnitude of each
    output beside its direction (DoRA; Liu et al., 2024, [arXiv 2402.09353](https://arxiv.org/abs/2402.09353)): closer
    to full fine-tuning at low ranks, slower, and served by the embedded engine only.
    """

    name: ClassVar[str] = "lora"
    peft_type: ClassVar[str] = "LORA"
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded", "vllm"})
    changeable: ClassVar[frozenset[str]] = frozenset({"dropout"})

    r: Annotated[Integer, Whole] = Field(16, ge=1, le=512, description="rank of A and B")
    alpha: Number = Field(32, gt=0, description="scale of the update, divided by `r`")
    dropout: Number = Field(0.0, ge=0, lt=1, description="share of a layer's inputs that a training step leaves out")
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1, max_length=32)] = Field(
        "all-linear",
        description="which linear layers, by the last part of their name; the output layer is none of them",
    )
    use_dora: bool = Field(False, strict=True, description="whether outputs have learned magnitudes (DoRA)")

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """5e-4 at a hidden size of 2000, falling with it to the power of 0.781.

        Thinking Machines, "LoRA without regret" (2025), and the rule in their cookbook: ten times the rate of full
        fine-tuning (5e-5), whatever the rank; the exponent is their fit for Llama.
        """
        return float(5e-4 * (2000 / size.hidden_size) ** 0.781)

    def check_servable(self, base: Base) -> None:
        if self.use_dora and base.serving.engine == "vllm":
            raise InvalidRequest(
                f"The engines of '{base.id}' are vLLM, which does not serve DoRA; leave use_dora out.",
                param="tuning.lora.use_dora",
            )
        if self.r > base.serving.max_rank:
            raise InvalidRequest(
                f"The engines of '{base.id}' serve LoRA up to rank {base.serving.max_rank}; the job asks for {self.r}.",
                param="tuning.lora.r",
            )
