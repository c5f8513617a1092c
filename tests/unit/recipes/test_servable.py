"""Which engines serve which settings is known before a job is created."""

import pytest

from service.domain.errors import InvalidRequest
from service.recipes.base import Base, Serving
from service.recipes.catalogue import served_by
from service.recipes.tuning import check_servable
from service.recipes.tunings.ia3 import Ia3Settings
from service.recipes.tunings.lora import LoraSettings


def base(engine: str, tunings: set[str]) -> Base:
    return Base(id="b", source="s", context_tokens=64, serving=Serving(engine=engine, tunings=frozenset(tunings)))


def test_dora_is_served_by_the_embedded_engine_only() -> None:
    check_servable(base("embedded", {"lora"}), LoraSettings(use_dora=True))
    check_servable(base("vllm", {"lora"}), LoraSettings())
    with pytest.raises(InvalidRequest, match="does not serve DoRA") as refused:
        check_servable(base("vllm", {"lora"}), LoraSettings(use_dora=True))
    assert refused.value.param == "tuning.lora.use_dora"


def test_ia3_is_served_by_the_embedded_engine_only() -> None:
    check_servable(base("embedded", {"lora", "ia3"}), Ia3Settings())
    with pytest.raises(InvalidRequest, match="cannot serve the tuning 'ia3'"):
        check_servable(base("vllm", {"lora"}), Ia3Settings())
    assert "ia3" in served_by("embedded")
    assert "ia3" not in served_by("vllm")  # so that a catalogue, too, cannot say so
