"""What every connector promises the dispatcher, run on every kind that any channel has.

A new kind is found by itself. Its far side stands in `tests/channels/<channel>/far_side.py`, which has a dictionary
FAR_SIDES from kind to a function without arguments; what that gives is an async context manager of a `FarSide`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from berid.channels import discover
from berid.domain.errors import Permanent, Temporary, Uncertain
from berid.domain.message import Outgoing, Sent
from berid.flow.ports import Connector, Outcome, Runtime
from tests.support.builders import make_runtime, make_settings


class FarSide(Protocol):
    """The carrier or provider at the other end, with deliveries that it treats in known ways."""

    settings: dict[str, Any]
    """Of a connector that leads there; an answer that does not come is waited for half a second at most."""

    def taken(self) -> Outgoing:
        """A new delivery that it takes at once."""

    def refused(self) -> Outgoing:
        """One that it refuses for good."""

    def unanswered(self) -> Outgoing:
        """One that it receives and never answers."""

    def count(self, outgoing: Outgoing) -> int:
        """How often it has seen this delivery."""

    async def leave(self) -> None:
        """Be unreachable from now on."""


CHANNELS = discover()
KINDS = [(name, kind) for name, channel in CHANNELS.items() for kind in channel.connectors]  # type: ignore[attr-defined]


@pytest.fixture(params=KINDS, ids=lambda pair: "-".join(pair))
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    pair: tuple[str, str] = request.param
    return pair


@pytest.fixture
async def far_side(kind: tuple[str, str]) -> AsyncIterator[FarSide]:
    channel, name = kind
    sides: dict[str, Callable[[], AbstractAsyncContextManager[FarSide]]]
    sides = importlib.import_module(f"tests.channels.{channel}.far_side").FAR_SIDES
    async with sides[name]() as side:
        yield side


@pytest.fixture
async def rt(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with make_runtime(tmp_path) as runtime:
        yield runtime


@asynccontextmanager
async def started(rt: Runtime, kind: tuple[str, str], side: FarSide, is_up: bool = True) -> AsyncIterator[Connector]:
    connector = CHANNELS[kind[0]].connector(rt, make_settings(kind[1], kind[0], **side.settings))
    async with asyncio.timeout(1):
        await connector.start()
    try:
        async with asyncio.timeout(5):
            while is_up and not connector.is_up:
                await asyncio.sleep(0.01)
        yield connector
    finally:
        await connector.stop()


class Told:
    """Takes outcomes; two for one delivery fail the test."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}

    def __call__(self, outgoing: Outgoing, outcome: Outcome) -> None:
        assert outgoing.delivery_id not in self.outcomes
        self.outcomes[outgoing.delivery_id] = outcome

    async def all(self, *parcel: Outgoing) -> list[Outcome]:
        async with asyncio.timeout(5):
            while not all(outgoing.delivery_id in self.outcomes for outgoing in parcel):
                await asyncio.sleep(0.01)
        return [self.outcomes[outgoing.delivery_id] for outgoing in parcel]


def hand_over(connector: Connector, parcel: list[Outgoing], told: Told) -> None:
    connector.reserve(sum(outgoing.parts for outgoing in parcel))
    connector.send(parcel, told)


async def test_each_delivery_of_a_parcel_gets_the_outcome_that_is_its_own(
    rt: Runtime, kind: tuple[str, str], far_side: FarSide
) -> None:
    told = Told()
    parcel = [far_side.taken(), far_side.refused(), far_side.unanswered(), far_side.taken()]
    async with started(rt, kind, far_side) as connector:
        hand_over(connector, parcel, told)
        found = await told.all(*parcel)
    assert [type(outcome) for outcome in found] == [Sent, Permanent, Uncertain, Sent]
    assert [far_side.count(outgoing) for outgoing in parcel] == [1, 1, 1, 1]


async def test_sent_delivery_has_ids_of_its_own(rt: Runtime, kind: tuple[str, str], far_side: FarSide) -> None:
    told = Told()
    parcel = [far_side.taken() for _ in range(20)]
    async with started(rt, kind, far_side) as connector:
        hand_over(connector, parcel, told)
        keys: list[str] = []
        for outcome in await told.all(*parcel):
            assert isinstance(outcome, Sent)
            assert len(outcome.carrier_ids) >= 1
            keys += outcome.keys
    assert len(set(keys)) == len(keys) >= 20
    assert all(keys)


async def test_unreachable_far_side_costs_nothing_but_time(
    rt: Runtime, kind: tuple[str, str], far_side: FarSide
) -> None:
    await far_side.leave()
    told = Told()
    outgoing = far_side.taken()
    async with started(rt, kind, far_side, is_up=False) as connector:
        hand_over(connector, [outgoing], told)
        (outcome,) = await told.all(outgoing)
        assert isinstance(outcome, Temporary)
        assert outcome.code


async def test_room_is_taken_and_comes_back(rt: Runtime, kind: tuple[str, str], far_side: FarSide) -> None:
    told = Told()
    async with started(rt, kind, far_side) as connector:
        total, reserved = connector.room()
        assert 0 <= reserved <= total
        assert total - reserved >= 1
        connector.reserve(1)
        assert connector.room()[0] == total - 1
        connector.give_back(1)
        assert connector.room() == (total, reserved)
        parcel = [far_side.taken(), far_side.refused(), far_side.unanswered()]
        hand_over(connector, parcel, told)
        await told.all(*parcel)
        async with asyncio.timeout(5):
            while connector.room() != (total, reserved):
                await asyncio.sleep(0.01)


async def test_those_who_wait_for_room_are_woken(rt: Runtime, kind: tuple[str, str], far_side: FarSide) -> None:
    told = Told()
    woken = asyncio.Event()
    async with started(rt, kind, far_side) as connector:
        connector.on_room(woken.set)
        connector.reserve(1)
        connector.give_back(1)
        await asyncio.wait_for(woken.wait(), 1)
        woken.clear()
        hand_over(connector, [far_side.taken()], told)
        await asyncio.wait_for(woken.wait(), 5)


async def test_stopped_connector_finishes_and_takes_nothing_more(
    rt: Runtime, kind: tuple[str, str], far_side: FarSide
) -> None:
    told = Told()
    under_way, late = far_side.taken(), far_side.taken()
    async with started(rt, kind, far_side) as connector:
        hand_over(connector, [under_way], told)
        await connector.stop()
        assert isinstance(told.outcomes[under_way.delivery_id], Sent)
        assert not connector.is_up
        hand_over(connector, [late], told)
        assert isinstance((await told.all(late))[0], Temporary)
        await connector.stop()
    assert far_side.count(late) == 0


async def test_health_begins_with_a_known_word(rt: Runtime, kind: tuple[str, str], far_side: FarSide) -> None:
    async with started(rt, kind, far_side) as connector:
        assert connector.health().partition(":")[0] == "up"
        await connector.stop()
        assert connector.health().partition(":")[0] in ("up", "degraded", "down")


async def test_settings_are_checked_in_words(rt: Runtime, kind: tuple[str, str], far_side: FarSide) -> None:
    channel, name = kind
    CHANNELS[channel].check_settings(name, far_side.settings)
    unfit = far_side.settings | {"no_such_setting": 1}
    with pytest.raises(ValueError, match="no_such_setting"):
        CHANNELS[channel].check_settings(name, unfit)
    with pytest.raises(ValueError, match="no_such_setting"):
        CHANNELS[channel].connector(rt, make_settings(name, channel, **unfit))
    with pytest.raises(ValueError, match="no_such_kind"):
        CHANNELS[channel].check_settings("no_such_kind", {})
