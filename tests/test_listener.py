"""The web port: how answers leave, and callers who never end their request: their time and their space are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from berid.listener import HEAD_MAX_BYTES, Listener, _Joined

ENDS_S = 10.0
ARRIVES_S = 0.3
"""How long a request may take to arrive, here."""

QUICK = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
LATE = b"GET /late HTTP/1.1\r\nHost: here\r\n\r\n"


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """204 at once, or after twice the time that a request has to arrive; bodies are read only under /read."""
    if scope["path"] == "/late":
        await asyncio.sleep(2 * ARRIVES_S)
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    listener = Listener(_answer, "127.0.0.1", 0, request_timeout_s=ARRIVES_S)
    yield await listener.open()
    await listener.close()


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("", ""),
        ("", "GET / HTTP/1.1\r\nHo"),
        (QUICK.decode(), "GET / HTTP/1.1\r\nHost: here\r\n"),
        ("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9999\r\n\r\n", "x"),
    ],
    ids=["nothing", "half a head", "half a head after a request", "a body that was refused unread"],
)
async def test_connection_ends_when_a_request_does_not(port: int, before: str, said: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if before:
        writer.write(before.encode())
        assert b"204" in await reader.readuntil(b"\r\n\r\n")
    writer.write(said.encode())
    assert await asyncio.wait_for(reader.read(), ENDS_S) == b""
    writer.close()


async def test_head_that_has_no_end_is_not_kept(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)

    async def flood() -> None:
        writer.write(b"GET / HTTP/1.1\r\nX-Long: ")
        for _ in range(100):
            writer.write(b"a" * HEAD_MAX_BYTES)
            await asyncio.wait_for(writer.drain(), ENDS_S)
            await asyncio.sleep(0)

    with pytest.raises(ConnectionError):
        await flood()
    writer.close()


@pytest.mark.parametrize(
    ("path", "size"), [("/read", 3 * HEAD_MAX_BYTES), ("/read", 300 * HEAD_MAX_BYTES), ("/late", 10)]
)
async def test_end_of_a_body_is_no_piece_of_a_head(port: int, path: str, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {size}\r\n\r\n".encode())
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.write(b"x" * size)
    assert b"204" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ENDS_S)
    writer.close()


async def test_slow_answers_and_slow_bodies_are_not_the_lines_business(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LATE)
    assert b"204" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ENDS_S)
    writer.write(b"POST /read HTTP/1.1\r\nHost: here\r\nContent-Length: 200000\r\n\r\n")
    for _ in range(4):
        writer.write(b"x" * 50_000)
        await asyncio.sleep(ARRIVES_S / 2)
    assert b"204" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ENDS_S)
    writer.write(QUICK)
    assert b"204" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ENDS_S)
    writer.close()


class _Line(asyncio.Transport):
    """A connection that remembers what was written, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []

    def write(self, data: Any) -> None:
        self.seen.append(bytes(data))

    def close(self) -> None:
        self.seen.append(b"closed")


async def test_what_is_written_in_one_turn_leaves_together_and_before_the_end() -> None:
    line = _Line()
    joined = _Joined(line, asyncio.get_running_loop())
    joined.write(b"head,")
    joined.write(b"body")
    assert line.seen == []
    await asyncio.sleep(0)
    assert line.seen == [b"head,body"]
    joined.write(b"last")
    joined.close()
    await asyncio.sleep(0)
    assert line.seen == [b"head,body", b"last", b"closed"]


async def test_first_piece_of_a_long_answer_arrives_while_the_next_is_being_made() -> None:
    may_go_on = asyncio.Event()

    async def slow(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        start: MutableMapping[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await may_go_on.wait()
        await send({"type": "http.response.body", "body": b"second"})

    listener = Listener(slow, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", await listener.open())
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"first"), ENDS_S)
        may_go_on.set()
        assert b"second" in await asyncio.wait_for(reader.read(), ENDS_S)
    finally:
        writer.close()
        await listener.close()
