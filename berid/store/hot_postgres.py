"""The hot path on PostgreSQL: one writing connection, and as few statements in a group as it can do with.

A statement costs a round trip whatever it does: fifty microseconds of ours, as many of the server's, and the wait. So what a
group writes is kept until something must see it, at the latest until the commit, and then travels as one statement with a
part (`_PARTS`) for each kind of change. A part takes its rows as one array of composite values: asyncpg writes those three
times faster than an array for each column. Only many rows of one table go by COPY, which is made for that.

And what a group would have to read first is, as a rule, known already: what a wallet holds, since this process left it so, and
that an idempotency key, or a carrier's id, has not been used. It is believed, and the same statement finds out whether that was
right (`_Belief`). So a group of ordinary work is one statement that commits itself, and while the server works on it, the
interpreter works on what comes next.

One statement changes a row once, and its parts do not see one another. `PostgresTx` therefore remembers what it has kept a
change for, and writes before it reads or changes that again.

Several processes may write at once. Rows are always locked in the order of their ids; where two processes still meet crosswise,
PostgreSQL ends one of them, which is a `StoreConflict`, and `HotStore` repeats its group.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import asyncpg
from sqlalchemy.dialects import postgresql

from berid.base.ids import SLOTS
from berid.domain.otp import Recent
from berid.domain.spending import Spent
from berid.store.hot import (
    DELIVERY_COLUMNS,
    HOT_COLUMNS,
    MAY_LEAVE,
    TRACKED_COLUMNS,
    LeasedJob,
    RowRefused,
    StoreAway,
    StoreConflict,
    Tracked,
)
from berid.store.tables import metadata

CONNECT_TIMEOUT_S = 3.0
"""A server that is there answers in milliseconds, also over a network; callers wait while we try."""

STATEMENT_TIMEOUT_S = 20.0
"""A hot statement takes milliseconds; one that takes this long has a dead network or a stuck disk under it."""

LOCK_TIMEOUT_MS = 5_000
"""How long another process may hold a wallet or a delivery; its groups take milliseconds, a schema step seconds."""

ROLLBACK_TIMEOUT_S = 2.0
"""Beyond this the connection is cut instead, which undoes the transaction as well."""

DOUBT_S = 5.0
"""How long to look for the fate of a commit whose answer was lost; a restarting server is back within it."""

_SETTINGS = {
    "application_name": "berid",
    "synchronous_commit": "on",
    "jit": "off",
    "lock_timeout": str(LOCK_TIMEOUT_MS),
    # If this process freezes, others shall have its locks back.
    "idle_in_transaction_session_timeout": "30000",
    # Every hot statement finds its rows by an index. The planner does not know how fast these tables grow between two looks
    # at their statistics, and one plan made while a table was empty would read a million rows soon after.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

COPY_ROWS = 256
"""New rows of one table from which COPY is cheaper than a part of the common statement, although it takes two round trips."""

CAREFUL_GROUPS = 200
"""After a belief that was wrong so many groups read what they would believe: who shares wallets with another process would be
wrong again at once."""

KEYS_KEPT = 20_000
"""Idempotency keys that are remembered as used: a customer who repeats a request does so soon."""

WALLETS_KEPT = 10_000
"""Wallets that are remembered as this process left them."""

_CHANGED = (
    "state", "reason", "money", "connector_id", "parts_left", "carrier_ids", "sent_ms", "final_ms", "expires_ms",
    "report_ms", "report_code",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Part:
    """One kind of change: its rows have these columns of `table`, and `sql` says what is done with them."""

    table: str
    columns: tuple[str, ...]
    sql: str
    more: str = ""
    """Fields of its rows that are no columns, as SQL declares them."""


_PARTS = {
    table: _Part(table, columns, f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {{rows}}")
    for table, columns in HOT_COLUMNS.items()
} | {
    "replace_ref": _Part(
        "carrier_ref",
        HOT_COLUMNS["carrier_ref"],
        f"INSERT INTO carrier_ref ({', '.join(HOT_COLUMNS['carrier_ref'])}) SELECT * FROM {{rows}} "
        "ON CONFLICT (key, connector_id) DO UPDATE SET delivery_id = excluded.delivery_id, part = excluded.part, "
        "sent_ms = excluded.sent_ms",
    ),
    "change": _Part(
        "delivery",
        ("id", "attempt", *_CHANGED),
        f"UPDATE delivery d SET {', '.join(f'{name} = r.{name}' for name in _CHANGED)}, "
        "in_doubt = (r.state = 'uncertain')::int FROM {rows} r "
        "WHERE d.id = r.id AND d.attempt = r.attempt AND r.left_as IN ('', d.state) RETURNING d.id",
        ", left_as text",
    ),
    "start": _Part(
        "delivery",
        ("id", "connector_id"),
        "UPDATE delivery d SET state = 'sending', attempt = attempt + 1, connector_id = r.connector_id FROM {rows} r "
        f"WHERE d.id = r.id AND {MAY_LEAVE} AND expires_ms > r.now_ms "
        f"RETURNING {', '.join(f'd.{name}' for name in DELIVERY_COLUMNS.split(', '))}",
        ", now_ms bigint",
    ),
    "forget": _Part(
        "carrier_ref",
        ("connector_id", "key"),
        "DELETE FROM carrier_ref c USING {rows} r WHERE c.key = r.key AND c.connector_id = r.connector_id",
    ),
    "done": _Part("job", ("id",), "DELETE FROM job j USING {rows} r WHERE j.id = r.id"),
    "again": _Part(
        "job",
        ("kind", "lane", "due_ms", "attempts", "id"),
        "UPDATE job j SET kind = r.kind, lane = r.lane, due_ms = r.due_ms, attempts = r.attempts, lease_until_ms = 0, "
        "slot = 0 FROM {rows} r WHERE j.id = r.id",
    ),
    "bury": _Part(
        "job",
        ("buried_ms", "why", "id"),
        "UPDATE job j SET buried_ms = r.buried_ms, why = r.why, lease_until_ms = 0, slot = 0 FROM {rows} r WHERE j.id = r.id",
    ),
    "money": _Part(
        "wallet",
        ("available_micros", "held_micros", "spent_micros", "id"),
        "UPDATE wallet w SET available_micros = w.available_micros + r.available_micros, "
        "held_micros = w.held_micros + r.held_micros, spent_micros = w.spent_micros + r.spent_micros "
        "FROM {rows} r WHERE w.id = r.id AND (r.believed IS NULL OR (w.available_micros, w.credit_limit_micros) = "
        "(r.believed, r.credit)) RETURNING r.believed",
        ", believed bigint, credit bigint",
    ),
    "new_key": _Part(
        "idempotency",
        HOT_COLUMNS["idempotency"],
        f"INSERT INTO idempotency ({', '.join(HOT_COLUMNS['idempotency'])}) SELECT * FROM {{rows}} "
        "ON CONFLICT DO NOTHING RETURNING key",
    ),
    "unused_key": _Part(
        "idempotency",
        ("application_id", "key"),
        "SELECT 1 FROM {rows} r JOIN idempotency i ON i.application_id = r.application_id AND i.key = r.key",
    ),
    "replace": _Part(
        "otp",
        ("application_id", "recipient", "purpose", "id"),
        "UPDATE otp o SET state = 'replaced' FROM {rows} r WHERE o.application_id = r.application_id "
        "AND o.recipient = r.recipient AND o.purpose = r.purpose AND o.state = 'open' AND o.id < r.id",
    ),
    # Wallets first: whoever changes what a wallet has spent holds its row.
    "spend": _Part(
        "spend",
        ("wallet_id", "day", "application_id", "micros"),
        "INSERT INTO spend (wallet_id, day, application_id, micros) SELECT * FROM {rows} "
        "WHERE (SELECT count(*) FROM did_money) >= 0 "
        "ON CONFLICT (wallet_id, day, application_id) DO UPDATE SET micros = spend.micros + excluded.micros",
    ),
}
"""What a group may write. `{rows}` becomes the part's parameter, an array of the type that `_row_types` makes for it."""


