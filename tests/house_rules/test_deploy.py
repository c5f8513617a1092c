"""What can be said of deploy/ without Docker: the files are what they claim to be, and name only what exists."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import typer
import yaml
from dockerfile_parse import DockerfileParser

from docs.make_settings import render_env
from service.commands import cli
from service.recipes.catalogue import read_catalogue
from service.settings.settings import Settings
from tests.house_rules.tree import ROOT
from workers.__main__ import COMMANDS

DEPLOY = ROOT / "deploy"
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
KNOWN = {f"LUTHIER_{name.upper()}" for name in Settings.model_fields}


def unknown_settings(text: str) -> set[str]:
    """LUTHIER_ names that no setting has; a trailing `_` or `_*` stands for several."""
    named = {name for name in re.findall(r"\bLUTHIER_[A-Z0-9_]+", text) if not name.endswith("_")}
    return named - KNOWN


def unknown_commands(command: list[str]) -> list[str]:
    """Programs of ours that are no console script, and subcommands that they do not have."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    if not command[0].startswith("luthier"):
        return []
    if command[0] not in scripts:
        return [command[0]]
    module = scripts[command[0]].partition(":")[0].removesuffix(".commands.cli").removesuffix(".__main__")
    return [] if has_command(module, command[1]) else [" ".join(command)]


def has_command(module: str, name: str) -> bool:
    """Whether the program has it; the programs are not started."""
    luthierd = typer.main.get_command(cli.app)
    assert isinstance(luthierd, typer.core.TyperGroup)
    return name in {"service": luthierd.commands, "workers": COMMANDS}[module]


def missing_sources(dockerfile: DockerfileParser) -> list[str]:
    """What a COPY names and the repository has not."""
    copied = [line["value"].split() for line in dockerfile.structure if line["instruction"] == "COPY"]
    own = [words for words in copied if not words[0].startswith("--from=")]  # else of an earlier stage
    return [source for words in own for source in words[:-1] if not (ROOT / source).exists()]


def commands_of(compose: Path) -> Iterable[list[str]]:
    services = yaml.safe_load(compose.read_text(encoding="utf-8"))["services"]
    return [service["command"] for service in services.values() if "command" in service]


def parse(path: Path) -> DockerfileParser:
    return DockerfileParser(fileobj=BytesIO(path.read_bytes()))


