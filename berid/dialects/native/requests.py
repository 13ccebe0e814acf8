"""The request log: what was asked of us, in every dialect, and how it ended. `dialects.requests` writes it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import read_bound, read_cursor, read_id, rfc3339, write_cursor
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind
from berid.store import requests
from berid.store.requests import RequestRecord, WantedRequests

Word = Annotated[str, Meta(max_length=200)]


class RequestQuery(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """Which requests to list, newest first. `kind` is one of the reasons of a refusal.

    `from` and `to` (not included) are RFC 3339 or milliseconds since 1970.
    """

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    cursor: str = ""
    since: str = ""
    until: str = ""
    method: Word = ""
    path: Word = ""
    dialect: Word = ""
    status: Annotated[int, Meta(ge=0, le=999)] = 0
    kind: RefusalKind | None = None
    application: str = ""
    message: str = ""
    request_id: Word = ""


class AnyRequestQuery(RequestQuery, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """As for an account's own; of one account if it is named, of all and of strangers if not."""

    account: str = ""


class LoggedRequest(msgspec.Struct):
    """One request. `path` is that of the API, with `{names}` for what stood there; `*` for what we do not know.

    `kinds` are the reasons if it was refused, in any dialect. `parameters` tells what was given without what is secret in it:
    the value of choices, the length of texts, and how many others there were.
    """

    id: str
    at: str
    request_id: str
    account: str
    application: str
    mode: str
    method: str
    path: str
    dialect: str
    status: int
    kinds: list[str]
    ms: float
    address: str
    agent: str
    message: str
    parameters: dict[str, Any]


class RequestList(msgspec.Struct):
    """Some requests. With `next` the list goes on, even if `data` is short or empty: rare matches take several calls."""

    data: list[LoggedRequest]
    next: str | None


async def list_requests(call: Call[None, RequestQuery]) -> RequestList:
    """GET /requests."""
    return await _list(call, call.caller.account.id, call.caller.mode)


async def list_all_requests(call: Call[None, AnyRequestQuery]) -> RequestList:
    """GET /operator/requests."""
    return await _list(call, read_id("acc", call.query.account, "account") if call.query.account else None, "")


async def _list(call: Call[None, Any], account_id: int | None, mode: str) -> RequestList:
    query: RequestQuery = call.query
    wanted = WantedRequests(
        mode=mode,
        application_id=read_id("app", query.application, "application"),
        message_id=read_id("msg", query.message, "message"),
        request_id=query.request_id,
        method=query.method.upper(),
        path=query.path,
        dialect=query.dialect,
        status=query.status,
        kind=query.kind.value if query.kind is not None else "",
        since_id=read_bound(query.since, "from"),
        until_id=read_bound(query.until, "to"),
    )
    async with call.rt.store.read() as tx:
        page = await requests.page(tx, account_id, wanted, read_cursor(query.cursor), query.limit)
    return RequestList([_shown(each) for each in page.requests], write_cursor(page.next_id))


def _shown(each: RequestRecord) -> LoggedRequest:
    return LoggedRequest(
        id=show("rql", each.id),
        at=rfc3339(each.at_ms),
        request_id=each.request_id,
        account=show("acc", each.account_id) if each.account_id else "",
        application=show("app", each.application_id) if each.application_id else "",
        mode=each.mode,
        method=each.method,
        path=each.path,
        dialect=each.dialect,
        status=each.status,
        kinds=each.kinds.split(),
        ms=each.elapsed_us / 1000,
        address=each.address,
        agent=each.agent,
        message=show("msg", each.message_id) if each.message_id else "",
        parameters=msgspec.json.decode(each.parameters, type=dict[str, Any]) if each.parameters else {},
    )


ENDPOINTS = (
    Endpoint(
        "GET",
        "/requests",
        list_requests,
        "List the account's requests, newest first",
        RequestList,
        Scope.STATUS,
        query=RequestQuery,
        about="Those that were refused, unless the operator has set it otherwise, of the token's mode, whatever dialect they "
        "came in. They appear within a second.",
    ),
    Endpoint(
        "GET",
        "/operator/requests",
        list_all_requests,
        "List everybody's requests, newest first",
        RequestList,
        Scope.OPERATOR,
        query=AnyRequestQuery,
        about="Those of strangers, whose token was not known, have no account.",
    ),
)