_CHECKS = {
    "change": "(SELECT count(*) FROM did_change) = {count}",
    "money": "(SELECT count(believed) FROM did_money) = {count}",
    "new_key": "(SELECT count(*) FROM did_new_key) = {count}",
    "unused_key": "NOT EXISTS (SELECT FROM did_unused_key)",
}
"""What must be true of a part's outcome; `{count}` becomes a parameter. If it is not, the statement divides by zero, which undoes
it."""


def _row_types() -> str:
    """The statements that make the type of each part's rows. They are the session's own, so that no schema holds them and a new
    version of this file needs no migration; the role needs the right to make temporary objects, which PostgreSQL gives to
    everyone."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made = []
    for name, part in _PARTS.items():
        columns = metadata.tables[part.table].columns
        fields = (f"{column} {columns[column].type.compile(dialect)}" for column in part.columns)
        made.append(f"CREATE TYPE pg_temp.{name}_row AS ({', '.join(fields)}{part.more})")
    return "; ".join(made)


_KEYS = {
    "message": ("id",),
    "delivery": ("id",),
    "ledger_entry": ("id",),
    "event": ("delivery_id", "id"),
    "callback": ("id",),
    "callback_try": ("callback_id", "id"),
    "idempotency": ("application_id", "key"),
    "inbound": ("id",),
}
"""Tables whose new rows nobody removes at once: after a lost answer, the presence of one tells that all was committed."""

TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What asyncpg raises when the database cannot be reached, or goes away."""

