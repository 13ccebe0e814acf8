"""Parts of long messages from people that have waited too long for the others.

Parts are kept and taken by the hot path (`HotTx.take_parts`). They belong to nobody yet: whose a message is shows when it is
whole. So this is for everyone's rows, by connector.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select

from berid.store import Tx
from berid.store.tables import inbound_part


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
