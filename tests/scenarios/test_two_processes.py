"""Two processes on one PostgreSQL: they share the work, one of them takes over, and the carrier sees one of them only."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from berid import demo
from berid.channels.sms.simulator import CarrierSettings
from tests.scenarios.conftest import MakeSite

pytestmark = pytest.mark.postgres

MANY = 300
WINDOW = 20
TAKE_OVER_S = 25.0
"""The lease of a dead process ends after 12 s; then the other one notices within a second."""


async def test_other_process_takes_over_and_the_carrier_never_sees_both(open_site: MakeSite, postgres_url: str) -> None:
    site = await open_site(postgres_url, {}, CarrierSettings(response_delay_s=0.05))
    await site.set_connector(window=WINDOW)
    first, second = site.berid, site.another("second")
    await first.start()
    await second.start()
    numbers = [f"96650000{number}" for number in range(1_000 + 0, 1_000 + 2 * MANY)]

    async def send(number: str) -> None:
        # By either: whoever is asked, the one with the link sends.
        await site.accepted(number, berid=second if int(number) % 2 else first)

    await asyncio.gather(*(send(number) for number in numbers[:MANY]))
    assert (await site.until_settled())["delivered"] == MANY
    await asyncio.gather(*(send(number) for number in numbers[MANY:]))
    holder, other = (first, second) if "bound" in first.log else (second, first)
    holder.kill()
    site.berid = other

    found = await site.until_settled(TAKE_OVER_S + 70, but=("uncertain",))
    assert found["delivered"] + found.get("uncertain", 0) == 2 * MANY
    assert found.get("uncertain", 0) <= WINDOW
    assert site.carrier.binds[demo.CARRIER_LOGIN].most == 1
    doubtful = {
        row[0]
        for row in await site.ask(
            "SELECT recipient FROM delivery d WHERE EXISTS "
            "(SELECT 1 FROM event e WHERE e.delivery_id = d.id AND e.kind = 'uncertain')"
        )
    }
    seen = Counter(submitted.pdu.destination_addr for submitted in site.carrier.submits)
    assert {number for number, count in seen.items() if count > 1} == set()
    assert set(numbers) - seen.keys() <= doubtful
    await site.check_books()


async def test_link_moves_within_a_second_when_its_process_stops_in_order(
    open_site: MakeSite, postgres_url: str
) -> None:
    site = await open_site(postgres_url)
    first, second = site.berid, site.another("second")
    await first.start()
    await second.start()
    await site.until_state((await site.accepted("966500001000"))["id"], "delivered")
    assert await first.stop() == 0
    site.berid = second
    made = await site.accepted("966500001001")
    await site.until_state(made["id"], "delivered", timeout_s=5)
    assert site.carrier.binds[demo.CARRIER_LOGIN].most == 1
    assert (await site.states()) == {"delivered": 2}
