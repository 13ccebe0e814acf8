"""A customer's HTTP endpoint: takes callbacks, remembers them, and answers as a test or a benchmark tells it.

    async with Receiver(secrets=[secret]) as receiver:
        receiver.next(Reply(503), Drop.RESET)         # the next two requests; after them the standing behaviour
        receiver.always(Reply(204))
        ...
        first, second = await receiver.wait_for(2)

One request at a time on a connection: clients that send the next one before the answer are not imitated here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Self, cast

import httptools

from berid.base.webhook import BadSignature, verify


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came. Names of `headers` are in lower case; of a repeated one the last value stands.

    `problem` says what is wrong with its Standard Webhooks signature; empty if it is right or was not asked for.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    problem: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, `delay_s` after the request was complete.

    With `drip_s` every byte of it, head and body, leaves alone and that many seconds after the one before.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    drip_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that need not be HTTP; then the connection is closed, or kept open."""

    data: bytes
    is_closed: bool = True


class Drop(Enum):
    """End the connection instead of answering: in order (FIN) or at once (RST)."""

    CLOSE = "close"
    RESET = "reset"


class Hang(Enum):
    """Keep the connection and never answer."""

    FOREVER = "forever"


Behaviour = Reply | Raw | Drop | Hang


def redirect(location: str, status: int = 302) -> Reply:
    """An answer that points elsewhere."""
    return Reply(status, headers=(("Location", location),))


class Receiver:
    """An HTTP server on a free loopback port, for as long as the `async with` lasts.

    keep: how many of the latest requests are remembered. secrets: if given, requests without a right Standard Webhooks
    signature are remembered with their problem and answered 401. tls: serve https with this context.
    now_s: the time by which signatures are judged.
    """

    def __init__(
        self,
        *,
        keep: int = 10_000,
        secrets: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        now_s: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        self.requests: deque[Request] = deque(maxlen=keep)
        """The latest requests, oldest first."""
        self.count = 0
        """All requests so far, remembered or not."""
        self.connections_made = 0
        self.port = 0
        self._secrets = secrets
        self._tls = tls
        self._now_s = now_s
        self._once: deque[Behaviour] = deque()
        self._standing: Behaviour | Callable[[Request], Behaviour] = Reply()
        self._open: set[_Connection] = set()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self._open):
            connection.abort()
        while self._open:
            await asyncio.sleep(0)
        await self._server.wait_closed()

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        """The URL of `path` on this server."""
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def next(self, *behaviours: Behaviour) -> None:
        """Answer the next requests like this, one each, before the standing behaviour takes over again."""
        self._once.extend(behaviours)

    def always(self, behaviour: Behaviour | Callable[[Request], Behaviour]) -> None:
        """Set the standing behaviour, or a function that picks one for each request."""
        self._standing = behaviour

    def drop_connections(self) -> None:
        """End every open connection at once (RST), answered or not."""
        for connection in list(self._open):
            connection.drop(Drop.RESET)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    async def wait_for(self, count: int, timeout_s: float = 5.0) -> list[Request]:
        """Wait until `count` requests have come in all, and give those that are remembered.

        Raises TimeoutError, which says how many came.
        """
        if self.count < count:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((count, waiter))
            try:
                async with asyncio.timeout(timeout_s):
                    await waiter
            except TimeoutError:
                raise TimeoutError(f"{self.count} of {count} requests came within {timeout_s:g} s") from None
            finally:
                self._waiters.remove((count, waiter))
        return list(self.requests)

    def _take(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Behaviour:
        """Remember a complete request, wake who waits for it, and decide the answer."""
        problem = ""
        if self._secrets:
            try:
                verify(self._secrets, headers, body, self._now_s())
            except BadSignature as error:
                problem = str(error)
        request = Request(method, target, headers, body, problem)
        self.requests.append(request)
        self.count += 1
        for count, waiter in self._waiters:
            if self.count >= count and not waiter.done():
                waiter.set_result(None)
        if problem:
            return Reply(401, problem.encode())
        if self._once:
            return self._once.popleft()
        return self._standing(request) if callable(self._standing) else self._standing


class _Connection(asyncio.Protocol):
    """One client. httptools calls the `on_` methods while it reads."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser = httptools.HttpRequestParser(self)
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._receiver._open.add(self)
        self._receiver.connections_made += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver._open.discard(self)
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(_rendered(Reply(400)))
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        # Asked now, because the parser forgets it when the message is over.
        self._is_kept = self._parser.should_keep_alive()
        method = self._parser.get_method().decode()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        behaviour = self._receiver._take(method, self._url.decode("latin-1"), self._headers, body)
        match behaviour:
            case Reply(delay_s=0, drip_s=0):
                self._transport.write(_rendered(behaviour))
                self._close_if_asked()
            case Reply():
                self._answering = asyncio.get_running_loop().create_task(self._answer_slowly(behaviour))
            case Raw(data, is_closed):
                self._transport.write(data)
                if is_closed:
                    self._transport.close()
            case Drop():
                self.drop(behaviour)
            case Hang.FOREVER:
                pass

    async def _answer_slowly(self, reply: Reply) -> None:
        await asyncio.sleep(reply.delay_s)
        data = _rendered(reply)
        if reply.drip_s:
            for byte in data:
                self._transport.write(bytes((byte,)))
                await asyncio.sleep(reply.drip_s)
        else:
            self._transport.write(data)
        self._close_if_asked()

    def _close_if_asked(self) -> None:
        if not self._is_kept:
            self._transport.close()

    def drop(self, how: Drop) -> None:
        if how is Drop.RESET:
            # A linger time of zero makes the kernel answer close() with RST instead of FIN.
            raw = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


@functools.cache
def _rendered(reply: Reply) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unheard Of"
    lines = [f"HTTP/1.1 {reply.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if reply.status != 204 and reply.status >= 200:
        lines.append(f"Content-Length: {len(reply.body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + reply.body
