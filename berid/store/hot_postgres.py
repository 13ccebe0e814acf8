"""The hot path on PostgreSQL: one writing connection, and as few statements in a group as it can do with.

A statement costs a round trip whatever it does: fifty microseconds of ours, as many of the server's, and the wait. So what a
group has kept (`hot_kept.py`) travels as one statement with a part (`_PARTS`) for each kind of change. A part takes its rows
as one array of composite values: asyncpg writes those three times faster than an array for each column. A group of ordinary
work is one such statement that commits itself.

Several processes may write at once. Rows are always locked in the order of their ids; where two processes still meet crosswise,
PostgreSQL ends one of them, which is a `StoreConflict`, and `HotStore` repeats its group.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy.dialects import postgresql

from berid.base.ids import SLOTS
from berid.domain.otp import Recent
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
from berid.store.hot_kept import CHANGED, PROOFS, Belief, KeptTx, Turn
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

CAREFUL_GROUPS = 200
"""Groups that read what they would believe, after a belief that was wrong."""


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
        (*CHANGED, "id", "attempt"),
        f"UPDATE delivery d SET {', '.join(f'{name} = r.{name}' for name in CHANGED)} FROM {{rows}} r "
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
    "start_known": _Part(
        "delivery",
        ("id", "connector_id"),
        "UPDATE delivery d SET state = 'sending', attempt = 1, connector_id = r.connector_id FROM {rows} r "
        f"WHERE d.id = r.id AND attempt = 0 AND {MAY_LEAVE} AND expires_ms > r.now_ms RETURNING d.id, d.expires_ms",
        ", now_ms bigint",
    ),
    "forget": _Part(
        "carrier_ref",
        ("key", "connector_id"),
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


_TRACKED = TRACKED_COLUMNS.count(",") + 1


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


_QUERIES = {
    "idempotent": "SELECT i.application_id, i.key, i.body_hash, i.answer FROM unnest($1::bigint[], $2::text[]) "
    "AS k(application_id, key) JOIN idempotency i ON i.application_id = k.application_id AND i.key = k.key",
    "wallets": "SELECT id, available_micros, credit_limit_micros FROM wallet WHERE id = ANY($1::bigint[]) "
    "ORDER BY id FOR UPDATE",
    "spent": "SELECT wallet_id, day, application_id, micros FROM spend WHERE wallet_id = ANY($1::bigint[]) AND day >= $2",
    "lock_codes": "SELECT pg_advisory_xact_lock(hash) FROM (SELECT DISTINCT "
    "hashtextextended('otp:' || application_id || ':' || recipient || ':' || purpose, 0) AS hash "
    "FROM unnest($1::bigint[], $2::text[], $3::text[]) AS p(application_id, recipient, purpose) "
    "ORDER BY hash OFFSET 0) h",
    "codes": "SELECT o.application_id, o.recipient, o.purpose, count(*), sum(o.checks_used), min(o.created_ms) "
    "FROM unnest($1::bigint[], $2::text[], $3::text[]) AS p(application_id, recipient, purpose) "
    "JOIN otp o ON o.application_id = p.application_id AND o.recipient = p.recipient AND o.purpose = p.purpose "
    "AND o.created_ms > $4 GROUP BY o.application_id, o.recipient, o.purpose",
    "tracked": f"SELECT {TRACKED_COLUMNS} FROM delivery d JOIN message m ON m.id = d.message_id "
    "WHERE d.id = ANY($1::bigint[]) ORDER BY d.id FOR UPDATE OF d",
    "tracked_by_key": f"SELECT {TRACKED_COLUMNS}, r.key, r.part FROM carrier_ref r JOIN delivery d ON d.id = r.delivery_id "
    "JOIN message m ON m.id = d.message_id WHERE r.key = ANY($1::text[]) AND r.connector_id = $2 "
    "ORDER BY d.id, r.part FOR UPDATE OF d",
    "uncertain": f"SELECT {TRACKED_COLUMNS} FROM delivery d JOIN message m ON m.id = d.message_id "
    "WHERE d.recipient = ANY($1::text[]) AND d.connector_id = $2 AND d.in_doubt > 0 ORDER BY d.id FOR UPDATE OF d",
    "take_parked": "DELETE FROM parked_report WHERE key = ANY($1::text[]) AND connector_id = $2 RETURNING key, report, id",
    "take_parked_of": "DELETE FROM parked_report WHERE recipient = $1 AND connector_id = $2 AND at_ms >= $3 "
    "RETURNING key, report, id",
    "take_parts": "DELETE FROM inbound_part p USING unnest($1::bigint[], $2::text[], $3::text[], $4::int[]) "
    "AS k(connector_id, sender, recipient, reference) WHERE p.connector_id = k.connector_id AND p.sender = k.sender "
    "AND p.recipient = k.recipient AND p.reference = k.reference "
    f"RETURNING {', '.join(f'p.{name}' for name in HOT_COLUMNS['inbound_part'])}",
    "erase_bodies": "UPDATE message SET body = '', body_kind = 'erased' WHERE id = ANY($1::bigint[]) "
    "AND body_kind = 'sealed' AND NOT EXISTS (SELECT FROM delivery d WHERE d.id BETWEEN message.first_id "
    "AND message.last_id AND d.message_id = message.id AND d.final_ms = 0)",
    "outgoing": "SELECT d.id, d.message_id, d.account_id, m.priority, m.sender, d.recipient, m.body, m.body_kind, m.alphabet, "
    "m.parts, d.expires_ms, d.attempt, d.route_id, m.dialect, d.state, m.due_ms, m.category, d.country, d.reason "
    "FROM unnest($1::bigint[]) WITH ORDINALITY AS i(id, place) JOIN delivery d ON d.id = i.id "
    "JOIN message m ON m.id = d.message_id ORDER BY i.place",
    "callbacks": "SELECT c.id, c.endpoint_id, c.account_id, c.event, c.payload, c.created_ms, c.bundle_id "
    "FROM unnest($1::bigint[]) WITH ORDINALITY AS i(id, place) JOIN callback f ON f.id = i.id "
    f"JOIN callback c ON c.id BETWEEN f.id AND f.id + f.bundled * {SLOTS} AND c.bundle_id = f.id ORDER BY i.place, c.id",
    "open_messages": "UPDATE message SET state = 'open' WHERE id = ANY($1::bigint[]) AND state = 'loading'",
    "drop_loading": "WITH gone AS (DELETE FROM message WHERE id = ANY($1::bigint[]) AND state = 'loading' "
    "RETURNING id, first_id, last_id, application_id, created_ms), "
    "lost AS (DELETE FROM delivery d USING gone g WHERE d.id BETWEEN g.first_id AND g.last_id AND d.message_id = g.id) "
    "SELECT l.wallet_id, l.account_id, l.amount_micros, l.message_id, l.deliveries, g.application_id, g.created_ms "
    "FROM gone g JOIN ledger_entry l ON l.id BETWEEN g.id AND $2 AND l.message_id = g.id AND l.kind = 'hold' ORDER BY l.id",
    "spread": "WITH page AS (SELECT d.id, d.connector_id, m.priority, d.account_id, d.state, d.reason "
    "FROM message m JOIN delivery d "
    "ON d.id BETWEEN greatest(m.first_id, $2::bigint + 1) AND m.last_id AND d.message_id = m.id WHERE m.id = $1 "
    "ORDER BY d.id LIMIT $3), "
    "made AS (INSERT INTO job (id, kind, lane, priority, account_id, due_ms) "
    "SELECT id, 'dispatch', 'c' || connector_id, priority, account_id, $4::bigint FROM page "
    f"WHERE {MAY_LEAVE} ON CONFLICT (id) DO NOTHING) SELECT coalesce(max(id), 0) FROM page",
    "lease": _LEASE,
}
"""What a group may ask; the names are those of `KeptTx.ask`, the parameters its values in their order."""


class PostgresDriver:
    """The writing connection: opened by the first group that needs it, and again after it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None
        self._belief = Belief(CAREFUL_GROUPS)
        self._turn = Turn()

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

    def begin(self, ahead: asyncio.Event | None = None) -> PostgresTx:
        """See `HotDriver.begin`. The server hears of it with the first statement."""
        return PostgresTx(self, ahead)

    async def commit(self, tx: PostgresTx) -> None:
        """See `HotDriver.commit`.

        When the connection is lost before the answer, the transaction may have been committed or not. We then look,
        through a new connection, for a row that it wrote: found, all is well; not found and the old server process
        gone, nothing was written, and the same work may be done again. Only if neither shows within `DOUBT_S`, or nothing was
        written that could be looked for, does `StoreAway` leave the matter open. This needs a direct connection, or a
        pooler that gives each client a server process of its own.
        """
        try:
            await tx.commit()
        except TROUBLE as error:
            # The server has said no, or asyncpg itself, of a value that does not fit.
            if getattr(error, "severity_en", None) == "ERROR" or isinstance(error, asyncpg.DataError | ValueError):
                raise tx.meaning(error) from None
            if not await self._was_committed(tx):
                raise StoreAway(f"the connection was lost during a commit: {_words(error)}") from None
        tx.end(is_committed=True)

    async def rollback(self, tx: PostgresTx) -> None:
        """See `HotDriver.rollback`."""
        connection = self._connection
        if connection is not None and not connection.is_closed():
            if tx.has_begun:
                try:
                    await connection.execute("ROLLBACK", timeout=ROLLBACK_TIMEOUT_S)
                except TROUBLE:
                    self._cut()
            if tx.is_away:
                # The server may be one that is no longer the right one, such as a standby: look again at the next begin.
                self._cut()
        tx.end(is_committed=False)

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
        part, key = tx.proof
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
                        if await connection.fetchval(_proved(part), *key):
                            rows = await connection.fetch(_QUERIES["tracked"], tx.starting)
                            tx.take_started(Tracked(*row) for row in rows)
                            return True
                        if not is_working:
                            break
                    await asyncio.sleep(0.1)
                raise StoreConflict("the connection was lost before a commit")
        return False


