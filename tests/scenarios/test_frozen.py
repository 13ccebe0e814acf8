"""A process that stands still for longer than its lease: another takes over, and the sleeper sends nothing when it wakes.

Its link stays open as long as the carrier lets it. The fake carrier allows two binds of one account; one that allows one refuses
the other process until it has dropped the silent link."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from berid import demo
from berid.channels.sms.simulator import CarrierSettings
from tests.scenarios.conftest import MakeSite

pytestmark = pytest.mark.postgres

MANY = 200
WINDOW = 10
TAKE_OVER_S = 40.0
"""The lease of a process that is silent ends after 12 s; then the other one notices within a second."""


async def test_frozen_process_finds_its_connector_taken_before_it_sends(open_site: MakeSite, postgres_url: str) -> None:
    site = await open_site(postgres_url, {}, CarrierSettings(response_delay_s=0.1, answer_timeout_s=5))
    await site.set_connector(window=WINDOW)
    first, second = site.berid, site.another("second")
    await first.start()
    await second.start()
    numbers = [f"96650000{number}" for number in range(1_000, 1_000 + MANY)]
    await asyncio.gather(*(site.accepted(number, berid=second) for number in numbers[: MANY // 2]))

    async def is_under_way() -> bool:
        return len(site.carrier.submits) > 2 * WINDOW

    await site.until(is_under_way)
    sleeper, other = (first, second) if "bound" in first.log else (second, first)
    site.berid = other
    sleeper.signal(signal.SIGSTOP)
    try:
        await asyncio.gather(*(site.accepted(number, berid=other) for number in numbers[MANY // 2 :]))

        async def has_taken_over() -> bool:
            return "connector started" in other.log

        await site.until(has_taken_over, TAKE_OVER_S)
        # Receipts that the carrier gave to the frozen link come when that one answers, or are given again.
        await site.until_settled(TAKE_OVER_S, but=("uncertain", "sent"))
        before = len(site.carrier.submits)
        # More for the other one to do while the sleeper wakes.
        late = [f"96650001{number}" for number in range(1_000, 1_000 + MANY)]
        accepting = asyncio.gather(*(site.accepted(number, berid=other) for number in late))
    finally:
        sleeper.signal(signal.SIGCONT)

    await accepting

    async def has_noticed() -> bool:
        return "another process has taken a connector" in sleeper.log and "connector stopped" in sleeper.log

    await site.until(has_noticed, TAKE_OVER_S)
    found = await site.until_settled(TAKE_OVER_S, but=("uncertain",))
    assert found["delivered"] + found.get("uncertain", 0) == 2 * MANY
    assert found.get("uncertain", 0) <= WINDOW
    assert len(site.carrier.submits) == before + MANY
    seen = Counter(submitted.pdu.destination_addr for submitted in site.carrier.submits)
    assert {number for number, count in seen.items() if count > 1} == set()
    assert site.carrier.binds[demo.CARRIER_LOGIN].now == 1
    await site.check_books()
