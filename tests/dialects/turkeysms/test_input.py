"""Whatever strangers send is answered with a code, charges nothing, and is no crash."""

import logging
from typing import Any

import msgspec
import pytest

from tests.dialects.turkeysms.conftest import NUMBER, World

PATHS = (
    "/authenticate/login",
    "/gonder/add-content",
    "/get/get.php",
    "/otp/otp_get.php",
    "/otp_post/add-content",
    "/otp_post_detailed/add-content",
    "/gonder_coklu_gsm/add-content",
    "/gruba-gonder/post/tek-metin-gonderimi",
    "/rapor/temel",
    "/rapor/get/1",
    "/sms-durumu/sms_durumu.php",
    "/bakiye_sorgulama/add-content",
    "/senderid_sorgulama/add-content",
)

V4_PATHS = (
    "/auth/check",
    "/sms/send",
    "/otp/send",
    "/otp/detailed",
    "/otp/verify",
    "/group/send",
    "/group/sendMixed",
    "/blacklist/add",
    "/sms/status",
    "/reports",
    "/reports/1",
    "/balance",
)

BROKEN: dict[str, bytes] = {
    # What no dialect can read is swept for all of them in tests/security.
    "a NUL in a form": b"api_key=%00",
    "half a surrogate pair in a form": b"api_key=%ED%A0%80",
    "a key that is a list": b'{"api_key":["a"]}',
    "a key that is an object": b'{"api_key":{"a":1}}',
    "a key that is true": b'{"api_key":true}',
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_cannot_be_read_is_incorrect_data_on_every_path(world: World, name: str) -> None:
    before = await world.counts()
    for path in PATHS:
        answer = await world.call("POST", f"/api/v3{path}?response_type=json", BROKEN[name])
        assert (answer.status, answer.json["result_code"]) == (200, "TS-1033"), path
    for path in V4_PATHS:
        answer = await world.call("POST", f"/turkeysms/v4{path}", BROKEN[name])
        assert (answer.status, answer.json["result_code"]) == (400, "TS-1033"), path
    assert await world.counts() == before


@pytest.mark.parametrize("path", PATHS)
async def test_body_that_is_too_large_is_incorrect_data(world: World, path: str) -> None:
    body = b'{"api_key":"' + b"a" * 20_000_000 + b'"}'
    answer = await world.call("POST", f"/api/v3{path}?response_type=json", body)
    assert (answer.status, answer.json["result_code"]) == (200, "TS-1033")


async def test_ten_megabytes_of_text_are_refused_and_cost_nothing(world: World) -> None:
    before = await world.counts()
    assert (await world.send(text="ş" * 5_000_000))["result_code"] == "TS-1033"
    assert (await world.send(sentto="5" * 10_000_000))["result_code"] == "TS-1034"
    assert await world.counts() == before


async def test_of_a_key_that_is_repeated_the_last_one_counts(world: World) -> None:
    body = f'{{"api_key":"x","api_key":"{world.values["shop"]}"}}'.encode()
    answer = await world.call("POST", "/api/v3/authenticate/login?response_type=json", body)
    assert answer.json["result_code"] == "TS-1046"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"title": ["ACME"]}, "TS-1033"),
        ({"title": True}, "TS-1033"),
        ({"text": {"a": 1}}, "TS-1033"),
        ({"sentto": {"a": NUMBER}}, "TS-1033"),
        ({"sentto": True}, "TS-1033"),
        ({"sms_lang": "english"}, "TS-1033"),
        ({"content_type": 3}, "TS-1033"),
        ({"scheduled_sms": "maybe"}, "TS-1033"),
        ({"sentto": [[NUMBER]]}, "TS-1034"),
        ({"sentto": "905321234567890123"}, "TS-1034"),
        ({"sentto": "902121234567"}, "TS-1034"),
        ({"title": None}, "TS-1051"),
        ({"title": "  "}, "TS-1051"),
        ({"sentto": None}, "TS-1025"),
        ({"sentto": [" ", None]}, "TS-1025"),
        ({"text": None}, "TS-1026"),
        ({"title": "Rest"}, "TS-1028"),
        ({"title": "Ended"}, "TS-1028"),
        ({"key": "poor", "text": "x" * 161}, "TS-1027"),
        ({"key": "poor", "sentto": "4915112345678"}, "TS-1027"),
        ({"sentto": [NUMBER] * 100_001}, "TS-1033"),
    ],
)
async def test_wrong_values_have_their_code(world: World, fields: dict[str, Any], code: str) -> None:
    before = await world.counts()
    assert (await world.send(**fields))["result_code"] == code
    assert await world.counts() == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
async def test_other_methods_are_told_which_ones_there_are(world: World, method: str) -> None:
    answer = await world.call(method, "/api/v3/gonder/add-content")
    assert answer.status == 405
    if method != "HEAD":
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize(
    ("response_type", "accept", "is_json"),
    [
        ("json", "", True),
        ("JSON", "text/html", True),
        (" Json ", "", True),
        ("php", "application/json", False),
        ("Array", "", False),
        (None, "", False),
        (None, "*/*", False),
        (None, "text/plain, Application/JSON;q=0.5", True),
        ("xml", "", False),
        ("xml", "application/json", True),
        (1, "", False),
        (["json"], "", False),
    ],
)
async def test_form_of_the_answer_is_what_was_asked_for(
    world: World, response_type: Any, accept: str, is_json: bool
) -> None:
    body = msgspec.json.encode({"api_key": world.values["shop"], "response_type": response_type})
    answer = await world.call("POST", "/api/v3/authenticate/login", body, headers={"accept": accept})
    assert answer.headers["content-type"] == f"{'application/json' if is_json else 'text/plain'}; charset=utf-8"
    assert answer.body.startswith(b"{" if is_json else b"Array\n(\n")


async def test_name_of_the_account_is_harmless_in_print_r_only(world: World) -> None:
    key = world.values["o'[brien]"]
    answer = await world.call("GET", f"/api/v3/authenticate/login?api_key={key}")
    assert "[account_name] => o’(brien)\n" in answer.body.decode()
    assert (await world.post("/authenticate/login", "o'[brien]"))["account_name"] == "o'[brien]"


async def test_key_is_in_no_log_and_in_no_table(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = world.values["shop"]
    for fields in ({}, {"sentto": "x"}, {"title": "Nobody"}):
        await world.send(**fields)
        await world.get("/bakiye_sorgulama/add-content")
    await world.call("POST", "/api/v3/gonder/add-content", b'{"api_key":"' + key.encode() + b'", broken')
    assert key not in caplog.text
    assert "Hello" not in caplog.text
    path = world.url.removeprefix("sqlite:///")
    for suffix in ("", "-wal"):
        with open(path + suffix, "rb") as file:
            assert key.encode() not in file.read()
