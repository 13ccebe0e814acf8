"""The request log of a whole process: written by itself, read by the command line, switched off."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from berid.cli import main
from tests.security.house import House, open_house


async def ask_badly(house: House) -> None:
    """A request that is refused, of the house's account, and one of nobody."""
    async with aiohttp.ClientSession(house.url) as http:
        for token in (house.bearer, "bt_nobody"):
            headers = {"Authorization": f"Bearer {token}", "User-Agent": "a client"}
            async with http.post("/api/v1/messages", json={"text": "hello"}, headers=headers) as answer:
                assert answer.status in (401, 422)


@pytest.mark.parametrize("is_json", [True, False])
async def test_command_line_shows_the_log(house: House, is_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    await ask_badly(house)
    async with asyncio.timeout(10):
        while len(await house.ask("SELECT id FROM request_log")) < 2:
            await asyncio.sleep(0.05)
    env = {"BERID_DATA_DIR": str(house.app.config.data_dir)}

    async def shown(*options: str) -> str:
        argv = ["--json", "requests", *options] if is_json else ["requests", *options]
        assert await asyncio.to_thread(main, argv, env) == 0
        return capsys.readouterr().out

    if is_json:
        mine = json.loads(await shown("--account", house.ids["account"]))
        nobodys = json.loads(await shown("--account", "0"))
        assert [(each["status"], each["agent"], each["parameters"]) for each in mine] == [
            (422, "a client", {"text": "text of 5"})
        ]
        assert [(each["status"], each["kinds"], each["account"]) for each in nobodys] == [(401, ["token_invalid"], "")]
        assert len(json.loads(await shown("--limit", "1"))) == 1
        assert json.loads(await shown("--kind", "no_route")) == []
        assert [each["kinds"] for each in json.loads(await shown("--kind", "token-invalid"))] == [["token_invalid"]]
    else:
        assert "sender_missing" in await shown("--status", "422", "--path", "/api/v1/messages")
        assert "There are no requests" in await shown("--since", "2100-01-01")


async def test_log_that_is_off_writes_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/berid.db", request_log="off") as house:
        await ask_badly(house)
    assert await house.ask("SELECT id FROM request_log") == []


async def test_what_waits_is_written_before_the_process_ends(tmp_path: Path) -> None:
    async with open_house(tmp_path, f"sqlite:///{tmp_path}/berid.db") as house:
        await ask_badly(house)
    assert len(await house.ask("SELECT id FROM request_log")) == 2
