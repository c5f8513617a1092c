"""The API in this process: the application with its pages, on a server with limits, until SIGTERM or SIGINT.

`luthierd serve` has checked the database and the storage. Imported only there: no other command needs FastAPI.
"""

from functools import partial

from service.api.app import create_app
from service.commands.api_processes import listening
from service.commands.doctor import examine
from service.dashboard.app import add_dashboard
from service.installation.create import create_context
from service.processes.http_server import ConnectionLimits, Server, serving
from service.settings.settings import Settings

SHUTDOWN_SECONDS = 5  # for responses in progress


def serve_api(settings: Settings, number: int | None) -> None:
    """Serves; `number` says which of several processes at the same port this is, None that it is the only one."""
    limits = ConnectionLimits(write_seconds=settings.write_seconds)
    app = add_dashboard(create_app(create_context(settings), number), partial(examine, settings))
    server = Server(serving(app, settings.host, settings.port, limits, shutdown_seconds=SHUTDOWN_SECONDS))
    server.run(sockets=None if number is None else [listening(settings, shared=True)])
