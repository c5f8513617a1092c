"""Our own OpenAPI document against the API: many generated requests per endpoint, over a socket.

Whatever is sent, the answer is one that the document describes, never a 5xx, and an error is always the envelope. Most
of the requests must get as far as an operation, else this would test validation only: the operations are counted.
"""

import asyncio
import functools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
import schemathesis
import uvicorn
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.api.app import create_app
from service.api.openapi import document
from service.installation.context import Context
from service.installation.create import create_context
from service.operations import (
    checks,
    files,
    jobs,
    keys,
    model_aliases,
    model_content,
    model_imports,
    models,
    uploads,
    webhook_deliveries,
    webhook_endpoints,
)
from service.settings.settings import Settings
from tests.given import seeds
from tests.given.installation import give_schema
from tests.given.scripted_engine import answers, scripted_engine, streams

CASES = int(os.environ.get("LUTHIER_CASES", "24"))  # of an operation with a body; `make soak` sends more
FEW_CASES = CASES // 2  # of one that takes an id and a page at most: they come from a handful of values
NEGATIVE_SHARE = 6  # one case in so many breaks the document's rules on purpose
SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {result.ok().label: result.ok() for result in SCHEMA.get_all_operations()}
NEVER_STORED = {label for label in OPERATIONS if "{response_id}" in label}
WITHOUT_OPERATION = {
    "GET /",
    "GET /health",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /v1/webhook_event_types",
} | NEVER_STORED  # /metrics is not for the key that is used here
REAL = {
    "file_id": seeds.FILES[1],
    "upload_id": seeds.UPLOAD,
    "fine_tuning_job_id": seeds.JOB,
    "check_id": seeds.CHECK,
    "model": seeds.CHECKPOINT,
    "fine_tuned_model_checkpoint": seeds.CHECKPOINT,
    "permission_id": seeds.PERMISSION,
    "response_id": "resp_1",
    "name": seeds.ALIAS,
    "webhook_endpoint_id": seeds.WEBHOOK,
    "import_id": seeds.IMPORT,
    "key_id": seeds.API_KEY_ID,
}
REAL_FIELDS = {
    "model": "luthier-tiny",
    "training_file": seeds.FILES[0],
    "validation_file": seeds.FILES[1],
    "filename": "training.jsonl",
    "mime_type": "text/jsonl",
    "bytes": 10,
    "project_ids": [seeds.PROJECT],
    "prompt": "Hello",
    "messages": [{"role": "user", "content": "Hello"}],
}
OF_INPUT = {  # whose drawn input is nothing that an operation gets
    "POST /v1/embeddings",  # any text or tokens
    "POST /v1/responses",  # items that do not fit each other: reasoning without its message
}
COUNTED: tuple[tuple[ModuleType | type, tuple[str, ...]], ...] = (
    (checks, ("create", "retrieve", "page", "delete", "rows")),
    (files, ("retrieve", "page", "delete", "content")),
    (files.Incoming, ("create",)),
    (uploads, ("create", "incoming_part", "complete", "cancel")),
    (jobs, ("create", "retrieve", "page", "cancel", "pause", "resume", "event_page", "checkpoint_page")),
    (
        model_aliases,
        ("create", "page", "retrieve", "update", "promote", "rollback", "delete", "history"),
    ),
    (webhook_endpoints, ("create", "page", "retrieve", "update", "rotate_secret", "delete")),
    (webhook_deliveries, ("try_endpoint",)),
    (model_content, ("find",)),
    (model_imports, ("create", "retrieve", "page")),
    (keys, ("create", "retrieve", "page", "revoke")),
    (models, ("list_all", "retrieve", "delete", "resolve_for_inference", "grant", "permission_page", "revoke")),
)
CHAT = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"luthier-tiny","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
)
TEXT = (
    b'{"id":"c","object":"text_completion","created":1,"model":"luthier-tiny","choices":[{"index":0,"text":"Hi",'
    b'"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
)


@dataclass
class Served:
    """The API on a port, in a thread of its own, and how often an operation was entered."""

    url: str = ""
    reached: int = 0
    renew: Callable[[], None] = field(default=lambda: None)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served, ready, stop = Served(), threading.Event(), threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        for place, names in COUNTED:
            for name in names:
                patch.setattr(place, name, _counted(served, getattr(place, name)))
        thread = threading.Thread(
            target=lambda: asyncio.run(_serve(tmp_path_factory.mktemp("api"), served, ready, stop))
        )
        thread.start()
        assert ready.wait(30)
        yield served
        stop.set()
        thread.join(30)


