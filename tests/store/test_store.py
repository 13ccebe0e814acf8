"""The ordinary ways in: transactions and reads, beside the hot path."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from berid.base.clock import SystemClock
from berid.store import Store, open_store, tables
from berid.store.hot import HotTx, StoreAway, Verb
from tests.support.database import ask, make_tables, row
from tools import pg


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open store on an empty database with all tables."""
    opened = await open_store(store_url, SystemClock())
    yield opened
    await opened.close()


async def _write(tx: HotTx, ids: list[int]) -> list[None]:
    await tx.insert("event", [row("event", delivery_id=1, id=identifier) for identifier in ids])
    return [None for _ in ids]


WRITE: Verb[int, None] = Verb("write", 1, _write)


async def test_transaction_is_on_disk_when_its_block_ends(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.execute(insert(tables.meta).values(key="a", value="1"))
        assert await ask(store.url, "SELECT key FROM meta") == []
    assert await ask(store.url, "SELECT key, value FROM meta") == [("a", "1")]


async def test_transaction_that_raises_leaves_nothing(store: Store) -> None:
    async def write_and_raise() -> None:
        async with store.transaction() as tx:
            await tx.execute(insert(tables.meta).values(key="a", value="1"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_raise()
    assert await ask(store.url, "SELECT key FROM meta") == []
    async with store.transaction() as tx:
        await tx.execute(insert(tables.meta).values(key="b"))
    assert await ask(store.url, "SELECT key FROM meta") == [("b",)]


async def test_read_sees_one_moment_and_waits_for_no_writer(store: Store) -> None:
    count = select(func.count()).select_from(tables.event)
    async with store.read() as before:
        assert await before.scalar(count) == 0
        await store.hot.do(WRITE, [1])
        async with store.transaction() as tx:
            await tx.execute(insert(tables.event).values(delivery_id=1, id=2))
            async with store.read() as meanwhile:
                assert await meanwhile.scalar(count) == 1
        assert await before.scalar(count) == 0
    async with store.read() as after:
        assert await after.scalar(count) == 2


async def test_what_a_read_writes_does_not_last(store: Store) -> None:
    try:
        async with store.read() as tx:
            await tx.execute(insert(tables.meta).values(key="a"))
    except DBAPIError:  # PostgreSQL says so at once
        pass
    assert await ask(store.url, "SELECT key FROM meta") == []


async def test_ordinary_and_hot_writes_interleave(store: Store) -> None:
    async def ordinary(number: int) -> None:
        async with store.transaction() as tx:
            await tx.execute(insert(tables.meta).values(key=str(number)))

    async def hot(number: int) -> None:
        await store.hot.do(WRITE, [number])

    for start in range(0, 500, 20):
        numbers = range(start, start + 20)
        await asyncio.gather(*(work(number) for number in numbers for work in (ordinary, hot)))
    assert await ask(store.url, "SELECT count(*) FROM meta") == [(500,)]
    assert await ask(store.url, "SELECT count(*) FROM event") == [(500,)]


async def test_no_commit_on_postgresql_waits_for_a_lease(postgres_url: str) -> None:
    await make_tables(postgres_url)
    store = await open_store(postgres_url, SystemClock())
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def take_long(tx: HotTx, ids: list[int]) -> list[None]:
        await tx.lease("c1", 1, 10, 0, 1, 1, -1)
        has_begun.set()
        await may_end.wait()
        return [None for _ in ids]

    leasing = asyncio.ensure_future(store.lease(Verb("lease", 1, take_long), [1]))
    await has_begun.wait()
    await asyncio.wait_for(store.hot.do(WRITE, [1]), 5)
    assert await ask(store.url, "SELECT id FROM event") == [(1,)]
    may_end.set()
    await leasing
    await store.close()


async def test_a_lease_sees_what_was_asked_before(store: Store) -> None:
    async def count(tx: HotTx, ids: list[int]) -> list[int]:
        return [len(await tx.lease("c1", 1, 10, 1, 2, 1, -1)) for _ in ids]

    async def wait_for_work(tx: HotTx, ids: list[int]) -> list[None]:
        await asyncio.sleep(0.01)
        await tx.insert("job", [row("job", id=identifier, lane="c1", priority=1) for identifier in ids])
        return [None for _ in ids]

    writing = asyncio.ensure_future(store.hot.do(Verb("work", 2, wait_for_work), [1]))
    await asyncio.sleep(0)
    assert await store.lease(Verb("lease", 1, count), [1]) == [1]
    await writing


async def test_error_of_an_ordinary_write_shows_no_value(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.execute(insert(tables.callback_endpoint).values(id=1, sealed_secret="s3cret"))
    with pytest.raises(IntegrityError) as caught:
        async with store.transaction() as tx:
            await tx.execute(insert(tables.callback_endpoint).values(id=1, sealed_secret="s3cret"))
    assert "s3cret" not in str(caught.value)


async def test_closing_finishes_what_the_hot_path_was_asked(store_url: str) -> None:
    store = await open_store(store_url, SystemClock())
    asks = [asyncio.ensure_future(store.hot.do(WRITE, [number])) for number in range(3)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*asks)
    assert await ask(store_url, "SELECT count(*) FROM event") == [(3,)]


@pytest.mark.parametrize("form", ["sqlite:///{folder}/absent/berid.db", "postgresql://nobody@/none?host={folder}"])
async def test_database_that_cannot_be_reached_is_away(form: str, tmp_path: Path) -> None:
    with pytest.raises(StoreAway):
        await open_store(form.format(folder=tmp_path), SystemClock())


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
async def test_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="needs a database file"):
        await open_store(url, SystemClock())


@pytest.mark.postgres
async def test_every_form_of_url_reaches_the_server(postgres_url: str) -> None:
    name = re.search(r"/(test_\w+)", postgres_url)
    assert name is not None
    socket_folder = postgres_url.partition("host=")[2]
    forms = [postgres_url]
    if socket_folder:
        forms += [
            f"postgresql://postgres:unused@/{name[1]}?host={socket_folder}&sslmode=disable",
            f"postgresql:///{name[1]}?user=postgres&host={socket_folder}&port=5432",
        ]
    await make_tables(postgres_url)
    for number, url in enumerate(forms):
        store = await open_store(url, SystemClock())
        await store.hot.do(WRITE, [number])
        async with store.read() as tx:
            assert await tx.scalar(text("SELECT current_database()")) == name[1]
            assert await tx.scalar(select(func.count()).select_from(tables.event)) == number + 1
        await store.close()


@pytest.mark.postgres
async def test_ordinary_queries_outlive_a_restart_of_the_server(postgres_url: str) -> None:
    await make_tables(postgres_url)
    store = await open_store(postgres_url, SystemClock())
    async with store.read() as tx:
        pid: Any = await tx.scalar(text("SELECT pg_backend_pid()"))
    await ask(postgres_url, "SELECT pg_terminate_backend($1)", pid)
    async with store.read() as tx:
        assert await tx.scalar(text("SELECT pg_backend_pid()")) != pid
    await store.close()


async def _ask_while_it_stops(store: Store, server: pg.Server) -> None:
    async with store.read() as tx:
        server.stop()
        await tx.execute(text("SELECT 1"))


@pytest.mark.postgres
async def test_database_that_went_away_is_away_to_ordinary_readers_and_writers() -> None:
    with pg.temporary_folder() as folder:
        server = pg.Server(folder, durable=False)
        await asyncio.to_thread(server.start)
        try:
            await make_tables(server.url)
            store = await open_store(server.url, SystemClock())
            for open_one in (store.read, store.transaction):
                async with open_one() as tx:
                    await tx.execute(text("SELECT 1"))
            server.stop()
            for open_one in (store.read, store.transaction):
                with pytest.raises(StoreAway):
                    async with open_one() as tx:
                        await tx.execute(text("SELECT 1"))
            await asyncio.to_thread(server.start)
            with pytest.raises(StoreAway):
                await _ask_while_it_stops(store, server)
            await asyncio.to_thread(server.start)
            async with store.read() as tx:
                assert (await tx.execute(text("SELECT 1"))).scalar() == 1
            await store.close()
        finally:
            server.stop()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("state", "is_away"),
    [
        ("08006", True),  # the connection broke
        ("40P01", True),  # ended in favour of another, as a deadlock is
        ("53100", True),  # its disk is full
        ("53300", True),  # too many connections
        ("55P03", True),  # another process holds the row
        ("57014", True),  # somebody cancelled it
        ("58030", True),  # its disk fails
        ("22003", False),
        ("23505", False),
        ("42P01", False),  # no such table
        ("42703", False),  # no such column
    ],
)
async def test_what_the_server_says_tells_an_absence_from_a_fault_of_ours(
    postgres_url: str, state: str, is_away: bool
) -> None:
    store = await open_store(postgres_url, SystemClock())
    trouble = text(f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{state}'; END $$")
    try:
        for open_one in (store.read, store.transaction):
            with pytest.raises((StoreAway, DBAPIError)) as caught:
                async with open_one() as tx:
                    await tx.execute(trouble)
            assert isinstance(caught.value, StoreAway) is is_away
    finally:
        await store.close()


@pytest.mark.parametrize(
    "pragma",
    [
        pytest.param("max_page_count = 1", id="full"),
        pytest.param("query_only = 1", id="read-only"),
    ],
)
async def test_sqlite_that_takes_no_more_is_away(tmp_path: Path, pragma: str) -> None:
    url = f"sqlite:///{tmp_path}/berid.db"
    await make_tables(url)
    store = await open_store(url, SystemClock())
    async with store.transaction() as tx:
        await tx.execute(text(f"PRAGMA {pragma}"))
    with pytest.raises(StoreAway):
        async with store.transaction() as tx:
            await tx.execute(insert(tables.meta).values(key="a", value="x" * 1_000_000))
    await store.close()


@pytest.mark.postgres
async def test_standby_is_away_to_writers(postgres_url: str) -> None:
    await make_tables(postgres_url)
    store = await open_store(postgres_url, SystemClock())
    await ask(
        postgres_url, f'ALTER DATABASE "{urlsplit(postgres_url).path[1:]}" SET default_transaction_read_only = on'
    )
    with pytest.raises(StoreAway):
        async with store.transaction() as tx:
            await tx.execute(insert(tables.meta).values(key="a"))
    await store.close()


@pytest.mark.parametrize("change", ["DROP TABLE event", "ALTER TABLE event DROP COLUMN detail"])
async def test_schema_that_does_not_fit_is_a_fault_and_not_an_absence(
    empty_store_url: str, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    await make_tables(empty_store_url)
    store = await open_store(empty_store_url, SystemClock())
    await ask(empty_store_url, change)
    for open_one in (store.read, store.transaction):
        with pytest.raises(DBAPIError):
            async with open_one() as tx:
                await tx.execute(select(tables.event))
    with pytest.raises(Exception, match=r"event|detail") as caught:
        await store.hot.do(WRITE, [1])
    assert not isinstance(caught.value, StoreAway)
    assert "verb write failed" in caplog.text
    async with store.transaction() as tx:
        await tx.execute(insert(tables.meta).values(key="a"))
    await store.close()
