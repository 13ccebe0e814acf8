"""The scripted carrier does what its script says, in order, over a real socket."""

from __future__ import annotations

import asyncio

import pytest

from berid.wire.smpp.codes import CommandStatus
from berid.wire.smpp.pdu import BindTransceiver, DeliverSm, SubmitSm, SubmitSmResp
from berid.wire.smpp.session import Event, Request, Response, Role, Session, SessionSettings
from tests.support.carrier import ScriptedCarrier, drop, later, ok, refuse, silence


class Client:
    """A bind, bound."""

    def __init__(self) -> None:
        self.session = Session(SessionSettings(Role.ESME, window=100), 0.0)

    async def bind(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.session.bind(BindTransceiver(system_id="anyone"), 0.0)
        (response,) = await self.events(1)
        assert isinstance(response, Response)

    def submit(self, *texts: bytes) -> None:
        for text in texts:
            self.session.submit(SubmitSm(short_message=text), 0.0)

    async def events(self, count: int) -> list[Event]:
        self.writer.write(self.session.take_output())
        found: list[Event] = []
        async with asyncio.timeout(5):
            while len(found) < count:
                data = await self.reader.read(65_536)
                if not data:
                    raise ConnectionResetError
                found += self.session.receive(data, 0.0)
        return found

    def close(self) -> None:
        self.writer.close()


async def test_script_is_used_up_and_then_all_is_accepted() -> None:
    async with ScriptedCarrier(script=[ok("A"), refuse(CommandStatus.ESME_RSYSERR), later(ok("C"), 0.02)]) as carrier:
        client = Client()
        await client.bind(carrier.port)
        client.submit(b"1", b"2", b"3", b"4")
        found = [event for event in await client.events(4) if isinstance(event, Response)]
        client.close()
    answers = {event.sequence - 1: (event.status, getattr(event.pdu, "message_id", "")) for event in found}
    assert answers == {1: (0, "A"), 2: (8, ""), 3: (0, "C"), 4: (0, "1")}
    assert carrier.texts == [b"1", b"2", b"3", b"4"]
    assert all(isinstance(event.pdu, SubmitSmResp) for event in found)


async def test_silence_is_silent_and_drop_ends_the_link() -> None:
    async with ScriptedCarrier(script=[silence, drop]) as carrier:
        client = Client()
        await client.bind(carrier.port)
        client.submit(b"1", b"2")
        with pytest.raises(ConnectionResetError):
            await client.events(1)
        client.close()
        await carrier.until(lambda: not carrier.links)
    assert (len(carrier.seen), carrier.links_made) == (2, 1)


async def test_delivered_pdus_and_their_answers_are_kept() -> None:
    async with ScriptedCarrier() as carrier:
        client = Client()
        await client.bind(carrier.port)
        carrier.deliver(DeliverSm(short_message=b"hi"), DeliverSm(short_message=b"ho"))
        for event in await client.events(2):
            assert isinstance(event, Request)
            client.session.respond(event.sequence)
        client.writer.write(client.session.take_output())
        await carrier.until(lambda: len(carrier.answers) == 2)
        client.close()
    assert [response.status for _, response in carrier.answers] == [0, 0]
