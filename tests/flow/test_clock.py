"""The wall clock is set, an hour back or a day forward, under a running platform: what that changes, and what it does not."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from berid.domain.account import Rules
from berid.domain.errors import RefusalKind, Refused
from berid.domain.otp import Verdict
from berid.flow.accept import accept
from berid.flow.dispatch import LEASE, _Refill
from berid.flow.links import Links
from berid.flow.otp import check_code, send_code
from berid.flow.ports import Runtime
from berid.flow.sweep import Sweeper
from berid.store import processes, tables
from tests.support.builders import (
    ACCOUNT_ID,
    CONNECTOR_ID,
    FakeClock,
    make_caller,
    make_runtime,
    make_submission,
)

NUMBER = "966501234567"
HOUR_S = 3_600
DAY_S = 86_400
JUMPS = pytest.mark.parametrize("jump_s", [-HOUR_S, DAY_S], ids=["an hour back", "a day forward"])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def rt(store_url: str, clock: FakeClock) -> AsyncIterator[Runtime]:
    async with make_runtime(store_url, clock=clock) as rt:
        yield rt


async def send(rt: Runtime, **changes: Any) -> int:
    accepted = await accept(rt, make_caller(rt), make_submission(NUMBER, **changes))
    return accepted.deliveries[0].id


async def state(rt: Runtime, delivery_id: int) -> tuple[str, str]:
    delivery = tables.delivery.c
    async with rt.store.read() as tx:
        row = (await tx.execute(select(delivery.state, delivery.money).where(delivery.id == delivery_id))).one()
    return row.state, row.money


async def leave(rt: Runtime) -> set[int]:
    """Which deliveries a connector gets that asks now."""
    ask = _Refill(f"c{CONNECTOR_ID}", [9, 9, 9], [-1, -1, -1], rt.clock.now_ms(), 0)
    return {row[0] for row in (await rt.store.hot.do(LEASE, [ask]))[0]}


@JUMPS
async def test_ids_stay_unique_and_growing(rt: Runtime, clock: FakeClock, jump_s: int) -> None:
    made = [await send(rt) for _ in range(3)]
    clock.set_by(jump_s)
    made += [await send(rt) for _ in range(3)]
    clock.set_by(-jump_s)
    made += [await send(rt) for _ in range(3)]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))


async def test_what_was_due_before_the_clock_was_set_back_stays_due(
    rt: Runtime, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    sweeper = Sweeper(rt)
    waiting = await send(rt)
    planned = await send(rt, due_ms=clock.now_ms() + HOUR_S * 1000)
    await clock.advance(1)
    clock.set_by(-HOUR_S)
    assert await leave(rt) == set()
    await sweeper.once()
    assert await leave(rt) == {waiting}
    assert "the clock was set" in caplog.text
    await clock.advance(HOUR_S)
    assert await leave(rt) == set(), "a plan is kept by the clock as it is now"
    await clock.advance(HOUR_S)
    assert await leave(rt) == {planned}


async def test_what_is_due_by_a_clock_that_runs_well_is_left_alone(
    rt: Runtime, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    sweeper = Sweeper(rt)
    await send(rt, due_ms=clock.now_ms() + 2_000)
    for _ in range(3):
        clock.set_by(-0.5)
        await clock.advance(1)
        await sweeper.once()
    assert await leave(rt) == set()
    assert "the clock was set" not in caplog.text


async def test_clock_set_forward_ends_validity_and_gives_the_money_back(rt: Runtime, clock: FakeClock) -> None:
    sweeper = Sweeper(rt)
    short, planned = await send(rt), await send(rt, due_ms=clock.now_ms() + 23 * HOUR_S * 1000)
    clock.set_by(DAY_S + 1)
    await sweeper.once()
    assert await state(rt, short) == ("expired", "released")
    assert await state(rt, planned) == ("scheduled", "held")
    assert await leave(rt) == {planned}


async def test_message_made_while_the_clock_was_ahead_ends_with_its_validity(rt: Runtime, clock: FakeClock) -> None:
    # Its id is of tomorrow for ever.
    clock.set_by(DAY_S)
    await send(rt)
    clock.set_by(-DAY_S)
    delivery_id = await send(rt, valid_s=60)
    await clock.advance(120)
    await Sweeper(rt).once()
    assert await state(rt, delivery_id) == ("expired", "released")


async def test_clock_set_back_sends_nothing_again_and_expires_nothing(rt: Runtime, clock: FakeClock) -> None:
    sweeper = Sweeper(rt)
    delivery_id = await send(rt)
    assert await leave(rt) == {delivery_id}
    clock.set_by(-HOUR_S)
    for _ in range(3):
        await clock.advance(1)
        await sweeper.once()
    assert await leave(rt) == set(), "it is in a lane"
    assert await state(rt, delivery_id) == ("queued", "held")


@pytest.mark.parametrize(
    ("jump_s", "verdict"), [(-HOUR_S, Verdict.VERIFIED), (DAY_S, Verdict.EXPIRED)], ids=["back", "forward"]
)
async def test_code_lives_by_the_wall_clock(rt: Runtime, clock: FakeClock, jump_s: int, verdict: Verdict) -> None:
    sent = await send_code(rt, make_caller(rt), NUMBER)
    clock.set_by(jump_s)
    assert (await check_code(rt, make_caller(rt), sent.code, number=NUMBER)).verdict is verdict


async def test_newest_code_counts_though_the_clock_was_set_back(rt: Runtime, clock: FakeClock) -> None:
    old = await send_code(rt, make_caller(rt), NUMBER)
    clock.set_by(-HOUR_S)
    new = await send_code(rt, make_caller(rt), NUMBER)
    assert (await check_code(rt, make_caller(rt), new.code, number=NUMBER)).verdict is Verdict.VERIFIED
    assert (await check_code(rt, make_caller(rt), old.code, otp_id=old.id)).verdict is Verdict.EXPIRED


@JUMPS
async def test_rates_are_measured_by_time_that_passed(rt: Runtime, clock: FakeClock, jump_s: int) -> None:
    account = replace(rt.directory.accounts[ACCOUNT_ID], rules=Rules(per_minute=1))
    rt.directory = replace(rt.directory, accounts={ACCOUNT_ID: account})
    await send(rt)
    clock.set_by(jump_s)
    with pytest.raises(Refused) as refused:
        await send(rt)
    assert [each.kind for each in refused.value.refusals] == [RefusalKind.RATE_LIMIT]
    await clock.advance(61)
    await send(rt)


class _NoLink:
    """A channel whose connectors cannot be made: all that matters is who may make them."""

    name = "sms"

    def connector(self, rt: Runtime, settings: object) -> object:
        raise ValueError("no link here")


OTHER = 9


@pytest.fixture
async def links(rt: Runtime) -> Links:
    """The links of a process beside another one, of slot `OTHER`, that runs the connector."""
    rt.channels = {"sms": _NoLink()}  # type: ignore[dict-item]
    async with rt.store.transaction() as tx:
        assert await processes.take_connector(tx, CONNECTOR_ID, OTHER, rt.clock.now_ms(), None)
    return Links(rt)


async def holder(rt: Runtime) -> int:
    async with rt.store.read() as tx:
        found = await processes.lease_of(tx, CONNECTOR_ID)
    assert found is not None
    return found.slot


async def beat(rt: Runtime, links: Links, seconds: float, is_alive: bool, ahead_ms: int = 0) -> None:
    """Let time pass; the other process renews by its own clock, if it lives."""
    for _ in range(int(seconds / processes.RENEW_S)):
        await rt.clock.advance(processes.RENEW_S)  # type: ignore[attr-defined]
        if is_alive:
            lease = tables.connector_lease
            until_ms = rt.clock.now_ms() + ahead_ms + processes.LEASE_MS
            async with rt.store.transaction() as tx:
                await tx.execute(lease.update().where(lease.c.slot == OTHER).values(until_ms=until_ms))
        await links.once()


@pytest.mark.parametrize("ahead_s", [-DAY_S, -HOUR_S, 0, HOUR_S, DAY_S])
async def test_living_process_keeps_its_connector_whatever_the_clocks_say(
    rt: Runtime, links: Links, ahead_s: int
) -> None:
    await beat(rt, links, 30, is_alive=True)
    await beat(rt, links, 30, is_alive=True, ahead_ms=ahead_s * 1000)
    assert await holder(rt) == OTHER


@pytest.mark.parametrize("jump_s", [-DAY_S, -HOUR_S, 0, HOUR_S, DAY_S])
async def test_dead_process_loses_its_connector_after_its_lease_whatever_the_clock_says(
    rt: Runtime, clock: FakeClock, links: Links, jump_s: int
) -> None:
    await beat(rt, links, 30, is_alive=True)
    clock.set_by(jump_s)
    await beat(rt, links, processes.LEASE_MS / 1000, is_alive=False)
    assert await holder(rt) == OTHER
    await beat(rt, links, processes.RENEW_S, is_alive=False)
    assert await holder(rt) == rt.slot


async def test_process_that_starts_takes_what_has_run_out_at_once(rt: Runtime, clock: FakeClock, links: Links) -> None:
    await clock.advance(processes.LEASE_MS / 1000 + 1)
    await Links(rt).once()
    assert await holder(rt) == rt.slot
