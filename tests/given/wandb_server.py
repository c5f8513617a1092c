"""As much of a Weights & Biases server as its real client needs to keep a run: on loopback, in a thread.

What it answers was taken down from what the client asks (GraphQL for the run, `file_stream` for its metrics).
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "k" * 40
ENTITY = "team"


@dataclass
class StoredRun:
    """What the server knows of one run."""

    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False
    starts: int = 0


class WandbServer(ThreadingHTTPServer):
    """Runs by project and id; `received` is every body that came, as text."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[tuple[str, str], StoredRun] = {}
        self.received: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def graphql(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if operation == "UpsertBucket":
            return {"upsertBucket": {"bucket": self._upsert(given), "inserted": True}}
        if operation == "RunResumeStatus":
            run = self.runs.get((given["project"], given["name"]))
            bucket = None if run is None else _resumable(given["name"], run)
            return {"model": {"id": "1", "name": given["project"], "entity": _ENTITY, "bucket": bucket}}
        if operation == "CreateRunFiles":
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}}
        return {}

    def stream(self, project: str, id: str, body: dict[str, Any]) -> None:
        run = self.runs[project, id]
        files = body.get("files") or {}
        if "wandb-history.jsonl" in files:
            lines = files["wandb-history.jsonl"]
            assert lines["offset"] == len(run.history), "lines would overwrite others"
            run.history += [json.loads(line) for line in lines["content"]]
        if "wandb-summary.json" in files:
            run.summary = json.loads(files["wandb-summary.json"]["content"][0])
        run.preempting |= bool(body.get("preempting"))
        if body.get("complete"):
            run.exit_code = body["exitcode"]

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.setdefault((given["project"], given["name"]), StoredRun())
        run.name, run.tags = given["displayName"] or run.name, given["tags"] or run.tags
        run.config |= {name: part["value"] for name, part in json.loads(given["config"] or "{}").items()}
        run.starts += given["displayName"] is not None  # the client says it once, when it begins
        project = {"id": "1", "name": given["project"], "entity": _ENTITY}
        return {
            "id": "1", "name": given["name"], "displayName": run.name, "description": "", "config": "{}",
            "sweepName": None, "project": project, "historyLineCount": len(run.history),
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(body.decode())
        right = base64.b64encode(f"api:{KEY}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {right}":
            return self._answer(401, {"errors": [{"message": "invalid API key"}]})
        asked = json.loads(body)
        if self.path == "/graphql":
            return self._answer(200, {"data": self.server.graphql(asked["operationName"], asked["variables"])})
        _, _, _, project, id, _ = self.path.split("/")
        self.server.stream(project, id, asked)
        return self._answer(200, {})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The tests read `received`."""


_ENTITY = {"id": "1", "name": ENTITY}


def _resumable(id: str, run: StoredRun) -> dict[str, Any]:
    return {
        "id": "1", "name": id, "displayName": run.name, "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]",
        "historyLineCount": len(run.history), "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "summaryMetrics": json.dumps(run.summary), "tags": run.tags, "notes": None, "wandbConfig": "{}",
        "config": json.dumps({name: {"value": value} for name, value in run.config.items()}),
    }  # fmt: skip


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Listens for the `with` block."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
