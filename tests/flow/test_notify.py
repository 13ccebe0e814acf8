"""How events travel to a receiver: alone when nothing else is under way, together while it is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network

import msgspec
import pytest

from berid.base.webhook import new_secret
from berid.dialects.native import dialect
from berid.domain.message import DeliveryReport, Sent, State
from berid.domain.report import DEFAULT_EVENTS, Endpoint
from berid.flow.accept import accept
from berid.flow.dispatch import RECORD, START, _Done, _Intent
from berid.flow.notify import GATHER_S, Notifier
from berid.flow.ports import Runtime
from berid.flow.settle import settle
from berid.net import Outbound
from tests.support.builders import (
    ACCOUNT_ID,
    CONNECTOR_ID,
    FakeClock,
    make_caller,
    make_outgoing,
    make_runtime,
    make_submission,
)
from tests.support.database import ask
from tests.support.receiver import Hang, Receiver

NUMBER = "966501234567"


@pytest.fixture
async def rt(store_url: str) -> AsyncIterator[Runtime]:
    async with make_runtime(store_url, clock=FakeClock()) as rt:
        await rt.http.close()
        rt.http = Outbound(allowed_networks=[ip_network("127.0.0.0/8")])
        rt.dialects = {"native": dialect}
        yield rt
        await rt.http.close()
        await rt.store.hot.stop()


def with_endpoint(rt: Runtime, url: str, batch_max: int) -> None:
    secret = rt.vault.seal(new_secret(), "callback")
    endpoint = Endpoint(9, ACCOUNT_ID, 0, "native", url, "receiver", secret, DEFAULT_EVENTS, batch_max, "on")
    rt.directory = replace(rt.directory, endpoints={ACCOUNT_ID: (endpoint,)}, endpoint_by_id={9: endpoint})


async def deliver(rt: Runtime) -> str:
    """A message on its whole way to its handset; the public id of its delivery."""
    delivery_id = (await accept(rt, make_caller(rt), make_submission(NUMBER))).deliveries[0].id
    outgoing, key, now_ms = make_outgoing(NUMBER, delivery_id=delivery_id), f"k{delivery_id}", rt.clock.now_ms()
    await rt.store.hot.do(START, [_Intent(CONNECTOR_ID, [outgoing], now_ms)])
    await rt.store.hot.do(RECORD, [_Done(rt, outgoing, CONNECTOR_ID, Sent((key,), (key,)), now_ms)])
    await settle(rt, [DeliveryReport(CONNECTOR_ID, key, State.DELIVERED, 0, "000", "", NUMBER)])
    return f"dlv_{delivery_id}"


def told(body: bytes) -> list[str]:
    """The deliveries of which a call tells, in its order."""
    return [event["data"]["delivery_id"] for event in msgspec.json.decode(body)["events"]]


async def test_events_wait_a_moment_for_others_only_while_the_receiver_is_busy(rt: Runtime) -> None:
    async with Receiver() as receiver:
        receiver.next(Hang.FOREVER)
        with_endpoint(rt, receiver.url(), batch_max=100)
        first = await deliver(rt)
        notifier = Notifier(rt)
        running = asyncio.get_running_loop().create_task(notifier.run())
        (call,) = await receiver.wait_for(1)
        assert told(call.body) == [first]
        others = [await deliver(rt) for _ in range(3)]
        assert receiver.count == 1
        await rt.clock.advance(GATHER_S)  # type: ignore[attr-defined]
        assert told((await receiver.wait_for(2))[1].body) == others
        receiver.drop_connections()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await notifier.drain()
    tries = await ask(rt.store.url, "SELECT status, count(*) FROM callback_try GROUP BY status ORDER BY status")
    assert tries == [(0, 1), (200, 3)]
    assert await ask(rt.store.url, "SELECT attempts, lease_until_ms FROM job") == [(1, 0)]
