"""The hot path on SQLite: one writing connection, WAL, full sync.

Row statements run on the event loop's thread: each takes a microsecond or three, and a second thread would only fight for
the interpreter's lock at every row. The commit, which waits for the disk, runs in a thread of its own.

The log is folded into the database (a *checkpoint*) in two steps, since nobody may wait for megabytes to be copied: another
connection copies most of it while commits go on, then one commit copies the little that came meanwhile, so that the log can
begin at its start again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import msgspec

from berid.base.ids import SLOTS
from berid.domain.otp import Recent
from berid.domain.spending import Spent
from berid.store.hot import (
    DELIVERY_COLUMNS,
    HOT_COLUMNS,
    MAY_LEAVE,
    MESSAGE_COLUMNS,
    TRACKED_COLUMNS,
    LeasedJob,
    RowRefused,
    StoreAway,
    StoreConflict,
    Tracked,
)

CACHE_KIB = 65_536
"""Page cache of the writing connection: the right edges of all hot tables and indexes stay in it."""

CHECKPOINT_CHANGES = 16_000
"""The log is folded into the database after so many changed rows: some 10 MiB of log."""

CHECKPOINT_PAGES = 32_000
"""Where SQLite would fold it by itself, in the middle of a commit: far behind the point where we do, 125 MiB of log."""

LOCK_TRIES = 200
LOCK_WAIT_S = 0.025
"""Another process (the command line) may hold the write lock: we ask this often, with this wait between, five seconds in all."""

MANY = 16
"""Rows of one statement, while there are so many: half the time of one statement for each."""


def _insert(table: str, rows: int) -> str:
    columns = HOT_COLUMNS[table]
    verb = "INSERT OR REPLACE" if table == "carrier_ref" else "INSERT"
    values = ", ".join([f"({', '.join('?' * len(columns))})"] * rows)
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES {values}"


_INSERT = {table: _insert(table, 1) for table in HOT_COLUMNS}
_INSERT_MANY = {table: _insert(table, MANY) for table in HOT_COLUMNS}

_encode = msgspec.json.Encoder().encode


def _list(values: Iterable[Any]) -> str:
    """A list as one bound value, for `json_each`; what is asked for twice is given once."""
    return _encode(list(dict.fromkeys(values))).decode()


class _Thread:
    """A thread beside the loop, for calls that wait for the disk. An executor does the same at a price that every commit would
    pay: some 250 microseconds more, of which a single message's share is eight."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], None], asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """Run `work` when the calls before it are done; the future has its end. To be called on the loop."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.put((work, done))
        return done

    def close(self) -> None:
        """End it, after the calls that wait."""
        self._calls.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (asked := self._calls.get()) is not None:
            work, done = asked
            failure: Exception | None = None
            try:
                work()
            except Exception as error:
                failure = error
            done.get_loop().call_soon_threadsafe(_end, done, failure)


def _end(done: asyncio.Future[None], failure: Exception | None) -> None:
    if done.done():  # nobody waits any more
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)


