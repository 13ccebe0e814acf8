"""The runtime that tests build takes a message over, and its clock moves only when told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from berid.flow.accept import accept
from tests.support.builders import (
    BALANCE_MICROS,
    PRICE_MICROS,
    START_MS,
    FakeClock,
    make_caller,
    make_runtime,
    make_submission,
)


async def test_runtime_accepts_and_holds_the_price(tmp_path: Path) -> None:
    async with make_runtime(tmp_path, clock=FakeClock()) as rt:
        accepted = await accept(rt, make_caller(rt), make_submission("966501234567"))
    assert (accepted.total, accepted.cost_micros) == (1, PRICE_MICROS)
    assert accepted.balance_micros == BALANCE_MICROS - PRICE_MICROS
    assert accepted.created_ms == START_MS


async def test_clock_wakes_sleepers_in_the_order_of_their_time() -> None:
    clock = FakeClock()
    woken: list[tuple[float, float]] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.ticks_s()))

    start_s = clock.ticks_s()
    tasks = [asyncio.create_task(sleep(seconds)) for seconds in (3, 1, 2, 9)]
    await asyncio.sleep(0)
    await clock.advance(5)
    assert [(seconds, at_s - start_s) for seconds, at_s in woken] == [(1, 1), (2, 2), (3, 3)]
    assert clock.now_ms() == START_MS + 5_000
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await clock.advance(10)
    assert len(woken) == 3