class PostgresTx(KeptTx):
    """The statements of one group. See `KeptTx`."""

    connection: asyncpg.Connection

    def __init__(self, driver: PostgresDriver, ahead: asyncio.Event | None) -> None:
        super().__init__(driver._belief, driver._turn, ahead)
        self._driver = driver
        self.is_away = False
        """Whether a statement found the server gone, full or not writable."""

    async def commit(self) -> None:
        """Write what is left, durably. Raises what asyncpg raises when it is not known what became of it."""
        if not self.has_begun:
            kept = self.taken()
            if not kept:
                return
            await self.take_turn(waits=True)
            self.connection = await self._driver.connect()
            self._take_started(kept, await self.connection.fetch(*_asked(kept)))
            return
        await self.flush()
        if await self.connection.execute("COMMIT") != "COMMIT":
            raise RuntimeError("a statement of this transaction had failed, and its verb went on")

    async def open(self) -> None:
        """See `KeptTx.open`."""
        self.connection = await self._driver.connect()
        try:
            await self.connection.execute("BEGIN")
        except TROUBLE as error:
            self.is_away = True
            # Nothing has happened yet. A new connection may serve, if there is a server.
            raise StoreConflict(_words(error)) from None

    async def write(self, kept: dict[str, list[tuple[Any, ...]]]) -> None:
        """See `KeptTx.write`."""
        self._take_started(kept, await self._do(self.connection.fetch(*_asked(kept))))

    def _take_started(self, kept: Iterable[str], rows: Sequence[Any]) -> None:
        if "start_known" in kept:
            *_, ids, validities = rows[0]
            self.take_started_known(zip(ids or (), validities or (), strict=True))
        if "start" in kept:
            self.take_started(Tracked(*row[1 : 1 + _TRACKED]) for row in rows if row[1] is not None)

    async def codes(self, places: Iterable[tuple[int, str, str]], since_ms: int) -> dict[tuple[int, str, str], Recent]:
        """See `HotTx.codes`. A lock on a number is one on its hash, taken in the order of these; what was committed before we
        had it is seen by the next statement only."""
        wanted = list(places)
        await self.ask("lock_codes", places=wanted)
        return await super().codes(wanted, since_ms)

    async def lease_round(
        self, lane: str, priority: int, room: int, now_ms: int, until_ms: int, slot: int, after_account: int
    ) -> tuple[list[LeasedJob], bool]:
        """See `KeptTx.lease_round`."""
        rows = await self.ask(
            "lease",
            lane=lane,
            priority=priority,
            room=room,
            now_ms=now_ms,
            until_ms=until_ms,
            slot=slot,
            after_account=after_account,
        )
        counts = Counter(row[4] for row in rows)
        return [LeasedJob(*row[:7]) for row in rows], bool(rows) and max(counts.values()) >= rows[0][7]

    async def ask(self, query: str, **values: Any) -> list[Any]:
        """See `KeptTx.ask`. Of tuples, the server takes an array for each column."""
        await self.begin()
        taken: list[Any] = []
        for value in values.values():
            if isinstance(value, list) and value and isinstance(value[0], tuple):
                taken += map(list, zip(*value, strict=True))
            else:
                taken.append(value)
        return await self._do(self.connection.fetch(_QUERIES[query], *taken))  # type: ignore[no-any-return]

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


