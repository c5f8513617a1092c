"""How many jobs wait, and how many a worker holds: for whoever looks at the installation as a whole."""

import time

from sqlalchemy import func, or_, select

from service.db.clock import database_now
from service.db.connection import Transaction
from service.db.tables import jobs


async def waiting(tx: Transaction, seconds: int) -> int:
    """Jobs that nobody holds although they were made more than `seconds` ago; paused ones are not waiting."""
    unheld = or_(jobs.c.lease_expires_at.is_(None), jobs.c.lease_expires_at < database_now())
    wanted = jobs.c.status.in_(("validating_files", "queued", "running"))
    old = jobs.c.created_at < int(time.time()) - seconds
    return int((await tx.connection.execute(select(func.count()).where(wanted, unheld, old))).scalar_one())


async def held(tx: Transaction) -> int:
    """Jobs whose lease a worker keeps."""
    alive = jobs.c.lease_expires_at >= database_now()
    return int((await tx.connection.execute(select(func.count()).where(alive))).scalar_one())
