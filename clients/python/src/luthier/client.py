"""`Luthier`: every operation of the API, and the few things that take several of them.

`async_client` is the same for asyncio.
"""

import mimetypes
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Optional, Union

import httpx

import luthier
from luthier.adapters import POLL_SECONDS, archive_of
from luthier.configuration import cache_folder, find_service
from luthier.downloads import check_free
from luthier.errors import APIError, APIStatusError, WaitTimeoutError
from luthier.following import Follower, has_ended
from luthier.generated import models
from luthier.generated.operations import Api
from luthier.large_files import (
    LARGE_BYTES,
    PARALLEL,
    PART_BYTES,
    Journal,
    OnProgress,
    Part,
    journal_of,
    parts_of,
    read_part,
)
from luthier.requests import OMIT
from luthier.retries import MAX_RETRIES
from luthier.transport import Transport

if TYPE_CHECKING:
    from openai import OpenAI

AnyPath = Union[str, "os.PathLike[str]"]
OnEvent = Callable[[models.EventObject], None]
Purpose = Literal["fine-tune", "assistants", "batch", "user_data", "vision", "evals"]

TIMEOUT = httpx.Timeout(600.0, connect=5.0)


class Luthier(Api):
    """A service and a key: `Luthier()` takes them from `LUTHIER_URL` and `LUTHIER_API_KEY`, or from `luthier login`.

    Requests that fail for a passing reason are sent again, `max_retries` times. Close it, or use it as a context
    manager, when it is not needed any more.
    """

    def __init__(
        self,
        *,
        url: Optional[str] = None,
        api_key: Optional[str] = None,
        timeout: Union[float, httpx.Timeout] = TIMEOUT,
        max_retries: int = MAX_RETRIES,
        headers: Optional[Mapping[str, str]] = None,
        http_client: Optional[httpx.Client] = None,
    ) -> None:
        service = find_service(url, api_key)
        self.api_key, self.url = service.api_key, service.url
        self.http_client = http_client or httpx.Client(timeout=timeout)
        self.http_client.headers.update(headers_of(service.api_key, headers))
        super().__init__(Transport(self.http_client, service.url, max_retries))

    def close(self) -> None:
        self.http_client.close()

    def __enter__(self) -> "Luthier":
        return self

    def __exit__(self, kind: Optional[type], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def openai(self) -> "OpenAI":
        """The official OpenAI client, pointed at this service. Needs `pip install 'luthier-client[openai]'`."""
        from openai import OpenAI  # noqa: PLC0415, an extra

        return OpenAI(base_url=f"{self.url}/v1", api_key=self.api_key)

    def tune(
        self,
        path: AnyPath,
        base: str,
        *,
        wait: bool = True,
        on_event: Optional[OnEvent] = None,
        validation: Optional[AnyPath] = None,
        method: Optional[models.MethodParam] = None,
        tuning: Optional[models.TuningParam] = None,
        suffix: Optional[str] = None,
        seed: Optional[int] = None,
        metadata: Optional[Mapping[str, str]] = None,
        integrations: Optional[Sequence[models.IntegrationParam]] = None,
    ) -> models.JobObject:
        """Upload a file of rows and tune `base` on it; `base` may also be a tuned model.

        With `wait`, returns the job when it has ended, however it ended: look at its `status`. Without, as it was made.
        """
        training_file = self.upload(path).id
        validation_file = None if validation is None else self.upload(validation).id
        job = self.fine_tuning.jobs.create(
            model=base,
            training_file=training_file,
            validation_file=OMIT if validation_file is None else validation_file,
            method=OMIT if method is None else method,
            tuning=OMIT if tuning is None else tuning,
            suffix=OMIT if suffix is None else suffix,
            seed=OMIT if seed is None else seed,
            metadata=OMIT if metadata is None else metadata,
            integrations=OMIT if integrations is None else integrations,
        )
        return self.wait(job.id, on_event=on_event) if wait else job

    def wait(
        self, job_id: str, *, on_event: Optional[OnEvent] = None, timeout_seconds: Optional[float] = None
    ) -> models.JobObject:
        """The job when it has ended. `on_event` is called for each of its events, from the first, oldest first.

        A lost connection is made again and no event is missed. Raises WaitTimeoutError; the job continues then.
        """
        follower = Follower(job_id, timeout_seconds)
        while True:
            try:
                self._follow(follower, on_event)
                job = self.fine_tuning.jobs.retrieve(job_id)
                if has_ended(job):
                    return job
                time.sleep(1)  # the stream has ended before the job
            except APIError as error:
                time.sleep(follower.pause_seconds(error))

    def _follow(self, follower: Follower, on_event: Optional[OnEvent]) -> None:
        """Events until the job has ended, or until the connection is lost."""
        after = follower.last_event_id
        stream = self.fine_tuning.jobs.events.stream(
            follower.job_id, last_event_id=OMIT if after is None else after, timeout_seconds=follower.read_seconds()
        )
        stream.on_chunk = follower.read_seconds
        with stream:
            for event in stream:
                follower.seen(event)
                if on_event is not None:
                    on_event(event)

    def pull(
        self, model: str, path: AnyPath, *, format: Literal["peft", "merged"] = "peft", timeout_seconds: float = 7200.0
    ) -> Path:
        """Download a tuned model as a zip archive, of PEFT's files, or merged into its base for transformers.

        The merged form is made at its first request: this waits until it is there. Raises WaitTimeoutError.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            found = self.models.download(model, format=format)
            if found.response.status_code != 202:
                return found.write_to_file(path)
            found.read()
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"'{model}' is still being merged; ask again later.")
            time.sleep(float(found.response.headers.get("retry-after", "2")))

    def push(
        self,
        path: AnyPath,
        base: str,
        *,
        suffix: Optional[str] = None,
        wait: bool = True,
        on_progress: Optional[OnProgress] = None,
    ) -> models.ModelImportObject:
        """Import a LoRA that PEFT saved: a folder, or a zip archive of its two files. `base` is what it was trained on.

        With `wait`, returns the import when it has ended: look at its `status`, `model` and `error`. A large adapter
        is uploaded in parts, as a file of the project, which is deleted with `wait`, and where the import is refused.
        """
        with archive_of(path) as archive:
            large = archive.stat().st_size >= LARGE_BYTES
            uploaded = self.upload(archive, purpose="user_data", on_progress=on_progress) if large else None
            try:
                made = self.models.create(
                    base=base,
                    suffix=OMIT if suffix is None else suffix,
                    file=archive if uploaded is None else OMIT,
                    file_id=OMIT if uploaded is None else uploaded.id,
                )
            except APIStatusError:
                if uploaded is not None:
                    self.files.delete(uploaded.id)
                raise
        while wait and made.status in ("queued", "running"):
            time.sleep(POLL_SECONDS)
            made = self.model_imports.retrieve(made.id)
        if wait and uploaded is not None:
            self.files.delete(uploaded.id)
        return made

    def download(self, job_id: str, folder: AnyPath = ".", *, overwrite: bool = False) -> list[Path]:
        """The result files of a job, written into `folder` under their names, which those of other jobs have too.

        Raises FileExistsError before anything is written, unless `overwrite`.
        """
        target = Path(folder)
        ids = self.fine_tuning.jobs.retrieve(job_id).result_files
        targets = {file_id: target / Path(self.files.retrieve(file_id).filename).name for file_id in ids}
        if not overwrite:
            check_free(targets.values())
        target.mkdir(parents=True, exist_ok=True)
        return [self.files.download(file_id).write_to_file(path) for file_id, path in targets.items()]

    def upload(
        self, path: AnyPath, *, purpose: Purpose = "fine-tune", on_progress: Optional[OnProgress] = None
    ) -> models.FileObject:
        """Upload a file: in one request, or in parts if it is large."""
        file = Path(path)
        length = file.stat().st_size
        if length >= LARGE_BYTES:
            return self.upload_large(file, purpose=purpose, on_progress=on_progress)
        made = self.files.create(file=file, purpose=purpose)
        if on_progress is not None:
            on_progress(length, length)
        return made

    def upload_large(
        self,
        path: AnyPath,
        *,
        purpose: Purpose = "fine-tune",
        part_bytes: int = PART_BYTES,
        parallel: int = PARALLEL,
        on_progress: Optional[OnProgress] = None,
        journals: Optional[AnyPath] = None,
    ) -> models.FileObject:
        """Upload a file in parts, `parallel` at a time. Called again after an interruption, it sends what is missing.

        What was sent is remembered in `journals`, by default in the user's cache.
        """
        file = Path(path)
        parts = parts_of(file.stat().st_size, part_bytes)
        folder = Path(journals) if journals is not None else cache_folder() / "uploads"
        journal = journal_of(file, self.url, part_bytes, purpose, folder)
        continued = journal.upload_id is not None
        while True:
            try:
                return self._upload(file, purpose, parts, parallel, journal, on_progress)
            except APIStatusError as error:
                if not continued or error.status_code not in (400, 404, 409):
                    raise
                journal.forget()  # what was begun has expired, or was cancelled
                continued = False

    def _upload(
        self,
        file: Path,
        purpose: Purpose,
        parts: list[Part],
        parallel: int,
        journal: Journal,
        on_progress: Optional[OnProgress],
    ) -> models.FileObject:
        length = parts[-1].start + parts[-1].length
        if journal.upload_id is None:
            new = self.uploads.create(filename=file.name, purpose=purpose, bytes=length, mime_type=mime_type_of(file))
            journal.begin(new.id)
        upload_id = journal.upload_id
        assert upload_id is not None

        def send(part: Part) -> tuple[Part, str]:
            return part, self.uploads.parts.add(upload_id, data=(file.name, read_part(file, part))).id

        missing = iter(journal.missing(parts))
        with ThreadPoolExecutor(max_workers=parallel) as pool:
            sending: set[Future[tuple[Part, str]]] = set()
            while True:
                while len(sending) < parallel and (part := next(missing, None)) is not None:
                    sending.add(pool.submit(send, part))
                if not sending:
                    break
                sent, sending = wait_for(sending, return_when=FIRST_COMPLETED)
                for one in sent:
                    journal.add(*one.result())
                if on_progress is not None:
                    on_progress(journal.bytes_of(parts), length)
        done = self.uploads.complete(upload_id, part_ids=journal.ordered(parts))
        journal.forget()
        assert done.file is not None
        return done.file


def headers_of(api_key: str, more: Optional[Mapping[str, str]]) -> dict[str, str]:
    """The headers of every request."""
    return {
        "Authorization": f"Bearer {api_key}",
        "User-Agent": f"luthier-client/{luthier.__version__}",
        **(more or {}),
    }


def mime_type_of(file: Path) -> str:
    return "text/jsonl" if file.suffix == ".jsonl" else mimetypes.guess_type(file.name)[0] or "application/octet-stream"
