"""The hot path on SQLite: one writing connection, WAL, full sync, in a process of its own.

A row's statement takes a microsecond or three, most of them with the interpreter's lock held, and a second thread would only
fight for that lock at every row. So what a group has kept (`hot_kept.py`) goes to `writer.py`, which runs beside this
process, as one message: while it writes and waits for the disk, this one decides the next group.

Should that process end by itself (killed for want of memory, say), another is started; whether its last group was committed
is seen from the file. See docs/decisions/0008.
"""

from __future__ import annotations

import asyncio
import logging
import marshal
import socket
import sqlite3
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from berid.base.ids import SLOTS
from berid.store import writer
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
from berid.store.hot_kept import CHANGED, PROOFS, Belief, KeptTx, Turn

CACHE_KIB = 65_536
"""Page cache of the writing connection: the right edges of all hot tables and indexes stay in it."""

CHECKPOINT_CHANGES = 16_000
"""The log is folded into the database after so many changed rows: some 10 MiB of log."""

CHECKPOINT_PAGES = 32_000
"""Where SQLite would fold it by itself, in the middle of a commit: far behind the point where we do, 125 MiB of log."""

LOCK_TRIES = 200
"""How often the write lock is asked for that another process (the command line) may hold: five seconds in all."""

PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    f"cache_size=-{CACHE_KIB}",
    f"wal_autocheckpoint={CHECKPOINT_PAGES}",
    "temp_store=MEMORY",
)

WRITER_ENDED = "the process that writes the database ended; another is started"
"""What the log says when it has."""

CAREFUL_GROUPS = 1
"""Groups that read what they would believe, after a belief that was wrong. Nobody shares the file for long."""

_Step = tuple[int, str, Any, int]

log = logging.getLogger("berid.store")

_REPLACE_REF = f"INSERT OR REPLACE INTO carrier_ref ({', '.join(HOT_COLUMNS['carrier_ref'])}) VALUES"

_INSERTS = {table: f"INSERT INTO {table} ({', '.join(columns)}) VALUES" for table, columns in HOT_COLUMNS.items()} | {
    "carrier_ref": _REPLACE_REF,
    "replace_ref": _REPLACE_REF,
    "new_key": f"INSERT OR IGNORE INTO idempotency ({', '.join(HOT_COLUMNS['idempotency'])}) VALUES",
}

_CHANGES = {
    "change": f"UPDATE delivery SET {', '.join(f'{name} = ?' for name in CHANGED)} "
    "WHERE id = ? AND attempt = ? AND ? IN ('', state)",
    "forget": "DELETE FROM carrier_ref WHERE key = ? AND connector_id = ?",
    "done": "DELETE FROM job WHERE id = ?",
    "again": "UPDATE job SET kind = ?, lane = ?, due_ms = ?, attempts = ?, lease_until_ms = 0, slot = 0 WHERE id = ?",
    "bury": "UPDATE job SET buried_ms = ?, why = ?, lease_until_ms = 0, slot = 0 WHERE id = ?",
    "money": "UPDATE wallet SET available_micros = available_micros + ?, held_micros = held_micros + ?, "
    "spent_micros = spent_micros + ? WHERE id = ? AND coalesce(?, available_micros) = available_micros "
    "AND coalesce(?, credit_limit_micros) = credit_limit_micros",
    "spend": "INSERT INTO spend (wallet_id, day, application_id, micros) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (wallet_id, day, application_id) DO UPDATE SET micros = micros + excluded.micros",
    "replace": "UPDATE otp SET state = 'replaced' WHERE application_id = ? AND recipient = ? AND purpose = ? "
    "AND state = 'open' AND id < ?",
}
"""What is done once for each row of a part."""

_EXACT = ("change", "money", "new_key")
"""Parts of which each row must find what it changes as it was believed to be."""

_UNUSED_KEY = (
    "SELECT 1 FROM json_each(?) j CROSS JOIN idempotency i "  # gives a row for each key that is used
    "ON i.application_id = j.value ->> 0 AND i.key = j.value ->> 1"
)

_START = (
    "UPDATE delivery SET state = 'sending', attempt = attempt + 1, connector_id = ? "
    f"WHERE id IN (SELECT value FROM json_each(?)) AND {MAY_LEAVE} AND expires_ms > ? RETURNING {DELIVERY_COLUMNS}"
)

