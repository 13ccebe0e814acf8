"""Parts of long messages from people, kept until the last one is here.

They belong to nobody yet: whose a message is shows when it is whole. So these functions are for everyone's rows, by
connector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, func, insert, select

from berid.store import Tx
from berid.store.tables import inbound_part


@dataclass(frozen=True, slots=True)
class SetKey:
    """What the parts of one long message share. Handsets count `reference` round, so it comes again after a while."""

    connector_id: int
    sender: str
    recipient: str
    reference: int


@dataclass(frozen=True, slots=True)
class PartRow:
    """One part: its `number` of `total`, from 1, and its text."""

    number: int
    total: int
    body: str
    received_ms: int


async def parts_of(tx: Tx, key: SetKey) -> list[PartRow]:
    """The parts of one message that are kept, in their order."""
    table = inbound_part
    rows = await tx.execute(
        select(table.c.number, table.c.total, table.c.body, table.c.received_ms)
        .where(_is(key))
        .order_by(table.c.number)
    )
    return [PartRow(*row) for row in rows]


async def replace_parts(tx: Tx, key: SetKey, parts: Iterable[PartRow]) -> None:
    """Keep these parts of a message and no others."""
    await tx.execute(delete(inbound_part).where(_is(key)))
    rows = [
        {
            "connector_id": key.connector_id,
            "sender": key.sender,
            "recipient": key.recipient,
            "reference": key.reference,
            "number": part.number,
            "total": part.total,
            "body": part.body,
            "received_ms": part.received_ms,
        }
        for part in parts
    ]
    if rows:
        await tx.execute(insert(inbound_part), rows)


async def stale_sets(tx: Tx, before_ms: int, limit: int) -> Sequence[SetKey]:
    """Messages of which no part has come since `before_ms`."""
    table = inbound_part
    shared = (table.c.connector_id, table.c.sender, table.c.recipient, table.c.reference)
    rows = await tx.execute(
        select(*shared).group_by(*shared).having(func.max(table.c.received_ms) < before_ms).limit(limit)
    )
    return [SetKey(*row) for row in rows]


def _is(key: SetKey) -> ColumnElement[bool]:
    table = inbound_part
    return and_(
        table.c.connector_id == key.connector_id,
        table.c.sender == key.sender,
        table.c.recipient == key.recipient,
        table.c.reference == key.reference,
    )
