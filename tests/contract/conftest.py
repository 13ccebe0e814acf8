"""The hot path's two drivers, each on an empty database with all tables."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from berid.store import sqlite_path
from berid.store.hot import HotDriver
from berid.store.hot_postgres import PostgresDriver
from berid.store.hot_sqlite import SqliteDriver


def open_driver(url: str) -> HotDriver[Any]:
    """A driver of the kind that the URL names."""
    return SqliteDriver(sqlite_path(url)) if url.startswith("sqlite") else PostgresDriver(url)


@pytest.fixture
async def driver(store_url: str) -> AsyncIterator[HotDriver[Any]]:
    """A driver on the database of `store_url`."""
    opened = open_driver(store_url)
    yield opened
    await opened.close()
