"""Forgetting: one page of rows older than a class's time, at most, per call; each gives how many rows it removed.

Ids are time-ordered, so "older than" is "id below", which the primary keys answer. The ledger is never forgotten.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import Table, delete, literal_column, select, update

from berid.base.ids import first_id_at
from berid.store import Tx, tables

PAGE = 500

Forget = Callable[[Tx, int], Awaitable[int]]
"""Remove a page of what was made before a moment (milliseconds)."""


async def contents(tx: Tx, before_ms: int) -> int:
    """Erase the texts of messages that are through."""
    message = tables.message
    old = (
        select(message.c.id)
        .where(
            message.c.id < first_id_at(before_ms),
            message.c.body_kind.in_(("text", "raw")),
            message.c.expires_ms < before_ms,
        )
        .limit(PAGE)
    )
    return (await tx.execute(update(message).where(message.c.id.in_(old)).values(body="", body_kind="erased"))).rowcount


async def inbound_contents(tx: Tx, before_ms: int) -> int:
    """Erase the texts that people wrote to us."""
    inbound = tables.inbound
    old = select(inbound.c.id).where(inbound.c.id < first_id_at(before_ms), inbound.c.body != "").limit(PAGE)
    return (await tx.execute(update(inbound).where(inbound.c.id.in_(old)).values(body=""))).rowcount


async def deliveries(tx: Tx, before_ms: int) -> int:
    """Delete messages that are through, with their deliveries, journal and carrier references."""
    message, delivery = tables.message, tables.delivery
    old = [
        row.id
        for row in await tx.execute(
            select(message.c.id)
            .where(
                message.c.id < first_id_at(before_ms),
                message.c.expires_ms < before_ms,
                ~select(delivery.c.id)
                .where(
                    delivery.c.id.between(message.c.first_id, message.c.last_id),
                    delivery.c.message_id == message.c.id,
                    delivery.c.final_ms == 0,
                )
                .exists(),
            )
            .limit(PAGE)
        )
    ]
    if not old:
        return 0
    bounds = await tx.execute(select(message.c.id, message.c.first_id, message.c.last_id).where(message.c.id.in_(old)))
    for row in bounds.all():
        mine = select(delivery.c.id).where(
            delivery.c.id.between(row.first_id, row.last_id), delivery.c.message_id == row.id
        )
        await tx.execute(delete(tables.event).where(tables.event.c.delivery_id.in_(mine)))
        await tx.execute(delete(delivery).where(delivery.c.id.in_(mine)))
    return (await tx.execute(delete(message).where(message.c.id.in_(old)))).rowcount


async def callbacks(tx: Tx, before_ms: int) -> int:
    """Delete callbacks that nobody waits for any more, with their tries."""
    callback, job = tables.callback, tables.job
    old = [
        row.id
        for row in await tx.execute(
            select(callback.c.id)
            .where(
                callback.c.id < first_id_at(before_ms),
                ~select(job.c.id).where(job.c.id == callback.c.id, job.c.buried_ms == 0).exists(),
            )
            .limit(PAGE)
        )
    ]
    if not old:
        return 0
    await tx.execute(delete(tables.callback_try).where(tables.callback_try.c.callback_id.in_(old)))
    await tx.execute(delete(job).where(job.c.id.in_(old)))
    return (await tx.execute(delete(callback).where(callback.c.id.in_(old)))).rowcount


async def carrier_refs(tx: Tx, before_ms: int) -> int:
    """Delete carriers' ids whose receipt can no longer change anything."""
    ref, delivery = tables.carrier_ref, tables.delivery
    old = (
        await tx.execute(
            select(ref.c.connector_id, ref.c.key)
            .join(delivery, delivery.c.id == ref.c.delivery_id, isouter=True)
            .where(ref.c.sent_ms < before_ms, (delivery.c.id.is_(None)) | (delivery.c.final_ms > literal_column("0")))
            .limit(PAGE)
        )
    ).all()
    for row in old:
        await tx.execute(delete(ref).where(ref.c.key == row.key, ref.c.connector_id == row.connector_id))
    return len(old)


async def idempotency(tx: Tx, before_ms: int) -> int:
    """Delete idempotency keys whose time is over."""
    key = tables.idempotency
    old = (
        await tx.execute(select(key.c.application_id, key.c.key).where(key.c.created_ms < before_ms).limit(PAGE))
    ).all()
    for row in old:
        await tx.execute(delete(key).where(key.c.application_id == row.application_id, key.c.key == row.key))
    return len(old)


def of(table: Table) -> Forget:
    """Delete whole rows of a table whose ids tell their time."""

    async def forget(tx: Tx, before_ms: int) -> int:
        old = select(table.c.id).where(table.c.id < first_id_at(before_ms)).limit(PAGE)
        return (await tx.execute(delete(table).where(table.c.id.in_(old)))).rowcount

    return forget
