"""SQLite's writing process: its log is folded beside the path, and its death costs nobody a message."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from berid.base.clock import SystemClock
from berid.domain.message import State
from berid.store import hot_sqlite, writer
from berid.store.hot import HotStore, HotTx, StoreAway, Verb
from berid.store.hot_sqlite import SqliteDriver
from berid.store.writer import Writer
from tests.support.database import FAR_MS, ask, make_tables, row

ROWS = 100
COMMITS = 300


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database file with all tables."""
    await make_tables(f"sqlite:///{tmp_path}/berid.db")
    return tmp_path / "berid.db"


async def test_the_log_begins_at_its_start_again_while_commits_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_sqlite, "CHECKPOINT_CHANGES", 1_000)
    driver = SqliteDriver(path)
    log, largest, written = path.with_name("berid.db-wal"), 0, 0
    try:
        for commit in range(COMMITS):
            tx = driver.begin()
            ids = range(commit * ROWS, (commit + 1) * ROWS)
            await tx.insert("event", [row("event", id=each, delivery_id=each, detail="x" * 400) for each in ids])
            await driver.commit(tx)
            largest = max(largest, log.stat().st_size)
            written += ROWS * 400
    finally:
        await driver.close()
    assert written > 10_000_000
    assert largest < written / 3


def test_a_folding_that_fails_costs_nobody_a_commit(tmp_path: Path) -> None:
    path = str(tmp_path / "any.db")
    one = Writer(path, ("journal_mode=WAL",), 1, 0)
    one.connection.execute("CREATE TABLE t (x)")
    one.folder.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)  # every statement of the folding connection is refused
    for each in range(3):
        assert one.run(0, [(writer.INSERT, "INSERT INTO t (x) VALUES", [(each,)], 1)], True) == (writer.DONE, [])
        one.fold()
        assert one.folding is not None
        one.folding.join()
        assert not one.is_nearly_folded
    assert one.connection.execute("SELECT count(*) FROM t").fetchone() == (3,)
    one.close()


@pytest.fixture
async def serving(path: Path) -> AsyncIterator[tuple[HotStore, SqliteDriver]]:
    """A running `HotStore` and its driver."""
    driver = SqliteDriver(path)
    store = HotStore(driver, SystemClock())
    store.start()
    yield store, driver
    await store.stop()


async def _write(tx: HotTx, items: list[int]) -> list[str]:
    await tx.insert("event", [row("event", delivery_id=1, id=item) for item in items])
    return [f"wrote {item}" for item in items]


async def _read_and_write(tx: HotTx, items: list[int]) -> list[str]:
    await tx.tracked(items)
    return await _write(tx, items)


WRITE: Verb[int, str] = Verb("write", 10, _write)
READ_AND_WRITE: Verb[int, str] = Verb("read_and_write", 20, _read_and_write)


def _pid(driver: SqliteDriver) -> int:
    assert driver.process is not None
    return driver.process.pid


@pytest.mark.parametrize("verb", [WRITE, READ_AND_WRITE])
@pytest.mark.parametrize("place", ["writer.before_commit", "writer.after_commit"])
async def test_work_is_done_once_when_the_writing_process_dies_at_a_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch, place: str, verb: Verb[int, str]
) -> None:
    monkeypatch.setenv(writer.FAILPOINT, f"{place}:5")
    driver = SqliteDriver(path)
    store = HotStore(driver, SystemClock())
    store.start()
    await driver.connect()
    before = _pid(driver)
    monkeypatch.delenv(writer.FAILPOINT)
    for number in range(0, 40, 2):
        assert await asyncio.gather(store.do(verb, [number]), store.do(WRITE, [number + 1])) == [
            [f"wrote {number}"],
            [f"wrote {number + 1}"],
        ]
    assert _pid(driver) != before
    await store.stop()
    assert await ask(f"sqlite:///{path}", "SELECT id FROM event ORDER BY id") == [(number,) for number in range(40)]


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_was_started_is_told_when_the_writing_process_dies_behind_the_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    url = f"sqlite:///{path}"
    await ask(url, "INSERT INTO message (id) VALUES (2)")
    for number, state in ((1, "queued"), (3, "cancelled")):
        await ask(
            url,
            "INSERT INTO delivery (id, message_id, state, expires_ms) VALUES ($1, 2, $2, $3)",
            number,
            state,
            FAR_MS,
        )
    monkeypatch.setenv(writer.FAILPOINT, "writer.after_commit:2")
    driver = SqliteDriver(path)
    await driver.connect()
    monkeypatch.delenv(writer.FAILPOINT)
    tx = driver.begin()
    known = {one.id: one for one in await tx.tracked([1, 3])}
    await driver.commit(tx)
    tx = driver.begin()
    started = await tx.start_sending([1, 3], 7, 1, known if is_known else {})
    await driver.commit(tx)
    assert {number: (found.state, found.connector_id, found.attempt) for number, found in started.items()} == {
        1: ("sending", 7, 1)
    }
    await driver.close()


