"""Who calls, with what, and what forbids it: the beginning of every path of this dialect."""

from __future__ import annotations

from berid.dialects import caller_of
from berid.dialects.reading import Unreadable
from berid.dialects.taqnyat.reading import Fields
from berid.dialects.web import Request
from berid.domain.account import Caller, Scope, check_caller
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.flow.ports import Runtime

NAME = "taqnyat"


async def read_call(rt: Runtime, request: Request, scope: Scope, service: str | None) -> tuple[Caller, Fields]:
    """Who calls, and all parameters: the query under the body.

    The token of the Authorization header is looked at before the body; without one, the parameter `bearerTokens` is it. Raises
    `Refused` for a missing or wrong token, and for parameters that cannot be read, together with what forbids such a
    call in the first place: `scope` and `service` are what `check_caller` is asked. Forbids nothing by itself.
    """
    token = bearer_of(request)
    if token:
        caller = caller_of(rt, token, request, NAME)
        try:
            return caller, await request.fields()
        except Unreadable as error:
            malformed = Refusal(RefusalKind.MALFORMED, str(error))
            raise Refused(*check_caller(caller, scope, service), malformed) from None
    try:
        fields = await request.fields()
    except Unreadable:
        raise refused(RefusalKind.TOKEN_MISSING, "no token was given") from None
    given = fields.get("bearerTokens")
    return caller_of(rt, given if isinstance(given, str) else "", request, NAME), fields


async def read_permitted(rt: Runtime, request: Request, scope: Scope, service: str | None) -> tuple[Caller, Fields]:
    """As `read_call`, for paths that do not end in `accept`: raises `Refused` as well for what forbids the call."""
    caller, fields = await read_call(rt, request, scope, service)
    refusals = check_caller(caller, scope, service)
    if refusals:
        raise Refused(*refusals)
    return caller, fields


def bearer_of(request: Request) -> str:
    """The token in the Authorization header, or ""."""
    given = request.headers.get(b"authorization", b"")
    return given[7:].strip().decode("latin-1") if given[:7].lower() == b"bearer " else ""
