"""What an endpoint of the native API is: a line that says who may call it, what goes in, what comes out and what can go wrong.

Adding one is writing a handler and its `Endpoint`, and naming the module's list in `native/__init__.py`. Decoding, the caller,
errors and the OpenAPI document follow from that line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from berid.base.ids import read
from berid.dialects import caller_of
from berid.dialects.native import problems
from berid.dialects.reading import decode_json, refuse_nul
from berid.dialects.web import Group, Request, Response, Route
from berid.domain.account import Caller, Scope, check_caller
from berid.domain.errors import RefusalKind, Refused, refused
from berid.flow.ports import Runtime
from berid.store.hot import StoreAway

PREFIX = "/api/v1"

KEY_MAX = 255
"""Characters of an Idempotency-Key."""

GROUP = Group("native", (PREFIX, "/health", "/metrics", "/openapi.json"), problems.refuse, problems.fail)
"""Answers for all paths of the native API and of the service endpoints."""

Body = TypeVar("Body")
Query = TypeVar("Query")

encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Call(Generic[Body, Query]):
    """One request to an endpoint, as its handler gets it: decoded, and its caller known."""

    rt: Runtime
    request: Request
    caller: Caller
    body: Body
    query: Query

    @property
    def actor(self) -> str:
        """Who this is, for the audit trail."""
        return f"token:{self.caller.token.id}"

    def path_id(self, prefix: str, name: str = "id") -> int:
        """The id in the path, with or without its prefix. Raises `Refused` with NOT_FOUND for what is no id."""
        found = read(prefix, self.request.params[name])
        if found is None:
            raise refused(RefusalKind.NOT_FOUND, "this is not an id", name)
        return found

    async def idempotency(self) -> tuple[str, str] | None:
        """The caller's Idempotency-Key with the hash of this request; None without one. Raises `Refused` for one too long.

        A key means the same request only: method, path and body are in the hash. Test and live keys are apart, or the first
        live request could get the answer of its rehearsal.
        """
        key = self.request.headers.get(b"idempotency-key")
        if not key:
            return None
        if len(key) > KEY_MAX:
            raise refused(RefusalKind.MALFORMED, f"the key has more than {KEY_MAX} characters", "Idempotency-Key")
        digest = hashlib.sha256(f"{self.request.method} {self.request.path}\n".encode("utf-8", "surrogatepass"))
        digest.update(await self.request.body())
        return f"{self.caller.mode}:{key.decode('latin-1')}", digest.hexdigest()


Handler = Callable[[Call[Any, Any]], Awaitable[msgspec.Struct | Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the API.

    `path` is what follows PREFIX. `scope` is the right it needs, None for any token. With `accepts` the handler calls
    `accept`, which checks the caller itself and tells all reasons at once. `body`, `query` and `answer` are msgspec Structs;
    a body may be left out if all of its fields may. `refusals` are those of its own, beside what every endpoint may say.
    `is_bulk` allows bodies up to `http.bulk_body_limit_bytes`, `is_keyed` says that Idempotency-Key is heeded.
    `types` are the content types of an answer that is no Struct.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: type[msgspec.Struct] | None
    scope: Scope | None = None
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    status: int = 200
    about: str = ""
    refusals: tuple[RefusalKind, ...] = ()
    accepts: bool = False
    is_bulk: bool = False
    is_keyed: bool = False
    types: tuple[str, ...] = ()

    def route(self, rt: Runtime) -> Route:
        """The route that decodes, finds the caller, calls the handler and encodes."""
        handler, scope, status, query_type = self.handler, self.scope, self.status, self.query
        checks = not self.accepts
        changes = checks and self.method != "GET"
        decode = msgspec.json.Decoder(self.body).decode if self.body is not None else None

        async def handle(request: Request) -> Response:
            caller = caller_of(rt, request.bearer, request, "native")
            if checks:
                found = check_caller(caller, scope, None)
                if found:
                    raise Refused(*found)
            body = _read_body(await request.body(), decode) if decode is not None else None
            query = _read_query(request, query_type) if query_type is not None else None
            answer = await handler(Call(rt, request, caller, body, query))
            if changes and rt.refresh is not None:
                with suppress(StoreAway):  # what was changed is on disk; it is seen a little later then
                    await rt.refresh()
            return answer if isinstance(answer, Response) else Response(status, encode(answer))

        limit = rt.config.http.bulk_body_limit_bytes if self.is_bulk else None
        return Route((self.method,), PREFIX + self.path, handle, GROUP, limit)


def _read_body(body: bytes, decode: Callable[[bytes], Any]) -> Any:
    """The decoded body. Raises `Unreadable`, or `Refused` with the field that does not fit."""
    try:
        value = decode_json(body or b"{}", decode)
    except msgspec.ValidationError as error:
        raise unfit(error) from None
    refuse_nul(body, lambda: decode_json(body, msgspec.json.decode))
    return value


def _read_query(request: Request, query_type: type[msgspec.Struct]) -> Any:
    try:
        return msgspec.convert(request.query, query_type, strict=False)
    except msgspec.ValidationError as error:
        raise unfit(error) from None


def unfit(error: msgspec.ValidationError) -> Refused:
    """msgspec's "Expected `str`, got `int` - at `$.text`", as a refusal of the field `text`."""
    sentence, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if not field and "field `" in sentence:
        field = sentence.partition("field `")[2].partition("`")[0]
    return refused(RefusalKind.MALFORMED, sentence, field)
