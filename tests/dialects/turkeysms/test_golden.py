"""Every golden file of this dialect, on both databases. Each file has an installation of its own."""

from pathlib import Path

import pytest

from tests.dialects.turkeysms.conftest import World
from tests.support.golden import read_pairs, replay

FILES = sorted((Path(__file__).parent / "golden").glob("*.http"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_answers_are_the_providers(world_on_each: World, path: Path) -> None:
    for pair in read_pairs(path):
        await replay(world_on_each.app, pair, world_on_each.values)
