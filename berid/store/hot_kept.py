"""What both databases have in common: a group keeps what it writes, and believes what it would have to read.

What a verb writes is kept until something must see it, at the latest until the commit, and then goes to the database in one
piece. And what a group would have to read first is, as a rule, known already: what a wallet holds, since this process left it
so, and that an idempotency key, or a carrier's id, has not been used. It is believed, and the same piece finds out whether
that was right (`Belief`). So a group of ordinary work asks the database once, and while that works on it, the interpreter
works on the next group, which believes what this one will have done.

A piece changes a row once, and its parts need not see one another. `KeptTx` therefore remembers what it has kept a change for,
and writes before it reads or changes that again.

What a group must read, it reads in an open transaction, for which it waits until the groups before it are on disk.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from berid.domain.otp import Recent
from berid.domain.spending import Spent
from berid.store.hot import HOT_COLUMNS, NOTHING_KNOWN, LeasedJob, StoreConflict, Tracked

KEYS_KEPT = 20_000
"""Idempotency keys that are remembered as used: a customer who repeats a request does so soon."""

WALLETS_KEPT = 10_000
"""Wallets that are remembered as this process left them."""

CHANGED = (
    "state", "reason", "money", "connector_id", "parts_left", "carrier_ids", "sent_ms", "final_ms", "expires_ms",
    "report_ms", "report_code", "in_doubt",
)  # fmt: skip
"""The columns of a delivery that `HotTx.change` writes."""

PROOFS = {
    "message": ("id",),
    "delivery": ("id",),
    "ledger_entry": ("id",),
    "event": ("delivery_id", "id"),
    "callback": ("id",),
    "callback_try": ("callback_id", "id"),
    "idempotency": ("application_id", "key"),
    "inbound": ("id",),
}
"""Tables whose new rows nobody removes at once, with their keys: after a lost answer, the presence of one tells that all was
committed."""


class Belief:
    """What this process takes to be so until the database finds out: what wallets hold, which idempotency keys are used, and that
    carriers' ids are new, as it will be when all groups that were decided are on disk.

    After a group that came to nothing so many groups read as `careful` says: who shares wallets with another process would be
    wrong again at once.
    """

    def __init__(self, careful: int) -> None:
        self._careful = careful
        self._careful_for = 0
        self._wallets: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._used: OrderedDict[tuple[int, str], None] = OrderedDict()
        self.version = 0
        """Another one, when groups that were decided by the one before may have been wrong."""

    def doubt(self) -> None:
        """A group came to nothing."""
        self.version += 1
        self._wallets.clear()
        self._careful_for = self._careful

    @property
    def is_careful(self) -> bool:
        """Whether nothing is believed for a while."""
        return self._careful_for > 0

    def confirm(self) -> None:
        """A group is on disk."""
        if self._careful_for:
            self._careful_for -= 1

    def wallets(self, ids: Collection[int]) -> dict[int, tuple[int, int]] | None:
        """What these wallets hold, None if that must be read."""
        if self.is_careful or not self._wallets.keys() >= set(ids):
            return None
        return {wallet_id: self._wallets[wallet_id] for wallet_id in ids}

    def learn_wallets(self, found: dict[int, tuple[int, int]]) -> None:
        """What was read where nobody else could change it."""
        self._wallets.update(found)
        while len(self._wallets) > WALLETS_KEPT:
            self._wallets.popitem(last=False)

    def move(self, wallet_id: int, available: int) -> None:
        """A group changes what a wallet has available."""
        if wallet_id in self._wallets:
            before, credit = self._wallets[wallet_id]
            self._wallets[wallet_id] = (before + available, credit)

    def are_new(self, keys: Collection[tuple[int, str]]) -> bool:
        """Whether none of these keys seems to be used."""
        return not self.is_careful and self._used.keys().isdisjoint(keys)

    def learn_used(self, keys: Iterable[tuple[int, str]]) -> None:
        """Keys that are in the table, or will be if a group comes to something."""
        self._used.update(dict.fromkeys(keys))
        while len(self._used) > KEYS_KEPT:
            self._used.popitem(last=False)


class Turn:
    """Who may write: groups, one or several in a row, or one ordinary transaction, in the order in which they asked."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._groups = 0
        """How many groups hold it together."""
        self._others = 0
        """How many transactions wait for it."""

    async def enter(self) -> None:
        """A group takes it, together with the groups that have it if nobody else waits."""
        if not self._groups or self._others:
            await self._lock.acquire()
        self._groups += 1

    def leave(self) -> None:
        """A group gives it back."""
        self._groups -= 1
        if not self._groups:
            self._lock.release()

    async def __aenter__(self) -> None:
        """Anybody else takes it for himself."""
        self._others += 1
        try:
            await self._lock.acquire()
        finally:
            self._others -= 1

    async def __aexit__(self, *_: object) -> None:
        """And gives it back."""
        self._lock.release()


