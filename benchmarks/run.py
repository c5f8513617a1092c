"""All benchmarks, one after another, each in a process of its own: `make bench`.

    python -m benchmarks.run [--all] [--quick] [--only gateway,engine] [--output FOLDER]

About forty minutes on two quiet cores, by estimate. Each writes its table and its picture when it ends, into
benchmarks/ unless asked otherwise; one that has ended for this commit is not run again without `--all`, so a run that
was stopped continues. One that fails is named at the end, and the others run. `--quick` takes the smallest sizes,
which show that all still work and measure nothing. At the end all tables and pictures that are there become one page,
RESULTS.md beside them, and docs/performance.md shows the pictures of benchmarks/.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: written by benchmarks/run.py -->", "<!-- end of the figures -->"
DONE = ROOT / ".cache" / "bench"
# name -> module and arguments; then those of --quick
BENCHMARKS: Mapping[str, tuple[str, str, str]] = {
    "train_many": (
        "train_many",
        "--minutes 2 --rounds 2 --bases tiny --jobs 8",
        "--minutes 0 --bases tiny --jobs 2 --epochs 1",
    ),
    "train_many_12m": (
        "train_many",
        "--name train_many_12m --minutes 0 --bases 12m --jobs 8",
        "--name train_many_12m --minutes 0 --bases tiny --jobs 1 --epochs 1",
    ),
    "train_many_135m": (
        "train_many",
        "--name train_many_135m --minutes 0 --bases 135m --jobs 2",
        "--name train_many_135m --minutes 0 --bases tiny --jobs 1 --epochs 1",
    ),
    "train_one": (
        "train_one",
        "--minutes 3 --rounds 3 --bases tiny,12m --steps 8",
        "--minutes 0 --bases tiny --data demo --steps 2",
    ),
    "train_one_135m": (
        "train_one",
        "--name train_one_135m --minutes 0 --bases 135m --dtypes float32 --steps 2",
        "--name train_one_135m --minutes 0 --bases tiny --data banking77 --steps 2",
    ),
    "train_one_bfloat16": (
        "train_one",
        "--name train_one_bfloat16 --minutes 0 --bases 135m --data banking77 --dtypes bfloat16 --steps 3",
        "--name train_one_bfloat16 --minutes 0 --bases tiny --data demo --dtypes bfloat16 --steps 2",
    ),
    "journey": ("journey", "--minutes 1", "--minutes 0 --rounds 1"),
    "fair_share": ("fair_share", "--small 8 --seconds 30", "--small 1 --seconds 3"),
    "gateway": ("gateway", "--minutes 1", "--minutes 0 --requests 20 --streams 4"),
    "ingest": (
        "ingest",
        "--minutes 1 --upload-megabytes 500 --check-megabytes 60",
        "--minutes 0 --upload-megabytes 2 --check-megabytes 1",
    ),
    "engine": ("engine", "--minutes 2", "--minutes 0 --bases tiny --rows 1,4 --tokens 4 --peers="),
    "idle": ("idle", "--seconds 60", "--seconds 1 --settle 0"),
    "growth": ("growth", "--minutes 2", "--minutes 0 --jobs 20 --events 40 --models 3 --files 5"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", help="also those that have ended for this commit")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes")
    parser.add_argument("--only", default=",".join(BENCHMARKS), help="some of %(default)s")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    commands = {
        name: [sys.executable, "-m", f"benchmarks.{module}", *(quick if options.quick else full).split()]
        for name, (module, full, quick) in BENCHMARKS.items()
        if name in options.only.split(",")
    }
    failed = run(commands, options.output, None if options.quick else DONE, again=options.all)
    (options.output / "RESULTS.md").write_text(page(list(BENCHMARKS), options.output), encoding="utf-8")
    if options.output == HERE:
        DOCUMENT.write_text(with_figures(DOCUMENT.read_text(encoding="utf-8"), list(BENCHMARKS)), encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(commands: Mapping[str, Sequence[str]], output: Path, done: Path | None, *, again: bool = False) -> list[str]:
    """The names of those that failed. `done` is where it is kept which have ended; without it all are run."""
    output.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    failed = []
    for name, command in commands.items():
        arguments = [*command, "--output", str(output)]
        mark, ended = None if done is None else done / name, f"{commit.strip()} {' '.join(arguments)}"
        if mark is not None and not again and mark.exists() and mark.read_text(encoding="utf-8") == ended:
            print(f"{name}: has ended for this commit", flush=True)
            continue
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        code = subprocess.run(arguments, cwd=ROOT, check=False).returncode
        print(f"== {name}: {'done' if code == 0 else f'failed with {code}'} in {time.monotonic() - began:.0f} s")
        if code:
            failed.append(name)
        elif mark is not None:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(ended, encoding="utf-8")
    return failed


def page(names: Sequence[str], output: Path) -> str:
    """The tables and pictures of these benchmarks, as far as they are there, in Markdown."""
    parts = ["# Results of the benchmarks\n\nWritten by `make bench`; docs/performance.md says what each measures.\n"]
    for name in names:
        table, picture = output / f"{name}.txt", output / f"{name}.svg"
        if table.exists():
            text = table.read_text(encoding="utf-8").rstrip("\n")
            parts.append(f"## {name}\n\n```text\n{text}\n```\n")
            parts += [f"![{name}]({picture.name})\n"] if picture.exists() else []
    return "\n".join(parts)


def with_figures(document: str, names: Sequence[str], folder: Path = HERE) -> str:
    """The document with the pictures that are in the folder between its two marks, and a link to their tables.

    Raises ValueError where a mark is missing.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has not both of {BEGIN} and {END}")
    shown = [f"![{name}](../benchmarks/{name}.svg)" for name in names if (folder / f"{name}.svg").exists()]
    if shown:
        shown.insert(0, "The tables of these are in [RESULTS.md](../benchmarks/RESULTS.md).")
    return "\n\n".join([before + begin, *shown, end + after])


if __name__ == "__main__":
    main()
