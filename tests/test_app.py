"""The process as a whole, started in the test's own: what makes it end, and how its answers leave."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from berid.app import App, _Joined, _Listener
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


class _Line(asyncio.Transport):
    """A connection that remembers what was written, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []

    def write(self, data: Any) -> None:
        self.seen.append(bytes(data))

    def close(self) -> None:
        self.seen.append(b"closed")


async def test_what_is_written_in_one_turn_leaves_together_and_before_the_end() -> None:
    line = _Line()
    joined = _Joined(line, asyncio.get_running_loop())
    joined.write(b"head,")
    joined.write(b"body")
    assert line.seen == []
    await asyncio.sleep(0)
    assert line.seen == [b"head,body"]
    joined.write(b"last")
    joined.close()
    await asyncio.sleep(0)
    assert line.seen == [b"head,body", b"last", b"closed"]


async def test_first_piece_of_a_long_answer_arrives_while_the_next_is_being_made() -> None:
    may_go_on = asyncio.Event()

    async def slow(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        start: MutableMapping[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await may_go_on.wait()
        await send({"type": "http.response.body", "body": b"second"})

    listener = _Listener(slow, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", await listener.open())
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"first"), ENDS_S)
        may_go_on.set()
        assert b"second" in await asyncio.wait_for(reader.read(), ENDS_S)
    finally:
        writer.close()
        await listener.close()
