"""Callback endpoints as their owners see and change them, and the log of what they were told.

Every function takes the account and names it in its query. Whoever changes an endpoint also raises the directory's version in
the same transaction. An event is pending while its bundle has a job, failed once that job is buried, and told when it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, delete, insert, or_, select, update

from berid.base.ids import SLOTS
from berid.store import Tx
from berid.store.tables import callback, callback_endpoint, callback_try, job

_PAGE = 500
"""Bound values in one statement."""


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A callback endpoint without its secret. `events` are words with spaces between."""

    id: int
    account_id: int
    application_id: int
    kind: str
    url: str
    events: str
    batch_max: int
    state: str
    description: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class CallbackRecord:
    """One event for one endpoint, and how far it has come: `pending`, `failed` or `told`. `due_ms` is that of its next try."""

    id: int
    endpoint_id: int
    delivery_id: int
    event: str
    payload: str
    created_ms: int
    state: str
    due_ms: int


@dataclass(frozen=True, slots=True)
class TryRecord:
    """One call: when, what the receiver answered (status 0: nothing), what went wrong in words, how long it took."""

    at_ms: int
    status: int
    error: str
    elapsed_ms: int


_ENDPOINT = [callback_endpoint.c[name] for name in EndpointRecord.__slots__]


async def endpoints(tx: Tx, account_id: int) -> list[EndpointRecord]:
    """An account's endpoints, oldest first."""
    table = callback_endpoint
    rows = await tx.execute(select(*_ENDPOINT).where(table.c.account_id == account_id).order_by(table.c.id))
    return [EndpointRecord(*row) for row in rows]


async def endpoint(tx: Tx, account_id: int, endpoint_id: int) -> EndpointRecord | None:
    """One endpoint of an account."""
    rows = await tx.execute(select(*_ENDPOINT).where(*_is(account_id, endpoint_id)))
    row = rows.first()
    return EndpointRecord(*row) if row else None


async def sealed_secret(tx: Tx, account_id: int, endpoint_id: int) -> str | None:
    """What an endpoint signs with, sealed; locked until the transaction ends, so that two changes of it follow one another."""
    query = select(callback_endpoint.c.sealed_secret).where(*_is(account_id, endpoint_id)).with_for_update()
    return (await tx.execute(query)).scalar()


async def change_endpoint(tx: Tx, account_id: int, endpoint_id: int, **values: str | int) -> bool:
    """Set some columns of an endpoint. False if the account has no such endpoint."""
    changed = await tx.execute(update(callback_endpoint).where(*_is(account_id, endpoint_id)).values(**values))
    return bool(changed.rowcount)


async def remove_endpoint(tx: Tx, account_id: int, endpoint_id: int) -> bool:
    """Delete an endpoint. What was still to be told to it fails at its next try. False if there is no such endpoint."""
    gone = await tx.execute(delete(callback_endpoint).where(*_is(account_id, endpoint_id)))
    return bool(gone.rowcount)


def _log(account_id: int) -> Select[Any]:
    """Callbacks with their jobs."""
    named = [callback.c[name] for name in CallbackRecord.__slots__[:-2]]
    return (
        select(*named, job.c.buried_ms, job.c.due_ms)
        .outerjoin(job, and_(job.c.id == callback.c.bundle_id, job.c.kind == "callback"))
        .where(callback.c.account_id == account_id)
    )


def _record(row: Any) -> CallbackRecord:
    state = "told" if row.buried_ms is None else "failed" if row.buried_ms else "pending"
    due_ms = row.due_ms if state == "pending" else 0
    return CallbackRecord(
        row.id, row.endpoint_id, row.delivery_id, row.event, row.payload, row.created_ms, state, due_ms
    )


async def log(
    tx: Tx, account_id: int, endpoint_id: int, before_id: int, limit: int, is_failed: bool = False
) -> list[CallbackRecord]:
    """What an endpoint was or will be told, newest first, older than `before_id` (0: from the newest); or only what failed."""
    query = _log(account_id).where(callback.c.endpoint_id == endpoint_id)
    if before_id:
        query = query.where(callback.c.id < before_id)
    if is_failed:
        query = query.where(job.c.buried_ms > 0)
    return [_record(row) for row in await tx.execute(query.order_by(callback.c.id.desc()).limit(limit))]


async def callback_of(tx: Tx, account_id: int, endpoint_id: int, callback_id: int) -> CallbackRecord | None:
    """One event of one endpoint."""
    query = _log(account_id).where(callback.c.id == callback_id, callback.c.endpoint_id == endpoint_id)
    row = (await tx.execute(query)).first()
    return _record(row) if row else None


async def near(
    tx: Tx, account_id: int, delivery_ids: Sequence[int], ranges: Sequence[tuple[int, int]]
) -> list[CallbackRecord]:
    """The callbacks of some deliveries whose ids lie in one of the ranges (both ends in them), oldest first.

    There is no index by delivery. A callback gets its id right after the line in the journal that it tells of, so
    whoever knows the lines knows where to look.
    """
    if not delivery_ids or not ranges:
        return []
    query = _log(account_id).where(
        callback.c.delivery_id.in_(delivery_ids), or_(*(callback.c.id.between(low, high) for low, high in ranges))
    )
    return [_record(row) for row in await tx.execute(query.order_by(callback.c.id))]


