"""A customer's end of SMPP, on our own engine over a real socket: binds, submits, takes what is delivered."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Self

from berid.base.clock import SystemClock
from berid.wire.smpp.codes import CommandStatus
from berid.wire.smpp.pdu import BindReceiver, BindTransceiver, BindTransmitter, DataSm, DeliverSm, Pdu
from berid.wire.smpp.session import Closed, CloseReason, Request, Response, Role, Session, SessionSettings

PATIENCE_S = 10.0
"""How long a test waits for what must come. Nothing waits for it in vain when all is well."""

BINDS: dict[str, Callable[[str, str], BindReceiver | BindTransmitter | BindTransceiver]] = {
    "receiver": BindReceiver,
    "transmitter": BindTransmitter,
    "transceiver": BindTransceiver,
}

Answer = Callable[[Pdu], int | None]
"""The status with which a deliver_sm is answered; None for no answer."""


class Esme:
    """One connection. `async with await Esme.connect(port) as esme: …`"""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.session = Session(SessionSettings(Role.ESME, window=100_000, response_timeout_s=60), self._now())
        self.delivered: asyncio.Queue[DeliverSm] = asyncio.Queue()
        self.answer: Answer = lambda pdu: 0
        self.closed: asyncio.Future[CloseReason | None] = asyncio.get_running_loop().create_future()
        """Done when the connection has ended; says how, None without a word of SMPP."""
        self.is_deaf = False
        """Whether nothing is answered, not even whether it is there."""
        self._reason: CloseReason | None = None
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None = None) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()

    async def hang_up(self) -> None:
        """End the connection without a word."""
        self._task.cancel()
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()
        await asyncio.gather(self._task, return_exceptions=True)

    async def bind(self, kind: str = "transceiver", login: str = "customer", password: str = "password") -> int:
        """Bind, and return the status of the answer."""
        status, _ = await self.bind_as(BINDS[kind](login, password))
        return status

    async def bind_as(self, pdu: Pdu) -> tuple[int, Any]:
        """Bind with this PDU, and return the answer's status and PDU."""
        future = self._future()
        self.session.bind(pdu, self._now(), future)
        self._flush()
        return await asyncio.wait_for(future, PATIENCE_S)

    def post(self, *pdus: Pdu) -> list[asyncio.Future[tuple[int, Any]]]:
        """Send requests in one write; each future gives the answer's status and PDU."""
        futures = []
        for pdu in pdus:
            future = self._future()
            self.session.submit(pdu, self._now(), future)
            futures.append(future)
        self._flush()
        return futures

    async def ask(self, *pdus: Pdu) -> list[tuple[int, Any]]:
        """Send requests in one write and wait for all answers."""
        return await asyncio.wait_for(asyncio.gather(*self.post(*pdus)), PATIENCE_S)

    async def next_delivered(self, count: int = 1) -> Sequence[DeliverSm]:
        """The next deliver_sm that come."""
        return [await asyncio.wait_for(self.delivered.get(), PATIENCE_S) for _ in range(count)]

    async def end(self) -> CloseReason | None:
        """Wait until the other side has ended the connection."""
        return await asyncio.wait_for(asyncio.shield(self.closed), PATIENCE_S)

    def unbind(self) -> None:
        """Begin to leave."""
        self.session.unbind(self._now())
        self._flush()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65_536):
                if self.is_deaf:
                    continue
                for event in self.session.receive(data, self._now()):
                    if isinstance(event, Response):
                        event.token.set_result((event.status, event.pdu))  # type: ignore[attr-defined]
                    elif isinstance(event, Request) and isinstance(event.pdu, DeliverSm | DataSm):
                        self._on_deliver(event.sequence, event.pdu)
                    elif isinstance(event, Closed):
                        self._reason = event.reason
                self._flush()
        self.session.lost()
        self.closed.set_result(self._reason)

    def _on_deliver(self, sequence: int, pdu: Any) -> None:
        status = self.answer(pdu)
        if status is not None:
            self.session.respond(sequence, status)
        if status in (0, CommandStatus.ESME_RX_P_APPN, CommandStatus.ESME_RX_R_APPN):
            self.delivered.put_nowait(pdu)

    def _flush(self) -> None:
        data = self.session.take_output()
        if data:
            self.writer.write(data)

    def _future(self) -> asyncio.Future[tuple[int, Any]]:
        return asyncio.get_running_loop().create_future()

    @staticmethod
    def _now() -> float:
        return SystemClock().ticks_s()
