"""Messages from people, for the operator: above all those to a number or name that no account has."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import read_cursor, read_id, rfc3339, write_cursor
from berid.domain.account import Scope
from berid.store import inbound


class InboundQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whose messages to list, newest first: an account's, or, without one, those that are nobody's."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    cursor: str = ""
    account: str = ""


class InboundMessage(msgspec.Struct, rename={"sender": "from"}):
    """What a person wrote. `keyword` is `stop`, `start` or `help` if it was a word of consent."""

    id: str
    account: str
    connector: str
    channel: str
    sender: str
    to: str
    text: str
    keyword: str
    received_at: str


class InboundPage(msgspec.Struct):
    """Some messages from people. With `next` the list goes on."""

    data: list[InboundMessage]
    next: str | None


async def list_inbound(call: Call[None, InboundQuery]) -> InboundPage:
    """GET /operator/inbound."""
    query = call.query
    account_id, before_id = read_id("acc", query.account, "account"), read_cursor(query.cursor)
    async with call.rt.store.read() as tx:
        found = await inbound.page(tx, account_id, before_id, query.limit + 1)
    shown = found[: query.limit]
    data = [
        InboundMessage(
            id=show("inb", each.id),
            account=show("acc", each.account_id) if each.account_id else "",
            connector=show("con", each.connector_id),
            channel=each.channel,
            sender=each.sender,
            to=each.recipient,
            text=each.body,
            keyword=each.keyword,
            received_at=rfc3339(each.received_ms),
        )
        for each in shown
    ]
    return InboundPage(data, write_cursor(shown[-1].id if len(found) > query.limit else 0))


ENDPOINTS = (
    Endpoint(
        "GET",
        "/operator/inbound",
        list_inbound,
        "List messages from people, newest first",
        InboundPage,
        Scope.OPERATOR,
        query=InboundQuery,
        about="Without an account: those to numbers and names that belong to none. They are kept, and told to nobody.",
    ),
)
