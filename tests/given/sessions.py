"""Sign-ins as time would leave them.

The database is used directly because no operation makes time pass.
"""

from sqlalchemy import update

from service.db.tables import sessions
from service.installation.context import Context


async def expire_sessions(ctx: Context) -> None:
    """Every sign-in is over."""
    async with ctx.database.transaction() as tx:
        await tx.connection.execute(update(sessions).values(expires_at=1))
