"""Questions about the job table that are asked now and then: which lanes have work, how deep they are, what was
buried."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, literal_column, select, text, update

from berid.domain.message import State
from berid.store import Tx, tables
from berid.store.tables import job

_HAS_BEEN_LEASED = job.c.attempts > literal_column("0")
_LEASED = (_HAS_BEEN_LEASED, job.c.lease_until_ms > literal_column("0"))
"""Jobs that somebody holds. Both stores use the index of leases only if its condition is there in so many words."""

LOOKED_AT = 5_000
"""How many jobs `past_validity` looks at: ten milliseconds of the database's time, for which nobody on the path has to wait."""

COUNTED = 20_000
"""How many jobs `depths` counts, for the same reason."""


_DUE = text(
    """
    WITH RECURSIVE ready AS NOT MATERIALIZED (
        SELECT lane, priority, account_id, due_ms FROM job WHERE lease_until_ms = 0 AND buried_ms = 0
    ),
    lanes (lane) AS (
        SELECT (SELECT min(lane) FROM ready WHERE lane >= :low AND lane < :high)
        UNION ALL
        SELECT (SELECT min(r.lane) FROM ready r WHERE r.lane > lanes.lane AND r.lane < :high) FROM lanes WHERE lane IS NOT NULL
    ),
    account (lane, priority, id) AS (
        SELECT l.lane, p.priority,
            (SELECT min(account_id) FROM ready r WHERE r.lane = l.lane AND r.priority = p.priority)
        FROM lanes l CROSS JOIN (SELECT 0 AS priority UNION ALL SELECT 1 UNION ALL SELECT 2) p WHERE l.lane IS NOT NULL
        UNION ALL
        SELECT a.lane, a.priority,
            (SELECT min(account_id) FROM ready r WHERE r.lane = a.lane AND r.priority = a.priority AND account_id > a.id)
        FROM account a WHERE a.id IS NOT NULL AND (SELECT min(due_ms) FROM ready r
            WHERE r.lane = a.lane AND r.priority = a.priority AND account_id = a.id) > :now
    )
    SELECT DISTINCT a.lane, a.priority FROM account a WHERE a.id IS NOT NULL AND (SELECT min(due_ms) FROM ready r
        WHERE r.lane = a.lane AND r.priority = a.priority AND account_id = a.id) <= :now
    """
)
"""Skips along the index from lane to lane, and in each from account to account until one has something due."""


async def due_lanes(tx: Tx, prefix: str, now_ms: int) -> list[tuple[str, int]]:
    """The lanes beginning with the letter `prefix` that have due work which nobody holds, with each priority that has some."""
    rows = await tx.execute(_DUE, {"low": prefix, "high": chr(ord(prefix) + 1), "now": now_ms})
    return [(row[0], row[1]) for row in rows]


class LaneDepth(NamedTuple):
    """How much waits in one lane at one priority, counting each event of a bundle, and when the first of its jobs is due."""

    lane: str
    priority: int
    jobs: int
    oldest_due_ms: int


async def depths(tx: Tx, after: int) -> tuple[list[LaneDepth], int]:
    """Count the next `COUNTED` jobs beyond the id `after`, by lane and priority. Returns that, and the id to go on from, 0 when
    there are no more jobs."""
    callback = tables.callback
    page, until = await _page(tx, after, COUNTED)
    rows = await tx.execute(
        select(job.c.lane, job.c.priority, func.sum(func.coalesce(callback.c.bundled, 1)), func.min(job.c.due_ms))
        .outerjoin(callback, and_(callback.c.id == job.c.id, job.c.kind == "callback"))
        .where(page, job.c.buried_ms == 0)
        .group_by(job.c.lane, job.c.priority)
    )
    return [LaneDepth(row[0], row[1], int(row[2]), row[3]) for row in rows], until


async def _page(tx: Tx, after: int, size: int) -> tuple[ColumnElement[bool], int]:
    """The condition of the next `size` jobs beyond the id `after`, and the id to go on from, 0 when there are no more."""
    last = select(job.c.id).where(job.c.id > after).order_by(job.c.id).offset(size - 1).limit(1)
    until = (await tx.execute(last)).scalar() or 0
    beyond = job.c.id > after
    return (beyond & (job.c.id <= until) if until else beyond), until


async def free_leases(tx: Tx, now_ms: int, slot: int | None = None) -> int:
    """Give back the jobs whose lease has run out, or all that `slot` holds: its last holder is dead. Returns how
    many."""
    which = job.c.lease_until_ms < now_ms if slot is None else job.c.slot == slot
    freed = await tx.execute(update(job).where(*_LEASED, which).values(lease_until_ms=0, slot=0))
    return freed.rowcount


