"""The process ends or loses its footing: SIGTERM, a full disk, a database that is away, hours of standing still."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from berid.base.clock import SystemClock
from berid.channels.sms.simulator import CarrierSettings
from berid.store import backup
from tests.kill.load import Load
from tests.scenarios.conftest import MakeSite
from tests.support.process import BeridProcess
from tests.support.site import Site
from tools import pg

LIMIT_S = 20.0
"""How long an orderly stop under load may take here: nothing at the far side is slow."""


async def _all_were_delivered(site: Site, load: Load) -> None:
    """Everything that was accepted is at its handset, once, and the books are right."""
    await site.until_settled(30, but=("scheduled",))
    rows = await site.ask("SELECT recipient, state FROM delivery")
    states = dict(rows)
    assert len(states) == len(rows)
    assert load.wrong == []
    assert load.accepted <= states.keys()
    assert {states[number] for number in load.accepted - load.cancelled} == {"delivered"}
    assert await site.ask("SELECT count(*) FROM event WHERE kind = 'uncertain'") == [(0,)]
    assert all(
        len(site.carrier.submits_to(number)) == 1
        for number in random.sample(sorted(load.accepted - load.cancelled), 20)
    )
    assert site.carrier.counters.accepted == sum(state == "delivered" for state in states.values())
    await site.check_books()


async def test_stop_under_load_loses_nothing_and_leaves_nothing_in_doubt(open_site: MakeSite, store_url: str) -> None:
    site = await open_site(store_url, {}, CarrierSettings(response_delay_s=0.05))
    await site.be_called_back(batch_max=10)
    await site.berid.start()
    load = Load(site, random.Random(1))
    load.start()
    await site.carrier.until(lambda: site.carrier.counters.accepted > 200, 20)
    began_s = time.monotonic()
    assert await site.berid.stop(LIMIT_S) == 0
    assert time.monotonic() - began_s < LIMIT_S
    await site.berid.start()
    await site.carrier.until(lambda: site.carrier.counters.accepted > 400, 20)
    await load.stop()
    await _all_were_delivered(site, load)


async def test_full_disk_refuses_and_loses_nothing(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url)
    blocks = 4_096  # of 512 bytes, what one file may have
    limited = BeridProcess(
        site.folder, sqlite_url, site.berid.settings, ("/bin/sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh")
    )
    site.processes.append(limited)
    site.berid = limited
    await limited.start()
    load = Load(site, random.Random(1))
    load.start()

    async def refuses() -> bool:
        status, _ = await site.send(load.number())
        return status == 503

    await site.until(refuses, 30)
    assert limited.is_running
    status, _ = await site.call("GET", "/api/v1/balance")
    assert status == 200
    limited.kill()
    site.berid = site.processes[0]
    await site.berid.start()
    await load.stop()
    await site.until_settled(30, but=("scheduled", "uncertain"))
    rows = dict(await site.ask("SELECT recipient, state FROM delivery"))
    assert load.wrong == []
    assert load.accepted <= rows.keys()
    await site.check_books()


@asynccontextmanager
async def _own_server() -> AsyncIterator[pg.Server]:
    with pg.temporary_folder() as folder:
        server = pg.Server(folder, durable=False)
        await asyncio.to_thread(server.start)
        try:
            yield server
        finally:
            server.stop()


@pytest.mark.postgres
async def test_database_that_is_away_is_waited_for(open_site: MakeSite) -> None:
    async with _own_server() as server:
        site = await open_site(server.url, {}, CarrierSettings(response_delay_s=0.05))
        await site.be_called_back(batch_max=10)
        await site.berid.start()
        load = Load(site, random.Random(1))
        load.start()
        await site.carrier.until(lambda: site.carrier.counters.accepted > 200, 20)
        server.stop()
        for _ in range(5):
            status, answer = await site.send("966590001000")
            assert (status, answer["code"]) == (503, "store_away")
            body = {"recipients": [966590001000], "body": "hello", "sender": "Berid"}
            status, answer = await site.call("POST", "/v1/messages", body)
            assert (status, answer["message"]) == (400, "SMS-API not responding , please try again")
            await asyncio.sleep(1.0)
        assert site.berid.is_running
        await asyncio.to_thread(server.start)
        seen = site.carrier.counters.accepted
        await site.carrier.until(lambda: site.carrier.counters.accepted > seen + 200, 30)
        await load.stop()
        await _all_were_delivered(site, load)
        site.berid.kill()


async def test_plan_that_came_due_while_we_were_down_is_held(open_site: MakeSite, sqlite_url: str) -> None:
    site = await open_site(sqlite_url, {"BERID_DISPATCH_LATE_SCHEDULE_LIMIT_S": "1"})
    await site.berid.start()
    late = await site.accepted("966500001000", send_at=int(time.time() * 1000) + 1_000)
    future = await site.accepted("966500001001", send_at=int(time.time() * 1000) + 3_600_000)
    copy = site.folder / "copy"
    await backup.backup(site.database_url, copy, SystemClock())
    site.berid.kill()
    await asyncio.sleep(5.0)
    await site.berid.start()
    held = await site.until_state(late["id"], "held")
    assert held["deliveries"][0]["reason"] == "late_schedule"
    assert await site.state(future["id"]) == "scheduled"
    site.berid.kill()

    # The same from a backup, in which the plan was still to come.
    restored = f"sqlite:///{site.folder}/restored.db"
    await backup.restore(copy, restored, SystemClock())
    again = BeridProcess(site.folder, restored, site.berid.settings)
    site.processes.append(again)
    site.berid, site.database_url = again, restored
    await again.start()
    await site.until_state(late["id"], "held")
    made = await site.accepted("966500001002")
    await site.until_state(made["id"], "delivered")
    assert [submitted.pdu.destination_addr for submitted in site.carrier.submits] == ["966500001002"]
