"""Fixtures that the whole suite shares: the two databases that every store is tested on.

One PostgreSQL server serves the whole run, all xdist workers together, and starts when the first test asks
for it. Making a database and its tables takes a tenth of a second, emptying it a tenth of that: so each
worker keeps one with all tables (`store_url`), and a test that does more to a database than put rows into it
asks for one of its own (`empty_store_url`, `postgres_url`). A test marked `durable` gets a second server,
which writes through to the disk as in production. BERID_TEST_POSTGRES_URL names a server to use instead of
ours; its user must be allowed to create databases.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import uvloop

from berid.store.tables import metadata
from tests.support.database import make_tables
from tools import pg

RUN_FOLDER = "BERID_TEST_RUN_FOLDER"  # set by the first process of a run and inherited by its workers
OWN_SERVER = "BERID_TEST_POSTGRES_URL"


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a folder in which its processes tell one another where the servers are."""
    if not hasattr(config, "workerinput"):
        os.environ[RUN_FOLDER] = tempfile.mkdtemp(prefix="berid-tests-")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test runs on the event loop that `berid serve` runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers of the run. Were this process killed, their keepers would notice and end them."""
    if not hasattr(config, "workerinput"):
        folder = Path(os.environ.pop(RUN_FOLDER))
        for record in folder.glob("*.server"):
            pg.end(int(record.read_text().splitlines()[1]))
        shutil.rmtree(folder)


BOTH_STORES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]

_EMPTY = f"""
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
{"; ".join(f"DELETE FROM {table}" for table in metadata.tables)}
"""
"""What a test leaves behind is removed: its connections, with what they have not committed, and its rows."""

_SHAPE = """
SELECT md5(concat((SELECT string_agg(oid || '.' || relnatts, ',' ORDER BY oid) FROM pg_class),
                  (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_proc WHERE oid >= 16384),
                  (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_trigger),
                  (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_constraint)))
"""
"""A word that changes with every table, column, index, constraint, function and trigger."""


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty PostgreSQL database that lives as long as the test."""
    server = _server_url(durable=_is_durable(request))
    url = _create(server)
    yield url
    _drop(server, url)


@pytest.fixture(params=BOTH_STORES)
def empty_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables: a test that takes it runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/berid.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=BOTH_STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with all tables and no rows, on SQLite and on PostgreSQL as with `empty_store_url`.

    On PostgreSQL the next test gets the same database, emptied: leave its tables as they are.
    """
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/berid.db"
        _run(make_tables(url))
        yield url
        return
    kept: dict[str, tuple[str, str]] = request.getfixturevalue("_kept_databases")
    server = _server_url(durable=_is_durable(request))
    if server not in kept:
        url = _create(server)
        _run(make_tables(url))
        kept[server] = (url, _empty(url))
    url, shape = kept[server]
    yield url
    if _empty(url) != shape:
        _drop(server, kept.pop(server)[0])
        pytest.fail("a test that changes tables needs a database of its own: empty_store_url or postgres_url")


@pytest.fixture(scope="session")
def _kept_databases() -> Iterator[dict[str, tuple[str, str]]]:
    """This worker's databases with all tables, by server: their URL, and their shape."""
    kept: dict[str, tuple[str, str]] = {}
    yield kept
    for server, (url, _) in kept.items():
        _drop(server, url)


def _is_durable(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("durable") is not None


def _create(server: str) -> str:
    name = f"test_{uuid.uuid4().hex}"
    _execute(server, f'CREATE DATABASE "{name}"')
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def _drop(server: str, url: str) -> None:
    _execute(server, f'DROP DATABASE "{urlsplit(url).path[1:]}" WITH (FORCE)')


def _server_url(*, durable: bool) -> str:
    """The URL of the run's server, started if this test is the first to ask. Fails the test if it cannot."""
    if url := os.environ.get(OWN_SERVER):
        return url
    folder = Path(os.environ[RUN_FOLDER])
    record = folder / ("durable.server" if durable else "fast.server")
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            owner_pid = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            try:
                url, keeper_pid = pg.launch(owner_pid, durable=durable)
            except pg.NoPostgresError as trouble:
                pytest.fail(str(trouble), pytrace=False)
            record.write_text(f"{url}\n{keeper_pid}\n")
        return record.read_text().splitlines()[0]


def _execute(url: str, statement: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    _run(work())


def _empty(url: str) -> str:
    """Leave a database with its tables only, and give its shape."""

    async def work() -> Any:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(_EMPTY)
            return await connection.fetchval(_SHAPE)
        finally:
            await connection.close()

    shape: str = _run(work())
    return shape


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it on a loop of its own, so that the loop of the test is left alone."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()
