"""Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685), without tensors. Those are in `workers.tunings.lora`."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from service.domain.errors import InvalidRequest
from service.recipes.base import Base, EngineKind
from service.recipes.fields import Integer, Number, Whole
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS, BaseSize, LoraForm, TuningSettings


def _module(name: str) -> str:
    """PEFT and vLLM read the keys of both tables as patterns: these letters leave nothing to interpret."""
    if len(name) > 255 or re.fullmatch(r"\w+(\.\w+)*", name, re.ASCII) is None:
        raise PydanticCustomError("module_name", "has a key that is no name of a layer")
    return name


Module = Annotated[str, AfterValidator(_module)]
Rank = Annotated[Integer, Field(ge=1, le=512), Whole]


@TUNINGS.register_default
class LoraSettings(TuningSettings):
    """Low-rank adaptation (Hu et al., 2021, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)): beside the frozen
    matrix W of a linear layer come two small ones, y = W x + (alpha / r) B A dropout(x). B begins at zero, so the first
    step starts from the base's own answers. The first choice for most jobs. `use_dora` learns the magnitude of each
    output beside its direction (DoRA; Liu et al., 2024, [arXiv 2402.09353](https://arxiv.org/abs/2402.09353)): closer
    to full fine-tuning at low ranks, slower, and served by the embedded engine or as a LoRA. `use_rslora` divides alpha
    by sqrt(r) (rsLoRA; Kalajdzievski, 2023, [arXiv 2312.03732](https://arxiv.org/abs/2312.03732)), so that a high rank
    learns as fast as a low one: for ranks of 64 and more. `init: pissa` starts from the layer's r largest singular
    values (PiSSA; Meng et al., 2024, [arXiv 2404.02948](https://arxiv.org/abs/2404.02948)) as a difference that leaves
    W itself as it is, y = W x + (alpha / r) (B A - B0 A0) x: it learns faster at first, and its artifact is an ordinary
    adapter of rank 2 r, which engines must be able to serve.
    """

    name: ClassVar[str] = "lora"
    peft_type: ClassVar[str] = "LORA"
    merges: ClassVar[bool] = True
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded", "vllm"})
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder", "encoder-decoder"})
    lora_form: ClassVar[LoraForm] = "exact"
    changeable: ClassVar[frozenset[str]] = frozenset({"dropout"})

    r: Annotated[Integer, Whole] = Field(16, ge=1, le=512, description="rank of A and B")
    alpha: Number = Field(32, gt=0, description="scale of the update, divided by `r`")
    dropout: Number = Field(0.0, ge=0, lt=1, description="share of a layer's inputs that a training step leaves out")
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1, max_length=512)] = Field(
        "all-linear",
        description="which linear layers, by the last part of their name; the output layer is none of them",
    )
    use_dora: bool = Field(False, strict=True, description="whether outputs have learned magnitudes (DoRA)")
    use_rslora: bool = Field(False, strict=True, description="whether alpha is divided by sqrt(r), not r (rsLoRA)")
    init: Literal["default", "gaussian", "pissa"] = Field(
        "default",
        description="where A begins: uniform random numbers, normal ones of variance 1 / r^2, or the layer's own "
        "principal part (PiSSA); B begins at zero, PiSSA's difference as well",
    )
    rank_pattern: dict[Module, Rank] = Field(
        {}, max_length=64, description="other ranks for some layers, by the last parts of their names"
    )
    alpha_pattern: dict[Module, Annotated[Number, Field(gt=0)]] = Field(
        {}, max_length=64, description="other values of alpha for some layers, by the last parts of their names"
    )

    @property
    def lora_rank(self) -> int | None:
        """The saved adapter's highest; None with DoRA, whose change of the weights has every rank."""
        return None if self.use_dora else self.highest_rank * self.saved_ranks

    @property
    def highest_rank(self) -> int:
        """Of all layers, as it was asked for."""
        return max(self.r, *self.rank_pattern.values()) if self.rank_pattern else self.r

    @property
    def saved_ranks(self) -> int:
        """How many times the ranks that were asked for the saved adapter has: PiSSA's difference keeps its start."""
        return 2 if self.init == "pissa" else 1

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """5e-4 at a hidden size of 2000, falling with it to the power of 0.781.

        Thinking Machines, "LoRA without regret" (2025), and the rule in their cookbook: ten times the rate of full
        fine-tuning (5e-5), whatever the rank; the exponent is their fit for Llama.
        """
        return size.scaled(5e-4)

    def check_tunable(self, base: Base) -> None:
        if self.init == "pissa" and base.quantization:
            raise InvalidRequest(
                f"PiSSA starts from the base's own weights, which '{base.id}' has in 4 bits ({base.quantization}); "
                "leave init out.",
                param="tuning.lora.init",
            )

    def check_servable(self, base: Base) -> None:
        if self.use_dora and base.serving.engine == "vllm":
            raise InvalidRequest(
                f"The engines of '{base.id}' are vLLM, which does not serve DoRA; leave use_dora out, or "
                "give serve_as 'lora'.",
                param="tuning.lora.use_dora",
            )
        highest = self.highest_rank
        if highest * self.saved_ranks > base.serving.max_rank:
            doubled = f", which PiSSA's difference saves as {2 * highest}" if self.saved_ranks > 1 else ""
            raise InvalidRequest(
                f"The engines of '{base.id}' serve LoRA up to rank {base.serving.max_rank}; the job asks for "
                f"{highest}{doubled}. Give a serve_rank of at most {base.serving.max_rank} to train at {highest} and "
                "serve less, or a smaller rank.",
                param="tuning.lora.r" if highest == self.r else "tuning.lora.rank_pattern",
            )
