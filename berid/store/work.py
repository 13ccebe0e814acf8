"""Jobs as the operator sees them: what waits, what was set aside, and taking that up again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select, update

from berid.domain.message import State
from berid.store import Tx
from berid.store.tables import delivery, event, job


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job with the state of its delivery ("" for a callback). `buried_ms` is when it was set aside, and `why`."""

    id: int
    kind: str
    lane: str
    priority: int
    account_id: int
    state: str
    due_ms: int
    lease_until_ms: int
    attempts: int
    buried_ms: int
    why: str


_QUERY = select(
    job.c.id,
    job.c.kind,
    job.c.lane,
    job.c.priority,
    job.c.account_id,
    func.coalesce(delivery.c.state, ""),
    job.c.due_ms,
    job.c.lease_until_ms,
    job.c.attempts,
    job.c.buried_ms,
    job.c.why,
).select_from(job.outerjoin(delivery, delivery.c.id == job.c.id))
"""The columns of a `JobRecord`, in its order."""


async def jobs(tx: Tx, *, buried: bool, lane: str = "", after_id: int = 0, limit: int = 100) -> list[JobRecord]:
    """Jobs of all accounts, by id: those that are set aside, or those that wait or are being done."""
    query = _QUERY.where(job.c.id > after_id, job.c.buried_ms > 0 if buried else job.c.buried_ms == 0)
    if lane:
        query = query.where(job.c.lane == lane)
    return [JobRecord(*row) for row in await tx.execute(query.order_by(job.c.id).limit(limit))]


async def find(tx: Tx, identifiers: Sequence[int]) -> dict[int, JobRecord]:
    """The jobs with these ids, of whichever account, that exist."""
    return {row.id: JobRecord(*row) for row in await tx.execute(_QUERY.where(job.c.id.in_(identifiers)))}


async def revive(tx: Tx, record: JobRecord, now_ms: int, event_id: int) -> None:
    """Let a job that was set aside be done now, as if for the first time; a delivery that was held waits again."""
    await tx.execute(
        update(job)
        .where(job.c.id == record.id, job.c.buried_ms > 0)
        .values(buried_ms=0, why="", due_ms=now_ms, attempts=0, lease_until_ms=0, slot=0)
    )
    if record.state == State.HELD.value:
        await tx.execute(
            update(delivery)
            .where(delivery.c.id == record.id, delivery.c.state == State.HELD.value)
            .values(state=State.QUEUED.value, reason="")
        )
        await tx.execute(
            insert(event).values(delivery_id=record.id, id=event_id, kind=State.QUEUED.value, at_ms=now_ms)
        )
