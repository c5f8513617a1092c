"""Checks of jobs: what a worker finds out before a job exists, by the code that validates a job's files."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.domain.check import CheckResult
from service.domain.errors import IllegalTransition, InvalidRequest, NotFound, QuotaExceeded
from service.domain.memory import DeviceMemory
from service.domain.work import WorkerState
from service.installation.context import Context
from service.operations import checks, chores, files, jobs, keys
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.operations.orphans import OrphanSweep
from service.recipes.base import Base
from service.recipes.objective import hyperparameters_type
from service.recipes.objectives.dpo import DpoSettings
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.tuning import TUNINGS
from service.recipes.tunings.prompt import PromptSettings
from service.settings.settings import Settings
from service.work import claims
from tests.given.checks import (
    checked,
    claimed,
    create,
    described,
    end_lease,
    installation_for_checks,
    let_pass,
    result,
    upload,
    waits,
    work_through,
)
from tests.given.journey import pairs, rows
from tests.given.stored_datasets import let_a_day_pass, shared_objects
from tests.given.stored_jobs import add_job, add_measured
from tests.given.tiny_models import make_tiny_base
from tests.given.work import claim_validation
from workers.data.render import Renderer
from workers.jobs.check import STORED
from workers.jobs.loading import Tokenizers
from workers.jobs.validate import JobValidation
from workers.model.kind import load_model
from workers.tunings import create_tuning

ROWS = 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
async def ctx(settings: Settings, database_url: str, tmp_path: Path, base: Base) -> AsyncIterator[Context]:
    async with installation_for_checks(settings, tmp_path, base, database_url) as ctx:
        yield ctx


@pytest.fixture
async def other(ctx: Context, stranger_key: str) -> Caller:
    """A caller of another project."""
    return await keys.authenticate(ctx, stranger_key)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every row that was rendered."""
    seen, prepare = [], Renderer.prepare

    def counted(self: Renderer, row: Any) -> Any:
        seen.append(row)
        return prepare(self, row)

    monkeypatch.setattr(Renderer, "prepare", counted)
    return seen


async def stored(ctx: Context) -> list[str]:
    return [found.key.rpartition("/")[2] async for found in ctx.storage.list("data/")]


async def validated(ctx: Context, caller: Caller, file: str, **fields: Any) -> jobs.JobView:
    """A job of that file whose validation is done."""
    created = await jobs.create(ctx, caller, NewJob(model="tiny", training_file=file, seed=1, **fields))
    held = await claim_validation(ctx, "worker")
    assert held is not None
    await JobValidation(held, ctx.catalogue.bases["tiny"], Tokenizers(), ctx.settings.scratch_dir).run()
    return await jobs.retrieve(ctx, caller, created.job.id)


async def test_a_check_says_what_the_job_will_do(ctx: Context, caller: Caller) -> None:
    check = await checked(ctx, caller, rows(ROWS), rows(3, seed=1))
    found = result(check)
    assert (check.status, found.valid, check.error) == ("succeeded", True, None)
    assert found.validation_file is not None and found.plan is not None
    counts, held_out = found.training_file.counts, found.validation_file.counts
    assert counts is not None and held_out is not None
    assert (counts.rows, counts.examples, held_out.rows, counts.truncated_rows) == (ROWS, ROWS, 3, 0)
    assert 0 < counts.trained_tokens < counts.tokens <= ROWS * counts.longest_tokens
    assert sum(bucket.sequences for bucket in counts.lengths) == ROWS
    job = (await validated(ctx, caller, check.training_file)).job
    assert found.plan.hyperparameters == job.hyperparameters == {
        "n_epochs": 8, "batch_size": 1, "learning_rate_multiplier": 1.0,
    }  # fmt: skip
    assert (found.plan.total_steps, found.plan.steps_per_epoch) == (job.total_steps, ROWS) == (8 * ROWS, ROWS)
    assert found.plan.learning_rate == ctx.catalogue.bases["tiny"].learning_rate["lora"]
    assert found.plan.trained_tokens == 8 * counts.trained_tokens


