"""Reading messages back: lists, one message with its deliveries, and the journal of a delivery; and moving a schedule.

Every function takes the account and names it in its query. Nothing here may slow a new message down, so there is no index for
the questions of people: a list walks the account's messages from the newest, looks at no more than a *window* of them, and says
where the next call should go on. Deliveries of a message have ids from its `first_id` to its `last_id`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, func, literal_column, select, update

from berid.base.ids import SLOTS, first_id_at
from berid.domain.journal import delivered_detail, sent_detail
from berid.domain.message import FINAL, State
from berid.store import Tx
from berid.store.tables import delivery, event, job, message

WINDOW = 2_000
"""Messages that one call looks at, at most, for those that fit."""

WINDOW_DELIVERIES = 50_000
"""Deliveries that one call looks at, at most, beyond those of the first message; some 30 ms of reading."""

SHOWN = 10
"""Deliveries that a list shows of each message; the rest by `deliveries`."""

_PAGE = 500
"""Bound values in one statement: SQLite of old allows 32,766, and long lists are slow to compile."""


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A row of `message`. `refused` is a JSON list of (recipient, kind), `options` a JSON object; both may be empty."""

    id: int
    account_id: int
    application_id: int
    mode: str
    channel: str
    dialect: str
    sender: str
    category: str
    priority: int
    body: str
    body_kind: str
    alphabet: str
    parts: int
    reference: str
    cancel_key: str
    options: str
    state: str
    total: int
    first_id: int
    last_id: int
    cost_micros: int
    currency: str
    refused: str
    created_ms: int
    due_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A row of `delivery`, without what only the path needs."""

    id: int
    message_id: int
    account_id: int
    recipient: str
    country: str
    state: str
    reason: str
    units: int
    price_micros: int
    money: str
    route_id: int
    connector_id: int
    attempt: int
    carrier_ids: str
    sent_ms: int
    final_ms: int
    expires_ms: int
    report_ms: int
    report_code: str


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One line of a delivery's journal. `detail` is a JSON object, or empty. The id of a line that the delivery itself tells is
    the smallest that can have been made at its time."""

    delivery_id: int
    id: int
    kind: str
    at_ms: int
    detail: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages a list is asked for; what is empty or 0 wants all. `state` and `number` are of any of the deliveries.

    `since_id` and `until_id` are ids (`base.ids.first_id_at`), the second one exclusive.
    """

    mode: str = ""
    channel: str = ""
    application_id: int = 0
    reference: str = ""
    state: str = ""
    number: str = ""
    since_id: int = 0
    until_id: int = 0


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Some messages, newest first. `next_id` is what `before_id` must be to go on, 0 at the end of the list.

    A page may hold fewer messages than asked for, none even, and yet not be the last: its window was full of others.
    """

    messages: Sequence[MessageRecord]
    next_id: int


_MESSAGE = [message.c[name] for name in MessageRecord.__slots__]
_DELIVERY = [delivery.c[name] for name in DeliveryRecord.__slots__]
_EVENT = [event.c[name] for name in EventRecord.__slots__]

_SENT, _DELIVERED = State.SENT.value, State.DELIVERED.value
_AFTER_DELIVERED = frozenset({"report_ignored", State.READ.value})
_AFTER_SENT = _AFTER_DELIVERED | {
    "part_delivered",
    _DELIVERED,
    State.UNDELIVERED.value,
    State.EXPIRED.value,
    State.REJECTED.value,
    State.FAILED.value,
}
"""What can be written of a delivery only after it was sent; nothing that comes before is among these once it was sent."""


async def find(tx: Tx, account_id: int, mode: str, message_id: int) -> MessageRecord | None:
    """One message of an account in a mode (`test` or `live`); one that is still loading is not there yet."""
    rows = await tx.execute(select(*_MESSAGE).where(message.c.id == message_id, *_owned(account_id, mode)))
    row = rows.first()
    return MessageRecord(*row) if row else None


async def find_by_cancel_key(tx: Tx, account_id: int, mode: str, cancel_key: str) -> list[MessageRecord]:
    """All messages that an account sent under a cancel key of its own, newest first."""
    rows = await tx.execute(
        select(*_MESSAGE)
        .where(
            message.c.cancel_key == cancel_key, literal_column("message.cancel_key <> ''"), *_owned(account_id, mode)
        )
        .order_by(message.c.id.desc())
    )
    return [MessageRecord(*row) for row in rows]


