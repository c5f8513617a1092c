"""Deliveries of webhooks in the states that tests need.

The database is used directly because no operation shows what is still to be delivered, makes it older or hurries it.
"""

from sqlalchemy import select, update

from service.db import webhooks
from service.db.tables import webhook_deliveries
from service.domain.webhook import WebhookDelivery
from service.installation.context import Context
from tests.given.work import set_work


async def pending(ctx: Context) -> list[WebhookDelivery]:
    """What is still to be delivered."""
    async with ctx.database.reading() as tx:
        ids = (await tx.connection.execute(select(webhook_deliveries.c.id))).scalars().all()
        found = [await webhooks.find_delivery(tx, id) for id in ids]
        return [delivery for delivery in found if delivery is not None]


async def hurry(ctx: Context, id: str) -> None:
    """It is due now."""
    await set_work(ctx, id, not_before=None)


async def age_delivery(ctx: Context, id: str, seconds: int) -> None:
    """It was made so much earlier."""
    rows = webhook_deliveries.c
    async with ctx.database.transaction() as tx:
        older = update(webhook_deliveries).where(rows.id == id).values(created_at=rows.created_at - seconds)
        await tx.connection.execute(older)