async def tries(tx: Tx, account_id: int, callback_ids: Sequence[int]) -> dict[int, list[TryRecord]]:
    """The tries of some callbacks, oldest first, by callback."""
    found: dict[int, list[TryRecord]] = {identifier: [] for identifier in callback_ids}
    for start in range(0, len(callback_ids), _PAGE):
        rows = await tx.execute(
            select(callback.c.id, *(callback_try.c[name] for name in TryRecord.__slots__))
            .join(callback_try, callback_try.c.callback_id == callback.c.bundle_id)
            .where(callback.c.id.in_(callback_ids[start : start + _PAGE]), callback.c.account_id == account_id)
            .order_by(callback_try.c.id)
        )
        for identifier, *values in rows:
            found[identifier].append(TryRecord(*values))
    return found


async def select_between(
    tx: Tx, account_id: int, endpoint_id: int, since_id: int, until_id: int, is_failed: bool, limit: int
) -> list[int]:
    """The ids of up to `limit` events of an endpoint from `since_id` to before `until_id`, oldest first; or of failed ones."""
    query = _log(account_id).where(
        callback.c.endpoint_id == endpoint_id, callback.c.id >= since_id, callback.c.id < until_id
    )
    if is_failed:
        query = query.where(job.c.buried_ms > 0)
    rows = await tx.execute(query.with_only_columns(callback.c.id).order_by(callback.c.id).limit(limit))
    return [row[0] for row in rows]


async def tell_again(tx: Tx, account_id: int, lane: str, callback_ids: Sequence[int], now_ms: int) -> int:
    """Give events a job that is due now, or make theirs due; what is being told at this moment stays as it is.

    Returns how many will be told.
    """
    told = 0
    for start in range(0, len(callback_ids), _PAGE):
        ids = await _each_alone(tx, account_id, callback_ids[start : start + _PAGE])
        rows = await tx.execute(select(job.c.id).where(job.c.id.in_(ids), job.c.kind == "callback").with_for_update())
        present = {row[0] for row in rows}
        woken = await tx.execute(
            update(job)
            .where(job.c.id.in_(sorted(present)), job.c.account_id == account_id, job.c.lease_until_ms == 0)
            .values(due_ms=now_ms, attempts=0, buried_ms=0, why="", lane=lane)
        )
        missing = [identifier for identifier in ids if identifier not in present]
        if missing:
            await tx.execute(
                insert(job),
                [
                    {"id": identifier, "kind": "callback", "lane": lane, "account_id": account_id, "due_ms": now_ms}
                    for identifier in missing
                ],
            )
        told += woken.rowcount + len(missing)
    return told


async def _each_alone(tx: Tx, account_id: int, callback_ids: Sequence[int]) -> list[int]:
    """Divide the bundles of some events, but for what is being told at this moment. Returns the events that are now alone."""
    mine = callback.c.id.in_(callback_ids), callback.c.account_id == account_id
    rows = await tx.execute(select(callback.c.id, callback.c.bundle_id, callback.c.bundled).where(*mine))
    bundles = {row.id: row.bundle_id for row in rows if row.bundled != 1}
    query = select(job.c.id, job.c.lease_until_ms).where(job.c.id.in_(set(bundles.values())), job.c.kind == "callback")
    leased = {row.id for row in await tx.execute(query.with_for_update()) if row.lease_until_ms}
    await divide(tx, account_id, sorted(set(bundles.values()) - leased))
    return [identifier for identifier in callback_ids if bundles.get(identifier) not in leased]


async def divide(tx: Tx, account_id: int, bundle_ids: Sequence[int]) -> None:
    """Let each event of these bundles go on by itself, with what its bundle had: a job like its, and the same tries."""
    first = callback.alias()
    rows = await tx.execute(
        select(callback.c.id, callback.c.bundle_id)
        .join(
            first,
            and_(
                callback.c.id.between(first.c.id, first.c.id + first.c.bundled * SLOTS),
                callback.c.bundle_id == first.c.id,
            ),
        )
        .where(first.c.id.in_(bundle_ids), first.c.account_id == account_id)
        .with_for_update(of=callback)
    )
    members = [(row.id, row.bundle_id) for row in rows]
    others = [(identifier, bundle_id) for identifier, bundle_id in members if identifier != bundle_id]
    for table, key in ((job, job.c.id), (callback_try, callback_try.c.callback_id)):
        found: dict[int, list[dict[str, Any]]] = {}
        for row in (await tx.execute(select(table).where(key.in_(bundle_ids)))).mappings():
            found.setdefault(row[key.name], []).append(dict(row))
        copies = [{**row, key.name: identifier} for identifier, bundle_id in others for row in found.get(bundle_id, ())]
        if copies:
            await tx.execute(insert(table), copies)
    for start in range(0, len(members), _PAGE):
        alone = callback.c.id.in_([identifier for identifier, _ in members[start : start + _PAGE]])
        await tx.execute(update(callback).where(alone).values(bundle_id=callback.c.id, bundled=1))


async def add_callback(
    tx: Tx,
    account_id: int,
    callback_id: int,
    endpoint_id: int,
    event: str,
    payload: str,
    now_ms: int,
    delivery_id: int = 0,
) -> None:
    """Write an event; `delivery_id` 0 if it is about none."""
    await tx.execute(
        insert(callback).values(
            id=callback_id,
            account_id=account_id,
            endpoint_id=endpoint_id,
            delivery_id=delivery_id,
            event=event,
            payload=payload,
            created_ms=now_ms,
            bundle_id=callback_id,
            bundled=1,
        )
    )


def _is(account_id: int, endpoint_id: int) -> list[Any]:
    return [callback_endpoint.c.id == endpoint_id, callback_endpoint.c.account_id == account_id]
