"""Every tuning keeps the same promises: nothing moves but its own, and what is saved comes back."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import AutoModelForCausalLM

from service.domain.errors import JobError
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.tuning import tuning_of
from tests.given.tiny_models import VOCABULARY, make_tiny_base, random_rows, rows_of
from tests.given.tuned import tuned_logits
from tests.given.tunings import ELSEWHERE, KINDS, NEAR, spec
from workers.data.batches import collate
from workers.data.tokenized import TokenizedDataset
from workers.model.load import LoadedBase, load_base, weights_digest
from workers.objectives import create_objective
from workers.trainer.process.optimizer import JobOptimizer
from workers.trainer.process.passes import Passes
from workers.tunings import AdapterMismatch, Tuning, create_tuning, open_tuning
from workers.tunings.sites import Site

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LEARNING_RATE = {
    "full": 5e-3,
    "ia3": 2e-1,
    "loreft": 5e-2,
    "miss": 5e-3,
    "prefix": 5e-2,
    "prompt": 5e-2,
    "vera": 5e-2,
}  # of eight rows and 150 steps
LEARNT = {"loreft": 0.5}  # it edits prompts only; who cannot distinguish these rows has at least log 2 = 0.69
OF_PEFT = [kind for kind, one in KINDS.items() if not tuning_of(one).peft_type.startswith("LUTHIER_")]
every_tuning = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("base")
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedBase:
    return load_base(make_tiny_base(folder), CPU)


@pytest.fixture
def base(loaded: LoadedBase) -> Iterator[LoadedBase]:
    """The base; no test leaves a trace in it."""
    yield loaded
    assert weights_digest(loaded.model) == loaded.hashes["weights"]
    assert not any(isinstance(module, Site | BaseTunerLayer) for module in loaded.model.modules())


def attach(base: LoadedBase, kind: str, name: str = "one", seed: int = 0) -> Tuning:
    tuning = create_tuning(tuning_of(KINDS[kind]), base.model, name)
    torch.manual_seed(seed)
    tuning.attach()
    return tuning


def logits(base: LoadedBase, tuning: Tuning | None = None) -> Tensor:
    """logits_BTV of three fixed rows, at the places of their tokens."""
    batch = collate(random_rows(3), range(3), base.pad_id)
    with torch.no_grad():
        if tuning is None:
            output: Tensor = base.model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits
            return output
        tuning.activate()
        output = tuned_logits(tuning, batch.input_ids_BT, batch.attention_mask_BT)
        tuning.deactivate()
        return output


def eight_rows() -> TokenizedDataset:
    """Random questions; the answers are one word or another, so that the rows must be told apart."""
    questions = np.random.RandomState(0).randint(6, VOCABULARY, (8, 4)).tolist()
    return rows_of([question + [70 + place % 2] * 4 for place, question in enumerate(questions)])


def train(base: LoadedBase, tuning: Tuning, kind: str, num_steps: int, enough: float = 0.0) -> list[float]:
    """The loss at each step of training on eight rows, which ends with the first loss below `enough`."""
    because = tuning_of(KINDS[kind]).unpacked_because
    passes = Passes(base, tuning, create_objective(SupervisedSettings()), because)
    optimizer = JobOptimizer(tuning.parameters(), LEARNING_RATE.get(kind, 2e-2))
    rows = eight_rows()
    losses = []
    tuning.activate()
    for step in range(num_steps):
        losses.append(passes.train(rows, range(8)).read()[0].loss)
        if losses[-1] < enough:
            break
        optimizer.clip()
        optimizer.step(step + 1, num_steps)
    tuning.deactivate()
    return losses


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - ELSEWHERE))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_changes_nothing_at_initialisation(kind: str, dtype: str, tmp_path: Path) -> None:
    base = load_base(make_tiny_base(tmp_path / "base", dtype=dtype), CPU)
    before = logits(base)
    tuning = attach(base, kind)
    assert float((logits(base, tuning) - before).abs().max()) <= NEAR.get(kind, 0.0)
    tuning.detach()


def test_prompt_begins_with_embeddings_of_the_vocabulary(base: LoadedBase) -> None:
    before = logits(base)
    tuning = attach(base, "prompt")
    (prompt_PH,) = tuning.parameters().values()
    embeddings_VH = base.model.get_input_embeddings().weight
    assert all(any(torch.equal(vector, row) for row in embeddings_VH) for vector in prompt_PH)
    assert not torch.equal(logits(base, tuning), before)  # by design: virtual tokens stand before the input
    tuning.detach()


@every_tuning
def test_an_inactive_tuning_changes_nothing(base: LoadedBase, kind: str) -> None:
    before = logits(base)
    tuning = attach(base, kind)
    train(base, tuning, kind, 3)
    assert torch.equal(logits(base), before)
    tuning.detach()
    assert torch.equal(logits(base), before)


@every_tuning
def test_only_its_parameters_move(base: LoadedBase, kind: str) -> None:
    tuning = attach(base, kind)
    neighbour = attach(base, "lora", name="neighbour")
    foreign = {name: value.clone() for name, value in neighbour.parameters().items()}
    before = {name: value.detach().clone() for name, value in tuning.parameters().items()}
    train(base, tuning, kind, 3)
    assert all(not torch.equal(value, before[name]) for name, value in tuning.parameters().items())
    assert all(torch.equal(value, foreign[name]) for name, value in neighbour.parameters().items())
    tuning.detach()
    neighbour.detach()


@every_tuning
def test_it_overfits_eight_rows(base: LoadedBase, kind: str) -> None:
    tuning = attach(base, kind)
    learnt = LEARNT.get(kind, 0.25)
    losses = train(base, tuning, kind, 150, enough=learnt)
    assert losses[0] > 5
    assert losses[-1] < learnt
    tuning.detach()


@every_tuning
def test_saved_and_loaded_it_gives_the_same_logits(base: LoadedBase, kind: str, tmp_path: Path) -> None:
    tuning = attach(base, kind)
    train(base, tuning, kind, 3)
    expected = logits(base, tuning)
    tuning.save(tmp_path, base.public_source)
    tuning.detach()
    again = open_tuning(tmp_path, base.model, "again")
    assert torch.equal(logits(base, again), expected)
    again.detach()


@pytest.mark.parametrize("kind", OF_PEFT)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT's own call
def test_peft_reads_the_folder_and_gives_the_same_logits(
    base: LoadedBase, folder: Path, kind: str, tmp_path: Path
) -> None:
    tuning = attach(base, kind)
    train(base, tuning, kind, 3)
    expected = logits(base, tuning)
    tuning.save(tmp_path, base.public_source)
    tuning.detach()
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tmp_path)
    batch = collate(random_rows(3), range(3), base.pad_id)
    with torch.no_grad():
        output = theirs(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits
    assert torch.equal(output[:, -expected.shape[1] :], expected)


@every_tuning
def test_the_files_name_the_base_without_its_path_and_are_readable(
    base: LoadedBase, folder: Path, kind: str, tmp_path: Path
) -> None:
    tuning = attach(base, kind)
    tuning.save(tmp_path, base.public_source)
    tuning.detach()
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == folder.name
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


@every_tuning
def test_its_own_weights_are_float32_over_a_bfloat16_base(kind: str, tmp_path: Path) -> None:
    base = load_base(make_tiny_base(tmp_path / "base", dtype="bfloat16"), CPU)
    tuning = attach(base, kind)
    assert {value.dtype for value in tuning.parameters().values()} == {torch.float32}
    losses = train(base, tuning, kind, 10)
    assert losses[-1] < losses[0]
    tuning.detach()


def test_another_shape_is_refused_whole(base: LoadedBase, tmp_path: Path) -> None:
    tuning = attach(base, "lora")
    tuning.save(tmp_path, base.public_source)
    tuning.detach()
    other = create_tuning(tuning_of(spec("lora", r=8)), base.model, "other")
    other.attach()
    with pytest.raises(AdapterMismatch, match="shape"):
        other.load(tmp_path)
    other.detach()


def test_a_module_that_the_base_lacks_is_the_jobs_error(base: LoadedBase) -> None:
    with pytest.raises(JobError, match="no query; choose from: down_proj, gate_proj") as raised:
        create_tuning(tuning_of(spec("lora", target_modules=["q_proj", "query"])), base.model, "one").attach()
    assert raised.value.param == "tuning.lora.target_modules"


def test_several_loras_of_different_modules_live_in_one_base(base: LoadedBase) -> None:
    alone = attach(base, "lora", seed=1)
    train(base, alone, "lora", 3)
    expected = logits(base, alone)
    alone.detach()
    narrow = create_tuning(tuning_of(spec("lora", r=2, target_modules=["v_proj"])), base.model, "narrow")
    narrow.attach()
    beside = attach(base, "lora", name="beside", seed=1)
    train(base, narrow, "lora", 3)
    train(base, beside, "lora", 3)
    narrow.detach()
    assert torch.equal(logits(base, beside), expected)
    beside.detach()
