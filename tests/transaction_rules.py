"""Two rules about transactions, watched in every test: one BEGIN per operation; nothing else is called inside one.

BEGINs are counted where SQLAlchemy makes them, per call of a public coroutine of service.operations or service.work.
Inside an open transaction its task, or a thread that it waits for, may use neither storage nor queue, nor a socket that
is not the database's. A breach fails the test at its end, whatever became of it meanwhile.
"""

import asyncio
import functools
import importlib
import inspect
import pkgutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncConnection

import service.operations
import service.queue
import service.storage
import service.work
from service.db.connection import Database

SEVERAL = {  # operations that open more than one, and why
    "service.operations.uploads.complete": "the parts are read back for their md5 between looking and writing",
}
LOOPS = {  # over many operations, each of which counts for itself; they open none of their own
    "service.operations.chores.run",
    "service.operations.chores.sweep",
    "service.operations.orphans.OrphanSweep.sweep",
    "service.operations.webhook_deliveries.run",
    "service.operations.webhook_deliveries.Deliveries.begin_due",
}
STORAGE_AND_QUEUE = ("put", "open", "size", "delete", "list")


@dataclass
class Call:
    """One call of an operation, and how many transactions it has begun."""

    name: str
    begun: int = 0


_call: ContextVar[Call | None] = ContextVar("call", default=None)
_open: ContextVar[asyncio.Task[Any] | None] = ContextVar("open", default=None)
_database_ports: set[int] = set()
_breaches: list[str] = []
originals: dict[str, Callable[..., Any]] = {}


@pytest.fixture(autouse=True)
def transaction_rules() -> Iterator[None]:
    """Fails the test that broke a rule."""
    _breaches.clear()
    yield
    assert _breaches == []


@contextmanager
def expected_breaches() -> Iterator[list[str]]:
    """For the tests of the rules: what was broken inside the block, which then does not count."""
    found: list[str] = []
    yield found
    found += _breaches
    _breaches.clear()


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(package.__path__):
        yield importlib.import_module(f"{package.__name__}.{module.name}")


def _watch_operations() -> None:
    for module in [*_modules(service.operations), *_modules(service.work)]:
        for name, thing in list(vars(module).items()):
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            if inspect.iscoroutinefunction(thing):
                setattr(module, name, _counted(f"{module.__name__}.{name}", thing))
            elif inspect.isclass(thing):
                for method, function in list(vars(thing).items()):
                    if not method.startswith("_") and inspect.iscoroutinefunction(function):
                        setattr(thing, method, _counted(f"{module.__name__}.{name}.{method}", function))


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    originals[name] = function

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        around = _call.get()
        if around is not None and around.name not in LOOPS:  # part of another operation, which it counts for
            return await function(*args, **kwargs)
        counting = Call(name)
        token = _call.set(counting)
        try:
            return await function(*args, **kwargs)
        finally:
            _call.reset(token)
            if counting.begun > (0 if name in LOOPS else 1) and name not in SEVERAL:
                _breaches.append(f"{name} began {counting.begun} transactions")

    return call


def _watch_begins() -> None:
    @event.listens_for(Engine, "begin")
    def begun(connection: Connection) -> None:
        counting = _call.get()
        if counting is not None:
            counting.begun += 1


def _watch_open_transactions() -> None:
    begin = Database._begin

    @asynccontextmanager
    async def marked(self: Database, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        if self.url.port is not None:
            _database_ports.add(self.url.port)
        async with begin(self, writes=writes) as connection:
            token = _open.set(asyncio.current_task())
            try:
                yield connection
            finally:
                _open.reset(token)

    Database._begin = marked  # type: ignore[method-assign]


def _inside() -> bool:
    """True in the task of an open transaction, and in a thread that it started."""
    opened = _open.get()
    if opened is None:
        return False
    try:
        return asyncio.current_task() is opened
    except RuntimeError:
        return True


def _watch_storage_and_queue() -> None:
    for package in (service.storage, service.queue):
        for module in _modules(package):
            for thing in list(vars(module).values()):
                if inspect.isclass(thing) and thing.__module__ == module.__name__:
                    for method in STORAGE_AND_QUEUE:
                        if method in vars(thing):
                            setattr(thing, method, _outside_only(thing, method))


def _outside_only(owner: type, method: str) -> Callable[..., Any]:
    function = vars(owner)[method]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _inside():
            _breaches.append(f"{owner.__name__}.{method} inside a transaction")
        return function(*args, **kwargs)

    return call


def _watch_sockets() -> None:
    for method in ("send", "sendall", "connect"):
        setattr(socket.socket, method, _elsewhere_only(method))


def _elsewhere_only(method: str) -> Callable[..., Any]:
    function = getattr(socket.socket, method)

    @functools.wraps(function)
    def call(self: socket.socket, *args: Any) -> Any:
        if _inside():
            peer = args[0] if method == "connect" else self.getpeername()
            if peer and not (isinstance(peer, tuple) and peer[1] in _database_ports):  # "": an event loop's own pair
                _breaches.append(f"socket.{method} to {peer} inside a transaction")
        return function(self, *args)

    return call


_watch_operations()
_watch_begins()
_watch_open_transactions()
_watch_storage_and_queue()
_watch_sockets()
