"""The hot path's two drivers, each on an empty database with all tables."""

from collections.abc import AsyncIterator

import pytest

from berid.store import sqlite_path
from berid.store.hot import HotDriver
from berid.store.hot_postgres import PostgresDriver
from berid.store.hot_sqlite import SqliteDriver
from tests.support.database import make_tables


def open_driver(url: str) -> HotDriver:
    """A driver of the kind that the URL names."""
    return SqliteDriver(sqlite_path(url)) if url.startswith("sqlite") else PostgresDriver(url)


@pytest.fixture
async def hot_url(store_url: str) -> str:
    """The URL of a database with all tables; a test that takes it runs on both."""
    await make_tables(store_url)
    return store_url


@pytest.fixture
async def driver(hot_url: str) -> AsyncIterator[HotDriver]:
    """A driver on the database of `hot_url`."""
    opened = open_driver(hot_url)
    yield opened
    await opened.close()