async def find_delivery(
    tx: Tx, account_id: int, mode: str, delivery_id: int
) -> tuple[DeliveryRecord, MessageRecord] | None:
    """One delivery of an account in a mode, with its message."""
    rows = await tx.execute(select(*_DELIVERY).where(delivery.c.id == delivery_id, delivery.c.account_id == account_id))
    row = rows.first()
    if row is None:
        return None
    found = DeliveryRecord(*row)
    owner = await find(tx, account_id, mode, found.message_id)
    return (found, owner) if owner is not None else None


async def page(tx: Tx, account_id: int, wanted: Wanted, before_id: int, limit: int) -> MessagePage:
    """Up to `limit` messages older than `before_id` (0: from the newest) that fit."""
    until_id = min([bound for bound in (before_id, wanted.until_id) if bound], default=1 << 53)
    low_id = await _window(tx, account_id, wanted, until_id)
    query = (
        select(*_MESSAGE)
        .where(message.c.id < until_id, message.c.id >= max(low_id, wanted.since_id), *_owned(account_id, wanted.mode))
        .order_by(message.c.id.desc())
        .limit(limit + 1)
    )
    for name in ("channel", "application_id", "reference"):
        value = getattr(wanted, name)
        if value:
            query = query.where(message.c[name] == value)
    query = _with_delivery(query, wanted)
    found = [MessageRecord(*row) for row in await tx.execute(query)]
    if len(found) > limit:
        return MessagePage(found[:limit], found[limit - 1].id)
    return MessagePage(found, low_id if low_id > wanted.since_id else 0)


async def _window(tx: Tx, account_id: int, wanted: Wanted, until_id: int) -> int:
    """The smallest id that this call looks at; 0 if it sees the list's end."""
    newest = (
        select(message.c.id, message.c.total)
        .where(message.c.account_id == account_id, message.c.id < until_id, message.c.id >= wanted.since_id)
        .order_by(message.c.id.desc())
    )
    if not (wanted.state or wanted.number):
        last = (await tx.execute(newest.with_only_columns(message.c.id).offset(WINDOW).limit(1))).scalar()
        return last + 1 if last else 0
    seen = 0
    rows = (await tx.execute(newest.limit(WINDOW + 1))).all()
    for place, (identifier, total) in enumerate(rows):
        seen += total
        if place and (place == WINDOW or seen > WINDOW_DELIVERIES):
            return int(identifier) + 1
    return 0


