"""Which engines serve which settings is known before a job is created."""

import pytest
from pydantic import ValidationError

from service.domain.errors import InvalidRequest
from service.recipes.base import Base, Serving
from service.recipes.catalogue import served_by
from service.recipes.objective import OBJECTIVES
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.objectives.text import TextSettings
from service.recipes.recipe import check_goes_with, goes_with
from service.recipes.tuning import check_servable
from service.recipes.tunings.ia3 import Ia3Settings
from service.recipes.tunings.lora import LoraSettings
from service.recipes.tunings.loreft import LoreftSettings
from service.recipes.tunings.prompt import PromptSettings


def base(engine: str, tunings: set[str]) -> Base:
    return Base(id="b", source="s", context_tokens=64, serving=Serving(engine=engine, tunings=frozenset(tunings)))


def test_dora_is_served_by_the_embedded_engine_only() -> None:
    check_servable(base("embedded", {"lora"}), LoraSettings(use_dora=True))
    check_servable(base("vllm", {"lora"}), LoraSettings())
    with pytest.raises(InvalidRequest, match="does not serve DoRA") as refused:
        check_servable(base("vllm", {"lora"}), LoraSettings(use_dora=True))
    assert refused.value.param == "tuning.lora.use_dora"


def test_the_highest_rank_counts_patterns_and_what_pissa_saves() -> None:
    served = base("vllm", {"lora"})  # up to rank 64
    for fits in (
        LoraSettings(r=64, use_rslora=True, init="gaussian"),
        LoraSettings(r=32, init="pissa"),
        LoraSettings(r=8, rank_pattern={"q_proj": 64}, alpha_pattern={"layers.0.mlp.down_proj": 3.5}),
    ):
        check_servable(served, fits)
    for too_high, param, number in (
        (LoraSettings(r=65), "tuning.lora.r", "65"),
        (LoraSettings(r=33, init="pissa"), "tuning.lora.r", "66"),
        (LoraSettings(r=8, rank_pattern={"q_proj": 33}, init="pissa"), "tuning.lora.rank_pattern", "66"),
    ):
        with pytest.raises(InvalidRequest, match=f"up to rank 64.* {number}") as refused:
            check_servable(served, too_high)
        assert refused.value.param == param


def test_a_tuning_leaves_rows_as_much_as_the_smallest_base_has() -> None:
    served = base("embedded", {"prompt"})  # 64 tokens of context
    check_servable(served, PromptSettings(num_virtual_tokens=48))
    with pytest.raises(InvalidRequest, match="takes 49 of the 64 tokens of context of 'b'") as refused:
        check_servable(served, PromptSettings(num_virtual_tokens=49))
    assert refused.value.param == "tuning.prompt"


def test_a_tuning_that_edits_prompts_needs_rows_that_have_one() -> None:
    for objective in OBJECTIVES:
        assert goes_with(objective, LoraSettings)
        assert goes_with(objective, LoreftSettings) is (objective.name != "text")
    with pytest.raises(InvalidRequest, match="the rows of the method 'text' have none") as refused:
        check_goes_with(TextSettings, LoreftSettings())
    assert refused.value.param == "tuning.type" and "loreft," not in refused.value.message
    check_goes_with(SupervisedSettings, LoreftSettings())


def test_settings_that_contradict_each_other_or_name_no_layer_are_refused() -> None:
    for settings in ({"init": "text"}, {"init_text": "Sort the mail."}, {"init": "random", "init_text": "Sort."}):
        with pytest.raises(ValidationError, match='init "text"'):
            PromptSettings.model_validate(settings)
    for name in ("q_proj$", "(a+)+b", "", "q..proj"):
        with pytest.raises(ValidationError, match="no name of a layer"):
            LoraSettings.model_validate({"rank_pattern": {name: 4}})


def test_ia3_is_served_by_the_embedded_engine_only() -> None:
    check_servable(base("embedded", {"lora", "ia3"}), Ia3Settings())
    with pytest.raises(InvalidRequest, match="cannot serve the tuning 'ia3'"):
        check_servable(base("vllm", {"lora"}), Ia3Settings())
    assert "ia3" in served_by("embedded")
    assert "ia3" not in served_by("vllm")  # so that a catalogue, too, cannot say so
