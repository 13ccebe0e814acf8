"""How events travel to a receiver: alone when nothing else is under way, together while it is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network

import msgspec
import pytest

from berid.base.webhook import new_secret
from berid.dialects.native import dialect
from berid.domain.message import DeliveryReport, Sent, State
from berid.domain.report import DEFAULT_EVENTS, Endpoint
from berid.flow import endpoints
from berid.flow.accept import accept
from berid.flow.dispatch import RECORD, START, _Done, _Intent
from berid.flow.notify import GATHER_S, IDLE_END_S, Notifier
from berid.flow.ports import Runtime
from berid.flow.settle import settle
from berid.net import Outbound
from berid.store import callbacks, jobs, tables
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
from tests.support.receiver import Hang, Receiver, Reply

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


ENDPOINT_ID = 9


def with_endpoint(rt: Runtime, url: str, batch_max: int) -> None:
    secret = rt.vault.seal(new_secret(), "callback")
    endpoint = Endpoint(ENDPOINT_ID, ACCOUNT_ID, 0, "native", url, "receiver", secret, DEFAULT_EVENTS, batch_max, "on")
    rt.directory = replace(rt.directory, endpoints={ACCOUNT_ID: (endpoint,)}, endpoint_by_id={ENDPOINT_ID: endpoint})


async def add_endpoint(rt: Runtime, url: str) -> None:
    """Write the endpoint where its owner's commands look for it."""
    async with rt.store.transaction() as tx:
        await tx.execute(tables.callback_endpoint.insert().values(id=ENDPOINT_ID, account_id=ACCOUNT_ID, url=url))


async def deliver(rt: Runtime, count: int = 1) -> list[str]:
    """Messages on their whole way to their handsets, where they arrive together; the public ids of their deliveries."""
    reports = []
    for _ in range(count):
        delivery_id = (await accept(rt, make_caller(rt), make_submission(NUMBER))).deliveries[0].id
        outgoing, key, now_ms = make_outgoing(NUMBER, delivery_id=delivery_id), f"k{delivery_id}", rt.clock.now_ms()
        await rt.store.hot.do(START, [_Intent(CONNECTOR_ID, [outgoing], now_ms)])
        await rt.store.hot.do(RECORD, [_Done(rt, outgoing, CONNECTOR_ID, Sent((key,), (key,)), now_ms)])
        reports.append(DeliveryReport(CONNECTOR_ID, key, State.DELIVERED, 0, "000", "", NUMBER))
    await settle(rt, reports)
    return [f"dlv_{report.key[1:]}" for report in reports]


def told(body: bytes) -> list[str]:
    """The deliveries of which a call tells, in its order."""
    call = msgspec.json.decode(body)
    return [event["data"]["delivery_id"] for event in call.get("events", [call])]


@asynccontextmanager
async def notifying(rt: Runtime) -> AsyncIterator[None]:
    """Let callbacks be told, as long as the block."""
    notifier = Notifier(rt)
    running = asyncio.get_running_loop().create_task(notifier.run())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await notifier.drain()


async def log(rt: Runtime) -> list[tuple[str, list[int]]]:
    """What is shown of each event, oldest first: how far it has come, and what its calls were answered."""
    async with rt.store.read() as tx:
        events = await callbacks.log(tx, ACCOUNT_ID, ENDPOINT_ID, 0, 100)
        tries = await callbacks.tries(tx, ACCOUNT_ID, [event.id for event in events])
    return [(event.state, [each.status for each in tries[event.id]]) for event in reversed(events)]


