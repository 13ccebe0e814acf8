"""The installation that these tests knock at."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.security.house import House, open_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """An installation on SQLite."""
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/berid.db") as made:
        yield made
