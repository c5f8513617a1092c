"""The mark by which a worker sees that anybody has committed, without asking the database."""

import asyncio
import sqlite3
import sys
from pathlib import Path

from service.db.connection import Database
from service.db.until_commit import UntilCommit
from service.queue.embedded import EmbeddedQueue

WAIT_SECONDS, NEVER_SECONDS = 30.0, 3600.0
COMMIT = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE words (word TEXT)')"


async def test_every_commit_of_any_process_changes_the_mark_and_nothing_else_does(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/luthier.db")
    assert database.last_commit() is None  # nothing to look at: the worker asks the database
    await database.check_writes()
    marks = [database.last_commit()]
    async with database.reading() as tx:
        await tx.connection.exec_driver_sql("SELECT 1")
    async with database.transaction() as tx:  # a claim that finds nothing
        await tx.connection.exec_driver_sql("SELECT 1")
    assert database.last_commit() == marks[0] is not None
    other = sqlite3.connect(tmp_path / "luthier.db", isolation_level=None)
    other.execute("CREATE TABLE words (word TEXT)")
    marks.append(database.last_commit())
    for word in ("spruce", "maple", "spruce"):
        other.execute("INSERT INTO words VALUES (?)", [word])
        marks.append(database.last_commit())
    other.execute("PRAGMA wal_checkpoint(RESTART)")
    for _ in range(20):  # the log begins again and has its old lengths again
        other.execute("DELETE FROM words")
        marks.append(database.last_commit())
        other.execute("INSERT INTO words VALUES ('spruce')")
        marks.append(database.last_commit())
    other.close()
    await database.close()
    assert len(set(marks)) == len(marks)


async def test_what_another_process_commits_wakes_an_idle_worker_and_ends_what_was_kept(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/luthier.db")
    await database.check_writes()
    names: UntilCommit[str, str] = UntilCommit(database.last_commit)
    stored = ["spruce", "maple"]

    async def read() -> str:
        return stored.pop(0)

    assert await names.find("a", read) == "spruce"
    looks: asyncio.Queue[str] = asyncio.Queue()

    async def look() -> None:
        looks.put_nowait(await names.find("a", read))

    queue = EmbeddedQueue(0.001, NEVER_SECONDS, database.last_commit)
    serving = asyncio.create_task(queue.serve(look))
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            assert await looks.get() == "spruce"
            other = await asyncio.create_subprocess_exec(sys.executable, "-c", COMMIT, str(tmp_path / "luthier.db"))
            assert await other.wait() == 0
            assert await looks.get() == "maple"
        assert looks.empty()
    finally:
        serving.cancel()
        await database.close()


async def test_without_a_file_there_is_no_mark() -> None:
    assert Database("postgresql://nobody@127.0.0.1:1/nothing").last_commit() is None


async def test_a_value_is_kept_in_the_state_in_which_it_was_read_and_no_longer() -> None:
    state: list[int | None] = [1]
    values: UntilCommit[str, str] = UntilCommit(lambda: state[-1])
    reads: list[asyncio.Future[str]] = []

    async def read() -> str:
        reads.append(asyncio.get_running_loop().create_future())
        return await reads[-1]

    async def asked(count: int) -> list[asyncio.Task[str]]:
        tasks = [asyncio.create_task(values.find("a", read)) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks

    first, second = await asked(2)  # in one state: one read for both, of which the first caller hangs up
    first.cancel()
    state.append(2)  # somebody commits while they wait
    (later,) = await asked(1)
    assert len(reads) == 2
    reads[0].set_result("spruce")
    assert await second == "spruce"
    reads[1].set_result("maple")
    assert await later == "maple"  # and what the slower reader found of the state before is not kept
    assert await values.find("a", read) == "maple" and len(reads) == 2
    state.append(None)
    for task in await asked(2):
        task.cancel()
    assert len(reads) == 4  # in an unknown state, each reads for itself


async def test_what_a_shared_read_raises_everybody_gets_and_the_next_caller_reads_again() -> None:
    values: UntilCommit[str, str] = UntilCommit(lambda: 1)
    found: list[str | Exception] = [LookupError("no such name"), "spruce"]

    async def read() -> str:
        await asyncio.sleep(0)
        one = found.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    errors = await asyncio.gather(*(values.find("a", read) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [LookupError] * 3
    assert await values.find("a", read) == "spruce"
