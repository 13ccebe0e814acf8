"""The process as a whole, started in the test's own: what makes it end, and what it tells of its queue."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import Mock

import pytest

from berid import app as berid_app
from berid.app import App
from berid.config import Config, Http, Smpp
from berid.store import jobs, schema
from berid.store.hot import HotTx, StoreAway, Verb
from tests.support.database import ask
from tests.support.figures import figures

ENDS_S = 20.0
"""The sweep and the count of the queues look at the job table every few seconds."""


async def _nothing(_tx: HotTx, items: list[int]) -> list[int]:
    return items


NOTHING: Verb[int, int] = Verb("nothing", 1, _nothing)


async def start(url: str, data_dir: Path) -> App:
    await schema.migrate(url)
    return await App.start(
        Config(
            data_dir=data_dir,
            database_url=url,
            key_file=data_dir / "key",
            http=Http(host="127.0.0.1", port=0),
            smpp=Smpp(host="127.0.0.1", port=0),
        )
    )


async def test_process_whose_schema_was_changed_under_it_ends_and_says_why(
    empty_store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = await start(empty_store_url, tmp_path)
    try:
        await ask(empty_store_url, "DROP TABLE job")
        await asyncio.wait_for(app.failed.wait(), ENDS_S)
    finally:
        await app.stop()
    assert "a part of the process ended" in caplog.text
    assert "job" in caplog.text
    assert "the store is away" not in caplog.text


async def test_process_whose_path_ends_by_a_fault_answers_who_asks_and_ends(
    empty_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = await start(empty_store_url, tmp_path)
    hot = app.rt.store.hot
    try:
        monkeypatch.setattr(hot._driver, "begin", Mock(side_effect=RuntimeError("a fault of the driver")))
        # The group that is open was begun before; what follows it cannot be.
        asked = [asyncio.ensure_future(hot.do(NOTHING, [number])) for number in range(2)]
        await asyncio.wait_for(app.failed.wait(), ENDS_S)
        await asyncio.wait(asked, timeout=ENDS_S)
        with pytest.raises(StoreAway):
            await hot.do(NOTHING, [0])
    finally:
        await asyncio.wait_for(app.stop(), ENDS_S)
    assert all(one.done() for one in asked)
    assert "a fault of the driver" in caplog.text


async def test_queue_is_counted_whole_although_it_takes_several_pages(
    empty_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "COUNTED", 2)
    monkeypatch.setattr(berid_app, "DEPTHS_S", 0.05)
    monkeypatch.setattr(berid_app, "SHARE", 1)
    monkeypatch.setattr(berid_app, "LAG_STEP_S", 0.01)
    app = await start(empty_store_url, tmp_path)
    try:
        for number, lane, priority in ((1, "c7", 2), (2, "c8", 2), (3, "c7", 2), (4, "c7", 0), (5, "c7", 2)):
            row = f"({number}, 'dispatch', '{lane}', {priority}, 1, {number})"
            await ask(empty_store_url, f"INSERT INTO job (id, kind, lane, priority, account_id, due_ms) VALUES {row}")
        async with asyncio.timeout(ENDS_S):
            while depths(app) != {"c7,priority=2": 3.0, "c8,priority=2": 1.0, "c7,priority=0": 1.0}:
                await asyncio.sleep(0.01)
        await ask(empty_store_url, "DELETE FROM job WHERE id > 1")
        async with asyncio.timeout(ENDS_S):
            while depths(app) != {"c7,priority=2": 1.0}:
                await asyncio.sleep(0.01)
    finally:
        await app.stop()


def depths(app: App) -> dict[str, float]:
    """How many jobs wait, by lane and priority, as the figures tell."""
    name = "berid_queue_depth{lane="
    found = figures(app.rt.metrics)
    return {series.removeprefix(name).rstrip("}"): found[series] for series in found if series.startswith(name)}
