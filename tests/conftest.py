"""Fixtures that the whole suite shares: the two databases that every store is tested on.

One PostgreSQL server serves the whole run, all xdist workers together, and starts when the first test asks
for it; each test has a database of its own. A test marked `durable` gets a second server, which writes
through to the disk as in production. BERID_TEST_POSTGRES_URL names a server to use instead of ours; its
user must be allowed to create databases.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tools import pg

RUN_FOLDER = "BERID_TEST_RUN_FOLDER"  # set by the first process of a run and inherited by its workers
OWN_SERVER = "BERID_TEST_POSTGRES_URL"


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a folder in which its processes tell one another where the servers are."""
    if not hasattr(config, "workerinput"):
        os.environ[RUN_FOLDER] = tempfile.mkdtemp(prefix="berid-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers of the run. Were this process killed, their keepers would notice and end them."""
    if not hasattr(config, "workerinput"):
        folder = Path(os.environ.pop(RUN_FOLDER))
        for record in folder.glob("*.server"):
            pg.end(int(record.read_text().splitlines()[1]))
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty PostgreSQL database that lives as long as the test."""
    server = _server_url(durable=request.node.get_closest_marker("durable") is not None)
    name = f"test_{uuid.uuid4().hex}"
    _execute(server, f'CREATE DATABASE "{name}"')
    yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: a test that takes it runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/berid.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


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
    """Run one statement on a loop of its own, so that the loop of the test is left alone."""

    async def work() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()
