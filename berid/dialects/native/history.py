"""Looking back: lists of messages, one message with its timeline, its deliveries."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from berid.base.phone import lenient
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import (
    Delivery,
    Message,
    Moment,
    describe_message,
    read_bound,
    read_cursor,
    read_id,
    read_timeline,
    show_delivery,
    write_cursor,
)
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind, refused
from berid.domain.message import State
from berid.store import messages
from berid.store.messages import SHOWN, Wanted

Limit = Annotated[int, Meta(ge=1, le=100)]


class MessageQuery(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """Which messages to list, newest first. `state` and `number` find messages with such a delivery.

    `from` and `to` (not included) are RFC 3339 or milliseconds since 1970.
    """

    limit: Limit = 20
    cursor: str = ""
    state: State | None = None
    channel: str = ""
    since: str = ""
    until: str = ""
    number: str = ""
    application: str = ""
    reference: str = ""


class DeliveryQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which deliveries of a message to list."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    cursor: str = ""
    state: State | None = None


class MessageList(msgspec.Struct):
    """Some messages. With `next` the list goes on, even if `data` is short or empty: rare matches take several calls."""

    data: list[Message]
    next: str | None


class DeliveryList(msgspec.Struct):
    """Some deliveries of a message, in the order in which they were given."""

    data: list[Delivery]
    next: str | None


class MessageDetail(Message):
    """A message with everything that is known of it. `text` is null when it is not kept any more.

    `counts` says how many deliveries are in each state; `timeline` is that of the deliveries shown.
    """

    text: str | None
    counts: dict[str, int]
    refused: list[dict[str, str]]
    timeline: list[Moment]


class DeliveryDetail(msgspec.Struct):
    """A delivery with its full timeline."""

    delivery: Delivery
    timeline: list[Moment]


async def list_messages(call: Call[None, MessageQuery]) -> MessageList:
    """GET /messages."""
    query, account = call.query, call.caller.account
    number = ""
    if query.number:
        number = lenient(query.number, account.home) or ""
        if not number:
            raise refused(RefusalKind.MALFORMED, "this is no number", "number")
    wanted = Wanted(
        mode=call.caller.mode,
        channel=query.channel,
        application_id=read_id("app", query.application, "application"),
        reference=query.reference,
        state=query.state.value if query.state is not None else "",
        number=number,
        since_id=read_bound(query.since, "from"),
        until_id=read_bound(query.until, "to"),
    )
    async with call.rt.store.read() as tx:
        page = await messages.page(tx, account.id, wanted, read_cursor(query.cursor), query.limit)
        shown = await messages.first_deliveries(tx, account.id, page.messages)
    data = [
        Message(**describe_message(record, [each.state for each in shown[record.id]], shown[record.id]))
        for record in page.messages
    ]
    return MessageList(data, write_cursor(page.next_id))


async def get_message(call: Call[None, None]) -> MessageDetail:
    """GET /messages/{id}."""
    return await detail_of(call, call.path_id("msg"))


async def detail_of(call: Call[Any, Any], message_id: int) -> MessageDetail:
    """A message as it is now. Raises `Refused` with NOT_FOUND."""
    account_id = call.caller.account.id
    async with call.rt.store.read() as tx:
        record = await messages.find(tx, account_id, call.caller.mode, message_id)
        if record is None:
            raise _no_message()
        shown = (await messages.first_deliveries(tx, account_id, [record]))[record.id]
        counts = await messages.counts(tx, account_id, record)
        moments = await read_timeline(tx, record, shown)
    refusals = msgspec.json.decode(record.refused, type=list[tuple[str, str]]) if record.refused else []
    return MessageDetail(
        **describe_message(record, counts, shown),
        text=record.body if record.body_kind == "text" else None,
        counts=counts,
        refused=[{"to": number, "code": kind} for number, kind in refusals],
        timeline=moments,
    )


async def list_deliveries(call: Call[None, DeliveryQuery]) -> DeliveryList:
    """GET /messages/{id}/deliveries."""
    query, account_id = call.query, call.caller.account.id
    states = [query.state.value] if query.state is not None else []
    async with call.rt.store.read() as tx:
        record = await messages.find(tx, account_id, call.caller.mode, call.path_id("msg"))
        if record is None:
            raise _no_message()
        after_id = read_cursor(query.cursor)
        found = await messages.deliveries(tx, account_id, record, after_id, query.limit + 1, states)
    shown = found[: query.limit]
    return DeliveryList(
        [show_delivery(each) for each in shown], write_cursor(shown[-1].id if len(found) > query.limit else 0)
    )


async def get_delivery(call: Call[None, None]) -> DeliveryDetail:
    """GET /deliveries/{id}."""
    async with call.rt.store.read() as tx:
        found = await messages.find_delivery(tx, call.caller.account.id, call.caller.mode, call.path_id("dlv"))
        if found is None:
            raise refused(RefusalKind.NOT_FOUND, "there is no such delivery", "id")
        record, owner = found
        return DeliveryDetail(show_delivery(record), await read_timeline(tx, owner, [record]))


def _no_message() -> Exception:
    return refused(RefusalKind.NOT_FOUND, "there is no such message", "id")


ENDPOINTS = (
    Endpoint(
        "GET",
        "/messages",
        list_messages,
        "List messages, newest first",
        MessageList,
        Scope.STATUS,
        query=MessageQuery,
        about=f"Of each message the first {SHOWN} deliveries are shown. Scheduled messages are among them.",
    ),
    Endpoint(
        "GET",
        "/messages/{id}",
        get_message,
        "One message with its timeline",
        MessageDetail,
        Scope.STATUS,
        refusals=(RefusalKind.NOT_FOUND,),
    ),
    Endpoint(
        "GET",
        "/messages/{id}/deliveries",
        list_deliveries,
        "The deliveries of a message",
        DeliveryList,
        Scope.STATUS,
        query=DeliveryQuery,
        refusals=(RefusalKind.NOT_FOUND,),
    ),
    Endpoint(
        "GET",
        "/deliveries/{id}",
        get_delivery,
        "One delivery with its full timeline",
        DeliveryDetail,
        Scope.STATUS,
        refusals=(RefusalKind.NOT_FOUND,),
    ),
)
