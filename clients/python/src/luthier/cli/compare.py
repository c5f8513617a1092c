"""`luthier compare`: what differs between two jobs, and where their losses went."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli.output import Format, Output, line, print_json, print_table
from luthier.cli.session import client

if TYPE_CHECKING:
    from luthier.generated.models import JobObject

COMPARED = (
    "status",
    "model",
    "training_file",
    "validation_file",
    "seed",
    "trained_tokens",
    "fine_tuned_model",
    "method",
    "tuning",
)


def compare(
    first: Annotated[str, typer.Argument(metavar="JOB", help="The id of a job.")],
    second: Annotated[str, typer.Argument(metavar="JOB", help="The id of another job.")],
    output: Output = Format.table,
) -> None:
    """Show the settings in which two jobs differ, and their losses.

    Example: luthier compare ftjob-eG6Z64rIbJ450brAy3d2gM5Z ftjob-8uXb2nXv0gQW1mN5kD3sT7aE
    """
    from luthier.cli.curve import LOSSES, curve_of, sparkline

    with client() as luthier:
        jobs = [luthier.fine_tuning.jobs.retrieve(id) for id in (first, second)]
        curves = [curve_of(list(luthier.fine_tuning.jobs.events.list(job.id, limit=1000))) for job in jobs]
    differing = differences(*jobs)
    losses = {name: [curve.last(name) for curve in curves] for name in LOSSES}
    if output is Format.json:
        print_json({"jobs": [first, second], "settings": differing, "losses": losses})
        return
    if output is Format.id:
        line(f"{first}\n{second}")
        return
    rows: list[list[object]] = [[name, *values] for name, values in differing.items()]
    rows += [[f"last {name}", *(_number(value) for value in values)] for name, values in losses.items() if any(values)]
    rows.append(["train_loss", *(sparkline(curve.values("train_loss")) for curve in curves)])
    print_table(["", first, second], rows)


def differences(first: "JobObject", second: "JobObject") -> dict[str, list[Any]]:
    """The settings that differ, nested ones by their path."""
    left, right = _flat(first.to_dict()), _flat(second.to_dict())
    names = list(dict.fromkeys([*left, *right]))
    return {name: [left.get(name), right.get(name)] for name in names if left.get(name) != right.get(name)}


def _flat(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                walk(f"{path}.{name}", one)
        else:
            found[path] = value

    for name in COMPARED:
        walk(name, job.get(name))
    return found


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""
