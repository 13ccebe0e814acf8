"""SQLite's log is folded into the database beside the path, and does not grow for ever while work goes on."""

from pathlib import Path

import pytest

from berid.store import hot_sqlite
from berid.store.hot_sqlite import SqliteDriver
from tests.support.database import make_tables, row

ROWS = 100
COMMITS = 300


async def test_the_log_begins_at_its_start_again_while_commits_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_sqlite, "CHECKPOINT_CHANGES", 1_000)
    path = tmp_path / "berid.db"
    await make_tables(f"sqlite:///{path}")
    driver = SqliteDriver(path)
    log, largest, written = path.with_name("berid.db-wal"), 0, 0
    try:
        for commit in range(COMMITS):
            tx = await driver.begin()
            ids = range(commit * ROWS, (commit + 1) * ROWS)
            await tx.insert("event", [row("event", id=each, delivery_id=each, detail="x" * 400) for each in ids])
            await driver.commit()
            largest = max(largest, log.stat().st_size)
            written += ROWS * 400
    finally:
        await driver.close()
    assert written > 10_000_000
    assert largest < written / 3


async def test_a_folding_that_fails_costs_nobody_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_sqlite, "CHECKPOINT_CHANGES", 1)
    path = tmp_path / "berid.db"
    await make_tables(f"sqlite:///{path}")
    driver = SqliteDriver(path)
    driver._folder.set_authorizer(lambda *_: 1)  # every statement of the folding connection is refused
    try:
        for each in range(3):
            tx = await driver.begin()
            await tx.insert("event", [row("event", id=each, delivery_id=each)])
            await driver.commit()
        await driver._fold_thread.call(lambda: None)
        assert not driver._is_nearly_folded
        assert driver._connection.execute("SELECT count(*) FROM event").fetchone() == (3,)
    finally:
        driver._folder.set_authorizer(None)
        await driver.close()
