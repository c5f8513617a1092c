"""The rules that every test is watched by do notice when they are broken."""

import asyncio
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from service.installation.context import Context
from service.operations import chores, uploads
from service.operations.keys import Caller
from service.operations.uploads import NewUpload
from tests import transaction_rules
from tests.transaction_rules import expected_breaches


@pytest.fixture
async def somebody() -> AsyncIterator[int]:
    """The port of a server that is not the database."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def test_an_operation_with_two_transactions_is_noticed(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction_rules, "SEVERAL", {})
    upload = await uploads.create(ctx, caller, NewUpload("a", "fine-tune", "text/jsonl", 0))
    with expected_breaches() as breaches:
        await uploads.complete(ctx, caller, upload.id, [])
    assert breaches == ["service.operations.uploads.complete began 2 transactions"]


async def test_a_loop_over_operations_may_open_none_of_its_own(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "service.operations.uploads.complete"
    monkeypatch.setattr(transaction_rules, "LOOPS", {*transaction_rules.LOOPS, name})
    monkeypatch.setattr(transaction_rules, "SEVERAL", {})
    upload = await uploads.create(ctx, caller, NewUpload("a", "fine-tune", "text/jsonl", 0))
    with expected_breaches() as breaches:
        await uploads.complete(ctx, caller, upload.id, [])
    assert breaches == [f"{name} began 2 transactions"]
    await chores.sweep(ctx)  # many operations, each with one


async def test_storage_inside_a_transaction_is_noticed(ctx: Context) -> None:
    with expected_breaches() as breaches:
        async with ctx.database.transaction():
            await ctx.storage.delete("files/x/0")
    assert breaches == ["LocalStore.delete inside a transaction"]
    await ctx.storage.delete("files/x/0")


async def test_a_bell_inside_a_transaction_is_noticed_and_one_after_it_is_not(ctx: Context) -> None:
    with expected_breaches() as breaches:
        async with ctx.database.reading():
            await ctx.queue.put("x")
    assert breaches == ["EmbeddedQueue.put inside a transaction"]
    async with ctx.database.transaction() as tx:
        tx.after_commit(lambda: ctx.queue.put("x"))


async def test_a_request_inside_a_transaction_is_noticed(ctx: Context, somebody: int) -> None:
    async with httpx.AsyncClient() as client:
        with expected_breaches() as breaches:
            async with ctx.database.transaction():
                await client.get(f"http://127.0.0.1:{somebody}/")
        assert f"to ('127.0.0.1', {somebody}) inside a transaction" in breaches[0]
        assert (await client.get(f"http://127.0.0.1:{somebody}/")).text == "ok"


async def test_bytes_on_an_open_connection_inside_a_transaction_are_noticed(ctx: Context, somebody: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", somebody)
    with expected_breaches() as breaches:
        async with ctx.database.transaction():
            writer.write(b"x")
    assert "socket.send" in breaches[0]
    writer.transport.abort()


async def test_a_thread_that_a_transaction_waits_for_is_noticed(ctx: Context, somebody: int) -> None:
    def call() -> None:
        httpx.get(f"http://127.0.0.1:{somebody}/")

    with expected_breaches() as breaches:
        async with ctx.database.transaction():
            await asyncio.to_thread(call)
    assert "socket.connect" in breaches[0]


async def test_another_task_may_do_what_it_likes_meanwhile(ctx: Context, somebody: int) -> None:
    async with httpx.AsyncClient() as client, ctx.database.transaction():
        answer = await asyncio.create_task(client.get(f"http://127.0.0.1:{somebody}/"))
    assert answer.text == "ok"


def test_nobody_has_an_operation_by_a_name_of_its_own() -> None:
    watched = set(transaction_rules.originals.values())
    assert len(watched) > 50
    escaped = [
        f"{name}.{attribute}"
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("service", "workers")
        for attribute, thing in vars(module).items()
        if callable(thing) and thing.__hash__ is not None and thing in watched
    ]
    assert escaped == []


def test_work_is_watched_as_operations_are() -> None:
    assert {"service.work.claims.claim", "service.work.held.HeldWork.postpone"} <= transaction_rules.originals.keys()
