"""What SMPP customers need of the store beside the path: the endpoint through which they are told, and their waiting
receipts.

An application has one endpoint of kind `smpp`, whatever logins it has, and its id is the application's own. So two
processes cannot make two of it, and from the name of its lane one finds it without a search.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, literal_column, select, update
from sqlalchemy.exc import IntegrityError

from berid.base.ids import first_id_at
from berid.domain.report import DEFAULT_EVENTS, Endpoint
from berid.store import Tx, accounts
from berid.store.tables import callback_endpoint, job

KIND = "smpp"

BATCH_MAX = 50
"""Receipts that are handed to the binds in one call. A call ends with its slowest receipt, and its job is not done
before, so it is kept shorter than those to a web address."""

_LANES = f"h{KIND}:"

# Written as the index of ready jobs has it, so that the planner sees that it may use that.
_IS_FREE: tuple[ColumnElement[bool], ...] = (
    literal_column("job.lease_until_ms = 0"),
    literal_column("job.buried_ms = 0"),
)


def endpoint_of(account_id: int, application_id: int) -> Endpoint:
    """The endpoint of an application's binds, with every event that an endpoint is told by default.

    Its host, and so its lane, is named after the application; its URL says the same to whoever derives the one from
    the other.
    """
    host = f"{KIND}:{application_id}"
    return Endpoint(
        id=application_id,
        account_id=account_id,
        application_id=application_id,
        kind=KIND,
        url=f"{KIND}://{host}",
        host=host,
        sealed_secret="",
        events=DEFAULT_EVENTS,
        batch_max=BATCH_MAX,
        state="on",
    )


def application_of(lane: str) -> int:
    """The application whose binds a lane serves; 0 for the lane of a web address."""
    digits = lane.removeprefix(_LANES)
    return int(digits) if digits != lane and digits.isascii() and digits.isdigit() else 0


async def ensure_endpoint(tx: Tx, account_id: int, application_id: int, now_ms: int) -> bool:
    """Give an application its endpoint, and return whether it had none. The caller then raises the directory's version.

    For whoever makes an SMPP login; a bind does the same for logins that were made otherwise.
    """
    table = callback_endpoint
    found = await tx.execute(select(table.c.id).where(table.c.id == application_id, table.c.account_id == account_id))
    if found.first() is not None:
        return False
    try:
        async with tx.begin_nested():
            await accounts.add_endpoint(tx, endpoint_of(account_id, application_id), "SMPP binds", now_ms)
    except IntegrityError:  # another process has done it since we looked
        return False
    return True


async def wake(tx: Tx, application_id: int, now_ms: int) -> int:
    """Make due now what was to be tried again later on an application's binds. Returns how many."""
    woken = await tx.execute(
        update(job)
        .where(
            job.c.lane == _lane(application_id),
            job.c.due_ms > now_ms,
            *_IS_FREE,
        )
        .values(due_ms=now_ms)
    )
    return woken.rowcount


async def waiting_since(tx: Tx, application_ids: Sequence[int], before_ms: int, limit: int) -> list[int]:
    """Up to `limit` events that wait for the binds of these applications since before a moment."""
    rows = await tx.execute(
        select(job.c.id)
        .where(
            job.c.lane.in_([_lane(application_id) for application_id in application_ids]),
            job.c.id < first_id_at(before_ms),
            *_IS_FREE,
        )
        .limit(limit)
    )
    return [row[0] for row in rows]


async def give_up(tx: Tx, application_ids: Sequence[int], callback_ids: Sequence[int], now_ms: int) -> None:
    """Set events of these applications aside for a person, as those are whose tries are used up."""
    lanes = [_lane(application_id) for application_id in application_ids]
    await tx.execute(
        update(job)
        .where(job.c.id.in_(callback_ids), job.c.lane.in_(lanes), *_IS_FREE)
        .values(buried_ms=now_ms, why="the customer did not bind")
    )


def _lane(application_id: int) -> str:
    return f"{_LANES}{application_id}"