def test_the_compose_files_are_valid() -> None:
    """Against the schema of the Compose Specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, *map(str, COMPOSE)], capture_output=True, text=True, check=False, timeout=60)
    assert len(COMPOSE) == 2
    assert result.returncode == 0, result.stdout


def test_an_invalid_compose_file_would_be_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text("services:\n  api:\n    comand: luthierd\n", encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(broken)]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 1


def test_every_setting_that_is_named_exists() -> None:
    for path in (*COMPOSE, *DOCKERFILES, DEPLOY / "env.example"):
        assert unknown_settings(path.read_text(encoding="utf-8")) == set(), path.name
    assert unknown_settings("LUTHIER_PORT LUTHIER_HARBOUR LUTHIER_*") == {"LUTHIER_HARBOUR"}


def test_every_command_exists() -> None:
    for path in COMPOSE:
        for command in commands_of(path):
            assert unknown_commands(command) == [], path.name
    for path in DOCKERFILES:
        start = next(
            line["value"] for line in reversed(parse(path).structure) if line["instruction"] in ("CMD", "ENTRYPOINT")
        )
        assert unknown_commands(json.loads(start)) == [], path.name
    assert unknown_commands(["luthierd", "sail"]) == ["luthierd sail"]
    assert unknown_commands(["luthier-ship"]) == ["luthier-ship"]


def test_every_copied_file_exists() -> None:
    for path in DOCKERFILES:
        assert missing_sources(parse(path)) == [], path.name


def test_the_builds_of_the_compose_files_exist() -> None:
    for path in COMPOSE:
        for service in yaml.safe_load(path.read_text(encoding="utf-8"))["services"].values():
            if "build" in service:
                assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_our_containers_of_the_production_set_share_one_catalogue_that_vllm_can_serve() -> None:
    services = yaml.safe_load((DEPLOY / "compose.production.yaml").read_text(encoding="utf-8"))["services"]
    ours = {name: service for name, service in services.items() if "build" in service}
    assert set(ours) == {"migrate", "api", "worker", "vllm"}
    for service in ours.values():
        assert f"./bases.toml:{service['environment']['LUTHIER_CATALOGUE']}:ro" in service["volumes"]
    first = next(iter(read_catalogue(DEPLOY / "bases.example.toml").bases.values()))
    assert (first.serving.engine, first.serving.engines) == ("vllm", ())  # so it is served at LUTHIER_ENGINE_URLS


def test_what_is_copied_with_secrets_in_it_is_never_committed() -> None:
    command = ["git", "check-ignore", "deploy/.env", "deploy/bases.toml"]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ignored.stdout.split() == command[2:]


def test_the_example_of_the_environment_is_current() -> None:
    assert (DEPLOY / "env.example").read_text(encoding="utf-8") == render_env(), "run: python -m docs.make_settings"


def services() -> dict[str, dict[str, Any]]:
    """Every service of every compose file."""
    return {
        f"{path.name}: {name}": service
        for path in COMPOSE
        for name, service in yaml.safe_load(path.read_text(encoding="utf-8"))["services"].items()
    }


def has_version(image: str) -> bool:
    """Whether an image is named by a digest or by a version of at least two numbers."""
    tag = image.rpartition("/")[2].partition(":")[2]
    return "@sha256:" in image or re.match(r"v?\d+\.\d+", tag) is not None


def open_ways(service: dict[str, Any]) -> list[str]:
    """What a container has and does not need."""
    closed = {
        "writes to its root": service.get("read_only") is True,
        "capabilities": service.get("cap_drop") == ["ALL"],
        "new privileges": service.get("security_opt") == ["no-new-privileges:true"],
        "no version": "build" in service or has_version(service["image"]),
    }
    return [way for way, is_closed in closed.items() if not is_closed]


def test_containers_have_no_more_rights_than_they_need() -> None:
    assert {name: found for name, service in services().items() if (found := open_ways(service))} == {}
    assert open_ways({"image": "postgres:18"}) == ["writes to its root", "capabilities", "new privileges", "no version"]


def test_images_have_a_version_and_a_user() -> None:
    for path in DOCKERFILES:
        found = parse(path)
        assert has_version(found.baseimage), path.name
        users = [line["value"] for line in found.structure if line["instruction"] == "USER"]
        assert users[-1:] == ["luthier"], path.name
    asked = {name: service.get("user") for name, service in services().items() if "image" in service}
    assert [name for name, user in asked.items() if user is None] == ["compose.production.yaml: s3"]
    for image in ("postgres", "postgres:18", "postgres:latest", "host:5000/postgres"):
        assert not has_version(image)


def test_what_others_wait_for_or_call_has_a_health_check() -> None:
    checked = {path.name for path in DOCKERFILES if "HEALTHCHECK" in path.read_text(encoding="utf-8")}
    assert checked == {"service.Dockerfile", "vllm.Dockerfile"}
    unchecked = {
        name
        for name, service in services().items()
        if "healthcheck" not in service
        and service.get("build", {}).get("dockerfile", "").rpartition("/")[2] not in checked
    }
    assert unchecked == {"compose.production.yaml: worker", "compose.production.yaml: bucket"}  # nobody calls them


def test_every_server_of_the_production_set_wants_a_secret() -> None:
    text = (DEPLOY / "compose.production.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked == {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_SECRET", "ENGINE_API_KEY"}
    assert all(f"\n{name}=\n" in render_env() for name in asked)
    assert "--requirepass" in text
