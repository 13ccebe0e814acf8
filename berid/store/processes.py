"""Who is alive: id slots, the beat, and the leases by which exactly one process runs a connector.

A lease is renewed every few seconds and ends by itself. Its holder stops using what it stands for *before* it ends,
so that the next holder never overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from berid.base.clock import Clock
from berid.base.ids import SLOTS, first_id_at
from berid.store import Tx
from berid.store.tables import connector_lease, meta, metadata, process

LEASE_MS = 12_000
"""How long a process may be silent before its slot and connectors go to another."""

RENEW_S = 3.0
"""How often leases are renewed."""

HOLD_S = LEASE_MS / 1000 - RENEW_S
"""How long after the moment of its last renewal a process may use what it holds. The rest of the lease is for clocks of two
machines that do not agree."""


class Watch:
    """Tells who is dead from whether he renews, not from what the clocks say.

    A beat is what its sender says that he lives until, and changes every few seconds. One that has stayed the same for the
    length of a lease while we looked on is a dead process's. Only who has just come must believe what is written in it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.ticks_s()
        self._seen: dict[int, tuple[object, float]] = {}

    def is_dead(self, who: int, sign: object, until_ms: int) -> bool:
        """Whether `who` is dead, whose last beat shows `sign` (any value that changes with each) and holds until `until_ms`."""
        now_s = self._clock.ticks_s()
        seen, since_s = self._seen.get(who, (None, now_s))
        if seen != sign:
            since_s = now_s
            self._seen[who] = (sign, now_s)
        if now_s - self._began_s < LEASE_MS / 1000:
            return until_ms < self._clock.now_ms()
        return now_s - since_s > LEASE_MS / 1000


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


@dataclass(frozen=True, slots=True)
class Lease:
    """Who runs a connector, and until when if he does not renew. Each renewal makes another value of it."""

    slot: int
    until_ms: int


async def lease_of(tx: Tx, connector_id: int) -> Lease | None:
    """The lease of a connector; None if nobody has one."""
    lease = connector_lease.c
    row = (await tx.execute(select(lease.slot, lease.until_ms).where(lease.connector_id == connector_id))).first()
    return None if row is None else Lease(*row)


async def take_connector(tx: Tx, connector_id: int, slot: int, now_ms: int, found: Lease | None) -> bool:
    """Take a connector whose lease was found to be `found`. True if it is ours now, False if the lease has changed since."""
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    lease = connector_lease.c
    statement = insert(connector_lease).values(connector_id=connector_id, slot=slot, until_ms=now_ms + LEASE_MS)
    if found is None:
        taken = await tx.execute(statement.on_conflict_do_nothing(index_elements=[lease.connector_id]))
    else:
        taken = await tx.execute(
            statement.on_conflict_do_update(
                index_elements=[lease.connector_id],
                set_={"slot": slot, "until_ms": now_ms + LEASE_MS},
                where=and_(lease.slot == found.slot, lease.until_ms == found.until_ms),
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


async def beats(tx: Tx) -> dict[int, int]:
    """The slots in use, with until when their holders say that they live."""
    return {row.slot: row.alive_until_ms for row in await tx.execute(select(process.c.slot, process.c.alive_until_ms))}


async def last_alive_ms(tx: Tx) -> int:
    """When any process last said that it lives; 0 for a new store."""
    found = (await tx.execute(select(meta.c.value).where(meta.c.key == "alive_ms"))).scalar()
    return int(found) if found else 0


async def restored_ms(tx: Tx) -> int:
    """When this store was brought back from a backup and nobody has started on it since; 0 otherwise."""
    found = (await tx.execute(select(meta.c.value).where(meta.c.key == "restored_ms"))).scalar()
    return int(found) if found else 0


async def forget_restore(tx: Tx) -> None:
    """What was due when the store was brought back has been seen to."""
    await tx.execute(delete(meta).where(meta.c.key.in_(("backup_ms", "restored_ms"))))


async def largest_id(tx: Tx) -> int:
    """An id that no id is larger than: new ones start above it, even if the clock was set back.

    Journals have no index that tells their largest id; the last beat stands for them.
    """
    keyed = [table.c.id for table in metadata.tables.values() if table.primary_key.columns.keys() == ["id"]]
    largest = (await tx.execute(select(*(select(func.max(column)).scalar_subquery() for column in keyed)))).one()
    return max(first_id_at(await last_alive_ms(tx)), *(found or 0 for found in largest))
