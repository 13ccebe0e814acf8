"""Messages from people, and parts of them that have waited too long for the others.

Messages and parts are written by the hot path, and parts taken by it (`HotTx.take_parts`). Parts belong to nobody yet: whose
a message is shows when it is whole.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import func, select

from berid.store import Tx
from berid.store.tables import inbound, inbound_part


class SetKey(NamedTuple):
    """What the parts of one long message share. Handsets count `reference` round, so it comes again after a while."""

    connector_id: int
    sender: str
    recipient: str
    reference: int


async def stale_sets(tx: Tx, before_ms: int, limit: int) -> list[SetKey]:
    """Messages of which no part has come since `before_ms`."""
    shared = [inbound_part.c[name] for name in SetKey._fields]
    rows = await tx.execute(
        select(*shared).group_by(*shared).having(func.max(inbound_part.c.received_ms) < before_ms).limit(limit)
    )
    return [SetKey(*row) for row in rows]


async def page(tx: Tx, account_id: int, before_id: int, limit: int) -> list[Any]:
    """Messages of an account, newest first, older than `before_id` unless that is 0; of account 0: those that are nobody's."""
    wanted = select(inbound).where(inbound.c.account_id == account_id)
    if before_id:
        wanted = wanted.where(inbound.c.id < before_id)
    return list(await tx.execute(wanted.order_by(inbound.c.id.desc()).limit(limit)))
