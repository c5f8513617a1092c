"""A method that does not fit a base is refused with one sentence, which names what does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.domain.errors import InvalidRequest
from service.recipes.base import Base, Serving
from service.recipes.catalogue import CatalogueError, read_catalogue, served_by
from service.recipes.objective import check_trainable, find_objective, resolve_auto
from service.recipes.tasks import BaseKind

ENTRY = '[[base]]\nid = "a"\nsource = "x/y"\ncontext_tokens = 64\n'


def base(kind: BaseKind = "causal", engine: str = "embedded") -> Base:
    serving = Serving.model_validate({"engine": engine, "tunings": ["lora"]})
    return Base(id="mine", kind=kind, source="nowhere/mine", context_tokens=64, serving=serving)


def refused(method: str, base: Base, **settings: Any) -> str:
    objective = find_objective(method)
    values: Mapping[str, Any] = {**objective().model_dump(), **settings}
    with pytest.raises(InvalidRequest) as error:
        check_trainable(base, objective, values)
    return error.value.message


def test_what_fits_passes() -> None:
    for kind in ("causal", "encoder"):
        check_trainable(base(kind), find_objective("classification"), {"class_weights": None, "pooling": None})
    check_trainable(base(), find_objective("supervised"), {})
    check_trainable(base("causal", "vllm"), find_objective("supervised"), {})


def test_a_method_that_writes_text_does_not_fit_an_encoder() -> None:
    assert refused("supervised", base("encoder")) == (
        "The method 'supervised' cannot train 'mine': it is an encoder, which reads a text as a whole and writes none; "
        "use 'classification' or 'embedding'."
    )
    check_trainable(base("encoder-decoder"), find_objective("supervised"), {})
    assert refused("dpo", base("encoder-decoder")).endswith("writes another; use 'supervised'.")


def test_what_has_a_head_is_for_the_embedded_engine() -> None:
    for method in ("classification", "reward_model", "embedding"):
        assert "which does not serve what the method" in refused(method, base("causal", "vllm"))


def test_the_first_token_of_a_causal_base_says_nothing() -> None:
    for method in ("classification", "embedding"):
        assert "use 'last' or 'mean'" in refused(method, base(), pooling="cls")


def test_a_step_of_one_row_has_nothing_to_be_told_from() -> None:
    assert "'batch_size' must be at least 2" in refused("embedding", base("encoder"), batch_size=1)
    for size in ("auto", 2):
        check_trainable(base("encoder"), find_objective("embedding"), {"batch_size": size})
    auto = {"batch_size": "auto", "n_epochs": "auto", "learning_rate_multiplier": "auto"}
    assert resolve_auto(find_objective("embedding"), auto, 400)["batch_size"] == 32


def test_a_catalogue_cannot_promise_what_no_engine_serves(tmp_path: Path) -> None:
    path = tmp_path / "bases.toml"
    for kind in ("encoder", "encoder-decoder"):
        text = ENTRY + f'kind = "{kind}"\nserving = {{ engine = "%s", tunings = ["%s"] }}\n'
        path.write_text(text % ("vllm", "lora"))
        with pytest.raises(CatalogueError, match=f'of the kind "{kind}", which vLLM does not serve here'):
            read_catalogue(path)
        path.write_text(text % ("embedded", "prefix"))
        with pytest.raises(CatalogueError, match=f"does not serve for a base of the kind '{kind}'"):
            read_catalogue(path)
    path.write_text(ENTRY + 'kind = "encoder-decoder"\nquantization = "nf4"\nserving = { tunings = ["lora"] }\n')
    with pytest.raises(CatalogueError, match="which is not stored in 4 bits"):
        read_catalogue(path)
    assert "lora" in served_by("embedded", "encoder")
    assert {"lora", "bottleneck", "full"} <= set(served_by("embedded", "encoder-decoder"))


def test_a_catalogue_of_an_earlier_version_calls_the_kind_a_task(tmp_path: Path) -> None:
    path = tmp_path / "bases.toml"
    path.write_text(
        '[[base]]\nid = "a"\ntask = "causal"\nsource = "x/y"\ncontext_tokens = 64\nserving = { tunings = ["lora"] }\n'
    )
    assert read_catalogue(path).bases["a"].kind == "causal"
