"""The figures of docs/structure.py, counted by hand on a small tree."""

from pathlib import Path

import pytest

from docs.structure import Figures, figures, read_modules, rows, why_alone

TREE = {
    "service/__init__.py": "",
    "service/api/app.py": "from service.api.web import errors\nfrom service.domain.job import Job\n",
    "service/api/web/errors.py": "import service.domain.job\n\ndef name(x):\n    return x\n",
    "service/db/migrations/0001.py": "from service.api import app\n",
    "service/domain/job.py": "import os\n\nclass Job:\n    fields: dict[str, Any]\n    more: dict[str, Any]\n",
    "service/domain/methods.py": "KINDS = {'lora': 1}\n",
    "service/tunings/lora.py": "class LoraSettings: ...\n",
    "workers/__init__.py": '"""What trains."""\n',
    "workers/engine.py": "RANK = 'lora-rank'\n\ndef serve():\n    from service.domain import job\n    return job\n",
    "workers/engines/vllm/command.py": "FLAGS = '--enable-lora'\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def counted(root: Path, program: str = "") -> Figures:
    return figures([module for part in ("service", "workers") for module in read_modules(root, part)], program)


def test_rooms_floors_and_arrows_are_counted_from_imports(tree: Path) -> None:
    service = counted(tree, "service")
    assert service.rooms == 3  # api, domain, tunings: the revisions and the empty module are none
    assert service.arrows == 1  # api -> domain, twice
    assert service.floors == 2
    assert service.circles == ()
    both = counted(tree)
    assert (both.rooms, both.arrows, both.floors) == (5, 2, 2)  # and workers/engine.py -> domain


def test_rooms_that_import_each_other_are_a_circle_and_one_floor(tree: Path) -> None:
    (tree / "service/domain/methods.py").write_text("from service.api.web.errors import name\n", encoding="utf-8")
    service = counted(tree, "service")
    assert service.circles == (("service/api", "service/domain"), ("service/api/web", "service/domain"))
    assert service.floors == 1


def test_packages_of_one_room_that_import_each_other_are_a_circle(tree: Path) -> None:
    (tree / "service/api/web/errors.py").write_text("from service.api import app\n", encoding="utf-8")
    service = counted(tree, "service")
    assert service.circles == (("service/api", "service/api/web"),)
    assert service.floors == 2


def test_an_importer_counts_once_and_wherever_it_is(tree: Path) -> None:
    assert counted(tree).alone == (("service.api.web.errors", "service.api.app", "rest"),)  # domain/job has three
    (tree / "service/api/app.py").write_text("", encoding="utf-8")
    assert counted(tree).alone == ()  # domain/job has two, one of them in the workers


@pytest.mark.parametrize("more", ["", " and ready()"])
def test_a_module_that_is_run_by_itself_is_a_process_of_its_own(tree: Path, more: str) -> None:
    errors = tree / "service/api/web/errors.py"
    started = f'if __name__ == "__main__"{more}:\n    name(1)\n'
    errors.write_text(f"{TREE['service/api/web/errors.py']}\n{started}", encoding="utf-8")
    both = counted(tree)
    assert both.alone == (("service.api.web.errors", "service.api.app", "process"),)
    table = dict(rows({"both": both}))
    assert (table["  a process of its own"], table["  the rest, listed below"]) == (["1"], ["0"])


def test_a_module_that_only_has_the_words_is_none(tree: Path) -> None:
    errors = tree / "service/api/web/errors.py"
    said = "TEXT = 'if __name__ == \"__main__\":'\n"
    errors.write_text(f"{said}{TREE['service/api/web/errors.py']}", encoding="utf-8")
    assert counted(tree).alone == (("service.api.web.errors", "service.api.app", "rest"),)


def test_functions_untyped_dicts_and_the_name_of_a_method_are_counted(tree: Path) -> None:
    both = counted(tree)
    assert (both.function_lines_median, both.function_lines_p90) == (2.5, 3)
    assert both.untyped_dicts == 2
    assert both.naming_lora == (
        "service/domain/methods.py", "workers/engine.py", "workers/engines/vllm/command.py",
    )  # fmt: skip
    table = dict(rows({"both": both}))
    assert table["files that name lora, but its own"] == ["3"]
    assert table["  of these, without a reason"] == ["2"]  # beside vLLM's plugin


@pytest.mark.parametrize(
    ("name", "importer", "why"),
    [
        ("service.commands.up", "service.commands.cli", "command"),
        ("service.storage.s3", "service.storage", "implementation"),
        ("service.api.routes.files", "service.api.openapi", "row"),
        ("service.db.aliases", "service.operations.aliases", "noun"),
        ("workers.data.turn", "workers.data.render", "rest"),
    ],
)
def test_what_the_layout_wants_apart_is_not_the_rest(name: str, importer: str, why: str) -> None:
    beside = [f"service.api.routes.{noun}" for noun in ("files", "jobs", "models")] if why == "row" else [name]
    assert why_alone(name, importer, beside) == why
