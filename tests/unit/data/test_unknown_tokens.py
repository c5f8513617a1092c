"""A tokenizer may have tokens that the weights do not know: none of them reaches a device."""

import json
from pathlib import Path

import httpx
import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoTokenizer

from service.recipes.base import Base
from service.recipes.objectives.supervised import SupervisedSettings
from tests.given.engines import calling, make_engine
from tests.given.tiny_models import STRANGE, VOCABULARY, add_unknown_token, make_tiny_base
from workers.data.base_text import BaseText
from workers.data.check import DatasetInvalid, check_file
from workers.model.load import LoadedBase, load_base, load_text

PLAIN = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """A base whose tokenizer was given two tokens more than its weights were."""
    base = make_tiny_base(tmp_path / "base")
    add_unknown_token(Path(base.source))
    tokenizer = AutoTokenizer.from_pretrained(base.source)
    tokenizer.add_tokens(["<pad>"])
    tokenizer.pad_token = "<pad>"
    tokenizer.save_pretrained(base.source)
    return base


@pytest.fixture
def loaded(base: Base) -> LoadedBase:
    return load_base(base, torch.device("cpu"))


def check(text: BaseText, *rows: object) -> list[dict[str, object]]:
    lines = [json.dumps(row).encode() for row in rows]
    limits = {"context_tokens": 256, "row_limit_bytes": 10_000, "examples_minimum": 1}
    with pytest.raises(DatasetInvalid) as caught:
        check_file(lines, text, **limits, param="training_file", file_id="file-1", objective=SupervisedSettings)
    assert caught.value.error.code == "invalid_training_file"
    problems: list[dict[str, object]] = caught.value.details["problems"]
    return problems


def test_a_base_says_when_it_is_loaded_how_many_tokens_its_weights_do_not_know(base: Base) -> None:
    with capture_logs() as logs:
        loaded = load_base(base, torch.device("cpu"))
    (warning,) = [entry for entry in logs if entry["event"] == "base.unknown_tokens"]
    assert (warning["base"], warning["count"], warning["first"]) == ("tiny", 2, VOCABULARY)
    assert loaded.text.unknown_ids == (VOCABULARY, VOCABULARY + 1)
    assert loaded.pad_id == 0
    without_weights = load_text(base)
    assert (without_weights.end_ids, without_weights.num_embeddings) == (loaded.text.end_ids, VOCABULARY)


def test_a_row_that_holds_one_is_an_error_with_its_line_and_field(base: Base) -> None:
    text = load_text(base)
    said = {"messages": [PLAIN["messages"][0], {"role": "assistant", "content": f"Say {STRANGE}."}]}
    asked = {"messages": [{"role": "user", "content": f"What is {STRANGE}?"}, PLAIN["messages"][1]]}
    reason = (
        f"contains '{STRANGE}', token {VOCABULARY} of the base's tokenizer, but the base's weights have embeddings "
        f"only for tokens below {VOCABULARY}; remove this text"
    )
    assert check(text, PLAIN, said, asked) == [
        {"line": 2, "field": "messages[1].content", "reason": reason},
        {"line": 3, "field": "messages[0].content", "reason": reason},
    ]
    assert check(text, {"prompt": "x", "completion": STRANGE})[0]["field"] == "completion"
    assert check(text, {"prompt": STRANGE, "completion": "x"})[0]["field"] == "prompt"


async def test_a_request_that_holds_one_is_refused(base: Base, loaded: LoadedBase, tmp_path: Path) -> None:
    async with calling(make_engine(base, loaded, tmp_path)) as client:
        messages = [{"role": "user", "content": f"What is {STRANGE}?"}]
        for path, body, param in (
            ("/v1/chat/completions", {"messages": messages}, "messages[0].content"),
            ("/v1/completions", {"prompt": STRANGE}, "prompt"),
            ("/v1/completions", {"prompt": [1, VOCABULARY]}, "prompt"),
        ):
            answer = await _post(client, path, body)
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["param"] == param
            assert str(VOCABULARY) in answer.json()["error"]["message"]
        assert (await _post(client, "/v1/completions", {"prompt": "Hello"})).status_code == 200


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, object]) -> httpx.Response:
    return await client.post(path, json={"model": "tiny", "max_tokens": 2} | body)
