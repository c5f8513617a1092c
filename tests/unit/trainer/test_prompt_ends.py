"""A tuning that edits prompts is trained at the positions that an engine edits, whatever the rows are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from service.recipes.objective import find_objective
from service.recipes.objectives.reward_model import RewardModelSettings
from service.recipes.objectives.supervised import SupervisedSettings
from tests.given.engines import CPU, logits_of, save_adapter
from tests.given.journey import pairs
from tests.given.tiny_models import make_tiny_base
from workers.data.check import check_file
from workers.data.render import encode_chat
from workers.data.template import ChatTemplate
from workers.data.tokenized import TokenizedDataset
from workers.model.load import LoadedBase, load_base
from workers.objectives import HeadObjective, create_objective
from workers.trainer.process.passes import Passes
from workers.tunings import open_tuning

LOREFT: dict[str, Any] = {"type": "loreft", "loreft": {"r": 4, "first": 3, "last": 3}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), CPU)


def conversation(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"{number}?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "And the next?"},
        {"role": "assistant", "content": f"Two {number}."},
    ]


def dataset(base: LoadedBase, lines: list[bytes], objective: str) -> TokenizedDataset:
    return check_file(
        lines, base.text, context_tokens=256, row_limit_bytes=10_000, examples_minimum=1, param="training_file",
        file_id="file-1", objective=find_objective(objective), turns_apart=True,
    )  # fmt: skip


def test_each_trained_turn_is_computed_after_the_prompt_that_an_engine_gets(base: LoadedBase, tmp_path: Path) -> None:
    conversations = [conversation(number) for number in range(3)]
    rows = dataset(base, [json.dumps({"messages": one}).encode() for one in conversations], "supervised")
    folder = save_adapter(base, tmp_path / "a", 1, LOREFT)
    tuning = open_tuning(folder, base.model, "tried")
    passes = Passes(base, tuning, create_objective(SupervisedSettings()))
    tuning.activate()
    measured = passes.measure(rows, range(rows.num_examples)).loss
    tuning.detach()
    template, total, count = ChatTemplate(base.text), 0.0, 0
    turns = [messages[:end] for messages in conversations for end in (1, 3)]
    assert len(rows) == len(turns)
    for row, asked in enumerate(turns):
        ids, prompt = rows.row(row)[0].tolist(), encode_chat(template, asked)
        assert ids[: len(prompt)] == prompt
        logprobs_TV = logits_of(base, folder, ids, len(prompt)).log_softmax(-1)
        places = range(len(prompt), len(ids))
        total -= sum(float(logprobs_TV[place - 1, ids[place]]) for place in places)
        count += len(places)
    assert measured == pytest.approx(total / count, abs=1e-4)


def test_of_what_a_head_reads_the_whole_row_is_the_prompt(base: LoadedBase, tmp_path: Path) -> None:
    rows = dataset(base, pairs(4).splitlines(), "reward_model")
    objective = create_objective(RewardModelSettings())
    assert isinstance(objective, HeadObjective)
    objective.prepare(rows, base.kind)
    objective.attach(base.model.config.hidden_size, CPU)
    tuning = open_tuning(save_adapter(base, tmp_path / "a", 1, LOREFT), base.model, "tried")
    passes = Passes(base, tuning, objective)
    for parameter in objective.parameters().values():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    tuning.activate()
    measured = passes.measure(rows, range(rows.num_examples)).loss
    scores = torch.tensor(
        [passes.values(rows.row(row)[0].tolist(), objective.head, tuned=True) for row in range(len(rows))]
    )
    tuning.detach()
    margins = scores.view(-1, 2).diff(dim=1)
    assert measured == pytest.approx(float(-(-margins).sigmoid().log().mean()), abs=1e-4)
