"""Small steps of the journey that several end-to-end tests take, through the official SDK."""

import hashlib
import json
import random
from pathlib import Path
from urllib.parse import quote

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.given.running_service import RunningService


def rows(count: int, seed: int = 0) -> bytes:
    """Chat rows whose answers can be learnt."""
    numbers = random.Random(seed)
    lines = []
    for index in range(count):
        colour = numbers.choice(["red", "blue", "green"])
        messages = [
            {"role": "user", "content": f"{index} {colour}?"},
            {"role": "assistant", "content": colour.upper()},
        ]
        lines.append(json.dumps({"messages": messages}))
    return "\n".join(lines).encode()


def pairs(count: int) -> bytes:
    """Preference rows: the same word, shouted rather than whispered."""
    lines = []
    for index in range(count):
        colour = ["red", "blue", "green"][index % 3]
        row = {
            "input": {"messages": [{"role": "user", "content": f"{index} {colour}?"}], "tools": []},
            "preferred_output": [{"role": "assistant", "content": colour.upper()}],
            "non_preferred_output": [{"role": "assistant", "content": colour}],
        }
        lines.append(json.dumps(row))
    return "\n".join(lines).encode()


def upload(client: OpenAI, content: bytes, name: str = "training.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="fine-tune").id


def create_job(
    client: OpenAI,
    file_id: str,
    *,
    model: str = "tiny",
    epochs: int = 2,
    batch: int = 4,
    tuning: str = "lora",
    **more: object,
) -> FineTuningJob:
    settings: dict[str, object] = {"lora": {"r": 4, "dropout": 0.1}, "prompt": {"num_virtual_tokens": 4}}
    return client.fine_tuning.jobs.create(
        model=model,
        training_file=file_id,
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": batch}}},
        extra_body={"tuning": {"type": tuning, tuning: settings[tuning]}},
        **more,  # type: ignore[arg-type]
    )


def artifact_folder(service: RunningService, model: str) -> Path:
    """Where embedded storage keeps the artifact of `model`."""
    return service.folder / "objects" / "adapters" / quote(model, safe="")


def weights_hash(service: RunningService, model: str | None) -> str:
    """sha256 of the adapter's weights."""
    assert model is not None
    return hashlib.sha256((artifact_folder(service, model) / "adapter_model.safetensors").read_bytes()).hexdigest()


def messages(client: OpenAI, job_id: str) -> list[str]:
    """What the events say, oldest first, metrics left out."""
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=100))
    return [event.message for event in reversed(events) if event.type == "message"]
