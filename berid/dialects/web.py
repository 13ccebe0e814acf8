"""The web door: one ASGI application for every dialect that speaks HTTP, and for the pages mounted behind them.

A request finds its handler by a look-up of its exact path, then among the paths with parameters, then in the mounted pages.
Nothing is redirected, with or without a slash at the end. What goes wrong before or inside a handler is answered by the
*group* that the path belongs to, so that every client hears no in the shape that it can read.

Inputs are read as tolerantly as the providers' servers do (`Request.fields`); what cannot be read is `Unreadable`, never a crash.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from berid.base import failpoint
from berid.base.ids import show
from berid.dialects.reading import Unreadable, read_fields, read_form
from berid.domain.account import Caller, is_in_networks
from berid.domain.errors import Refusal, RefusalKind, Refused
from berid.flow import ports
from berid.flow.ports import Runtime
from berid.store.hot import StoreAway

if TYPE_CHECKING:
    from berid.dialects.requests import RequestLog

log = logging.getLogger("berid.web")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Pages = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application, such as Starlette's."""

REQUEST_ID_MAX = 128
"""Characters of a caller's own X-Request-Id."""

JSON = b"application/json"
PROBLEM = b"application/problem+json"

_ID_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:/+="


class TooLarge(Exception):
    """The body is larger than the route takes."""


class TooSlow(Exception):
    """The body did not arrive in time."""


class Gone(Exception):
    """The caller has hung up; nobody is left to answer."""


