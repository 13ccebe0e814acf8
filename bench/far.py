"""The far sides of the benchmark, each a process of its own: the carrier, the callback receiver, the server, the bare floors.

Every process is driven through a pipe: it sends one object when it serves, then answers questions until told to end.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import httptools
import uvloop

Main = Callable[[Connection, dict[str, Any]], Awaitable[None]]

MARKED = "96659"
"""Numbers whose times of arrival are kept."""

_context = get_context("spawn")


class Process:
    """One far side. `ready` is what it said when it served; `ask` sends a question and waits for the answer."""

    def __init__(
        self, main: Callable[[Connection, dict[str, Any]], None], environment: dict[str, str], **options: Any
    ) -> None:
        self._pipe, theirs = _context.Pipe()
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            self._process = _context.Process(target=main, args=(theirs, options), daemon=True)
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()
        if not self._pipe.poll(60):
            raise RuntimeError(f"{main.__name__} did not start")
        self.ready: Any = self._pipe.recv()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    def ask(self, question: str) -> Any:
        """Send a question, wait for the answer."""
        self._pipe.send(question)
        if not self._pipe.poll(120):
            raise RuntimeError(f"no answer to {question!r}")
        return self._pipe.recv()

    def end(self) -> None:
        """Ask it to end, and wait."""
        if self._process.is_alive():
            self._pipe.send("end")
            self._process.join(60)
        if self._process.is_alive():
            self._process.kill()

    def cpu_s(self) -> float:
        """User and system time so far, with what it has started."""
        return sum(map(cpu_s, self._pids()))

    def rss_mb(self) -> float:
        """Resident memory now, with what it has started."""
        found = 0
        for pid in self._pids():
            with open(f"/proc/{pid}/status") as status:
                found += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
        return found / 1024

    def _pids(self) -> list[int]:
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as children:
            return [self.pid, *map(int, children.read().split())]


def cpu_s(pid: int) -> float:
    """User and system time of a process and all its threads so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def questions(pipe: Connection, answers: dict[str, Callable[[], Any]]) -> None:
    """Answer questions until `end`."""
    loop = asyncio.get_running_loop()
    incoming: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        while True:
            try:
                question = pipe.recv()
            except (EOFError, OSError):
                question = "end"
            loop.call_soon_threadsafe(incoming.put_nowait, question)
            if question == "end":
                return

    threading.Thread(target=read, daemon=True).start()
    while (question := await incoming.get()) != "end":
        pipe.send(answers[question]())


def carrier(pipe: Connection, options: dict[str, Any]) -> None:
    """The fake carrier. `arrivals` gives when submits to marked numbers came, by number, in seconds since 1970."""
    from berid.channels.sms.simulator import Carrier, CarrierSettings

    async def main() -> None:
        settings = CarrierSettings(accounts={"bench": "bench"}, receipt_delay_s=0.05, log_size=300_000)
        far = Carrier(settings)
        await far.start()
        pipe.send(far.port)

        def arrivals() -> dict[str, float]:
            numbered = ((submitted.pdu.destination_addr, submitted.at_ms) for submitted in far.submits)
            return {number: at_ms / 1000 for number, at_ms in numbered if number.startswith(MARKED)}

        await questions(pipe, {"arrivals": arrivals})
        await far.stop()

    uvloop.run(main())


class _Receiver(asyncio.Protocol):
    """Answers 204 to every call and counts the events in it by a marker that stands once in each."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._counts["events"] += body.count(b'"type":"message.')

    def on_message_complete(self) -> None:
        self._counts["calls"] += 1
        self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


def receiver(pipe: Connection, _options: dict[str, Any]) -> None:
    """The callback receiver. `counts` gives calls and events."""

    async def main() -> None:
        counts = {"calls": 0, "events": 0}
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Receiver(counts), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await questions(pipe, {"counts": lambda: dict(counts)})
        server.close()

    uvloop.run(main())


def server(pipe: Connection, options: dict[str, Any]) -> None:
    """The product, as `berid serve` runs it. `commits` gives (commits, operations) so far."""
    from berid.app import App, calm_collector
    from berid.base import log
    from berid.config import load

    async def main() -> None:
        log.setup("error", "text")
        app = await App.start(load(None, {}, options))
        calm_collector()
        counts = [0, 0]
        observe = app.rt.store.hot._observe

        def counted(operations: int, seconds: float) -> None:
            counts[0] += 1
            counts[1] += operations
            if observe is not None:
                observe(operations, seconds)

        app.rt.store.hot._observe = counted
        pipe.send(app.ports.http)
        await questions(pipe, {"commits": lambda: tuple(counts)})
        await app.stop()

    uvloop.run(main())


def bare_asgi(pipe: Connection, _options: dict[str, Any]) -> None:
    """The floor of row 1: an ASGI application that reads the body and answers, under the same server."""
    import uvicorn

    answer = b'{"statusCode":201,"messageId":5452899970,"cost":0.026,"currency":"SAR","totalCount":1}'

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def main() -> None:
        import socket

        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            application, loop="none", http="httptools", lifespan="off", log_config=None, access_log=False
        )
        running = uvicorn.Server(config)
        task = asyncio.get_running_loop().create_task(running.serve([listening]))
        while not running.started:
            await asyncio.sleep(0.01)
        pipe.send(listening.getsockname()[1])
        await questions(pipe, {})
        running.should_exit = True
        await task

    uvloop.run(main())
