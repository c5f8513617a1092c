"""Several API processes at one address: each listens for itself (SO_REUSEPORT), and the kernel shares out connections.

`luthierd up` keeps them beside its other children; `luthierd serve` keeps them here. One that ends is started again,
and the others serve meanwhile. What a process keeps in memory is its own: see docs/operating/run.md.
"""

import asyncio
import errno
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
    listener = socket.socket(address_family(settings.host), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise cannot_listen("LUTHIER_", settings.host, settings.port, error) from error
    listener.listen(BACKLOG)
    return listener


def cannot_listen(prefix: str, host: str, port: int, error: OSError) -> ValueError:
    """What to raise where a socket could not be bound, with what to do; `prefix` is that of HOST and PORT."""
    remedy = f"stop what runs there or set {prefix}PORT to a free port"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        remedy = f"set {prefix}HOST to an address of this machine"
    elif error.errno == errno.EACCES:
        remedy = f"set {prefix}PORT to one above 1023, or run as a user who may listen there"
    return ValueError(f"cannot listen on {host}:{port} ({error.strerror}); {remedy}")


def address_family(host: str) -> socket.AddressFamily:
    """IPv6 for what has only addresses of that."""
    try:
        found = {family for family, *_ in socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM)}
    except OSError:  # said when it is bound
        return socket.AF_INET
    return socket.AF_INET6 if found == {socket.AF_INET6} else socket.AF_INET


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