_START_KNOWN = (
    "UPDATE delivery SET state = 'sending', attempt = 1, connector_id = ? WHERE id IN (SELECT value FROM json_each(?)) "
    f"AND attempt = 0 AND {MAY_LEAVE} AND expires_ms > ? RETURNING id, expires_ms"
)

_MESSAGES_OF = (
    "FROM message WHERE id IN (SELECT d.message_id FROM json_each(:ids) j CROSS JOIN delivery d ON d.id = j.value)"
)
"""Many deliveries share a message: its facts are read once."""

_PAGE = (
    "FROM (SELECT d.id, d.connector_id, m.priority, d.account_id, d.state, d.reason FROM message m JOIN delivery d "
    "ON d.id BETWEEN max(m.first_id, :after_id + 1) AND m.last_id AND d.message_id = m.id WHERE m.id = :message_id "
    "ORDER BY d.id LIMIT :limit)"
)

_READY = "lane = :lane AND priority = :priority AND lease_until_ms = 0 AND buried_ms = 0"

_DUE_ACCOUNTS = f"""
WITH RECURSIVE account (id) AS (
    SELECT min(account_id) FROM job WHERE {_READY} AND account_id > {{after}}
    UNION ALL
    SELECT (SELECT min(account_id) FROM job WHERE {_READY} AND account_id > account.id) FROM account WHERE id < {{until}}
)
SELECT id FROM account WHERE id <= {{until}}
AND (SELECT min(due_ms) FROM job WHERE {_READY} AND account_id = account.id) <= :now_ms LIMIT :room
"""
"""Skips along the index from account to account, so a million jobs of one cost nothing; one whose first job is not due yet costs
the skip."""

