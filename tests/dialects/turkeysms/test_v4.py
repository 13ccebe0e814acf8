"""V4: repetitions, the list of those not to be written to, and host names of its own."""

import asyncio
from dataclasses import replace

import msgspec
import pytest

from berid.config import Config
from berid.dialects.turkeysms import dialect, v4
from berid.dialects.web import make_app
from berid.store import directory
from tests.dialects.asgi import call
from tests.dialects.turkeysms.conftest import NUMBER, World
from tests.support.builders import FakeClock, make_runtime

MESSAGE = {"title": "ACME", "text": "Hello", "sentto": NUMBER}


async def test_repeated_message_is_answered_again_and_not_sent_again(world_on_each: World) -> None:
    world = world_on_each
    first = await world.v4("/sms/send", **MESSAGE)
    before = await world.counts()
    await world.clock.advance(v4.REPEAT_MS / 1000 - 1)
    body = msgspec.json.encode({"api_key": world.values["shop"], **MESSAGE})
    again = await world.call("POST", "/turkeysms/v4/sms/send", body)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json["sms_id"] == first["sms_id"]
    assert await world.counts() == before


async def test_repetitions_at_the_same_moment_are_one_message(world: World) -> None:
    answers = await asyncio.gather(*(world.v4("/sms/send", **MESSAGE) for _ in range(5)))
    assert len({answer["sms_id"] for answer in answers}) == 1
    assert (await world.counts())[0] == 1


@pytest.mark.parametrize(
    "change",
    [{"text": "Hallo"}, {"sentto": "905421234567"}, {"title": "8507013986"}, {"sms_lang": 1}, {"content_type": 1}],
)
async def test_other_message_is_no_repetition(world: World, change: dict[str, object]) -> None:
    first = await world.v4("/sms/send", **MESSAGE)
    assert (await world.v4("/sms/send", **{**MESSAGE, **change}))["sms_id"] != first["sms_id"]


async def test_same_message_after_a_while_or_by_v3_is_a_new_one(world: World) -> None:
    ids = [(await world.v4("/sms/send", **MESSAGE))["sms_id"]]
    await world.clock.advance(v4.REPEAT_MS / 1000)
    ids.append((await world.v4("/sms/send", **MESSAGE))["sms_id"])
    ids += [(await world.send())["sms_id"] for _ in range(2)]
    assert len(set(ids)) == 4


async def test_refused_message_may_be_sent_again_at_once(world: World) -> None:
    await world.v4("/sms/send", "poor", 403, **{**MESSAGE, "text": "x" * 161})
    await world.ask("UPDATE wallet SET available_micros = 9000000 WHERE account_id = $1", world.account_ids["poor"])
    assert (await world.v4("/sms/send", "poor", **{**MESSAGE, "text": "x" * 161}))["number_of_sms"] == 2


async def test_repeated_mixed_request_is_sent_once_and_its_equal_parts_each(world: World) -> None:
    request = {"title": "ACME", "text": ["Hi", "Hi"], "sentto": [NUMBER, NUMBER]}
    first = await world.v4("/group/sendMixed", **request)
    assert len(set(first["sms_ids"])) == 2
    assert (await world.v4("/group/sendMixed", **request))["sms_ids"] == first["sms_ids"]
    assert (await world.counts())[0] == 2


async def test_number_on_the_blacklist_gets_no_more_messages(world_on_each: World) -> None:
    world = world_on_each
    for _ in range(2):
        assert (await world.v4("/blacklist/add", number="0532 123 45 67"))["number"] == NUMBER
    async with world.rt.store.read() as tx:
        loaded = await directory.load(tx)
    assert loaded.suppressions[world.account_ids["shop"]]["sms"].find(NUMBER) == 2
    assert await world.ask("SELECT source, reason FROM suppression") == [("turkeysms", "manual")]


async def test_blacklist_holds_before_its_answer(world: World) -> None:
    async def refresh() -> None:
        async with world.rt.store.read() as tx:
            loaded = await directory.load(tx)
        world.rt.directory = replace(world.rt.directory, suppressions=loaded.suppressions)

    world.rt.refresh = refresh
    await world.v4("/blacklist/add", number=NUMBER)
    assert (await world.v4("/sms/send", status=400, title="ACME", text="Hi", sentto=NUMBER))["result_code"] == "TS-1033"


@pytest.mark.parametrize(
    ("number", "status", "code"), [(None, 400, "TS-1025"), ("x", 400, "TS-1034"), ([NUMBER, NUMBER], 400, "TS-1034")]
)
async def test_blacklist_takes_one_number(world: World, number: object, status: int, code: str) -> None:
    assert (await world.v4("/blacklist/add", status=status, number=number))["result_code"] == code


async def test_guess_without_a_code_is_told_so(world: World) -> None:
    answer = await world.v4("/otp/verify", mobile=NUMBER, otp_code="1234")
    assert (answer["result"], answer["result_message"]) == (False, "No verification code was sent to this number")
    assert (await world.v4("/otp/verify", status=400, mobile=NUMBER))["result_code"] == "TS-1033"
    assert (await world.v4("/otp/verify", status=400, otp_code="1"))["result_code"] == "TS-1025"


async def test_root_belongs_to_configured_host_names_only(world: World, tmp_path: object) -> None:
    assert (await world.call("POST", "/auth/check", b"{}")).headers["content-type"] == "application/problem+json"
    url = f"sqlite:///{tmp_path}/another.db"
    async with make_runtime(url, clock=FakeClock(), config=Config(database_url=url)) as rt:
        rt.dialects = {dialect.name: dialect}
        assert not [route.path for route in dialect.routes(rt) if route.group.hosts or route.path == "/sms/send"]
        app = make_app(rt, lambda: True)
        assert (await call(app, "POST", "/turkeysms/v4/auth/check", b"{}")).status == 401
