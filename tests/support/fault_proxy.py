"""A TCP proxy that disturbs the line between two real programs, as told, while they run.

    async with FaultProxy("127.0.0.1", carrier.port) as proxy:
        link = connect_to(proxy.port)
        proxy.to_client.delay(200)          # answers come late
        proxy.to_target.swallow()           # half open: what we send vanishes, the socket stays
        proxy.cut(Cut.RESET)                # all links end now
        await proxy.refuse()                # nobody new gets in
        await proxy.heal()                  # all is well again

The two directions are set apart: `to_target` carries what the client sends, `to_client` what it gets. At most about
100 KiB are on their way in each direction of a link, counting the kernel's buffers, so a slow line is soon felt by who
writes into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import Enum
from typing import Self

_CHUNK_BYTES = 4096
_QUEUED_CHUNKS = 8
_KERNEL_BYTES = 16 * 1024
"""Asked for as the sockets' receive buffer; Linux grants twice as much."""
_SLICES_PER_S = 50
"""A slow line moves this often; a change of its pace is felt within one slice."""


class Cut(Enum):
    """How a link ends: RESET sends RST at once; CLOSE ends it like a program that exits, with FIN."""

    RESET = "reset"
    CLOSE = "close"


class Line:
    """One direction of every link. A setting replaces the one before and counts for bytes that have not left yet."""

    def __init__(self) -> None:
        self.bytes_passed = 0
        self.bytes_swallowed = 0
        self.heal()

    def heal(self) -> None:
        """Pass everything at once. What was swallowed stays lost."""
        self._delay_s = 0.0
        self._bytes_per_s: int | None = None
        self._is_swallowing = False
        self._bytes_left: int | None = None
        self._cut = Cut.RESET

    def delay(self, ms: float) -> None:
        """Let everything that comes in from now on leave `ms` later, in order, at full width."""
        self.heal()
        self._delay_s = ms / 1000

    def swallow(self) -> None:
        """Lose everything, the end of the connection too, and keep the sockets open: a half-open connection."""
        self.heal()
        self._is_swallowing = True

    def slow(self, bytes_per_s: int) -> None:
        """Pass at most so many bytes a second on each link, and stop reading when the buffers are full."""
        self.heal()
        self._bytes_per_s = bytes_per_s

    def cut_after(self, bytes_left: int, how: Cut = Cut.RESET) -> None:
        """Pass exactly so many bytes more, then cut the link that carried the last of them, and heal."""
        self.heal()
        self._bytes_left = bytes_left
        self._cut = how


class FaultProxy:
    """Listens on a free loopback port and passes each connection to the target, for as long as the `async with` lasts."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.to_target = Line()
        self.to_client = Line()
        self.connections_made = 0
        self.port = 0
        self._target = (target_host, target_port)
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._server: asyncio.Server | None = None
        self._is_over = False

    async def __aenter__(self) -> Self:
        # A second socket holds the port, bound but not listening, so that it stays ours while we refuse.
        self._holder = _bound_socket(0)
        self.port = self._holder.getsockname()[1]
        await self.admit()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await self.refuse()
        self.cut(Cut.RESET)
        while self._links:
            await asyncio.wait(self._links)
        self._holder.close()

    @property
    def connections(self) -> int:
        """Links that are open now."""
        return len(self._links)

    async def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED). Links that are open stay so."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def admit(self) -> None:
        """Take new connections again."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=_bound_socket(self.port), limit=_CHUNK_BYTES)

    async def heal(self) -> None:
        """Pass everything in both directions and take new connections. Links that were cut stay cut."""
        self.to_target.heal()
        self.to_client.heal()
        await self.admit()

    def cut(self, how: Cut = Cut.RESET) -> None:
        """End every open link now, on both sides; what was still on its way is lost."""
        for task, writers in self._links.items():
            _end(writers, how)
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_over:
            _end((writer,), Cut.RESET)  # it had been taken from the kernel before we stopped listening
            return
        self.connections_made += 1
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._links[task] = (writer,)

    async def _carry(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        """One link, from the moment it is accepted until both its sockets are closed."""
        task = asyncio.current_task()
        assert task is not None
        try:
            try:
                target_reader, target_writer = await self._connect()
            except OSError:
                _end((client_writer,), Cut.RESET)
                return
            writers = self._links[task] = (client_writer, target_writer)
            for writer in writers:
                # drain() then waits until the kernel has every byte, so that a cut after N bytes passes all N.
                writer.transport.set_write_buffer_limits(0)
            how = await _run(
                _Pump(client_reader, target_writer, self.to_target), _Pump(target_reader, client_writer, self.to_client)
            )
            _end(writers, how)
        finally:
            try:
                for writer in self._links[task]:
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            finally:
                del self._links[task]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = _socket()
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._target)
            return await asyncio.open_connection(sock=sock, limit=_CHUNK_BYTES)
        except BaseException:
            sock.close()
            raise


class _LinkCutError(Exception):
    """A line reached the byte at which it was told to cut, or a peer reset its end."""

    def __init__(self, how: Cut) -> None:
        super().__init__(how)
        self.how = how


class _Pump:
    """One direction of one link: a task that takes bytes in, and one that gives them out as the line says."""

    def __init__(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, line: Line) -> None:
        self._source = source
        self._sink = sink
        self._line = line
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS)
        self._now = asyncio.get_running_loop().time

    async def take(self) -> None:
        data = b"-"
        while data:
            try:
                data = await self._source.read(_CHUNK_BYTES)
            except OSError:
                if self._line._is_swallowing:
                    return
                raise _LinkCutError(Cut.RESET) from None
            await self._queue.put((self._now() + self._line._delay_s, data))

    async def give(self) -> None:
        while True:
            due, data = await self._queue.get()
            if (wait_s := due - self._now()) > 0:
                await asyncio.sleep(wait_s)
            if data:
                await self._pass(data)
            elif not self._line._is_swallowing:
                self._sink.write_eof()
                return

    async def _pass(self, data: bytes) -> None:
        line = self._line
        while data:
            if line._is_swallowing:
                line.bytes_swallowed += len(data)
                return
            pace, left = line._bytes_per_s, line._bytes_left
            size = len(data) if pace is None else max(1, pace // _SLICES_PER_S)
            piece = data[: size if left is None else min(size, left)]
            data = data[len(piece) :]
            self._sink.write(piece)
            await self._sink.drain()
            line.bytes_passed += len(piece)
            if left is not None:
                line._bytes_left = left - len(piece)
                if line._bytes_left == 0:
                    how = line._cut
                    line.heal()
                    raise _LinkCutError(how)
            if pace is not None:
                await asyncio.sleep(len(piece) / pace)


async def _run(*pumps: _Pump) -> Cut:
    """Pump until both directions have ended or one is cut; how the link is to end."""
    how = Cut.CLOSE
    try:
        async with asyncio.TaskGroup() as group:
            for pump in pumps:
                group.create_task(pump.take())
                group.create_task(pump.give())
    except* _LinkCutError as cuts:
        first = cuts.exceptions[0]
        assert isinstance(first, _LinkCutError)
        how = first.how
    except* OSError:
        how = Cut.RESET
    return how


def _end(writers: tuple[asyncio.StreamWriter, ...], how: Cut) -> None:
    for writer in writers:
        if how is Cut.CLOSE:
            writer.close()
            continue
        # A linger time of zero makes the kernel end the connection with RST.
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


def _socket() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
    sock.setblocking(False)
    return sock


def _bound_socket(port: int) -> socket.socket:
    """A socket on a loopback port that others may be bound to as well, as long as one at most listens."""
    sock = _socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock
