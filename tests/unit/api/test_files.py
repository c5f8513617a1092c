"""Files through HTTP: what goes in comes out, what is refused leaves nothing."""

import asyncio
import json
import random
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from service.api.app import create_app
from service.installation.context import Context
from service.installation.create import create_context
from service.settings.settings import Settings
from tests.conftest import ClientOf
from tests.given.files_by_http import ROWS, stored, upload
from tests.given.forms import BOUNDARY, END, HEADERS, field, file_part, in_chunks
from tests.given.uploads_by_http import complete, create, good, send_all


async def test_a_file_has_openais_keys_in_openais_order(client: httpx.AsyncClient) -> None:
    file = await upload(client)
    assert list(file) == [
        "object", "id", "purpose", "filename", "bytes", "created_at", "expires_at", "status", "status_details",
    ]  # fmt: skip
    assert file["bytes"] == len(ROWS)
    assert (file["object"], file["status"], file["expires_at"]) == ("file", "processed", None)
    assert (await client.get(f"/files/{file['id']}")).json() == file


@pytest.mark.parametrize("order", ["purpose first", "file first"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096])
async def test_a_file_comes_back_as_it_went_in_however_it_was_cut(
    client: httpx.AsyncClient, order: str, chunk_bytes: int
) -> None:
    content = random.Random(chunk_bytes).randbytes(3000) + b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n\r" + b"-" * 50
    content += b"\n" * 5000 + b"\r\r\n" + BOUNDARY.encode() + b"\n--\r\n--\r"
    parts = [field("purpose", "fine-tune"), file_part(content)]
    body = b"".join(parts if order == "purpose first" else reversed(parts)) + END
    made = await client.post("/files", content=in_chunks(body, chunk_bytes), headers=HEADERS)
    assert made.status_code == 200, made.text
    answer = await client.get(f"/files/{made.json()['id']}/content")
    assert answer.content == content
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_an_empty_file_is_a_file(client: httpx.AsyncClient) -> None:
    file = await upload(client, b"")
    assert file["bytes"] == 0
    assert (await client.get(f"/files/{file['id']}/content")).content == b""


@pytest.mark.parametrize("filename", ['a"b.jsonl', "größe 漢字.jsonl", "../../etc/passwd", "x" * 600, "a\\b"])
async def test_any_filename_is_kept_and_sent_back_safely(client: httpx.AsyncClient, filename: str) -> None:
    made = await client.post("/files", files={"file": (filename, b"x")}, data={"purpose": "user_data"})
    assert made.status_code == 200, made.text
    disposition = (await client.get(f"/files/{made.json()['id']}/content")).headers["content-disposition"]
    assert disposition.startswith("attachment; filename=")
    assert disposition.isascii()
    assert "\n" not in disposition


async def test_a_file_without_a_filename_is_called_upload(client: httpx.AsyncClient) -> None:
    body = field("purpose", "fine-tune") + field("file", "some rows") + END
    made = await client.post("/files", content=body, headers=HEADERS)
    assert made.json()["filename"] == "upload"


async def test_a_file_may_expire(client: httpx.AsyncClient) -> None:
    life = {"purpose": "fine-tune", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = (await client.post("/files", files={"file": ("a", b"x")}, data=life)).json()
    assert file["expires_at"] == file["created_at"] + 3600
    batch = await upload(client, purpose="batch")
    assert batch["expires_at"] == batch["created_at"] + 30 * 24 * 3600


WRONG_ROWS = b'{"a": 1}\n{"prompt": "zebra"\n\n[]\n' + ROWS
WRONG = (
    "Line 2: is not JSON: EOF while parsing an object at column 18; a row is one line: write a line break in a text as "
    "\\n; line 3: is blank; remove blank lines; line 4: is not an object"
)


@pytest.mark.parametrize("order", ["purpose first", "file first"])
@pytest.mark.parametrize("chunk_bytes", [5, 4096])
async def test_wrong_lines_of_a_training_file_are_said_when_it_is_uploaded_and_it_is_kept(
    client: httpx.AsyncClient, order: str, chunk_bytes: int
) -> None:
    parts = [field("purpose", "fine-tune"), file_part(WRONG_ROWS)]
    body = b"".join(parts if order == "purpose first" else reversed(parts)) + END
    with capture_logs() as logs:
        made = await client.post("/files", content=in_chunks(body, chunk_bytes), headers=HEADERS)
    assert made.status_code == 200, made.text
    file = made.json()
    assert (file["status"], file["status_details"]) == ("error", WRONG)
    assert "zebra" not in json.dumps(logs)
    assert (await client.get(f"/files/{file['id']}")).json() == file
    assert (await client.get("/files")).json()["data"] == [file]
    assert (await client.get(f"/files/{file['id']}/content")).content == WRONG_ROWS


@pytest.mark.parametrize("order", ["purpose first", "file first"])
async def test_files_with_other_purposes_are_not_checked(client: httpx.AsyncClient, order: str) -> None:
    parts = [field("purpose", "batch"), file_part(WRONG_ROWS)]
    body = b"".join(parts if order == "purpose first" else reversed(parts)) + END
    file = (await client.post("/files", content=body, headers=HEADERS)).json()
    assert (file["status"], file["status_details"]) == ("processed", None)


async def test_a_training_file_that_came_in_parts_is_not_checked(client: httpx.AsyncClient) -> None:
    upload = await create(client, len(WRONG_ROWS))
    parts = await send_all(client, upload["id"], [WRONG_ROWS[:9], WRONG_ROWS[9:]])
    file = good(await complete(client, upload["id"], parts))["file"]
    assert (file["purpose"], file["status"], file["status_details"]) == ("fine-tune", "processed", None)


def twice(name: str) -> str:
    return f"'{name}' is in the form of your request twice. Send it once."


WRONG_FORMS = {
    "no file": (field("purpose", "fine-tune") + END, "Missing required parameter: 'file'."),
    "no purpose": (file_part(ROWS) + END, "Missing required parameter: 'purpose'."),
    "bad purpose": (
        file_part(ROWS) + field("purpose", "finetune") + END,
        "'finetune' is not one of ['fine-tune', 'ass",
    ),
    "two files": (file_part(ROWS) + file_part(ROWS) + field("purpose", "fine-tune") + END, twice("file")),
    "two purposes": (
        field("purpose", "fine-tune") + field("purpose", "batch") + file_part(ROWS) + END,
        twice("purpose"),
    ),
    "a purpose before and after": (
        field("purpose", "fine-tune") + file_part(ROWS) + field("purpose", "fine-tune") + END,
        twice("purpose"),
    ),
    "two lives": (
        file_part(ROWS)
        + field("purpose", "fine-tune")
        + field("expires_after[seconds]", "3600")
        + field("expires_after[seconds]", "7200")
        + END,
        twice("expires_after[seconds]"),
    ),
    "a life of both kinds": (
        field("expires_after[anchor]", "created_at") + field("expires_after", "x") + file_part(ROWS) + END,
        twice("expires_after"),
    ),
    "a life of both kinds the other way round": (
        field("expires_after", "") + field("expires_after[anchor]", "") + file_part(ROWS) + END,
        twice("expires_after"),
    ),
    "a bracket too few": (
        file_part(ROWS) + field("purpose", "fine-tune") + field("expires_after[seconds", "3600") + END,
        "Unknown parameter: 'expires_after[seconds'.",
    ),
    "a bracket too many": (
        file_part(ROWS) + field("purpose", "fine-tune") + field("expires_after[seconds]]", "3600") + END,
        "Unknown parameter: 'expires_after[seconds]]'.",
    ),
    "unknown field": (
        file_part(ROWS) + field("purpose", "fine-tune") + field("x", "1") + END,
        "Unknown parameter: 'x'.",
    ),
    "life too short": (
        file_part(ROWS)
        + field("purpose", "fine-tune")
        + field("expires_after[anchor]", "created_at")
        + field("expires_after[seconds]", "3599")
        + END,
        "Invalid 'expires_after.seconds': integer below minimum value.",
    ),
    "no anchor": (
        file_part(ROWS) + field("purpose", "fine-tune") + field("expires_after[seconds]", "3600") + END,
        "Missing required parameter: 'expires_after.anchor'.",
    ),
    "ends early": (field("purpose", "fine-tune") + file_part(ROWS), "it ends before its last boundary"),
    "not a form": (b"hello", "The multipart form cannot be read"),
    "nameless part": (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, "a part has no name"),
    "broken header": (f"--{BOUNDARY}\r\nContent Disposition: x\r\n\r\nx\r\n".encode() + END, "cannot be read"),
    "long field": (field("purpose", "x" * 20_000) + file_part(ROWS) + END, "is too long"),
    "not text": (field("purpose", "x").replace(b"x", b"\xff") + file_part(ROWS) + END, "is not UTF-8"),
    "many parts": (field("a", "b") * 40 + END, "more than 32 parts"),
    "empty": (b"", "it ends before its last boundary"),
}


@pytest.mark.parametrize("name", WRONG_FORMS)
async def test_a_wrong_form_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, settings: Settings, name: str
) -> None:
    body, message = WRONG_FORMS[name]
    response = await client.post("/files", content=body, headers=HEADERS)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert stored(settings) == []
    assert (await client.get("/files")).json()["data"] == []


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 999]
)
async def test_what_is_not_multipart_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    response = await client.post("/files", content=b"{}", headers={"Content-Type": kind})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_file_beyond_the_limit_is_refused_and_leaves_nothing(ctx: Context, key: str, announced: bool) -> None:
    small = create_context(ctx.settings.model_copy(update={"file_limit_bytes": 1000}))
    transport = httpx.ASGITransport(create_app(small))
    over = b"x" * (1001 if not announced else 400_000)
    body = field("purpose", "fine-tune") + file_part(over) + END
    async with httpx.AsyncClient(
        transport=transport, base_url="http://luthier/v1", headers={"Authorization": f"Bearer {key}"}
    ) as client:
        response = await client.post("/files", content=body if announced else in_chunks(body, 100), headers=HEADERS)
        exact = await client.post("/files", files={"file": ("a", b"x" * 1000)}, data={"purpose": "fine-tune"})
    await small.close()
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "file_too_large"
    assert exact.status_code == 200
    assert len(stored(ctx.settings)) == 1


