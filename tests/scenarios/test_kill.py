"""A small kill test on each store; `python -m tests.kill` is the whole one."""

from __future__ import annotations

from pathlib import Path

from tests.kill.run import kill_again_and_again


async def test_deaths_lose_nothing_and_double_nothing_in_silence(store_url: str, tmp_path: Path) -> None:
    failpoints = ["smpp.submit.after_write"]
    if store_url.startswith("sqlite"):  # on PostgreSQL every death costs the twelve seconds of a dead process's lease
        failpoints += ["record.before_commit", "settle.after_commit", "writer.before_commit"]
    result = await kill_again_and_again(tmp_path, store_url, failpoints, kills=1)
    assert result.troubles == []
    assert result.accepted > 200
    assert len(result.deaths) == len(failpoints) + 2
