"""Every operation of the generated SDK against the service, sync and async."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from luthier import AsyncLuthier, Luthier, NotFoundError, models
from luthier.downloads import AsyncDownload, Download
from luthier.generated import async_operations
from luthier.generated import operations as sync_operations
from luthier.pages import AsyncPages, Page
from luthier.streams import AsyncStream, Stream

from service.installation.context import Context
from service.operations import keys
from service.operations.keys import Caller
from tests.given.files_by_http import ROWS
from tests.given.receiver import Receiver, receiver
from tests.given.scripted_engine import ScriptedEngine, answers, streams
from tests.given.stored_checks import add_check
from tests.given.stored_jobs import add_job, move, tell
from tests.given.stored_models import add_model, list_as_checkpoint, store_files

CLASSIFIER = "ft:luthier-tiny:luthier:x:CCCCCCCC"
CLASSIFIED = (
    b'{"id":"c","object":"list","created":1,"model":"ft:x","data":[{"index":0,"label":"greeting","probs":[1.0],'
    b'"num_classes":1,"scores":{"greeting":1.0}}],"usage":{"prompt_tokens":1,"completion_tokens":0,"total_tokens":1}}'
)
EMBEDDER = "ft:luthier-tiny:luthier:x:EEEEEEEE"
EMBEDDED = (
    b'{"object":"list","model":"ft:x","data":[{"object":"embedding","index":0,"embedding":[0.6,0.8]}],'
    b'"usage":{"prompt_tokens":1,"total_tokens":1}}'
)
MODEL = "ft:luthier-tiny:luthier:x:BBBBBBBB:ckpt-step-10"
CHAT = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"luthier-tiny","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"novel":[1]}'
)
CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"luthier-tiny",'
    b'"choices":[{"index":0,"delta":{"content":"Hi\xe2\x80\xa8"},"finish_reason":null}]}\n\n'
)
PIECE = (
    b'data: {"id":"c","object":"text_completion","created":1,"model":"luthier-tiny",'
    b'"choices":[{"index":0,"text":"Hi","logprobs":null,"finish_reason":null}]}\n\n'
)
LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"luthier-tiny",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
)
DONE = b"data: [DONE]\n\n"
ASKED: list[models.RequestMessageParam] = [{"role": "user", "content": "Hello"}]

Given = dict[str, str]
Call = Callable[[Any, Given], Any]


class Table(dict[str, tuple[Call, Callable[[Any], bool]]]):
    """Each operation by its path of attributes: how it is called, and what is true of its result."""


def is_missing(found: object) -> bool:
    """Responses are not stored, so there is none to find."""
    return isinstance(found, NotFoundError)


def as_admin(ids: Given) -> dict[str, str]:
    return {"Authorization": f"Bearer {ids['admin']}"}


CALLS = Table(
    {
        "root": (lambda api, ids: api.root(), lambda found: isinstance(found, models.Root)),
        "livez": (lambda api, ids: api.livez(), lambda found: isinstance(found, models.Alive)),
        "readyz": (lambda api, ids: api.readyz(), lambda found: isinstance(found, models.Ready)),
        "health": (lambda api, ids: api.health(), lambda found: found.status == "ok"),
        "metrics": (
            lambda api, ids: api.metrics(extra_headers=as_admin(ids)),
            lambda found: "luthier" in found,
        ),
        "files.create": (
            lambda api, ids: api.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune"),
            lambda found: (found.filename, found.bytes) == ("rows.jsonl", len(ROWS)),
        ),
        "files.list": (lambda api, ids: api.files.list(limit=1), lambda found: len(found) > 2),
        "files.retrieve": (
            lambda api, ids: api.files.retrieve(ids["file"]),
            lambda found: found.bytes == len(ROWS),
        ),
        "files.download": (lambda api, ids: api.files.download(ids["file"]), lambda found: found == ROWS),
        "uploads.create": (
            lambda api, ids: api.uploads.create(filename="a", purpose="fine-tune", bytes=3, mime_type="text/jsonl"),
            lambda found: found.status == "pending",
        ),
        "uploads.parts.add": (
            lambda api, ids: api.uploads.parts.add(ids["full"], data=b"abc"),
            lambda found: found.id.startswith("part_"),
        ),
        "uploads.complete": (
            lambda api, ids: api.uploads.complete(ids["whole"], part_ids=[ids["part"]]),
            lambda found: isinstance(found.file, models.FileObject),
        ),
        "uploads.cancel": (lambda api, ids: api.uploads.cancel(ids["full"]), lambda found: found.status == "cancelled"),
        "fine_tuning.jobs.create": (
            lambda api, ids: api.fine_tuning.jobs.create(
                model="luthier-tiny",
                training_file=ids["file"],
                method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2}}},
                tuning={"type": "lora", "lora": {"r": 4}},
                metadata={"team": "a"},
            ),
            lambda found: isinstance(found.method, models.DpoMethod) and found.metadata == {"team": "a"},
        ),
        "fine_tuning.jobs.list": (
            lambda api, ids: api.fine_tuning.jobs.list(metadata={"team": "a"}),
            lambda found: len(found) == 1,
        ),
        "fine_tuning.jobs.retrieve": (
            lambda api, ids: api.fine_tuning.jobs.retrieve(ids["job"]),
            lambda found: isinstance(found.method, models.SupervisedMethod) and found.progress.percent == 0,
        ),
        "fine_tuning.jobs.pause": (
            lambda api, ids: api.fine_tuning.jobs.pause(ids["running"]),
            lambda found: found.status == "running",
        ),
        "fine_tuning.jobs.resume": (
            lambda api, ids: api.fine_tuning.jobs.resume(ids["paused"]),
            lambda found: found.status == "queued",
        ),
        "fine_tuning.jobs.cancel": (
            lambda api, ids: api.fine_tuning.jobs.cancel(ids["job"]),
            lambda found: found.status == "cancelled",
        ),
        "fine_tuning.jobs.events.list": (
            lambda api, ids: api.fine_tuning.jobs.events.list(ids["job"], limit=1),
            lambda found: [event.message for event in found[1:]] == ["3", "2", "1"],
        ),
        "fine_tuning.jobs.events.stream": (
            lambda api, ids: api.fine_tuning.jobs.events.stream(ids["job"]),
            lambda found: [event.message for event in found[:3]] == ["1", "2", "3"],
        ),
        "fine_tuning.jobs.checkpoints.list": (
            lambda api, ids: api.fine_tuning.jobs.checkpoints.list(ids["job"]),
            lambda found: [one.fine_tuned_model_checkpoint for one in found] == [MODEL],
        ),
        "fine_tuning.checks.create": (
            lambda api, ids: api.fine_tuning.checks.create(model="luthier-tiny", training_file=ids["file"]),
            lambda found: found.status == "queued" and found.result is None,
        ),
        "fine_tuning.checks.list": (
            lambda api, ids: api.fine_tuning.checks.list(limit=1),
            lambda found: {one.status for one in found} == {"queued", "succeeded"},
        ),
        "fine_tuning.checks.retrieve": (
            lambda api, ids: api.fine_tuning.checks.retrieve(ids["check"]),
            lambda found: found.result.training_file.counts.rows == 2,
        ),
        "fine_tuning.checks.rows": (
            lambda api, ids: api.fine_tuning.checks.rows(ids["check"], start=1, limit=1),
            lambda found: [piece.text for piece in found.data[0].sequences[0].pieces] == ["b"],
        ),
        "fine_tuning.checks.delete": (
            lambda api, ids: api.fine_tuning.checks.delete(ids["check"]),
            lambda found: found.deleted,
        ),
        "fine_tuning.checkpoints.permissions.create": (
            lambda api, ids: api.fine_tuning.checkpoints.permissions.create(MODEL, project_ids=[ids["project"]]),
            lambda found: len(found) == 1,
        ),
        "fine_tuning.checkpoints.permissions.list": (
            lambda api, ids: api.fine_tuning.checkpoints.permissions.list(MODEL),
            lambda found: isinstance(found[0], models.PermissionObject),
        ),
        "fine_tuning.checkpoints.permissions.delete": (
            lambda api, ids: api.fine_tuning.checkpoints.permissions.delete(MODEL, ids["permission"]),
            lambda found: found.deleted,
        ),
        "models.list": (
            lambda api, ids: api.models.list(),
            lambda found: {model.id for model in found} == {"luthier-tiny", MODEL, CLASSIFIER, EMBEDDER},
        ),
        "models.retrieve": (lambda api, ids: api.models.retrieve(MODEL), lambda found: found.id == MODEL),
        "models.download": (lambda api, ids: api.models.download(MODEL), lambda found: found.startswith(b"PK")),
        "models.create": (
            lambda api, ids: api.models.create(base="luthier-tiny", suffix="mine", file=("adapter.zip", b"PK")),
            lambda found: (found.status, found.base, found.suffix) == ("queued", "luthier-tiny", "mine"),
        ),
        "model_imports.list": (lambda api, ids: api.model_imports.list(), lambda found: len(found) == 1),
        "model_imports.retrieve": (
            lambda api, ids: api.model_imports.retrieve(ids["import"]),
            lambda found: isinstance(found, models.ModelImportObject) and found.model is None,
        ),
        "model_aliases.create": (
            lambda api, ids: api.model_aliases.create(name="support", model="luthier-tiny"),
            lambda found: (found.id, found.model) == ("support", "luthier-tiny"),
        ),
        "model_aliases.list": (lambda api, ids: api.model_aliases.list(), lambda found: found[0].id == "support"),
        "model_aliases.retrieve": (
            lambda api, ids: api.model_aliases.retrieve("support"),
            lambda found: found.candidate is None,
        ),
        "model_aliases.update": (
            lambda api, ids: api.model_aliases.update("support", candidate={"model": MODEL, "weight": 0.5}),
            lambda found: found.candidate == models.AliasCandidateObject(model=MODEL, weight=0.5),
        ),
        "model_aliases.promote": (
            lambda api, ids: api.model_aliases.promote("support"),
            lambda found: (found.model, found.candidate) == (MODEL, None),
        ),
        "model_aliases.rollback": (
            lambda api, ids: api.model_aliases.rollback("support", current_model=MODEL),
            lambda found: found.model == "luthier-tiny",
        ),
        "model_aliases.history.list": (
            lambda api, ids: api.model_aliases.history.list("support", limit=1),
            lambda found: [one.action for one in found] == ["rolled_back", "promoted", "updated", "created"],
        ),
        "model_aliases.delete": (lambda api, ids: api.model_aliases.delete("support"), lambda found: found.deleted),
        "webhook_endpoints.create": (
            lambda api, ids: api.webhook_endpoints.create(
                name="ours", url=ids["hook"], event_types=["fine_tuning.job.succeeded"]
            ),
            lambda found: found.signing_secret.startswith("whsec_"),
        ),
        "webhook_endpoints.list": (
            lambda api, ids: api.webhook_endpoints.list(limit=1),
            lambda found: [one.status for one in found] == ["enabled"],
        ),
        "webhook_endpoints.retrieve": (
            lambda api, ids: api.webhook_endpoints.retrieve(ids["webhook"]),
            lambda found: found.name == "ours",
        ),
        "webhook_endpoints.update": (
            lambda api, ids: api.webhook_endpoints.update(ids["webhook"], status="disabled"),
            lambda found: found.status == "disabled",
        ),
        "webhook_endpoints.rotate": (
            lambda api, ids: api.webhook_endpoints.rotate(ids["webhook"], keep_old_secret_active_for_24_hours=True),
            lambda found: found.signing_secret.startswith("whsec_"),
        ),
        "webhook_endpoints.test": (
            lambda api, ids: api.webhook_endpoints.test(ids["webhook"], event_type="fine_tuning.job.failed"),
            lambda found: found.status_code == 200,
        ),
        "webhook_endpoints.delete": (
            lambda api, ids: api.webhook_endpoints.delete(ids["webhook"]),
            lambda found: found.deleted,
        ),
        "webhook_event_types.list": (
            lambda api, ids: api.webhook_event_types.list(),
            lambda found: "fine_tuning.job.paused" in found["data"],
        ),
        "api_keys.create": (
            lambda api, ids: api.api_keys.create(name="laptop", project="team-a", extra_headers=as_admin(ids)),
            lambda found: found.value.startswith("sk-") and (found.role, found.project) == ("project", "team-a"),
        ),
        "api_keys.list": (
            lambda api, ids: api.api_keys.list(limit=1, extra_headers=as_admin(ids)),
            lambda found: {"laptop", "key"} <= {one.name for one in found},
        ),
        "api_keys.retrieve": (
            lambda api, ids: api.api_keys.retrieve(ids["new key"], extra_headers=as_admin(ids)),
            lambda found: (found.name, found.revoked_at) == ("laptop", None),
        ),
        "api_keys.delete": (
            lambda api, ids: api.api_keys.delete(ids["new key"], extra_headers=as_admin(ids)),
            lambda found: found.deleted,
        ),
        "completions.create": (
            lambda api, ids: api.completions.create(model="luthier-tiny", prompt="Hello"),
            lambda found: found.choices[0].text == "café",
        ),
        "completions.stream": (
            lambda api, ids: api.completions.stream(model="luthier-tiny", prompt="Hello"),
            lambda found: [one.choices[0].text for one in found] == ["Hi"],
        ),
        "chat.completions.create": (
            lambda api, ids: api.chat.completions.create(model="luthier-tiny", messages=ASKED, temperature=None),
            lambda found: found.choices[0].message.content == "Hi" and found.extra == {"novel": [1]},
        ),
        "chat.completions.stream": (
            lambda api, ids: api.chat.completions.stream(model="luthier-tiny", messages=ASKED),
            lambda found: [one["choices"][0]["delta"].get("content") for one in found] == ["Hi\u2028", None],
        ),
        "classifications.create": (
            lambda api, ids: api.classifications.create(model=CLASSIFIER, input=["Hello"]),
            lambda found: found.data[0].label == "greeting" and found.data[0].scores == {"greeting": 1.0},
        ),
        "embeddings.create": (
            lambda api, ids: api.embeddings.create(model=EMBEDDER, input=["Hello"]),
            lambda found: found.data[0].embedding == [0.6, 0.8] and found.usage.total_tokens == 1,
        ),
        "responses.create": (
            lambda api, ids: api.responses.create(model="luthier-tiny", input="Hello"),
            lambda found: isinstance(found, models.ResponseObject) and found.status == "completed",
        ),
        "responses.stream": (
            lambda api, ids: api.responses.stream(model="luthier-tiny", input="Hello"),
            lambda found: (found[0]["type"], found[-1]["type"]) == ("response.created", "response.completed"),
        ),
        "responses.get": (lambda api, ids: api.responses.get("resp_1"), is_missing),
        "responses.delete": (lambda api, ids: api.responses.delete("resp_1"), is_missing),
        "responses.cancel": (lambda api, ids: api.responses.cancel("resp_1"), is_missing),
        "responses.input_items.list": (lambda api, ids: api.responses.input_items.list("resp_1"), is_missing),
        "models.delete": (lambda api, ids: api.models.delete(MODEL), lambda found: found.deleted),
        "files.delete": (lambda api, ids: api.files.delete(ids["other file"]), lambda found: found.deleted),
    }
)


def operations_of(api: object, module: object, path: str = "") -> set[str]:
    """The methods of a client by their path of attributes."""
    kind = next(kind for kind in type(api).__mro__ if kind.__module__ == vars(module)["__name__"])
    found = {f"{path}{name}" for name in vars(kind) if not name.startswith("_")}
    for name, below in vars(api).items():
        if type(below).__module__ == vars(module)["__name__"]:
            found |= operations_of(below, module, f"{path}{name}.")
    return found


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as found:
        yield found


@pytest.fixture
async def ids(ctx: Context, caller: Caller, stranger_key: str, sdk: AsyncLuthier, hook: Receiver) -> Given:
    """Objects for the operations to find."""
    file = await sdk.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    other = await sdk.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    full, whole = [
        await sdk.uploads.create(filename="a", purpose="fine-tune", bytes=3, mime_type="text/jsonl") for _ in range(2)
    ]
    part = await sdk.uploads.parts.add(whole.id, data=b"abc")
    job = await add_job(ctx, caller)
    await tell(ctx, job.id, 1, 2, 3)
    running, paused = await add_job(ctx, caller, "running"), await add_job(ctx, caller, "running")
    await move(ctx, paused.id, "running", status="paused")
    await add_model(ctx, caller, job.id, MODEL)
    await add_model(ctx, caller, job.id, CLASSIFIER, task="classify")
    await add_model(ctx, caller, job.id, EMBEDDER, task="embed")
    await list_as_checkpoint(ctx, job.id, MODEL, 10)
    await store_files(ctx, MODEL, {"adapter_config.json": b"{}"})
    return {
        "file": file.id,
        "other file": other.id,
        "full": full.id,
        "whole": whole.id,
        "part": part.id,
        "job": job.id,
        "check": await add_check(ctx, caller),
        "running": running.id,
        "paused": paused.id,
        "project": caller.project_id,
        "admin": await keys.create_key(ctx, "another project", "admin"),
        "hook": hook.url,
    }


def script(engine: ScriptedEngine, name: str) -> None:
    """What the engine sends to this operation."""
    bodies = {"chat.completions.create": answers(CHAT), "completions.stream": streams(PIECE, DONE)}
    bodies["chat.completions.stream"] = bodies["responses.stream"] = streams(CHUNK, LAST, DONE)
    bodies["responses.create"] = answers(CHAT)
    bodies["classifications.create"] = answers(CLASSIFIED)
    bodies["embeddings.create"] = answers(EMBEDDED)
    engine.script = bodies.get(name, engine.script)


async def read_async(result: Any) -> Any:
    found = result if isinstance(result, AsyncPages) else await result
    if isinstance(found, AsyncPages | AsyncStream):
        return [one async for one in found]
    return await found.read() if isinstance(found, AsyncDownload) else found


def read_sync(call: Call, api: Luthier, ids: Given) -> Any:
    found = call(api, ids)
    if isinstance(found, Page | Stream):
        return list(found)
    return found.read() if isinstance(found, Download) else found


async def every(names: set[str], engine: ScriptedEngine, ids: Given, call: Callable[[Call], Awaitable[Any]]) -> None:
    """Calls each operation of the table, in its order; a table that lacks one fails."""
    assert set(CALLS) == names
    wrong = {}
    for name, (operation, holds) in CALLS.items():
        script(engine, name)
        try:
            found = await call(operation)
        except NotFoundError as error:
            found = error
        if name == "fine_tuning.checkpoints.permissions.create":
            ids["permission"] = found[0].id
        if name == "api_keys.create":
            ids["new key"] = found.id
        if name == "models.create":
            ids["import"] = found.id
        if name == "webhook_endpoints.create":
            ids["webhook"] = found.id
        if not holds(found):
            wrong[name] = found
    assert wrong == {}


async def test_every_operation_works_in_asyncio(sdk: AsyncLuthier, engine: ScriptedEngine, ids: Given) -> None:
    async def call(operation: Call) -> Any:
        return await read_async(operation(sdk, ids))

    await every(operations_of(sdk, async_operations), engine, ids, call)


async def test_every_operation_works_in_a_thread(sync_sdk: Luthier, engine: ScriptedEngine, ids: Given) -> None:
    async def call(operation: Call) -> Any:
        return await asyncio.to_thread(read_sync, operation, sync_sdk, ids)

    await every(operations_of(sync_sdk, sync_operations), engine, ids, call)


def test_both_clients_have_the_same_methods() -> None:
    for name, room in vars(sync_operations).items():
        if inspect.isclass(room) and room.__module__ == sync_operations.__name__:
            twin = vars(async_operations)[f"Async{name}"]
            assert [one for one in vars(room) if not one.startswith("_")] == [
                one for one in vars(twin) if not one.startswith("_")
            ]
