"""The SMPP connector against carriers on real sockets: outcomes, windows, pace, links that break, what comes in."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from berid.base.clock import SystemClock
from berid.channels.sms import smpp
from berid.channels.sms.simulator import Carrier, CarrierSettings
from berid.channels.sms.smpp import SmppConnector
from berid.domain.errors import Permanent, Temporary, Throttled, Uncertain
from berid.domain.message import Outgoing, Sent
from berid.flow.accept import accept
from berid.flow.dispatch import Dispatcher
from berid.flow.inbound import REPEAT_S
from berid.flow.ports import Outcome, Runtime
from berid.store.hot import StoreAway
from berid.wire.smpp import receipt
from berid.wire.smpp.codes import CommandStatus, EsmClass, MessageState
from berid.wire.smpp.pdu import DataSm, DeliverSm, SubmitSm
from tests.support.builders import (
    CONNECTOR_ID,
    SENDER,
    make_caller,
    make_outgoing,
    make_runtime,
    make_settings,
    make_submission,
)
from tests.support.carrier import ScriptedCarrier, drop, later, ok, refuse, silence
from tests.support.certificate import make_certificate
from tests.support.database import ask
from tests.support.fault_proxy import FaultProxy

LOGIN = {"host": "127.0.0.1", "system_id": "berid", "password": "secret"}
LONG = "x" * 400
"""Three parts of GSM."""


class Outcomes:
    """Takes what a connector reports. More than one outcome for a delivery fails the test."""

    def __init__(self) -> None:
        self.told: dict[int, Outcome] = {}
        self._changed = asyncio.Event()

    def __call__(self, outgoing: Outgoing, outcome: Outcome) -> None:
        assert outgoing.delivery_id not in self.told, "a second outcome"
        self.told[outgoing.delivery_id] = outcome
        self._changed.set()

    async def of(self, *outgoings: Outgoing, timeout_s: float = 5.0) -> list[Outcome]:
        """The outcomes of these deliveries, once all are there."""
        async with asyncio.timeout(timeout_s):
            while not all(outgoing.delivery_id in self.told for outgoing in outgoings):
                self._changed.clear()
                await self._changed.wait()
        return [self.told[outgoing.delivery_id] for outgoing in outgoings]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are short here."""
    monkeypatch.setattr(smpp, "RECONNECT_FIRST_S", 0.02)
    monkeypatch.setattr(smpp, "RECONNECT_LAST_S", 0.1)
    monkeypatch.setattr(smpp, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(smpp, "STORE_AWAY_FIRST_S", 0.02)


@pytest.fixture
async def rt(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with make_runtime(tmp_path) as runtime:
        yield runtime


@pytest.fixture
async def carrier() -> AsyncIterator[Carrier]:
    made = Carrier(CarrierSettings(accounts={"berid": "secret"}, receipt_delay_s=0.02))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedCarrier]:
    async with ScriptedCarrier() as made:
        yield made


@pytest.fixture
def outcomes() -> Outcomes:
    return Outcomes()


async def until(connector: SmppConnector, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait until `condition` holds; it is looked at whenever the connector wakes those who wait for room."""
    changed = asyncio.Event()
    connector.on_room(changed.set)
    async with asyncio.timeout(timeout_s):
        while not condition():
            changed.clear()
            await changed.wait()


@asynccontextmanager
async def connected(rt: Runtime, port: int, is_up: bool = True, **settings: Any) -> AsyncIterator[SmppConnector]:
    """A connector to a carrier on this port, started, and bound with all its binds unless `is_up` is False."""
    connector = SmppConnector(rt, make_settings(**({**LOGIN, "port": port} | settings)))
    await connector.start()
    try:
        if is_up:
            await until(connector, lambda: connector.health() == "up")
        yield connector
    finally:
        await connector.stop()


@asynccontextmanager
async def disturbed(port: int) -> AsyncIterator[FaultProxy]:
    """A line to a carrier that can be disturbed; at the end it waits for the links that are just closing."""
    async with FaultProxy("127.0.0.1", port) as proxy:
        yield proxy
        await proxy.heal()
        while proxy.connections:
            await asyncio.sleep(0.01)


def numbers(count: int) -> list[str]:
    """Recipients for whom the simulated carrier has no mood."""
    return [f"9665{number:04d}1234" for number in range(count)]


# Outcomes


async def test_every_delivery_is_sent_once_with_its_own_id(rt: Runtime, carrier: Carrier, outcomes: Outcomes) -> None:
    async with connected(rt, carrier.port, window=10) as connector:
        parcel = [make_outgoing(number) for number in numbers(200)]
        connector.send(parcel, outcomes)
        found = await outcomes.of(*parcel)
    for outgoing, outcome in zip(parcel, found, strict=True):
        (submitted,) = carrier.submits_to(outgoing.recipient)
        assert outcome == Sent((submitted.message_id,), (submitted.message_id,))


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("0002", Permanent("ESME_RINVDSTADR")),
        ("0010", Uncertain("no_response")),
        ("0016", Uncertain("link_lost")),
    ],
)
async def test_mood_of_the_carrier_gives_its_outcome(
    rt: Runtime, carrier: Carrier, outcomes: Outcomes, digits: str, expected: Outcome
) -> None:
    async with connected(rt, carrier.port, response_timeout_s=0.3) as connector:
        outgoing = make_outgoing(f"96650000{digits}")
        connector.send([outgoing], outcomes)
        (outcome,) = await outcomes.of(outgoing)
    assert (type(outcome), str(outcome)) == (type(expected), str(expected))
    assert len(carrier.submits_to(outgoing.recipient)) == 1


async def test_throttled_part_is_sent_again_until_the_carrier_takes_it(
    rt: Runtime, carrier: Carrier, outcomes: Outcomes
) -> None:
    async with connected(rt, carrier.port) as connector:
        outgoing = make_outgoing("966500000015")
        connector.send([outgoing], outcomes)
        (outcome,) = await outcomes.of(outgoing)
    assert isinstance(outcome, Sent)
    assert [submitted.status for submitted in carrier.submits_to(outgoing.recipient)] == [0x58, 0x58, 0x58, 0]


async def test_throttling_that_does_not_end_is_an_outcome(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smpp, "RETRY_FOR_S", 0.1)
    scripted.always = refuse(CommandStatus.ESME_RMSGQFUL)
    async with connected(rt, scripted.port) as connector:
        outgoing = make_outgoing()
        connector.send([outgoing], outcomes)
        (outcome,) = await outcomes.of(outgoing)
    assert isinstance(outcome, Throttled)
    assert outcome.code == "ESME_RMSGQFUL"
    assert len(scripted.seen) > 1


@pytest.mark.parametrize(
    ("status", "overrides", "kind"),
    [
        (CommandStatus.ESME_RSYSERR, {}, Temporary),
        (CommandStatus.ESME_RX_T_APPN, {}, Temporary),
        (CommandStatus.ESME_RINVSRCADR, {}, Permanent),
        (0x412, {}, Permanent),
        (0x412, {"0x412": "temporary"}, Temporary),
        (CommandStatus.ESME_RSYSERR, {"ESME_RSYSERR": "permanent"}, Permanent),
    ],
)
async def test_status_has_the_class_that_settings_give_it(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes, status: int, overrides: dict[str, str], kind: type
) -> None:
    scripted.script = [refuse(status)]
    async with connected(rt, scripted.port, error_classes=overrides) as connector:
        outgoing = make_outgoing()
        connector.send([outgoing], outcomes)
        (outcome,) = await outcomes.of(outgoing)
    assert type(outcome) is kind


async def test_status_against_the_bind_makes_it_anew_and_gives_the_delivery_back(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [refuse(CommandStatus.ESME_RINVBNDSTS)]
    async with connected(rt, scripted.port) as connector:
        first, second = make_outgoing(), make_outgoing()
        connector.send([first], outcomes)
        (outcome,) = await outcomes.of(first)
        assert type(outcome) is Temporary
        assert not connector.is_up
        await until(connector, lambda: connector.is_up)
        connector.send([second], outcomes)
        assert isinstance((await outcomes.of(second))[0], Sent)
    assert scripted.links_made == 2


async def test_yes_without_an_id_is_sent_but_cannot_be_matched(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [ok("")]
    async with connected(rt, scripted.port) as connector:
        outgoing = make_outgoing()
        connector.send([outgoing], outcomes)
        assert await outcomes.of(outgoing) == [Sent(("",), ())]


async def test_text_that_cannot_be_written_is_refused_without_harm_to_the_others(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    async with connected(rt, scripted.port) as connector:
        parcel = [
            make_outgoing(sender="Şirket"),
            make_outgoing(alphabet="klingon"),
            make_outgoing(sender="a" * 30),
            make_outgoing(),
        ]
        connector.send(parcel, outcomes)
        found = await outcomes.of(*parcel)
    assert [type(outcome) for outcome in found] == [Permanent, Permanent, Permanent, Sent]


async def test_nothing_is_taken_while_no_bind_is_up(rt: Runtime, outcomes: Outcomes) -> None:
    async with ScriptedCarrier() as scripted:
        port = scripted.port
    async with connected(rt, port, is_up=False) as connector:
        outgoing = make_outgoing()
        assert connector.room() == (0, 0)
        connector.send([outgoing], outcomes)
        (outcome,) = await outcomes.of(outgoing)
        assert (type(outcome), outcome.code) == (Temporary, "link_down")
        assert connector.health().startswith("down: ")


async def test_nothing_leaves_once_the_connector_may_be_another_processs(
    rt: Runtime, carrier: Carrier, outcomes: Outcomes
) -> None:
    # At rate 1 the first second has no room: what is handed over waits inside.
    waiting, late = make_outgoing(), make_outgoing()
    async with connected(rt, carrier.port, rate=1) as connector:
        rt.leases[CONNECTOR_ID] = rt.clock.ticks_s() + 60
        assert connector.is_up
        connector.send([waiting], outcomes)
        rt.leases[CONNECTOR_ID] = rt.clock.ticks_s()
        connector.pump(rt.clock.ticks_s() + 10)
        assert (connector.is_up, connector.room()) == (False, (0, 0))
        connector.send([late], outcomes)
    assert [type(outcome) for outcome in await outcomes.of(waiting, late)] == [Temporary, Temporary]
    assert list(carrier.submits) == []


# Deliveries in parts


def long_delivery(**changes: Any) -> Outgoing:
    return make_outgoing(body=LONG, parts=3, **changes)


async def test_delivery_in_parts_is_sent_when_all_parts_are(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [ok("A1"), ok("A2"), ok("A3")]
    async with connected(rt, scripted.port, submit_id_form="hex") as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        assert await outcomes.of(outgoing) == [Sent(("A1", "A2", "A3"), ("161", "162", "163"))]
    assert b"".join(scripted.texts) == LONG.encode()


async def test_parts_that_share_one_id_have_one_key(rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes) -> None:
    scripted.script = [ok("7"), ok("7"), ok("")]
    async with connected(rt, scripted.port) as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        assert await outcomes.of(outgoing) == [Sent(("7", "7", ""), ("7",))]


async def test_part_refused_for_good_ends_the_delivery_and_stops_the_rest(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [ok("1"), refuse(CommandStatus.ESME_RINVDSTADR)]
    async with connected(rt, scripted.port, window=1) as connector:
        first, second = long_delivery(), make_outgoing()
        connector.send([first, second], outcomes)
        found = await outcomes.of(first, second)
    assert (type(found[0]), str(found[0])) == (Permanent, "ESME_RINVDSTADR")
    assert isinstance(found[1], Sent)
    assert len(scripted.seen) == 3


async def test_part_put_off_after_another_was_accepted_is_sent_again_alone(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [ok("1"), refuse(CommandStatus.ESME_RSYSERR), ok("3"), ok("2")]
    async with connected(rt, scripted.port) as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        assert await outcomes.of(outgoing) == [Sent(("1", "2", "3"), ("1", "2", "3"))]
    assert scripted.texts[3] == scripted.texts[1]
    assert scripted.seen[3].pdu.content[:6] == scripted.seen[1].pdu.content[:6]


async def test_first_part_put_off_gives_the_whole_delivery_back(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [refuse(CommandStatus.ESME_RSYSERR)]
    async with connected(rt, scripted.port, window=1) as connector:
        first, second = long_delivery(), make_outgoing()
        connector.send([first, second], outcomes)
        found = await outcomes.of(first, second)
    assert [type(outcome) for outcome in found] == [Temporary, Sent]
    assert len(scripted.seen) == 2


async def test_all_parts_put_off_together_give_the_delivery_back(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [refuse(CommandStatus.ESME_RSYSERR)] * 3
    async with connected(rt, scripted.port) as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        assert [type(outcome) for outcome in await outcomes.of(outgoing)] == [Temporary]
    assert len(scripted.seen) == 3


async def test_part_that_stays_put_off_after_another_was_accepted_is_permanent(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smpp, "RETRY_FOR_S", 0.1)
    scripted.script = [ok("1"), ok("2")]
    scripted.always = refuse(CommandStatus.ESME_RSYSERR)
    async with connected(rt, scripted.port) as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        (outcome,) = await outcomes.of(outgoing)
    assert (type(outcome), outcome.code) == (Permanent, "ESME_RSYSERR")


async def test_parts_that_had_not_left_when_the_link_broke_follow_on_the_next(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    # At this rate the last part waits a tenth of a second; by then the others are answered and the link is gone.
    async with connected(rt, scripted.port, rate=10) as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        await scripted.until(lambda: len(scripted.seen) == 2)
        await asyncio.sleep(0.02)
        scripted.drop_links()
        await until(connector, lambda: not connector.is_up)
        assert isinstance((await outcomes.of(outgoing))[0], Sent)
    assert scripted.links_made == 2
    assert b"".join(scripted.texts) == LONG.encode()


async def test_parts_for_which_no_link_comes_back_make_the_delivery_permanent(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smpp, "RETRY_FOR_S", 0.2)
    async with connected(rt, scripted.port, rate=10) as connector:
        begun, whole = long_delivery(), make_outgoing()
        connector.send([begun, whole], outcomes)
        await scripted.until(lambda: len(scripted.seen) == 2)
        await asyncio.sleep(0.02)
        scripted.bind_status = CommandStatus.ESME_RBINDFAIL
        scripted.drop_links()
        found = await outcomes.of(begun, whole)
    assert [(type(outcome), outcome.code) for outcome in found] == [(Permanent, "link_down"), (Temporary, "link_down")]


async def test_parts_in_doubt_are_not_followed_by_the_rest_when_the_link_breaks(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [silence]
    async with connected(rt, scripted.port, window=1) as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        await scripted.until(lambda: len(scripted.seen) == 1)
        scripted.drop_links()
        (outcome,) = await outcomes.of(outgoing)
        assert (type(outcome), outcome.code) == (Uncertain, "link_lost")
        await until(connector, lambda: connector.is_up)
    assert len(scripted.seen) == 1


async def test_part_is_not_tried_again_after_its_validity(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = refuse(CommandStatus.ESME_RTHROTTLED)
    async with connected(rt, scripted.port) as connector:
        outgoing = make_outgoing(expires_ms=rt.clock.now_ms() + 50)
        connector.send([outgoing], outcomes)
        (outcome,) = await outcomes.of(outgoing)
        assert isinstance(outcome, Throttled)


async def test_part_without_an_answer_makes_the_delivery_uncertain_when_the_others_are_settled(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [ok("1"), silence, later(ok("3"), 0.1)]
    async with connected(rt, scripted.port, response_timeout_s=0.3) as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        (outcome,) = await outcomes.of(outgoing)
    assert (type(outcome), outcome.code) == (Uncertain, "no_response")
    assert len(scripted.seen) == 3


# Window, priority, pace


async def test_carrier_never_has_more_than_the_window_unanswered(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    unanswered = most = 0

    def answer(link: Any, sequence: int) -> None:
        nonlocal unanswered, most
        unanswered += 1
        most = max(most, unanswered)

        def settle(link: Any, sequence: int) -> None:
            nonlocal unanswered
            unanswered -= 1
            ok(str(sequence))(link, sequence)

        later(settle, 0.01)(link, sequence)

    scripted.always = answer
    async with connected(rt, scripted.port, window=7) as connector:
        parcel = [make_outgoing() for _ in range(60)]
        connector.send(parcel, outcomes)
        await outcomes.of(*parcel)
    assert most == 7 - 1  # one place is kept for priority 0


@pytest.mark.parametrize(
    ("window", "binds", "room"), [(100, 1, (100, 10)), (10, 3, (30, 3)), (2, 1, (2, 1)), (1, 1, (1, 0))]
)
async def test_room_is_the_window_with_a_tenth_for_priority_0(
    rt: Runtime, scripted: ScriptedCarrier, window: int, binds: int, room: tuple[int, int]
) -> None:
    async with connected(rt, scripted.port, window=window, binds=binds) as connector:
        assert connector.room() == room


async def test_slow_line_holds_work_back_and_is_not_taken_for_a_broken_one(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    settings = {"window": 10_000, "long_messages": "payload"}
    async with disturbed(scripted.port) as proxy, connected(rt, proxy.port, **settings) as connector:
        proxy.to_target.slow(8_000_000)
        # 16 kB each: more than the kernel's buffers hold.
        parcels = [[make_outgoing(body="x" * 16_000) for _ in range(25)] for _ in range(10)]
        rooms = []
        for parcel in parcels:
            connector.send(parcel, outcomes)
            await asyncio.sleep(0)
            rooms.append(connector.room()[0])
            assert connector.is_up
        await outcomes.of(*(outgoing for parcel in parcels for outgoing in parcel))
        assert rooms[-1] == 0
        assert connector.room()[0] == 10_000
    assert {type(outcome) for outcome in outcomes.told.values()} == {Sent}
    assert (len(scripted.seen), scripted.links_made) == (250, 1)


async def test_room_that_is_reserved_or_on_the_wire_is_not_given_twice(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = silence
    async with connected(rt, scripted.port, window=20, response_timeout_s=0.4) as connector:
        connector.reserve(15)
        assert connector.room() == (5, 2)
        connector.reserve(5)
        assert connector.room() == (0, 0)
        connector.give_back(5)
        assert connector.room() == (5, 2)
        parcel = [make_outgoing() for _ in range(15)]
        connector.send(parcel, outcomes)
        assert connector.room() == (5, 2)
        await outcomes.of(*parcel)


async def test_full_window_still_has_a_place_for_a_one_time_password(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [silence] * 9
    async with connected(rt, scripted.port, window=10, response_timeout_s=0.5) as connector:
        parcel = [make_outgoing() for _ in range(9)]
        connector.reserve(9)
        connector.send(parcel, outcomes)
        assert connector.room() == (1, 1)
        urgent = make_outgoing(body="code", priority=0)
        connector.send([urgent], outcomes)
        assert isinstance((await outcomes.of(urgent))[0], Sent)
        await outcomes.of(*parcel)


async def test_one_time_password_overtakes_bulk_that_waits(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = later(ok("1"), 0.02)
    async with connected(rt, scripted.port, window=2) as connector:
        parcel = [make_outgoing(priority=2) for _ in range(10)]
        connector.send(parcel, outcomes)
        urgent = make_outgoing(body="code", priority=0)
        connector.send([urgent], outcomes)
        await outcomes.of(urgent, *parcel)
    assert scripted.texts.index(b"code") <= 2


@pytest.mark.parametrize("binds", [1, 3])
async def test_carrier_sees_no_more_than_the_rate_in_any_second(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes, binds: int
) -> None:
    dice = random.Random(7)
    counter = iter(range(1, 10_000))

    def answer(link: Any, sequence: int) -> None:
        later(ok(str(next(counter))), dice.choice((0.0, 0.001, 0.05, 0.2)))(link, sequence)

    scripted.always = answer
    async with connected(rt, scripted.port, rate=40, binds=binds) as connector:
        parcel = [make_outgoing(priority=dice.choice((0, 1, 2))) for _ in range(90)]
        connector.send(parcel, outcomes)
        await outcomes.of(*parcel, timeout_s=10)
    times = [seen.at_s for seen in scripted.seen]
    most = max(sum(start <= at_s < start + 1.0 for at_s in times) for start in times)
    assert 30 <= most <= 40
    assert times[-1] - times[0] < 4.0


async def test_dispatcher_may_take_work_ahead_of_the_pace_but_not_without_end(
    rt: Runtime, scripted: ScriptedCarrier
) -> None:
    async with connected(rt, scripted.port, rate=100) as connector:
        room, reserved = connector.room()
        assert room - reserved <= 100 * smpp.AHEAD_S + 5
        connector.reserve(room)
        assert connector.room() == (0, 0)


# Binds


async def test_work_is_spread_over_the_binds_and_no_more_are_opened(
    rt: Runtime, carrier: Carrier, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    async with connected(rt, scripted.port, binds=3, window=10) as connector:
        for _ in range(4):
            parcel = [make_outgoing() for _ in range(15)]
            connector.send(parcel, outcomes)
            await outcomes.of(*parcel)
        counts = [sum(seen.link is link for seen in scripted.seen) for link in scripted.links]
        assert scripted.links_made == 3
        assert sorted(counts) == [20, 20, 20]


async def test_broken_binds_are_made_anew_and_never_more_than_configured(
    rt: Runtime, carrier: Carrier, outcomes: Outcomes
) -> None:
    async with connected(rt, carrier.port, binds=3) as connector:
        parcel = [make_outgoing("966500000016", body) for body in ("one", "two", "three")]
        connector.send(parcel, outcomes)
        assert {type(outcome) for outcome in await outcomes.of(*parcel)} == {Uncertain}
        await until(connector, lambda: connector.health() == "up")
        assert carrier.binds["berid"] == (3, 3)


async def test_health_counts_the_binds_and_says_why_one_is_missing(rt: Runtime, scripted: ScriptedCarrier) -> None:
    async with connected(rt, scripted.port, binds=2) as connector:
        scripted.bind_status = CommandStatus.ESME_RALYBND
        scripted.links[0].transport.abort()
        await until(connector, lambda: "ESME_RALYBND" in connector.health())
        assert connector.health() == "degraded: 1 of 2 binds, the bind was refused: ESME_RALYBND"
        assert connector.is_up


async def test_pair_submits_on_one_bind_and_hears_on_the_other(
    rt: Runtime, carrier: Carrier, outcomes: Outcomes
) -> None:
    async with connected(rt, carrier.port, bind_type="pair") as connector:
        outgoing = make_outgoing()
        connector.send([outgoing], outcomes)
        await outcomes.of(outgoing)
        await carrier.until(lambda: carrier.counters.answered == 1)
        assert carrier.binds["berid"].now == 2


async def test_receiver_alone_is_healthy_and_cannot_send(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    async with connected(rt, scripted.port, bind_type="receiver") as connector:
        assert not connector.is_up
        assert connector.room() == (0, 0)


async def test_bind_says_what_the_settings_say(rt: Runtime, scripted: ScriptedCarrier) -> None:
    given = {"system_type": "VMA", "interface_version": "5.0", "addr_ton": 1, "addr_npi": 2, "address_range": "9*"}
    sealed = "sealed:" + rt.vault.seal("secret", "connector")
    async with connected(rt, scripted.port, password=sealed, **given):
        (bind,) = scripted.binds
    assert (bind.system_id, bind.password, bind.system_type, bind.interface_version) == ("berid", "secret", "VMA", 0x50)
    assert (bind.addr_ton, bind.addr_npi, bind.address_range) == (1, 2, "9*")


async def test_refused_bind_is_tried_again_and_said(rt: Runtime, carrier: Carrier) -> None:
    async with connected(rt, carrier.port, is_up=False, password="wrong") as connector:
        await asyncio.wait_for(_health(connector, "down: the bind was refused: ESME_RINVPASWD"), 5)
        assert not connector.is_up


async def _health(connector: SmppConnector, expected: str) -> None:
    while connector.health() != expected:
        await asyncio.sleep(0.01)


async def test_waiting_work_goes_to_the_binds_that_are_left(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = later(ok("1"), 0.05)
    async with connected(rt, scripted.port, binds=2, window=2) as connector:
        parcel = [make_outgoing() for _ in range(12)]
        connector.send(parcel, outcomes)
        await scripted.until(lambda: len(scripted.seen) == 3)
        scripted.links[0].transport.abort()
        found = await outcomes.of(*parcel)
    assert {type(outcome) for outcome in found} <= {Sent, Uncertain}
    assert sum(type(outcome) is Uncertain for outcome in found) <= 2
    assert len(scripted.seen) == 12


async def test_broken_last_bind_gives_back_what_had_not_left(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = silence
    async with connected(rt, scripted.port, window=3) as connector:
        parcel = [make_outgoing(str(number)) for number in range(10)]
        connector.send(parcel, outcomes)
        await scripted.until(lambda: len(scripted.seen) == 2)
        scripted.drop_links()
        found = await outcomes.of(*parcel)
        assert connector.room() == (0, 0)
    left = {seen.pdu.destination_addr for seen in scripted.seen}
    for outgoing, outcome in zip(parcel, found, strict=True):
        expected = Uncertain if outgoing.recipient in left else Temporary
        assert type(outcome) is expected


async def test_dispatcher_is_woken_when_the_link_goes_and_comes(rt: Runtime, scripted: ScriptedCarrier) -> None:
    async with connected(rt, scripted.port) as connector:
        scripted.drop_links()
        await until(connector, lambda: not connector.is_up)
        await until(connector, lambda: connector.is_up)


async def test_carrier_that_unbinds_is_answered_and_bound_again_when_it_is_back(
    rt: Runtime, carrier: Carrier, outcomes: Outcomes
) -> None:
    port = carrier.port
    async with connected(rt, port) as connector:
        under_way = make_outgoing()
        connector.send([under_way], outcomes)
        await carrier.stop()
        await until(connector, lambda: not connector.is_up)
        assert type((await outcomes.of(under_way))[0]) in (Sent, Uncertain)
        await carrier.start(port=port)
        await until(connector, lambda: connector.is_up)
        outgoing = make_outgoing()
        connector.send([outgoing], outcomes)
        assert isinstance((await outcomes.of(outgoing))[0], Sent)


async def test_carrier_that_answers_no_submit_is_given_up(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = silence
    async with connected(rt, scripted.port, response_timeout_s=0.2, enquire_link_s=0.1) as connector:
        parcel = [make_outgoing() for _ in range(3)]
        connector.send(parcel, outcomes)
        found = await outcomes.of(*parcel)
        assert {type(outcome) for outcome in found} == {Uncertain}
        assert not connector.is_up
        assert "3 submits had no response" in connector.health()


@pytest.mark.parametrize("count", [1, 5])
async def test_dead_link_that_looks_alive_is_found_out(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes, count: int
) -> None:
    async with disturbed(scripted.port) as proxy:
        settings = {"enquire_link_s": 0.2, "response_timeout_s": 0.3}
        async with connected(rt, proxy.port, **settings) as connector:
            proxy.to_target.swallow()
            proxy.to_client.swallow()
            parcel = [make_outgoing() for _ in range(count)]
            connector.send(parcel, outcomes)
            assert {type(outcome) for outcome in await outcomes.of(*parcel)} == {Uncertain}
            await until(connector, lambda: not connector.is_up)
            await proxy.heal()
            await until(connector, lambda: connector.is_up)
            outgoing = make_outgoing()
            connector.send([outgoing], outcomes)
            assert isinstance((await outcomes.of(outgoing))[0], Sent)


async def test_quiet_link_is_kept_alive(rt: Runtime, scripted: ScriptedCarrier) -> None:
    async with connected(rt, scripted.port, enquire_link_s=0.1, response_timeout_s=0.3) as connector:
        await asyncio.sleep(0.7)
        assert connector.is_up
    assert scripted.links_made == 1


async def test_links_that_break_at_random_leave_no_outcome_untold_or_untrue(
    rt: Runtime, carrier: Carrier, outcomes: Outcomes
) -> None:
    dice = random.Random(3)
    async with (
        disturbed(carrier.port) as proxy,
        connected(rt, proxy.port, binds=2, window=5, response_timeout_s=0.5) as connector,
    ):
        parcels = []
        for turn in range(25):
            parcel = [make_outgoing(number) for number in numbers(1000)[turn * 20 : turn * 20 + 20]]
            parcels += parcel
            connector.send(parcel, outcomes)
            if turn % 3 == 0:
                (proxy.to_target if dice.random() < 0.5 else proxy.to_client).cut_after(dice.randrange(1, 1500))
            await asyncio.sleep(dice.uniform(0, 0.03))
        found = await outcomes.of(*parcels)
    by_type = {Sent: 0, Temporary: 0, Uncertain: 0}
    for outgoing, outcome in zip(parcels, found, strict=True):
        arrived = len(carrier.submits_to(outgoing.recipient))
        by_type[type(outcome)] += 1
        assert arrived <= 1
        if isinstance(outcome, Sent):
            assert arrived == 1
        elif isinstance(outcome, Temporary):
            assert arrived == 0
    assert by_type[Sent] > 50
    assert by_type[Uncertain] > 0


# TLS


def certificate(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that signs itself, for these host names: its file, and the context of a server that shows it."""
    file, key_file = make_certificate(folder, *names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return file, context


@pytest.mark.parametrize(
    ("settings", "is_good"),
    [
        ({"tls_server_name": "smsc.example"}, True),
        ({"tls_server_name": "other.example"}, False),
        ({}, False),
        ({"tls_verify": False}, True),
        ({"tls_server_name": "smsc.example", "tls_ca_file": ""}, False),
    ],
)
async def test_tls_trusts_only_what_the_settings_trust(
    rt: Runtime, tmp_path: Path, outcomes: Outcomes, settings: dict[str, object], is_good: bool
) -> None:
    file, context = certificate(tmp_path / "tls", "smsc.example")
    async with ScriptedCarrier(tls=context) as scripted:
        given = {"tls": True, "tls_ca_file": str(file)} | settings
        async with connected(rt, scripted.port, is_up=is_good, **given) as connector:
            if is_good:
                outgoing = make_outgoing()
                connector.send([outgoing], outcomes)
                assert isinstance((await outcomes.of(outgoing))[0], Sent)
            else:
                while not connector.health().startswith("down: cannot connect"):
                    await asyncio.sleep(0.01)
                assert not scripted.binds


# Stopping


async def test_stop_waits_for_answers_and_gives_back_what_has_not_left(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = later(ok("1"), 0.2)
    async with connected(rt, scripted.port, window=3) as connector:
        parcel = [make_outgoing() for _ in range(5)]
        connector.send(parcel, outcomes)
        await scripted.until(lambda: len(scripted.seen) == 2)
        await connector.stop()
        found = [outcomes.told[outgoing.delivery_id] for outgoing in parcel]
        assert [type(outcome) for outcome in found] == [Sent, Sent, Temporary, Temporary, Temporary]
        connector.send([late := make_outgoing()], outcomes)
        assert type(outcomes.told[late.delivery_id]) is Temporary
        await connector.stop()
    await scripted.until(lambda: not scripted.links)
    assert len(scripted.seen) == 2


async def test_stop_finishes_a_delivery_that_has_left_in_part(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = later(ok("1"), 0.05)
    async with connected(rt, scripted.port, window=1) as connector:
        outgoing = long_delivery()
        connector.send([outgoing], outcomes)
        await scripted.until(lambda: len(scripted.seen) == 1)
        await connector.stop()
    assert isinstance(outcomes.told[outgoing.delivery_id], Sent)


async def test_stop_ends_even_if_the_carrier_answers_nothing(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.always = silence
    async with connected(rt, scripted.port, response_timeout_s=0.3, window=2) as connector:
        whole, parts = make_outgoing(), long_delivery()
        connector.send([whole, parts], outcomes)
        await scripted.until(lambda: scripted.seen)
        await asyncio.wait_for(connector.stop(), 3)
    assert type(outcomes.told[whole.delivery_id]) is Uncertain
    assert type(outcomes.told[parts.delivery_id]) is Temporary


async def test_stop_while_a_bind_is_under_way_closes_it(rt: Runtime) -> None:
    async with ScriptedCarrier() as scripted, disturbed(scripted.port) as proxy:
        proxy.to_client.swallow()
        async with connected(rt, proxy.port, is_up=False) as connector:
            await scripted.until(lambda: scripted.binds)
            await asyncio.wait_for(connector.stop(), 3)


# What comes in


@asynccontextmanager
async def dispatching(rt: Runtime, port: int, **settings: Any) -> AsyncIterator[Dispatcher]:
    """The whole way out: a connector with the dispatcher that drives it."""
    given = make_settings(**({**LOGIN, "port": port} | settings))
    rt.directory = replace(rt.directory, connectors={CONNECTOR_ID: given})
    connector = SmppConnector(rt, given)
    rt.connectors[CONNECTOR_ID] = connector
    await connector.start()
    await until(connector, lambda: connector.health() == "up")
    dispatcher = Dispatcher(rt, connector)
    task = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await dispatcher.drain()


async def states(rt: Runtime, expected: dict[str, str], timeout_s: float = 5.0) -> None:
    """Wait until the deliveries to these numbers have these states."""
    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(timeout_s):
            while found != expected:
                await asyncio.sleep(0.02)
                rows = await ask(rt.store.url, "SELECT recipient, state FROM delivery")
                found = {recipient: state for recipient, state in rows if recipient in expected}
    except TimeoutError:
        assert found == expected


async def test_receipts_settle_deliveries_in_every_mood(rt: Runtime, carrier: Carrier) -> None:
    expected = {
        "966500001234": "delivered",
        "966500000002": "rejected",
        "966500000011": "sent",
        "966500000012": "delivered",
        "966500000013": "delivered",
        "966500000014": "delivered",
        "966500000015": "delivered",
        "966500000022": "undelivered",
        "966500000024": "expired",
    }
    forms = {"submit_id_form": "either", "receipt_id_form": "either"}
    async with dispatching(rt, carrier.port, **forms):
        for number in expected:
            await accept(rt, make_caller(rt), make_submission(number))
        await states(rt, expected)
        await carrier.until(lambda: carrier.counters.answered == carrier.counters.receipts)
    assert await ask(rt.store.url, "SELECT count(*) FROM job") == [(0,)]


async def test_receipt_finds_the_delivery_that_never_got_its_response(rt: Runtime, carrier: Carrier) -> None:
    async with dispatching(rt, carrier.port):
        await accept(rt, make_caller(rt), make_submission("966500000016"))
        await states(rt, {"966500000016": "delivered"})
    rows = await ask(rt.store.url, "SELECT kind FROM event ORDER BY id")
    assert [kind for (kind,) in rows][-2:] == ["uncertain", "delivered"]
    assert len(carrier.submits_to("966500000016")) == 1


async def test_long_message_is_delivered_when_its_last_part_is(rt: Runtime, carrier: Carrier) -> None:
    async with dispatching(rt, carrier.port):
        await accept(rt, make_caller(rt), make_submission("966500001234", text=LONG))
        await states(rt, {"966500001234": "delivered"})
    (message,) = carrier.messages_to("966500001234")
    assert message.text == LONG
    assert carrier.counters.receipts == 3


def receipt_of(
    message_id: str, state: MessageState = MessageState.DELIVERED, recipient: str = "966500001234"
) -> DeliverSm:
    text = receipt.build(message_id, state, submit_digits="2611221430", done_digits="2611221431")
    return DeliverSm(
        source_addr=recipient, destination_addr=SENDER, esm_class=int(EsmClass.TYPE_RECEIPT), short_message=text
    )


async def test_receipt_is_answered_only_after_the_store_has_it(
    rt: Runtime, scripted: ScriptedCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = rt.store.hot.do
    tries = 0

    async def stubborn(verb: Any, items: Any) -> Any:
        nonlocal tries
        if verb.name == "settle":
            tries += 1
            if tries < 4:
                raise StoreAway("the disk is full")
            assert not scripted.answers
        return await do(verb, items)

    monkeypatch.setattr(rt.store.hot, "do", stubborn)
    async with connected(rt, scripted.port):
        scripted.deliver(*[receipt_of(str(number)) for number in range(20)])
        await scripted.until(lambda: len(scripted.answers) == 20)
    assert tries == 4
    assert {response.status for _, response in scripted.answers} == {0}
    assert await ask(rt.store.url, "SELECT count(*) FROM parked_report") == [(20,)]


async def test_receipt_that_cannot_be_settled_does_not_hold_up_the_others(
    rt: Runtime, scripted: ScriptedCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = rt.store.hot.do

    async def choosy(verb: Any, items: Any) -> Any:
        if verb.name == "settle" and any(item.report.key == "2" for item in items):
            raise RuntimeError("a bug")
        return await do(verb, items)

    monkeypatch.setattr(rt.store.hot, "do", choosy)
    async with connected(rt, scripted.port):
        scripted.deliver(receipt_of("1"), receipt_of("2"), receipt_of("3"))
        await scripted.until(lambda: len(scripted.answers) == 3)
    by_id = {receipt.parse(response.token).message_id: response.status for _, response in scripted.answers}
    assert by_id == {"1": 0, "2": CommandStatus.ESME_RX_T_APPN, "3": 0}


@pytest.mark.parametrize(
    "text",
    ["STOP", "Sağlığınız için ıspanak şart", "مرحبا بالعالم", "uzun " * 60, "طويل " * 40],
    ids=["short", "ucs2", "arabic", "parts", "arabic parts"],
)
async def test_message_from_a_person_is_stored_whole_before_it_is_answered(
    rt: Runtime, carrier: Carrier, text: str
) -> None:
    rt.directory = replace(rt.directory, numbers={"90850": (1, 2)})
    async with connected(rt, carrier.port):
        carrier.send_mo("905551234567", "90850", text)
        await carrier.until(lambda: carrier.counters.mos and carrier.counters.answered == carrier.counters.mos)
    rows = await ask(rt.store.url, "SELECT connector_id, sender, recipient, body FROM inbound")
    assert rows == [(CONNECTOR_ID, "905551234567", "90850", text)]


class Later:
    """The machine's clock, put forward."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.ahead_s = 0.0

    def now_ms(self) -> int:
        return self._clock.now_ms() + int(self.ahead_s * 1000)

    def ticks_s(self) -> float:
        return self._clock.ticks_s() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


def word_of() -> DeliverSm:
    """What a person writes again and again."""
    return DeliverSm(source_addr="905551234567", destination_addr="90850", short_message=b"yes")


async def test_word_that_comes_twice_over_a_calm_link_was_written_twice(
    tmp_path: Path, scripted: ScriptedCarrier
) -> None:
    clock = Later()
    async with make_runtime(tmp_path, clock=clock) as rt, connected(rt, scripted.port):
        scripted.deliver(word_of())
        await scripted.until(lambda: len(scripted.answers) == 1)
        scripted.deliver(word_of())
        await scripted.until(lambda: len(scripted.answers) == 2)
        assert len(await ask(rt.store.url, "SELECT id FROM inbound")) == 1  # the bind has just come up
        clock.ahead_s = REPEAT_S + 1.0
        for count in (3, 4):
            scripted.deliver(word_of())
            await scripted.until(lambda count=count: len(scripted.answers) == count)
        assert len(await ask(rt.store.url, "SELECT id FROM inbound")) == 3


async def test_word_that_comes_again_after_its_link_broke_was_written_once(
    tmp_path: Path, scripted: ScriptedCarrier
) -> None:
    clock = Later()
    async with make_runtime(tmp_path, clock=clock) as rt, connected(rt, scripted.port) as connector:
        clock.ahead_s = REPEAT_S + 1.0
        scripted.deliver(word_of())
        await scripted.until(lambda: len(scripted.answers) == 1)
        scripted.drop_links()
        await until(connector, lambda: not connector.is_up)
        await until(connector, lambda: connector.is_up)
        scripted.deliver(word_of())
        await scripted.until(lambda: len(scripted.answers) == 2)
        assert len(await ask(rt.store.url, "SELECT id FROM inbound")) == 1


async def test_data_sm_carries_both_ways(rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes) -> None:
    async with connected(rt, scripted.port, use_data_sm=True) as connector:
        outgoing = make_outgoing()
        connector.send([outgoing], outcomes)
        assert isinstance((await outcomes.of(outgoing))[0], Sent)
        assert isinstance(scripted.seen[0].pdu, DataSm)
        scripted.deliver(DataSm(source_addr="905551234567", destination_addr="90850", tlvs={0x0424: b"hi"}))
        await scripted.until(lambda: scripted.answers)
        assert scripted.answers[0][1].status == 0


async def test_refused_and_odd_pdus_do_no_harm(rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes) -> None:
    async with connected(rt, scripted.port) as connector:
        scripted.links[0].transport.write(bytes.fromhex("00000010 00000777 00000000 00000009".replace(" ", "")))
        outgoing = make_outgoing()
        connector.send([outgoing], outcomes)
        assert isinstance((await outcomes.of(outgoing))[0], Sent)
        assert isinstance(scripted.seen[0].pdu, SubmitSm)


async def test_dropped_link_is_uncertain_for_what_left_and_is_counted_for_a_while(
    rt: Runtime, scripted: ScriptedCarrier, outcomes: Outcomes
) -> None:
    scripted.script = [drop]
    async with connected(rt, scripted.port, rate=1) as connector:
        outgoing = make_outgoing()
        connector.send([outgoing], outcomes)
        assert type((await outcomes.of(outgoing))[0]) is Uncertain
        await until(connector, lambda: connector.is_up)
        assert connector.pace.room(rt.clock.ticks_s())[0] == 0


def test_a_timer_for_a_moment_that_is_over_can_be_armed_again_under_uvloop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop, which serves in earnest, gives a handle without a time when the moment is less than half a millisecond off."""

    async def arm_twice() -> None:
        async with make_runtime(tmp_path) as rt:
            connector = SmppConnector(
                rt, make_settings(host="127.0.0.1", port=1, system_id="a", password="b", rate=2000)
            )
            monkeypatch.setattr(type(connector.pace), "wait_s", lambda *_: 0.0001)
            connector._bulk.append(None)  # type: ignore[arg-type]
            connector._arm(connector.ticks())
            connector._arm(connector.ticks())
            connector._bulk.clear()
            await connector.stop()

    uvloop.run(arm_twice())
