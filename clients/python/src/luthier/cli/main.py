"""`luthier`: puts the commands together, and turns errors into lines that say what to do."""

import io
import os
import sys
from typing import Optional, TextIO

import typer

from luthier.cli import aliases, chat, check, compare, files, jobs, keys, login, models, open_page, tune
from luthier.cli.output import note
from luthier.cli.session import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_UNREAD, EXIT_USAGE, described
from luthier.errors import InvalidArgumentError, LuthierError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Tune models on a Luthier service, and call them.\n\n"
        "Example: luthier tune training.jsonl --base luthier-tiny\n\n"
        "Exit codes: 0 succeeded, 1 the job failed, 2 wrong arguments, 3 a gate was not met, 4 the job was "
        "cancelled, 5 the request failed, 124 timeout, 130 interrupted, 141 nobody reads the output."
    ),
)
app.command("login")(login.login)
app.command("tune")(tune.tune)
app.command("check")(check.check)
app.command("watch")(jobs.watch)
app.command("wait")(jobs.wait)
app.command("logs")(jobs.logs)
app.command("chat")(chat.chat)
app.command("compare")(compare.compare)
app.command("open")(open_page.open_page)
app.command("pull")(models.pull)
app.command("push")(models.push)
app.command("promote")(aliases.promote)
app.command("rollback")(aliases.rollback)
app.add_typer(jobs.app, name="jobs")
app.add_typer(files.app, name="files")
app.add_typer(models.app, name="models")
app.add_typer(aliases.app, name="aliases")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """The console script."""
    code = _code()
    for stream in (sys.stdout, sys.stderr):
        if not _flushed(stream):
            code = code or EXIT_ERROR
    sys.exit(code)


def _code() -> int:
    """Runs the command. Whatever ends it, people get a line that says why, and never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of encodings that cannot hold what is printed
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="strict")  # in some locales what is no text would pass, and fail where it is sent
    try:
        app(prog_name="luthier")  # also as `python -m luthier`: completion is found by it
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            return EXIT_UNREAD  # as `luthier jobs ls | head -1`
        return ended.code if isinstance(ended.code, int) else 0
    except InvalidArgumentError as error:
        note(f"luthier: {error}")
        return EXIT_USAGE
    except LuthierError as error:
        note(described(error))
        return EXIT_ERROR
    except FileExistsError as error:
        note(f"luthier: {error.filename} exists. Name another file with --to, or replace it with --force.")
        return EXIT_ERROR
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        note(f"luthier: {place}{error.strerror or error}. Check the path, its permissions and the space on the disk.")
        return EXIT_ERROR
    except UnicodeDecodeError as error:
        note(f"luthier: what was read is not text in {error.encoding}: {error.reason} at byte {error.start}.")
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        note(f"luthier: {type(error).__name__}: {error}\n  The command did not foresee this. Please report it.")
        return EXIT_ERROR
    return 0


def _flushed(stream: Optional[TextIO]) -> bool:
    """Whether everything is written; what cannot be is dropped, so that Python does not fail on it at its end."""
    try:
        if stream is not None:
            stream.flush()
    except OSError:
        assert stream is not None
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
