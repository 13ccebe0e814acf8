"""The table of refusals, the order in which they are heard, and that nothing comes of what was refused."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from berid.config import Dialects
from berid.dialects.turkeysms import codes
from berid.domain.errors import Refusal, RefusalKind
from berid.domain.message import State
from berid.flow.cancel import resend
from berid.store import messages
from tests.dialects.turkeysms.conftest import MICROS, NUMBER, World, make_world

WITHOUT_CODE = {
    RefusalKind.RECIPIENTS_TOO_MANY,
    RefusalKind.CONTENT_INVALID,
    RefusalKind.SUPPRESSED,
    RefusalKind.NO_OPT_IN,
    RefusalKind.QUIET_HOURS,
    RefusalKind.NO_ROUTE,
    RefusalKind.NO_PRICE,
    RefusalKind.SPEND_CAP,
    RefusalKind.IDEMPOTENCY_CONFLICT,
    RefusalKind.NOT_CANCELLABLE,
    RefusalKind.WRONG_STATE,
    RefusalKind.SELF_APPROVAL,
    RefusalKind.NOT_FOUND,
    RefusalKind.STORE_AWAY,
}

FAULTS: dict[str, dict[str, Any]] = {
    "TS-1033": {"sms_lang": 7},
    "TS-1050": {"api_key": " "},
    "TS-1031": {"api_key": "0" * 32},
    "TS-1030": {"key": "closed"},
    "TS-1061": {"key": "getting"},
    "TS-1051": {"title": ""},
    "TS-1025": {"sentto": ""},
    "TS-1026": {"text": "  "},
    "TS-1029": {"title": "acme"},
    "TS-1028": {"title": "Waiting"},
    "TS-1034": {"sentto": "90500000000"},
    "TS-1032": {"key": "national", "sentto": "4915112345678"},
    "TS-1070": {"scheduled_sms": 1, "scheduled_date": "soon", "scheduled_time": "10:00"},
    "TS-1071": {"scheduled_sms": 1, "scheduled_date": "2027-01-01", "scheduled_time": ""},
    "TS-1072": {"scheduled_sms": 1, "scheduled_date": "2020-01-01", "scheduled_time": "10:00"},
    "TS-1027": {"key": "empty"},
}
"""For every code but the one of the rate, a request that earns it, in the order of the contract."""

PAIRS = [
    (first, second)
    for first, second in itertools.combinations(FAULTS, 2)
    if not FAULTS[first].keys() & FAULTS[second].keys()
    and not {"key", "api_key"} <= FAULTS[first].keys() | FAULTS[second].keys()
]
"""Faults that one request can have together."""


def test_every_kind_has_words() -> None:
    assert set(codes.REFUSALS) == set(RefusalKind)


def test_every_code_has_a_text() -> None:
    used = {words.code for words in codes.REFUSALS.values()} | set(codes.CHECK_ORDER) | set(codes.STATUS.values())
    assert used - {codes.PERMISSION} <= set(codes.TEXTS)


def test_order_of_the_table_is_that_of_the_contract() -> None:
    ranked = [words.code for kind, words in codes.REFUSALS.items() if kind not in WITHOUT_CODE]
    places = [codes.CHECK_ORDER.index(code) for code in ranked]
    assert places == sorted(places)
    assert set(places) == set(range(len(codes.CHECK_ORDER)))


def test_clients_are_told_to_wait_only_where_that_helps() -> None:
    waiting = {kind for kind, words in codes.REFUSALS.items() if words.code == codes.WAIT}
    assert waiting == {RefusalKind.RATE_LIMIT, RefusalKind.OTP_LIMIT, RefusalKind.STORE_AWAY}


def test_first_of_many_is_that_of_the_table() -> None:
    kinds = list(codes.REFUSALS)
    for place, kind in enumerate(kinds):
        assert codes.first_of([Refusal(each) for each in reversed(kinds[place:])]).kind is kind


@pytest.mark.parametrize("code", FAULTS)
async def test_every_code_has_its_condition(world: World, code: str) -> None:
    before = await world.counts()
    assert await world.send(**FAULTS[code]) == {
        "result": False,
        "result_code": code,
        "result_message": codes.TEXTS[code],
    }
    assert await world.counts() == before


async def test_of_two_faults_the_first_one_is_heard(world: World) -> None:
    heard = {
        (first, second): (await world.send(**FAULTS[second], **FAULTS[first]))["result_code"] for first, second in PAIRS
    }
    assert len(heard) > 60
    assert {pair: code for pair, code in heard.items() if code != pair[0]} == {}


async def test_more_than_the_limit_of_a_minute_must_wait(world: World) -> None:
    for count in (1, 2):
        assert (await world.send(key="slow"))["total_has_sent_last_1_min"] == count
    answer = await world.call(
        "GET",
        f"/api/v3/get/get.php?api_key={world.values['slow']}&title=ACME&text=Hi&mobile={NUMBER}&response_type=json",
    )
    assert answer.json["result_code"] == "TS-1060"
    assert answer.headers["x-berid-code"] == "rate_limit"
    assert int(answer.headers["retry-after"]) > 0
    await world.clock.advance(61)
    assert (await world.send(key="slow"))["total_has_sent_last_1_min"] == 1


@pytest.mark.parametrize(
    ("key", "method", "code"),
    [
        ("getting", "post", "TS-1061"),
        ("posting", "get", "TS-1062"),
        ("reading", "post", "TS-1061"),
        ("reading", "get", "TS-1062"),
        ("silent", "post", "TS-1061"),
        ("silent", "get", "TS-1062"),
        ("fenced", "post", "TS-1061"),
        ("calling", "post", "TS-1061"),
        ("posting", "post", "TS-1024"),
        ("getting", "get", "TS-1024"),
    ],
)
@pytest.mark.parametrize("path", ["/gonder/add-content", "/get/get.php"])
async def test_keys_tell_post_from_get_on_every_path(world: World, path: str, key: str, method: str, code: str) -> None:
    said = await getattr(world, method)(path, key, title="ACME", text="Hi", sentto=NUMBER)
    assert said["result_code"] == code


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"sentto": "447700900123"}, "no_price"),
        ({"sentto": "971501234567"}, "no_route"),
        ({"text": "x" * 2_000}, "content_invalid"),
        ({"key": "german"}, "country_not_allowed"),
    ],
)
async def test_kind_without_a_code_stands_in_a_header(world: World, fields: dict[str, Any], kind: str) -> None:
    key = world.values[fields.get("key", "shop")]
    query = {"title": "ACME", "text": "Hi", "sentto": NUMBER, "response_type": "json", **fields, "api_key": key}
    target = "/api/v3/gonder/add-content?" + "&".join(f"{name}={value}" for name, value in query.items())
    answer = await world.call("POST", target)
    assert answer.headers["x-berid-code"] == kind
    assert answer.headers["x-request-id"]
    assert answer.json["result_code"] == ("TS-1032" if kind == "country_not_allowed" else "TS-1033")


async def test_who_must_wait_for_a_code_hears_first_what_waiting_does_not_help_against(world: World) -> None:
    path, fields = "/otp_post_detailed/add-content", {"mobile": NUMBER, "sms_text": "TS_CODE", "title": "ACME"}
    for _ in range(5):
        assert (await world.post(path, **fields))["result_code"] == "TS-1024"
    assert (await world.post(path, **fields))["result_code"] == "TS-1060"
    assert (await world.post(path, **fields | {"title": "Rest"}))["result_code"] == "TS-1028"
    assert (await world.post(path, **fields | {"sms_text": "no place"}))["result_code"] == "TS-1033"
    assert (await world.get(path, "posting", **fields))["result_code"] == "TS-1062"


async def test_what_is_wrong_can_be_hidden_from_those_who_want_no_report(tmp_path: Path) -> None:
    async with make_world(f"sqlite:///{tmp_path}/berid.db", Dialects(turkeysms_hides_errors=True)) as world:
        for report, hides in ((0, True), ("2", True), (1, False), (None, False)):
            fields = {"api_key": world.values["shop"], "title": "Nobody", "report": report, "response_type": "json"}
            answer = await world.call("POST", "/api/v3/gonder/add-content", msgspec.json.encode(fields))
            assert (answer.status, answer.headers["x-berid-code"]) == (200, "recipient_missing")
            assert (answer.body == b"") is hides


async def test_what_operators_append_is_counted_and_billed(tmp_path: Path) -> None:
    async with make_world(f"sqlite:///{tmp_path}/berid.db", Dialects(turkeysms_footer_len=5)) as world:
        for length, parts in ((155, 1), (156, 2)):
            assert (await world.send(text="x" * length))["number_of_sms"] == parts
        assert (await world.send(text="x" * 160, sentto="4915112345678"))["number_of_sms"] == 1
        assert (await world.wallet("shop"))[1] == 3 * MICROS


async def test_message_that_is_sent_again_is_counted_as_before(world: World) -> None:
    # Operators bill each of these letters once, though è keeps them from the table in which they take one septet.
    sent = await world.send(text="ş" * 80 + "è" * 75, sms_lang=1)
    await world.change(sent["sms_id"], State.FAILED)
    account_id = world.account_ids["shop"]
    ((message_id,),) = await world.ask("SELECT id FROM message")
    for _ in range(2):
        async with world.rt.store.read() as tx:
            owner = await messages.find(tx, account_id, "live", message_id)
        assert owner is not None
        again = await resend(world.rt, world.native_caller("shop"), owner)
        assert (again.parts, again.units, again.cost_micros) == (2, 1, MICROS)
        await world.change(again.deliveries[0].id, State.FAILED)
        message_id = again.message_id
