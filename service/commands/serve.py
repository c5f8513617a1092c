"""The API in this process: the application with its pages, on a server with limits, until SIGTERM or SIGINT.

`luthierd serve` has checked the database and the storage. Imported only there: no other command needs FastAPI.
"""

import gc
import sys
from functools import partial

from service.api.app import create_app
from service.commands.api_processes import listening
from service.commands.doctor import examine
from service.dashboard.app import add_dashboard
from service.installation.create import create_context
from service.processes.http_server import ConnectionLimits, HttpServer, serving
from service.settings.settings import Settings

SHUTDOWN_SECONDS = 5  # for responses in progress
SWITCH_SECONDS = 0.0005  # after which a busy thread lets another one run: a read of the database needs that ten times
COLLECTED_OBJECTS = 10_000  # made since the last collection, with which the next one begins


def serve_api(settings: Settings, number: int | None) -> None:
    """Serves; `number` says which of several processes at the same port this is, None that it is the only one."""
    limits = ConnectionLimits(write_seconds=settings.write_seconds)
    app = add_dashboard(create_app(create_context(settings), number), partial(examine, settings))
    server = HttpServer(serving(app, settings.host, settings.port, limits, shutdown_seconds=SHUTDOWN_SECONDS))
    _prepare_interpreter()
    server.run(sockets=None if number is None else [listening(settings, shared=True)])


def _prepare_interpreter() -> None:
    """For many requests at once: the thread of the loop is busy, and what they make is freed without a collection."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what was imported and made by now lives as long as the process
    gc.set_threshold(COLLECTED_OBJECTS)