_READY = "lane = $1 AND priority = $2 AND lease_until_ms = 0 AND buried_ms = 0"

_LEASE = f"""
WITH RECURSIVE round AS (
    SELECT $7::bigint AS account_id, false AS is_due, 0 AS place, false AS has_wrapped
    UNION ALL
    SELECT n.account_id, n.due_ms <= $4, r.place + (n.due_ms <= $4)::int, n.has_wrapped
    FROM round r CROSS JOIN LATERAL (
        (SELECT account_id, due_ms, r.has_wrapped FROM job
         WHERE {_READY} AND account_id > r.account_id AND (NOT r.has_wrapped OR account_id <= $7)
         ORDER BY account_id, due_ms LIMIT 1)
        UNION ALL
        (SELECT account_id, due_ms, true FROM job
         WHERE {_READY} AND NOT r.has_wrapped AND account_id <= $7
         ORDER BY account_id, due_ms LIMIT 1)
        LIMIT 1
    ) n
    WHERE r.place < $3::int
),
turn AS (
    SELECT account_id, place, ceil($3::float8 / max(place) OVER ())::int AS share FROM round WHERE is_due ORDER BY place
),
taken AS (
    SELECT j.id, t.place, t.share FROM turn t CROSS JOIN LATERAL (
        SELECT id FROM job WHERE {_READY} AND account_id = t.account_id AND due_ms <= $4
        ORDER BY due_ms, id LIMIT t.share FOR UPDATE SKIP LOCKED
    ) j
    LIMIT $3::int
),
leased AS (
    UPDATE job SET lease_until_ms = $5, slot = $6, attempts = attempts + 1 FROM taken WHERE job.id = taken.id
    RETURNING job.id, kind, lane, priority, account_id, due_ms, attempts - 1 AS attempts, place, share
)
SELECT id, kind, lane, priority, account_id, due_ms, attempts, share FROM leased ORDER BY place, due_ms, id
"""
"""One round of a lease: skip along the index from account to account, then take each one's share of due jobs."""


async def connect(url: str, **settings: str) -> asyncpg.Connection:
    """Open a connection with server settings; every form of `postgresql://` URL that libpq knows is understood.

    Raises what asyncpg raises, `OSError` or `TimeoutError`.
    """
    return await asyncpg.connect(
        url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=STATEMENT_TIMEOUT_S,
        max_cached_statement_lifetime=0,
        server_settings=settings,
    )


