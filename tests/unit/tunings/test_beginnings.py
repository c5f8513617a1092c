"""Where tunings begin, what of that is kept in their files, and what is read back from them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from service.domain.errors import JobError
from service.recipes.base import Base, Serving
from service.recipes.tuning import tuning_of
from tests.given.compatibility import family
from tests.given.families import ROWS, make_family
from tests.given.recipes import recipe
from tests.given.tiny_models import make_tiny_base, random_rows
from tests.given.tuned import active_logits
from tests.given.tunings import KINDS, Spec, spec
from workers.engines.vllm.fit import check_folder
from workers.model.load import LoadedBase, environment, load_base, weights_digest
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec
from workers.tunings import AdapterMismatch, Tuning, create_tuning, open_tuning
from workers.tunings.files import CONFIG, WEIGHTS, read_config
from workers.tunings.virtual_tokens import tokenized

TEXT = "Sort the mail"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedBase]:
    loaded = load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))
    yield loaded
    assert weights_digest(loaded.model) == loaded.hashes["weights"]


def attached(base: LoadedBase, wanted: Spec, name: str = "one", seed: int = 0) -> Tuning:
    tuning = create_tuning(tokenized(tuning_of(wanted), base.tokenizer), base.model, name)
    torch.manual_seed(seed)
    tuning.attach()
    return tuning


@torch.no_grad()
def plain(base: LoadedBase, ids_BT: Tensor) -> Tensor:
    logits_BTV: Tensor = base.model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT)).logits
    return logits_BTV


@pytest.mark.parametrize("name", ["prompt", "prefix"])
@pytest.mark.parametrize("num_virtual_tokens", [3, 40])
def test_a_text_begins_as_if_it_stood_before_the_input(base: LoadedBase, name: str, num_virtual_tokens: int) -> None:
    """Cut, or repeated; PEFT's would have the tokenizer's own tokens between the repetitions."""
    tuning = attached(base, spec(name, num_virtual_tokens=num_virtual_tokens, init="text", init_text=TEXT))
    ids: list[int] = base.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    before = torch.tensor([(ids * 40)[:num_virtual_tokens]]).expand(len(ROWS), -1)
    expected = plain(base, torch.cat([before, ROWS], dim=1))[:, num_virtual_tokens:]
    assert torch.allclose(active_logits(tuning, ROWS), expected, atol=1e-4)
    tuning.detach()


def test_a_prefix_of_the_vocabulary_is_what_the_base_caches_of_tokens(base: LoadedBase) -> None:
    tuning = attached(base, spec("prefix", num_virtual_tokens=5), seed=4)
    torch.manual_seed(4)
    before = torch.randint(0, base.text.num_embeddings, (5,)).expand(len(ROWS), -1)
    expected = plain(base, torch.cat([before, ROWS], dim=1))[:, 5:]
    assert torch.allclose(active_logits(tuning, ROWS), expected, atol=1e-4)
    tuning.detach()


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_random_numbers_are_others_than_the_vocabularys(base: LoadedBase, name: str) -> None:
    numbers = []
    for init in ("random", "vocabulary"):
        tuning = attached(base, spec(name, num_virtual_tokens=4, init=init))
        numbers += list(tuning.parameters().values())
        tuning.detach()
    random, words = numbers
    assert random.shape == words.shape
    assert float(random.detach().std()) == pytest.approx(1.0, abs=0.3)  # PEFT's: normal numbers of variance 1
    assert not torch.equal(random, words)


def test_a_text_without_tokens_is_the_jobs_error() -> None:
    words = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    nothing = PreTrainedTokenizerFast(tokenizer_object=words)
    with pytest.raises(JobError, match="no tokens") as refused:
        tokenized(tuning_of(spec("prefix", init="text", init_text="  ")), nothing)
    assert refused.value.param == "tuning.prefix.init_text"


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_a_job_begins_with_its_text_and_its_file_is_read_without_a_tokenizer(
    base: LoadedBase, name: str, tmp_path: Path
) -> None:
    wanted = spec(name, num_virtual_tokens=4, init="text", init_text=TEXT)
    job = JobSpec(
        job_id=name, recipe=recipe(wanted), n_epochs=1, batch_size=2, learning_rate=1e-2, seed=3, snapshot_steps=99
    )
    slot = Slot(base, environment(base.device), job, random_rows(2), None)
    expected = attached(base, wanted)
    assert torch.equal(active_logits(slot._tuning, ROWS), active_logits(expected, ROWS))
    slot.train_step()
    slot.save_adapter(tmp_path / "adapter")
    read = open_tuning(tmp_path / "adapter", base.model, "read")
    assert torch.equal(active_logits(read, ROWS), active_logits(slot._tuning, ROWS))
    for tuning in (expected, read):
        tuning.detach()
    slot.leave()


def test_patterns_give_layers_the_ranks_and_scales_that_peft_gives(tmp_path: Path) -> None:
    patterns = {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
        "alpha_pattern": {"q_proj": 3.5, "layers.0.mlp.down_proj": 9},
    }
    tuning = create_tuning(tuning_of(spec("lora", r=4, alpha=8, **patterns)), family("llama").model, "one")
    counted = tuning.memory_bytes()
    torch.manual_seed(7)
    tuning.attach()
    assert counted == sum(parameter.nbytes for parameter in tuning.parameters().values())
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(0.1)
    tuning.save(tmp_path, "base")
    found = active_logits(tuning, ROWS)
    tuning.detach()
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", **patterns)
    torch.manual_seed(7)
    theirs = get_peft_model(make_family("llama"), config).eval()
    saved = load_file(tmp_path / WEIGHTS)
    state = get_peft_model_state_dict(theirs)
    assert saved.keys() == state.keys()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.copy_(saved[name.replace(".default", "")])
        expected = theirs(input_ids=ROWS, attention_mask=torch.ones_like(ROWS)).logits
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)  # another model's products may round otherwise


@pytest.mark.parametrize("setting", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_for_no_tuned_layer_is_the_jobs_error(setting: str) -> None:
    wanted = spec("lora", target_modules=["q_proj"], **{setting: {"q_proj": 2, "up_proj": 2}})
    with pytest.raises(JobError, match=r"None of the tuned layers is called up_proj; .*: q_proj") as refused:
        create_tuning(tuning_of(wanted), family("llama").model, "one").attach()
    assert refused.value.param == f"tuning.lora.{setting}"


def test_where_pissa_began_is_kept_and_never_moves(base: LoadedBase, tmp_path: Path) -> None:
    """Of the saved adapter, an ordinary one of twice the rank, the second half is minus the start."""
    made = recipe(spec("lora", r=4, alpha=8, init="pissa"))
    job = JobSpec(job_id="pissa", recipe=made, n_epochs=1, batch_size=2, learning_rate=1e-2, seed=3, snapshot_steps=99)
    slot = Slot(base, environment(base.device), job, random_rows(8), None)
    start = {name: one.detach().clone() for name, one in slot._tuning.parameters().items()}
    while not slot.finished:
        slot.train_step()
    slot.save_adapter(tmp_path / "adapter")
    slot.leave()
    saved = load_file(tmp_path / "adapter" / WEIGHTS)
    assert saved.keys() == start.keys()
    for name, tensor in saved.items():
        along, sign = (0, 1) if "lora_A" in name else (1, -1)
        (moving, kept), (first, second) = tensor.chunk(2, along), start[name].chunk(2, along)
        assert torch.equal(kept, second) and torch.equal(second, sign * first)
        assert not torch.equal(moving, first)
    config = read_config(tmp_path / "adapter")
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)


def test_projections_are_held_once_where_they_are_equal(base: LoadedBase, tmp_path: Path) -> None:
    def pointers(tuning: Tuning) -> list[int]:
        return [one.data_ptr() for one in tuning._projections]  # type: ignore[attr-defined]

    one, other = (attached(base, spec("vera", r=8), name, seed) for seed, name in enumerate(("one", "other")))
    apart = attached(base, spec("vera", r=8, projection_seed=5), "apart")
    assert pointers(one) == pointers(other)
    assert not set(pointers(apart)) & set(pointers(one))
    with torch.no_grad():
        for tuning in (one, other, apart):
            for parameter in tuning.parameters().values():
                parameter.add_(0.1)
    expected = active_logits(other, ROWS)
    apart.save(tmp_path, "base")
    config = tmp_path / CONFIG
    config.write_text(config.read_text().replace('"projection_prng_key": 5', '"projection_prng_key": 0'))
    read = open_tuning(tmp_path, base.model, "read")  # the file's numbers count, not those that its seed gives here
    assert torch.equal(active_logits(read, ROWS), active_logits(apart, ROWS))
    assert pointers(read) == pointers(apart)
    for tuning in (one, apart, read):
        tuning.detach()
    assert torch.equal(active_logits(other, ROWS), expected)
    other.detach()


def test_a_file_without_its_projections_does_not_fit(base: LoadedBase, tmp_path: Path) -> None:
    tuning = attached(base, spec("vera", r=8))
    tuning.save(tmp_path, "base")
    tuning.detach()
    tensors = load_file(tmp_path / WEIGHTS)
    del tensors["base_model.vera_B"]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(AdapterMismatch, match=r"no 'base_model.vera_B'; .*save_projection"):
        open_tuning(tmp_path, base.model, "again")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_is_saved_in_the_same_bytes(base: LoadedBase, kind: str, tmp_path: Path) -> None:
    folders = [tmp_path / "once", tmp_path / "twice"]
    for folder in folders:
        folder.mkdir()
    tuning = attached(base, KINDS[kind])
    tuning.save(folders[0], "base")
    tuning.detach()
    again = open_tuning(folders[0], base.model, "again")
    again.save(folders[1], "base")
    again.detach()
    assert [(folders[0] / name).read_bytes() for name in (CONFIG, WEIGHTS)] == [
        (folders[1] / name).read_bytes() for name in (CONFIG, WEIGHTS)
    ]


def test_an_adapter_of_changed_weights_does_not_fit(base: LoadedBase, tmp_path: Path) -> None:
    tuning = attached(base, spec("lora", r=4))
    tuning.save(tmp_path, "base")
    tuning.detach()
    config = tmp_path / CONFIG
    config.write_text(config.read_text().replace('"init_lora_weights": true', '"init_lora_weights": "pissa"'))
    with pytest.raises(AdapterMismatch, match="changed weights"):
        open_tuning(tmp_path, base.model, "again")


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"init": "gaussian"},
        {"init": "pissa"},
        {"rank_pattern": {"q_proj": 7}, "alpha_pattern": {"up_proj": 3.5}},
    ],
)
def test_vllm_accepts_what_it_serves(base: LoadedBase, settings: dict[str, object], tmp_path: Path) -> None:
    tuning = attached(base, spec("lora", r=4, **settings))
    tuning.save(tmp_path, "base")
    tuning.detach()
    serving = Serving(engine="vllm", tunings=frozenset({"lora"}), max_rank=8)
    check_folder(Base(id="b", source="s", context_tokens=64, serving=serving), tmp_path)
