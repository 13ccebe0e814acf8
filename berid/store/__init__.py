"""Keeping: all SQL of the product, on SQLite or PostgreSQL from one code base.

`open_store(url, clock)` gives a `Store` with three ways in:

- `store.hot` (`HotStore`): what runs for every message, in grouped commits;
- `store.transaction()`: any other write, as a SQLAlchemy connection in a transaction;
- `store.read()`: any other read, never blocked by a writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from berid.base.clock import Clock
from berid.store.hot import HotStore, Item, Result, StoreAway, Verb
from berid.store.hot_kept import Turn

Tx = AsyncConnection
"""An open transaction, or an open read."""

READ_ONLY = "25006"
"""PostgreSQL's word for a write in a transaction that may only read. To a writer it means that the server is a standby."""

BUSY_TIMEOUT_MS = 5_000
"""How long an ordinary write waits for another process that holds SQLite's write lock."""


class Store:
    """An open database. Made by `open_store`; `close` it last."""

    def __init__(
        self, url: str, engine: AsyncEngine, hot: HotStore, aside: HotStore | None, write_lock: Turn | None
    ) -> None:
        self.url = url
        self.hot = hot
        self._aside = aside
        self._engine = engine
        self._lock = write_lock
        # SQLite's reads are of one moment by nature; PostgreSQL's, if asked to be.
        self._reader = (
            engine
            if self.is_sqlite
            else engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded database, served by this one process."""
        return self._engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """A transaction that commits when the block ends and rolls back when it raises.

        Raises `StoreAway` when the database cannot be reached or written; when that happens at the commit, nobody knows whether
        it was done. Never ask `hot` for anything inside the block: on SQLite the hot path waits until the block has ended.
        """
        with _away():
            if self._lock is None:
                async with self._engine.begin() as connection:
                    yield connection
                return
            async with self._lock, self._engine.connect() as connection:
                await connection.execution_options(berid_write=True)
                async with connection.begin():
                    yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """A connection to read by; it sees one moment of the database. Raises `StoreAway` when that cannot be reached."""
        with _away(is_read=True):
            async with self._reader.connect() as connection:
                yield connection

    async def lease(self, verb: Verb[Item, Result], items: Sequence[Item]) -> list[Result]:
        """As `hot.do`, for work that takes its time and that nobody waits for. It sees what `hot` was asked for before.

        On PostgreSQL it has a connection of its own, so that no commit waits for it.
        """
        if self._aside is None:
            return await self.hot.do(verb, items)
        await self.hot.passed()
        return await self._aside.do(verb, items)

    async def ended(self) -> None:
        """Wait until the hot path serves no more. Raises the fault that ended it."""
        hot = [self.hot] if self._aside is None else [self.hot, self._aside]
        await asyncio.gather(*(one.ended() for one in hot))

    async def close(self) -> None:
        """Finish the hot path's work and let all connections go."""
        if self._aside is not None:
            await self._aside.stop()
        await self.hot.stop()
        await self._engine.dispose()


@contextmanager
def _away(is_read: bool = False) -> Iterator[None]:
    """Turn a lost or refused connection, a full disk and a held lock into `StoreAway`; leave wrong SQL, a schema that it does not
    fit, and a write where only reading was asked for, as the faults they are."""
    try:
        yield
    except (OSError, PoolTimeout) as error:
        raise StoreAway(_words(error)) from error
    except DBAPIError as error:
        means = StoreAway(_words(error)) if error.connection_invalidated else _meaning(error)
        if not isinstance(means, StoreAway) or (is_read and getattr(error.orig, "sqlstate", "") == READ_ONLY):
            raise
        raise means from error


def _meaning(error: DBAPIError) -> Exception:
    """The same answer as the hot path gives to its driver's errors."""
    if isinstance(error.orig, sqlite3.Error):
        from berid.store.hot_sqlite import meaning

        return meaning(error.orig)
    from berid.store.hot_postgres import meaning as meaning_postgres

    cause = error.orig.__cause__ if error.orig is not None else None
    return meaning_postgres(cause if isinstance(cause, Exception) else error)


def _words(error: Exception) -> str:
    """The first line of an error, or its kind if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


async def open_store(
    url: str,
    clock: Clock,
    observe: Callable[[int, float], None] | None = None,
    lock: int = -1,
) -> Store:
    """Open the database at `url` (`sqlite:///path` or `postgresql://…`) whose schema is up to date already.

    `observe(operations, seconds)` is told of every grouped commit. `lock` is the descriptor of a lock that says who may write
    to an embedded database. Raises `StoreAway` when it cannot be reached.
    """
    engine = make_engine(url)
    if engine.dialect.name == "sqlite":
        from berid.store.hot_sqlite import SqliteDriver

        write_lock: Turn | None = Turn()
        sqlite = SqliteDriver(sqlite_path(url), write_lock, lock)
        await sqlite.connect()
        hot, aside = HotStore(sqlite, clock, observe=observe), None
    else:
        from berid.store.hot_postgres import PostgresDriver

        write_lock = None
        postgres = PostgresDriver(url)
        await postgres.connect()
        hot = HotStore(postgres, clock, observe=observe)
        aside = HotStore(PostgresDriver(url), clock, observe=observe)
        aside.start()
    hot.start()
    return Store(url, engine, hot, aside, write_lock)


def sqlite_path(url: str) -> Path:
    """The file behind a `sqlite:///` URL."""
    database = make_url(url).database
    if not database or database == ":memory:":
        raise ValueError("the store needs a database file: sqlite:///path/to/berid.db")
    return Path(database)


def make_engine(url: str) -> AsyncEngine:
    """The engine for ordinary queries. On SQLite transactions begin as the caller says, not as the driver guesses.

    Errors name the statement but not its values, which may be secrets or texts of messages.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_async_engine(
            parsed.set(drivername="sqlite+aiosqlite"),
            poolclass=AsyncAdaptedQueuePool,
            pool_size=4,
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
            hide_parameters=True,
        )

        @event.listens_for(engine.sync_engine, "connect")
        def _prepare(connection: object, _record: object) -> None:
            connection.isolation_level = None  # type: ignore[attr-defined]
            cursor = connection.cursor()  # type: ignore[attr-defined]
            # Who commits here holds the hot path up meanwhile; the hot path folds the log itself, in better moments.
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "wal_autocheckpoint=32000",
                f"busy_timeout={BUSY_TIMEOUT_MS}",
            ):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: object) -> None:
            is_write = connection.get_execution_options().get("berid_write")  # type: ignore[attr-defined]
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")  # type: ignore[attr-defined]

        return engine
    from berid.store.hot_postgres import TROUBLE, connect

    async def reach() -> object:
        # asyncpg reads the URL itself: it knows more forms of it than the dialect does (sockets, sslmode, several hosts).
        try:
            # A question that is asked beside the path may take one of the server's cores, not all of them.
            return await connect(url, application_name="berid", jit="off", max_parallel_workers_per_gather="0")
        except TROUBLE as error:
            raise StoreAway(f"the database cannot be reached: {_words(error)}") from None

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=reach,
        pool_size=8,
        max_overflow=8,
        pool_pre_ping=True,
        hide_parameters=True,
    )
