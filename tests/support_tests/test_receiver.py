"""The receiver that other tests trust."""

from __future__ import annotations

import asyncio

import pytest

from berid.base.webhook import new_secret, sign
from tests.support.receiver import Drop, Hang, Raw, Receiver, Reply, Request, redirect


async def call(
    receiver: Receiver, body: bytes = b"", headers: dict[str, str] | None = None, target: str = "/hook"
) -> bytes:
    """One POST on a connection of its own; everything the server says until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
    lines = [f"POST {target} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_a_request_is_remembered_as_it_came() -> None:
    async with Receiver() as receiver:
        answer = await call(receiver, b"body", {"X-Thing": "1"}, "/a?b=c")
        [request] = await receiver.wait_for(1)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (request.method, request.target, request.body) == ("POST", "/a?b=c", b"body")
    assert request.headers["x-thing"] == "1"


async def test_only_the_latest_requests_are_kept_but_all_are_counted() -> None:
    async with Receiver(keep=2) as receiver:
        for number in range(5):
            await call(receiver, str(number).encode())
        kept = await receiver.wait_for(5)
    assert [request.body for request in kept] == [b"3", b"4"]
    assert receiver.count == 5


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (Reply(503, b"later", (("Retry-After", "7"),)), b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n"),
        (Reply(204), b"HTTP/1.1 204 No Content\r\n\r\n"),
        (Reply(299, b"x"), b"HTTP/1.1 299 Unheard Of\r\n"),
        (redirect("http://10.0.0.1/"), b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n"),
        (Raw(b"SSH-2.0-x\r\n"), b"SSH-2.0-x\r\n"),
        (Drop.CLOSE, b""),
    ],
)
async def test_the_next_request_is_answered_as_told_and_the_one_after_as_always(
    behaviour: Reply | Raw | Drop, expected: bytes
) -> None:
    async with Receiver() as receiver:
        receiver.next(behaviour)
        first = await call(receiver)
        second = await call(receiver)
    assert first.startswith(expected)
    assert (first == b"") == (expected == b"")
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_function_may_pick_the_answer() -> None:
    def by_body(request: Request) -> Reply:
        return Reply(400 if request.body == b"bad" else 200)

    async with Receiver() as receiver:
        receiver.always(by_body)
        answers = [await call(receiver, body) for body in (b"good", b"bad")]
    assert [answer[9:12] for answer in answers] == [b"200", b"400"]


async def test_a_reset_is_a_reset() -> None:
    async with Receiver() as receiver:
        receiver.next(Drop.RESET)
        with pytest.raises(ConnectionResetError):
            await call(receiver)


async def test_a_hanging_request_ends_only_with_the_receiver() -> None:
    async with Receiver() as receiver:
        receiver.always(Hang.FOREVER)
        calling = asyncio.create_task(call(receiver))
        await receiver.wait_for(1)
        done, _ = await asyncio.wait([calling], timeout=0.05)
        assert not done
    assert await calling == b""


async def test_a_delayed_answer_comes_later_and_a_dripped_one_bytewise() -> None:
    async with Receiver() as receiver:
        receiver.next(Reply(delay_s=0.05), Reply(body=b"drop by drop", drip_s=0.001))
        started_ms = _loop_ms()
        assert b"200 OK" in await call(receiver)
        delayed_ms = _loop_ms()
        answer = await call(receiver)
        dripped_ms = _loop_ms()
    assert delayed_ms - started_ms >= 50
    assert answer.endswith(b"drop by drop")
    assert dripped_ms - delayed_ms >= len(answer)


def _loop_ms() -> int:
    """The loop's own time, which delays go by: uvloop's has whole milliseconds, and is a little behind the machine's."""
    return round(asyncio.get_running_loop().time() * 1000)


async def test_signatures_are_checked_when_asked_for() -> None:
    secret = new_secret()
    async with Receiver(secrets=[secret], now_s=lambda: 1_750_000_000) as receiver:
        right = await call(receiver, b"body", sign([secret], "evt_1", 1_750_000_000, b"body"))
        wrong = await call(receiver, b"other", sign([secret], "evt_1", 1_750_000_000, b"body"))
        first, second = await receiver.wait_for(2)
    assert (right[9:12], first.problem) == (b"200", "")
    assert (wrong[9:12], second.problem) == (b"401", "no signature matches")


async def test_waiting_for_more_than_came_says_how_many_came() -> None:
    async with Receiver() as receiver:
        await call(receiver)
        with pytest.raises(TimeoutError, match="1 of 2 requests"):
            await receiver.wait_for(2, timeout_s=0.01)


async def test_connections_are_kept_for_the_next_request_until_they_are_dropped() -> None:
    async with Receiver() as receiver:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        for _ in range(2):
            writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
        assert (receiver.count, receiver.connections, receiver.connections_made) == (2, 1, 1)
        receiver.drop_connections()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_body_in_pieces_is_one_body_and_nonsense_is_no_request() -> None:
    async with Receiver() as receiver:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\nabc\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"2\r\nde\r\n0\r\n\r\n")
        [request] = await receiver.wait_for(1)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x16\x03\x01 not http\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 Bad Request")
        writer.close()
    assert request.body == b"abcde"
    assert receiver.count == 1
