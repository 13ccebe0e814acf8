"""Activation for other countries, from both sides of the desk."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.manage.topups import Limit, Objection, Words
from berid.dialects.native.shapes import or_none, read_cursor, rfc3339, write_cursor
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind, refused
from berid.flow import manage
from berid.flow.manage import Office
from berid.flow.manage.international import APPROVED, REJECTED
from berid.store import accounts, business
from berid.store.accounts import InternationalRecord


class InternationalWish(msgspec.Struct, forbid_unknown_fields=True):
    """The countries that the account wants to write to (none: all), what for, and how many messages a month it expects."""

    purpose: Annotated[str, Meta(min_length=1, max_length=1_000)]
    countries: Annotated[list[str], Meta(max_length=250)] = []
    monthly_volume: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0


class InternationalRequest(msgspec.Struct):
    """A request to write to other countries, and what became of it: submitted, approved, rejected or withdrawn."""

    id: str
    account: str
    countries: list[str]
    purpose: str
    monthly_volume: int
    state: str
    reason: str
    created_at: str
    decided_at: str | None


class InternationalRequestList(msgspec.Struct):
    """The account's requests, newest first."""

    data: list[InternationalRequest]


class InternationalQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which requests to list: the open ones unless another state is named."""

    state: Literal["submitted", "approved", "rejected", "withdrawn"] = "submitted"
    limit: Limit = 100
    cursor: str = ""


class InternationalRequestPage(msgspec.Struct):
    """Some requests of all accounts, oldest first."""

    data: list[InternationalRequest]
    next: str | None


class Remark(msgspec.Struct, forbid_unknown_fields=True):
    """A word for the account, if there is one to say."""

    reason: Words = ""


async def request_international(call: Call[InternationalWish, None]) -> InternationalRequest:
    """POST /international-requests."""
    body = call.body
    identifier = await manage.request_international(
        Office.of(call.rt),
        call.actor,
        call.caller.account.id,
        body.countries,
        purpose=body.purpose,
        monthly_volume=body.monthly_volume,
    )
    return await _find(call, identifier)


async def list_own(call: Call[None, None]) -> InternationalRequestList:
    """GET /international-requests."""
    async with call.rt.store.read() as tx:
        found = await accounts.internationals(tx, call.caller.account.id)
    return InternationalRequestList([_shown(each) for each in found])


async def withdraw_international(call: Call[None, None]) -> InternationalRequest:
    """POST /international-requests/{id}/withdraw."""
    identifier = call.path_id("int")
    await manage.withdraw_international(Office.of(call.rt), call.actor, call.caller.account.id, identifier)
    return await _find(call, identifier)


async def list_all(call: Call[None, InternationalQuery]) -> InternationalRequestPage:
    """GET /operator/international-requests."""
    query = call.query
    async with call.rt.store.read() as tx:
        found = await business.internationals(tx, query.state, read_cursor(query.cursor), query.limit + 1)
    following = write_cursor(found[query.limit - 1].id if len(found) > query.limit else 0)
    return InternationalRequestPage([_shown(each) for each in found[: query.limit]], following)


async def approve_international(call: Call[Remark, None]) -> InternationalRequest:
    """POST /operator/international-requests/{id}/approve."""
    return await _decide(call, APPROVED)


async def reject_international(call: Call[Objection, None]) -> InternationalRequest:
    """POST /operator/international-requests/{id}/reject."""
    return await _decide(call, REJECTED)


async def _decide(call: Call[Any, None], state: str) -> InternationalRequest:
    identifier = call.path_id("int")
    await manage.decide_international(Office.of(call.rt), call.actor, identifier, state, call.body.reason)
    return await _find(call, identifier)


async def _find(call: Call[Any, Any], identifier: int) -> InternationalRequest:
    async with call.rt.store.read() as tx:
        found = await business.international(tx, identifier)
    if found is None:
        raise refused(RefusalKind.NOT_FOUND, "there is no such request", "id")
    return _shown(found)


def _shown(each: InternationalRecord) -> InternationalRequest:
    return InternationalRequest(
        id=show("int", each.id),
        account=show("acc", each.account_id),
        countries=each.countries.split(),
        purpose=each.purpose,
        monthly_volume=each.monthly_volume,
        state=each.state,
        reason=each.reason,
        created_at=rfc3339(each.created_ms),
        decided_at=or_none(each.decided_ms),
    )


_STEP = (RefusalKind.NOT_FOUND, RefusalKind.WRONG_STATE)

ENDPOINTS = (
    Endpoint(
        "POST",
        "/international-requests",
        request_international,
        "Ask to write to other countries",
        InternationalRequest,
        Scope.MANAGE,
        body=InternationalWish,
        status=201,
        refusals=(RefusalKind.WRONG_STATE,),
    ),
    Endpoint(
        "GET",
        "/international-requests",
        list_own,
        "The account's requests to write to other countries",
        InternationalRequestList,
        Scope.MANAGE,
    ),
    Endpoint(
        "POST",
        "/international-requests/{id}/withdraw",
        withdraw_international,
        "Take a request to write to other countries back",
        InternationalRequest,
        Scope.MANAGE,
        refusals=_STEP,
    ),
    Endpoint(
        "GET",
        "/operator/international-requests",
        list_all,
        "Requests of all accounts to write to other countries",
        InternationalRequestPage,
        Scope.OPERATOR,
        query=InternationalQuery,
    ),
    Endpoint(
        "POST",
        "/operator/international-requests/{id}/approve",
        approve_international,
        "Let an account write to other countries",
        InternationalRequest,
        Scope.OPERATOR,
        body=Remark,
        about="Changes the account's rules.",
        refusals=_STEP,
    ),
    Endpoint(
        "POST",
        "/operator/international-requests/{id}/reject",
        reject_international,
        "Do not let an account write to other countries",
        InternationalRequest,
        Scope.OPERATOR,
        body=Objection,
        refusals=_STEP,
    ),
)