async def test_events_wait_a_moment_for_others_only_while_the_receiver_is_busy(rt: Runtime) -> None:
    async with Receiver() as receiver:
        receiver.next(Hang.FOREVER)
        with_endpoint(rt, receiver.url(), batch_max=100)
        first = await deliver(rt)
        async with notifying(rt):
            (call,) = await receiver.wait_for(1)
            assert told(call.body) == first
            others = [delivery for _ in range(3) for delivery in await deliver(rt)]
            assert receiver.count == 1
            await rt.clock.advance(GATHER_S)  # type: ignore[attr-defined]
            assert told((await receiver.wait_for(2))[1].body) == others
            receiver.drop_connections()
    tries = await ask(rt.store.url, "SELECT status, count(*) FROM callback_try GROUP BY status ORDER BY status")
    assert tries == [(0, 1), (200, 3)]
    assert await ask(rt.store.url, "SELECT attempts, lease_until_ms FROM job") == [(1, 0)]


async def until(rt: Runtime, expected: list[tuple[str, list[int]]], step_s: float = 0) -> None:
    """Wait until the log says so, while time goes by in steps."""
    for _ in range(300):
        if await log(rt) == expected:
            return
        await rt.clock.advance(step_s)  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
    assert await log(rt) == expected


@pytest.mark.parametrize("is_served", [True, False])
async def test_what_one_commit_tells_an_endpoint_has_one_job_and_one_try(rt: Runtime, is_served: bool) -> None:
    async with Receiver() as receiver:
        with_endpoint(rt, receiver.url(), batch_max=100)
        ids = await deliver(rt, 5)
        async with notifying(rt):
            calls = await receiver.wait_for(1)
            if is_served:
                ids = await deliver(rt, 5)
                calls = await receiver.wait_for(2)
        assert told(calls[-1].body) == ids
    assert await ask(rt.store.url, "SELECT count(*) FROM callback_try") == [(len(calls),)]
    assert await ask(rt.store.url, "SELECT count(*) FROM job WHERE kind = 'callback'") == [(0,)]
    assert (await log(rt))[-5:] == [("told", [200])] * 5


async def test_each_event_of_a_bundle_is_counted_while_it_waits(rt: Runtime) -> None:
    with_endpoint(rt, "http://127.0.0.1/", batch_max=4)
    await deliver(rt, 9)
    async with rt.store.read() as tx:
        depths, _ = await jobs.depths(tx, 0)
    assert {depth.lane: depth.jobs for depth in depths}["hreceiver"] == 9
    assert await ask(rt.store.url, "SELECT count(*) FROM job WHERE kind = 'callback'") == [(3,)]
    assert await log(rt) == [("pending", [])] * 9


async def test_call_takes_as_many_bundles_as_its_endpoint_takes_events(rt: Runtime) -> None:
    async with Receiver() as receiver:
        with_endpoint(rt, receiver.url(), batch_max=7)
        ids = [await deliver(rt, count) for count in (9, 5, 4)]  # in bundles of 7 and 2, 5, 4
        async with notifying(rt):
            calls = await receiver.wait_for(3)
        assert sorted(told(call.body) for call in calls) == sorted([ids[0][:7], ids[0][7:] + ids[1], ids[2]])


async def test_bundle_that_was_not_received_is_told_again_as_a_whole(rt: Runtime) -> None:
    async with Receiver() as receiver:
        receiver.next(Reply(500))
        with_endpoint(rt, receiver.url(), batch_max=100)
        ids = await deliver(rt, 3)
        async with notifying(rt):
            await until(rt, [("pending", [500])] * 3)
            await until(rt, [("told", [500, 200])] * 3, step_s=1)
            assert [told(call.body) for call in await receiver.wait_for(2)] == [ids, ids]


async def test_endpoint_that_says_it_is_gone_is_turned_off_and_hears_no_more(rt: Runtime) -> None:
    async with Receiver() as receiver:
        receiver.next(Reply(410))
        with_endpoint(rt, receiver.url(), batch_max=100)
        await add_endpoint(rt, receiver.url())
        await deliver(rt, 2)
        async with notifying(rt):
            await until(rt, [("failed", [410])] * 2)
        assert receiver.count == 1
    assert await ask(rt.store.url, "SELECT state FROM callback_endpoint") == [("off",)]
    assert await ask(rt.store.url, "SELECT actor, action FROM audit") == [("receiver", "callback.change")]


