"""Sending, and second thoughts about what was sent: POST and PATCH on messages.

Parse, `accept`, render: what may be sent, what it costs and who pays is decided in `flow`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.base.money import format_micros
from berid.base.phone import is_possible, lenient
from berid.dialects.native import problems
from berid.dialects.native.endpoint import Call, Endpoint, encode, unfit
from berid.dialects.native.history import MessageDetail, detail_of
from berid.dialects.native.problems import Problem
from berid.dialects.native.shapes import METADATA, or_none, read_moment, rfc3339
from berid.dialects.reading import Unreadable, decode_json
from berid.dialects.web import Response
from berid.domain.account import Scope
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.domain.message import Accepted, Category, Content, Priority, State, Submission
from berid.flow import cancel as second_thoughts
from berid.flow.accept import accept
from berid.store import messages as rows
from berid.store.hot import StoreAway
from berid.store.messages import SHOWN, MessageRecord

BATCH_MAX = 1_000
"""Messages in one batch: all of them go into one commit."""

VALID_MAX_S = 30 * 86_400
"""The longest validity that may be asked for."""

ECHO_MAX = 64
"""Characters of a recipient that we could not read, in the answer."""

_REPLAYED = ((b"idempotent-replayed", b"true"),)
_POLICIES = {"auto": "auto", "turkish": "turkish", "plain": "plain", "unicode": "ucs2"}
_CATEGORIES = {"transactional": Category.TRANSACTIONAL, "promotional": Category.PROMOTIONAL}
_PRIORITIES = {"otp": Priority.OTP, "transactional": Priority.TRANSACTIONAL, "bulk": Priority.BULK}

Recipient = str | int
MetadataKey = Annotated[str, Meta(min_length=1, max_length=40)]
MetadataValue = Annotated[str, Meta(max_length=500)]


class NewMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message to one recipient or to many.

    Numbers may be written as people write them, in the account's own country without its code. Recipients that are named
    twice are written to twice. `encoding`: `auto` (the default alphabet if the text fits it, else Unicode), `turkish`
    (Turkish tables as well), `plain` (Turkish letters become their plain forms), `unicode`. `priority` is the category's
    own unless given; `otp` needs that service.
    """

    to: Recipient | list[Recipient] = []
    text: str = ""
    sender: str = ""
    channel: str = "sms"
    category: Literal["transactional", "promotional"] = "transactional"
    priority: Literal["otp", "transactional", "bulk"] | None = None
    encoding: Literal["auto", "turkish", "plain", "unicode"] = "auto"
    send_at: str | int | None = None
    """RFC 3339 with an offset, or milliseconds since 1970."""
    valid_for_s: Annotated[int, Meta(ge=1, le=VALID_MAX_S)] | None = None
    reference: Annotated[str, Meta(max_length=255)] = ""
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=20)] = {}


class NewBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Different messages in one call."""

    messages: Annotated[
        list[Annotated[msgspec.Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/NewMessage"})]],
        Meta(min_length=1, max_length=BATCH_MAX),
    ]


class NewTime(msgspec.Struct, forbid_unknown_fields=True):
    """Another time for a scheduled message: RFC 3339 with an offset, or milliseconds since 1970."""

    send_at: str | int


class Again(msgspec.Struct, forbid_unknown_fields=True):
    """Which deliveries to send again: those that ended in one of these states."""

    only: Annotated[list[Literal["undelivered", "expired", "failed", "rejected"]], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["undelivered", "expired", "failed", "rejected"]
    )


class NewDelivery(msgspec.Struct):
    """One of the first deliveries of an accepted message."""

    id: str
    to: str
    state: State
    units: int
    price: str


class Unreached(msgspec.Struct):
    """A recipient that was left out, and why."""

    to: str
    code: str
    detail: str


class AcceptedMessage(msgspec.Struct):
    """The yes: the message is on disk and paid for. `balance` is what is left to spend in its currency.

    `deliveries` are the first ten. `refused` are recipients that were left out; nothing is charged for them.
    """

    id: str
    channel: str
    mode: str
    state: State
    total: int
    units: int
    parts: int
    cost: str
    currency: str
    balance: str
    reference: str
    created_at: str
    send_at: str | None
    deliveries: list[NewDelivery]
    refused: list[Unreached]


class BatchItem(msgspec.Struct, omit_defaults=True):
    """What became of one message of a batch: `message`, or `error`."""

    index: int
    message: AcceptedMessage | None = None
    error: Problem | None = None


class BatchAnswer(msgspec.Struct):
    """What became of each message, in the order of the request."""

    accepted: int
    refused: int
    data: list[BatchItem]


class CancelledMessage(msgspec.Struct):
    """How much was still waiting, and how much had left or ended before."""

    cancelled: int
    too_late: int
    refunded: str
    currency: str


async def send(call: Call[NewMessage, None]) -> Response:
    """POST /messages."""
    submission = _submission(call, call.body, await call.idempotency())
    accepted = await _accept(call, submission)
    return _created(accepted, call.caller.mode, submission)


async def send_batch(call: Call[NewBatch, None]) -> BatchAnswer:
    """POST /messages/batch: every message for itself, all in one commit."""
    key = await call.idempotency()
    works = [
        _send_one(call, raw, (f"{key[0]}#{place}", key[1]) if key is not None else None)
        for place, raw in enumerate(call.body.messages)
    ]
    results = await asyncio.gather(*works, return_exceptions=True)
    if all(isinstance(result, StoreAway) for result in results):
        raise StoreAway("no message of the batch was written")
    items = [_item(call, place, result) for place, result in enumerate(results)]
    accepted = sum(item.message is not None for item in items)
    return BatchAnswer(accepted, len(items) - accepted, items)


async def _send_one(call: Call[NewBatch, None], raw: msgspec.Raw, key: tuple[str, str] | None) -> AcceptedMessage:
    try:
        body = decode_json(bytes(raw), _decode)
    except msgspec.ValidationError as error:
        raise unfit(error) from None
    submission = _submission(call, body, key)
    return _answer(await _accept(call, submission), call.caller.mode, submission)


_decode = msgspec.json.Decoder(NewMessage).decode


def _item(call: Call[Any, Any], place: int, result: AcceptedMessage | BaseException) -> BatchItem:
    if isinstance(result, AcceptedMessage):
        return BatchItem(place, message=result)
    reasons: Sequence[Refusal]
    if isinstance(result, Refused):
        reasons = result.refusals
    elif isinstance(result, Unreadable):
        reasons = [Refusal(RefusalKind.MALFORMED, str(result))]
    elif isinstance(result, StoreAway):
        reasons = [Refusal(RefusalKind.STORE_AWAY, "this message was not accepted; send it again")]
    else:
        raise result
    return BatchItem(place, error=problems.problem_of(call.request.id, reasons))


async def cancel(call: Call[None, None]) -> CancelledMessage:
    """POST /messages/{id}/cancel, and DELETE. Cancelling again what was cancelled is a yes with zeros."""
    owner = await _owner(call)
    done = await second_thoughts.cancel(call.rt, call.caller.account.id, [owner])
    if not done.cancelled and done.too_late:
        raise refused(RefusalKind.NOT_CANCELLABLE, f"all {done.too_late} deliveries have left or ended")
    return CancelledMessage(done.cancelled, done.too_late, format_micros(done.refunded_micros), done.currency)


async def reschedule(call: Call[NewTime, None]) -> MessageDetail:
    """PATCH /messages/{id}."""
    owner = await _owner(call)
    due_ms = read_moment(call.body.send_at, "send_at")
    await second_thoughts.reschedule(call.rt, call.caller.account.id, owner, due_ms)
    return await detail_of(call, owner.id)


async def resend(call: Call[Again, None]) -> Response:
    """POST /messages/{id}/resend: a new message, to those whom the first one did not reach."""
    owner = await _owner(call)
    states = [State(each) for each in call.body.only]
    accepted = await second_thoughts.resend(call.rt, call.caller, owner, states, await call.idempotency())
    call.request.message_id = accepted.message_id
    return _created(accepted, call.caller.mode, owner)


async def _owner(call: Call[Any, Any]) -> MessageRecord:
    """The message in the path. Raises `Refused` with NOT_FOUND."""
    async with call.rt.store.read() as tx:
        found = await rows.find(tx, call.caller.account.id, call.caller.mode, call.path_id("msg"))
    if found is None:
        raise refused(RefusalKind.NOT_FOUND, "there is no such message", "id")
    return found


def _submission(call: Call[Any, Any], body: NewMessage, idempotency: tuple[str, str] | None) -> Submission:
    """The request in the flow's words. Raises `Refused`."""
    rt, application, account = call.rt, call.caller.application, call.caller.account
    if body.channel not in rt.channels:
        raise refused(RefusalKind.MALFORMED, f"there is no channel {body.channel[:ECHO_MAX]!r}", "channel")
    if body.priority == "otp" and "otp" not in application.services:
        raise refused(RefusalKind.SERVICE_MISSING, "the application does not include 'otp'", "priority")
    given = body.to if isinstance(body.to, list) else [body.to]
    limit = rt.config.limits.recipients_per_request
    if len(given) > limit:
        raise refused(RefusalKind.RECIPIENTS_TOO_MANY, f"one request takes {limit} recipients", "to")
    recipients: list[str] = []
    rejected: list[str] = []
    for each in given:
        text = each if isinstance(each, str) else str(each)
        number = lenient(text, account.home)
        if number is not None and is_possible(number):
            recipients.append(number)
        else:
            rejected.append(text)
    return Submission(
        channel=body.channel,
        sender=body.sender,
        recipients=recipients,
        content=Content(body.text, _POLICIES[body.encoding]),
        category=_CATEGORIES[body.category],
        priority=_PRIORITIES[body.priority] if body.priority else None,
        due_ms=None if body.send_at is None else read_moment(body.send_at, "send_at"),
        valid_s=body.valid_for_s,
        reference=body.reference,
        idempotency=idempotency,
        rejected=rejected,
        allows_partial=len(given) > 1,
        options={METADATA + name: value for name, value in body.metadata.items()},
    )