async def free_leases_of_others(tx: Tx, living: Iterable[int]) -> int:
    """Give back the jobs held by slots that are not those of `living` processes. Returns how many."""
    freed = await tx.execute(update(job).where(*_LEASED, job.c.slot.not_in(living)).values(lease_until_ms=0, slot=0))
    return freed.rowcount


async def keep_due(tx: Tx, now_ms: int, until_ms: int) -> int:
    """What was due by `until_ms` is due now: the clock was set back from there. Returns how many jobs that were."""
    kept = await tx.execute(
        update(job).where(job.c.due_ms > now_ms, job.c.due_ms <= until_ms, job.c.buried_ms == 0).values(due_ms=now_ms)
    )
    return kept.rowcount


async def parked_counts(tx: Tx) -> dict[int, int]:
    """How many reports are parked, by connector."""
    parked = tables.parked_report
    rows = await tx.execute(select(parked.c.connector_id, func.count()).group_by(parked.c.connector_id))
    return {row[0]: row[1] for row in rows}


async def found_sending(tx: Tx, connector_id: int, limit: int) -> list[int]:
    """Deliveries that are *sending* on a connector that nobody runs: their process died between intent and
    outcome.

    They are looked for among the jobs that have been leased, whether or not somebody has the lease now: only what was leased
    is started, and a job stays until the outcome is known. These are not many more than lanes hold in memory.
    """
    delivery = tables.delivery
    rows = await tx.execute(
        select(job.c.id)
        .join(delivery, delivery.c.id == job.c.id)
        .where(
            _HAS_BEEN_LEASED,
            job.c.kind == "dispatch",
            delivery.c.connector_id == connector_id,
            delivery.c.state == State.SENDING.value,
        )
        .limit(limit)
    )
    return [row[0] for row in rows]


async def past_validity(tx: Tx, now_ms: int, after: int) -> tuple[list[int], int]:
    """Look at the next `LOOKED_AT` jobs beyond the id `after` for deliveries that still wait in a lane although their validity
    has ended: nobody could send them in time. Returns these, and the id to go on from, 0 when there are no more jobs."""
    delivery = tables.delivery
    page, until = await _page(tx, after, LOOKED_AT)
    rows = await tx.execute(
        select(job.c.id)
        .join(delivery, delivery.c.id == job.c.id)
        .where(
            page,
            job.c.kind == "dispatch",
            job.c.lease_until_ms == 0,
            delivery.c.expires_ms <= now_ms,
        )
    )
    return [row[0] for row in rows], until


async def without_receipt(tx: Tx, sent_before_ms: int, limit: int) -> list[int]:
    """Deliveries that the carrier took before `sent_before_ms` and never reported on."""
    delivery, ref = tables.delivery, tables.carrier_ref
    rows = await tx.execute(
        select(ref.c.delivery_id)
        .join(delivery, delivery.c.id == ref.c.delivery_id)
        .where(ref.c.sent_ms < sent_before_ms, delivery.c.state == "sent")
        .distinct()
        .limit(limit)
    )
    return [row[0] for row in rows]


async def overdue_schedules(tx: Tx, due_before_ms: int, limit: int) -> list[int]:
    """Deliveries planned for before `due_before_ms` that have not left."""
    delivery = tables.delivery
    rows = await tx.execute(
        select(job.c.id)
        .join(delivery, delivery.c.id == job.c.id)
        .where(
            job.c.kind == "dispatch",
            job.c.buried_ms == 0,
            job.c.due_ms < due_before_ms,
            delivery.c.state == "scheduled",
        )
        .limit(limit)
    )
    return [row[0] for row in rows]


async def waiting(tx: Tx, due_until_ms: int, after: int, limit: int) -> list[int]:
    """Deliveries that were to leave by `due_until_ms` and have not, nor been set aside; by id, beyond `after`."""
    delivery = tables.delivery
    rows = await tx.execute(
        select(job.c.id)
        .join(delivery, delivery.c.id == job.c.id)
        .where(
            job.c.kind == "dispatch",
            job.c.buried_ms == 0,
            job.c.due_ms <= due_until_ms,
            job.c.id > after,
            delivery.c.state.in_(["scheduled", "held", "queued"]),
        )
        .order_by(job.c.id)
        .limit(limit)
    )
    return [row[0] for row in rows]


async def unfinished_loads(tx: Tx, made_before: int) -> list[int]:
    """Messages that began to load before an id's time and never finished: their process ended."""
    message = tables.message
    rows = await tx.execute(
        select(message.c.id).where(message.c.state == literal_column("'loading'"), message.c.id < made_before)
    )
    return [row[0] for row in rows]
