"""Which engines serve which base. An engine holds one base; a base may have several engines (replicas).

A base names its own in the catalogue (`serving.engines`), or takes its turn on `LUTHIER_ENGINE_URLS`: the first base
that names none is served there, the second one port above, and so on. `luthierd up` starts its engines by this rule.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from service.recipes.base import Base
from service.recipes.catalogue import Catalogue, CatalogueError

LAST_PORT = 65535


def without_engines(catalogue: Catalogue) -> list[Base]:
    """The bases that name no engines of their own, in the catalogue's order."""
    return [base for base in catalogue.bases.values() if not base.serving.engines]


def engines_by_base(catalogue: Catalogue, urls: Sequence[str]) -> dict[str, list[str]]:
    """Base id -> its engines' URLs, without trailing slashes. Raises CatalogueError."""
    found = {base.id: [url.rstrip("/") for url in base.serving.engines] for base in catalogue.bases.values()}
    for number, base in enumerate(without_engines(catalogue)):
        found[base.id] = [_above(url.rstrip("/"), number, base) for url in urls]
    return found


def _above(url: str, ports: int, base: Base) -> str:
    """The URL with its port raised."""
    if ports == 0:
        return url
    parts = urlsplit(url)
    if parts.port is None:
        raise CatalogueError(f"The engines of '{base.id}' are not known: give it serving.engines in the catalogue.")
    if parts.port + ports > LAST_PORT:
        raise CatalogueError(
            f"The engines of '{base.id}' would have ports beyond {LAST_PORT}: set LUTHIER_ENGINE_URLS."
        )
    return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{parts.port + ports}").geturl()