class Response:
    """An answer. `headers` are pairs of bytes with lower-case names, besides content type and length.

    `pieces` take the place of `body` where it may be large: they are sent as they come. If they end in an exception, so does the
    connection, and the caller knows that something is missing.
    """

    __slots__ = ("body", "content_type", "headers", "pieces", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: bytes = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
        pieces: AsyncIterator[bytes] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.pieces = pieces
        self.content_type = content_type
        self.headers = headers


class Request:
    """One request. Headers, query and body are read when they are asked for, and once."""

    __slots__ = (
        "_body",
        "_fields",
        "_headers",
        "_query",
        "_receive",
        "_web",
        "caller",
        "id",
        "limit",
        "message_id",
        "method",
        "params",
        "path",
        "refusals",
        "route",
        "scope",
    )

    def __init__(self, web: Web, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.params: Mapping[str, str] = {}
        """What stands in the path in place of `{name}`."""
        self.limit = web.body_limit
        self.id = ""
        """The public id of this request, in its answer's X-Request-Id and in the log."""
        self.route: Route | None = None
        """Who answers for the path, once he is found."""
        self.caller: Caller | None = None
        """Who calls, once `caller_of` has found out."""
        self.refusals: Sequence[Refusal] = ()
        """Why it was refused."""
        self.message_id = 0
        """The message that was accepted by it."""
        self._web = web
        self._receive = receive
        self._headers: dict[bytes, bytes] | None = None
        self._query: dict[str, Any] | None = None
        self._body: bytes | None = None
        self._fields: dict[str, Any] | None = None

    @property
    def headers(self) -> dict[bytes, bytes]:
        """By name in lower case; of a repeated one the last value."""
        if self._headers is None:
            self._headers = dict(self.scope["headers"])
        return self._headers

    def header(self, name: bytes) -> str:
        """A header's text, "" if it is missing. `name` in lower case."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def bearer(self) -> str:
        """The token of the Authorization header, "" without one."""
        kind, _, token = self.header(b"authorization").partition(" ")
        return token.strip() if kind.lower() == "bearer" else ""

    @property
    def address(self) -> str:
        """The caller's IP address: the last hop that is not a trusted proxy. "" on a socket without addresses."""
        peer = self.scope.get("client")
        host: str = peer[0] if peer else ""
        trusted = self._web.trusted
        if not trusted or not is_in_networks(host, trusted):
            return host
        for hop in reversed(self._forwarded(b"x-forwarded-for")):
            try:
                ip_address(hop)
            except ValueError:
                break
            host = hop
            if not is_in_networks(hop, trusted):
                break
        return host

    @property
    def is_local(self) -> bool:
        """Whether the connection comes from this very machine and nobody passed it on."""
        peer = self.scope.get("client")
        if not peer or not is_in_networks(peer[0], ("127.0.0.0/8", "::1")):
            return False
        return b"x-forwarded-for" not in self.headers and b"forwarded" not in self.headers

    @property
    def scheme(self) -> str:
        """`http` or `https`, as the caller typed it; a trusted proxy's word is believed."""
        peer = self.scope.get("client")
        said = self._forwarded(b"x-forwarded-proto")
        if said and said[-1] in ("http", "https") and peer and is_in_networks(peer[0], self._web.trusted):
            return said[-1]
        return str(self.scope["scheme"])

    def _forwarded(self, name: bytes) -> list[str]:
        """The comma-separated values of a header that may be repeated, in order."""
        values = [value.decode("latin-1") for key, value in self.scope["headers"] if key == name]
        return [part.strip() for part in ",".join(values).split(",") if part.strip()]

    @property
    def is_ready(self) -> bool:
        """Whether the process says that it takes work."""
        return self._web.is_ready()

    @property
    def query(self) -> dict[str, Any]:
        """The query string: a text for each name, a list of texts for a name that is repeated or ends in `[]`.

        Raises `Unreadable`.
        """
        if self._query is None:
            self._query = read_form(self.scope["query_string"])
        return self._query

    async def body(self) -> bytes:
        """The whole body. Raises `TooLarge`, `TooSlow` and `Gone`, which the web layer answers."""
        if self._body is None:
            self._body = await self._read_body()
        return self._body

    async def _read_body(self) -> bytes:
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self.limit:
            raise TooLarge
        receiving = cast("Any", self._receive())
        try:
            waiting = receiving.send(None)
        except StopIteration as arrived:
            # A small body is here already: a deadline would cost more than all the rest of the reading.
            message = arrived.value
        else:
            message = await self._in_time(_Rest(receiving, waiting))
        chunk = _chunk(message)
        if not message.get("more_body"):
            if len(chunk) > self.limit:
                raise TooLarge
            return chunk
        whole: bytes = await self._in_time(self._read_rest(chunk))
        return whole

    async def _read_rest(self, chunk: bytes) -> bytes:
        chunks, size = [chunk], len(chunk)
        while True:
            message = await self._receive()
            chunks.append(_chunk(message))
            size += len(chunks[-1])
            if size > self.limit:
                raise TooLarge
            if not message.get("more_body"):
                return b"".join(chunks)

    async def _in_time(self, reading: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._web.timeout_s):
                return await reading
        except TimeoutError:
            raise TooSlow from None

    async def fields(self) -> dict[str, Any]:
        """All parameters by name, from wherever they came: the query string under the body.

        The body is JSON if its first character says so, whatever the content type; else a form. Values of JSON keep their types,
        those of forms and queries are text; a name that is repeated, or written `name[]`, holds a list. Of a key that JSON
        repeats the last value stands. A JSON list counts as the one object in it, or as nothing. Raises `Unreadable`.
        """
        if self._fields is None:
            self._fields = {**self.query, **read_fields(await self.body(), self.header(b"content-type"))}
        return self._fields

    @property
    def raw(self) -> tuple[bytes, bytes | None, str]:
        """Query string, body and content type as they came; None for a body that nobody has read."""
        query: bytes = self.scope["query_string"]
        return query, self._body, self.header(b"content-type")

    @property
    def seen(self) -> dict[str, Any]:
        """What has been read of the parameters until now, to word a refusal by: never raises, may be empty."""
        return self._fields or self._query or {}


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Group:
    """Routes that say no in one shape.

    `prefixes` are the beginnings of all paths that it answers for, known or not ("" for all); the longest one that fits decides.
    `hosts` limits it to requests for these host names, in lower case; its routes are then found there only. `refuse` renders
    what a handler refused: `Refused`, `Unreadable` as MALFORMED, `StoreAway` as STORE_AWAY. `fail` renders what never came to
    a handler or broke in it, by HTTP status: 404, 405, 408, 413, 500. Neither may raise.
    """

    name: str
    prefixes: tuple[str, ...]
    refuse: Callable[[Request, Sequence[Refusal]], Response]
    fail: Callable[[Request, int], Response]
    hosts: frozenset[str] = frozenset()

    def covers(self, path: str) -> int:
        """How long the longest prefix of this group is that `path` begins with; -1 if none."""
        fitting = (len(p) for p in self.prefixes if not p or path == p or path.startswith(p.rstrip("/") + "/"))
        return max(fitting, default=-1)


@dataclass(frozen=True, slots=True)
class Route:
    """One path and who answers it. `{name}` in the path stands for one segment.

    GET answers HEAD as well. `limit_bytes` bounds the body, None: `http.body_limit_bytes`. What machines ask all the time is
    not `is_logged`: the request log leaves it out.
    """

    methods: tuple[str, ...]
    path: str
    handler: Handler
    group: Group
    limit_bytes: int | None = None
    is_logged: bool = True


class HttpDialect(ports.Dialect, Protocol):
    """A dialect with doors for HTTP."""

    refusals: Mapping[RefusalKind, Any]
    """This dialect's words for every kind of refusal, none left out."""

    def routes(self, rt: Runtime) -> Sequence[Route]:
        """What it answers. Asked once, when the process opens its doors."""


def make_app(
    rt: Runtime, is_ready: Callable[[], bool], pages: Pages | None = None, requests: RequestLog | None = None
) -> Web:
    """The application of the process: all routes of all its dialects, and `pages` for every path that is nobody's.

    What is asked is told to `requests`.
    """
    dialects = cast("Iterable[HttpDialect]", rt.dialects.values())
    return Web(rt, [route for dialect in dialects for route in dialect.routes(rt)], is_ready, pages, requests)


class _Table:
    """The routes of one host name, or of all: by exact path, and a tree of segments for those with parameters."""

    def __init__(self) -> None:
        self.exact: dict[str, dict[str, Route]] = {}
        self._tree: dict[str, Any] = {}

    def add(self, route: Route) -> None:
        """Raises ValueError if one of its methods at this path is taken."""
        path = route.path.rstrip("/")
        if "{" not in path:
            methods = self.exact.setdefault(path, {})
            self.exact[path + "/"] = methods
        else:
            node = self._tree
            for segment in path[1:].split("/"):
                node = node.setdefault("{}" if segment.startswith("{") else segment, {})
            methods = node.setdefault(_END, {})
        for method in route.methods:
            if method in methods:
                raise ValueError(f"two routes answer {method} {route.path}")
            methods[method] = route

    def find(self, path: str) -> tuple[dict[str, Route] | None, list[str]]:
        """The routes at a path by method, and the segments that stand for parameters."""
        methods = self.exact.get(path)
        if methods is not None:
            return methods, []
        return next(_walk(self._tree, path[1:].removesuffix("/").split("/"), 0), (None, []))


_END = "/"
"""Where a way through the tree ends: its key is no segment of any path."""


def _walk(node: dict[str, Any], segments: list[str], place: int) -> Iterator[tuple[dict[str, Route], list[str]]]:
    """Ways through the tree, a segment's own name before a parameter."""
    if place == len(segments):
        if _END in node:
            yield node[_END], []
        return
    segment = segments[place]
    if segment in node and segment != "{}":
        yield from _walk(node[segment], segments, place + 1)
    if segment and "{}" in node:
        for methods, values in _walk(node["{}"], segments, place + 1):
            yield methods, [segment, *values]


class Web:
    """The ASGI application. To be run without lifespan events and without the server's own reading of proxy headers."""

    def __init__(
        self,
        rt: Runtime,
        routes: Sequence[Route],
        is_ready: Callable[[], bool],
        pages: Pages | None = None,
        requests: RequestLog | None = None,
    ) -> None:
        http = rt.config.http
        self.body_limit = http.body_limit_bytes
        self.timeout_s = http.request_timeout_s
        self.trusted = tuple(str(network) for network in http.trusted_proxies)
        self.is_ready = is_ready
        self._ids = rt.ids
        self._trace = rt.trace
        self._pages = pages
        self._requests = requests
        self._words = {segment for route in routes for segment in route.path.split("/")}
        self._table = _Table()
        self._by_host: dict[str, _Table] = {}
        self._groups: list[Group] = []
        for route in routes:
            if route.group not in self._groups:
                self._groups.append(route.group)
            if not route.group.hosts:
                self._table.add(route)
            for host in route.group.hosts:
                self._by_host.setdefault(host, _Table()).add(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if self._pages is None:
                raise RuntimeError(f"{scope['type']} is not served")
            await self._pages(scope, receive, send)
            return
        requests = self._requests
        begun_s = requests.now_s() if requests is not None else 0.0
        request = Request(self, scope, receive)
        request.id = self._request_id(request)
        methods, values = self._find(request)
        if methods is None:
            group = self._group_of(request)
            if group is _NOBODY and self._pages is not None:
                await self._show_page(self._pages, request, send)
                return
            response = self._fail(request, group, 404)
        else:
            try:
                response = await self._answer(request, methods, values)
            except Gone:
                return
        await _send(send, request, response)
        if requests is not None and requests.wants(request, response.status):
            self._log(requests, request, response, begun_s)

    def _log(self, requests: RequestLog, request: Request, response: Response, begun_s: float) -> None:
        """Tell the request log, with a path that holds nothing of the caller's: keys have stood in paths."""
        route = request.route
        if route is None:
            path = "/".join([segment if segment in self._words else "*" for segment in request.path.split("/")])
            group = self._group_of(request)
        elif route.is_logged:
            path, group = route.path, route.group
        else:
            return
        requests.add(request, response, path, group.name.partition(" ")[0], begun_s)

    def _request_id(self, request: Request) -> str:
        """The caller's own id if it can stand in a log, else a new one that sorts by time."""
        given = request.headers.get(b"x-request-id")
        if given and len(given) <= REQUEST_ID_MAX and not given.translate(None, _ID_CHARACTERS):
            return given.decode("ascii")
        return show("req", self._ids.next())

    def _find(self, request: Request) -> tuple[dict[str, Route] | None, list[str]]:
        if self._by_host:
            table = self._by_host.get(_host(request))
            if table is not None:
                found = table.find(request.path)
                if found[0] is not None:
                    return found
        return self._table.find(request.path)

    async def _answer(self, request: Request, methods: dict[str, Route], values: list[str]) -> Response:
        """The handler's answer, or its group's words for what came instead. Raises `Gone`."""
        method = request.method
        route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        request.route = route or next(iter(methods.values()))
        if route is None:
            allow = ((b"allow", _allowed(methods)),)
            if method == "OPTIONS":
                return Response(204, headers=allow)
            response = self._fail(request, request.route.group, 405)
            response.headers = (*response.headers, *allow)
            return response
        group = route.group
        if route.limit_bytes is not None:
            request.limit = route.limit_bytes
        if values:
            names = [segment[1:-1] for segment in route.path.split("/") if segment.startswith("{")]
            request.params = dict(zip(names, values, strict=True))
        try:
            with self._trace.span("request", method=method, route=route.path):
                return await route.handler(request)
        except Refused as error:
            refusals = error.refusals
        except StoreAway as error:
            log.warning("the store is away", extra={"request_id": request.id, "why": str(error)})
            refusals = (Refusal(RefusalKind.STORE_AWAY, "nothing was accepted; send the same request again"),)
        except Unreadable as error:
            refusals = (Refusal(RefusalKind.MALFORMED, str(error)),)
        except TooLarge:
            return self._fail(request, group, 413)
        except TooSlow:
            # What is still to come of the body must not be taken for the next request (RFC 9110, section 15.5.9).
            response = self._fail(request, group, 408)
            response.headers = (*response.headers, (b"connection", b"close"))
            return response
        except Gone:
            raise
        except Exception:
            _log_crash(request, route)
            return self._fail(request, group, 500)
        request.refusals = refusals
        try:
            return group.refuse(request, refusals)
        except Exception:
            _log_crash(request, route)
            return self._fail(request, group, 500)

    def _group_of(self, request: Request) -> Group:
        """Who answers for a path that has no handler."""
        host = _host(request) if self._by_host else ""
        group, longest = _NOBODY, -1
        for candidate in self._groups:
            if candidate.hosts and host not in candidate.hosts:
                continue
            length = candidate.covers(request.path)
            if length > longest:
                group, longest = candidate, length
        return group

    def _fail(self, request: Request, group: Group, status: int) -> Response:
        try:
            return group.fail(request, status)
        except Exception:
            log.exception("a failure could not be worded", extra={"request_id": request.id, "group": group.name})
            return _fail_plainly(request, 500)

    async def _show_page(self, pages: Pages, request: Request, send: Send) -> None:
        """Pass the request on, with the caller's real address and scheme, and with our id on the answer."""
        scope = request.scope
        peer = scope.get("client")
        inner = {**scope, "client": (request.address, peer[1] if peer else 0), "scheme": request.scheme}
        inner["request_id"] = request.id

        async def marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request.id.encode())]
            await send(message)

        await pages(inner, request._receive, marked)


def _host(request: Request) -> str:
    """The host name asked for, in lower case and without a port."""
    return request.header(b"host").rpartition("]")[2].partition(":")[0].lower()


def _allowed(methods: Mapping[str, Route]) -> bytes:
    """The value of an Allow header."""
    names = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(names)).encode()