_QUERIES: dict[str, tuple[str, ...]] = {
    "idempotent": (
        "SELECT i.application_id, i.key, i.body_hash, i.answer FROM json_each(:keys) j CROSS JOIN idempotency i "
        "ON i.application_id = j.value ->> 0 AND i.key = j.value ->> 1",
    ),
    "wallets": (
        "SELECT id, available_micros, credit_limit_micros FROM wallet WHERE id IN (SELECT value FROM json_each(:ids))",
    ),
    "spent": (
        "SELECT s.wallet_id, s.day, s.application_id, s.micros FROM json_each(:ids) j CROSS JOIN spend s "
        "ON s.wallet_id = j.value AND s.day >= :since_day",
    ),
    "codes": (
        "SELECT o.application_id, o.recipient, o.purpose, count(*), sum(o.checks_used), min(o.created_ms) "
        "FROM json_each(:places) j CROSS JOIN otp o ON o.application_id = j.value ->> 0 AND o.recipient = j.value ->> 1 "
        "AND o.purpose = j.value ->> 2 AND o.created_ms > :since_ms GROUP BY o.application_id, o.recipient, o.purpose",
    ),
    "tracked": (
        f"SELECT {TRACKED_COLUMNS} FROM json_each(:ids) j CROSS JOIN delivery d ON d.id = j.value "
        "JOIN message m ON m.id = d.message_id",
    ),
    "tracked_by_key": (
        f"SELECT {TRACKED_COLUMNS}, r.key, r.part FROM json_each(:keys) j CROSS JOIN carrier_ref r "
        "ON r.key = j.value AND r.connector_id = :connector_id JOIN delivery d ON d.id = r.delivery_id "
        "JOIN message m ON m.id = d.message_id",
    ),
    "uncertain": (
        f"SELECT {TRACKED_COLUMNS} FROM json_each(:recipients) j CROSS JOIN delivery d ON d.recipient = j.value "
        "AND d.connector_id = :connector_id AND d.in_doubt > 0 JOIN message m ON m.id = d.message_id",
    ),
    "take_parked": (
        "DELETE FROM parked_report WHERE connector_id = :connector_id AND key IN (SELECT value FROM json_each(:keys)) "
        "RETURNING key, report, id",
    ),
    "take_parked_of": (
        "DELETE FROM parked_report WHERE connector_id = :connector_id AND recipient = :recipient AND at_ms >= :since_ms "
        "RETURNING key, report, id",
    ),
    "take_parts": (
        "DELETE FROM inbound_part WHERE (connector_id, sender, recipient, reference) IN "
        "(SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(:keys)) "
        f"RETURNING {', '.join(HOT_COLUMNS['inbound_part'])}",
    ),
    "erase_bodies": (
        "UPDATE message SET body = '', body_kind = 'erased' WHERE id IN (SELECT value FROM json_each(:ids)) "
        "AND body_kind = 'sealed' AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.id BETWEEN message.first_id "
        "AND message.last_id AND d.message_id = message.id AND d.final_ms = 0)",
    ),
    # Many deliveries share a message: its facts, the text among them, are given once.
    "outgoing": (
        "SELECT d.id, d.message_id, d.account_id, d.recipient, d.expires_ms, d.attempt, d.route_id, d.state, d.country, "
        "d.reason FROM json_each(:ids) j CROSS JOIN delivery d ON d.id = j.value",
        f"SELECT id, priority, sender, body, body_kind, alphabet, parts, dialect, due_ms, category {_MESSAGES_OF}",
    ),
    "callbacks": (
        "SELECT c.id, c.endpoint_id, c.account_id, c.event, c.payload, c.created_ms, c.bundle_id FROM json_each(:ids) j "
        f"CROSS JOIN callback f ON f.id = j.value CROSS JOIN callback c ON c.id BETWEEN f.id AND f.id + f.bundled * {SLOTS} "
        "AND c.bundle_id = f.id",
    ),
    "open_messages": (
        "UPDATE message SET state = 'open' WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'loading'",
    ),
    "drop_loading": (
        "SELECT l.wallet_id, l.account_id, l.amount_micros, l.message_id, l.deliveries, m.application_id, m.created_ms "
        "FROM json_each(:ids) j CROSS JOIN message m ON m.id = j.value AND m.state = 'loading' CROSS JOIN ledger_entry l "
        "ON l.id BETWEEN m.id AND :until_id AND l.message_id = m.id AND l.kind = 'hold' ORDER BY l.id",
        "DELETE FROM delivery WHERE id IN (SELECT d.id FROM json_each(:ids) j CROSS JOIN message m ON m.id = j.value "
        "AND m.state = 'loading' CROSS JOIN delivery d ON d.id BETWEEN m.first_id AND m.last_id AND d.message_id = m.id)",
        "DELETE FROM message WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'loading'",
    ),
    "spread": (
        "INSERT OR IGNORE INTO job (id, kind, lane, priority, account_id, due_ms, lease_until_ms, slot, attempts) "
        f"SELECT id, 'dispatch', 'c' || connector_id, priority, account_id, :now_ms, 0, 0, 0 {_PAGE} WHERE {MAY_LEAVE}",
        f"SELECT coalesce(max(id), 0) {_PAGE}",
    ),
    "due_accounts": (
        _DUE_ACCOUNTS.format(after=":after", until=":most"),
        _DUE_ACCOUNTS.format(after="-1", until=":after"),
    ),
    "lease": (
        "UPDATE job SET lease_until_ms = :until_ms, slot = :slot, attempts = attempts + 1 WHERE id IN (SELECT id FROM job "
        f"WHERE {_READY} AND account_id = :account_id AND due_ms <= :now_ms ORDER BY due_ms, id LIMIT :share) "
        "RETURNING id, kind, lane, priority, account_id, due_ms, attempts - 1",
    ),
}
"""What a group may ask: statements with the values of `KeptTx.ask`."""


class _Lost(Exception):
    """The writing process has ended."""


