"""The process as a whole, started in the test's own: what makes it end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from berid.app import App
from berid.config import Config, Http, Smpp
from berid.store import schema
from berid.store.hot import HotTx, StoreAway, Verb
from tests.support.database import ask

ENDS_S = 20.0
"""The sweep and the count of the queues look at the job table every few seconds."""


async def _nothing(_tx: HotTx, items: list[int]) -> list[int]:
    return items


NOTHING: Verb[int, int] = Verb("nothing", 1, _nothing)


def raises(error: Exception) -> Callable[..., NoReturn]:
    def raising(*_: Any) -> NoReturn:
        raise error

    return raising


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
        monkeypatch.setattr(hot._driver, "begin", raises(RuntimeError("a fault of the driver")))
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
