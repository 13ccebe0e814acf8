"""How the native API writes and reads what occurs in many places: times, money, cursors, messages, deliveries, timelines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec

from berid.base.ids import first_id_at, made_ms, read, show
from berid.base.money import format_micros
from berid.domain.errors import RefusalKind, Refused, refused
from berid.domain.message import State
from berid.domain.report import EVENT_OF_STATE
from berid.store import Tx, callbacks, messages
from berid.store.callbacks import CallbackRecord, TryRecord
from berid.store.messages import DeliveryRecord, EventRecord, MessageRecord

LATEST_MS = 253_370_764_800_000
"""The start of the year 9999: later times could not be written once a validity is added."""

METADATA = "metadata."
"""The beginning of the options that are a caller's metadata."""

_BEHIND_MS = 1_500
"""The ids of a line's callbacks are made within a second, and both its time and they may be `flow.changes.TIMELY_MS` off."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OURS_ONLY = ("connector", "carrier_ids")
"""Details of the journal that are the operator's business."""

_ORDER = (
    State.SCHEDULED,
    State.HELD,
    State.QUEUED,
    State.SENDING,
    State.UNCERTAIN,
    State.SENT,
    State.FAILED,
    State.REJECTED,
    State.EXPIRED,
    State.UNDELIVERED,
    State.CANCELLED,
    State.DELIVERED,
    State.READ,
)
"""From the least to the most that can be hoped for."""

_EVENT_OF_KIND = {state.value: event for state, event in EVENT_OF_STATE.items()}
_PLACE = {state.value: place for place, state in enumerate(_ORDER)}


class Delivery(msgspec.Struct):
    """One message to one recipient."""

    id: str
    message: str
    to: str
    country: str
    state: State
    reason: str
    units: int
    price: str
    attempts: int
    sent_at: str | None
    ended_at: str | None
    expires_at: str | None


class CallTry(msgspec.Struct):
    """One call to a callback endpoint; status 0 means that nothing was answered."""

    at: str
    status: int
    error: str
    ms: int


class Event(msgspec.Struct):
    """One event for one callback endpoint: told, pending (then `next_try_at` says until when) or failed."""

    id: str
    endpoint: str
    type: str
    state: str
    created_at: str
    next_try_at: str | None
    tries: list[CallTry]
    delivery: str = ""


class Moment(msgspec.Struct, omit_defaults=True):
    """One line of a timeline: what happened, when, to which delivery; a `callback` line tells of one event's telling."""

    at: str
    event: str
    delivery: str = ""
    detail: dict[str, Any] = {}
    callback: Event | None = None


class Message(msgspec.Struct):
    """A message with its first ten deliveries. `state` is that of the delivery that is least far; in lists, of those shown."""

    id: str
    channel: str
    mode: str
    state: State
    sender: str
    category: str
    total: int
    parts: int
    cost: str
    currency: str
    reference: str
    metadata: dict[str, str]
    application: str
    created_at: str
    send_at: str | None
    expires_at: str
    resend_of: str | None
    deliveries: list[Delivery]


