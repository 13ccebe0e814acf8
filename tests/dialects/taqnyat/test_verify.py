"""One-time passwords by `/verify.php`: what a code is worth, and how long."""

import asyncio
import re
from typing import Any

import msgspec
import pytest

from berid.dialects.taqnyat.verify import RESULTS
from tests.dialects.taqnyat.conftest import World

NUMBER = "966501234567"


async def ask(world: World, token: str = "everything", **fields: Any) -> int:
    """One call; the result's number. The envelope and the flat form must say the same."""
    body = [{"apiKey": world.values[token], "numbers": [NUMBER], "method": "sms", "returnJson": 1, **fields}]
    answer = await world.call("POST", "/verify.php", msgspec.json.encode(body), token="")
    assert answer.status == 200
    said = answer.json
    assert (said["status"], said["ResponseStatus"], said["Error"]) == (1, "success", None)
    assert said["Data"]["result"] == said["code"]
    assert (said["Data"]["MessageEn"], said["Data"]["MessageAr"]) == RESULTS[said["code"]]
    return int(said["code"])


async def last_text(world: World) -> str:
    """The text of the last message, which is sealed in the database."""
    body, kind = (await world.ask("SELECT body, body_kind FROM message ORDER BY id DESC"))[0]
    assert kind == "sealed"
    return world.rt.vault.open(body, "body")


async def last_code(world: World) -> str:
    found = re.search(r"\d{4,}", await last_text(world))
    assert found is not None
    return found[0]


async def test_right_code_is_verified_once(world: World) -> None:
    assert await ask(world) == 5
    code = await last_code(world)
    assert len(code) == 4
    assert await ask(world, activeKey=code) == 10
    assert await ask(world, activeKey=code) == 13


async def test_code_may_come_as_a_number(world: World) -> None:
    await ask(world)
    assert await ask(world, activeKey=int(await last_code(world))) == 10


async def test_number_may_be_verified_again(world: World) -> None:
    for _ in range(2):
        assert await ask(world) == 5
        assert await ask(world, activeKey=await last_code(world)) == 10


async def test_code_of_one_request_is_wrong_for_another(world: World) -> None:
    await ask(world, requestId="login")
    code = await last_code(world)
    await ask(world, requestId="payment")
    other = await last_code(world)
    if code != other:
        assert await ask(world, activeKey=code, requestId="payment") == 11
    assert await ask(world, activeKey=code, requestId="login") == 10


async def test_code_of_one_account_is_unknown_to_another(world: World) -> None:
    await ask(world)
    assert await ask(world, token="shop", activeKey=await last_code(world)) == 11


async def test_repetition_within_a_minute_sends_nothing_and_later_a_new_code(world: World) -> None:
    assert await ask(world) == 5
    await world.clock.advance(59)
    assert await ask(world) == 7
    assert len(await world.ask("SELECT id FROM message")) == 1
    await world.clock.advance(1)
    assert await ask(world) == 5
    assert len(await world.ask("SELECT id FROM message")) == 2


async def test_sixth_code_in_ten_minutes_is_refused_until_they_are_over(world: World) -> None:
    for _ in range(5):
        assert await ask(world) == 5
        await world.clock.advance(60)
    assert await ask(world) == 8
    assert await ask(world, requestId="new") == 5
    await world.clock.advance(301)
    assert await ask(world) == 5


async def test_code_is_worth_nothing_after_five_minutes(world: World) -> None:
    await ask(world)
    code = await last_code(world)
    await world.clock.advance(301)
    assert await ask(world, activeKey=code) == 11


async def test_right_code_is_worth_nothing_after_five_wrong_ones(world: World) -> None:
    await ask(world)
    code = await last_code(world)
    assert [await ask(world, activeKey="0") for _ in range(5)] == [11, 11, 11, 11, 12]
    assert await ask(world, activeKey=code) == 12


async def test_of_many_right_guesses_at_once_one_is_verified(world: World) -> None:
    await ask(world)
    code = await last_code(world)
    results = await asyncio.gather(*(ask(world, activeKey=code) for _ in range(5)))
    assert sorted(results) == [10, 13, 13, 13, 13]


async def test_code_is_nowhere_in_the_answer_and_costs_a_message(world: World) -> None:
    body = msgspec.json.encode({"apiKey": world.values["everything"], "numbers": [NUMBER], "returnJson": 1})
    answer = await world.call("POST", "/verify.php", body, token="")
    code = await last_code(world)
    assert code not in msgspec.json.encode(answer.json["Data"]["MessageEn"]).decode()
    assert await world.ask("SELECT category, priority, sender FROM message") == [("otp", 0, "Berid")]
    assert (await world.wallet("everything"))[1] == 26_000


@pytest.mark.parametrize(("lang", "word"), [("en", "code"), ("ar", "رمز"), ("", "رمز"), (None, "رمز"), ("tr", "kod")])
async def test_text_is_arabic_unless_another_language_is_asked_for(world: World, lang: str | None, word: str) -> None:
    await ask(world, lang=lang)
    assert word in (await last_text(world)).lower()


@pytest.mark.parametrize("value", [None, "", 0, "0", False])
async def test_without_return_json_the_answer_is_a_bare_number(world: World, value: Any) -> None:
    body = msgspec.json.encode({"apiKey": "x", "returnJson": value})
    answer = await world.call("POST", "/verify.php", body, token="")
    assert (answer.status, answer.body) == (200, b"1")


@pytest.mark.parametrize("value", [1, "1", True, "true"])
async def test_with_return_json_the_answer_is_json(world: World, value: Any) -> None:
    body = msgspec.json.encode({"apiKey": "x", "returnJson": value})
    assert (await world.call("POST", "/verify.php", body, token="")).json["code"] == 1