def _with_delivery(query: Select[Any], wanted: Wanted) -> Select[Any]:
    """Only messages with a delivery that fits. A question for each message, never a join: PostgreSQL would read all of the
    table for that."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.state:
        conditions.append(delivery.c.state == wanted.state)
    if wanted.number:
        conditions.append(delivery.c.recipient == wanted.number)
    if not conditions:
        return query
    first = (
        select(delivery.c.id)
        .where(
            delivery.c.id.between(message.c.first_id, message.c.last_id),
            delivery.c.message_id == message.c.id,
            *conditions,
        )
        .order_by(delivery.c.id)
        .limit(1)
        .correlate(message)
        .scalar_subquery()
    )
    return query.where(first.is_not(None))


async def first_deliveries(
    tx: Tx, account_id: int, messages: Sequence[MessageRecord]
) -> dict[int, list[DeliveryRecord]]:
    """The first SHOWN deliveries of each of these messages, by message.

    A process takes the ids of a message in one go (`IdMaker.take`), so they are SLOTS apart and need not be searched for.
    """
    wanted = [
        identifier
        for record in messages
        for identifier in range(record.first_id, record.first_id + min(record.total, SHOWN) * SLOTS, SLOTS)
    ]
    found: dict[int, list[DeliveryRecord]] = {record.id: [] for record in messages}
    for start in range(0, len(wanted), _PAGE):
        rows = await tx.execute(
            select(*_DELIVERY)
            .where(delivery.c.id.in_(wanted[start : start + _PAGE]), delivery.c.account_id == account_id)
            .order_by(delivery.c.id)
        )
        for row in rows:
            found[row.message_id].append(DeliveryRecord(*row))
    return found


async def deliveries(
    tx: Tx,
    account_id: int,
    owner: MessageRecord,
    after_id: int = 0,
    limit: int = SHOWN,
    states: Collection[str] = (),
) -> list[DeliveryRecord]:
    """Up to `limit` deliveries of a message behind `after_id`, in the order in which they were given; of these states only."""
    query = select(*_DELIVERY).where(_of(owner), delivery.c.account_id == account_id, delivery.c.id > after_id)
    if states:
        query = query.where(delivery.c.state.in_(sorted(states)))
    return [DeliveryRecord(*row) for row in await tx.execute(query.order_by(delivery.c.id).limit(limit))]


async def counts(tx: Tx, account_id: int, owner: MessageRecord) -> dict[str, int]:
    """How many deliveries of a message are in each state."""
    rows = await tx.execute(
        select(delivery.c.state, func.count())
        .where(_of(owner), delivery.c.account_id == account_id)
        .group_by(delivery.c.state)
    )
    return {row[0]: row[1] for row in rows}


async def unfinished(tx: Tx, account_id: int, owner: MessageRecord) -> list[int]:
    """The deliveries of a message whose end is not yet known."""
    rows = await tx.execute(
        select(delivery.c.id)
        .where(
            _of(owner),
            delivery.c.account_id == account_id,
            delivery.c.state.not_in(sorted(state.value for state in FINAL)),
        )
        .order_by(delivery.c.id)
    )
    return [row[0] for row in rows]


async def journals(tx: Tx, account_id: int, shown: Sequence[DeliveryRecord]) -> dict[int, list[EventRecord]]:
    """The journals of some deliveries, oldest line first, by delivery: what was written, and what they tell themselves."""
    found: dict[int, list[EventRecord]] = {record.id: [] for record in shown}
    rows = await tx.execute(
        select(*_EVENT)
        .join(delivery, delivery.c.id == event.c.delivery_id)
        .where(event.c.delivery_id.in_(found), delivery.c.account_id == account_id)
        .order_by(event.c.id)
    )
    for row in rows:
        found[row.delivery_id].append(EventRecord(*row))
    for record in shown:
        lines = found[record.id]
        if record.carrier_ids and all(line.kind != _SENT for line in lines):
            _put(lines, record.id, _SENT, record.sent_ms, sent_detail(record), _AFTER_SENT)
        if record.report_ms:
            _put(lines, record.id, _DELIVERED, record.final_ms, delivered_detail(record), _AFTER_DELIVERED)
    return found


def _put(
    lines: list[EventRecord],
    delivery_id: int,
    kind: str,
    at_ms: int,
    detail: dict[str, Any],
    later: frozenset[str],
) -> None:
    """Put a line where it belongs by its time; of those of the same millisecond before what can only have followed it."""
    place = len(lines)
    while place and (lines[place - 1].at_ms, lines[place - 1].kind in later) > (at_ms, False):
        place -= 1
    text = msgspec.json.encode(detail).decode()
    lines.insert(place, EventRecord(delivery_id, first_id_at(at_ms), kind, at_ms, text))


async def move_schedule(tx: Tx, account_id: int, owner: MessageRecord, due_ms: int) -> bool:
    """Plan a message for another time, its validity moving along. False if any of it has begun; then roll back.

    A message too large for one commit has no jobs of deliveries before its time, only the one that will make them.
    """
    shift_ms = due_ms - owner.due_ms
    moved = await tx.execute(
        update(delivery)
        .where(_of(owner), delivery.c.account_id == account_id, delivery.c.state == State.SCHEDULED.value)
        .values(expires_ms=delivery.c.expires_ms + shift_ms)
    )
    if moved.rowcount != owner.total:
        return False
    is_free = and_(job.c.account_id == account_id, job.c.lease_until_ms == 0, job.c.buried_ms == 0)
    in_message = select(delivery.c.id).where(_of(owner))
    jobs = await tx.execute(update(job).where(is_free, job.c.id.in_(in_message)).values(due_ms=due_ms))
    if jobs.rowcount != owner.total:
        spread = await tx.execute(
            update(job).where(is_free, job.c.id == owner.id, job.c.kind == "spread").values(due_ms=due_ms)
        )
        if jobs.rowcount or not spread.rowcount:
            return False
    changed = await tx.execute(
        update(message)
        .where(message.c.id == owner.id, message.c.due_ms == owner.due_ms, *_owned(account_id, owner.mode))
        .values(due_ms=due_ms, expires_ms=message.c.expires_ms + shift_ms)
    )
    return bool(changed.rowcount)


def _owned(account_id: int, mode: str) -> list[ColumnElement[bool]]:
    """The conditions of a message that its account may see; an empty mode is either."""
    conditions: list[ColumnElement[bool]] = [message.c.account_id == account_id, message.c.state != "loading"]
    if mode:
        conditions.append(message.c.mode == mode)
    return conditions


def _of(owner: MessageRecord) -> ColumnElement[bool]:
    """The deliveries of a message: its range of ids, in which those of other processes lie as well."""
    return and_(delivery.c.id.between(owner.first_id, owner.last_id), delivery.c.message_id == owner.id)
