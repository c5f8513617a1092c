"""The mark by which a worker sees that anybody has committed, without asking the database."""

import sqlite3
from pathlib import Path

from service.db.connection import Database
from service.db.until_commit import UntilCommit


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
    for _ in range(20):  # the log begins anew and has its old lengths again
        other.execute("DELETE FROM words")
        marks.append(database.last_commit())
        other.execute("INSERT INTO words VALUES ('spruce')")
        marks.append(database.last_commit())
    other.close()
    await database.close()
    assert len(set(marks)) == len(marks)


async def test_without_a_file_there_is_no_mark() -> None:
    assert Database("postgresql://nobody@127.0.0.1:1/nothing").last_commit() is None


def test_a_value_is_kept_in_the_state_in_which_it_was_read_and_no_longer() -> None:
    state = [1]
    values: UntilCommit[str, str] = UntilCommit(lambda: state[-1])
    mark = values.mark()
    values.keep(mark, "a", "spruce")
    assert values.find("a") == "spruce"
    state.append(2)  # somebody commits while a request reads
    assert values.mark() == 2 and values.find("a") is None
    values.keep(mark, "b", "maple")  # by a slower reader of the state before
    assert values.find("b") is None
    unknown: UntilCommit[str, str] = UntilCommit(lambda: None)
    unknown.keep(unknown.mark(), "a", "spruce")
    assert unknown.find("a") is None
