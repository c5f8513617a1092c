"""The parts of `luthier-worker vllm` that need no vLLM: its command, its cache, what it can serve."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from service.domain.model import is_model_name, model_name
from service.recipes.base import Base, Serving
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.settings.settings import Settings
from workers.engines.vllm.fixes import known_only, masked, rows_need_fix
from workers.engines.vllm.serve import serve_command, serve_environment, serve_vllm

SERVING = Serving(engine="vllm", tunings=frozenset({"lora"}), max_rank=20, tool_call_parser="hermes")
BASE = Base(
    id="tiny", source="hub/tiny", revision="abc", context_tokens=64, learning_rate={"lora": 1e-3}, serving=SERVING
)


def words(**settings: object) -> str:
    return " ".join(serve_command(Settings.model_validate(settings), BASE, on_cpu=True, extra=["--max-num-seqs", "4"]))


def test_the_command_has_what_the_catalogue_says() -> None:
    command = words(vllm_arguments="--seed 5", engine_port=9)
    for expected in ("serve hub/tiny", "--served-model-name tiny", "--max-model-len 64", "--revision abc",
                     "--max-lora-rank 32", "--dtype float32", "--port 9", "--host 127.0.0.1",
                     "--enable-auto-tool-choice --tool-call-parser hermes", "--enforce-eager",
                     f"--generation-config {Settings(engine_port=9).vllm_dir.absolute()}/generation"):  # fmt: skip
        assert f" {expected} " in f" {command} ", expected
    assert command.endswith("--seed 5 --max-num-seqs 4") and "--quantization" not in command
    packed = serve_command(Settings(), BASE.model_copy(update={"quantization": "nf4"}), on_cpu=False)
    assert "--quantization bitsandbytes" in " ".join(packed)


def test_the_environment_is_quiet_and_loads_our_plugin_alone(tmp_path: Path) -> None:
    local = BASE.model_copy(update={"source": str(tmp_path)})
    environment = serve_environment(Settings(data_dir=tmp_path / "x"), local, True, tmp_path / "lifeline")
    assert environment["VLLM_PLUGINS"] == "luthier" and environment["DO_NOT_TRACK"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert Path(environment["LUTHIER_DATA_DIR"]).is_absolute()
    assert environment["VLLM_API_KEY"] == (tmp_path / "x" / "engine-key").read_text().strip() != ""
    assert environment["TORCHDYNAMO_DISABLE"] == "1", "it would compile with g++, at a user's first request"
    on_gpu = serve_environment(Settings(engine_api_key="off"), BASE, False, tmp_path)
    assert "TORCHDYNAMO_DISABLE" not in on_gpu and "HF_HUB_OFFLINE" not in on_gpu


def test_a_catalogue_that_vllm_cannot_serve_is_refused(tmp_path: Path) -> None:
    entry = '[[base]]\nid = "a"\nsource = "x"\ncontext_tokens = 64\nserving = {{ engine = "vllm", {} }}\n'
    for wrong, said in (('tunings = ["prompt"]', "does not serve"), ('tunings = ["lora"], max_rank = 513', "to 512")):
        (tmp_path / "bases.toml").write_text(entry.format(wrong))
        with pytest.raises(CatalogueError, match=said):
            read_catalogue(tmp_path / "bases.toml")


def test_a_missing_environment_says_what_makes_it(tmp_path: Path) -> None:
    catalogue = tmp_path / "bases.toml"
    entry = '[[base]]\nid = "{}"\nsource = "x"\ncontext_tokens = 64\nserving = {{ {}tunings = ["lora"] }}\n'
    catalogue.write_text(entry.format("a", "") + entry.format("b", 'engine = "vllm", '))
    settings = Settings(data_dir=tmp_path, catalogue=catalogue, vllm_python=tmp_path / "none")
    with pytest.raises(CatalogueError, match="not served by vLLM"):
        serve_vllm(settings)
    with pytest.raises(ValueError, match="deploy/vllm"):
        serve_vllm(settings.model_copy(update={"engine_base": "b"}))
    for script, reason in (("echo 'No module named x' >&2; exit 1", "No module named x"), ("exit 3", "exit code 3")):
        broken = tmp_path / "broken"
        broken.write_text(f"#!/bin/sh\n{script}\n")
        broken.chmod(0o700)
        with pytest.raises(ValueError, match=f"plugin is missing there: {reason}"):
            serve_vllm(settings.model_copy(update={"engine_base": "b", "vllm_python": broken}))


def test_names_are_only_those_that_we_make() -> None:
    for name in (model_name("hub/b.1", "acme", "x-y_Z", "AAAAAAAA"), model_name("b", "a", None, "AAAAAAAA", 5)):
        assert is_model_name(name)
    for name in ("", "b", "ft:b:a::short", "ft:b:a:x/y:AAAAAAAA", "ft:..:a::AAAAAAAA", "ft:b:a::AAAAAAAA\n",
                 "/ft:b:a::AAAAAAAA", "ft:b:a::AAAAAAAA:ckpt-step-x", f"ft:{'b' * 300}:a::AAAAAAAA"):  # fmt: skip
        assert not is_model_name(name), name


def test_masked_kernels_get_zeros_for_base_rows() -> None:
    seen: list[torch.Tensor] = []
    masked(lambda inputs, *rest: seen.append(inputs))(
        torch.ones(3, 2), torch.ones(1), torch.ones(1), torch.tensor([0, -1, 1]), 1.0
    )
    assert seen[0].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert (
        rows_need_fix("0.32.0+cpu", True)
        and not rows_need_fix("0.33.0+cpu", True)
        and not rows_need_fix("0.32.0", False)
    )


def test_tokens_that_only_the_tokenizer_knows_are_refused_after_vllms_own_check() -> None:
    seen: list[object] = []
    check = known_only(lambda renderer, ids, **named: seen.append((ids, named)), LookupError)
    renderer = SimpleNamespace(model_config=SimpleNamespace(get_vocab_size=lambda: 262))
    check(renderer, [0, 261], parameter="prompt")
    check(renderer, [])
    assert seen == [([0, 261], {"parameter": "prompt"}), ([], {})]
    with pytest.raises(LookupError, match=r"token 262 .* only for tokens below 262"):
        check(renderer, [5, 262, 7])