async def test_a_check_says_how_long_the_job_takes_once_jobs_like_it_were_measured(
    ctx: Context, caller: Caller, other: Caller
) -> None:
    for seconds in (20, 22):
        await add_measured(ctx, other, "tiny", seconds)
    await add_measured(ctx, caller, "another", 9)
    await add_measured(ctx, caller, "tiny", 9, objective="dpo")
    await add_measured(ctx, caller, "tiny", 9, tuning={"type": "prompt", "prompt": {}})
    await add_measured(ctx, caller, "tiny", 9, seconds_per_step=0.01, finished_at=10_000)  # paused for hours
    early = result(await checked(ctx, caller, rows(ROWS)))
    assert early.duration is None and early.duration_unknown is not None
    assert "base tiny, supervised and lora, 2 of the 3 jobs" in early.duration_unknown
    await add_measured(ctx, caller, "tiny", 21)
    await add_job(ctx, other, "queued", "tiny")
    known = result(await checked(ctx, caller, rows(ROWS)))
    assert known.duration is not None and known.plan is not None and known.duration_unknown is None
    assert (known.duration.based_on, known.duration.queue_position) == (3, 1)
    expected = 21 / 500 * known.plan.tokens  # seconds per token, the steps' sizes being one
    assert known.duration.low <= expected <= known.duration.high <= 2 * known.duration.low
    assert known.duration.seconds == pytest.approx(expected, rel=0.05)


async def test_a_check_says_what_memory_the_job_needs_and_which_workers_have_it(ctx: Context, caller: Caller) -> None:
    async def needs(**fields: Any) -> CheckResult:
        return result(await checked(ctx, caller, rows(ROWS), **fields))

    alone = await needs()
    assert alone.memory is not None and alone.memory.workers == [] and alone.memory_unknown is None
    need, model = alone.memory.needs, load_model("causal", ctx.catalogue.bases["tiny"].source, None, {})
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    trained = create_tuning(TUNINGS.default(), model, "one").memory_bytes()
    assert (need.base_weights_bytes, need.parameter_bytes) == (parameters, trained)
    assert (need.gradient_bytes, need.optimizer_bytes) == (trained, 2 * trained)
    assert need.training_bytes == 4 * trained + need.activation_bytes

    free = {"roomy": need.training_bytes, "full": need.training_bytes - 1}
    for id, free_bytes in free.items():
        memory = {"tiny": DeviceMemory("cuda", 2**36, free_bytes)}
        await claims.renew(ctx, WorkerState(id, "here", {"tiny": ""}, memory), [])
    await claims.renew(ctx, WorkerState("starting", "here", {"tiny": "loading"}), [])
    await claims.renew(ctx, WorkerState("of another base", "here", {"other": ""}), [])
    found = await needs()
    assert found.memory is not None and "does_not_fit" not in {one.code for one in found.warnings}
    fits = {worker.worker: worker.fits for worker in found.memory.workers}
    assert fits == {"roomy": True, "full": False, "starting": None}

    for id in ("roomy", "starting"):
        await claims.release_all(ctx, id)
    (warning,) = [one for one in (await needs()).warnings if one.code == "does_not_fit"]
    assert f"needs {need.training_bytes} bytes" in warning.message and f"is {free['full']}." in warning.message
    larger = await needs(hyperparameters=hyperparameters_type(SupervisedSettings)(batch_size=4))
    assert larger.memory is not None and larger.memory.needs.parameter_bytes == trained
    assert need.activation_bytes < larger.memory.needs.activation_bytes


