"""A small kill test on each store; `python -m tests.kill` is the whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kill.run import kill_again_and_again

FAILPOINTS = {
    "sqlite": ["start.after_commit", "smpp.submit.after_write", "record.before_commit", "settle.after_commit"],
    "postgres": ["start.after_commit"],  # here every death costs the twelve seconds of a dead process's lease
}


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_deaths_lose_nothing_and_double_nothing_in_silence(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/berid.db" if store == "sqlite" else request.getfixturevalue("postgres_url")
    result = await kill_again_and_again(tmp_path, url, FAILPOINTS[store], kills=1)
    assert result.troubles == []
    assert result.accepted > 200
    assert len(result.deaths) == len(FAILPOINTS[store]) + 2
