"""What is wrong with the platform, as the operator tells the public."""

from __future__ import annotations

from sqlalchemy import select

from berid.store import Tx
from berid.store.tables import incident

OPEN = "open"


async def open_incidents(tx: Tx) -> list[tuple[str, str]]:
    """(service, title) of every incident that goes on, the oldest first."""
    rows = await tx.execute(
        select(incident.c.service, incident.c.title)
        .where(incident.c.state == OPEN)
        .order_by(incident.c.started_ms, incident.c.id)
    )
    return [(row.service, row.title) for row in rows]
