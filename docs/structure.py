"""Prints what the code looks like from afar, read from its imports: `python -m docs.structure`.

A room is what lies directly in a program: a folder with everything below it, or a file. An arrow stands for all imports
from one room to another; floors are the rooms on the longest chain of arrows, where rooms that import each other (a
circle) count as one. Circles of packages, each folder by itself, are found too. Source text is read, never imported.
Modules without code and the database's revisions, which Alembic finds by their folder, are left out.
"""

import ast
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("service", "workers")
REVISIONS = "migrations"
METHOD = re.compile(r"(?<![A-Za-z])[Ll][Oo][Rr][Aa](?![a-z])")
OWN_FILES = ("tunings/lora.py",)  # of both programs
VLLM = "workers/engines/vllm"  # whose own flags and classes have the word
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
    with_one_importer: int
    function_lines_median: float
    function_lines_p90: int
    untyped_dicts: int
    naming_lora: tuple[str, ...]


def main() -> None:
    """Prints the figures of the service, of the workers and of both."""
    modules = [module for program in PROGRAMS for module in read_modules(ROOT, program)]
    columns = {program: figures(modules, program) for program in PROGRAMS} | {"both": figures(modules)}
    for label, values in rows(columns):
        print(f"{label:36}" + "".join(f"{value:>10}" for value in values))
    both = columns["both"]
    for circle in both.circles:
        print("circle:", " <-> ".join(circle))
    for name in both.naming_lora:
        print("names lora:", name)


def rows(columns: Mapping[str, Figures]) -> Iterator[tuple[str, list[str]]]:
    """The table: a label and one value for each column."""
    every = list(columns.values())
    yield "", list(columns)
    yield "rooms", [str(one.rooms) for one in every]
    yield "floors (longest chain of rooms)", [str(one.floors) for one in every]
    yield "arrows (a room imports another)", [str(one.arrows) for one in every]
    yield "circles of rooms or packages", [str(len(one.circles)) for one in every]
    yield "modules", [str(one.modules) for one in every]
    yield "modules with exactly one importer", [str(one.with_one_importer) for one in every]
    yield "lines of a function, median", [f"{one.function_lines_median:g}" for one in every]
    yield "lines of a function, 90th percentile", [str(one.function_lines_p90) for one in every]
    yield UNTYPED, [str(one.untyped_dicts) for one in every]
    yield "files that name lora, but its own", [str(len(one.naming_lora)) for one in every]
    yield (
        "  of these, beside vLLM's plugin",
        [str(sum(not path.startswith(VLLM) for path in one.naming_lora)) for one in every],
    )


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
        with_one_importer=sum(len(importers[module.name]) == SHARED_BY for module in ours),
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
