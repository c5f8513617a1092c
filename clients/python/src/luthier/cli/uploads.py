"""What is uploaded for a job or a check, and deleted where nothing comes of it.

Only what may belong to a job that has begun stays: then the files are named, and how they are deleted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from luthier.cli.output import messages, note
from luthier.cli.session import EXIT_TIMEOUT
from luthier.errors import APIStatusError, InvalidArgumentError, LuthierError

if TYPE_CHECKING:
    from luthier.client import Luthier
    from luthier.generated.models import FileObject


@dataclass
class Uploads:
    """Ids of files by the parameter that they are sent as, and the id of their check."""

    luthier: "Luthier"
    files: dict[str, str] = field(default_factory=dict)
    check: Optional[str] = None

    def send(self, files: Mapping[str, Path]) -> None:
        for param, path in files.items():
            self.files[param] = upload_with_bar(self.luthier, path).id

    @contextmanager
    def deleted_without_job(self) -> Iterator[None]:
        """Deletes everything where the block ends with an exception, as after Ctrl-C and after a question.

        A check that takes longer than its reader waits continues, and needs its files.
        """
        try:
            yield
        except typer.Exit as ended:
            if ended.exit_code != EXIT_TIMEOUT:
                self._delete()
            raise
        except BaseException:
            self._delete()
            raise

    @contextmanager
    def deleted_if_refused(self) -> Iterator[None]:
        """Deletes everything where the service refuses; after any other exception it may have begun."""
        try:
            yield
        except BaseException as error:
            refused = isinstance(error, APIStatusError) and error.status_code < 500
            if refused or isinstance(error, InvalidArgumentError):
                self._delete()
            else:
                self._stays()
            raise

    def _delete(self) -> None:
        if not self.files:
            note("Nothing was started.")
            return
        try:
            if self.check is not None:
                self.luthier.fine_tuning.checks.delete(self.check)
            for file_id in self.files.values():
                self.luthier.files.delete(file_id)
        except LuthierError:
            self._stays()
        else:
            note("Nothing was started; what was uploaded is deleted.")

    def _stays(self) -> None:
        for file_id in self.files.values():
            note(f"luthier: the uploaded file stays. Delete it: luthier files rm {file_id}")


def check_base(luthier: "Luthier", name: str) -> None:
    """Raises NotFoundError for a base that there is not, before anything is uploaded for it."""
    luthier.models.retrieve(name)


def upload_with_bar(luthier: "Luthier", file: Path) -> "FileObject":
    """Uploads with a bar, where there is a terminal, and says at once which lines the service has found wrong."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    screen = messages()
    columns = (TextColumn("upload"), BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=screen, transient=True) if screen.is_terminal else None
    with bar or nullcontext():
        task = bar.add_task("upload", total=file.stat().st_size) if bar is not None else None

        def moved(done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=done, total=total)

        made = luthier.upload(file, on_progress=moved)
    if made.status == "error":
        note(f"luthier: {file.name} is uploaded, and no job can train on it. {made.status_details}")
    return made
