"""A tuned model to take home with its weights merged into the base's: made as work at the first request, then kept.

The first request of a model's merged form makes it work; until that has ended, each request says so. A merge that
failed is reported once and forgotten, so that the next request tries again.
"""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from service.db import model_merges, work
from service.db.connection import Transaction
from service.domain import ids
from service.domain.errors import InvalidRequest, Unavailable
from service.domain.model import Model
from service.domain.model_merge import ModelMerge
from service.domain.storage_keys import merged_key
from service.installation.context import Context
from service.operations import model_content, quotas
from service.operations.keys import Caller
from service.operations.merge_work import MERGE
from service.recipes.tuning import TUNINGS
from service.storage import ObjectMissing, ObjectStore, StorageError


@dataclass(frozen=True)
class MergedContent:
    """The stored archive of a model: one object, of which any stretch may be read."""

    store: ObjectStore
    model: str
    merge_id: str
    num_bytes: int
    sha256: str

    def chunks(self, start: int = 0) -> AsyncGenerator[bytes]:
        """The archive from byte `start` on. Raises StorageError, in the middle too."""
        return self.store.open(merged_key(self.merge_id), start)


async def find(ctx: Context, caller: Caller, name: str) -> MergedContent | ModelMerge:
    """What to send for one of the project's own tuned models, or the merge that has not ended yet.

    Raises what `model_content.find_own` raises, and InvalidRequest for a model that has no merged form, or whose merge
    failed.
    """
    async with ctx.database.transaction() as tx:
        model = await model_content.find_own(ctx, tx, caller, name, lock=True)
        _check_mergeable(model)
        merge = await model_merges.of_model(tx, model.name, lock=True)
        if merge is None or _is_old(ctx, merge):
            if merge is not None:
                await model_merges.remove(tx, [merge.id])
            return await _begin(ctx, tx, caller, model)
        if merge.status == "failed":
            await model_merges.remove(tx, [merge.id])
    if merge.status == "failed":
        raise _failure(merge)
    if merge.status != "succeeded" or merge.bytes is None or merge.sha256 is None:
        return merge
    return MergedContent(ctx.storage, model.name, merge.id, merge.bytes, merge.sha256)


async def is_stored(content: MergedContent) -> bool:
    """Whether storage still has the archive. Raises Unavailable."""
    try:
        await content.store.size(merged_key(content.merge_id))
    except ObjectMissing:
        return False
    except StorageError as error:
        raise Unavailable(f"The files of '{content.model}' are not available right now; please try again.") from error
    return True


async def begin_again(ctx: Context, caller: Caller, lost: MergedContent) -> ModelMerge:
    """A new merge, where storage has lost the archive of one. Raises ModelNotFound, QuotaExceeded or TooLarge."""
    async with ctx.database.transaction() as tx:
        model = await model_content.find_own(ctx, tx, caller, lost.model, lock=True)
        now = await model_merges.of_model(tx, lost.model, lock=True)
        if now is not None and now.id != lost.merge_id:
            return now
        await model_merges.remove(tx, [lost.merge_id])
        return await _begin(ctx, tx, caller, model)


async def _begin(ctx: Context, tx: Transaction, caller: Caller, model: Model) -> ModelMerge:
    await quotas.check_merge(ctx, tx, caller)
    merge = ModelMerge(
        id=ids.merge_id(),
        project_id=caller.project_id,
        model=model.name,
        base=model.base,
        status="queued",
        created_at=int(time.time()),
    )
    await model_merges.add(tx, merge)
    await work.add(tx, MERGE.name, merge.id, merge.project_id, merge.base)
    tx.after_commit(lambda: ctx.queue.put(merge.id))
    return merge


def _check_mergeable(model: Model) -> None:
    """Raises InvalidRequest for a model whose tuning is no difference of the base's weights."""
    if model.task != "generate":
        raise _unmergeable(model, "it has an output layer of its own, which no causal language model has a place for")
    tuning = TUNINGS.find(model.tuning)
    if tuning is None:
        raise _unmergeable(model, f"this installation has no tuning '{model.tuning}' any more")
    if not tuning.merges:
        raise _unmergeable(model, f"the tuning '{model.tuning}' is no difference of the base's weights")


def _unmergeable(model: Model, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{model.name}' cannot be merged into its base: {reason}. Download it with format=peft.",
        param="format",
        code="not_mergeable",
    )


def _failure(merge: ModelMerge) -> InvalidRequest:
    error = merge.error or {}
    return InvalidRequest(
        f"'{merge.model}' could not be merged: {error.get('message', '')} Another request tries again.",
        param="format",
        code=str(error.get("code", "merge_failed")),
    )


def _is_old(ctx: Context, merge: ModelMerge) -> bool:
    """Whether it is about to be swept: a download that began now might not end."""
    life = ctx.settings.merged_life_seconds
    return merge.finished_at is not None and merge.finished_at < time.time() - life
