"""The dispatcher between its lane, the store and a connector: what may start, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import text

from berid.domain.errors import Temporary, Throttled
from berid.domain.message import Outgoing, Priority, Sent
from berid.domain.routing import ConnectorSettings
from berid.flow.accept import LEASE_MS, accept
from berid.flow.dispatch import LANE_CAPACITY, LANE_LEAST, LANE_SECONDS, RETRY_S, Dispatcher, watch_lanes
from berid.flow.ports import Fresh, Report, Runtime
from berid.flow.sweep import Sweeper, recover_connector
from berid.store.hot import TRACKED_COLUMNS, HotTx, StoreAway, Verb
from tests.support.builders import FakeClock, make_caller, make_runtime, make_settings, make_submission
from tests.support.database import ask

NUMBERS = ("966501234567", "966501234568")


@pytest.fixture
async def rt(store_url: str) -> AsyncIterator[Runtime]:
    async with make_runtime(store_url, clock=FakeClock()) as rt:
        yield rt


class Far:
    """A connector that keeps what it is handed."""

    def __init__(self) -> None:
        self.settings: ConnectorSettings = make_settings()
        self.handed: list[tuple[Outgoing, Report]] = []

    is_up = True

    def on_room(self, wake: Callable[[], None]) -> None:
        """See `Connector.on_room`."""

    async def stop(self) -> None:
        """See `Connector.stop`."""

    def room(self) -> tuple[int, int]:
        """See `Connector.room`."""
        return 0, 0

    def give_back(self, parts: int) -> None:
        """See `Connector.give_back`."""

    def send(self, parcel: Sequence[Outgoing], report: Report) -> None:
        """See `Connector.send`."""
        self.handed += [(outgoing, report) for outgoing in parcel]

    @property
    def numbers(self) -> list[str]:
        """To whom it was to send."""
        return [outgoing.recipient for outgoing, _ in self.handed]


async def test_nothing_starts_in_the_place_of_an_outcome_that_the_store_did_not_take(
    rt: Runtime, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Far()
    dispatcher = Dispatcher(rt, far)  # type: ignore[arg-type]
    rt.lanes[dispatcher.lane.name] = dispatcher.lane
    for number in NUMBERS:
        await accept(rt, make_caller(rt), make_submission(number))
    first, second = dispatcher.lane.take(1, 0), dispatcher.lane.take(1, 0)
    await dispatcher._send(first)
    assert far.numbers == [NUMBERS[0]]

    # The group with the outcome fails while the next intent waits in line behind it.
    driver, next_asked = rt.store.hot._driver, asyncio.Event()
    commit = driver.commit

    async def fail_once(_tx: HotTx) -> None:
        monkeypatch.setattr(driver, "commit", commit)
        await next_asked.wait()
        raise StoreAway("for a moment")

    monkeypatch.setattr(driver, "commit", fail_once)
    outgoing, report = far.handed[0]
    report(outgoing, Sent(("k1",), ("k1",)))
    while driver.commit is fail_once:
        await asyncio.sleep(0)
    sending = asyncio.ensure_future(dispatcher._send(second))
    await asyncio.sleep(0)
    next_asked.set()
    clock = rt.clock
    assert isinstance(clock, FakeClock)
    await clock.advance(0.01)
    assert far.numbers == [NUMBERS[0]]
    assert await _states(store_url) == ["sending", "queued"]

    waiting = asyncio.gather(sending, *dispatcher._flushes)
    while not waiting.done():  # the outcome is offered again, and taken
        await clock.advance(0.1)
        await asyncio.sleep(0.001)
    await waiting
    assert await _states(store_url) == ["sent", "queued"]
    await dispatcher._send(dispatcher.lane.take(1, 0))
    assert far.numbers == [*NUMBERS]


async def test_a_second_copy_in_the_lane_does_not_leave(rt: Runtime, store_url: str) -> None:
    far = Far()
    dispatcher = Dispatcher(rt, far)  # type: ignore[arg-type]
    await _accept(rt, dispatcher, *NUMBERS)
    first, second = dispatcher.lane.take(2)
    await dispatcher._send([first, structs.replace(first), second])
    assert far.numbers == [*NUMBERS]
    await asyncio.gather(dispatcher._send([structs.replace(second)]), dispatcher._send([structs.replace(first)]))
    assert far.numbers == [*NUMBERS]
    assert await _states(store_url) == ["sending", "sending"]


async def test_an_old_copy_that_leaves_after_all_has_its_outcome_written(rt: Runtime, store_url: str) -> None:
    far = Far()
    dispatcher = Dispatcher(rt, far)  # type: ignore[arg-type]
    await _accept(rt, dispatcher, NUMBERS[0])
    [first] = dispatcher.lane.take(1)
    copy = Outgoing(*(getattr(first, name) for name in Outgoing.__struct_fields__))  # as a lease reads it
    await dispatcher._send([first])
    far.handed[0][1](first, Temporary("busy"))
    await _recorded(dispatcher)
    assert await _states(store_url) == ["queued"]
    await dispatcher._send([copy])
    far.handed[1][1](copy, Sent(("k1",), ("k1",)))
    await _recorded(dispatcher)
    assert await _states(store_url) == ["sent"]


async def test_what_was_accepted_here_does_not_start_again_by_what_is_remembered(rt: Runtime, store_url: str) -> None:
    far = Far()
    dispatcher = Dispatcher(rt, far)  # type: ignore[arg-type]
    await _accept(rt, dispatcher, *NUMBERS)
    first, second = dispatcher.lane.take(2)
    await dispatcher._send([first])
    far.handed[0][1](first, Temporary("busy"))
    await _recorded(dispatcher)
    assert await _states(store_url) == ["queued", "queued"]
    await dispatcher._send([structs.replace(first), second])
    assert far.numbers == [*NUMBERS], "the first has a job for its second attempt, and that is read"
    assert await _states(store_url) == ["queued", "sending"]


@pytest.mark.parametrize("is_remembered", [True, False])
async def test_outcome_is_the_same_whether_the_delivery_is_remembered_or_read(
    rt: Runtime, store_url: str, is_remembered: bool
) -> None:
    far, changes = Far(), {"reference": "r1", "options": {"meta.a": "b"}}
    dispatcher = Dispatcher(rt, far)  # type: ignore[arg-type]
    if is_remembered:
        rt.lanes[dispatcher.lane.name] = dispatcher.lane
    await accept(rt, make_caller(rt), make_submission(*NUMBERS, **changes))
    if not is_remembered:
        await dispatcher._lease()
    parcel = dispatcher.lane.take(2)
    assert [isinstance(outgoing, Fresh) for outgoing in parcel] == [is_remembered] * 2
    await dispatcher._send(parcel)
    async with rt.store.read() as tx:
        read = (
            await tx.execute(
                text(f"SELECT {TRACKED_COLUMNS} FROM delivery d JOIN message m ON m.id = d.message_id ORDER BY d.id")
            )
        ).all()
    assert [structs.astuple(dispatcher._started[row.id])[: len(row)] for row in read] == [tuple(row) for row in read]


async def test_what_is_on_its_way_for_longer_than_its_lease_keeps_its_job(rt: Runtime, store_url: str) -> None:
    far = Far()
    dispatcher = Dispatcher(rt, far)  # type: ignore[arg-type]
    await _accept(rt, dispatcher, NUMBERS[0])
    await dispatcher._send(dispatcher.lane.take(1))
    clock = rt.clock
    assert isinstance(clock, FakeClock)
    await clock.advance(LEASE_MS / 1000 + 1)
    await Sweeper(rt).once()
    await dispatcher._lease()
    assert len(dispatcher.lane) == 0
    far.handed[0][1](far.handed[0][0], Throttled("busy"))  # the connector has tried for as long as it may
    await _recorded(dispatcher)
    assert await _states(store_url) == ["queued"]
    await clock.advance(RETRY_S[0] * 1.3)
    await dispatcher._lease()
    assert [outgoing.recipient for outgoing in dispatcher.lane.take(1)] == [NUMBERS[0]]


async def test_what_started_although_the_answer_was_lost_is_found_when_the_connector_starts_again(
    rt: Runtime, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Far()
    dispatcher = Dispatcher(rt, far)  # type: ignore[arg-type]
    await _accept(rt, dispatcher, *NUMBERS)
    do = rt.store.hot.do

    async def lose_answer(verb: Verb[Any, Any], items: list[Any]) -> None:
        await do(verb, items)
        raise StoreAway("the connection was lost during a commit")

    monkeypatch.setattr(rt.store.hot, "do", lose_answer)
    clock = rt.clock
    assert isinstance(clock, FakeClock)
    sending = asyncio.ensure_future(dispatcher._send(dispatcher.lane.take(1)))
    while await _states(store_url) != ["sending", "queued"]:
        await asyncio.sleep(0)
    monkeypatch.setattr(rt.store.hot, "do", do)
    while not sending.done():  # the row is there before the answer that is lost
        await clock.advance(1)
        await asyncio.sleep(0.001)
    await sending
    assert far.numbers == []
    await dispatcher._give_back(dispatcher.lane.empty(), far.settings.id)
    assert await recover_connector(rt, far.settings.id) == 1


async def test_a_lane_holds_what_its_connector_takes_in_some_seconds(rt: Runtime, store_url: str) -> None:
    dispatcher = Dispatcher(rt, Far())  # type: ignore[arg-type]
    lane, clock = dispatcher.lane, rt.clock
    assert isinstance(clock, FakeClock)
    await _accept(rt, dispatcher, *(str(966501000000 + place) for place in range(300)))
    assert len(lane) == 300
    dispatcher._fit(clock.ticks_s())
    await clock.advance(LANE_SECONDS - 1)
    dispatcher._taken += len(lane.take(60))
    dispatcher._fit(clock.ticks_s())
    assert lane.capacity == LANE_CAPACITY
    await clock.advance(1)
    dispatcher._fit(clock.ticks_s())
    await asyncio.gather(*dispatcher._sending)
    assert (lane.capacity, len(lane)) == (60, 60)
    assert await ask(store_url, "SELECT count(*) FROM job WHERE lease_until_ms = 0") == [(180,)]
    assert lane.has_spilled

    dispatcher._taken += len(lane.take(20))
    await clock.advance(LANE_SECONDS)
    dispatcher._fit(clock.ticks_s())
    assert (lane.capacity, len(lane)) == (LANE_LEAST, 40)
    lane.empty()
    dispatcher._fit(clock.ticks_s())
    assert lane.capacity == LANE_CAPACITY, "how fast it is now nobody knows"


async def test_what_another_process_accepted_is_found(rt: Runtime) -> None:
    await accept(rt, make_caller(rt), make_submission(*NUMBERS))  # nobody here serves its lane
    dispatcher, clock = Dispatcher(rt, Far()), rt.clock  # type: ignore[arg-type]
    assert isinstance(clock, FakeClock)
    lane = rt.lanes[dispatcher.lane.name] = dispatcher.lane
    looking = asyncio.ensure_future(watch_lanes(rt))
    await asyncio.wait_for(lane.wake.wait(), 5)
    assert (lane.has_spilled_of(1), lane.has_spilled_of(0)) == (True, False)
    dispatcher._refill()
    await asyncio.gather(*dispatcher._sending)
    assert [outgoing.recipient for outgoing in lane.take(5)] == [*NUMBERS]
    assert not lane.has_spilled

    due_ms = clock.now_ms() + 5_000
    await accept(rt, make_caller(rt), make_submission(NUMBERS[0], due_ms=due_ms))
    async with asyncio.timeout(10):
        while not lane.has_spilled:
            await clock.advance(0.1)
            await asyncio.sleep(0.001)
    assert clock.now_ms() >= due_ms
    looking.cancel()


async def test_a_one_time_password_in_the_table_finds_room_in_a_full_lane(rt: Runtime) -> None:
    await accept(rt, make_caller(rt), make_submission(NUMBERS[0], priority=Priority.OTP))
    dispatcher = Dispatcher(rt, Far())  # type: ignore[arg-type]
    lane = dispatcher.lane
    await _accept(rt, dispatcher, NUMBERS[1])
    lane.capacity = 1
    lane.spill(1, 0)
    dispatcher._refill()
    assert not dispatcher._sending, "there is no room"
    lane.spill(0, 0)
    dispatcher._refill()
    await asyncio.gather(*dispatcher._sending)
    assert [outgoing.recipient for outgoing in lane.take(5)] == [*NUMBERS]


@pytest.mark.parametrize("turns", range(6))
async def test_dispatcher_that_is_woken_while_it_is_ended_ends(rt: Runtime, turns: int) -> None:
    dispatcher = Dispatcher(rt, Far())  # type: ignore[arg-type]
    dispatcher._is_refilling = True  # it has nothing to do but to wait
    running = asyncio.ensure_future(dispatcher.run())
    for _ in range(10):
        await asyncio.sleep(0)
    dispatcher.lane.wake.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running], timeout=2)
    assert running.cancelled()


async def test_what_is_accepted_while_its_connector_ends_is_answered_and_given_back(
    rt: Runtime, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = Dispatcher(rt, Far())  # type: ignore[arg-type]
    driver, ended = rt.store.hot._driver, asyncio.Event()
    commit = driver.commit

    async def commit_late(tx: HotTx) -> None:
        monkeypatch.setattr(driver, "commit", commit)
        await ended.wait()
        await commit(tx)

    monkeypatch.setattr(driver, "commit", commit_late)
    accepting = asyncio.ensure_future(_accept(rt, dispatcher, *NUMBERS))
    while driver.commit is commit_late:
        await asyncio.sleep(0)
    ending = asyncio.ensure_future(dispatcher.drain())
    for _ in range(10):
        await asyncio.sleep(0)
    ended.set()
    await asyncio.wait([accepting, ending], timeout=10)
    assert accepting.done(), "the caller has no answer"
    assert ending.done()
    assert await ask(store_url, "SELECT count(*) FROM job WHERE lease_until_ms = 0") == [(2,)]


async def _accept(rt: Runtime, dispatcher: Dispatcher, *numbers: str) -> None:
    rt.lanes[dispatcher.lane.name] = dispatcher.lane
    await accept(rt, make_caller(rt), make_submission(*numbers))


async def _recorded(dispatcher: Dispatcher) -> None:
    """Let the loop come to what was reported, and wait until it is written."""
    await asyncio.sleep(0)
    await asyncio.gather(*dispatcher._flushes)


async def _states(store_url: str) -> list[str]:
    return [row[0] for row in await ask(store_url, "SELECT state FROM delivery ORDER BY id")]
