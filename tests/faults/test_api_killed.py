"""The API killed while a client uploads 16 MB, and while it completes an upload: a file is whole or not there."""

import hashlib
import random
import threading
import time

import httpx
import openai
import pytest

from tests.faults.rounds import ROUNDS, round_seed
from tests.given.journey import rows
from tests.given.running_service import answers, wait_for
from tests.production import Production

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("round_number", range(ROUNDS))]
BIG_BYTES = 16 * 1024 * 1024
PART_BYTES = 5 * 1024 * 1024


def content_of(size: int) -> bytes:
    """Whole rows, `size` bytes or a little less."""
    block = rows(2000) + b"\n"
    return block * (size // len(block))


def kill_and_restart(production: Production, after_seconds: float) -> None:
    time.sleep(after_seconds)
    production.api.kill_all()
    production.api.start()
    wait_for(lambda: answers(f"{production.api_url}/health"), 60, "the API comes back")


def names(production: Production) -> list[str]:
    return [file.filename for file in production.client().files.list()]


def test_an_upload_is_whole_or_not_there(production_set: Production, round_number: int) -> None:
    seed = round_seed()
    moment = random.Random(seed).uniform(0, 0.4)
    print(f"upload: seed {seed}, {moment:.2f} s after its begin")  # noqa: T201
    content, name = content_of(BIG_BYTES), f"big-{seed}.jsonl"
    answered: list[openai.types.FileObject] = []

    def upload() -> None:
        try:
            client = production_set.client(retries=0)
            answered.append(client.files.create(file=(name, content), purpose="fine-tune"))
        except openai.APIError:
            return

    uploading = threading.Thread(target=upload)
    uploading.start()
    kill_and_restart(production_set, moment)
    uploading.join(60)
    assert not uploading.is_alive()
    listed = [file for file in production_set.client().files.list() if file.filename == name]
    assert len(listed) == len(answered) or (not answered and len(listed) == 1)  # the answer itself may be lost
    for file in listed:
        stored = production_set.client().files.content(file.id).content
        assert hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()
    assert production_set.sweep_orphans() == set()


def test_a_completed_upload_is_whole_or_still_open(production_set: Production, round_number: int) -> None:
    seed = round_seed()
    moment = random.Random(seed).uniform(0, 0.15)
    print(f"complete: seed {seed}, {moment:.3f} s after its begin")  # noqa: T201
    content, client = content_of(3 * PART_BYTES), production_set.client()
    name = f"parts-{seed}.jsonl"
    upload = client.uploads.create(
        bytes=len(content), filename=name, mime_type="application/jsonl", purpose="fine-tune"
    )
    pieces = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    part_ids = [client.uploads.parts.create(upload.id, data=piece).id for piece in pieces]

    def complete() -> None:
        try:
            production_set.client(retries=0).uploads.complete(upload.id, part_ids=part_ids)
        except (openai.APIError, httpx.HTTPError):
            return

    completing = threading.Thread(target=complete)
    completing.start()
    kill_and_restart(production_set, moment)
    completing.join(60)
    assert not completing.is_alive()
    if name not in names(production_set):
        production_set.client().uploads.complete(upload.id, part_ids=part_ids)
    listed = [file for file in client.files.list() if file.filename == name]
    assert len(listed) == 1
    assert client.files.content(listed[0].id).content == content
