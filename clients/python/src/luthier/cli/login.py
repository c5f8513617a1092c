"""`luthier login`: stores where the service is and the key, after it has tried them."""

import os
import sys
from typing import Annotated, Optional

import typer

from luthier.cli.output import note
from luthier.cli.questions import asked


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

    if url is None:
        url = asked("URL of the service", "--url", default="http://127.0.0.1:8000")
    root = root_of(url.strip())
    if key is None:
        key = asked("API key", "--key, such as --key - for stdin", hidden=True)
    elif key == "-":
        key = sys.stdin.readline()
    if not key.strip():
        raise typer.BadParameter("The key is empty; what is stored stays as it is.", param_hint="--key")
    service = Service(root, key.strip())
    with Luthier(url=service.url, api_key=service.api_key, max_retries=0) as luthier:
        count = len(list(luthier.models.list()))
    path = store_service(service)
    models = "1 model" if count == 1 else f"{count} models"
    note(f"The key works; {models} can be called. Stored in {path}. Next: luthier tune FILE")
    for name, stored in (("LUTHIER_URL", service.url), ("LUTHIER_API_KEY", service.api_key)):
        if os.environ.get(name, stored) != stored:
            note(f"{name} is set to something else, and wins over what is stored.")