async def test_every_bad_line_of_both_files_is_found_with_its_remedy(ctx: Context, caller: Caller) -> None:
    bad = b'\n{"messages": [{"role": "user", "content": ""}]}\n\n{"prompt": "a"}\n{"messages": 1, "x": 2}\nno json'
    check = await checked(ctx, caller, rows(ROWS) + bad, rows(1) + b"\n[]")
    found = result(check)
    assert (check.status, found.valid, found.plan) == ("succeeded", False, None)
    assert found.validation_file is not None
    training, held_out = found.training_file, found.validation_file
    assert (training.counts, held_out.counts) == (None, None)
    assert [problem.line for problem in training.problems] == sorted(problem.line for problem in training.problems)
    lines = {problem.line: (problem.field, problem.remedy) for problem in training.problems}
    assert lines[ROWS + 1] == ("messages[0].content", "write text here, or remove the row")
    assert lines[ROWS + 2] == ("", "remove blank lines")
    assert set(lines) == {ROWS + 1, ROWS + 2, ROWS + 3, ROWS + 4, ROWS + 5}
    assert all(problem.reason and problem.remedy for problem in [*training.problems, *held_out.problems])
    assert [problem.line for problem in held_out.problems] == [2]
    assert training.error is not None and training.error.code == "invalid_training_file"
    job = (await validated(ctx, caller, check.training_file)).job
    assert job.error is not None
    assert training.error.message == job.error["message"]


async def test_the_tokens_of_the_tuning_count_for_the_longest_row(ctx: Context, caller: Caller) -> None:
    counts = result(await checked(ctx, caller, rows(ROWS))).training_file.counts
    assert counts is not None
    taken = counts.context_tokens - counts.longest_tokens
    full = result(await checked(ctx, caller, rows(ROWS), tuning=PromptSettings(num_virtual_tokens=taken)))
    assert full.valid and full.training_file.counts is not None
    assert full.training_file.counts.context_tokens == full.training_file.counts.longest_tokens == counts.longest_tokens
    beyond = result(await checked(ctx, caller, rows(ROWS), tuning=PromptSettings(num_virtual_tokens=taken + 1)))
    assert not beyond.valid and f"beside the {taken + 1} of the tuning" in beyond.training_file.problems[0].reason


async def test_problems_are_kept_up_to_a_bound_and_all_are_counted(ctx: Context, caller: Caller) -> None:
    found = result(await checked(ctx, caller, b"{}\n" * 1500)).training_file
    assert (len(found.problems), found.num_problems) == (1000, 1500)


async def test_too_few_examples_and_implausible_rates_are_said_as_for_a_job(ctx: Context, caller: Caller) -> None:
    few = result(await checked(ctx, caller, rows(2))).training_file
    assert few.error is not None and (few.valid, few.error.code, few.problems) == (False, "invalid_n_examples", [])
    settings = NewJob(model="tiny", training_file="", seed=1).hyperparameters
    rate = settings.model_copy(update={"learning_rate_multiplier": 1e-4})
    warned = result(await checked(ctx, caller, rows(ROWS), hyperparameters=rate))
    assert [advice.code for advice in warned.warnings if advice.code == "implausible_rate"] == ["implausible_rate"]


async def test_the_mask_of_a_row_is_what_trains_and_shows_special_tokens(ctx: Context, caller: Caller) -> None:
    lines = [json.loads(line) for line in rows(ROWS).splitlines()]
    check = await checked(ctx, caller, rows(ROWS))
    page = await checks.rows(ctx, caller, check.id, start=2, limit=3)
    assert ([row.line for row in page.rows], page.total, page.has_more) == ([3, 4, 5], ROWS, True)
    for row in page.rows:
        (sequence,) = row.sequences
        prompt, answer = [piece for piece in sequence.pieces if not piece.trained], sequence.pieces[-1]
        asked, answered = (message["content"] for message in lines[row.line - 1]["messages"])
        assert asked in prompt[0].text and "<|user|>" in prompt[0].text
        assert answer.text.startswith(answered) and answer.text != answered  # and the token that ends it
        assert (answer.trained, answer.weight, prompt[0].weight) == (True, 1.0, 0.0)
        assert sum(piece.tokens for piece in sequence.pieces) == sequence.tokens
        assert sequence.trained_tokens == answer.tokens
    last = await checks.rows(ctx, caller, check.id, start=ROWS - 1, limit=50)
    assert ([row.line for row in last.rows], last.has_more) == ([ROWS], False)
    for start, limit in [(ROWS, 5), (10**9, 5), (0, 0)]:
        assert (await checks.rows(ctx, caller, check.id, start=start, limit=limit)).rows == []


