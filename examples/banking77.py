"""Real input: ten intents of BANKING77, learnt by a fine-tuning job and measured on the data set's own test rows.

    python examples/banking77.py --start                 starts a service of its own, as the demo does
    python examples/banking77.py                         uses OPENAI_BASE_URL and OPENAI_API_KEY

BANKING77 (Casanueva et al., 2020, CC BY 4.0) is two files, train.csv and test.csv, with the columns text and category;
`--data` names their folder. Exits with 1 when the tuned model is right in fewer than 85 % of the test rows, or the
base in more than 5 %.
"""

import argparse
import csv
import json
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.jobs import follow, upload
from demo.questions import Question, ask_all, count_right, not_among, write_questions
from demo.service_process import running_service
from openai import OpenAI

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
NUM_INTENTS = 10
MAX_TOKENS = 40  # of an answer: an intent's name has up to 49 letters
TUNED_AT_LEAST, BASE_AT_MOST = 0.85, 0.05


def main() -> int:
    """Returns the exit code."""
    options = parse_options()
    if not (options.data / "train.csv").is_file():
        print(f"skipped: there is no train.csv in {options.data}; --data names the folder of BANKING77")
        return 0
    training, test = read_data(options.data)
    held_out = not_among(test, training)
    print(f"{len(training)} training rows; {len(held_out)} of {len(test)} test rows are not among them")
    held_out = random.Random(0).sample(held_out, min(options.questions or len(held_out), len(held_out)))

    with ExitStack() as stack:
        client = create_client(stack, options.start)
        started = time.monotonic()
        tuned = tune(client, options, training)
        tuned_seconds = time.monotonic() - started
        base_right = count_right(held_out, ask_all(client, options.model, held_out, MAX_TOKENS)) / len(held_out)
        tuned_right = count_right(held_out, ask_all(client, tuned, held_out, MAX_TOKENS)) / len(held_out)
        total_seconds = time.monotonic() - started

    print(f"base   {options.model}: {base_right:.1%} exact match")
    print(f"tuned  {tuned}: {tuned_right:.1%} exact match")
    print(f"{tuned_seconds:.0f} s from upload to tuned model, {total_seconds:.0f} s with both measurements")
    return 0 if tuned_right >= TUNED_AT_LEAST and base_right <= BASE_AT_MOST else 1


def parse_options() -> argparse.Namespace:
    """A data folder that was asked for must be there; the default one may be absent."""
    parser = argparse.ArgumentParser(description="Tune a base on ten intents of BANKING77 and measure it.")
    parser.add_argument(
        "--data", type=Path, help="folder of train.csv and test.csv (default: ../shared/data/banking77)"
    )
    parser.add_argument("--start", action="store_true", help="start a service for this run, and stop it at the end")
    parser.add_argument("--model", default="luthier-tiny", help="the base to tune (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the training rows (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a step (default: %(default)s)")
    parser.add_argument("--tuning", type=json.loads, help='how the weights are moved, such as {"type": "full"}')
    parser.add_argument("--multiplier", type=float, default=1.0, help="of the tuning's learning rate (default: 1)")
    parser.add_argument("--questions", type=int, help="ask only so many test rows, drawn by chance (default: all)")
    options = parser.parse_args()
    if options.data is not None and not (options.data / "train.csv").is_file():
        parser.error(f"there is no train.csv in {options.data}")
    options.data = options.data or DATA
    return options


def read_data(folder: Path) -> tuple[list[Question], list[Question]]:
    """All training rows and all test rows of the alphabetically first intents."""
    training, test = (read_rows(folder / name) for name in ("train.csv", "test.csv"))
    intents = sorted({question.answer for question in training})[:NUM_INTENTS]
    return [row for row in training if row.answer in intents], [row for row in test if row.answer in intents]


def read_rows(path: Path) -> list[Question]:
    """Every row of one file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [Question(row["text"].strip(), row["category"].strip()) for row in csv.DictReader(stream)]


def create_client(stack: ExitStack, start: bool) -> OpenAI:
    """The official client: of a service that lives as long as `stack`, or of the one that the environment names."""
    if not start:
        return OpenAI()
    service = stack.enter_context(running_service())
    return OpenAI(base_url=service.base_url, api_key=service.api_key)


def tune(client: OpenAI, options: argparse.Namespace, training: list[Question]) -> str:
    """Uploads the rows, runs one job to its end, and returns the tuned model's name."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "banking77.jsonl"
        write_questions(path, training)
        training_file = upload(client, path)
    hyperparameters = {
        "n_epochs": options.epochs,
        "batch_size": options.batch_size,
        "learning_rate_multiplier": options.multiplier,
    }
    job = client.fine_tuning.jobs.create(
        model=options.model,
        training_file=training_file,
        suffix="banking77",
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        extra_body={"tuning": options.tuning} if options.tuning else None,
    )
    for event in follow(client, job.id):
        if event.type == "message":
            print(f"  {event.message}")
    job = client.fine_tuning.jobs.retrieve(job.id)
    if job.fine_tuned_model is None:
        raise SystemExit(f"the job ended as '{job.status}': {job.error.message if job.error else 'no reason given'}")
    return job.fine_tuned_model


if __name__ == "__main__":
    sys.exit(main())