async def _send(send: Send, request: Request, response: Response) -> None:
    body, pieces = response.body, response.pieces
    headers = [(b"x-request-id", request.id.encode()), *response.headers]
    if pieces is not None:
        headers.append((b"content-type", response.content_type))
    elif response.status != 204:
        headers += ((b"content-type", response.content_type), (b"content-length", b"%d" % len(body)))
    if failpoint.armed:
        failpoint.hit("web.before_answer")
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if pieces is not None and request.method != "HEAD":
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})
    if failpoint.armed:
        failpoint.hit("web.after_answer")


def _log_crash(request: Request, route: Route) -> None:
    log.exception("a handler failed", extra={"request_id": request.id, "method": request.method, "route": route.path})


def _fail_plainly(request: Request, status: int) -> Response:
    titles = {404: "There is nothing at this path", 500: "Something broke on our side"}
    problem = {
        "type": "about:blank",
        "title": titles.get(status, "The request was not served"),
        "status": status,
        "request_id": request.id,
    }
    return Response(status, msgspec.json.encode(problem), PROBLEM)


def _refuse_plainly(request: Request, _refusals: Sequence[Refusal]) -> Response:
    return _fail_plainly(request, 400)


_NOBODY = Group("", (), _refuse_plainly, _fail_plainly)
"""Answers for paths that belong to no dialect, when there are no pages."""


class _Rest:
    """What is left of a coroutine that was run until its first wait; awaiting it goes on from there."""

    __slots__ = ("_coroutine", "_waiting")

    def __init__(self, coroutine: Any, waiting: Any) -> None:
        self._coroutine = coroutine
        self._waiting = waiting

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, waiting = self._coroutine, self._waiting
        while True:
            step, value = coroutine.send, None
            try:
                yield waiting
            except BaseException as error:  # the deadline, or the server that stops
                step, value = coroutine.throw, error
            try:
                waiting = step(value)
            except StopIteration as arrived:
                return arrived.value


def _chunk(message: Mapping[str, Any]) -> bytes:
    if message["type"] == "http.disconnect":
        raise Gone
    chunk: bytes = message.get("body", b"")
    return chunk