async def test_a_client_that_hangs_up_leaves_nothing(app: FastAPI, key: str, settings: Settings) -> None:
    headers = {**HEADERS, "Authorization": f"Bearer {key}"}
    sent: list[Any] = []
    messages = [
        {"type": "http.request", "body": file_part(ROWS)[:-100], "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/files",
        "raw_path": b"/v1/files", "query_string": b"", "root_path": "", "scheme": "http", "client": None,
        "server": ("luthier", 80), "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent == []
    assert stored(settings) == []


async def test_files_are_listed_in_their_order_even_within_one_second(client: httpx.AsyncClient) -> None:
    made = [(await upload(client, str(number).encode()))["id"] for number in range(7)]
    assert [file["id"] for file in (await client.get("/files")).json()["data"]] == made[::-1]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3, "order": "asc"}
    while True:
        page = (await client.get("/files", params=query)).json()
        seen += [file["id"] for file in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        query["after"] = page["last_id"]
    assert seen == made


@pytest.mark.parametrize("query", [{"limit": 0}, {"after": "nothing"}, {"purpose": "purpose"}])
async def test_a_page_of_nothing_is_empty(client: httpx.AsyncClient, query: dict[str, Any]) -> None:
    await upload(client)
    page = (await client.get("/files", params=query)).json()
    assert page == {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}


async def test_another_projects_file_is_not_there(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    id = (await upload(client))["id"]
    for answer in [
        await stranger.get(f"/files/{id}"),
        await stranger.get(f"/files/{id}/content"),
        await stranger.delete(f"/files/{id}"),
    ]:
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "message": f"No such File object: {id}", "type": "invalid_request_error", "param": "id", "code": None,
        }  # fmt: skip
    assert (await stranger.get("/files")).json()["data"] == []
    assert (await stranger.get("/files", params={"after": id, "order": "asc"})).json()["data"] == []


async def test_a_deleted_file_is_gone(client: httpx.AsyncClient) -> None:
    id = (await upload(client))["id"]
    assert (await client.delete(f"/files/{id}")).json() == {"id": id, "object": "file", "deleted": True}
    assert (await client.get(f"/files/{id}")).status_code == 404
    assert (await client.get(f"/files/{id}/content")).status_code == 404
    assert (await client.delete(f"/files/{id}")).status_code == 404


async def test_the_bytes_of_a_deleted_file_go_by_themselves(ctx: Context, key: str) -> None:
    app = create_app(create_context(ctx.settings.model_copy(update={"sweep_seconds": 0.01})))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://luthier/v1") as client,
    ):
        client.headers["Authorization"] = f"Bearer {key}"
        await client.delete(f"/files/{(await upload(client))['id']}")
        async with asyncio.timeout(10):
            while stored(ctx.settings):
                await asyncio.sleep(0.01)


async def test_lost_bytes_are_a_503_before_the_first_byte(
    ctx: Context, client: httpx.AsyncClient, settings: Settings
) -> None:
    id = (await upload(client))["id"]
    for path in stored(settings):
        path.unlink()
    assert (await client.get(f"/files/{id}/content")).status_code == 503


async def test_nobody_needs_a_slash_or_a_dot_in_an_id(client_of: ClientOf, key: str) -> None:
    for id in ["..", "a%2F..%2Fb", "%00", "x" * 2000, "%F0%9F%8E%B8"]:
        assert (await client_of(key).get(f"/files/{id}")).status_code in (400, 404)
