"""Every golden file of this dialect, on both databases. Each file has an installation of its own."""

from pathlib import Path

import pytest

from tests.dialects.taqnyat.conftest import World
from tests.support.golden import read_pairs, replay

INSTALLED = {"voice": "voice", "mail": "email"}
"""The channel that the installation of a file has besides SMS."""

FILES = sorted((Path(__file__).parent / "golden").glob("*.http"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_answers_are_the_providers(world: World, path: Path) -> None:
    if path.stem in INSTALLED:
        world.install(INSTALLED[path.stem])
    for pair in read_pairs(path):
        await replay(world.app, pair, world.values)
