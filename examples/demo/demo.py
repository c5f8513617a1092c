"""From a file to a tuned answer: `make demo`.

Starts Luthier in a temporary folder, tunes its bundled base through the official `openai` SDK, and asks the base and
the tuned model the same questions. Exits with 1 when tuning did not show. Read `run` first.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from display import Stopwatch, show_answers, show_seconds, training_bar
from jobs import follow, upload
from openai import OpenAI, OpenAIError
from questions import ask, ask_all, count_right, not_among, read_questions
from rich.console import Console
from rich.text import Text
from service_process import ServiceFailed, running_service

FOLDER = Path(__file__).parent
BASE = "luthier-tiny"
N_EPOCHS, BATCH_SIZE = 6, 8
MAX_TOKENS = 16  # of an answer; the longest right one needs fewer
ROWS_SHOWN = 8
TUNED_AT_LEAST, BASE_AT_MOST = 0.8, 0.2


class DemoFailed(Exception):
    """The demo could not show what it is there to show; the message says why."""


def main() -> int:
    """Returns the exit code."""
    console = Console(highlight=False)
    try:
        run(console)
    except KeyboardInterrupt:
        console.print("\nStopped, and so is everything that the demo had started.")
        return 130
    except (DemoFailed, ServiceFailed, OpenAIError) as error:
        console.print(Text(f"\nThe demo failed: {error}", style="bold red"))
        return 1
    return 0


def run(console: Console) -> None:
    """The whole journey. Raises DemoFailed where it does not end in a tuned model that knows more than its base."""
    watch = Stopwatch()
    training = read_questions(FOLDER / "training.jsonl")
    held_out = read_questions(FOLDER / "heldout.jsonl")
    assert not_among(held_out, training) == held_out, "a held-out question is one of the training rows"
    console.print(
        f"\n[bold]Luthier demo[/bold]: messages to a guitar maker's workshop, sorted by what they want.\n"
        f"{len(training)} sorted ones tune the base '{BASE}'; {len(held_out)} others test it before and after.\n"
    )

    with ExitStack() as stack:
        with console.status("Starting API, worker and engine"):
            service = stack.enter_context(running_service())
        watch.lap("start")
        console.print(f"  Luthier answers at {service.base_url}")

        client = OpenAI(base_url=service.base_url, api_key=service.api_key)
        job_id = create_job(client)
        tuned = watch_job(console, watch, client, job_id)
        ask(client, tuned, held_out[0], MAX_TOKENS)
        watch.lap("first tuned answer")

        with console.status(f"Asking both models {len(held_out)} questions"):
            base_answers = ask_all(client, BASE, held_out, MAX_TOKENS)
            tuned_answers = ask_all(client, tuned, held_out, MAX_TOKENS)
        watch.lap("evaluation")
        with console.status("Stopping what was started"):
            stack.close()
        watch.lap("stop")

    console.print()
    show_answers(console, held_out, base_answers, tuned_answers, ROWS_SHOWN)
    base_right, tuned_right = count_right(held_out, base_answers), count_right(held_out, tuned_answers)
    console.print(f"Exact match on all {len(held_out)} held-out questions:")
    console.print(f"  base   {base_right:3} right, {base_right / len(held_out):4.0%}")
    console.print(f"  tuned  {tuned_right:3} right, {tuned_right / len(held_out):4.0%}\n")
    show_seconds(console, watch.seconds)
    judge(base_right / len(held_out), tuned_right / len(held_out))
    console.print("\nYour own data next: `make up` keeps a service running and prints what to paste.")


def create_job(client: OpenAI) -> str:
    """Uploads both files and creates the job; returns its id."""
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=upload(client, FOLDER / "training.jsonl"),
        validation_file=upload(client, FOLDER / "validation.jsonl"),
        suffix="workshop",
        seed=1,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": N_EPOCHS, "batch_size": BATCH_SIZE}},
        },
    )
    return job.id


def watch_job(console: Console, watch: Stopwatch, client: OpenAI, job_id: str) -> str:
    """Shows the job's events until its end; returns the tuned model's name."""
    with training_bar(console) as bar:
        for event in follow(client, job_id):
            if isinstance(event.data, dict) and event.type == "metrics":
                bar.show(event.data)
                continue
            console.print(Text(f"  {event.message}"), soft_wrap=True)
            if event.message.startswith("Files validated"):
                watch.lap("upload + validation")
    watch.lap("training")
    job = client.fine_tuning.jobs.retrieve(job_id)
    if job.fine_tuned_model is None:
        reason = job.error.message if job.error else "no reason given"
        raise DemoFailed(f"the job ended as '{job.status}': {reason}")
    return job.fine_tuned_model


def judge(base: float, tuned: float) -> None:
    """Raises DemoFailed unless tuning made the difference."""
    if tuned < TUNED_AT_LEAST:
        raise DemoFailed(
            f"the tuned model is right {tuned:.0%} of the time; at least {TUNED_AT_LEAST:.0%} was expected"
        )
    if base > BASE_AT_MOST:
        raise DemoFailed(f"the base is right {base:.0%} of the time, above the expected {BASE_AT_MOST:.0%}")


if __name__ == "__main__":
    sys.exit(main())