async def test_work_that_leaves_no_trace_is_in_doubt_when_the_writing_process_dies_at_its_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(writer.FAILPOINT, "writer.before_commit")
    driver = SqliteDriver(path)
    tx = driver.begin()
    await tx.jobs_done([1])
    with pytest.raises(StoreAway):
        await driver.commit(tx)
    await driver.rollback(tx)
    await driver.close()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_signal_to_all_processes_of_the_service_is_not_for_the_writing_process(
    serving: tuple[HotStore, SqliteDriver], signum: int
) -> None:
    store, driver = serving
    await store.do(WRITE, [1])
    before = _pid(driver)
    os.kill(before, signum)
    assert await store.do(WRITE, [2]) == ["wrote 2"]
    assert _pid(driver) == before


async def test_writing_process_that_is_killed_while_nothing_happens_is_not_missed(
    serving: tuple[HotStore, SqliteDriver],
) -> None:
    store, driver = serving
    for number in range(3):
        await store.do(WRITE, [number])
        os.kill(_pid(driver), signal.SIGKILL)
    assert await store.do(READ_AND_WRITE, [3]) == ["wrote 3"]


async def test_writing_process_ends_with_the_one_that_started_it(path: Path) -> None:
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from berid.store.hot_sqlite import SqliteDriver\n"
        "async def main():\n"
        "    driver = SqliteDriver(Path(sys.argv[1]))\n"
        "    print((await driver.connect()).pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert started.stdout is not None
    pid = int(await started.stdout.readline())
    await started.wait()
    async with asyncio.timeout(20):
        while _is_running(pid):
            await asyncio.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # an ended process that nobody has asked about


async def test_no_process_is_left_when_the_file_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "berid.db").write_bytes(b"a letter to nobody " * 500)
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def keep(*given: Any, **settings: Any) -> subprocess.Popen[bytes]:
        started.append(start(*given, **settings))
        return started[-1]

    monkeypatch.setattr("berid.store.hot_sqlite.subprocess.Popen", keep)
    with pytest.raises(RuntimeError, match="not a database"):
        await SqliteDriver(tmp_path / "berid.db").connect()
    assert [process.returncode for process in started] == [0]


async def test_value_that_the_file_cannot_hold_is_an_error_of_its_own(serving: tuple[HotStore, SqliteDriver]) -> None:
    store, _ = serving
    results: list[Any] = await asyncio.gather(store.do(WRITE, [2**70]), store.do(WRITE, [1]), return_exceptions=True)
    assert isinstance(results[0], RuntimeError)
    assert results[1] == ["wrote 1"]


async def test_member_of_an_enumeration_is_written_as_its_value(
    serving: tuple[HotStore, SqliteDriver], path: Path
) -> None:
    store, _ = serving

    async def tell(tx: HotTx, states: list[State]) -> list[None]:
        await tx.insert("event", [row("event", id=1, kind=state) for state in states])
        return [None for _ in states]

    await store.do(Verb("tell", 1, tell), [State.DELIVERED])
    assert await ask(f"sqlite:///{path}", "SELECT kind FROM event") == [("delivered",)]