@lru_cache(maxsize=1024)
def rfc3339(at_ms: int) -> str:
    """A time in UTC: `2026-12-24T18:00:00.000Z`. What is told together shares most of its times."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03}Z"


@lru_cache(maxsize=1024)
def _second(at_s: int) -> str:
    """All but the milliseconds: the answers of one second share it."""
    return (_EPOCH + timedelta(seconds=at_s)).isoformat()[:-6]


def or_none(at_ms: int) -> str | None:
    """As `rfc3339`; None for 0, which stands for never."""
    return rfc3339(at_ms) if at_ms else None


def read_moment(text: str | int, field: str) -> int:
    """A time by RFC 3339 with its offset, or in milliseconds since 1970, as milliseconds.

    Raises `Refused` with SCHEDULE_DATE_INVALID, or SCHEDULE_TIME_INVALID when the offset is missing.
    """
    if isinstance(text, int):
        at_ms = text
    else:
        try:
            moment = datetime.fromisoformat(text.upper())  # RFC 3339 allows a small t and z
        except ValueError:
            raise _no_moment(field) from None
        if moment.tzinfo is None:
            raise refused(RefusalKind.SCHEDULE_TIME_INVALID, "the time has no offset from UTC", field)
        at_ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= at_ms < LATEST_MS:
        raise _no_moment(field)
    return at_ms


def _no_moment(field: str) -> Refused:
    return refused(RefusalKind.SCHEDULE_DATE_INVALID, "this is not a time that messages can be planned for", field)


def read_bound(text: str, field: str) -> int:
    """A bound of a list in time as the smallest id of that time; 0 for an empty text. Raises `Refused` with MALFORMED.

    In a query string a plus sign that was not escaped has become a space.
    """
    if not text:
        return 0
    try:
        digits = text.isascii() and text.isdigit() and len(text) <= 15
        return first_id_at(read_moment(int(text) if digits else text.replace(" ", "+"), field))
    except Refused:
        raise refused(RefusalKind.MALFORMED, "this is not a time by RFC 3339 with its offset", field) from None


def write_cursor(identifier: int) -> str | None:
    """The id behind which a list goes on, in a form that nobody should read; None at the end."""
    return f"c{identifier:x}" if identifier else None


def read_cursor(text: str) -> int:
    """The id in a cursor; 0 for an empty one. Raises `Refused` with MALFORMED."""
    if not text:
        return 0
    try:
        found = int(text[1:], 16) if text[0] == "c" and len(text) <= 15 else 0
    except ValueError:
        found = 0
    if found <= 0:
        raise refused(RefusalKind.MALFORMED, "this cursor was not given by us", "cursor")
    return found


def read_id(prefix: str, text: str, field: str) -> int:
    """The id in a parameter; 0 for an empty one. Raises `Refused` with MALFORMED."""
    found = read(prefix, text) if text else 0
    if found is None:
        raise refused(RefusalKind.MALFORMED, f"this is not an id like {prefix}_1", field)
    return found


def state_of(states: Iterable[str]) -> State:
    """The state of a message: that of its delivery that is least far. A message without deliveries has failed."""
    return State(min(states, key=_PLACE.__getitem__, default=State.FAILED.value))


def show_delivery(record: DeliveryRecord) -> Delivery:
    """A delivery as the API shows it."""
    return Delivery(
        id=show("dlv", record.id),
        message=show("msg", record.message_id),
        to=record.recipient,
        country=record.country,
        state=State(record.state),
        reason=record.reason,
        units=record.units,
        price=format_micros(record.price_micros),
        attempts=record.attempt,
        sent_at=or_none(record.sent_ms),
        ended_at=or_none(record.final_ms),
        expires_at=or_none(record.expires_ms),
    )


def describe_message(record: MessageRecord, states: Iterable[str], shown: Sequence[DeliveryRecord]) -> dict[str, Any]:
    """What every view of a message says of it; `states` are those of its deliveries."""
    options = read_options(record.options)
    return {
        "id": show("msg", record.id),
        "channel": record.channel,
        "mode": record.mode,
        "state": state_of(states),
        "sender": record.sender,
        "category": record.category,
        "total": record.total,
        "parts": record.parts,
        "cost": format_micros(record.cost_micros),
        "currency": record.currency,
        "reference": record.reference,
        "metadata": metadata_of(options),
        "application": show("app", record.application_id),
        "created_at": rfc3339(record.created_ms),
        "send_at": or_none(record.due_ms),
        "expires_at": rfc3339(record.expires_ms),
        "resend_of": options.get("resend_of"),
        "deliveries": [show_delivery(each) for each in shown],
    }


def read_options(text: str) -> dict[str, str]:
    """The options of a message as stored."""
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


def metadata_of(options: Mapping[str, str]) -> dict[str, str]:
    """The caller's metadata among a message's options."""
    return {name[len(METADATA) :]: value for name, value in options.items() if name.startswith(METADATA)}


def show_event(record: CallbackRecord, tries: Sequence[TryRecord]) -> Event:
    """An event's telling as the API shows it."""
    return Event(
        id=show("evt", record.id),
        endpoint=show("cbe", record.endpoint_id),
        type=record.event,
        state=record.state,
        created_at=rfc3339(record.created_ms),
        next_try_at=or_none(record.due_ms),
        tries=[CallTry(rfc3339(each.at_ms), each.status, each.error, each.elapsed_ms) for each in tries],
        delivery=show("dlv", record.delivery_id) if record.delivery_id else "",
    )


async def read_timeline(tx: Tx, owner: MessageRecord, shown: Sequence[DeliveryRecord]) -> list[Moment]:
    """Everything that happened to these deliveries of a message, and who was told of it, in the order of time."""
    account_id, ids = owner.account_id, [record.id for record in shown]
    journals = await messages.journals(tx, account_id, shown)
    told = await callbacks.near(tx, account_id, ids, _behind(journals))
    tries = await callbacks.tries(tx, account_id, [record.id for record in told])
    detail = {"send_at": rfc3339(owner.due_ms)} if owner.due_ms else {}
    moments = [(owner.created_ms, Moment(rfc3339(owner.created_ms), "accepted", detail=detail))]
    for delivery_id, journal in journals.items():
        steps = [[(line.at_ms, _moment(line))] for line in journal]
        for record in told:
            if record.delivery_id == delivery_id:
                at, event = rfc3339(record.created_ms), show_event(record, tries[record.id])
                moment = Moment(at, "callback", show("dlv", delivery_id), callback=event)
                steps[_step_of(record, journal)].append((record.created_ms, moment))
        moments += chain.from_iterable(steps)
    return [moment for _, moment in sorted(moments, key=itemgetter(0))]


def _step_of(record: CallbackRecord, journal: Sequence[EventRecord]) -> int:
    """The place of the line that a callback tells of."""
    fitting = [
        place
        for place, line in enumerate(journal)
        if _EVENT_OF_KIND.get(line.kind) == record.event and line.at_ms <= record.created_ms
    ]
    return max(fitting, default=len(journal) - 1)


def _behind(journals: Mapping[int, Sequence[EventRecord]]) -> list[tuple[int, int]]:
    """The ranges of ids in which the callbacks of these lines lie: a little behind each one's id, or behind its time if it was
    written when more had happened. Those that touch are one."""
    lines = chain.from_iterable(journals.values())
    ranges: list[tuple[int, int]] = []
    for low in sorted({start for line in lines for start in (line.id, first_id_at(line.at_ms))}):
        high = first_id_at(made_ms(low) + _BEHIND_MS)
        if ranges and low <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], high)
        else:
            ranges.append((low, high))
    return ranges


def _moment(line: EventRecord) -> Moment:
    detail = msgspec.json.decode(line.detail, type=dict[str, Any]) if line.detail else {}
    shown = {name: value for name, value in detail.items() if name not in _OURS_ONLY}
    return Moment(rfc3339(line.at_ms), line.kind, show("dlv", line.delivery_id), shown)
