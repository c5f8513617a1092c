"""Writes docs/settings.md and deploy/env.example from service/settings/settings.py: `python -m docs.make_settings`.

A test holds both files current.
"""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from service.settings.settings import MIB, Settings

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Settings

Every setting has a default that works on one machine. Give another value in the environment, before the command:

    LUTHIER_PORT=9000 LUTHIER_DATA_DIR=/var/lib/luthier luthierd up

Every process of an installation must read the same settings. A value that does not fit is refused at the start.
This page is written by `python -m docs.make_settings` from
[service/settings/settings.py](../service/settings/settings.py).

| setting | values | default | what it does |
|---|---|---|---|
"""
ENV_HEAD = """\
# The settings of an installation of several containers: copy to deploy/.env, which every container reads.
# Written by `python -m docs.make_settings`; docs/settings.md is the same list with types and limits.

# The secrets of deploy/compose.production.yaml: make your own, for example with `openssl rand -hex 24`.
POSTGRES_PASSWORD=
VALKEY_PASSWORD=
S3_SECRET=
ENGINE_API_KEY=

# Everything else has a default, given here. Addresses of the parts are set in the compose file.
"""
TYPES: dict[Any, str] = {
    Path: "path",
    str: "text",
    SecretStr: "secret",
    int: "whole number",
    float: "number",
    bool: "`true`, `false`",
}
BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def main() -> None:
    """Rewrites the files."""
    (ROOT / "docs" / "settings.md").write_text(render(), encoding="utf-8")
    (ROOT / "deploy" / "env.example").write_text(render_env(), encoding="utf-8")


def render() -> str:
    """The page."""
    prefix = Settings.model_config["env_prefix"]
    return HEAD + "".join(
        f"| `{prefix}{name.upper()}` | {_values(field)} | {_default(field.default)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )


def render_env() -> str:
    """Every setting as a line that is commented out, with its sentence above it."""
    prefix = Settings.model_config["env_prefix"]
    return ENV_HEAD + "".join(
        f"\n# {(field.description or '').replace('`', '')}\n# {prefix}{name.upper()}={_env_value(field.default)}\n"
        for name, field in Settings.model_fields.items()
    )


def _env_value(default: Any) -> str:
    """Nothing for what is empty, secret, or a path inside the package."""
    inside = isinstance(default, Path) and default.is_absolute()
    return "" if inside or isinstance(default, SecretStr) else _text(default)


def _values(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    bounds = [
        f"{sign} {_text(getattr(limit, name))}"
        for limit in field.metadata
        for bound, (name, sign) in BOUNDS.items()
        if isinstance(limit, bound)
    ]
    return ", ".join([TYPES[field.annotation], *bounds])


def _default(value: Any) -> str:
    if value in ("", SecretStr("")):
        return "(empty)"
    if isinstance(value, int) and value >= MIB and value % MIB == 0:
        return f"`{value}` ({value // MIB} MiB)"
    return f"`{_text(value)}`"


def _text(value: Any) -> str:
    if isinstance(value, Path) and value.is_absolute():
        return str(value.relative_to(ROOT))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:g}"
    return str(value)


if __name__ == "__main__":
    main()
