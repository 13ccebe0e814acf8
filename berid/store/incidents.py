"""What is wrong with the platform, as the operator tells the public."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from berid.store import Tx
from berid.store.tables import incident

OPEN = "open"
CLOSED = "closed"


async def open_incidents(tx: Tx) -> list[tuple[str, str]]:
    """(service, title) of every incident that goes on, the oldest first."""
    rows = await tx.execute(
        select(incident.c.service, incident.c.title)
        .where(incident.c.state == OPEN)
        .order_by(incident.c.started_ms, incident.c.id)
    )
    return [(row.service, row.title) for row in rows]


@dataclass(frozen=True, slots=True)
class IncidentRecord:
    """One incident. `service` is what it is about, `title` a sentence for the public; `ended_ms` is 0 while it goes on."""

    id: int
    service: str
    title: str
    state: str
    started_ms: int
    ended_ms: int


async def incidents(tx: Tx, before_id: int, limit: int, is_open: bool) -> list[IncidentRecord]:
    """The platform's incidents, newest first, or only those that go on; `before_id` 0 begins at the newest."""
    query = select(*(incident.c[name] for name in IncidentRecord.__slots__)).where(incident.c.account_id == 0)
    if before_id:
        query = query.where(incident.c.id < before_id)
    if is_open:
        query = query.where(incident.c.state == OPEN)
    return [IncidentRecord(*row) for row in await tx.execute(query.order_by(incident.c.id.desc()).limit(limit))]


async def add_incident(tx: Tx, record: IncidentRecord) -> None:
    """Insert an incident of the platform's own."""
    await tx.execute(insert(incident).values(**{name: getattr(record, name) for name in record.__slots__}))


async def end_incident(tx: Tx, incident_id: int, now_ms: int) -> bool:
    """End an incident that goes on; False if there is none."""
    ended = await tx.execute(
        update(incident)
        .where(incident.c.id == incident_id, incident.c.account_id == 0, incident.c.state == OPEN)
        .values(state=CLOSED, ended_ms=now_ms)
    )
    return bool(ended.rowcount)
