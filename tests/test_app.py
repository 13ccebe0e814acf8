"""The process as a whole, started in the test's own: what makes it end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from berid.app import App
from berid.config import Config, Http, Smpp
from berid.store import schema
from tests.support.database import ask

ENDS_S = 20.0
"""The sweep and the count of the queues look at the job table every few seconds."""


async def test_process_whose_schema_was_changed_under_it_ends_and_says_why(
    empty_store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(
        data_dir=tmp_path,
        database_url=empty_store_url,
        key_file=tmp_path / "key",
        http=Http(host="127.0.0.1", port=0),
        smpp=Smpp(host="127.0.0.1", port=0),
    )
    await schema.migrate(empty_store_url)
    app = await App.start(config)
    try:
        await ask(empty_store_url, "DROP TABLE job")
        await asyncio.wait_for(app.failed.wait(), ENDS_S)
    finally:
        await app.stop()
    assert "a part of the process ended" in caplog.text
    assert "job" in caplog.text
    assert "the store is away" not in caplog.text