class PostgresDriver:
    """The writing connection: opened by the first `begin`, and again by the next one after it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None
        self._tx: PostgresTx | None = None
        self._belief = _Belief()

    async def connect(self) -> asyncpg.Connection:
        """The open connection; makes one if there is none. Raises `StoreAway`."""
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await connect(self._url, **_SETTINGS)
                await self._connection.execute(_row_types())
            except TROUBLE as error:
                self._cut()
                raise StoreAway(f"the database cannot be reached: {_words(error)}") from None
        return self._connection

    async def begin(self) -> PostgresTx:
        """See `HotDriver.begin`. The server hears of it with the first statement."""
        self._tx = PostgresTx(await self.connect(), self._belief)
        return self._tx

    async def commit(self) -> None:
        """See `HotDriver.commit`.

        When the connection is lost before the answer, the transaction may have been committed or not. We then look,
        through a new connection, for a row that it wrote: found, all is well; not found and the old server process
        gone, nothing was written, and the same work may be done again. Only if neither shows within `DOUBT_S`, or nothing was
        written that could be looked for, does `StoreAway` leave the matter open. This needs a direct connection, or a
        pooler that gives each client a server process of its own.
        """
        assert self._tx is not None
        try:
            await self._tx.commit()
        except TROUBLE as error:
            # The server has said no, or asyncpg itself, of a value that does not fit.
            if getattr(error, "severity_en", None) == "ERROR" or isinstance(error, asyncpg.DataError | ValueError):
                raise self._tx.meaning(error) from None
            if not await self._was_committed(self._tx):
                raise StoreAway(f"the connection was lost during a commit: {_words(error)}") from None
        self._tx.confirm()

    async def rollback(self) -> None:
        """See `HotDriver.rollback`."""
        self._belief.doubt()
        connection = self._connection
        if connection is None or connection.is_closed():
            return
        if self._tx is not None and self._tx.has_begun:
            try:
                await connection.execute("ROLLBACK", timeout=ROLLBACK_TIMEOUT_S)
            except TROUBLE:
                self._cut()
        if self._tx is not None and self._tx.is_away:
            # The server may be one that is no longer the right one, such as a standby: look again at the next begin.
            self._cut()

    async def close(self) -> None:
        """See `HotDriver.close`."""
        if self._connection is not None:
            try:
                await self._connection.close(timeout=ROLLBACK_TIMEOUT_S)
            except TROUBLE:
                self._cut()

    def _cut(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _was_committed(self, tx: PostgresTx) -> bool:
        """Raises `StoreConflict` when it certainly was not."""
        server_pid = tx.connection.get_server_pid()
        self._cut()
        if tx.proof is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DOUBT_S):
                while True:
                    with contextlib.suppress(StoreAway, *TROUBLE):
                        connection = await self.connect()
                        # In this order: had the old process committed after our look, it would still be there.
                        is_working = await connection.fetchval(
                            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND pid <> pg_backend_pid())",
                            server_pid,
                        )
                        if await connection.fetchval(*tx.proof):
                            await tx.find_started(connection)
                            return True
                        if not is_working:
                            break
                    await asyncio.sleep(0.1)
                raise StoreConflict("the connection was lost before a commit")
        return False


class _Belief:
    """What this process takes to be so until a statement finds out: what wallets hold, which idempotency keys are used, and that
    carriers' ids are new."""

    def __init__(self) -> None:
        self._wallets: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._used: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._careful_for = 0

    def doubt(self) -> None:
        """A transaction came to nothing: read for a while."""
        self._wallets.clear()
        self._careful_for = CAREFUL_GROUPS

    @property
    def is_careful(self) -> bool:
        """Whether nothing is believed for a while."""
        return self._careful_for > 0

    def confirm(self, moved: dict[int, int]) -> None:
        """A transaction was committed that changed what these wallets have available."""
        if self._careful_for:
            self._careful_for -= 1
        for wallet_id, change in moved.items():
            if wallet_id in self._wallets:
                available, credit = self._wallets[wallet_id]
                self._wallets[wallet_id] = (available + change, credit)

    def wallets(self, ids: Collection[int]) -> dict[int, tuple[int, int]] | None:
        """What these wallets hold, None if that must be read."""
        if self.is_careful or not self._wallets.keys() >= set(ids):
            return None
        return {wallet_id: self._wallets[wallet_id] for wallet_id in ids}

    def learn_wallets(self, found: dict[int, tuple[int, int]]) -> None:
        """What was read under a lock."""
        self._wallets.update(found)
        while len(self._wallets) > WALLETS_KEPT:
            self._wallets.popitem(last=False)

    def are_new(self, keys: Collection[tuple[int, str]]) -> bool:
        """Whether none of these keys seems to be used."""
        return not self.is_careful and self._used.keys().isdisjoint(keys)

    def learn_used(self, keys: Iterable[tuple[int, str]]) -> None:
        """Keys that are in the table, or will be if the transaction comes to something."""
        self._used.update(dict.fromkeys(keys))
        while len(self._used) > KEYS_KEPT:
            self._used.popitem(last=False)


