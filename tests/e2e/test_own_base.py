"""A stranger's own folder, by the README's section alone: added, checked, tuned in three ways, and called."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from service.recipes.catalogue import read_catalogue
from service.settings.settings import Settings
from tests.given.cloned import clone
from tests.given.forked_process import forking_environment
from tests.given.running_service import ROOT, RunningService
from tests.given.tiny_models import CONTEXT_TOKENS, VOCABULARY
from workers.toy_base.tokenizer import save_tokenizer, train_tokenizer

pytestmark = pytest.mark.slow
SECONDS = 300
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # two of so small a model wait for each other, spinning
FENCE = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = "## My own model"
STRANGERS = "./my-model"


def make_qwen3(folder: Path) -> None:
    """As its owner downloaded it: configuration, weights, tokenizer with chat template, the page with the licence."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    save_tokenizer(train_tokenizer([], VOCABULARY), folder, CONTEXT_TOKENS)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")


def test_a_strangers_folder_is_added_tuned_in_three_ways_and_called(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = FENCE.findall(readme[readme.index(SECTION) :].partition("\n## ")[0])
    (added,) = (line.partition(" #")[0] for block in blocks for line in block.splitlines() if STRANGERS in line)
    (tuned,) = (block for block in blocks if "for tuning in" in block)
    (field,) = (line for line in readme.splitlines() if line.startswith("field() "))

    folder = clone(tmp_path)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    make_qwen3(folder / STRANGERS)
    service = RunningService(folder / "data")
    inherited = forking_environment().items()
    others = {name: value for name, value in inherited if not name.startswith(("LUTHIER_", "OPENAI_"))}

    def run(script: str, **told: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder, env=others | ONE_THREAD | told, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run(added)
    assert "licence: apache-2.0" in said
    assert all(f"{tuning}: one step trains" in said for tuning in ("lora", "ia3", "bottleneck"))
    catalogue = read_catalogue(Settings(data_dir=service.folder).catalogue)
    assert list(catalogue.bases) == ["luthier-tiny", "my-model"]
    own = catalogue.bases["my-model"]
    assert (own.source, own.context_tokens) == (str((folder / STRANGERS).resolve()), CONTEXT_TOKENS)
    shipped = read_catalogue(ROOT / "service" / "bases.toml").bases["luthier-tiny"]
    assert catalogue.bases["luthier-tiny"].learning_rate == shipped.learning_rate

    try:
        service.start()
        run(f"{field}\n{tuned}", LUTHIER_URL=f"{service.url}/v1", LUTHIER_API_KEY=service.key)
        jobs = list(service.client().fine_tuning.jobs.list())
    except BaseException:
        print(service.log[-8000:])  # noqa: T201
        raise
    finally:
        service.end()
    assert [job.tuning["type"] for job in reversed(jobs)] == ["lora", "ia3", "bottleneck"]  # type: ignore[attr-defined]
    assert all(job.status == "succeeded" and (job.fine_tuned_model or "").startswith("ft:my-model:") for job in jobs)

    assert "in 4 bits (nf4)" in run(f"{added} --quantization nf4 --no-check")  # it is tried in test_trial
    packed = read_catalogue(Settings(data_dir=service.folder).catalogue).bases["my-model-nf4"]
    assert packed.quantization == "nf4" and packed.serving.tunings == own.serving.tunings - {"full", "partial"}
