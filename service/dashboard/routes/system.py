"""The parts of the installation and whether they respond; for admins also workers, queues, the disk and `doctor`."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.web.deps import ContextDep
from service.dashboard.web.pages import page
from service.dashboard.web.visitors import Admin, Visitor
from service.gateway.client import engine_health
from service.installation.context import Context
from service.operations import counts
from service.recipes.base import Base

router = APIRouter(prefix="/system")


class Finding(Protocol):
    """What `luthierd doctor` says of a part."""

    @property
    def part(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def message(self) -> str: ...


Examine = Callable[[], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True)
class Engine:
    """An engine of a base, by its URL."""

    url: str
    responds: bool


@dataclass(frozen=True)
class Served:
    """A base, its engines, and the workers that train it."""

    base: Base
    engines: list[Engine]
    workers: list[tuple[str, str]]  # where, and why it is not ready; "" when it is


@router.get("")
async def shown(request: Request, ctx: ContextDep, visitor: Visitor) -> Response:
    """What a project may see, and for an admin the whole installation."""
    health = await engine_health(ctx.engines)
    found = await counts.count_jobs(ctx)
    served = [
        Served(
            base,
            [Engine(url, health[url]) for url in ctx.engines[base.id]],
            [(worker.host, worker.bases[base.id]) for worker in found.workers if base.id in worker.bases],
        )
        for base in ctx.catalogue.bases.values()
    ]
    values: dict[str, object] = {"served": served, "installation": None, "examines": False}
    if visitor.is_admin:
        values |= {
            "installation": await _installation(ctx),
            "ended": found.ended,
            "examines": request.app.state.examine is not None,
        }
    return page(request, "system.html", visitor, values)


@router.get("/doctor")
async def doctor(request: Request, admin: Admin) -> Response:
    """What `luthierd doctor` finds now; it looks at every part, which may take seconds."""
    examine: Examine | None = request.app.state.examine
    findings = [] if examine is None else await examine()
    order = {"problem": 0, "warning": 1}
    shown = sorted(findings, key=lambda finding: order.get(finding.state, 2))
    return page(request, "doctor.html", admin, {"findings": shown})


async def _installation(ctx: Context) -> dict[str, object]:
    projects: dict[str, dict[str, int]] = {}
    for row in await counts.by_project(ctx):
        projects.setdefault(row.project, {})[row.status] = row.jobs
    disk = await asyncio.to_thread(shutil.disk_usage, ctx.settings.data_dir)
    return {
        "projects": projects,
        "database": ctx.database.engine.dialect.name,
        "storage": ctx.settings.storage.partition("://")[0],
        "bell": "Redis" if ctx.queue.server is not None else "embedded",
        "disk_used": disk.used,
        "disk_total": disk.total,
        "disk_free": disk.free,
        "statuses": ("validating_files", "queued", "running", "paused"),
    }
