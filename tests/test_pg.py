"""The PostgreSQL server for tests: what its fixtures and its keeper promise."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from tools import pg

GONE_TIMEOUT_S = 30


async def ask(url: str, question: str) -> object:
    """The single value that a query gives."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


@pytest.mark.postgres
async def test_database_is_empty_and_does_not_sync_to_disk(postgres_url: str) -> None:
    assert await ask(postgres_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    if "BERID_TEST_POSTGRES_URL" not in os.environ:
        assert await ask(postgres_url, "SHOW fsync") == "off"


@pytest.mark.postgres
@pytest.mark.durable
async def test_durable_test_has_a_server_that_syncs_to_disk(postgres_url: str) -> None:
    assert await ask(postgres_url, "SHOW fsync") == "on"
    assert await ask(postgres_url, "SHOW synchronous_commit") == "on"


@pytest.mark.postgres
async def test_server_ends_when_its_owner_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert owner.stdin is not None
    with owner.stdin:
        url, _keeper_pid = pg.launch(owner.pid, durable=False)
        folder = Path(url.partition("host=")[2])
        assert await ask(url, "SELECT 1") == 1
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


@pytest.mark.postgres
async def test_stopped_server_starts_again_with_its_data() -> None:
    with pg.temporary_folder() as folder:
        server = pg.Server(folder, durable=True)
        server.start()
        try:
            await ask(server.url, "CREATE TABLE kept (n int)")
            server.stop()
            server.start()
            assert await ask(server.url, "SELECT count(*) FROM kept") == 0
        finally:
            server.stop()


def test_missing_programs_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pg, "program_folders", lambda: [tmp_path / "absent"])
    with pytest.raises(pg.NoPostgresError, match=r"absent.*\n.*apt install postgresql"):
        pg.Server(tmp_path, durable=False).start()
