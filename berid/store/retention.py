"""Forgetting: rows older than their class's time, a page at a time.

What to forget is looked for by a read, which is in nobody's way however much it must look through; the write that follows
finds its rows by their keys. Ids are time-ordered, so "older than" is "id below". The ledger is never forgotten.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, and_, delete, or_, select, tuple_, update

from berid.base.ids import first_id_at
from berid.store import Store, Tx, tables

PAGE = 500
"""How many rows one transaction removes, not counting what hangs on each (a delivery's journal, a callback's tries)."""

Rows = Sequence[Row[Any]]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A class of rows. `old(before_ms)` selects what is through and older than that; `remove` takes some of what it found and
    gives how many rows went."""

    old: Callable[[int], Select[Any]]
    remove: Callable[[Tx, Rows], Awaitable[int]]


async def forget_page(store: Store, forgotten: Forgotten, before_ms: int) -> int:
    """Remove a page of what is older than `before_ms`; fewer than `PAGE` rows gone means that no more are left.

    Raises `StoreAway`.
    """
    async with store.read() as tx:
        rows = (await tx.execute(forgotten.old(before_ms).limit(PAGE))).all()
    if not rows:
        return 0
    async with store.transaction() as tx:
        return await forgotten.remove(tx, rows)


def _is_through(before_ms: int) -> ColumnElement[bool]:
    """Of a message: its validity had ended before a moment, and so had the story of each of its deliveries."""
    message, delivery = tables.message.c, tables.delivery.c
    return and_(
        message.id < first_id_at(before_ms),
        message.expires_ms < before_ms,
        ~select(delivery.id)
        .where(
            delivery.id.between(message.first_id, message.last_id),
            delivery.message_id == message.id,
            or_(delivery.final_ms == 0, delivery.final_ms >= before_ms),
        )
        .exists(),
    )


def _old_contents(before_ms: int) -> Select[Any]:
    return select(tables.message.c.id).where(tables.message.c.body_kind != "erased", _is_through(before_ms))


async def _erase_contents(tx: Tx, rows: Rows) -> int:
    message = tables.message
    erased = update(message).where(message.c.id.in_([row.id for row in rows])).values(body="", body_kind="erased")
    return (await tx.execute(erased)).rowcount


CONTENTS = Forgotten(_old_contents, _erase_contents)
"""The texts of messages."""


def _old_inbound_contents(before_ms: int) -> Select[Any]:
    inbound = tables.inbound
    return select(inbound.c.id).where(inbound.c.id < first_id_at(before_ms), inbound.c.body != "")


async def _erase_inbound_contents(tx: Tx, rows: Rows) -> int:
    inbound = tables.inbound
    return (
        await tx.execute(update(inbound).where(inbound.c.id.in_([row.id for row in rows])).values(body=""))
    ).rowcount


INBOUND_CONTENTS = Forgotten(_old_inbound_contents, _erase_inbound_contents)
"""The texts that people wrote to us."""


def _old_messages(before_ms: int) -> Select[Any]:
    message = tables.message.c
    return select(message.id, message.first_id, message.last_id).where(_is_through(before_ms))


async def _remove_messages(tx: Tx, rows: Rows) -> int:
    """A message goes with the last of its deliveries: one to a hundred thousand recipients takes many pages."""
    message, delivery, event = tables.message, tables.delivery, tables.event
    removed = 0
    emptied = []
    for row in rows:
        page = select(delivery.c.id).where(
            delivery.c.id.between(row.first_id, row.last_id), delivery.c.message_id == row.id
        )
        ids = list((await tx.execute(page.limit(PAGE - removed))).scalars())
        await tx.execute(delete(event).where(event.c.delivery_id.in_(ids)))
        await tx.execute(delete(delivery).where(delivery.c.id.in_(ids)))
        removed += len(ids)
        if removed == PAGE:
            break
        emptied.append(row.id)
    return removed + (await tx.execute(delete(message).where(message.c.id.in_(emptied)))).rowcount


MESSAGES = Forgotten(_old_messages, _remove_messages)
"""Messages with their deliveries and the journal of these."""


def _old_callbacks(before_ms: int) -> Select[Any]:
    callback = tables.callback
    return select(callback.c.id).where(callback.c.id < first_id_at(before_ms), _is_idle())


def _is_idle() -> ColumnElement[bool]:
    """Of a callback: nobody tries it any more."""
    job = tables.job.c
    return ~select(job.id).where(job.id == tables.callback.c.bundle_id, job.buried_ms == 0).exists()


async def _remove_callbacks(tx: Tx, rows: Rows) -> int:
    """Asks again whether they are idle: a person may have taken one up since."""
    callback, job, tries = tables.callback, tables.job, tables.callback_try
    mine = select(callback.c.id).where(callback.c.id.in_([row.id for row in rows]), _is_idle())
    ids = list((await tx.execute(mine)).scalars())
    await tx.execute(delete(tries).where(tries.c.callback_id.in_(ids)))
    await tx.execute(delete(job).where(job.c.id.in_(ids)))
    return (await tx.execute(delete(callback).where(callback.c.id.in_(ids)))).rowcount


CALLBACKS = Forgotten(_old_callbacks, _remove_callbacks)
"""Callbacks with their tries, those that were set aside too."""


def _old_carrier_refs(before_ms: int) -> Select[Any]:
    ref, delivery = tables.carrier_ref.c, tables.delivery.c
    return (
        select(ref.key, ref.connector_id)
        .join(tables.delivery, delivery.id == ref.delivery_id, isouter=True)
        .where(ref.sent_ms < before_ms, or_(delivery.id.is_(None), delivery.final_ms > 0))
    )


async def _remove_carrier_refs(tx: Tx, rows: Rows) -> int:
    ref = tables.carrier_ref
    mine = tuple_(ref.c.key, ref.c.connector_id).in_([(row.key, row.connector_id) for row in rows])
    return (await tx.execute(delete(ref).where(mine))).rowcount


CARRIER_REFS = Forgotten(_old_carrier_refs, _remove_carrier_refs)
"""Carriers' ids whose receipt can no longer change anything."""


def _old_idempotency(before_ms: int) -> Select[Any]:
    key = tables.idempotency.c
    return select(key.application_id, key.key).where(key.created_ms < before_ms)


async def _remove_idempotency(tx: Tx, rows: Rows) -> int:
    key = tables.idempotency
    mine = tuple_(key.c.application_id, key.c.key).in_([(row.application_id, row.key) for row in rows])
    return (await tx.execute(delete(key).where(mine))).rowcount


IDEMPOTENCY = Forgotten(_old_idempotency, _remove_idempotency)
"""Idempotency keys."""


def of(table: Table) -> Forgotten:
    """Whole rows of a table whose ids tell their time."""

    def old(before_ms: int) -> Select[Any]:
        return select(table.c.id).where(table.c.id < first_id_at(before_ms))

    async def remove(tx: Tx, rows: Rows) -> int:
        return (await tx.execute(delete(table).where(table.c.id.in_([row.id for row in rows])))).rowcount

    return Forgotten(old, remove)
