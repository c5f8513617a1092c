"""Prints what the code looks like from afar, read from its imports: `python -m docs.structure`.

A room is what lies directly in a program: a folder with everything below it, or a file. An arrow stands for all imports
from one room to another; floors are the rooms on the longest chain of arrows, where rooms that import each other (a
circle) count as one. Circles of packages, each folder by itself, are found too. Source text is read, never imported.
Modules without code and the database's revisions, which Alembic finds by their folder, are left out.

A module with exactly one importer may have been split off because of its length alone, so these are counted; those of
which the layout wants one each are counted apart: see `why_alone`.
"""

import ast
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal, get_args

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("service", "workers")
REVISIONS = "migrations"
METHOD = re.compile(r"(?<![A-Za-z])[Ll][Oo][Rr][Aa](?![a-z])")
OWN_FILES = ("tunings/lora.py",)  # of both programs
VLLM = "workers/engines/vllm"  # whose own flags and classes have the word
_SERVED = "a model may be served as a LoRA, which every engine knows"
_SENT = "of adapters that were trained elsewhere, LoRA are imported"
WITH_A_REASON = {  # patterns of paths; the first that fits
    "service/recipes/dialects.py": "what other tools call their settings",
    "service/recipes/tunings/full.py": "the title of the paper that its learning rate is from",
    "service/recipes/tunings/*.py": "what a tuning has in common with it, and whether it can be served as one",
    "service/recipes/tuning.py": _SERVED,
    "service/recipes/served_form.py": _SERVED,
    "service/api/schemas/jobs.py": _SERVED,
    "service/domain/event.py": _SERVED,
    "service/dashboard/web/job_form.py": _SERVED,
    "workers/trainer/process/served_form.py": _SERVED,
    "workers/tunings/lora_form.py": _SERVED,
    "workers/tunings/private_weights.py": _SERVED,
    "workers/tunings/weight_changes.py": _SERVED,
    "service/*/model_import*.py": _SENT,
    "workers/tunings/foreign_lora.py": _SENT,
    "workers/trainer/process/examine.py": _SENT,
    "workers/trainer/process/trial.py": "the name of vLLM's flag",
    f"{VLLM}/*": "vLLM's flags and classes",
}
COMMAND_LINES = ("__main__", "cli")
START = "__name__ == '__main__'"  # what a module asks that is run as a program
Reason = Literal["command", "process", "implementation", "row", "noun", "rest"]
ALONE: dict[Reason, str] = {
    "command": "started by a command line",
    "process": "a process of its own",
    "implementation": "picked by its folder",
    "row": "one of several that are registered",
    "noun": "the same noun in another room",
    "rest": "the rest, listed below",
}
ROW = 3  # modules of one folder that a module imports, at least, where it registers one after the other
UNTYPED = "dict[str, Any]"
SHARED_BY = 1  # importers of a module that only one other needs

Graph = dict[str, set[str]]  # who imports -> what


