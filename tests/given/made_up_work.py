"""A made-up kind of work, as an extension (`LUTHIER_EXTENSIONS=tests.given.made_up_work`) brings it: count lines.

Its subject is a file; its result is the object `made-up/<file id>`. How it is done is in `made_up_runner`.
The database is used directly because a kind's functions run inside the claim's transaction.
"""

from service.db import files
from service.db import work as rows
from service.db.connection import Transaction
from service.domain.file import File
from service.domain.work import Work
from service.installation.context import Context
from service.work.kinds import Kind, register


async def _begin(tx: Transaction, work: Work) -> File | None:
    return await files.find(tx, work.project_id, work.subject_id)


async def _abandon(tx: Transaction, work: Work, crashes: int) -> None:
    """The file is hidden: it cannot be counted."""
    await files.hide(tx, work.subject_id)


COUNT_LINES = register(Kind("count_lines", _begin, _abandon, module="tests.given.made_up_runner"))


async def ask_to_count(ctx: Context, project_id: str, file_id: str) -> None:
    """Makes the work and rings the bell."""
    async with ctx.database.transaction() as tx:
        await rows.add(tx, COUNT_LINES.name, file_id, project_id, None)
        tx.after_commit(lambda: ctx.queue.put(file_id))
