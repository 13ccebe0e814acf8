"""A web port: uvicorn's HTTP, with the few things that it lacks.

What an answer consists of leaves in one packet; a connection on which no request arrives ends, and an endless head is not
kept; a renewed certificate is taken while connections go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from berid import tls
from berid.base.clock import Clock

HEAD_MAX_BYTES = 64 << 10
"""How long the head of a request may be that comes in pieces. The parser joins them, so that an endless one would cost memory
without a bound and time by its square."""

STOP_WEB_S = 10
"""How long requests that are under way may take when the process stops."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process stops all its parts in one order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Joined:
    """A connection on which what is written in one turn of the loop leaves together: an answer's head and body in one
    packet, instead of two calls of the system here and two there."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self.is_closing = transport.is_closing  # asked at every answer: too often to be looked for by `__getattr__`

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Leaves when the loop comes round."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        """Close it once what was written has left."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting:
            self._transport.write(b"".join(self._waiting))
            self._waiting.clear()


class _Settings(uvicorn.Config):
    """uvicorn's settings, with one that it lacks."""

    request_timeout_s: float


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, over connections that join what is written, and which end if a request's head does not.

    A body that is being read is not watched here: whoever reads it does so, in `dialects.web`.
    """

    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A first request must come."""
        super().connection_made(cast("asyncio.Transport", _Joined(transport, self.loop)))
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Whatever came: one request as a rule, or several, or a piece of one."""
        before = self.cycle
        is_body = before is not None and before.more_body  # asked before: this may be the end of it
        super().data_received(data)
        if self.cycle is not before:  # a head is complete
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
                self._head_bytes = 0
        elif not is_body:  # a piece of a head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self.send_400_response("The head of the request is too large.")
            self._wait_for_head()
        elif before.response_complete:  # the rest of a body that nobody reads
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits any more."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _wait_for_head(self) -> None:
        if self._deadline is None:
            settings = cast("_Settings", self.config)
            self._deadline = self.loop.call_later(settings.request_timeout_s, self.transport.close)


class Listener:
    """One web port. With a certificate it speaks TLS, and takes a renewed certificate without a restart."""

    def __init__(
        self,
        application: Any,
        host: str,
        port: int,
        certificate: Path | None = None,
        key: Path | None = None,
        request_timeout_s: float = 30.0,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._host = host
        self._port = port
        self._config = _Settings(
            application,
            http=_Protocol,
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_WEB_S,
            backlog=4096,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._config.request_timeout_s = request_timeout_s
        self._server = _Server(self._config)
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> int:
        """Listen, and return the port."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # asyncio switches Nagle's algorithm off only where the protocol is named; with it every answer waits 40 ms.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self._host, self._port))
        except OSError:
            listening.close()
            raise
        self._task = asyncio.get_running_loop().create_task(self._server.serve([listening]), name="web")
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.005)
        return int(listening.getsockname()[1])

    async def follow_certificate(self, clock: Clock) -> None:
        """Take a renewed certificate for ever; see `tls.follow`."""
        assert self._certificate is not None
        assert self._key is not None
        assert self._config.ssl is not None
        await tls.follow(self._config.ssl, self._certificate, self._key, clock, "web")

    async def close(self) -> None:
        """Take no more connections; let requests that are under way end."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
