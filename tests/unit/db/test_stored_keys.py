"""What the database holds of an API key."""

from service.db.tables import api_keys
from service.installation.context import Context


async def test_a_key_is_kept_as_its_hash_only(ctx: Context, key: str) -> None:
    async with ctx.database.reading() as tx:
        row = (await tx.connection.execute(api_keys.select())).one()
    assert key not in str(row)
    assert len(row.sha256) == 64
