"""The dispatcher between its lane, the store and a connector: what may start, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from berid.domain.message import Outgoing, Sent
from berid.domain.routing import ConnectorSettings
from berid.flow.accept import accept
from berid.flow.dispatch import Dispatcher
from berid.flow.ports import Report, Runtime
from berid.store.hot import HotTx, StoreAway
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
    begin = driver.begin

    async def fail_once() -> HotTx:
        monkeypatch.setattr(driver, "begin", begin)
        await next_asked.wait()
        raise StoreAway("for a moment")

    monkeypatch.setattr(driver, "begin", fail_once)
    outgoing, report = far.handed[0]
    report(outgoing, Sent(("k1",), ("k1",)))
    while driver.begin is fail_once:
        await asyncio.sleep(0)
    sending = asyncio.ensure_future(dispatcher._send(second))
    await asyncio.sleep(0)
    next_asked.set()
    clock = rt.clock
    assert isinstance(clock, FakeClock)
    await clock.advance(0.01)
    assert far.numbers == [NUMBERS[0]]
    assert await _states(store_url) == ["sending", "queued"]

    await clock.advance(1.0)  # the outcome is offered again, and taken
    await asyncio.gather(sending, *dispatcher._flushes)
    assert await _states(store_url) == ["sent", "queued"]
    await dispatcher._send(dispatcher.lane.take(1, 0))
    assert far.numbers == [*NUMBERS]


async def _states(store_url: str) -> list[str]:
    return [row[0] for row in await ask(store_url, "SELECT state FROM delivery ORDER BY id")]
