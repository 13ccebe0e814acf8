"""Jobs in a person's hands: late schedules taken up or given up, callbacks told again or no more, money always right."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from berid.domain.errors import Refused
from berid.domain.report import Endpoint
from berid.flow import manage
from berid.flow.accept import accept
from berid.flow.manage import Office
from berid.flow.ports import Runtime
from berid.flow.sweep import hold_late_schedules
from berid.store import work
from tests.support.builders import (
    ACCOUNT_ID,
    BALANCE_MICROS,
    START_MS,
    FakeClock,
    make_caller,
    make_runtime,
    make_submission,
)
from tests.support.database import ask

HOUR_MS = 3_600_000
HELD_EVENTS = Endpoint(
    9, ACCOUNT_ID, 0, "native", "https://a.example/", "a.example", "", frozenset({"message.cancelled"}), 1, "on"
)


@pytest.fixture
async def rt(store_url: str) -> AsyncIterator[Runtime]:
    async with make_runtime(store_url, clock=FakeClock()) as rt:
        rt.directory = replace(rt.directory, endpoints={ACCOUNT_ID: (HELD_EVENTS,)}, endpoint_by_id={9: HELD_EVENTS})
        yield rt


async def held(rt: Runtime) -> int:
    """A delivery that came due while the platform was down for two hours, and is held."""
    accepted = await accept(rt, make_caller(rt), make_submission("966501234567", due_ms=START_MS + HOUR_MS))
    assert isinstance(rt.clock, FakeClock)
    await rt.clock.advance(3 * 3_600)
    assert await hold_late_schedules(rt, START_MS) == 1
    return accepted.deliveries[0].id


async def listed(rt: Runtime, *, buried: bool) -> list[work.JobRecord]:
    async with rt.store.read() as tx:
        return await work.jobs(tx, buried=buried)


async def balance(store_url: str) -> tuple[int, int]:
    found = await ask(store_url, "SELECT available_micros, held_micros FROM wallet")
    return found[0][0], found[0][1]


async def states(store_url: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in await ask(store_url, "SELECT state, money FROM delivery ORDER BY id")]


async def test_set_aside_is_seen_with_its_reason(rt: Runtime) -> None:
    delivery_id = await held(rt)
    (record,) = await listed(rt, buried=True)
    assert (record.id, record.kind, record.state, record.why) == (delivery_id, "dispatch", "held", "late_schedule")
    assert await listed(rt, buried=False) == []


async def test_revived_delivery_waits_again(rt: Runtime, store_url: str) -> None:
    delivery_id = await held(rt)
    await manage.revive_jobs(Office.of(rt), "t", [delivery_id])
    (record,) = await listed(rt, buried=False)
    assert (record.id, record.state, record.due_ms, record.attempts) == (delivery_id, "queued", rt.clock.now_ms(), 0)
    assert await states(store_url) == [("queued", "held")]
    kinds = await ask(store_url, "SELECT kind FROM event WHERE delivery_id = $1 ORDER BY id", delivery_id)
    assert [row[0] for row in kinds] == ["held", "queued"]
    with pytest.raises(Refused):
        await manage.revive_jobs(Office.of(rt), "t", [delivery_id])


async def test_all_are_revived_or_none(rt: Runtime) -> None:
    delivery_id = await held(rt)
    with pytest.raises(Refused):
        await manage.revive_jobs(Office.of(rt), "t", [delivery_id, 7])
    assert [record.id for record in await listed(rt, buried=True)] == [delivery_id]


async def test_cancelled_delivery_gives_its_money_back_and_is_told(rt: Runtime, store_url: str) -> None:
    held_id = await held(rt)
    waiting = await accept(rt, make_caller(rt), make_submission("966501234568"))
    assert (await balance(store_url))[1] > 0
    assert await manage.cancel_jobs(rt, "t", [held_id, waiting.deliveries[0].id]) == 2
    assert await balance(store_url) == (BALANCE_MICROS, 0)
    assert await states(store_url) == [("cancelled", "released")] * 2
    remaining = await listed(rt, buried=False) + await listed(rt, buried=True)
    assert [record.kind for record in remaining] == ["callback", "callback"]
    async with rt.store.read() as tx:
        assert await manage.verify_ledger(tx) == []


@pytest.mark.parametrize("state", ["sending", "sent", "uncertain"])
async def test_what_has_left_is_not_cancelled(rt: Runtime, store_url: str, state: str) -> None:
    accepted = await accept(rt, make_caller(rt), make_submission("966501234567"))
    await ask(store_url, "UPDATE delivery SET state = $1", state)
    with pytest.raises(Refused):
        await manage.cancel_jobs(rt, "t", [accepted.deliveries[0].id])
    assert await states(store_url) == [(state, "held")]
    assert len(await listed(rt, buried=False)) == 1


async def test_callback_is_told_no_more_or_again(rt: Runtime, store_url: str) -> None:
    accepted = await accept(rt, make_caller(rt), make_submission("966501234567", "966501234568"))
    await manage.cancel_jobs(rt, "t", [each.id for each in accepted.deliveries])
    first, second = [record.id for record in await listed(rt, buried=False)]
    await ask(store_url, "UPDATE job SET buried_ms = 5, why = 'http 500', attempts = 10")
    assert await manage.cancel_jobs(rt, "t", [first]) == 1
    await manage.revive_jobs(Office.of(rt), "t", [second])
    (record,) = await listed(rt, buried=False)
    assert (record.id, record.attempts, record.why, record.due_ms) == (second, 0, "", rt.clock.now_ms())
    assert await listed(rt, buried=True) == []


async def test_parts_of_a_message_are_not_given_up_alone(rt: Runtime, store_url: str) -> None:
    for identifier, kind in ((50, "resolve"), (51, "spread")):
        await ask(store_url, "INSERT INTO job (id, kind, lane) VALUES ($1, $2, 'clock')", identifier, kind)
        with pytest.raises(Refused):
            await manage.cancel_jobs(rt, "t", [identifier])
    assert len(await listed(rt, buried=False)) == 2


async def test_lists_go_on_behind_the_last(rt: Runtime) -> None:
    await accept(
        rt, make_caller(rt), make_submission(*(f"96650123456{place}" for place in range(5)), allows_partial=True)
    )
    async with rt.store.read() as tx:
        first = await work.jobs(tx, buried=False, limit=3)
        rest = await work.jobs(tx, buried=False, after_id=first[-1].id)
        assert [len(first), len(rest)] == [3, 2]
        assert await work.jobs(tx, buried=False, lane="c99") == []