class SqliteDriver:
    """The writing connection. `path` is the database file; its schema must be there already. Raises `StoreAway`."""

    def __init__(self, path: Path) -> None:
        try:
            self._folder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                f"cache_size=-{CACHE_KIB}",
                f"wal_autocheckpoint={CHECKPOINT_PAGES}",
                "temp_store=MEMORY",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            raise meaning(error) from error
        self._thread = _Thread("sqlite-commit")
        self._fold_thread = _Thread("sqlite-fold")
        self._folded = 0
        """The changes that had been made when the last folding began."""
        self._is_nearly_folded = False
        self._tx = SqliteTx(self._connection)
        self._changes = 0

    async def begin(self) -> SqliteTx:
        """See `HotDriver.begin`."""
        for _ in range(LOCK_TRIES):
            try:
                if self._connection.in_transaction:  # a rollback failed
                    self._connection.rollback()
                self._connection.execute("BEGIN IMMEDIATE")
                self._changes = self._connection.total_changes
                return self._tx
            except sqlite3.OperationalError as error:
                if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise meaning(error) from error
                await asyncio.sleep(LOCK_WAIT_S)
        raise StoreAway("the database file is locked by another process")

    async def commit(self) -> None:
        """See `HotDriver.commit`."""
        if self._connection.total_changes == self._changes:
            self._connection.commit()  # nothing was written, so there is no disk to wait for
            return
        try:
            await self._thread.call(self._commit)
        except sqlite3.OperationalError as error:
            raise StoreAway(str(error)) from error
        if self._connection.total_changes - self._folded >= CHECKPOINT_CHANGES:
            self._folded = self._connection.total_changes
            self._fold_thread.call(self._fold)

    def _commit(self) -> None:
        self._connection.commit()
        if self._is_nearly_folded:
            self._is_nearly_folded = False
            _checkpoint(self._connection)

    def _fold(self) -> None:
        self._is_nearly_folded = _checkpoint(self._folder)

    async def rollback(self) -> None:
        """See `HotDriver.rollback`. After an error of the disk there may be nothing left to undo, or no way to do it yet."""
        with contextlib.suppress(sqlite3.Error):
            await self._thread.call(self._connection.rollback)

    async def close(self) -> None:
        """See `HotDriver.close`."""
        self._fold_thread.close()
        self._thread.close()
        self._folder.close()
        self._connection.close()


def _checkpoint(connection: sqlite3.Connection) -> bool:
    """Copy from the log what no reader still needs there; waits for nobody. False if that failed: the log only grows, and
    what was committed is safe in it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    except sqlite3.Error:
        return False
    return True


def meaning(error: sqlite3.Error) -> Exception:
    """What an error of SQLite means for the caller; the error itself if it is a fault of ours, in SQL or in the schema.

    A full disk, a held lock, a file that cannot be read or written are an absence, each with a code of its own.
    `SQLITE_ERROR` is what is left: no such table or column, a wrong statement.
    """
    if isinstance(error, sqlite3.IntegrityError):
        return RowRefused(str(error))
    if isinstance(error, sqlite3.OperationalError) and _code(error) != sqlite3.SQLITE_ERROR:
        return StoreAway(str(error))
    return error


def _code(error: sqlite3.Error) -> int:
    """The primary result code; an error that the driver made up itself has none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _away(method: Any) -> Any:
    """Give an error of SQLite its meaning."""

    @functools.wraps(method)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return await method(*args, **kwargs)
        except sqlite3.Error as error:
            raise meaning(error) from error

    return guarded


_by_due = itemgetter(5, 0)
"""The order of leased jobs: due time, then id."""


