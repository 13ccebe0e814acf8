"""A carrier that answers each submit as a test says: the cases that `channels.sms.simulator` has no mood for.

    async with ScriptedCarrier() as carrier:
        carrier.script = [ok("1"), refuse(CommandStatus.ESME_RSYSERR), silence, drop]
        ...
        assert carrier.texts == [...]

The script is used up submit by submit; after it every submit is accepted with an id of its own. Anyone may bind.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, cast

from berid.wire.smpp.pdu import (
    BindReceiver,
    BindReceiverResp,
    BindTransceiver,
    BindTransceiverResp,
    BindTransmitter,
    BindTransmitterResp,
    DataSm,
    DeliverSm,
    SubmitSm,
)
from berid.wire.smpp.session import Closed, Request, Response, Role, Session, SessionSettings, State

_BIND_RESPONSES = {
    BindTransceiver: BindTransceiverResp,
    BindReceiver: BindReceiverResp,
    BindTransmitter: BindTransmitterResp,
}

Answer = Callable[["Link", int], None]
"""What a carrier does with a submit: (the link, the sequence to answer)."""


def ok(message_id: str) -> Answer:
    """Accept with this id."""
    return lambda link, sequence: cast(None, link.session.respond(sequence, 0, message_id))


def refuse(status: int) -> Answer:
    """Refuse with this status."""
    return lambda link, sequence: cast(None, link.session.respond(sequence, int(status)))


def later(answer: Answer, seconds: float) -> Answer:
    """Do it after a while."""

    def wait(link: Link, sequence: int) -> None:
        def do() -> None:
            answer(link, sequence)
            link.write()

        asyncio.get_running_loop().call_later(seconds, do)

    return wait


def silence(link: Link, sequence: int) -> None:
    """Never answer."""


def drop(link: Link, sequence: int) -> None:
    """End the connection without an answer."""
    link.transport.abort()


@dataclass(frozen=True, slots=True)
class Seen:
    """One submit, and when it was handled, in monotonic seconds."""

    at_s: float
    link: Link
    pdu: SubmitSm | DataSm


@dataclass
class ScriptedCarrier:
    """Listens on a free loopback port for as long as the `async with` lasts."""

    tls: ssl.SSLContext | None = None
    bind_status: int = 0
    """How binds are answered."""
    script: list[Answer] = field(default_factory=list)
    always: Answer | None = None
    """What follows the script, instead of yes."""
    seen: list[Seen] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    """Those that are open."""
    links_made: int = 0
    binds: list[BindTransceiver | BindReceiver | BindTransmitter] = field(default_factory=list)
    """What was asked for."""
    answers: list[tuple[float, Response]] = field(default_factory=list)
    """Answers to what `deliver` sent."""
    port: int = 0

    async def __aenter__(self) -> Self:
        self._ids = itertools.count(1)
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Link(self), "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.drop_links()
        await self.until(lambda: not self.links)
        await self._server.wait_closed()

    @property
    def texts(self) -> list[bytes]:
        """The contents submitted, in order, without their headers."""
        return [seen.pdu.content[6:] if seen.pdu.esm_class else seen.pdu.content for seen in self.seen]

    def drop_links(self) -> None:
        """End every connection at once."""
        for link in list(self.links):
            link.transport.abort()

    def deliver(self, *pdus: DeliverSm | DataSm) -> None:
        """Send to the first link that can take it, in one write."""
        link = next(link for link in self.links if link.session.state in (State.BOUND_RX, State.BOUND_TRX))
        for pdu in pdus:
            link.session.submit(pdu, 0.0, pdu)
        link.write()

    async def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Wait until `condition` holds; it is looked at whenever something has happened here. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def next_answer(self) -> Answer:
        """What to do with the submit that has just come."""
        if self.script:
            return self.script.pop(0)
        return self.always or ok(f"{next(self._ids)}")

    def changed(self) -> None:
        """Let those who wait look again."""
        self._changed.set()


class Link(asyncio.Protocol):
    """One connection to the carrier."""

    def __init__(self, carrier: ScriptedCarrier) -> None:
        self._carrier = carrier
        self.session = Session(SessionSettings(Role.SMSC, window=1_000, response_timeout_s=1e9), 0.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._carrier.links.append(self)
        self._carrier.links_made += 1

    def data_received(self, data: bytes) -> None:
        carrier = self._carrier
        for event in self.session.receive(data, 0.0):
            if isinstance(event, Request):
                pdu = event.pdu
                if isinstance(pdu, SubmitSm | DataSm):
                    carrier.seen.append(Seen(time.monotonic(), self, pdu))
                    carrier.next_answer()(self, event.sequence)
                elif isinstance(pdu, BindTransceiver | BindReceiver | BindTransmitter):
                    carrier.binds.append(pdu)
                    self.session.respond_with(event.sequence, _BIND_RESPONSES[type(pdu)]("fake"), carrier.bind_status)
            elif isinstance(event, Response):
                carrier.answers.append((time.monotonic(), event))
            elif isinstance(event, Closed):
                self.write()
                self.transport.close()
        self.write()
        carrier.changed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.lost()
        self._carrier.links.remove(self)
        self._carrier.changed()

    def write(self) -> None:
        """Send what the session has to say."""
        output = self.session.take_output()
        if output and not self.transport.is_closing():
            self.transport.write(output)