async def test_events_go_one_by_one_to_an_endpoint_that_takes_no_batches_any_more(rt: Runtime) -> None:
    async with Receiver() as receiver:
        with_endpoint(rt, receiver.url(), batch_max=100)
        ids = await deliver(rt, 3)
        with_endpoint(rt, receiver.url(), batch_max=1)
        async with notifying(rt):
            await until(rt, [("told", [200])] * 3, step_s=GATHER_S)
        assert sorted(told(call.body) for call in await receiver.wait_for(3)) == [[each] for each in ids]
    assert await ask(rt.store.url, "SELECT count(*) FROM job WHERE kind = 'callback'") == [(0,)]


@pytest.mark.parametrize(("ends", "others"), [([], "told"), ([500, 500], "failed")])
@pytest.mark.parametrize("place", [0, 1])
async def test_one_event_of_a_bundle_is_told_again_by_itself(
    rt: Runtime, ends: list[int], others: str, place: int
) -> None:
    net = msgspec.structs.replace(rt.config.net, callback_schedule_s=(1,))
    rt.config = msgspec.structs.replace(rt.config, net=net)
    async with Receiver() as receiver:
        receiver.next(*map(Reply, ends))
        with_endpoint(rt, receiver.url(), batch_max=100)
        ids = await deliver(rt, 3)
        answers = ends or [200]
        expected = [(others, answers)] * 3
        async with notifying(rt):
            await until(rt, expected, step_s=0.5)
            async with rt.store.read() as tx:
                newest_first = await callbacks.log(tx, ACCOUNT_ID, ENDPOINT_ID, 0, 100)
            await add_endpoint(rt, receiver.url())
            event_id = newest_first[2 - place].id
            assert await endpoints.tell_one_again(rt, ACCOUNT_ID, ENDPOINT_ID, event_id) == 1
            expected[place] = ("told", [*answers, 200])
            await until(rt, expected, step_s=0.5)
        assert told((await receiver.wait_for(len(answers) + 1))[-1].body) == [ids[place]]


async def test_event_of_a_bundle_that_is_being_told_is_not_told_again(rt: Runtime) -> None:
    async with Receiver() as receiver:
        receiver.next(Hang.FOREVER)
        with_endpoint(rt, receiver.url(), batch_max=100)
        await deliver(rt, 3)
        await add_endpoint(rt, receiver.url())
        async with notifying(rt):
            await receiver.wait_for(1)
            async with rt.store.read() as tx:
                events = await callbacks.log(tx, ACCOUNT_ID, ENDPOINT_ID, 0, 100)
            assert await endpoints.tell_one_again(rt, ACCOUNT_ID, ENDPOINT_ID, events[0].id) == 0
            receiver.drop_connections()
    assert await ask(rt.store.url, "SELECT bundled FROM callback ORDER BY id") == [(3,), (0,), (0,)]


async def test_lane_of_an_idle_receiver_stays_while_something_for_it_is_being_written(rt: Runtime) -> None:
    async with Receiver() as receiver:
        with_endpoint(rt, receiver.url(), batch_max=100)
        await deliver(rt)
        async with notifying(rt):
            await until(rt, [("told", [200])])
            (lane,) = (lane for name, lane in rt.lanes.items() if name.startswith("h"))
            assert lane.admit(1, ACCOUNT_ID, 1)
            for _ in range(20):
                await rt.clock.advance(IDLE_END_S)  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            assert rt.lanes[lane.name] is lane
            lane.withdraw(1)
            for _ in range(300):
                await rt.clock.advance(IDLE_END_S)  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
                if lane.name not in rt.lanes:
                    return
            raise AssertionError("the lane of an idle receiver is kept for ever")
