"""Who is alive: id slots, the beat, and the leases by which exactly one process runs a connector.

A lease is renewed every few seconds and ends by itself. Its holder stops using what it stands for *before* it ends,
so that the next holder never overlaps.
"""

from __future__ import annotations

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from berid.base.ids import SLOTS
from berid.store import Tx
from berid.store.tables import connector_lease, delivery, message, meta, process

LEASE_MS = 12_000
"""How long a process may be silent before its slot and connectors go to another."""

RENEW_S = 3.0
"""How often leases are renewed."""

HOLD_S = LEASE_MS / 1000 - RENEW_S
"""How long after the moment of its last renewal a process may use what it holds. The rest of the lease is for clocks of two
machines that do not agree."""


class NoSlot(Exception):
    """All id slots are held by live processes."""


async def claim_slot(tx: Tx, name: str, now_ms: int) -> int:
    """Take a free id slot, or one whose holder has been silent too long. Raises `NoSlot`."""
    for slot in range(SLOTS):
        if await _put(tx, slot, name, now_ms):
            return slot
    raise NoSlot(f"all {SLOTS} process slots are in use")


async def _put(tx: Tx, slot: int, name: str, now_ms: int) -> bool:
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    statement = insert(process).values(slot=slot, name=name, alive_until_ms=now_ms + LEASE_MS)
    taken = await tx.execute(
        statement.on_conflict_do_update(
            index_elements=[process.c.slot],
            set_={"name": name, "alive_until_ms": now_ms + LEASE_MS},
            where=process.c.alive_until_ms < now_ms,
        )
    )
    return bool(taken.rowcount)


async def renew(tx: Tx, slot: int, name: str, now_ms: int) -> set[int] | None:
    """Say that this process lives, and keep its slot and connectors. Returns the connectors that are still its own: one whose
    lease had run out may have been taken. None: another has taken the slot."""
    kept = await tx.execute(
        update(process).where(process.c.slot == slot, process.c.name == name).values(alive_until_ms=now_ms + LEASE_MS)
    )
    if not kept.rowcount:
        return None
    held = await tx.execute(
        update(connector_lease)
        .where(connector_lease.c.slot == slot)
        .values(until_ms=now_ms + LEASE_MS)
        .returning(connector_lease.c.connector_id)
    )
    connectors = set(held.scalars())
    changed = await tx.execute(update(meta).where(meta.c.key == "alive_ms").values(value=str(now_ms)))
    if not changed.rowcount:
        await tx.execute(meta.insert().values(key="alive_ms", value=str(now_ms)))
    return connectors


async def leave(tx: Tx, slot: int, name: str) -> None:
    """Give slot and connectors back, at an orderly end."""
    await tx.execute(delete(connector_lease).where(connector_lease.c.slot == slot))
    await tx.execute(delete(process).where(process.c.slot == slot, process.c.name == name))


async def leave_all(tx: Tx) -> None:
    """Give every slot and connector back, whoever held them: for a store that only one process can have open."""
    await tx.execute(delete(connector_lease))
    await tx.execute(delete(process))


async def take_connector(tx: Tx, connector_id: int, slot: int, now_ms: int) -> bool:
    """Take the lease of a connector that nobody runs. True if it is ours now."""
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    statement = insert(connector_lease).values(connector_id=connector_id, slot=slot, until_ms=now_ms + LEASE_MS)
    taken = await tx.execute(
        statement.on_conflict_do_update(
            index_elements=[connector_lease.c.connector_id],
            set_={"slot": slot, "until_ms": now_ms + LEASE_MS},
            where=or_(connector_lease.c.until_ms < now_ms, connector_lease.c.slot == slot),
        )
    )
    return bool(taken.rowcount)


async def give_connector(tx: Tx, connector_id: int, slot: int) -> None:
    """Give a connector's lease back."""
    await tx.execute(
        delete(connector_lease).where(
            and_(connector_lease.c.connector_id == connector_id, connector_lease.c.slot == slot)
        )
    )


async def last_alive_ms(tx: Tx) -> int:
    """When any process last said that it lives; 0 for a new store."""
    found = (await tx.execute(select(meta.c.value).where(meta.c.key == "alive_ms"))).scalar()
    return int(found) if found else 0


async def largest_id(tx: Tx) -> int:
    """An id that no id is larger than: new ones start above it, even if the clock was set back."""
    first = (await tx.execute(select(func.max(message.c.id)))).scalar() or 0
    second = (await tx.execute(select(func.max(delivery.c.id)))).scalar() or 0
    return max(first, second)