class PostgresTx:
    """The statements. See `HotTx` for what each one promises."""

    def __init__(self, connection: asyncpg.Connection, belief: _Belief) -> None:
        self.connection = connection
        self.has_begun = False
        """Whether the server knows of it. What writes once and reads nothing is a statement that commits itself."""
        self.is_away = False
        """Whether a statement found the server gone, full or not writable."""
        self.proof: tuple[Any, ...] | None = None
        """A query, and its arguments, that gives true once this transaction is committed, and only then."""
        self._belief = belief
        self._believed: dict[int, tuple[int, int]] = {}
        """What wallets were taken to hold, until a statement finds out."""
        self._new_keys: set[tuple[int, str]] = set()
        """Idempotency keys that were taken to be unused, until a statement finds out."""
        self._kept: dict[str, list[tuple[Any, ...]]] = {}
        """Rows to be written, by part."""
        self._touched: dict[str, set[Any]] = {"delivery": set(), "job": set(), "carrier_ref": set(), "otp": set()}
        """Of the tables whose rows change: the keys of those for which something is kept."""
        self._money: dict[int, list[int]] = {}
        self._moved: dict[int, int] = {}
        """What the transaction has changed of what wallets have available."""
        self._spent: Spent = {}
        self._starting: dict[int, dict[int, Tracked]] = {}
        """Delivery to be started → where its row is to go."""

    async def commit(self) -> None:
        """Write what is left, durably. Raises what asyncpg raises when it is not known what became of it."""
        if not self.has_begun and not any(map(_is_copied, self._kept.items())):
            await self._write()
            return
        await self.flush()
        if await self.connection.execute("COMMIT") != "COMMIT":
            raise RuntimeError("a statement of this transaction had failed, and its verb went on")

    def confirm(self) -> None:
        """It is on disk."""
        self._belief.confirm(self._moved)

    async def find_started(self, connection: asyncpg.Connection) -> None:
        """Read what was started by a statement whose answer was lost."""
        rows = await connection.fetch(
            f"SELECT {TRACKED_COLUMNS} FROM delivery d JOIN message m ON m.id = d.message_id "
            "WHERE d.id = ANY($1::bigint[]) AND d.state = 'sending'",
            list(self._starting),
        )
        self._take_started([Tracked(*row) for row in rows])

    def _take_started(self, rows: Iterable[Tracked]) -> None:
        for row in rows:
            self._starting[row.id][row.id] = row
        self._starting = {}

    async def _begin(self) -> None:
        if not self.has_begun:
            try:
                await self.connection.execute("BEGIN")
            except TROUBLE as error:
                self.is_away = True
                # Nothing has happened yet. A new connection may serve, if there is a server.
                raise StoreConflict(_words(error)) from None
            self.has_begun = True

    async def flush(self) -> None:
        """Write, in the open transaction, everything that was kept."""
        await self._begin()
        await self._write()

    async def _write(self) -> None:
        """Write what was kept, and find out about what was believed. Raises what asyncpg raises if nothing has begun."""
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
        for table, rows in [part for part in kept.items() if _is_copied(part)]:
            await self._do(self.connection.copy_records_to_table(table, records=rows, columns=HOT_COLUMNS[table]))
            self._prove(table, kept.pop(table))
        if not kept:
            return
        for part, rows in kept.items():
            self._prove(part, rows)
        counts = {part: len(rows) for part, rows in kept.items()} | {"money": len(believed)}
        query, counted = _statement(tuple(kept))
        values = [*kept.values(), *(counts[part] for part in counted)]
        found = await (self._fetch(query, *values) if self.has_begun else self.connection.fetch(query, *values))
        if "start" in kept:
            self._take_started(Tracked(*row[1:]) for row in found if row[1] is not None)

    def _prove(self, part: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Remember a row that is written as the proof of the transaction, if it is of a part that can give one."""
        if part == "start":
            # Any of them: some may no longer have been waiting. Nobody else starts them on this connector.
            query = "SELECT FROM delivery WHERE id = ANY($1::bigint[]) AND state = 'sending' AND connector_id = $2"
            self.proof = (f"SELECT EXISTS ({query})", [row[0] for row in rows], rows[0][1])
            return
        if part not in _KEYS:
            return
        keys = " AND ".join(f"{key} = ${place}" for place, key in enumerate(_KEYS[part], 1))
        values = (rows[0][HOT_COLUMNS[part].index(key)] for key in _KEYS[part])
        self.proof = (f"SELECT EXISTS (SELECT FROM {part} WHERE {keys})", *values)

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
        if not self._kept.keys().isdisjoint(("idempotency", "new_key")):
            await self.flush()
        pairs = list(keys)
        if not self.has_begun and self._belief.are_new(pairs):
            self._new_keys.update(pairs)
            return {}
        rows = await self._fetch(
            "SELECT i.application_id, i.key, i.body_hash, i.answer FROM unnest($1::bigint[], $2::text[]) "
            "AS k(application_id, key) JOIN idempotency i ON i.application_id = k.application_id AND i.key = k.key",
            [pair[0] for pair in pairs],
            [pair[1] for pair in pairs],
        )
        found = {(row[0], row[1]): (row[2], row[3]) for row in rows}
        self._belief.learn_used(found)
        return found

    async def wallets(self, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """See `HotTx.wallets`."""
        if self._money:
            await self.flush()
        wanted = set(ids)
        if not self.has_begun and (believed := self._belief.wallets(wanted)) is not None:
            self._believed.update(believed)
            return believed
        rows = await self._fetch(
            "SELECT id, available_micros, credit_limit_micros FROM wallet WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE",
            list(wanted),
        )
        found = {row[0]: (row[1], row[2]) for row in rows}
        self._belief.learn_wallets({place: held for place, held in found.items() if place not in self._moved})
        return found

    async def move_money(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """See `HotTx.move_money`."""
        for available, held, spent, wallet_id in rows:
            total = self._money.setdefault(wallet_id, [0, 0, 0])
            total[0] += available
            total[1] += held
            total[2] += spent
            self._moved[wallet_id] = self._moved.get(wallet_id, 0) + available

    async def spent(self, wallet_ids: Iterable[int], since_day: int) -> Spent:
        """See `HotTx.spent`."""
        if self._spent:
            await self.flush()
        if self._believed:  # from here to the commit nobody else may spend
            await self._begin()
            believed, self._believed = self._believed, {}
            if await self.wallets(believed) != believed:
                raise StoreConflict("a wallet is no longer as it was left")
        rows = await self._fetch(
            "SELECT wallet_id, day, application_id, micros FROM spend WHERE wallet_id = ANY($1::bigint[]) AND day >= $2",
            list(wallet_ids),
            since_day,
        )
        return {(row[0], row[1], row[2]): row[3] for row in rows}

    async def add_spent(self, spent: Spent) -> None:
        """See `HotTx.add_spent`."""
        for key, micros in spent.items():
            self._spent[key] = self._spent.get(key, 0) + micros

    async def codes(self, places: Iterable[tuple[int, str, str]], since_ms: int) -> dict[tuple[int, str, str], Recent]:
        """See `HotTx.codes`. A lock on a number is one on its hash, taken in the order of these; what was committed before we
        had it is seen by the next statement only."""
        if self._touched["otp"]:
            await self.flush()
        columns = [list(column) for column in zip(*places, strict=True)]
        await self._fetch(
            "SELECT pg_advisory_xact_lock(hash) FROM (SELECT DISTINCT "
            "hashtextextended('otp:' || application_id || ':' || recipient || ':' || purpose, 0) AS hash "
            "FROM unnest($1::bigint[], $2::text[], $3::text[]) AS p(application_id, recipient, purpose) "
            "ORDER BY hash OFFSET 0) h",
            *columns,
        )
        rows = await self._fetch(
            "SELECT o.application_id, o.recipient, o.purpose, count(*), sum(o.checks_used), min(o.created_ms) "
            "FROM unnest($1::bigint[], $2::text[], $3::text[]) AS p(application_id, recipient, purpose) "
            "JOIN otp o ON o.application_id = p.application_id AND o.recipient = p.recipient AND o.purpose = p.purpose "
            "AND o.created_ms > $4 GROUP BY o.application_id, o.recipient, o.purpose",
            *columns,
            since_ms,
        )
        return {(row[0], row[1], row[2]): Recent(*row[3:]) for row in rows}

    async def replace_codes(self, rows: Sequence[tuple[int, str, str, int]]) -> None:
        """See `HotTx.replace_codes`."""
        await self._keep("replace", "otp", {row[:3]: row for row in rows})

    async def start_sending(self, ids: Sequence[int], connector_id: int, now_ms: int) -> dict[int, Tracked]:
        """See `HotTx.start_sending`."""
        started: dict[int, Tracked] = {}
        await self._keep("start", "delivery", {identifier: (identifier, connector_id, now_ms) for identifier in ids})
        self._starting.update(dict.fromkeys(ids, started))
        return started

    async def tracked(self, ids: Sequence[int]) -> list[Tracked]:
        """See `HotTx.tracked`."""
        await self._before("delivery", ids)
        rows = await self._fetch(
            f"SELECT {TRACKED_COLUMNS} FROM delivery d JOIN message m ON m.id = d.message_id "
            "WHERE d.id = ANY($1::bigint[]) ORDER BY d.id FOR UPDATE OF d",
            ids,
        )
        return [Tracked(*row) for row in rows]

    async def tracked_by_key(self, connector_id: int, keys: Sequence[str]) -> list[Tracked]:
        """See `HotTx.tracked_by_key`."""
        await self._before("carrier_ref", [(key, connector_id) for key in keys])
        query = (
            f"SELECT {TRACKED_COLUMNS}, r.key, r.part FROM carrier_ref r JOIN delivery d ON d.id = r.delivery_id "
            "JOIN message m ON m.id = d.message_id WHERE r.connector_id = $1 AND r.key = ANY($2::text[]) "
            "ORDER BY d.id, r.part FOR UPDATE OF d"
        )
        rows = await self._fetch(query, connector_id, keys)
        if not self._touched["delivery"].isdisjoint([row[0] for row in rows]):
            await self.flush()
            rows = await self._fetch(query, connector_id, keys)
        return [Tracked(*row) for row in rows]

    async def uncertain(self, connector_id: int, recipients: Sequence[str]) -> list[Tracked]:
        """See `HotTx.uncertain`."""
        await self.flush()
        rows = await self._fetch(
            f"SELECT {TRACKED_COLUMNS} FROM delivery d JOIN message m ON m.id = d.message_id WHERE d.connector_id = $1 "
            "AND d.recipient = ANY($2::text[]) AND d.in_doubt > 0 ORDER BY d.id FOR UPDATE OF d",
            connector_id,
            recipients,
        )
        return [Tracked(*row) for row in rows]

    async def change(self, rows: Sequence[Tracked]) -> None:
        """See `HotTx.change`."""
        await self._keep("change", "delivery", {row.id: _changed(row) for row in rows})

    async def forget_keys(self, connector_id: int, keys: Sequence[str]) -> None:
        """See `HotTx.forget_keys`."""
        await self._keep("forget", "carrier_ref", {(key, connector_id): (connector_id, key) for key in keys})

    async def take_parked(self, connector_id: int, keys: Sequence[str]) -> list[tuple[str, str]]:
        """See `HotTx.take_parked`."""
        if "parked_report" in self._kept:
            await self.flush()
        rows = await self._fetch(
            "DELETE FROM parked_report WHERE connector_id = $1 AND key = ANY($2::text[]) RETURNING key, report, id",
            connector_id,
            keys,
        )
        return [(row[0], row[1]) for row in sorted(rows, key=lambda row: row[2])]

    async def take_parked_of(self, connector_id: int, recipient: str, since_ms: int) -> list[tuple[str, str]]:
        """See `HotTx.take_parked_of`."""
        if "parked_report" in self._kept:
            await self.flush()
        rows = await self._fetch(
            "DELETE FROM parked_report WHERE connector_id = $1 AND recipient = $2 AND at_ms >= $3 "
            "RETURNING key, report, id",
            connector_id,
            recipient,
            since_ms,
        )
        return [(row[0], row[1]) for row in sorted(rows, key=lambda row: row[2])]

    async def erase_bodies(self, message_ids: Sequence[int]) -> None:
        """See `HotTx.erase_bodies`."""
        await self.flush()
        await self._fetch(
            "UPDATE message SET body = '', body_kind = 'erased' WHERE id = ANY($1::bigint[]) AND body_kind = 'sealed' "
            "AND NOT EXISTS (SELECT FROM delivery d WHERE d.id BETWEEN message.first_id AND message.last_id "
            "AND d.message_id = message.id AND d.final_ms = 0)",
            message_ids,
        )

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
        while wanted := room - len(found):
            rows = await self._fetch(_LEASE, lane, priority, wanted, now_ms, until_ms, slot, after_account)
            found += [LeasedJob(*row[:7]) for row in rows]
            counts: dict[int, int] = {}
            for row in rows:
                counts[row[4]] = counts.get(row[4], 0) + 1
            if not rows or max(counts.values()) < rows[0][7]:
                break  # nobody had more than a share
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
        rows = await self._fetch(
            "SELECT d.id, d.message_id, d.account_id, m.priority, m.sender, d.recipient, m.body, m.body_kind, m.alphabet, "
            "m.parts, d.expires_ms, d.attempt, d.route_id, m.dialect, d.state, m.due_ms, m.category, d.country, d.reason "
            "FROM unnest($1::bigint[]) WITH ORDINALITY AS i(id, place) JOIN delivery d ON d.id = i.id "
            "JOIN message m ON m.id = d.message_id ORDER BY i.place",
            ids,
        )
        return [tuple(row) for row in rows]

    async def callbacks(self, ids: Sequence[int]) -> list[tuple[int, int, int, str, str, int, int]]:
        """See `HotTx.callbacks`."""
        if "callback" in self._kept:
            await self.flush()
        rows = await self._fetch(
            "SELECT c.id, c.endpoint_id, c.account_id, c.event, c.payload, c.created_ms, c.bundle_id "
            "FROM unnest($1::bigint[]) WITH ORDINALITY AS i(id, place) JOIN callback f ON f.id = i.id "
            f"JOIN callback c ON c.id BETWEEN f.id AND f.id + f.bundled * {SLOTS} AND c.bundle_id = f.id "
            "ORDER BY i.place, c.id",
            ids,
        )
        return [tuple(row) for row in rows]

    async def take_parts(self, keys: Iterable[tuple[int, str, str, int]]) -> list[tuple[Any, ...]]:
        """See `HotTx.take_parts`."""
        await self.flush()
        found = list(keys)
        rows = await self._fetch(
            "DELETE FROM inbound_part p USING unnest($1::bigint[], $2::text[], $3::text[], $4::int[]) "
            "AS k(connector_id, sender, recipient, reference) WHERE p.connector_id = k.connector_id AND p.sender = k.sender "
            "AND p.recipient = k.recipient AND p.reference = k.reference "
            f"RETURNING {', '.join(f'p.{name}' for name in HOT_COLUMNS['inbound_part'])}",
            *([key[place] for key in found] for place in range(4)),
        )
        return [tuple(row) for row in rows]

    async def open_messages(self, ids: Sequence[int]) -> None:
        """See `HotTx.open_messages`."""
        await self.flush()
        await self._fetch("UPDATE message SET state = 'open' WHERE id = ANY($1::bigint[]) AND state = 'loading'", ids)

    async def drop_loading(self, ids: Sequence[int], until_id: int) -> list[tuple[int, int, int, int, int, int, int]]:
        """See `HotTx.drop_loading`."""
        await self.flush()
        rows = await self._fetch(
            "WITH gone AS (DELETE FROM message WHERE id = ANY($1::bigint[]) AND state = 'loading' "
            "RETURNING id, first_id, last_id, application_id, created_ms), "
            "lost AS (DELETE FROM delivery d USING gone g WHERE d.id BETWEEN g.first_id AND g.last_id "
            "AND d.message_id = g.id) "
            "SELECT l.wallet_id, l.account_id, l.amount_micros, l.message_id, l.deliveries, g.application_id, g.created_ms "
            "FROM gone g JOIN ledger_entry l ON l.id BETWEEN g.id AND $2 AND l.message_id = g.id AND l.kind = 'hold' "
            "ORDER BY l.id",
            ids,
            until_id,
        )
        self.proof = None  # it may have been one of the rows that have just gone
        return [tuple(row) for row in rows]

    async def spread(self, message_id: int, after_id: int, limit: int, now_ms: int) -> int:
        """See `HotTx.spread`."""
        await self.flush()
        rows = await self._fetch(
            "WITH page AS (SELECT d.id, d.connector_id, m.priority, d.account_id, d.state, d.reason "
            "FROM message m JOIN delivery d "
            "ON d.id BETWEEN greatest(m.first_id, $2::bigint + 1) AND m.last_id AND d.message_id = m.id WHERE m.id = $1 "
            "ORDER BY d.id LIMIT $3), "
            "made AS (INSERT INTO job (id, kind, lane, priority, account_id, due_ms) "
            "SELECT id, 'dispatch', 'c' || connector_id, priority, account_id, $4::bigint FROM page "
            f"WHERE {MAY_LEAVE} ON CONFLICT (id) DO NOTHING) "
            "SELECT coalesce(max(id), 0) FROM page",
            message_id,
            after_id,
            limit,
            now_ms,
        )
        return int(rows[0][0])

    async def _fetch(self, query: str, *values: Any) -> list[Any]:
        await self._begin()
        return await self._do(self.connection.fetch(query, *values))  # type: ignore[no-any-return]

    async def _do(self, work: Any) -> Any:
        """Await a statement; turn what goes wrong into the store's words, in which no value appears."""
        try:
            return await work
        except TROUBLE as error:
            raise self.meaning(error) from None

    def meaning(self, error: Exception) -> Exception:
        """What an error means for the caller; remembers if the server is away."""
        means = meaning(error)
        if isinstance(means, StoreAway) and not isinstance(means, StoreConflict):
            self.is_away = True
        return means


def _is_copied(part: tuple[str, Sequence[Any]]) -> bool:
    name, rows = part
    return len(rows) > COPY_ROWS and name in HOT_COLUMNS


@functools.cache
def _statement(parts: tuple[str, ...]) -> tuple[str, list[str]]:
    """The statement that writes these parts, and the parts whose counts follow their rows as parameters."""
    written = (
        f"did_{name} AS ({_PARTS[name].sql.format(rows=f'unnest(${place}::pg_temp.{name}_row[])')})"
        for place, name in enumerate(parts, 1)
    )
    counted: list[str] = []
    checks = []
    for name in parts:
        if name in _CHECKS:
            if "{count}" in _CHECKS[name]:
                counted.append(name)
            checks.append(_CHECKS[name].format(count=f"${len(parts) + len(counted)}::bigint"))
    proved = f"1 / ({' AND '.join(checks)})::int" if checks else "1"
    asked = f"SELECT {proved}"
    if "start" in parts:
        started = f"SELECT {TRACKED_COLUMNS} FROM did_start d JOIN message m ON m.id = d.message_id"
        asked = f"SELECT p.*, s.* FROM (SELECT {proved} AS proved) p LEFT JOIN ({started}) s ON true"
    return f"WITH {', '.join(written)} {asked}", counted


def _changed(row: Tracked) -> tuple[Any, ...]:
    """A row of the part `change`."""
    return (
        row.id,
        row.attempt,
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
        row.left_as,
    )


def meaning(error: Exception) -> Exception:
    """What an error of the driver or of the server means for the caller; the error itself if it is a fault of ours, in SQL or in
    the schema."""
    state = str(getattr(error, "sqlstate", None) or "")
    if state == "22012":
        return StoreConflict("what was believed is no longer so")  # see `_CHECKS`
    if getattr(error, "constraint_name", None) == "pk_carrier_ref":
        return StoreConflict("a carrier has used an id again")  # it will be replaced: see `PostgresTx.insert`
    if state[:2] == "40" or isinstance(error, asyncpg.LockNotAvailableError | asyncpg.InvalidCachedStatementError):
        return StoreConflict(_words(error))
    if state[:2] in ("22", "23"):
        return RowRefused(_words(error))
    if isinstance(error, ValueError):  # asyncpg's own check of values, whose text shows them
        return RowRefused("a value does not fit its column")
    if not state or state[:2] in ("08", "53", "57", "58", "XX") or state in ("25006", "25P03", "25P04"):
        return StoreAway(_words(error))
    return error


def _words(error: Exception) -> str:
    """The error in one line, without the detail in which PostgreSQL quotes rows."""
    text = str(error.args[0]) if error.args else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
