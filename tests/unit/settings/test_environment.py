"""What is wrong with the environment is told by the names that stand there, and a misspelt one is not passed over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt
from structlog.testing import capture_logs

from service.settings.environment import CLIENTS, SettingsError, read_settings, warn_of_unknown
from service.settings.settings import Settings

ROOT = Path(__file__).parents[3]


def test_a_bad_value_is_told_with_its_variable_and_without_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_PORT", "eighty-secret")
    monkeypatch.setenv("LUTHIER_DEVICE", "abacus")
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert "LUTHIER_PORT: " in str(raised.value) and "LUTHIER_DEVICE: " in str(raised.value)
    assert "secret" not in str(raised.value)


CANNOT_WORK = [
    *(
        ("ENGINE_URLS", value)
        for value in ("foo", "http://127.0.0.1:99999", ",", "http://a,,http://b", "ftp://a", "http://")
    ),
    *(("CORS_ORIGINS", value) for value in ("foo", "https://a.example/path", ",", "https://user@a.example")),
    *(("WANDB_BASE_URL", value) for value in ("foo", "http://[::1", "http://a b")),
    *(("STORAGE_ENDPOINT_URL", value) for value in ("foo", "http://a:0")),
    *(("REDIS_URL", value) for value in ("foo", "http://127.0.0.1", "unix://")),
    *(("LEASE_SECONDS", value) for value in ("inf", "nan", "1e300")),
    ("DATABASE_LOCK_SECONDS", "2e7"),  # more milliseconds than PostgreSQL takes
    ("SLOTS", "9" * 23),
]


@pytest.mark.parametrize(("name", "value"), CANNOT_WORK)
def test_a_value_that_cannot_work_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LUTHIER_{name}", value)
    with pytest.raises(SettingsError, match=f"^LUTHIER_{name}: (should|an origin|a unix|Input should)"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENGINE_URLS", "http://127.0.0.1:8001, https://gpu-1.internal/engine/"),
        ("ENGINE_URLS", ""),
        ("CORS_ORIGINS", "https://app.example.com/, http://[::1]:3000"),
        ("CORS_ORIGINS", "*"),
        ("REDIS_URL", "rediss://user:password@redis.internal:6379/0"),
        ("REDIS_URL", "unix:///run/redis.sock"),
    ],
)
def test_what_can_work_is_kept_as_it_is(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LUTHIER_{name}", value)
    assert getattr(read_settings(), name.lower()) == value


def test_every_number_has_bounds_on_both_sides() -> None:
    numbers = {name: field for name, field in Settings.model_fields.items() if field.annotation in (int, float)}
    assert len(numbers) > 40
    for name, field in numbers.items():
        kinds = {type(limit) for limit in field.metadata}
        assert kinds & {Le, Lt} and kinds & {Ge, Gt}, name


def test_a_variable_that_is_no_setting_is_told_with_the_nearest_one() -> None:
    with capture_logs() as logs:
        warn_of_unknown(
            dict.fromkeys(["LUTHIER_PROT", "LUTHIER_PORT", "LUTHIER_XYZZY_QUUX", "PATH", *CLIENTS], "1"),
        )
    assert [(line["name"], line["nearest"]) for line in logs] == [
        ("LUTHIER_PROT", "LUTHIER_PORT"),
        ("LUTHIER_XYZZY_QUUX", None),
    ]
    assert {line["log_level"] for line in logs} == {"warning"}


@pytest.mark.parametrize("module", ["service", "workers"])
def test_a_command_ends_in_one_line_that_names_the_variable(module: str) -> None:
    command = [sys.executable, "-m", module, *(["migrate"] if module == "service" else ["train"])]
    environment = os.environ | {"LUTHIER_LEASE_SECONDS": "-1", "LUTHIER_SLOT": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].partition(": ")[2].startswith("LUTHIER_LEASE_SECONDS: ")


def test_the_seeds_limits_are_in_the_document() -> None:
    document = json.loads((ROOT / "openapi" / "openapi.json").read_text(encoding="utf-8"))
    seed = document["components"]["schemas"]["CreateJob"]["properties"]["seed"]["anyOf"][0]
    assert (seed["minimum"], seed["maximum"]) == (0, 2**31 - 1)
    text = json.dumps(document)
    assert '"ge":' not in text and '"le":' not in text
