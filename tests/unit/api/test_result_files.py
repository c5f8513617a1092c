"""A job's result file: in base64, as OpenAI sends it, and as it is to who asks for CSV."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from openai import AsyncOpenAI

from service.api.app import create_app
from service.api.web.base64_form import base64_bytes, in_base64
from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.files_by_http import upload
from tests.given.stored_files import add_result

TABLE = b"step,train_loss\n" + b"".join(b"%d,0.%d\n" % (n, n) for n in range(1, 30_000))


async def test_the_cookbooks_lines_read_a_result_file(ctx: Context, caller: Caller, base_url: str, key: str) -> None:
    id = await add_result(ctx, caller, TABLE)
    async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        sent = await sdk.files.content(id)
        assert base64.b64decode(sent.read(), validate=True) == TABLE
        assert int(sent.response.headers["content-length"]) == len(sent.read())
        plain = await sdk.files.content(id, extra_headers={"Accept": "text/csv"})
        assert plain.read() == TABLE


@pytest.mark.parametrize("accept", ["text/csv", "text/html, text/csv;q=0.9", "TEXT/CSV"])
async def test_who_asks_for_csv_gets_it(ctx: Context, client: httpx.AsyncClient, caller: Caller, accept: str) -> None:
    id = await add_result(ctx, caller, b"step\n1\n")
    assert (await client.get(f"/files/{id}/content", headers={"Accept": accept})).content == b"step\n1\n"


async def test_a_setting_sends_csv_to_everybody(ctx: Context, caller: Caller, key: str) -> None:
    id = await add_result(ctx, caller, b"step\n1\n")
    plain = create_app(replace(ctx, settings=ctx.settings.model_copy(update={"result_files": "csv"})))
    transport = httpx.ASGITransport(plain)
    async with httpx.AsyncClient(transport=transport, base_url="http://luthier/v1") as client:
        answer = await client.get(f"/files/{id}/content", headers={"Authorization": f"Bearer {key}"})
    assert answer.content == b"step\n1\n"


async def test_other_files_stay_as_they_were_sent(client: httpx.AsyncClient) -> None:
    rows = b'{"messages": []}\n'
    file = await upload(client, rows)
    assert (await client.get(f"/files/{file['id']}/content")).content == rows


@pytest.mark.parametrize("lengths", [[], [0], [1], [2, 2], [3, 1, 0, 4], [7, 65_536, 1]])
async def test_pieces_of_any_length_become_one_text(lengths: list[int]) -> None:
    pieces = [bytes(range(256)) * (length // 256) + bytes(range(length % 256)) for length in lengths]

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    text = b"".join([part async for part in in_base64(chunks())])
    assert text == base64.b64encode(b"".join(pieces))
    assert len(text) == base64_bytes(sum(lengths))
