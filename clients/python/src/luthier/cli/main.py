"""`luthier`: puts the commands together, and turns errors into lines that say what to do."""

import sys

import typer

from luthier.cli import aliases, chat, check, compare, files, jobs, keys, login, models, open_page, tune
from luthier.cli.session import EXIT_ERROR, EXIT_INTERRUPTED, described

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Tune models on a Luthier service, and call them.\n\n"
        "Example: luthier tune training.jsonl --base luthier-tiny\n\n"
        "Exit codes: 0 succeeded, 1 the job failed, 2 wrong arguments, 3 a gate was not met, 4 the job was "
        "cancelled, 5 the request failed, 124 timeout, 130 interrupted."
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
    from luthier.errors import LuthierError

    try:
        app(prog_name="luthier")  # also as `python -m luthier`: completion is found by it
    except LuthierError as error:
        typer.echo(described(error), err=True)
        sys.exit(EXIT_ERROR)
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"luthier: {error.filename}: {error.strerror}. Check the path and its permissions.", err=True)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