class SqliteTx:
    """The statements. See `HotTx` for what each one promises."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @_away
    async def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """See `HotTx.insert`."""
        alone = len(rows) % MANY
        for start in range(alone, len(rows), MANY):
            self._connection.execute(_INSERT_MANY[table], tuple(chain.from_iterable(rows[start : start + MANY])))
        self._connection.executemany(_INSERT[table], rows[:alone])

    @_away
    async def idempotent(self, keys: Iterable[tuple[int, str]]) -> dict[tuple[int, str], tuple[str, str]]:
        """See `HotTx.idempotent`."""
        by_application: dict[int, list[str]] = {}
        for application_id, key in keys:
            by_application.setdefault(application_id, []).append(key)
        used: dict[tuple[int, str], tuple[str, str]] = {}
        for application_id, wanted in by_application.items():
            rows = self._connection.execute(
                "SELECT i.key, i.body_hash, i.answer FROM json_each(?) j CROSS JOIN idempotency i "
                "ON i.application_id = ? AND i.key = j.value",
                (_list(wanted), application_id),
            )
            used.update({(application_id, key): (body_hash, answer) for key, body_hash, answer in rows})
        return used

    @_away
    async def wallets(self, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """See `HotTx.wallets`."""
        wanted = tuple(ids)  # one or two, as a rule: cheaper by themselves than as a list in JSON
        rows = self._connection.execute(
            "SELECT id, available_micros, credit_limit_micros FROM wallet "
            f"WHERE id IN ({', '.join('?' * len(wanted))})",
            wanted,
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    @_away
    async def move_money(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        """See `HotTx.move_money`."""
        self._connection.executemany(
            "UPDATE wallet SET available_micros = available_micros + ?, held_micros = held_micros + ?, "
            "spent_micros = spent_micros + ? WHERE id = ?",
            rows,
        )

    @_away
    async def spent(self, wallet_ids: Iterable[int], since_day: int) -> Spent:
        """See `HotTx.spent`."""
        rows = self._connection.execute(
            "SELECT s.wallet_id, s.day, s.application_id, s.micros FROM json_each(?) j CROSS JOIN spend s "
            "ON s.wallet_id = j.value AND s.day >= ?",
            (_list(wallet_ids), since_day),
        )
        return {(row[0], row[1], row[2]): row[3] for row in rows}

    @_away
    async def add_spent(self, spent: Spent) -> None:
        """See `HotTx.add_spent`."""
        self._connection.executemany(
            "INSERT INTO spend (wallet_id, day, application_id, micros) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (wallet_id, day, application_id) DO UPDATE SET micros = micros + excluded.micros",
            [(*key, micros) for key, micros in spent.items()],
        )

    @_away
    async def codes(self, places: Iterable[tuple[int, str, str]], since_ms: int) -> dict[tuple[int, str, str], Recent]:
        """See `HotTx.codes`."""
        rows = self._connection.execute(
            "SELECT o.application_id, o.recipient, o.purpose, count(*), sum(o.checks_used), min(o.created_ms) "
            "FROM json_each(?) j CROSS JOIN otp o ON o.application_id = j.value ->> 0 AND o.recipient = j.value ->> 1 "
            "AND o.purpose = j.value ->> 2 AND o.created_ms > ? GROUP BY o.application_id, o.recipient, o.purpose",
            (_list(places), since_ms),
        )
        return {row[:3]: Recent(*row[3:]) for row in rows}

    @_away
    async def replace_codes(self, rows: Sequence[tuple[int, str, str, int]]) -> None:
        """See `HotTx.replace_codes`."""
        self._connection.executemany(
            "UPDATE otp SET state = 'replaced' WHERE application_id = ? AND recipient = ? AND purpose = ? "
            "AND state = 'open' AND id < ?",
            rows,
        )

    @_away
    async def start_sending(self, ids: Sequence[int], connector_id: int, now_ms: int) -> dict[int, Tracked]:
        """See `HotTx.start_sending`."""
        rows = self._connection.execute(
            "UPDATE delivery SET state = 'sending', attempt = attempt + 1, connector_id = ? "
            f"WHERE id IN (SELECT value FROM json_each(?)) AND {MAY_LEAVE} AND expires_ms > ? RETURNING {DELIVERY_COLUMNS}",
            (connector_id, _list(ids), now_ms),
        ).fetchall()
        messages = self._messages(MESSAGE_COLUMNS, {row[1] for row in rows})
        return {row[0]: Tracked(*row, *messages[row[1]]) for row in rows}

    def _messages(self, columns: str, ids: Iterable[int]) -> dict[int, tuple[Any, ...]]:
        """Columns of messages, by id. Many deliveries share a message: its facts are read once."""
        rows = self._connection.execute(
            f"SELECT id, {columns} FROM message WHERE id IN (SELECT value FROM json_each(?))", (_list(ids),)
        )
        return {row[0]: row[1:] for row in rows}

    @_away
    async def tracked(self, ids: Sequence[int]) -> list[Tracked]:
        """See `HotTx.tracked`."""
        rows = self._connection.execute(
            f"SELECT {TRACKED_COLUMNS} FROM json_each(?) j CROSS JOIN delivery d ON d.id = j.value "
            "JOIN message m ON m.id = d.message_id",
            (_list(ids),),
        )
        return [Tracked(*row) for row in rows]

    @_away
    async def tracked_by_key(self, connector_id: int, keys: Sequence[str]) -> list[Tracked]:
        """See `HotTx.tracked_by_key`."""
        rows = self._connection.execute(
            f"SELECT {TRACKED_COLUMNS}, r.key, r.part FROM json_each(?) j CROSS JOIN carrier_ref r "
            "ON r.key = j.value AND r.connector_id = ? JOIN delivery d ON d.id = r.delivery_id "
            "JOIN message m ON m.id = d.message_id",
            (_list(keys), connector_id),
        )
        return [Tracked(*row) for row in rows]

    @_away
    async def uncertain(self, connector_id: int, recipients: Sequence[str]) -> list[Tracked]:
        """See `HotTx.uncertain`."""
        rows = self._connection.execute(
            f"SELECT {TRACKED_COLUMNS} FROM json_each(?) j CROSS JOIN delivery d ON d.recipient = j.value "
            "AND d.connector_id = ? AND d.in_doubt > 0 JOIN message m ON m.id = d.message_id",
            (_list(recipients), connector_id),
        )
        return [Tracked(*row) for row in rows]

    @_away
    async def change(self, rows: Sequence[Tracked]) -> None:
        """See `HotTx.change`."""
        changed = self._connection.executemany(
            "UPDATE delivery SET state = ?, reason = ?, money = ?, connector_id = ?, parts_left = ?, carrier_ids = ?, "
            "sent_ms = ?, final_ms = ?, expires_ms = ?, report_ms = ?, report_code = ?, in_doubt = ? "
            "WHERE id = ? AND attempt = ? AND ? IN ('', state)",
            [
                (
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
                    row.state == "uncertain",
                    row.id,
                    row.attempt,
                    row.left_as,
                )
                for row in rows
            ],
        ).rowcount
        if changed < len(rows):
            raise StoreConflict("a delivery is no longer as it was left")

    @_away
    async def forget_keys(self, connector_id: int, keys: Sequence[str]) -> None:
        """See `HotTx.forget_keys`."""
        self._connection.executemany(
            "DELETE FROM carrier_ref WHERE key = ? AND connector_id = ?",
            [(key, connector_id) for key in keys],
        )

    @_away
    async def take_parked(self, connector_id: int, keys: Sequence[str]) -> list[tuple[str, str]]:
        """See `HotTx.take_parked`."""
        rows = self._connection.execute(
            "DELETE FROM parked_report WHERE connector_id = ? AND key IN (SELECT value FROM json_each(?)) "
            "RETURNING key, report, id",
            (connector_id, _list(keys)),
        ).fetchall()
        return [(row[0], row[1]) for row in sorted(rows, key=lambda row: row[2])]

    @_away
    async def take_parked_of(self, connector_id: int, recipient: str, since_ms: int) -> list[tuple[str, str]]:
        """See `HotTx.take_parked_of`."""
        rows = self._connection.execute(
            "DELETE FROM parked_report WHERE connector_id = ? AND recipient = ? AND at_ms >= ? RETURNING key, report, id",
            (connector_id, recipient, since_ms),
        ).fetchall()
        return [(row[0], row[1]) for row in sorted(rows, key=lambda row: row[2])]

    @_away
    async def take_parts(self, keys: Iterable[tuple[int, str, str, int]]) -> list[tuple[Any, ...]]:
        """See `HotTx.take_parts`."""
        return self._connection.execute(
            "DELETE FROM inbound_part WHERE (connector_id, sender, recipient, reference) IN "
            "(SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)) "
            f"RETURNING {', '.join(HOT_COLUMNS['inbound_part'])}",
            (_list(keys),),
        ).fetchall()

    @_away
    async def erase_bodies(self, message_ids: Sequence[int]) -> None:
        """See `HotTx.erase_bodies`."""
        self._connection.execute(
            "UPDATE message SET body = '', body_kind = 'erased' WHERE id IN (SELECT value FROM json_each(?)) "
            "AND body_kind = 'sealed' AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.id BETWEEN message.first_id "
            "AND message.last_id AND d.message_id = message.id AND d.final_ms = 0)",
            (_list(message_ids),),
        )

    @_away
    async def lease(
        self, lane: str, priority: int, room: int, now_ms: int, until_ms: int, slot: int, after_account: int
    ) -> list[LeasedJob]:
        """See `HotTx.lease`."""
        found: list[LeasedJob] = []
        while wanted := room - len(found):
            shares = self._lease_round(lane, priority, wanted, now_ms, until_ms, slot, after_account)
            found += [LeasedJob(*row) for share in shares for row in share]
            if not shares or max(map(len, shares)) < -(-wanted // len(shares)):
                break  # nobody had more than a share
        return found

    def _lease_round(
        self, lane: str, priority: int, room: int, now_ms: int, until_ms: int, slot: int, after_account: int
    ) -> list[list[tuple[Any, ...]]]:
        """Lease a share of `room` due jobs for each account that has some, in turn.

        Accounts are found by skipping along the index, so a million jobs of one cost nothing; one whose first job is not
        due yet costs the skip.
        """
        execute = self._connection.execute
        accounts: list[int] = []
        cursor, has_wrapped = after_account, False
        while len(accounts) < room:
            row = execute(
                "SELECT account_id, due_ms FROM job WHERE lane = ? AND priority = ? AND account_id > ? "
                "AND lease_until_ms = 0 AND buried_ms = 0 ORDER BY account_id, due_ms LIMIT 1",
                (lane, priority, cursor),
            ).fetchone()
            if row is None:
                if has_wrapped or after_account < 0:
                    break
                cursor, has_wrapped = -1, True
            elif has_wrapped and row[0] > after_account:
                break
            else:
                cursor = row[0]
                if row[1] <= now_ms:
                    accounts.append(cursor)
        shares: list[list[tuple[Any, ...]]] = []
        share = -(-room // max(1, len(accounts)))
        for account_id in accounts:
            rows = execute(
                "UPDATE job SET lease_until_ms = ?, slot = ?, attempts = attempts + 1 WHERE id IN (SELECT id FROM job "
                "WHERE lane = ? AND priority = ? AND account_id = ? AND due_ms <= ? AND lease_until_ms = 0 AND buried_ms = 0 "
                "ORDER BY due_ms, id LIMIT ?) RETURNING id, kind, lane, priority, account_id, due_ms, attempts - 1",
                (until_ms, slot, lane, priority, account_id, now_ms, min(share, room)),
            ).fetchall()
            shares.append(sorted(rows, key=_by_due))
            room -= len(rows)
            if room <= 0:
                break
        return shares

    @_away
    async def jobs_done(self, ids: Sequence[int]) -> None:
        """See `HotTx.jobs_done`."""
        self._connection.execute("DELETE FROM job WHERE id IN (SELECT value FROM json_each(?))", (_list(ids),))

    @_away
    async def jobs_again(self, rows: Sequence[tuple[str, str, int, int, int]]) -> None:
        """See `HotTx.jobs_again`."""
        self._connection.executemany(
            "UPDATE job SET kind = ?, lane = ?, due_ms = ?, attempts = ?, lease_until_ms = 0, slot = 0 WHERE id = ?",
            rows,
        )

    @_away
    async def jobs_bury(self, rows: Sequence[tuple[int, str, int]]) -> None:
        """See `HotTx.jobs_bury`."""
        self._connection.executemany(
            "UPDATE job SET buried_ms = ?, why = ?, lease_until_ms = 0, slot = 0 WHERE id = ?", rows
        )

    @_away
    async def outgoing(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """See `HotTx.outgoing`."""
        rows = self._connection.execute(
            "SELECT d.id, d.message_id, d.account_id, d.recipient, d.expires_ms, d.attempt, d.route_id, d.state, d.country, "
            "d.reason FROM json_each(?) j CROSS JOIN delivery d ON d.id = j.value",
            (_list(ids),),
        ).fetchall()
        messages = self._messages(
            "priority, sender, body, body_kind, alphabet, parts, dialect, due_ms, category", {row[1] for row in rows}
        )
        found: list[tuple[Any, ...]] = []
        for (
            delivery_id,
            message_id,
            account_id,
            recipient,
            expires_ms,
            attempt,
            route_id,
            state,
            country,
            reason,
        ) in rows:
            priority, sender, body, body_kind, alphabet, parts, dialect, due_ms, category = messages[message_id]
            found.append(
                (delivery_id, message_id, account_id, priority, sender, recipient, body, body_kind, alphabet, parts,
                 expires_ms, attempt, route_id, dialect, state, due_ms, category, country, reason)
            )  # fmt: skip
        return found

    @_away
    async def callbacks(self, ids: Sequence[int]) -> list[tuple[int, int, int, str, str, int, int]]:
        """See `HotTx.callbacks`."""
        return self._connection.execute(
            "SELECT c.id, c.endpoint_id, c.account_id, c.event, c.payload, c.created_ms, c.bundle_id FROM json_each(?) j "
            f"CROSS JOIN callback f ON f.id = j.value CROSS JOIN callback c ON c.id BETWEEN f.id AND f.id + f.bundled * {SLOTS} "
            "AND c.bundle_id = f.id",
            (_list(ids),),
        ).fetchall()

    @_away
    async def open_messages(self, ids: Sequence[int]) -> None:
        """See `HotTx.open_messages`."""
        self._connection.executemany(
            "UPDATE message SET state = 'open' WHERE id = ? AND state = 'loading'",
            [(identifier,) for identifier in ids],
        )

    @_away
    async def drop_loading(self, ids: Sequence[int], until_id: int) -> list[tuple[int, int, int, int, int, int, int]]:
        """See `HotTx.drop_loading`."""
        holds: list[tuple[int, int, int, int, int, int, int]] = []
        for message_id in ids:
            row = self._connection.execute(
                "DELETE FROM message WHERE id = ? AND state = 'loading' "
                "RETURNING first_id, last_id, application_id, created_ms",
                (message_id,),
            ).fetchone()
            if row is None:
                continue
            self._connection.execute(
                "DELETE FROM delivery WHERE id BETWEEN ? AND ? AND message_id = ?", (row[0], row[1], message_id)
            )
            holds += self._connection.execute(
                "SELECT wallet_id, account_id, amount_micros, message_id, deliveries, ?, ? FROM ledger_entry "
                "WHERE id BETWEEN ? AND ? AND message_id = ? AND kind = 'hold'",
                (row[2], row[3], message_id, until_id, message_id),
            ).fetchall()
        return holds

    @_away
    async def spread(self, message_id: int, after_id: int, limit: int, now_ms: int) -> int:
        """See `HotTx.spread`."""
        rows = self._connection.execute(
            f"SELECT id, connector_id, priority, account_id, {MAY_LEAVE} FROM (SELECT d.id, d.connector_id, m.priority, "
            "d.account_id, d.state, d.reason FROM message m JOIN delivery d ON d.id BETWEEN max(m.first_id, ? + 1) "
            "AND m.last_id AND d.message_id = m.id WHERE m.id = ? ORDER BY d.id LIMIT ?)",
            (after_id, message_id, limit),
        ).fetchall()
        self._connection.executemany(
            "INSERT OR IGNORE INTO job (id, kind, lane, priority, account_id, due_ms, lease_until_ms, slot, attempts) "
            "VALUES (?, 'dispatch', ?, ?, ?, ?, 0, 0, 0)",
            [(row[0], f"c{row[1]}", row[2], row[3], now_ms) for row in rows if row[4]],
        )
        return rows[-1][0] if rows else 0