class WritingProcess(asyncio.Protocol):
    """The writing process (`writer.py`), as seen from this one. It does what it is asked for in that order."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._asked: deque[asyncio.Future[tuple[Any, ...]]] = deque()
        self._transport: Any = None
        self._program: subprocess.Popen[bytes] | None = None

    @classmethod
    async def start(cls, path: Path, lock: int) -> WritingProcess:
        """Start one for the file at `path`. Raises `StoreAway`."""
        process = cls()
        ours, theirs = socket.socketpair()
        with theirs:
            end = theirs.fileno()
            process._program = subprocess.Popen(  # noqa: ASYNC220, S603  our own program; it takes milliseconds, at the start
                [sys.executable, "-I", "-S", writer.__file__, str(end)],
                stdin=subprocess.DEVNULL,
                pass_fds=[end] if lock < 0 else [end, lock],
            )
        await asyncio.get_running_loop().create_unix_connection(lambda: process, sock=ours)
        try:
            await process._ask((str(path), PRAGMAS, CHECKPOINT_CHANGES, LOCK_TRIES))
        except BaseException as error:
            await process.end()
            if isinstance(error, _Lost):
                raise StoreAway("the process that writes the database does not start") from None
            raise
        return process

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._program is not None
        return self._program.pid

    async def run(self, version: int, steps: list[_Step] | None, is_last: bool) -> list[list[tuple[Any, ...]]]:
        """Do these steps in the open transaction, and commit it if they are the last; None undoes it. Gives the rows of
        steps that have some. `version` is that of the belief (`Belief.version`) by which they were decided.

        Raises `StoreConflict`, `RowRefused`, `StoreAway` (the transaction is then undone), or `_Lost`.
        """
        return await self._ask((version, steps, is_last))

    async def _ask(self, value: Any) -> list[list[tuple[Any, ...]]]:
        if self._transport is None:
            raise _Lost
        try:
            packed = marshal.dumps(value)
        except ValueError:  # members of enumerations and the like are no words of the other process
            packed = marshal.dumps(msgspec.to_builtins(value))
        asked: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._transport.writelines((struct.pack("<I", len(packed)), packed))
        answer = await asked
        if answer[0] == writer.DONE:
            return answer[1]  # type: ignore[no-any-return]
        if answer[0] == writer.CONFLICT:
            raise StoreConflict(answer[1])
        code, kind, text = answer[1:]
        raise _meaning(code, kind, text) or RuntimeError(f"{kind}: {text}")

    async def end(self) -> int:
        """Let it end, after what it is doing; gives its exit status."""
        assert self._program is not None
        if self._transport is not None:
            self._transport.close()
        return await asyncio.to_thread(self._program.wait)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be spoken to."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Some of its answers."""
        received = self._received
        received += data
        while len(received) >= 4 and len(received) >= (end := 4 + struct.unpack_from("<I", received)[0]):
            answer = marshal.loads(bytes(received[4:end]))  # noqa: S302  from the program that we have started
            del received[:end]
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._transport = None
        for asked in self._asked:
            if not asked.done():
                asked.set_exception(_Lost())


class SqliteDriver:
    """The writing connection, opened by the first group that needs it, and again after it was lost.

    `path` is the database file; its schema must be there already. Whoever else writes to it in this process holds `turn`
    meanwhile. `lock` is a descriptor that the writing process keeps open as long as it runs, if there is one: a file lock
    on it then ends with the later of the two.
    """

    def __init__(self, path: Path, turn: Turn | None = None, lock: int = -1) -> None:
        self._path = path
        self._lock = lock
        self._belief = Belief(CAREFUL_GROUPS)
        self._turn = turn or Turn()
        self.process: WritingProcess | None = None
        """The one that is running."""
        self._starting = asyncio.Lock()

    async def connect(self) -> WritingProcess:
        """The writing process; starts one if there is none. Raises `StoreAway`."""
        if self.process is None:
            async with self._starting:
                if self.process is None:
                    self.process = await WritingProcess.start(self._path, self._lock)
        return self.process

    def begin(self, ahead: asyncio.Event | None = None) -> SqliteTx:
        """See `HotDriver.begin`."""
        return SqliteTx(self, ahead)

    async def commit(self, tx: SqliteTx) -> None:
        """See `HotDriver.commit`. When the writing process is lost before its answer, what it wrote is looked for."""
        try:
            await tx.commit()
        except _Lost:
            await self.lose(tx.process)
            try:
                await self._find(tx)
            except _Lost:
                raise StoreAway("the process that writes the database ends again and again") from None
        tx.end(is_committed=True)

    async def rollback(self, tx: SqliteTx) -> None:
        """See `HotDriver.rollback`."""
        if tx.has_begun and tx.process is not None and tx.process is self.process:
            try:
                await tx.process.run(tx.version, None, False)
            except _Lost:
                await self.lose(tx.process)
        tx.end(is_committed=False)

    async def close(self) -> None:
        """See `HotDriver.close`."""
        if self.process is not None:
            process, self.process = self.process, None
            await process.end()

    async def lose(self, process: WritingProcess | None) -> None:
        """A writing process has ended by itself; the next who needs it starts another."""
        if process is not None and process is self.process:
            self.process = None
            log.error(WRITER_ENDED, extra={"status": await process.end()})

    async def _find(self, tx: SqliteTx) -> None:
        """Find out whether a group was committed whose answer was lost. Raises `StoreConflict` if it was not, `StoreAway` if that
        cannot be known."""
        if tx.proof is None:
            raise StoreAway("the process that writes the database ended during a commit")
        part, key = tx.proof
        if part == "start":
            connector_id, ids = key
            wanted, values = (
                "state = 'sending' AND connector_id = ? AND id IN (SELECT value FROM json_each(?))",
                (connector_id, _list(ids)),
            )
            table = "delivery"
        else:
            table, wanted, values = part, " AND ".join(f"{name} = ?" for name in PROOFS[part]), key
        process = await self.connect()
        found, started = await process.run(
            tx.version,
            [
                (writer.ONE, f"SELECT 1 FROM {table} WHERE {wanted} LIMIT 1", values, -1),
                (writer.ONE, _QUERIES["tracked"][0], {"ids": _list(tx.starting)}, -1),
            ],
            True,
        )
        if not found:
            raise StoreConflict("the process that writes the database ended before a commit")
        tx.take_started(Tracked(*row) for row in started)


