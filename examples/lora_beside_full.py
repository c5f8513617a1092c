"""LoRA and full fine-tuning side by side: what each learns of a narrow task, and what each forgets of everything else.

    python examples/lora_beside_full.py --start        starts a service of its own, as the demo does
    python examples/lora_beside_full.py                uses OPENAI_BASE_URL and OPENAI_API_KEY

Both jobs have the same rows, seed, epochs and batches, run at the same time on one copy of the base, and ask for a
forgetting report: the loss of a general text before and after (docs/methods.md). LoRA has rank 8 and alpha 16, as
guides have it; each learning rate is the service's own for that tuning and the size of the base.
"""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demo.jobs import follow, upload
from demo.questions import Question, ask_all, count_right, read_questions, write_questions
from demo.service_process import running_service
from openai import OpenAI
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent / "demo"
TUNINGS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "lora": {"r": 8, "alpha": 16}},
    "full": {"type": "full"},
}
MAX_TOKENS = 16


@dataclass(frozen=True)
class Outcome:
    """What one job came to; the losses are nats per token of the general text."""

    model: str
    learning_rate: float  # the highest of all steps
    loss_before: float
    loss_after: float
    likelihood_change: float  # of a token of the general text: exp(before - after) - 1


def main() -> int:
    """Returns the exit code: 0 when both jobs have succeeded."""
    parser = argparse.ArgumentParser(description="LoRA and full fine-tuning of one base, with what each forgets.")
    parser.add_argument("--start", action="store_true", help="start a service for this run, and stop it at the end")
    parser.add_argument("--model", default="luthier-tiny", help="the base to tune (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the training rows (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a step (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="train only the first so many rows (default: all)")
    parser.add_argument("--questions", type=int, help="ask only the first so many questions (default: all)")
    options = parser.parse_args()
    training = read_questions(FOLDER / "training.jsonl")[: options.rows]
    held_out = read_questions(FOLDER / "heldout.jsonl")[: options.questions]
    with ExitStack() as stack:
        client = create_client(stack, options.start)
        outcomes = tune(client, options, training)
        right = {name: score(client, one.model, held_out) for name, one in outcomes.items()}
        right["base"] = score(client, options.model, held_out)
    show(outcomes, right, len(held_out))
    return 0


def create_client(stack: ExitStack, start: bool) -> OpenAI:
    """The official client: of a service that lives as long as `stack`, or of the one that the environment names."""
    if not start:
        return OpenAI()
    service = stack.enter_context(running_service())
    return OpenAI(base_url=service.base_url, api_key=service.api_key)


def tune(client: OpenAI, options: argparse.Namespace, training: list[Question]) -> dict[str, Outcome]:
    """Uploads the rows once, runs both jobs at the same time, and returns what each came to."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_questions(path, training)
        training_file = upload(client, path)
    hyperparameters: Any = {"n_epochs": options.epochs, "batch_size": options.batch_size}
    jobs = {
        name: client.fine_tuning.jobs.create(
            model=options.model,
            training_file=training_file,
            suffix=name,
            seed=1,
            method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            extra_body={"tuning": tuning, "forgetting_report": True},
        ).id
        for name, tuning in TUNINGS.items()
    }
    return {name: outcome(client, name, job_id) for name, job_id in jobs.items()}


def outcome(client: OpenAI, name: str, job_id: str) -> Outcome:
    """Follows the job to its end. Exits with its reason where it has no model."""
    rates: list[float] = []
    report: dict[str, float] = {}
    for event in follow(client, job_id):
        if event.type == "message":
            print(f"  {name}: {event.message}")
        if not isinstance(event.data, dict):
            continue
        if event.type == "metrics":
            rates.append(event.data["learning_rate"])
        elif "likelihood_change" in event.data:
            report = event.data
    job = client.fine_tuning.jobs.retrieve(job_id)
    if job.fine_tuned_model is None:
        raise SystemExit(f"{name} ended as '{job.status}': {job.error.message if job.error else 'no reason given'}")
    return Outcome(
        job.fine_tuned_model, max(rates), report["loss_before"], report["loss_after"], report["likelihood_change"]
    )


def score(client: OpenAI, model: str, held_out: list[Question]) -> int:
    """How many of the questions the model gets right, letter by letter."""
    return count_right(held_out, ask_all(client, model, held_out, MAX_TOKENS))


def show(outcomes: dict[str, Outcome], right: dict[str, int], num_questions: int) -> None:
    """One line for the base and one for each tuning."""
    before = next(iter(outcomes.values())).loss_before
    table = Table(title="The task, and a general text", title_justify="left")
    for heading in (
        "model",
        "learning rate",
        f"right of {num_questions}",
        "loss of general text",
        "a token's likelihood",
    ):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    table.add_row("base", "", str(right["base"]), f"{before:.3f}", "")
    for name, one in outcomes.items():
        table.add_row(
            name, f"{one.learning_rate:.2g}", str(right[name]), f"{one.loss_after:.3f}", f"{one.likelihood_change:+.1%}"
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
