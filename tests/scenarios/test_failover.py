"""A carrier is down: others carry on without it, and nothing goes out twice for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from berid import demo
from berid.channels.sms.simulator import Carrier, CarrierSettings
from berid.domain.routing import Route
from berid.flow import manage
from tests.scenarios.conftest import MakeSite
from tests.support.site import ACTOR, Site

SLOW = CarrierSettings(accounts={demo.CARRIER_LOGIN: "second"}, response_delay_s=0.05)


async def _up(site: Site, *carriers: Carrier) -> None:
    async def are_bound() -> bool:
        return all(
            demo.CARRIER_LOGIN in carrier.binds and carrier.binds[demo.CARRIER_LOGIN].now for carrier in carriers
        )

    await site.until(are_bound)


async def test_second_carrier_takes_what_the_first_has_not(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url, {}, SLOW)
    backup = Carrier(SLOW)
    await backup.start()
    try:
        await site.set_connector(window=10, rate=100)
        await site.add_connector("backup", backup)
        await site.berid.start()
        await _up(site, site.carrier, backup)
        numbers = [f"96650000{number}" for number in range(1_000, 1_300)]
        await asyncio.gather(*(site.accepted(number) for number in numbers))
        await site.carrier.until(lambda: site.carrier.counters.accepted > 20)
        await site.carrier.stop()

        found = await site.until_settled(but=("uncertain", "sent"))
        seen = Counter(submitted.pdu.destination_addr for submitted in (*site.carrier.submits, *backup.submits))
        doubled = {number for number, count in seen.items() if count > 1}
        rows = await site.ask(
            "SELECT d.recipient FROM delivery d JOIN event e ON e.delivery_id = d.id WHERE e.kind = 'uncertain'"
        )
        assert doubled == set()
        assert set(numbers) - seen.keys() <= {row[0] for row in rows}
        assert len(rows) <= 10
        assert backup.counters.accepted > 200
        assert sum(found.values()) == len(numbers)
        await site.check_books()
    finally:
        await backup.stop()


async def test_carrier_that_is_down_holds_up_its_own_lane_only(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url)
    other = Carrier(replace(SLOW, response_delay_s=0))
    await other.start()
    try:
        turkish = await site.add_connector("turkish", other)
        await site.change_route(connectors=(site.connector_id,))
        async with site.office() as office:
            route = Route(0, "turkey", 10, "test", "sms", (turkish,), frozenset({"TR"}))
            await manage.create_route(office, ACTOR, route)
        port = site.carrier.port
        await site.carrier.stop()
        await site.berid.start()
        await _up(site, other)
        held_up = [await site.accepted(f"96650000{number}") for number in range(1_000, 1_020)]
        for number in range(1_000, 1_020):
            made = await site.accepted(f"90532111{number}")
        await site.until_state(made["id"], "delivered", timeout_s=3)
        assert await site.states() == {"queued": 20, "delivered": 20}

        await site.carrier.start(port=port)
        await site.until_state(held_up[-1]["id"], "delivered", timeout_s=40)
        assert (await site.until_settled()) == {"delivered": 40}
        assert site.carrier.counters.accepted == 20
    finally:
        await other.stop()