def _proved(part: str) -> str:
    """The query that gives true if a proof (`KeptTx.proof`) is there."""
    if part == "start":
        return "SELECT EXISTS (SELECT FROM delivery WHERE state = 'sending' AND connector_id = $1 AND id = ANY($2::bigint[]))"
    keys = " AND ".join(f"{key} = ${place}" for place, key in enumerate(PROOFS[part], 1))
    return f"SELECT EXISTS (SELECT FROM {part} WHERE {keys})"


def _asked(kept: dict[str, list[tuple[Any, ...]]]) -> list[Any]:
    """The statement that writes what was kept, with its parameters."""
    query, counted = _statement(tuple(kept))
    counts = {part: len(rows) for part, rows in kept.items()}
    counts["money"] = sum(row[4] is not None for row in kept.get("money", ()))
    return [query, *kept.values(), *(counts[part] for part in counted)]


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
    if "start_known" in parts:
        known = "SELECT array_agg(id), array_agg(expires_ms) FROM did_start_known"
        asked = f"SELECT a.*, k.* FROM ({asked}) a CROSS JOIN ({known}) k"
    return f"WITH {', '.join(written)} {asked}", counted


def meaning(error: Exception) -> Exception:
    """What an error of the driver or of the server means for the caller; the error itself if it is a fault of ours, in SQL or in
    the schema."""
    state = str(getattr(error, "sqlstate", None) or "")
    if state == "22012":
        return StoreConflict("what was believed is no longer so")  # see `_CHECKS`
    if getattr(error, "constraint_name", None) == "pk_carrier_ref":
        return StoreConflict("a carrier has used an id again")  # it will be replaced: see `KeptTx.insert`
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