@dataclass(frozen=True)
class Module:
    """One file with code, its path below the root, and its dotted name."""

    path: str
    name: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return "/".join(self.path.split("/")[:2])

    @property
    def package(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(frozen=True)
class Figures:
    """The counts of one program. Lengths of functions are in lines, decorators left out."""

    rooms: int
    floors: int
    arrows: int
    circles: tuple[tuple[str, ...], ...]  # of rooms, then of packages
    modules: int
    alone: tuple[tuple[str, str, Reason], ...]  # modules with one importer: name, importer, why
    function_lines_median: float
    function_lines_p90: int
    untyped_dicts: int
    naming_lora: tuple[str, ...]

    def with_one_importer(self, reason: Reason) -> int:
        return sum(why == reason for _, _, why in self.alone)


def main() -> None:
    """Prints the figures of the service, of the workers and of both."""
    modules = [module for program in PROGRAMS for module in read_modules(ROOT, program)]
    columns = {program: figures(modules, program) for program in PROGRAMS} | {"both": figures(modules)}
    for label, values in rows(columns):
        print(f"{label:36}" + "".join(f"{value:>10}" for value in values))
    both = columns["both"]
    for circle in both.circles:
        print("circle:", " <-> ".join(circle))
    for name, importer, why in both.alone:
        if why == "rest":
            print("one importer:", name, "<-", importer)
    for path in both.naming_lora:
        print(f"names lora: {path}: {reason_of(path) or 'without a reason; name the method by its registry'}")


def rows(columns: Mapping[str, Figures]) -> Iterator[tuple[str, list[str]]]:
    """The table: a label and one value for each column."""
    every = list(columns.values())
    yield "", list(columns)
    yield "rooms", [str(one.rooms) for one in every]
    yield "floors (longest chain of rooms)", [str(one.floors) for one in every]
    yield "arrows (a room imports another)", [str(one.arrows) for one in every]
    yield "circles of rooms or packages", [str(len(one.circles)) for one in every]
    yield "modules", [str(one.modules) for one in every]
    yield "modules with exactly one importer", [str(len(one.alone)) for one in every]
    for reason in get_args(Reason):
        yield f"  {ALONE[reason]}", [str(one.with_one_importer(reason)) for one in every]
    yield "lines of a function, median", [f"{one.function_lines_median:g}" for one in every]
    yield "lines of a function, 90th percentile", [str(one.function_lines_p90) for one in every]
    yield UNTYPED, [str(one.untyped_dicts) for one in every]
    yield "files that name lora, but its own", [str(len(one.naming_lora)) for one in every]
    yield "  of these, without a reason", [str(sum(not reason_of(path) for path in one.naming_lora)) for one in every]


def read_modules(root: Path, program: str) -> Iterator[Module]:
    """Every module of a program below `root`, in the order of its path."""
    for path in sorted((root / program).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(root)
        tree = ast.parse(text)
        has_code = len(tree.body) > (ast.get_docstring(tree) is not None)
        if has_code and REVISIONS not in place.parts:
            parts = place.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield Module(place.as_posix(), name, text, tree)


def figures(modules: Iterable[Module], program: str = "") -> Figures:
    """The figures of one program; of all modules without one. Importers are counted among all modules."""
    every = list(modules)
    ours = [module for module in every if module.path.startswith(f"{program}/") or not program]
    imported = imports(every)
    importers = defaultdict(set)
    for name, targets in imported.items():
        for target in targets:
            importers[target].add(name)
    alone = [
        (module.name, importer, why_alone(module.name, importer, imported[importer], is_program(module.tree)))
        for module in ours
        if len(importers[module.name]) == SHARED_BY
        for importer in importers[module.name]
    ]
    between = graph({module.name: module.room for module in ours}, imported)
    packages = graph({module.name: module.package for module in ours}, imported)
    groups = groups_of(between)
    lengths = sorted(length for module in ours for length in function_lines(module.tree))
    return Figures(
        rooms=len(between),
        floors=floors(between, groups),
        arrows=sum(map(len, between.values())),
        circles=tuple(tuple(sorted(group)) for group in [*groups, *groups_of(packages)] if len(group) > 1),
        modules=len(ours),
        alone=tuple(alone),
        function_lines_median=statistics.median(lengths) if lengths else 0,
        function_lines_p90=percentile(lengths, 0.9),
        untyped_dicts=sum(module.text.count(UNTYPED) for module in ours),
        naming_lora=tuple(sorted(files_naming(ours, METHOD, OWN_FILES))),
    )


def imports(modules: Iterable[Module]) -> Graph:
    """Which modules each module imports, at its top or later; what is not among them is left out."""
    every = {module.name: module.tree for module in modules}
    return {name: set(_targets(tree, every)) - {name} for name, tree in every.items()}


def _targets(tree: ast.Module, every: Mapping[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in every)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    inner = f"{module}.{alias.name}"
                    found = inner if inner in every else module
                    if found in every:
                        yield found


def graph(places: Mapping[str, str], imported: Mapping[str, set[str]]) -> Graph:
    """Which places import which, where `places` has the place of each module: its room or its package."""
    between: Graph = {place: set() for place in places.values()}
    for name, here in places.items():
        between[here] |= {places[target] for target in imported[name] if target in places} - {here}
    return between


def groups_of(between: Graph) -> list[set[str]]:
    """Places that reach each other are one group, a circle; a place that is in no circle is a group of its own."""
    reached = {start: _reach(between, start) for start in between}
    groups: list[set[str]] = []
    for name in sorted(between):
        if not any(name in group for group in groups):
            groups.append({name} | {other for other in reached[name] if name in reached[other]})
    return groups


def _reach(between: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        for target in between[ahead.pop()] - seen:
            seen.add(target)
            ahead.append(target)
    return seen


def floors(between: Graph, groups: Sequence[set[str]]) -> int:
    """How many groups of rooms are on the longest chain of imports."""
    group = {name: number for number, members in enumerate(groups) for name in members}
    below: dict[int, set[int]] = {number: set() for number in range(len(groups))}
    for name, targets in between.items():
        below[group[name]] |= {group[target] for target in targets} - {group[name]}
    height: dict[int, int] = {}
    for number in TopologicalSorter(below).static_order():
        height[number] = 1 + max((height[target] for target in below[number]), default=0)
    return max(height.values(), default=0)


def why_alone(name: str, importer: str, imported: Collection[str], runs: bool = False) -> Reason:
    """Why a module may stand apart from the only one that imports it.

    command         that one is a command line, which imports what was chosen
    process         it `runs` by itself too, started by `python -m`, and imports only what that process needs
    implementation  that one is the folder's own `__init__`, which picks among what implements a port
    row             that one registers several of another folder: routes of an application, kinds of work
    noun            both are about the same: a method's settings and its tensors, a noun's route and its wire models
    rest            it is an idea of its own, which its text has to show: listed, so that a reader can judge
    """
    folder, _, noun = name.rpartition(".")
    ours, _, theirs = importer.rpartition(".")
    if theirs in COMMAND_LINES:
        return "command"
    if runs:
        return "process"
    if importer == folder:
        return "implementation"
    if ours != folder and sum(other.rpartition(".")[0] == folder for other in imported) >= ROW:
        return "row"
    return "noun" if noun == theirs else "rest"


def is_program(tree: ast.Module) -> bool:
    """Whether the module is run by itself: at its top level it asks whether it is `__main__`."""
    return any(isinstance(node, ast.If) and START in ast.unparse(node.test) for node in tree.body)


def reason_of(path: str) -> str:
    """Why a file may name a method that is not its own; empty without one."""
    return next((reason for pattern, reason in WITH_A_REASON.items() if fnmatch(path, pattern)), "")


def function_lines(tree: ast.Module) -> Iterator[int]:
    """The length of every function and method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def percentile(ordered: Sequence[int], share: float) -> int:
    """The smallest value that at least `share` of them do not exceed; 0 of nothing."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0


def files_naming(modules: Iterable[Module], word: re.Pattern[str], own: Sequence[str]) -> Iterator[str]:
    """Paths of modules, not among `own`, whose code or text holds the word."""
    for module in modules:
        if not module.path.endswith(tuple(own)) and word.search(module.text):
            yield module.path


if __name__ == "__main__":
    main()