async def test_a_pair_has_two_sequences(ctx: Context, caller: Caller) -> None:
    check = await checked(
        ctx, caller, pairs(ROWS), objective="dpo", hyperparameters=hyperparameters_type(DpoSettings)()
    )
    counts = result(check).training_file.counts
    assert counts is not None
    assert (counts.rows, counts.examples, counts.sequences) == (ROWS, ROWS, 2 * ROWS)
    plan = result(check).plan
    assert plan is not None
    assert (plan.hyperparameters["n_epochs"], plan.total_steps) == (8, 8 * ROWS)
    (row,) = (await checks.rows(ctx, caller, check.id, start=1, limit=1)).rows
    answers = [sequence.pieces[-1].text for sequence in row.sequences]
    assert answers[0].startswith("BLUE") and answers[1].startswith("blue")


async def test_long_rows_come_in_shorter_pages_and_one_at_least(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = await checked(ctx, caller, rows(ROWS))
    monkeypatch.setattr(checks, "PAGE_BYTES", 1)
    page = await checks.rows(ctx, caller, check.id, start=0, limit=10)
    assert ([row.line for row in page.rows], page.has_more) == ([1], True)
    monkeypatch.setattr(checks, "PAGE_BYTES", 1000)
    page = await checks.rows(ctx, caller, check.id, start=0, limit=10)
    assert 1 < len(page.rows) < 10 and page.has_more


async def test_rows_that_cannot_be_shown_say_why(ctx: Context, caller: Caller) -> None:
    waiting = await create(ctx, caller, await upload(ctx, caller, rows(ROWS)))
    with pytest.raises(IllegalTransition, match="its status is 'queued'"):
        await checks.rows(ctx, caller, waiting)
    await checks.delete(ctx, caller, waiting)
    invalid = await checked(ctx, caller, b"{}\n" * ROWS)
    with pytest.raises(InvalidRequest, match="is invalid"):
        await checks.rows(ctx, caller, invalid.id)
    valid = await checked(ctx, caller, rows(ROWS))
    with pytest.raises(InvalidRequest, match="has no validation file"):
        await checks.rows(ctx, caller, valid.id, param="validation_file")
    async for found in ctx.storage.list("data/"):
        await ctx.storage.delete(found.key)
    with pytest.raises(InvalidRequest, match="check the files again"):
        await checks.rows(ctx, caller, valid.id)


async def test_the_second_check_of_a_file_reads_no_row_and_so_does_the_job(
    ctx: Context, caller: Caller, rendered: list[Any]
) -> None:
    first = await checked(ctx, caller, rows(ROWS))
    again = await checked(ctx, caller, rows(ROWS))
    assert (len(rendered), again.training_data) == (ROWS, first.training_data)
    assert result(again) == result(first)
    assert (await validated(ctx, caller, again.training_file)).job.training_data == first.training_data
    assert len(rendered) == ROWS
    assert sorted(await stored(ctx)) == sorted([*STORED, "train.safetensors"])


async def test_what_a_job_tokenised_a_check_describes(ctx: Context, caller: Caller, rendered: list[Any]) -> None:
    file = await upload(ctx, caller, rows(ROWS))
    job = (await validated(ctx, caller, file)).job
    assert await described(ctx) == [None]
    check = await checked(ctx, caller, rows(ROWS))
    assert check.training_data == job.training_data
    assert (len(rendered), len(await stored(ctx)), len(await described(ctx))) == (2 * ROWS, len(STORED) + 1, 1)
    assert await described(ctx) != [None]
    assert len((await checks.rows(ctx, caller, check.id)).rows) == ROWS


async def test_a_check_survives_a_killed_worker(ctx: Context, caller: Caller) -> None:
    id = await create(ctx, caller, await upload(ctx, caller, rows(ROWS)))
    lost = await claimed(ctx, "one")
    assert lost is not None and (await checks.retrieve(ctx, caller, id)).status == "running"
    assert await claimed(ctx, "two") is None
    await end_lease(ctx, id)
    held = await claimed(ctx, "two")
    assert held is not None and held.attempt == 2
    await work_through(ctx, held)
    assert result(await checks.retrieve(ctx, caller, id)).valid
    assert not await waits(ctx, id)


async def test_a_file_that_ends_its_workers_fails_the_check(ctx: Context, caller: Caller) -> None:
    id = await create(ctx, caller, await upload(ctx, caller, rows(ROWS)))
    for _ in range(2):
        await claimed(ctx)
        await end_lease(ctx, id)
    assert await claimed(ctx) is None
    check = await checks.retrieve(ctx, caller, id)
    assert check.error is not None
    assert (check.status, check.error["code"]) == ("failed", "worker_crashed")
    assert not await waits(ctx, id)


async def test_a_deleted_file_fails_the_check(ctx: Context, caller: Caller) -> None:
    file = await upload(ctx, caller, rows(ROWS))
    id = await create(ctx, caller, file)
    await files.delete(ctx, caller, file)
    held = await claimed(ctx)
    assert held is not None
    await work_through(ctx, held)
    check = await checks.retrieve(ctx, caller, id)
    assert (check.status, check.error) == (
        "failed",
        {
            "code": "deleted_training_file",
            "message": "The check failed because the training file was deleted",
            "param": "training_file",
        },
    )


async def test_projects_take_turns(ctx: Context, caller: Caller, other: Caller) -> None:
    file, theirs = await upload(ctx, caller, rows(ROWS)), await upload(ctx, other, rows(ROWS))
    mine = [await create(ctx, caller, file) for _ in range(3)]
    late = await create(ctx, other, theirs)
    order = [held.check.id for _ in range(4) if (held := await claimed(ctx)) is not None]
    assert order == [mine[0], late, *mine[1:]]


async def test_another_projects_check_is_not_there(ctx: Context, caller: Caller, other: Caller) -> None:
    id = (await checked(ctx, caller, rows(ROWS))).id
    for attempt in (checks.retrieve, checks.delete, checks.rows):
        with pytest.raises(NotFound):
            await attempt(ctx, other, id)  # type: ignore[operator]
    assert (await checks.page(ctx, other, after=None, limit=10)).items == []
    assert [check.id for check in (await checks.page(ctx, caller, after=None, limit=10)).items] == [id]


async def test_a_project_has_so_many_unfinished_checks(ctx: Context, caller: Caller) -> None:
    file = await upload(ctx, caller, rows(ROWS))
    ids = [await create(ctx, caller, file) for _ in range(3)]
    with pytest.raises(QuotaExceeded, match="3 checks"):
        await create(ctx, caller, file)
    await checks.delete(ctx, caller, ids[0])
    assert not await waits(ctx, ids[0])
    await create(ctx, caller, file)


async def test_old_checks_go_and_the_tokens_of_kept_ones_stay(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, kept = await checked(ctx, caller, rows(ROWS)), await checked(ctx, caller, rows(ROWS, seed=1))
    await let_pass(ctx, old.id, ctx.settings.check_life_seconds + 10)
    await let_a_day_pass(ctx)
    await chores.sweep(ctx)
    assert [check.id for check in (await checks.page(ctx, caller, after=None, limit=10)).items] == [kept.id]
    await OrphanSweep(ctx).sweep()
    assert await shared_objects(ctx) == [kept.training_data]
    assert len(await stored(ctx)) == len(STORED) + 1
    monkeypatch.setattr(checks, "KEPT", 1)
    await create(ctx, caller, kept.training_file)
    assert len((await checks.page(ctx, caller, after=None, limit=10)).items) == 1
    await chores.sweep(ctx)
    assert await stored(ctx) == []


async def test_a_check_points_out_what_is_probably_wrong(ctx: Context, caller: Caller) -> None:
    both = rows(ROWS).splitlines()
    training = b"\n".join([*both, both[0], both[3]])
    for _ in range(2):  # found, and then known
        found = result(await checked(ctx, caller, training, b"\n".join([*rows(30).splitlines()[28:], both[5]])))
        advice = {one.code: one for one in found.warnings}
        assert (advice["duplicates"].param, advice["duplicates"].lines) == ("training_file", [ROWS + 1, ROWS + 2])
        assert (advice["leaked_rows"].param, advice["leaked_rows"].lines) == ("validation_file", [3])
