"""The fault proxy does to a link what it is told, no more and no less."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.fault_proxy import Cut, FaultProxy

Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that sends back what it gets, and keeps its connections at hand."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.is_echoing = True
        self.received = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.links.append((reader, writer))
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.received += len(data)
                if self.is_echoing:
                    writer.write(data)
                    await writer.drain()
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    target = Echo()
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0)
    target.port = server.sockets[0].getsockname()[1]
    yield target
    server.close()
    for _, writer in target.links:
        writer.transport.abort()
    await server.wait_closed()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", echo.port) as running:
        yield running


@pytest.fixture
async def link(proxy: FaultProxy) -> AsyncIterator[Link]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield reader, writer
    writer.transport.abort()


async def exchange(link: Link, data: bytes) -> bytes:
    reader, writer = link
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 5)


async def test_by_default_everything_passes_both_ways(proxy: FaultProxy, link: Link) -> None:
    data = bytes(range(256)) * 4096
    assert await exchange(link, data) == data
    assert (proxy.to_target.bytes_passed, proxy.to_client.bytes_passed) == (len(data), len(data))
    assert (proxy.connections, proxy.connections_made) == (1, 1)


async def test_the_end_of_one_direction_is_passed_on_and_the_other_stays_open(proxy: FaultProxy, link: Link) -> None:
    reader, writer = link
    writer.write(b"last words")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b"last words"
    writer.close()
    while proxy.connections:
        await asyncio.sleep(0.001)


async def test_a_delay_holds_every_byte_back_but_does_not_narrow_the_line(proxy: FaultProxy, link: Link) -> None:
    proxy.to_client.delay(50)
    await exchange(link, b"open")
    started = time.monotonic()
    for _ in range(20):
        link[1].write(b"x" * 1000)
        await asyncio.sleep(0.001)
    await link[0].readexactly(20_000)
    took = time.monotonic() - started
    assert 0.05 <= took < 1.0


async def test_order_is_kept_when_a_delay_ends(proxy: FaultProxy, link: Link) -> None:
    proxy.to_target.delay(50)
    link[1].write(b"first ")
    await asyncio.sleep(0.01)
    proxy.to_target.heal()
    link[1].write(b"second")
    assert await asyncio.wait_for(link[0].readexactly(12), 5) == b"first second"


async def test_a_swallowing_line_takes_everything_and_keeps_the_socket(
    proxy: FaultProxy, link: Link, echo: Echo
) -> None:
    await exchange(link, b"seen")
    proxy.to_target.swallow()
    link[1].write(b"z" * 1_000_000)
    await asyncio.wait_for(link[1].drain(), 5)
    while proxy.to_target.bytes_swallowed < 1_000_000:
        await asyncio.sleep(0.001)
    assert (echo.received, proxy.connections) == (4, 1)
    proxy.to_target.heal()
    assert await exchange(link, b"again") == b"again"


async def test_a_swallowing_line_hides_the_end_of_the_connection_too(proxy: FaultProxy, link: Link, echo: Echo) -> None:
    await exchange(link, b"seen")
    proxy.to_target.swallow()
    link[1].transport.abort()
    target_reader, _ = echo.links[0]
    await asyncio.sleep(0.05)
    assert not target_reader.at_eof()
    assert proxy.connections == 1


async def test_one_direction_may_be_silent_while_the_other_works(proxy: FaultProxy, link: Link, echo: Echo) -> None:
    await exchange(link, b"seen")
    proxy.to_client.swallow()
    link[1].write(b"submitted")
    while proxy.to_client.bytes_swallowed < len(b"submitted"):
        await asyncio.sleep(0.001)
    assert echo.received == len(b"seensubmitted")


async def test_a_slow_line_keeps_its_pace(proxy: FaultProxy, link: Link) -> None:
    proxy.to_client.slow(20_000)
    started = time.monotonic()
    assert await exchange(link, b"y" * 4_000) == b"y" * 4_000
    assert 0.15 <= time.monotonic() - started < 2


async def test_a_slow_line_is_felt_by_who_writes_into_it(proxy: FaultProxy, link: Link, echo: Echo) -> None:
    echo.is_echoing = False
    proxy.to_target.slow(1_000)

    async def flood() -> None:
        for _ in range(1000):
            link[1].write(b"w" * 65536)
            await link[1].drain()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 0.3)
    assert echo.received <= 1_000
    proxy.to_target.heal()
    while echo.received < 500_000:
        await asyncio.sleep(0.001)


async def test_a_reset_is_seen_on_both_sides(proxy: FaultProxy, link: Link, echo: Echo) -> None:
    await exchange(link, b"open")
    echo.is_echoing = False
    proxy.cut(Cut.RESET)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(link[0].read(), 5)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(echo.links[0][0].read(), 5)


async def test_a_close_is_seen_as_an_orderly_end_on_both_sides(proxy: FaultProxy, link: Link, echo: Echo) -> None:
    await exchange(link, b"open")
    proxy.cut(Cut.CLOSE)
    assert await asyncio.wait_for(link[0].read(), 5) == b""
    while not echo.links[0][0].at_eof():
        await asyncio.sleep(0.001)


async def test_after_a_cut_the_next_link_works(proxy: FaultProxy, link: Link) -> None:
    await exchange(link, b"open")
    proxy.cut()
    again = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await exchange(again, b"back") == b"back"
    again[1].close()


@pytest.mark.parametrize("at", [1, 7, 4096, 5000, 100_000])
async def test_a_line_is_cut_after_exactly_so_many_bytes(proxy: FaultProxy, link: Link, echo: Echo, at: int) -> None:
    await exchange(link, b"open")
    echo.is_echoing = False
    proxy.to_target.cut_after(at, Cut.CLOSE)
    link[1].write(b"c" * 150_000)
    while proxy.connections:
        await asyncio.sleep(0.001)
    while not echo.links[0][0].at_eof():
        await asyncio.sleep(0.001)
    assert echo.received == len(b"open") + at
    again = await asyncio.open_connection("127.0.0.1", proxy.port)
    echo.is_echoing = True
    assert await exchange(again, b"d" * 100) == b"d" * 100
    again[1].close()


async def test_who_is_refused_hears_it_at_once_and_open_links_stay(proxy: FaultProxy, link: Link) -> None:
    await exchange(link, b"open")
    for _ in range(3):
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await exchange(link, b"still") == b"still"
        await proxy.heal()
        again = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await exchange(again, b"new") == b"new"
        again[1].close()


async def test_a_target_that_is_away_resets_the_client() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with FaultProxy("127.0.0.1", port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_a_target_that_resets_resets_the_client(proxy: FaultProxy, link: Link, echo: Echo) -> None:
    await exchange(link, b"open")
    writer = echo.links[0][1]
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(link[0].read(), 5)


async def test_the_proxy_ends_with_links_in_every_state(echo: Echo) -> None:
    async with FaultProxy("127.0.0.1", echo.port) as proxy:
        links = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(6)]
        for number, link in enumerate(links):
            await exchange(link, b"open")
            if number == 1:
                link[1].write_eof()
        proxy.to_client.slow(10)
        proxy.to_target.swallow()
        for _, writer in links[2:]:
            writer.write(b"v" * 100_000)
        links[5][1].transport.abort()
    assert proxy.connections == 0
    for _, writer in links:
        writer.close()