class SqliteTx(KeptTx):
    """The statements of one group. See `KeptTx`."""

    def __init__(self, driver: SqliteDriver, ahead: asyncio.Event | None) -> None:
        super().__init__(driver._belief, driver._turn, ahead)
        self._driver = driver
        self.process: WritingProcess | None = None
        """Who works for it."""

    async def commit(self) -> None:
        """Write what is left, durably. Raises `_Lost` when it is not known what became of it."""
        kept = self.taken()
        if kept or self.has_begun:
            await self.take_turn(waits=False)
            self.process = self.process or await self._driver.connect()
            self._take_started(kept, await self.process.run(self.version, _steps(kept), True))

    async def open(self) -> None:
        """See `KeptTx.open`. The transaction begins with the first step."""
        self.process = await self._driver.connect()

    async def write(self, kept: dict[str, list[tuple[Any, ...]]]) -> None:
        """See `KeptTx.write`."""
        self._take_started(kept, await self._run(_steps(kept)))

    def _take_started(self, kept: dict[str, list[tuple[Any, ...]]], results: list[list[tuple[Any, ...]]]) -> None:
        """See `_steps` for the order of the results."""
        if "start" in kept:
            messages = {row[0]: row[1:] for row in results.pop()}
            rows = [row for _ in _starts(kept["start"]) for row in results.pop()]
            self.take_started(Tracked(*row, *messages[row[1]]) for row in rows)
        for _ in _starts(kept.get("start_known", [])):
            self.take_started_known(results.pop())

    async def ask(self, query: str, **values: Any) -> list[Any]:
        """See `KeptTx.ask`."""
        return next(iter(await self._ask(query, values)), [])

    async def _ask(self, query: str, *values: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
        """The rows of each of the query's statements, for each of these sets of values."""
        await self.begin()
        return await self._run(
            [
                (
                    writer.ONE,
                    statement,
                    {name: _list(each) if isinstance(each, list | tuple) else each for name, each in given.items()},
                    -1,
                )
                for given in values
                for statement in _QUERIES[query]
            ]
        )

    async def _run(self, steps: list[_Step]) -> list[list[tuple[Any, ...]]]:
        """Steps of an open transaction. If the writing process is lost, nothing of it is left."""
        assert self.process is not None
        try:
            return await self.process.run(self.version, steps, False)
        except _Lost:
            await self._driver.lose(self.process)
            raise StoreConflict("the process that writes the database ended before a commit") from None

    async def outgoing(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """See `HotTx.outgoing`."""
        await self._before("delivery", ids)
        rows, messages = await self._ask("outgoing", {"ids": list(ids)})
        of = {row[0]: row[1:] for row in messages}
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
            priority, sender, body, body_kind, alphabet, parts, dialect, due_ms, category = of[message_id]
            found.append(
                (delivery_id, message_id, account_id, priority, sender, recipient, body, body_kind, alphabet, parts,
                 expires_ms, attempt, route_id, dialect, state, due_ms, category, country, reason)
            )  # fmt: skip
        return found

    async def lease_round(
        self, lane: str, priority: int, room: int, now_ms: int, until_ms: int, slot: int, after_account: int
    ) -> tuple[list[LeasedJob], bool]:
        """See `KeptTx.lease_round`."""
        place = {"lane": lane, "priority": priority, "now_ms": now_ms}
        behind, before = await self._ask(
            "due_accounts", place | {"room": room, "after": after_account, "most": 2**63 - 1}
        )
        accounts = [row[0] for row in behind + before][:room]
        if not accounts:
            return [], False
        share = -(-room // len(accounts))
        shares = [min(share, room - share * turn) for turn in range(-(-room // share))]
        lease = place | {"until_ms": until_ms, "slot": slot}
        rounds = await self._ask(
            "lease",
            *(
                lease | {"account_id": account_id, "share": mine}
                for account_id, mine in zip(accounts, shares, strict=False)
            ),
        )
        has_more = any(len(rows) == mine for rows, mine in zip(rounds, shares, strict=False))
        return [LeasedJob(*row) for rows in rounds for row in sorted(rows, key=_by_due)], has_more


_by_due = itemgetter(5, 0)
"""The order of leased jobs: due time, then id."""

_encode = msgspec.json.Encoder().encode


def _list(values: Iterable[Any]) -> str:
    """A list as one bound value, for `json_each`; what is asked for twice is given once."""
    return _encode(list(dict.fromkeys(values))).decode()


def _steps(kept: dict[str, list[tuple[Any, ...]]]) -> list[_Step]:
    """What the writing process is to do with what was kept. The last that gives rows is what starts deliveries: first those that
    are known, then the others, then the messages of these."""
    steps: list[_Step] = []
    for part, rows in kept.items():
        expected = len(rows) if part in _EXACT else -1
        if part in _INSERTS:
            steps.append((writer.INSERT, _INSERTS[part], rows, expected))
        elif part in _CHANGES:
            steps.append((writer.EACH, _CHANGES[part], rows, expected))
        elif part == "unused_key":
            steps.append((writer.ONE, _UNUSED_KEY, (_list(rows),), 0))
    for part, statement in (("start_known", _START_KNOWN), ("start", _START)):
        steps += [
            (writer.ONE, statement, (connector_id, _list(ids), now_ms), -1)
            for (connector_id, now_ms), ids in _starts(kept.get(part, [])).items()
        ]
    if "start" in kept:
        messages = f"SELECT id, {MESSAGE_COLUMNS} {_MESSAGES_OF}"
        steps.append((writer.ONE, messages, {"ids": _list(row[0] for row in kept["start"])}, -1))
    return steps


def _starts(rows: list[tuple[Any, ...]]) -> dict[tuple[int, int], list[int]]:
    """What is to be started, by connector and moment."""
    found: dict[tuple[int, int], list[int]] = {}
    for delivery_id, connector_id, now_ms in rows:
        found.setdefault((connector_id, now_ms), []).append(delivery_id)
    return found


def meaning(error: sqlite3.Error) -> Exception:
    """What an error of SQLite means for the caller; the error itself if it is a fault of ours, in SQL or in the schema."""
    return _meaning(getattr(error, "sqlite_errorcode", 0), type(error).__name__, str(error)) or error


def _meaning(code: int, kind: str, text: str) -> Exception | None:
    """What an error of SQLite means, by its result code (0 if the driver made it up itself) and kind; None for a fault of ours.

    A full disk, a held lock, a file that cannot be read or written are an absence, each with a code of its own.
    `SQLITE_ERROR` is what is left: no such table or column, a wrong statement.
    """
    if kind == "IntegrityError":
        return RowRefused(text)
    if kind == "OperationalError" and code & 0xFF not in (0, sqlite3.SQLITE_ERROR):
        return StoreAway(text)
    return None