async def _accept(call: Call[Any, Any], submission: Submission) -> Accepted:
    """Accept for those recipients that can be written to. Raises `Refused` when there are none."""
    accepted = await accept(call.rt, call.caller, submission)
    call.request.message_id = accepted.message_id
    return accepted


_UNREAD = Refusal(RefusalKind.RECIPIENT_INVALID, "this is no number that can be written to", "recipients")


def _created(accepted: Accepted, mode: str, asked: Submission | MessageRecord) -> Response:
    headers = _REPLAYED if accepted.is_replay else ()
    return Response(201, encode(_answer(accepted, mode, asked)), headers=headers)


def _answer(accepted: Accepted, mode: str, asked: Submission | MessageRecord) -> AcceptedMessage:
    state = accepted.state
    left_out = [Unreached(number, reason.kind.value, reason.detail) for number, reason in accepted.refused]
    if isinstance(asked, Submission):
        left_out += [Unreached(text[:ECHO_MAX], _UNREAD.kind.value, _UNREAD.detail) for text in asked.rejected]
    # Of a message too large for one commit only the ends are at hand.
    shown = accepted.deliveries[: SHOWN if len(accepted.deliveries) == accepted.total else 1]
    return AcceptedMessage(
        id=show("msg", accepted.message_id),
        channel=asked.channel,
        mode=mode,
        state=state,
        total=accepted.total,
        units=accepted.units,
        parts=accepted.parts,
        cost=format_micros(accepted.cost_micros),
        currency=accepted.currency,
        balance=format_micros(accepted.balance_micros),
        reference=asked.reference,
        created_at=rfc3339(accepted.created_ms),
        send_at=or_none(accepted.due_ms or 0),
        deliveries=[
            NewDelivery(show("dlv", each.id), each.recipient, state, each.units, format_micros(each.price_micros))
            for each in shown
        ],
        refused=left_out,
    )


