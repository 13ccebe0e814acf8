"""Who holds jobs, and when others may have them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert

from berid.base.clock import SystemClock
from berid.store import Tx, jobs, open_store, tables
from tests.support.database import ask

NOW_MS = 1_000_000


async def put_job(tx: Tx, **columns: Any) -> None:
    """A job to dispatch, of account 1 if nothing else is said."""
    await tx.execute(insert(tables.job).values(**{"kind": "dispatch", "account_id": 1, **columns}))


async def test_jobs_of_the_dead_are_given_back_and_those_of_the_living_kept(store_url: str) -> None:
    store = await open_store(store_url, SystemClock())
    async with store.transaction() as tx:
        for identifier, slot, lease_ms in (
            (10, 1, NOW_MS + 50),
            (11, 2, NOW_MS + 50),
            (12, 3, NOW_MS + 50),
            (13, 0, 0),
        ):
            await put_job(
                tx,
                id=identifier,
                lane="c1",
                slot=slot,
                lease_until_ms=lease_ms,
                attempts=int(lease_ms > 0),
            )
    async with store.transaction() as tx:
        assert await jobs.free_leases_of_others(tx, {1}) == 2
    await store.close()
    held = await ask(store_url, "SELECT id, slot, lease_until_ms FROM job ORDER BY id")
    assert held == [(10, 1, NOW_MS + 50), (11, 0, 0), (12, 0, 0), (13, 0, 0)]


async def test_what_is_sending_is_found_whoever_has_its_lease(store_url: str) -> None:
    store = await open_store(store_url, SystemClock())
    async with store.transaction() as tx:
        for identifier, connector_id, state, attempts, lease_ms in (
            (10, 1, "sending", 1, NOW_MS + 50),
            (11, 1, "sending", 1, 0),  # its lease ran out, or it was given back
            (12, 1, "sent", 1, NOW_MS + 50),
            (13, 1, "queued", 0, 0),
            (14, 2, "sending", 1, NOW_MS + 50),
        ):
            await tx.execute(
                insert(tables.delivery).values(id=identifier, account_id=1, connector_id=connector_id, state=state)
            )
            await put_job(
                tx,
                id=identifier,
                lane=f"c{connector_id}",
                lease_until_ms=lease_ms,
                attempts=attempts,
            )
    async with store.read() as tx:
        assert sorted(await jobs.found_sending(tx, 1, 9)) == [10, 11]
        assert len(await jobs.found_sending(tx, 1, 1)) == 1
    await store.close()


async def test_lanes_with_due_work_are_told_with_its_priority(store_url: str) -> None:
    store = await open_store(store_url, SystemClock())
    rows = (
        # lane, priority, account, due, leased, buried
        ("c1", 2, 1, 0, 0, 0),
        ("c1", 1, 1, 100, 0, 0),  # its time has not come
        ("c1", 1, 2, 100, 0, 0),
        ("c2", 0, 1, 100, 0, 0),
        ("c2", 0, 2, 50, 0, 0),  # behind another account's that is not due
        ("c2", 0, 3, 100, 0, 0),
        ("c3", 1, 1, 0, 70, 0),  # somebody has it
        ("c4", 1, 1, 0, 0, 60),  # a person must look at it
        ("clock", 1, 1, 0, 0, 0),
        ("hexample.com", 1, 1, 0, 0, 0),
    )
    async with store.transaction() as tx:
        for identifier, (lane, priority, account_id, due_ms, leased_ms, buried_ms) in enumerate(rows, 10):
            await put_job(
                tx,
                id=identifier,
                lane=lane,
                priority=priority,
                account_id=account_id,
                due_ms=due_ms,
                lease_until_ms=leased_ms,
                attempts=int(leased_ms > 0),
                buried_ms=buried_ms,
            )
    async with store.read() as tx:
        assert sorted(await jobs.due_lanes(tx, "c", 50)) == [("c1", 2), ("c2", 0), ("clock", 1)]
        assert await jobs.due_lanes(tx, "h", 50) == [("hexample.com", 1)]
        assert sorted(await jobs.due_lanes(tx, "c", 49)) == [("c1", 2), ("clock", 1)]
    await store.close()


async def test_jobs_are_counted_page_by_page_without_those_set_aside(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "COUNTED", 3)
    store = await open_store(store_url, SystemClock())
    async with store.transaction() as tx:
        for identifier, lane, priority, due_ms, buried_ms in (
            (10, "c1", 2, NOW_MS + 7, 0),
            (11, "c1", 2, NOW_MS, 0),
            (12, "c1", 0, NOW_MS, 0),
            (13, "c1", 2, NOW_MS, NOW_MS),
            (14, "c2", 2, NOW_MS, 0),
        ):
            await put_job(
                tx,
                id=identifier,
                lane=lane,
                priority=priority,
                due_ms=due_ms,
                buried_ms=buried_ms,
            )
    async with store.read() as tx:
        first, after = await jobs.depths(tx, 0)
        second, end = await jobs.depths(tx, after)
        nothing, _ = await jobs.depths(tx, 14)
    await store.close()
    assert sorted(first) == [("c1", 0, 1, NOW_MS), ("c1", 2, 2, NOW_MS)]
    assert after == 12
    assert second == [("c2", 2, 1, NOW_MS)]
    assert end == 0
    assert nothing == []
