"""What the scenarios share: a site on an empty database, taken down afterwards whatever happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from berid.channels.sms.simulator import CarrierSettings
from tests.support.site import Site, make_site

MakeSite = Callable[..., Any]
"""`await open_site(url, settings, carrier)`; see `make_site`. The process is not started yet."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts whole processes."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.scenario)


@pytest.fixture
async def open_site(tmp_path: Path) -> AsyncIterator[MakeSite]:
    """Makes sites that live as long as the test."""
    async with AsyncExitStack() as stack:

        async def make(
            url: str, settings: dict[str, str] | None = None, carrier: CarrierSettings | None = None
        ) -> Site:
            return await stack.enter_async_context(make_site(tmp_path, url, settings, carrier))

        yield make


@pytest.fixture
def store_url(empty_store_url: str) -> str:
    """A database of the site's own, without tables: it makes them as an installation does."""
    return empty_store_url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Where an SQLite database may be made."""
    return f"sqlite:///{tmp_path}/berid.db"
