"""`luthier login`: stores where the service is and the key, after it has tried them."""

import sys
from typing import Annotated, Optional

import typer

from luthier.cli.output import note


def login(
    url: Annotated[Optional[str], typer.Option(help="Where the service is, such as http://127.0.0.1:8000.")] = None,
    key: Annotated[
        Optional[str], typer.Option(help="The API key; `-` reads it from stdin. Asked for if it is missing.")
    ] = None,
) -> None:
    """Store the URL and the key of a service, after trying them.

    They go to ~/.config/luthier/config.toml, which only you can read. LUTHIER_URL and LUTHIER_API_KEY win over it.

    Example: luthier login --url http://127.0.0.1:8000
    """
    from luthier.client import Luthier
    from luthier.configuration import Service, root_of, store_service

    asked_url = url or typer.prompt("URL of the service", default="http://127.0.0.1:8000", err=True)
    if key == "-":
        asked_key = sys.stdin.readline().strip()
    else:
        asked_key = key or typer.prompt("API key", hide_input=True, err=True)
    service = Service(root_of(asked_url), asked_key.strip())
    with Luthier(url=service.url, api_key=service.api_key, max_retries=0) as luthier:
        count = len(list(luthier.models.list()))
    path = store_service(service)
    models = "1 model" if count == 1 else f"{count} models"
    note(f"The key works; {models} can be called. Stored in {path}. Next: luthier tune FILE")
