"""`luthier aliases`, `promote` and `rollback`, and the examples with curl that openapi/README.md has for them."""

import asyncio
import json
import os
import re
from asyncio.subprocess import PIPE
from collections.abc import Iterator

import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.command import called
from tests.given.stored_jobs import add_job
from tests.given.stored_models import add_model
from tests.house_rules.tree import ROOT

pytestmark = pytest.mark.usefixtures("configured")

MODEL = "ft:luthier-tiny:luthier:x:AAAAAAAA"


@pytest.fixture
async def model(ctx: Context, caller: Caller) -> str:
    return await add_model(ctx, caller, (await add_job(ctx, caller)).id, MODEL, kind="final")


@pytest.mark.slow
async def test_an_alias_is_set_promoted_rolled_back_and_removed(model: str) -> None:
    made = await called("aliases", "set", "support", "luthier-tiny", "-o", "json")
    assert json.loads(made.stdout)["model"] == "luthier-tiny"
    canary = await called("aliases", "set", "support", "luthier-tiny", "--candidate", model, "--weight", "0.2")
    assert model in canary.stdout and "0.2" in canary.stdout
    promoted = await called("promote", "support", "-o", "json")
    assert json.loads(promoted.stdout)["model"] == model
    back = await called("rollback", "support", "-o", "json")
    assert json.loads(back.stdout)["model"] == "luthier-tiny"
    shown = await called("aliases", "show", "support")
    assert "rolled_back" in shown.stdout and "created at the first start (key_" in shown.stdout
    assert (await called("aliases", "ls", "-o", "id")).stdout == "support\n"
    assert (await called("aliases", "rm", "support")).code == 0
    gone = await called("rollback", "support")
    assert gone.code == 5 and "luthier aliases ls" in gone.stderr


def objects(text: str) -> Iterator[dict[str, object]]:
    """JSON objects that follow each other."""
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        found, position = decoder.raw_decode(text, position)
        yield found


async def test_the_examples_with_curl_work_as_they_are_written(configured: str, key: str, model: str) -> None:
    page = (ROOT / "openapi" / "README.md").read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL))
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": configured,
        "OPENAI_API_KEY": key,
        "MODEL": model,
        "RECEIVER": "http://127.0.0.1:1/",
    }
    process = await asyncio.create_subprocess_exec("bash", "-euc", script, env=environment, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(60):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    *aliases, endpoint, endpoints = objects(stdout.decode())
    assert [alias.get("model") for alias in aliases] == ["luthier-tiny", model, "luthier-tiny"]
    assert str(endpoint["signing_secret"]).startswith("whsec_") and endpoint["id"] == endpoints["first_id"]