_SENDING = (
    RefusalKind.API_OFF,
    RefusalKind.SERVICE_MISSING,
    RefusalKind.IDEMPOTENCY_CONFLICT,
    RefusalKind.SENDER_MISSING,
    RefusalKind.SENDER_UNKNOWN,
    RefusalKind.SENDER_INACTIVE,
    RefusalKind.SENDER_EXPIRED,
    RefusalKind.RECIPIENT_MISSING,
    RefusalKind.RECIPIENT_INVALID,
    RefusalKind.RECIPIENTS_TOO_MANY,
    RefusalKind.CONTENT_MISSING,
    RefusalKind.CONTENT_INVALID,
    RefusalKind.COUNTRY_NOT_ALLOWED,
    RefusalKind.INTERNATIONAL_OFF,
    RefusalKind.SCHEDULE_DATE_INVALID,
    RefusalKind.SCHEDULE_TIME_INVALID,
    RefusalKind.SCHEDULE_PAST,
    RefusalKind.BALANCE_ZERO,
    RefusalKind.BALANCE_SHORT,
    RefusalKind.SPEND_CAP,
    RefusalKind.RATE_LIMIT,
    RefusalKind.SUPPRESSED,
    RefusalKind.NO_OPT_IN,
    RefusalKind.QUIET_HOURS,
    RefusalKind.NO_ROUTE,
    RefusalKind.NO_PRICE,
)
"""What a request to send may be refused for, beside what any request may."""

ENDPOINTS = (
    Endpoint(
        "POST",
        "/messages",
        send,
        "Send a message to one recipient or to many",
        AcceptedMessage,
        Scope.SEND,
        body=NewMessage,
        status=201,
        about="Accepted for every recipient that can be written to; the others are listed in `refused`. If there is none left, "
        "the request is refused. With an Idempotency-Key the first answer is given again for 24 hours, marked by the header "
        "`Idempotent-Replayed: true`.",
        refusals=_SENDING,
        accepts=True,
        is_bulk=True,
        is_keyed=True,
    ),
    Endpoint(
        "POST",
        "/messages/batch",
        send_batch,
        "Send up to 1,000 different messages",
        BatchAnswer,
        Scope.SEND,
        body=NewBatch,
        about="Every message is accepted or refused for itself. With an Idempotency-Key the same call may be made again: what "
        "was accepted stays, what was refused is tried again.",
        accepts=True,
        is_bulk=True,
        is_keyed=True,
    ),
    Endpoint(
        "PATCH",
        "/messages/{id}",
        reschedule,
        "Plan a scheduled message for another time",
        MessageDetail,
        Scope.SEND,
        body=NewTime,
        refusals=(
            RefusalKind.NOT_FOUND,
            RefusalKind.NOT_CANCELLABLE,
            RefusalKind.SCHEDULE_DATE_INVALID,
            RefusalKind.SCHEDULE_TIME_INVALID,
            RefusalKind.SCHEDULE_PAST,
        ),
    ),
    *(
        Endpoint(
            method,
            path,
            cancel,
            "Cancel what has not left yet",
            CancelledMessage,
            Scope.SEND,
            about="Every delivery that still waits is cancelled and its price given back. `too_late` counts the others.",
            refusals=(RefusalKind.NOT_FOUND, RefusalKind.NOT_CANCELLABLE),
        )
        for method, path in (("POST", "/messages/{id}/cancel"), ("DELETE", "/messages/{id}"))
    ),
    Endpoint(
        "POST",
        "/messages/{id}/resend",
        resend,
        "Send a message again to those whom it did not reach",
        AcceptedMessage,
        Scope.SEND,
        body=Again,
        status=201,
        about="Makes a new message, priced and paid for like any other; its `resend_of` names the first one.",
        refusals=(RefusalKind.NOT_FOUND, *_SENDING),
        accepts=True,
        is_keyed=True,
    ),
)
