"""Where the service is and with which key it is called.

Arguments win over the environment (`LUTHIER_URL`, `LUTHIER_API_KEY`), and this over what `luthier login` wrote to
`~/.config/luthier/config.toml`, which only its owner can read.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

from luthier.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


KEY = range(0x21, 0x7F)  # the characters that a header takes after `Bearer `: ASCII that is seen


@dataclass(frozen=True)
class Service:
    """`url` is without /v1. Raises ConfigurationError for a key that is none."""

    url: str
    api_key: str

    def __post_init__(self) -> None:
        if not self.api_key:
            raise ConfigurationError("The API key is empty. Run `luthier login`, or set LUTHIER_API_KEY.")
        if not all(ord(letter) in KEY for letter in self.api_key):
            raise ConfigurationError(
                "The API key has characters that no key has (spaces, line breaks or letters outside ASCII). Copy it "
                "again: run `luthier login`, or set LUTHIER_API_KEY."
            )


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """$XDG_CONFIG_HOME/luthier/config.toml, or below ~/.config."""
    folder = environment.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "luthier" / "config.toml"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """$XDG_CACHE_HOME/luthier, or below ~/.cache."""
    folder = environment.get("XDG_CACHE_HOME")
    return (Path(folder) if folder else Path.home() / ".cache") / "luthier"


def find_service(
    url: Optional[str] = None, api_key: Optional[str] = None, environment: Mapping[str, str] = os.environ
) -> Service:
    """The service to call; an argument that is empty is an error. Raises ConfigurationError, which says what to set."""
    stored = {} if url is not None and api_key is not None else _stored(environment)
    found_url = url if url is not None else environment.get("LUTHIER_URL") or stored.get("url")
    found_key = api_key if api_key is not None else environment.get("LUTHIER_API_KEY") or stored.get("api_key")
    if found_url is None:
        raise ConfigurationError("Where is the service? Run `luthier login`, or set LUTHIER_URL.")
    if found_key is None:
        raise ConfigurationError("There is no API key. Run `luthier login`, or set LUTHIER_API_KEY.")
    return Service(root_of(found_url), found_key)


def store_service(service: Service, environment: Mapping[str, str] = os.environ) -> Path:
    """Writes the configuration, readable by its owner only from the first byte."""
    path = config_path(environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(".config.toml.part")
    part.unlink(missing_ok=True)
    # A JSON string without characters outside ASCII is a basic string of TOML, but for surrogate pairs.
    text = f"url = {json.dumps(service.url)}\napi_key = {json.dumps(service.api_key)}\n"
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return part.replace(path)


def root_of(url: str) -> str:
    """The URL without /v1: both forms are accepted. Raises ConfigurationError."""
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"The URL '{url}' must begin with http:// or https://.")
    try:
        parts = urlsplit(url)
        plain = url.isprintable() and " " not in url and not parts.query and not parts.fragment
        whole = plain and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of brackets and of ports
        whole = False
    if not whole:
        raise ConfigurationError(f"The URL {url!r} is not that of a service, such as http://127.0.0.1:8000.")
    before, page, _ = f"{url}/".partition("/ui/")
    if page:
        raise ConfigurationError(f"The URL '{url}' is that of the dashboard; the service is at {before}")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _stored(environment: Mapping[str, str]) -> dict[str, str]:
    path = config_path(environment)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}). Run `luthier login` to write it again.") from None
    return {name: value for name, value in found.items() if isinstance(value, str)}