class KeptTx(ABC):
    """The statements of one group. See `HotTx` for what each one promises.

    It takes part in `turn` from the first thing it asks of the database until its commit or rollback. What it reads, it reads
    after `ahead` is set.
    """

    def __init__(self, belief: Belief, turn: Turn, ahead: asyncio.Event | None) -> None:
        self.has_begun = False
        """Whether a transaction is open. What writes once and reads nothing needs none: it commits itself."""
        self.proof: tuple[str, tuple[Any, ...]] | None = None
        """What is there once this group is committed, and only then: a key of one of `PROOFS`, or, as ("start",
        (connector, ids)), a delivery that it started."""
        self._belief = belief
        self.version = belief.version
        """Of the belief by which it is decided."""
        self._turn = turn
        self._ahead = ahead
        self._has_turn = False
        self._believed: dict[int, tuple[int, int]] = {}
        """What wallets were taken to hold before this group, until the database finds out."""
        self._new_keys: set[tuple[int, str]] = set()
        """Idempotency keys that were taken to be unused, until the database finds out."""
        self._kept: dict[str, list[tuple[Any, ...]]] = {}
        """Rows to be written, by part."""
        self._touched: dict[str, set[Any]] = {"delivery": set(), "job": set(), "carrier_ref": set(), "otp": set()}
        """Of the tables whose rows change: the keys of those for which something is kept."""
        self._money: dict[int, list[int]] = {}
        self._spent: Spent = {}
        self._starting: dict[int, dict[int, Tracked]] = {}
        """Delivery to be started → where its row is to go."""
        self._known: dict[int, Tracked] = {}
        """Those of them that need not be read."""

    # To be given by each database.

    @abstractmethod
    async def ask(self, query: str, **values: Any) -> list[Any]:
        """The rows of one of the database's queries, by name, in a transaction. A value may be a list, of plain values or of
        tuples."""

    @abstractmethod
    async def open(self) -> None:
        """Open a transaction on the connection. Raises `StoreAway`."""

    @abstractmethod
    async def write(self, kept: dict[str, list[tuple[Any, ...]]]) -> None:
        """Write what was kept, by part, in the open transaction, and find out about what was believed. Raises `StoreConflict`
        when it is not so."""

    @abstractmethod
    async def lease_round(
        self, lane: str, priority: int, room: int, now_ms: int, until_ms: int, slot: int, after_account: int
    ) -> tuple[list[LeasedJob], bool]:
        """A round of `HotTx.lease`: a share of the room for each account. The second says whether an account had more than
        that."""

    # The course of a group.

    async def take_turn(self, waits: bool) -> None:
        """Have a turn; if `waits`, when the groups before are on disk. Raises `StoreConflict` if one of them came to nothing:
        what was decided here may have counted on it."""
        if not self._has_turn:
            if waits and self._ahead is not None:
                await self._ahead.wait()
            await self._turn.enter()
            self._has_turn = True
        if self.version != self._belief.version:
            raise StoreConflict("a group before this one came to nothing")

    def end(self, is_committed: bool) -> None:
        """The group is on disk, or it came to nothing."""
        if is_committed:
            self._belief.confirm()
        else:
            self._belief.doubt()
        if self._has_turn:
            self._has_turn = False
            self._turn.leave()

    async def begin(self) -> None:
        """Open a transaction, if none is open."""
        if not self.has_begun:
            await self.take_turn(waits=True)
            await self.open()
            self.has_begun = True

    async def flush(self) -> None:
        """Write, in an open transaction, everything that was kept."""
        await self.begin()
        kept = self.taken()
        if kept:
            await self.write(kept)

    def taken(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that was kept, by part, to be written now."""
        kept, self._kept = self._kept, {}
        for keys in self._touched.values():
            keys.clear()
        believed, self._believed = self._believed, {}
        for wallet_id in believed:
            self._money.setdefault(wallet_id, [0, 0, 0])
        if self._money or self._spent:
            kept["money"] = [
                (*change, wallet_id, *believed.get(wallet_id, (None, None)))
                for wallet_id, change in sorted(self._money.items())
            ]
            self._money = {}
        if self._spent:
            kept["spend"] = [(*key, micros) for key, micros in sorted(self._spent.items())]
            self._spent = {}
        if self._new_keys:
            kept["unused_key"] = list(self._new_keys)
            self._new_keys = set()
        for part, rows in kept.items():
            if part in ("start", "start_known"):
                # Any of them: some may no longer have been waiting. Nobody else starts them on this connector.
                self.proof = ("start", (rows[0][1], [row[0] for row in rows]))
            elif part in PROOFS:
                self.proof = (part, tuple(rows[0][HOT_COLUMNS[part].index(key)] for key in PROOFS[part]))
        return kept

    @property
    def starting(self) -> list[int]:
        """The deliveries that are to be started by what is being written."""
        return list(self._starting)

    def take_started(self, rows: Iterable[Tracked]) -> None:
        """Give those who asked for it what was started: of these rows, those that are *sending*."""
        for row in rows:
            if row.state == "sending":
                self._starting[row.id][row.id] = row

    def take_started_known(self, found: Iterable[tuple[int, int]]) -> None:
        """Give those who asked for it what was started and need not be read: (id, validity)."""
        for delivery_id, expires_ms in found:
            row = self._known[delivery_id]
            row.expires_ms = expires_ms
            self._starting[delivery_id][delivery_id] = row

    async def _before(self, table: str, keys: Iterable[Any]) -> None:
        """To be called before these rows are read or changed: what is kept for them is written first."""
        if not self._touched[table].isdisjoint(keys):
            await self.flush()

    async def _keep(self, part: str, table: str, rows: dict[Any, tuple[Any, ...]]) -> None:
        """Keep a change of existing rows, by their keys and in the order of these."""
        if not rows:
            return
        await self._before(table, rows)
        self._touched[table].update(rows)
        self._kept.setdefault(part, []).extend(rows[key] for key in sorted(rows))

    # The statements.

    async def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """See `HotTx.insert`."""
        if table == "carrier_ref":
            part = "replace_ref" if self._belief.is_careful else table
            await self._keep(part, table, {(row[1], row[0]): row for row in rows})
            return
        if table == "idempotency":
            self._belief.learn_used(row[:2] for row in rows)
            new = [row for row in rows if row[:2] in self._new_keys]
            if new:
                rows = [row for row in rows if row[:2] not in self._new_keys]
                self._new_keys.difference_update(row[:2] for row in new)
                self._kept.setdefault("new_key", []).extend(new)
        if table in self._touched:
            self._touched[table].update(map(itemgetter(0), rows))
        if rows:
            self._kept.setdefault(table, []).extend(rows)

    async def idempotent(self, keys: Iterable[tuple[int, str]]) -> dict[tuple[int, str], tuple[str, str]]:
        """See `HotTx.idempotent`."""
        pairs = list(keys)
        if not self.has_begun and self._belief.are_new(pairs):
            self._new_keys.update(pairs)
            return {}
        if not self._kept.keys().isdisjoint(("idempotency", "new_key")):
            await self.flush()
        rows = await self.ask("idempotent", keys=pairs) if pairs else ()
        found = {(row[0], row[1]): (row[2], row[3]) for row in rows}
        self._belief.learn_used(found)
        return found

    async def wallets(self, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """See `HotTx.wallets`."""
        wanted = set(ids)
        if not self.has_begun and (believed := self._belief.wallets(wanted)) is not None:
            for wallet_id, (available, credit) in believed.items():
                if wallet_id not in self._believed:
                    moved = self._money.get(wallet_id, (0,))[0]
                    self._believed[wallet_id] = (available - moved, credit)
            return believed
        if self._money or self._believed:
            await self.flush()
        found = {row[0]: (row[1], row[2]) for row in await self.ask("wallets", ids=list(wanted))}
        self._belief.learn_wallets(found)
        return found

    async def move_money(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """See `HotTx.move_money`."""
        for available, held, spent, wallet_id in rows:
            total = self._money.setdefault(wallet_id, [0, 0, 0])
            total[0] += available
            total[1] += held
            total[2] += spent
            self._belief.move(wallet_id, available)

    async def spent(self, wallet_ids: Iterable[int], since_day: int) -> Spent:
        """See `HotTx.spent`. What is believed of wallets is found out first; from there to the commit nobody else can spend."""
        if self._spent or self._believed:
            await self.flush()
        return {
            (row[0], row[1], row[2]): row[3]
            for row in await self.ask("spent", ids=list(wallet_ids), since_day=since_day)
        }

    async def add_spent(self, spent: Spent) -> None:
        """See `HotTx.add_spent`."""
        for key, micros in spent.items():
            self._spent[key] = self._spent.get(key, 0) + micros

    async def codes(self, places: Iterable[tuple[int, str, str]], since_ms: int) -> dict[tuple[int, str, str], Recent]:
        """See `HotTx.codes`."""
        if self._touched["otp"]:
            await self.flush()
        return {
            tuple(row[:3]): Recent(*row[3:]) for row in await self.ask("codes", places=list(places), since_ms=since_ms)
        }

    async def replace_codes(self, rows: Sequence[tuple[int, str, str, int]]) -> None:
        """See `HotTx.replace_codes`."""
        await self._keep("replace", "otp", {row[:3]: row for row in rows})

    async def start_sending(
        self, ids: Sequence[int], connector_id: int, now_ms: int, known: Mapping[int, Tracked] = NOTHING_KNOWN
    ) -> dict[int, Tracked]:
        """See `HotTx.start_sending`."""
        started: dict[int, Tracked] = {}
        for part, mine in (("start_known", known), ("start", [each for each in ids if each not in known])):
            await self._keep(part, "delivery", {identifier: (identifier, connector_id, now_ms) for identifier in mine})
        self._known.update(known)
        self._starting.update(dict.fromkeys(ids, started))
        return started

    async def tracked(self, ids: Sequence[int]) -> list[Tracked]:
        """See `HotTx.tracked`."""
        await self._before("delivery", ids)
        return list(map(_tracked, await self.ask("tracked", ids=ids)))

    async def tracked_by_key(self, connector_id: int, keys: Sequence[str]) -> list[Tracked]:
        """See `HotTx.tracked_by_key`."""
        await self._before("carrier_ref", [(key, connector_id) for key in keys])
        rows = await self.ask("tracked_by_key", keys=keys, connector_id=connector_id)
        if not self._touched["delivery"].isdisjoint([row[0] for row in rows]):
            await self.flush()
            rows = await self.ask("tracked_by_key", keys=keys, connector_id=connector_id)
        return list(map(_tracked, rows))

    async def uncertain(self, connector_id: int, recipients: Sequence[str]) -> list[Tracked]:
        """See `HotTx.uncertain`."""
        await self.flush()
        return list(map(_tracked, await self.ask("uncertain", recipients=recipients, connector_id=connector_id)))

    async def change(self, rows: Sequence[Tracked]) -> None:
        """See `HotTx.change`."""
        await self._keep("change", "delivery", {row.id: _changed(row) for row in rows})

    async def forget_keys(self, connector_id: int, keys: Sequence[str]) -> None:
        """See `HotTx.forget_keys`."""
        await self._keep("forget", "carrier_ref", {(key, connector_id): (key, connector_id) for key in keys})

    async def take_parked(self, connector_id: int, keys: Sequence[str]) -> list[tuple[str, str]]:
        """See `HotTx.take_parked`."""
        return await self._parked("take_parked", keys=keys, connector_id=connector_id)

    async def take_parked_of(self, connector_id: int, recipient: str, since_ms: int) -> list[tuple[str, str]]:
        """See `HotTx.take_parked_of`."""
        return await self._parked("take_parked_of", recipient=recipient, connector_id=connector_id, since_ms=since_ms)

    async def _parked(self, query: str, **values: Any) -> list[tuple[str, str]]:
        if "parked_report" in self._kept:
            await self.flush()
        rows = await self.ask(query, **values)
        return [(row[0], row[1]) for row in sorted(rows, key=itemgetter(2))]

    async def take_parts(self, keys: Iterable[tuple[int, str, str, int]]) -> list[tuple[Any, ...]]:
        """See `HotTx.take_parts`."""
        wanted = list(keys)
        await self.flush()
        return list(map(tuple, await self.ask("take_parts", keys=wanted))) if wanted else []

    async def erase_bodies(self, message_ids: Sequence[int]) -> None:
        """See `HotTx.erase_bodies`."""
        await self.flush()
        await self.ask("erase_bodies", ids=message_ids)

    async def lease(
        self, lane: str, priority: int, room: int, now_ms: int, until_ms: int, slot: int, after_account: int
    ) -> list[LeasedJob]:
        """See `HotTx.lease`."""
        leased_at = HOT_COLUMNS["job"].index("lease_until_ms")
        if not self._kept.keys().isdisjoint(("done", "again", "bury")) or not all(
            row[leased_at] for row in self._kept.get("job", ())
        ):
            await self.flush()
        found: list[LeasedJob] = []
        has_more = True
        while has_more and (wanted := room - len(found)):
            jobs, has_more = await self.lease_round(lane, priority, wanted, now_ms, until_ms, slot, after_account)
            found += jobs
        return found

    async def jobs_done(self, ids: Sequence[int]) -> None:
        """See `HotTx.jobs_done`."""
        await self._keep("done", "job", {identifier: (identifier,) for identifier in ids})

    async def jobs_again(self, rows: Sequence[tuple[str, str, int, int, int]]) -> None:
        """See `HotTx.jobs_again`."""
        await self._keep("again", "job", {row[-1]: row for row in rows})

    async def jobs_bury(self, rows: Sequence[tuple[int, str, int]]) -> None:
        """See `HotTx.jobs_bury`."""
        await self._keep("bury", "job", {row[-1]: row for row in rows})

    async def outgoing(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """See `HotTx.outgoing`."""
        await self._before("delivery", ids)
        return list(map(tuple, await self.ask("outgoing", ids=ids)))

    async def callbacks(self, ids: Sequence[int]) -> list[tuple[int, int, int, str, str, int, int]]:
        """See `HotTx.callbacks`."""
        if "callback" in self._kept:
            await self.flush()
        return list(map(tuple, await self.ask("callbacks", ids=ids)))

    async def open_messages(self, ids: Sequence[int]) -> None:
        """See `HotTx.open_messages`."""
        await self.flush()
        await self.ask("open_messages", ids=ids)

    async def drop_loading(self, ids: Sequence[int], until_id: int) -> list[tuple[int, int, int, int, int, int, int]]:
        """See `HotTx.drop_loading`."""
        await self.flush()
        self.proof = None  # it may have been one of the rows that go now
        return list(map(tuple, await self.ask("drop_loading", ids=ids, until_id=until_id)))

    async def spread(self, message_id: int, after_id: int, limit: int, now_ms: int) -> int:
        """See `HotTx.spread`."""
        await self.flush()
        rows = await self.ask("spread", message_id=message_id, after_id=after_id, limit=limit, now_ms=now_ms)
        return int(rows[0][0])


def _tracked(row: Sequence[Any]) -> Tracked:
    return Tracked(*row)


def _changed(row: Tracked) -> tuple[Any, ...]:
    """A row of the part `change`: the columns of `CHANGED`, then by what the delivery is found and told to be as it was left."""
    return (
        row.state,
        row.reason,
        row.money,
        row.connector_id,
        row.parts_left,
        row.carrier_ids,
        row.sent_ms,
        row.final_ms,
        row.expires_ms,
        row.report_ms,
        row.report_code,
        int(row.state == "uncertain"),
        row.id,
        row.attempt,
        row.left_as,
    )
