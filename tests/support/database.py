"""Databases for tests: all tables at once, and rows of which a test says only what matters to it."""

import asyncio
import contextlib
import itertools
import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from berid.store import sqlite_path
from berid.store.hot import HOT_COLUMNS
from berid.store.tables import metadata

FAR_MS = 4_000_000_000_000
"""A time that no test reaches."""

_ids = itertools.count(1_000)

_GIVEN: dict[str, dict[str, Any]] = {
    "message": {"mode": "live", "channel": "sms", "state": "open", "body": "hello", "body_kind": "text", "parts": 1},
    "delivery": {"state": "queued", "money": "held", "charge_on": "sent", "expires_ms": FAR_MS, "recipient": "1555"},
    "job": {"kind": "dispatch", "lane": "c1", "priority": 1, "account_id": 1},
    "ledger_entry": {"kind": "hold"},
    "otp": {"state": "open"},
}


@cache
def _script(dialect_name: str) -> str:
    """The statements that make every table: in one go ten times as fast as the steps, whose result is the same."""
    dialect = sqlite.dialect() if dialect_name == "sqlite" else postgresql.dialect()
    statements = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes]
    return ";\n".join(statements)


async def make_tables(url: str) -> None:
    """Make every table, unless the database has them (as that of the fixture `store_url` has)."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(sqlite_path(url))
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; BEGIN; " + _script("sqlite") + "; COMMIT"
            )
        connection.close()
        return
    server = await asyncpg.connect(url)
    try:
        if await server.fetchval("SELECT to_regclass('meta')") is None:
            await server.execute(_script("postgresql"))
    finally:
        await server.close()


async def ask(url: str, question: str, *values: Any) -> list[tuple[Any, ...]]:
    """All rows that a query gives a second connection: what is committed. Values stand for $1, $2, …; writing works too."""
    if url.startswith("sqlite"):
        # In a thread: whoever holds the lock of the database may need this one's loop to give it back.
        return await asyncio.to_thread(_ask_sqlite, sqlite_path(url), question.replace("$", "?"), values)
    server = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await server.fetch(question, *values)]
    finally:
        await server.close()


def _ask_sqlite(path: Path, question: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [tuple(row) for row in connection.execute(question, values)]


@cache
def _defaults(table: str) -> dict[str, Any]:
    blank = {column: "" if str(metadata.tables[table].c[column].type) == "TEXT" else 0 for column in HOT_COLUMNS[table]}
    return blank | _GIVEN.get(table, {})


def row(table: str, **values: Any) -> tuple[Any, ...]:
    """A row for `HotTx.insert`; what is not said is a new id, 0 or "" as the column has it."""
    defaults = _defaults(table)
    assert values.keys() <= defaults.keys(), f"{table} has no column {values.keys() - defaults.keys()}"
    if "id" in defaults and "id" not in values:
        values["id"] = next(_ids)
    return tuple((defaults | values).values())
