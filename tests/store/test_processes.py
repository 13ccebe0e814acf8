"""Who is alive: slots, connectors' leases, and what a process that was silent for too long finds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert

from berid.base.clock import SystemClock
from berid.base.ids import EPOCH_MS, SLOTS, IdMaker, first_id_at, made_ms
from berid.store import Store, open_store, processes, tables
from berid.store.processes import LEASE_MS, Lease, NoSlot

NOW_MS = 1_790_000_000_000
LATER_MS = NOW_MS + LEASE_MS + 1


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = await open_store(store_url, SystemClock())
    yield opened
    await opened.close()


async def test_each_process_has_a_slot_of_its_own(store: Store) -> None:
    async with store.transaction() as tx:
        slots = [await processes.claim_slot(tx, str(number), NOW_MS) for number in range(SLOTS)]
    assert slots == list(range(SLOTS))
    async with store.transaction() as tx:
        with pytest.raises(NoSlot):
            await processes.claim_slot(tx, "one more", NOW_MS)
        assert await processes.claim_slot(tx, "one more", LATER_MS) == 0


async def test_beat_keeps_slot_and_connectors(store: Store) -> None:
    async with store.transaction() as tx:
        slot = await processes.claim_slot(tx, "mine", NOW_MS)
        assert await processes.take_connector(tx, 7, slot, NOW_MS, None)
        found = await processes.lease_of(tx, 7)
        assert found == Lease(slot, NOW_MS + LEASE_MS)
        assert await processes.renew(tx, slot, "mine", NOW_MS + LEASE_MS - 1) == {7}
        other = await processes.claim_slot(tx, "other", LATER_MS)
        assert other != slot
        assert not await processes.take_connector(tx, 7, other, LATER_MS, found)
        assert not await processes.take_connector(tx, 7, other, LATER_MS, None)
        assert await processes.last_alive_ms(tx) == NOW_MS + LEASE_MS - 1


async def test_silent_process_learns_which_connectors_were_taken(store: Store) -> None:
    async with store.transaction() as tx:
        slot = await processes.claim_slot(tx, "mine", NOW_MS)
        for connector_id in (7, 8, 9):
            assert await processes.take_connector(tx, connector_id, slot, NOW_MS, None)
        other = await processes.claim_slot(tx, "other", NOW_MS)
        for connector_id in (7, 8):
            found = await processes.lease_of(tx, connector_id)
            assert await processes.take_connector(tx, connector_id, other, LATER_MS, found)
        await processes.give_connector(tx, 8, other)  # even if nobody has it now, somebody had it meanwhile
        assert await processes.renew(tx, slot, "mine", LATER_MS) == {9}


async def test_process_whose_slot_was_taken_learns_it(store: Store) -> None:
    async with store.transaction() as tx:
        slot = await processes.claim_slot(tx, "mine", NOW_MS)
        assert await processes.claim_slot(tx, "next", LATER_MS) == slot
        assert await processes.renew(tx, slot, "mine", LATER_MS) is None
        await processes.leave(tx, slot, "mine")
        assert await processes.renew(tx, slot, "next", LATER_MS) == set()


KEYED = [name for name, table in tables.metadata.tables.items() if table.primary_key.columns.keys() == ["id"]]


@pytest.mark.parametrize("name", KEYED)
async def test_ids_begin_above_whatever_there_is(store: Store, name: str) -> None:
    last = first_id_at(NOW_MS) + 5
    async with store.transaction() as tx:
        table = tables.metadata.tables[name]
        bare = [column for column in table.columns if not column.nullable and column.server_default is None]
        needed = {column.name: column.type.python_type() for column in bare}
        await tx.execute(insert(table).values(**(needed | {"id": last})))
        floor = await processes.largest_id(tx)
    set_back = IdMaker(lambda: NOW_MS - 3_600_000, 5, floor)
    assert set_back.next() > last


async def test_ids_begin_above_the_last_beat_of_any_process(store: Store) -> None:
    async with store.transaction() as tx:
        assert await processes.largest_id(tx) == 0
        slot = await processes.claim_slot(tx, "mine", NOW_MS)
        await processes.renew(tx, slot, "mine", NOW_MS)
        floor = await processes.largest_id(tx)
    assert made_ms(IdMaker(lambda: EPOCH_MS, 0, floor).next()) == NOW_MS
