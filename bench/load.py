"""The load generator: keep-alive connections, one request in flight on each, requests rendered beforehand.

It shares the two cores with what it measures, so it does next to nothing: write, wait for a complete answer, note the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Render = Callable[[int], bytes]
"""Request number → its bytes."""


@dataclass
class Result:
    """What a run of the generator saw. Times in seconds."""

    count: int = 0
    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.count / self.elapsed_s

    def quantile_ms(self, share: float) -> float:
        """A quantile of the latencies, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, done: asyncio.Future[None]) -> None:
        self._run = run
        self._done = done
        self._buffer = b""
        self._started = 0.0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        run = self._run
        if run.sent >= run.count or time.perf_counter() > run.until:
            self._transport.close()
            return
        number = run.sent
        run.sent += 1
        self._started = time.perf_counter()
        self._transport.write(run.render(number))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head < 0:
            self._buffer = buffer
            return
        place = buffer.find(b"content-length: ")
        length = int(buffer[place + 16 : buffer.index(b"\r", place)]) if 0 <= place < head else 0
        if len(buffer) < head + 4 + length:
            self._buffer = buffer
            return
        self._buffer = b""
        result = self._run.result
        result.latencies_s.append(time.perf_counter() - self._started)
        status = buffer[9:12].decode()
        result.statuses[status] = result.statuses.get(status, 0) + 1
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


@dataclass
class _Run:
    render: Render
    count: int
    until: float
    result: Result
    sent: int = 0


async def fire(port: int, render: Render, count: int, connections: int, limit_s: float) -> Result:
    """Send up to `count` requests over `connections`, no longer than `limit_s`."""
    loop = asyncio.get_running_loop()
    result = Result()
    started = time.perf_counter()
    run = _Run(render, count, started + limit_s, result)
    waits = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda done=done: _Connection(run, done), "127.0.0.1", port)  # type: ignore[misc]
        waits.append(done)
    await asyncio.gather(*waits)
    result.elapsed_s = time.perf_counter() - started
    result.count = len(result.latencies_s)
    return result


def post(path: str, token: str, body: bytes, key: str = "") -> bytes:
    """One POST request with a JSON body."""
    extra = f"Idempotency-Key: {key}\r\n" if key else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n{extra}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(path_and_query: str, token: str) -> bytes:
    """One GET request."""
    return f"GET {path_and_query} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