@pytest.mark.slow
@pytest.mark.parametrize("label", OPERATIONS)
def test_any_request_gets_an_answer_that_the_document_describes(label: str, served: Served) -> None:
    operation = OPERATIONS[label]
    cases = st.tuples(
        st.integers(1, NEGATIVE_SHARE).flatmap(
            lambda number: operation.as_strategy(
                generation_mode=GenerationMode.NEGATIVE
                if number == 1 and _has_input(operation)
                else GenerationMode.POSITIVE
            )
        ),
        st.sampled_from([True, True, False]),  # whether ids are made real ones
    )
    served.renew()
    served.reached = 0
    statuses: Counter[int] = Counter()
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {seeds.API_KEY}"

        @given(cases)
        @settings(
            max_examples=num_cases(operation),
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def run(drawn: tuple[Case, bool]) -> None:
            case, real = drawn
            if real:
                _make_real(case)
            statuses[_check(case, case.call(base_url=served.url, session=session))] += 1

        run()
    total = sum(statuses.values())
    counts = f"{total} cases, {served.reached} reached an operation, answers {dict(sorted(statuses.items()))}"
    sys.stdout.write(f"\n{label}: {counts}\n")
    assert total >= num_cases(operation) or not _has_input(operation)
    assert served.reached >= total / 3 or label in WITHOUT_OPERATION


def num_cases(operation: Any) -> int:
    """How many requests an operation gets."""
    return CASES if operation.body else FEW_CASES


def _check(case: Case, response: Response) -> int:
    """Raises where the answer is not as promised."""
    status = response.status_code
    assert status < 500, response.text
    checks = [status_code_conformance, content_type_conformance]
    if "text/event-stream" not in str(response.headers["content-type"]):  # OpenAPI 3.1 has no schema for events
        checks.append(response_schema_conformance)
    case.validate_response(response, checks=checks)
    assert response.headers["x-request-id"]
    if status >= 400:
        error = response.json()
        assert list(error) == ["error"]
        assert list(error["error"]) == ["message", "type", "param", "code"]
    return status


def _make_real(case: Case) -> None:
    """Ids that exist and texts that make sense, so that an operation finds what it looks for."""
    for name in case.path_parameters or {}:
        case.path_parameters[name] = REAL[name]
    case.headers.pop("Authorization", None)  # a made-up key comes no further than authentication
    if isinstance(case.query, dict):
        case.query.pop("stream", None)  # the real job runs without end, and so would the stream of its events
    if isinstance(case.body, dict):
        case.body |= {name: value for name, value in REAL_FIELDS.items() if name in case.body}
        if case.operation.label == "POST /v1/classifications":  # one of two, which the schema cannot say
            case.body.pop("messages", None)
            case.body["input"] = "Hello"
        if case.operation.label in OF_INPUT and "input" in case.body:
            case.body["input"] = "Hello"


def _has_input(operation: Any) -> bool:
    return bool(operation.path_parameters or operation.query or operation.body)


def _counted(served: Served, operation: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(operation)
    def counted(*args: Any, **kwargs: Any) -> Any:
        served.reached += 1
        return operation(*args, **kwargs)

    return counted


async def _serve(folder: Path, served: Served, ready: threading.Event, stop: threading.Event) -> None:
    async with scripted_engine() as engine:
        engine.script = _answer
        place = Settings(data_dir=folder, engine_urls=engine.url)
        await give_schema(place)
        ctx = create_context(place)
        await seeds.install(ctx)
        server = uvicorn.Server(uvicorn.Config(create_app(ctx), port=0, log_config=None))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        served.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        served.renew = _renew_from_outside(ctx)
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.05)
        server.should_exit = True
        await serving


def _renew_from_outside(ctx: Context) -> Callable[[], None]:
    loop = asyncio.get_running_loop()
    return lambda: asyncio.run_coroutine_threadsafe(seeds.renew(ctx), loop).result(30)


async def _answer(request: web.Request) -> web.StreamResponse:
    """The engine's part: an answer of the right kind, whatever is asked."""
    body = await request.json()
    whole = CHAT if request.path.endswith("/chat/completions") else TEXT
    script = streams(b"data: " + whole + b"\n\n", b"data: [DONE]\n\n") if body.get("stream") else answers(whole)
    return await script(request)
