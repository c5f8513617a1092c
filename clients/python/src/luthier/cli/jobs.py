"""`luthier jobs`, `watch`, `wait` and `logs`."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from luthier.cli.output import Force, Format, Output, line, note, print_json, print_record, print_records, visible, when
from luthier.cli.session import client, number

if TYPE_CHECKING:
    from luthier.generated.models import JobObject

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Jobs. Example: luthier jobs ls")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of the job.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="The most to show.")]


@app.command("ls")
def list_jobs(limit: Limit = 20, output: Output = Format.table) -> None:
    """List jobs, newest first.

    Example: luthier jobs ls -n 50 -o json
    """
    with client() as luthier:
        found = list(itertools.islice(luthier.fine_tuning.jobs.list(limit=min(limit, 100)), limit))
    columns = [
        ("job", lambda job: job.id),
        ("status", lambda job: job.status),
        ("done", _done),
        ("base", lambda job: job.model),
        ("model", lambda job: job.fine_tuned_model),
        ("created", lambda job: when(job.created_at)),
    ]
    print_records(found, columns, output)


@app.command("show")
def show_job(job: JobId, output: Output = Format.table) -> None:
    """Show every field of a job.

    Example: luthier jobs show ftjob-eG6Z64rIbJ450brAy3d2gM5Z
    """
    with client() as luthier:
        print_record(luthier.fine_tuning.jobs.retrieve(job), output)


@app.command("cancel")
def cancel_job(job: JobId, output: Output = Format.table) -> None:
    """End a job before it is done.

    Example: luthier jobs cancel ftjob-eG6Z64rIbJ450brAy3d2gM5Z
    """
    with client() as luthier:
        print_record(luthier.fine_tuning.jobs.cancel(job), output)


@app.command("pause")
def pause_job(job: JobId, output: Output = Format.table) -> None:
    """Pause a job; it gives its place to others until it is resumed.

    Example: luthier jobs pause ftjob-eG6Z64rIbJ450brAy3d2gM5Z
    """
    with client() as luthier:
        print_record(luthier.fine_tuning.jobs.pause(job), output)


@app.command("resume")
def resume_job(job: JobId, output: Output = Format.table) -> None:
    """Resume a paused job.

    Example: luthier jobs resume ftjob-eG6Z64rIbJ450brAy3d2gM5Z
    """
    with client() as luthier:
        print_record(luthier.fine_tuning.jobs.resume(job), output)


@app.command("download")
def download_results(
    job: JobId,
    to: Annotated[
        Optional[Path], typer.Option(file_okay=False, help="The folder to write to; one of the job's name if missing.")
    ] = None,
    force: Force = False,
) -> None:
    """Download the result files of a job; prints their paths. One that exists is replaced with --force only.

    Example: luthier jobs download ftjob-eG6Z64rIbJ450brAy3d2gM5Z --to results
    """
    with client() as luthier:
        written = luthier.download(job, to or Path(job), overwrite=force)
    for path in written:
        line(path)
    if not written:
        note(f"{job} has no result files; a job has them when it has succeeded.")


def watch(job: JobId, output: Output = Format.table) -> None:
    """Follow a job to its end, with its progress and loss. The exit code is the verdict; Ctrl-C leaves it running.

    Example: luthier watch ftjob-eG6Z64rIbJ450brAy3d2gM5Z
    """
    from luthier.cli.follow import followed
    from luthier.cli.tune import finish

    finish(followed(job), output)


def wait(
    job: JobId,
    timeout: Annotated[
        Optional[float], typer.Option(min=0.1, callback=number, help="Give up after so many seconds, with 124.")
    ] = None,
    output: Output = Format.id,
) -> None:
    """Wait for the end of a job, in silence. Exit code: 0 succeeded, 1 failed, 4 cancelled, 124 timeout.

    Example: luthier wait ftjob-eG6Z64rIbJ450brAy3d2gM5Z --timeout 3600 && echo tuned
    """
    from luthier.cli.follow import followed
    from luthier.cli.tune import finish

    finish(followed(job, quiet=True, timeout=timeout), output)


def logs(
    job: JobId,
    metrics: Annotated[bool, typer.Option(help="Also one line per step.")] = False,
    output: Output = Format.table,
) -> None:
    """Print the events of a job, oldest first.

    Example: luthier logs ftjob-eG6Z64rIbJ450brAy3d2gM5Z --metrics -o json
    """
    from luthier.cli.follow import describe

    with client() as luthier:
        found = list(luthier.fine_tuning.jobs.events.list(job, limit=1000))[::-1]
    shown = [event for event in found if metrics or event.type == "message"]
    if output is Format.json:
        print_json([event.to_dict() for event in shown])
    for event in shown if output is not Format.json else ():
        line(event.id if output is Format.id else visible(describe(event)))


def _done(job: "JobObject") -> str:
    if job.progress.queue_position is not None:
        return f"queued: {job.progress.queue_position}"
    return f"{job.progress.percent:.0f} %"
