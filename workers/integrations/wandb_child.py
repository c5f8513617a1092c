"""The process of one Weights & Biases run, started by `tracker` for each integration of a job.

It is a process of its own because the client has threads, a server process and long waits, which must not affect a
worker. It gets names, numbers and the key; never a row, a text or a database. Reads lines of JSON: a `Start`, then
`Step`s, then at most one `End`. Writes one line, `Opened`. Without an `End` (its worker died) it exits and leaves the
run open for the next worker that has the job.
"""

import os
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, Field, TypeAdapter

from service.processes.parent import claim_standard_streams, leave_signals_to_parent

INIT_SECONDS = 30.0
FINISH_SECONDS = 60.0
MESSAGE_CHARACTERS = 300


class Start(BaseModel):
    """Which run this is; a second start with the same `id` continues it."""

    type: Literal["start"] = "start"
    id: str
    project: str
    entity: str | None
    name: str
    tags: list[str]
    config: dict[str, Any]
    folder: Path  # for the client's own files


class Step(BaseModel):
    """The metrics of one step; the client ignores a step that the run already has."""

    type: Literal["step"] = "step"
    metrics: dict[str, int | float]


class End(BaseModel):
    """The job's status. Where it is not final (paused, released), the run will be continued."""

    type: Literal["end"] = "end"
    status: str
    final: bool
    fine_tuned_model: str | None


class Opened(BaseModel):
    """Whether the run is open; `problem` says in one line why not."""

    problem: str | None


Line = Annotated[Start | Step | End, Field(discriminator="type")]
lines: TypeAdapter[Line] = TypeAdapter(Line)


def main() -> None:
    """Serves one run, from the first line of stdin to its end."""
    leave_signals_to_parent()  # the last steps and the job's status are still to come
    incoming, outgoing = claim_standard_streams()
    start = lines.validate_json(incoming.readline())
    assert isinstance(start, Start)
    try:
        run = _open(start)
    except Exception as error:  # the client raises many kinds of errors; after each there is no run
        _report(outgoing, _one_line(error))
        os._exit(1)
    _report(outgoing, None)
    for text in incoming:
        line = lines.validate_json(text)
        if isinstance(line, Step):
            run.log(line.metrics, step=int(line.metrics["step"]))
        elif isinstance(line, End):
            _finish(run, line)
            return
    os._exit(1)  # the worker died: the status of the job is unknown


def _open(start: Start) -> Any:
    import wandb  # noqa: PLC0415  optional: where it is missing, only this run fails

    settings = wandb.Settings(
        root_dir=str(start.folder), console="off", silent=True, program="luthier", init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS, disable_git=True, disable_code=True, save_code=False, x_disable_meta=True,
        x_disable_stats=True, x_disable_machine_info=True, x_save_requirements=False,
    )  # fmt: skip
    return wandb.init(
        id=start.id, project=start.project, entity=start.entity, name=start.name, tags=start.tags,
        config=start.config, resume="allow", settings=settings,
    )  # fmt: skip


def _finish(run: Any, end: End) -> None:
    run.summary["status"] = end.status
    if end.fine_tuned_model is not None:
        run.summary["fine_tuned_model"] = end.fine_tuned_model
    if not end.final:
        run.mark_preempting()
    run.finish(exit_code=0 if end.final and end.status != "failed" else 1)


def _one_line(error: Exception) -> str:
    """The error in one line, without the key."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    key = os.environ.get("WANDB_API_KEY")
    return (text.replace(key, "***") if key else text)[:MESSAGE_CHARACTERS]


def _report(outgoing: BinaryIO, problem: str | None) -> None:
    outgoing.write(Opened(problem=problem).model_dump_json().encode() + b"\n")
    outgoing.flush()


if __name__ == "__main__":
    main()
