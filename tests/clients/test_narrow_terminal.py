"""The command `luthier` in a narrow terminal: what says most keeps its place, and what is copied stays whole."""

import re

import pytest
from luthier import AsyncLuthier
from luthier.cli.curve import sparkline

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.command import in_terminal
from tests.given.files_by_http import ROWS
from tests.given.stored_jobs import add_job, claimed, move, steps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("configured")]


@pytest.mark.parametrize("columns", [40, 80])
async def test_a_narrow_terminal_shows_steps_loss_and_time(ctx: Context, caller: Caller, columns: int) -> None:
    held = await claimed(ctx, caller)
    await held.record_steps(steps(*range(1, 10)), 1.0)
    async with in_terminal("watch", held.job.id, COLUMNS=str(columns), NO_COLOR="1") as terminal:
        shown = await terminal.shows("9/9")
        bars = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).splitlines() if "training" in line]
        await terminal.shows("loss 1.000")
        await terminal.shows("0:00")
        assert (sparkline([1.0] * 9) in terminal.shown) == (columns == 80)
        await move(ctx, held.job.id, "running", status="cancelled", finished_at=2)
        assert await terminal.ends() == 4
    assert all(len(bar) <= columns for bar in bars) and "…" not in terminal.shown


@pytest.mark.parametrize("columns", [40, 80, 200])
async def test_an_id_is_never_broken_in_a_terminal(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, columns: int
) -> None:
    name = "rows of a long day in September.jsonl"
    file = await sdk.files.create(file=(name, ROWS), purpose="fine-tune")
    model = "ft:luthier-tiny:luthier:a-suffix-of-many-letters:ABCDEFGH"
    jobs = [await add_job(ctx, caller) for _ in range(2)]
    await move(ctx, jobs[0].id, "validating_files", status="succeeded", finished_at=2, fine_tuned_model=model)
    ids = [jobs[0].id, jobs[1].id, model]
    for command, words in (
        (("jobs", "ls"), ids),
        (("jobs", "show", jobs[0].id), ids[:1] + ids[2:]),
        (("compare", *ids[:2]), ids),
        (("files", "ls"), [file.id]),
    ):
        async with in_terminal(*command, COLUMNS=str(columns), NO_COLOR="1") as terminal:
            assert await terminal.ends() == 0
        assert all(word in terminal.shown for word in words), terminal.shown
