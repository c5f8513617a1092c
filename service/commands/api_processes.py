"""Several API processes at one address: each listens for itself (SO_REUSEPORT), and the kernel shares out connections.

`luthierd up` keeps them beside its other children; `luthierd serve` keeps them here. One that ends is started again,
and the others serve meanwhile. What a process keeps in memory is its own: see docs/operating/run.md.
"""

import asyncio
import os
import signal
import socket
import sys

from service.processes.child import KeptChild, Start
from service.settings.settings import Settings

STOP_SECONDS = 30.0
BACKLOG = 2048  # uvicorn's own


def check_processes(settings: Settings) -> None:
    """Raises ValueError, with what to do, where several processes could not keep what the settings promise."""
    if settings.api_processes == 1:
        return
    if settings.port == 0:
        raise ValueError("several API processes need the same port: set LUTHIER_PORT to another one than 0")
    if (settings.requests_per_minute or settings.tokens_per_minute) and not settings.redis_url:
        raise ValueError(
            "rate limits of several API processes are counted in Redis: set LUTHIER_REDIS_URL, or one process, or "
            "neither LUTHIER_REQUESTS_PER_MINUTE nor LUTHIER_TOKENS_PER_MINUTE"
        )


def listening(settings: Settings, *, shared: bool) -> socket.socket:
    """A socket at the API's address; with `shared`, other processes of this user may listen there as well.

    Raises ValueError where another process listens already.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ValueError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); stop what runs there or set "
            "LUTHIER_PORT to a free port"
        ) from error
    listener.listen(BACKLOG)
    return listener


def api_children(settings: Settings, environment: dict[str, str], start: Start | None = None) -> list[KeptChild]:
    """The API: one process, or several with a number each."""
    command = [sys.executable, "-m", "service", "serve", "--die-with-parent"]
    if settings.api_processes == 1:
        return [KeptChild("api", command, environment, stop_seconds=STOP_SECONDS, start=start)]
    numbered = environment | {"LUTHIER_API_PROCESSES": str(settings.api_processes)}
    return [
        KeptChild(
            f"api-{number}", [*command, "--number", str(number)], numbered, stop_seconds=STOP_SECONDS, start=start
        )
        for number in range(1, settings.api_processes + 1)
    ]


async def keep_processes(settings: Settings) -> None:
    """Runs the API's processes until SIGINT or SIGTERM; each ends what it has begun within STOP_SECONDS."""
    listening(settings, shared=False).close()  # nobody else is there
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    children = api_children(settings, dict(os.environ))
    kept = [asyncio.create_task(child.keep()) for child in children]
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({stopped, *kept}, return_when=asyncio.FIRST_COMPLETED)
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)
    await asyncio.gather(*(child.stop() for child in children))
