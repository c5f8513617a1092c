"""Whether and how a model can be served as a LoRA is known, and resolved, before its job is created."""

import pytest

from service.domain.errors import InvalidRequest
from service.recipes.base import Base, Serving
from service.recipes.served_form import AskedForm, ServedForm, form_of, resolved_form
from service.recipes.tuning import TuningSettings, check_servable
from service.recipes.tunings.bottleneck import BottleneckSettings
from service.recipes.tunings.full import FullSettings
from service.recipes.tunings.lora import LoraSettings
from service.recipes.tunings.loreft import LoreftSettings
from service.recipes.tunings.miss import MissSettings
from service.recipes.tunings.partial import PartialSettings
from service.recipes.tunings.prefix import PrefixSettings
from service.recipes.tunings.prompt import PromptSettings
from service.recipes.tunings.vera import VeraSettings

VLLM = Base(
    id="b", source="s", context_tokens=64, serving=Serving(engine="vllm", tunings=frozenset({"lora"}), max_rank=16)
)
LORA = AskedForm("lora")


def rank(tuning: TuningSettings, asked: AskedForm, parent: ServedForm | None = None) -> int:
    form = resolved_form(VLLM, tuning, asked, parent)
    assert form is not None
    assert form_of({"type": tuning.name, tuning.name: {}, **form.stored()}) == form
    return form.serve_rank


def test_the_rank_is_what_computes_the_same_or_what_engines_serve() -> None:
    assert rank(MissSettings(r=8), LORA) == 8
    assert rank(MissSettings(r=8), AskedForm(serve_rank=16)) == 8  # a rank alone asks for a LoRA
    assert rank(VeraSettings(), AskedForm(serve_rank=16)) == 16
    assert rank(FullSettings(), LORA) == 16
    assert rank(LoraSettings(r=64), AskedForm("lora", 16)) == 16
    assert rank(LoraSettings(use_dora=True), LORA) == 16
    assert rank(LoraSettings(r=16, init="pissa"), AskedForm(serve_rank=16)) == 16  # 32 of its own
    assert resolved_form(VLLM, LoraSettings(), None) is None and form_of(LoraSettings().stored()) is None


def test_a_model_that_is_continued_is_served_as_before_unless_asked_otherwise() -> None:
    parent = ServedForm(serve_rank=8, serve_min_share=0.5)
    assert resolved_form(VLLM, FullSettings(), None, parent) == parent
    assert resolved_form(VLLM, FullSettings(), AskedForm(serve_rank=4), parent) == ServedForm(
        serve_rank=4, serve_min_share=0.5
    )


@pytest.mark.parametrize(
    ("tuning", "asked", "param", "why"),
    [
        (PrefixSettings(), LORA, "tuning.serve_as", "put before the prompt"),
        (PromptSettings(), LORA, "tuning.serve_as", "are inputs"),
        (LoreftSettings(), LORA, "tuning.serve_as", "edits states"),
        (BottleneckSettings(), LORA, "tuning.serve_as", "not linear"),
        (PartialSettings(parameters="biases"), LORA, "tuning.serve_as", "Biases"),
        (VeraSettings(), LORA, "tuning.serve_rank", "computes the same has rank 256. Give a serve_rank of at most 16"),
        (FullSettings(), AskedForm("lora", 32), "tuning.serve_rank", "asks for rank 32"),
        (LoraSettings(), AskedForm(serve_min_share=0.5), "tuning.serve_min_share", "serve_as or serve_rank"),
    ],
)
def test_what_cannot_be_served_so_is_refused_with_the_reason(
    tuning: TuningSettings, asked: AskedForm, param: str, why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        resolved_form(VLLM, tuning, asked)
    assert refused.value.param == param


def test_a_refused_tuning_is_told_of_the_form_that_is_served() -> None:
    for tuning, told in ((MissSettings(), True), (PrefixSettings(), False)):
        with pytest.raises(InvalidRequest, match="use one of: lora") as refused:
            check_servable(VLLM, tuning)
        assert ("serve_as 'lora'" in refused.value.message) == told
    prompts = VLLM.model_copy(update={"serving": Serving(tunings=frozenset({"prompt"}))})
    with pytest.raises(InvalidRequest, match="do not serve 'lora'"):
        resolved_form(prompts, MissSettings(), LORA)
