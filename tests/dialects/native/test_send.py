"""POST /messages and /messages/batch: what is accepted, what is refused, and that a no changes nothing."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from berid.base.secret import hash_token
from berid.config import Config, Limits
from berid.domain.account import Rules
from berid.domain.errors import RefusalKind
from berid.store.hot import HotStore, StoreAway
from tests.dialects.native.conftest import NUMBER, Api, with_directory
from tests.support.builders import ACCOUNT_ID, SECRET, START_MS
from tests.support.database import ask

NEW = {"to": NUMBER, "text": "hello", "sender": "Berid"}


async def test_message_is_accepted_priced_and_answered(api: Api) -> None:
    body = {**NEW, "reference": "order-7", "metadata": {"shop": "1"}}
    answer = await api("POST", "/messages", body)
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json"
    said = answer.json
    delivery = said["deliveries"][0]
    assert said["id"].startswith("msg_")
    assert delivery["id"].startswith("dlv_")
    assert said == {
        "id": said["id"],
        "channel": "sms",
        "mode": "test",
        "state": "queued",
        "total": 1,
        "units": 1,
        "parts": 1,
        "cost": "0.05",
        "currency": "SAR",
        "balance": "999.95",
        "reference": "order-7",
        "created_at": "2026-09-21T14:13:20.000Z",
        "send_at": None,
        "deliveries": [{"id": delivery["id"], "to": NUMBER, "state": "queued", "units": 1, "price": "0.05"}],
        "refused": [],
    }
    assert await api.balance() == {
        "currency": "SAR",
        "available": "999.95",
        "held": "0.05",
        "spent_total": "0",
        "credit_limit": "0",
    }
    await api.check_ledger()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("966501234567", "966501234567"),
        (966501234567, "966501234567"),
        ("+966 50 123-4567", "966501234567"),
        ("00966501234567", "966501234567"),
        ("0501234567", "966501234567"),
        ("٠٥٠١٢٣٤٥٦٧", "966501234567"),
        ("+90 532 123 45 67", "905321234567"),
        (["905321234567"], "905321234567"),
    ],
)
async def test_numbers_are_read_as_people_write_them(api: Api, written: Any, meant: str) -> None:
    answer = await api("POST", "/messages", {**NEW, "to": written})
    assert [each["to"] for each in answer.json["deliveries"]] == [meant]


async def test_only_the_first_ten_deliveries_are_shown_and_repeated_numbers_are_kept(api: Api) -> None:
    said = await api.send(*[NUMBER] * 12, text="x" * 161)
    assert (said["total"], said["units"], said["parts"], said["cost"]) == (12, 24, 2, "1.2")
    assert len(said["deliveries"]) == 10


async def test_large_message_shows_its_first_delivery_only(api: Api) -> None:
    said = await api.send(*[NUMBER] * 1_001)
    assert (said["total"], len(said["deliveries"])) == (1_001, 1)


@pytest.mark.parametrize(
    ("fields", "parts", "alphabet"),
    [
        ({"text": "ş" * 100}, 2, "ucs2"),
        ({"text": "ş" * 100, "encoding": "turkish"}, 1, "gsm7_tr_locking"),
        ({"text": "ş" * 100, "encoding": "plain"}, 1, "gsm7"),
        ({"text": "s" * 100, "encoding": "unicode"}, 2, "ucs2"),
    ],
)
async def test_encoding_decides_the_parts(api: Api, fields: dict[str, Any], parts: int, alphabet: str) -> None:
    said = await api.send(**fields)
    detail = (await api("GET", f"/messages/{said['id']}")).json
    assert (said["parts"], detail["parts"]) == (parts, parts)
    assert await ask(api.url, "SELECT alphabet FROM message") == [(alphabet,)]


@pytest.mark.parametrize(
    "send_at",
    [
        "2026-09-21T18:13:20+03:00",
        "2026-09-21T15:13:20Z",
        "2026-09-21t15:13:20z",
        START_MS + 3_600_000,
        "20260921T151320.000Z",
    ],
)
async def test_message_can_be_planned(api: Api, send_at: Any) -> None:
    said = await api.send(send_at=send_at, valid_for_s=60)
    assert (said["state"], said["send_at"]) == ("scheduled", "2026-09-21T15:13:20.000Z")
    detail = (await api("GET", f"/messages/{said['id']}")).json
    assert detail["expires_at"] == "2026-09-21T15:14:20.000Z"


async def test_some_unusable_recipients_are_listed_and_not_paid_for(api: Api) -> None:
    home = replace(api.rt.directory.accounts[ACCOUNT_ID], rules=Rules(countries=("SA",)))
    with_directory(api.rt, accounts={ACCOUNT_ID: home})
    said = await api.send("12", NUMBER, "905321234567", "9665012345678901", "x" * 100)
    assert (said["total"], said["cost"]) == (1, "0.05")
    assert sorted((each["to"], each["code"]) for each in said["refused"]) == sorted(
        [
            ("905321234567", "country_not_allowed"),
            ("12", "recipient_invalid"),
            ("9665012345678901", "recipient_invalid"),
            ("x" * 64, "recipient_invalid"),
        ]
    )


async def test_when_no_recipient_is_left_all_reasons_are_told_and_nothing_is_charged(api: Api) -> None:
    home = replace(api.rt.directory.accounts[ACCOUNT_ID], rules=Rules(countries=("SA",)))
    with_directory(api.rt, accounts={ACCOUNT_ID: home})
    answer = await api("POST", "/messages", {**NEW, "to": ["12", "905321234567", "905321234568"]})
    assert (answer.status, answer.json["code"]) == (422, "recipient_invalid")
    assert [each["code"] for each in answer.json["errors"]] == ["recipient_invalid", "country_not_allowed"]
    assert (await api.balance())["available"] == "1000"
    assert await api.count("delivery") == 0


async def test_all_reasons_are_told_at_once_the_weightiest_first(api: Api) -> None:
    body = {"to": [], "text": "", "sender": "Nobody", "send_at": 1}
    answer = await api("POST", "/messages", body)
    said = answer.json
    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [(each["code"], each.get("field")) for each in said["errors"]] == [
        ("sender_unknown", "sender"),
        ("recipient_missing", "to"),
        ("content_missing", "text"),
        ("schedule_past", "send_at"),
    ]
    assert said["code"] == "sender_unknown"
    assert said["type"] == "urn:berid:problem:sender_unknown"
    assert said["docs"] == "/docs/errors.md#sender_unknown"
    assert said["request_id"] == answer.headers["x-request-id"]
    assert said["fix"]
    assert said["title"]


# ── Repeating ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_same_key_and_body_gives_the_first_answer_again_and_sends_nothing(api: Api) -> None:
    first = await api("POST", "/messages", NEW, key="k-1")
    await api.clock.advance(60)
    again = await api("POST", "/messages", NEW, key="k-1")
    assert (again.status, again.body) == (201, first.body)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await api.count("message") == 1
    assert (await api.balance())["available"] == "999.95"


@pytest.mark.parametrize("path", ["/messages", "/messages/"])
async def test_same_key_with_another_request_is_a_conflict(api: Api, path: str) -> None:
    await api("POST", "/messages", NEW, key="k-1")
    body = NEW if path.endswith("/") else {**NEW, "text": "other"}
    answer = await api("POST", path, body, key="k-1")
    assert (answer.status, answer.json["code"], answer.json["field"]) == (
        409,
        "idempotency_conflict",
        "Idempotency-Key",
    )
    assert await api.count("message") == 1


async def test_key_of_a_rehearsal_does_not_swallow_the_live_request(api: Api) -> None:
    directory = api.rt.directory
    token = directory.tokens[hash_token(SECRET)]
    live = replace(token, id=99, mode="live", hash=hash_token("bl_live"))
    routes = (*directory.routes, replace(directory.routes[0], id=77, name="live", mode="live"))
    wallets = {**directory.wallets, (ACCOUNT_ID, "live", "SAR"): directory.wallets[ACCOUNT_ID, "test", "SAR"]}
    with_directory(api.rt, tokens={token.hash: token, live.hash: live}, routes=routes, wallets=wallets)
    await api("POST", "/messages", NEW, key="k-1")
    answer = await api("POST", "/messages", NEW, key="k-1", token="bl_live")
    assert (answer.status, answer.json["mode"]) == (201, "live")
    assert "idempotent-replayed" not in answer.headers


async def test_key_may_have_255_characters(api: Api) -> None:
    assert (await api("POST", "/messages", NEW, key="k" * 255)).status == 201
    answer = await api("POST", "/messages", NEW, key="k" * 256)
    assert (answer.status, answer.json["code"]) == (400, "malformed")


async def test_refused_request_does_not_use_up_its_key(api: Api) -> None:
    assert (await api("POST", "/messages", {**NEW, "sender": "x"}, key="k")).status == 422
    assert (await api("POST", "/messages", NEW, key="k")).status == 201


# ── Who may ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "token_missing"),
        ("", "token_missing"),
        ("Basic dXNlcjpwYXNz", "token_missing"),
        ("Bearer ", "token_missing"),
        ("Bearer bt_unknown", "token_invalid"),
        ("Bearer \xff\xfe", "token_invalid"),
    ],
)
async def test_unknown_callers_are_told_to_identify_themselves(api: Api, header: str | None, code: str) -> None:
    headers = {"authorization": header} if header is not None else {}
    answer = await api("POST", "/messages", NEW, token=None, headers=headers)
    assert (answer.status, answer.json["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_scheme_of_the_token_has_no_case(api: Api, scheme: str) -> None:
    answer = await api("GET", "/me", token=None, headers={"authorization": f"{scheme}  {SECRET} "})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"revoked_ms": START_MS}, 401, "token_invalid"),
        ({"expires_ms": START_MS}, 401, "token_invalid"),
        ({"kind": "smpp"}, 401, "token_invalid"),
        ({"scopes": frozenset({"status"})}, 403, "scope_missing"),
        ({"account_id": 404}, 401, "token_invalid"),
    ],
)
async def test_token_must_be_live_and_have_the_right(api: Api, changes: Any, status: int, code: str) -> None:
    token = replace(api.rt.directory.tokens[hash_token(SECRET)], **changes)
    with_directory(api.rt, tokens={token.hash: token})
    answer = await api("POST", "/messages", NEW)
    assert (answer.status, answer.json["code"]) == (status, code)


@pytest.mark.parametrize(
    ("rules", "status", "code"),
    [
        (Rules(api_on=False), 403, "api_off"),
        (Rules(networks=("10.0.0.0/8",)), 403, "address_not_allowed"),
        (Rules(countries=("TR",)), 422, "country_not_allowed"),
    ],
)
async def test_rules_of_the_account_are_kept(api: Api, rules: Rules, status: int, code: str) -> None:
    with_directory(api.rt, accounts={ACCOUNT_ID: replace(api.rt.directory.accounts[ACCOUNT_ID], rules=rules)})
    answer = await api("POST", "/messages", NEW)
    assert (answer.status, answer.json["code"]) == (status, code)


async def test_too_many_messages_are_told_when_to_come_back(api: Api) -> None:
    home = replace(api.rt.directory.accounts[ACCOUNT_ID], rules=Rules(per_minute=1))
    with_directory(api.rt, accounts={ACCOUNT_ID: home})
    await api.send()
    answer = await api("POST", "/messages", NEW)
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (429, "rate_limit", "60")


async def test_empty_wallet_is_refused(api: Api) -> None:
    await ask(api.url, "UPDATE wallet SET available_micros = 49999 RETURNING id")
    answer = await api("POST", "/messages", NEW)
    assert (answer.status, answer.json["code"]) == (402, "balance_short")
    assert await api.count("message") == 0


async def test_store_that_is_away_is_told_with_when_to_try_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any) -> Any:
        raise StoreAway("disk full")

    monkeypatch.setattr(HotStore, "do", away)
    answer = await api("POST", "/messages", NEW)
    assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "store_away", "1")


# ── What cannot be read ────────────────────────────────────────────────────────────────────────────────────────────────

BAD = [
    b"",
    b"hello",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"[" * 10_000,
    b'{"to":' * 10_000,
    b'{"to":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"to":"966501234567","text":"a\\u0000b","sender":"Berid"}',
    b'{"to":"966501234567","text":"\\ud800","sender":"Berid"}',
    b'{"to":"966501234567","text":"\xed\xa0\x80","sender":"Berid"}',
    b'{"to":"966501234567","text":"\xff","sender":"Berid"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","metadata":{"\\u0000":"x"}}',
    b'{"to":966501234567e0,"text":"a","sender":"Berid"}',
    b'{"to":1e999,"text":"a","sender":"Berid"}',
    b'{"to":' + b"9" * 5_000 + b',"text":"a","sender":"Berid"}',
    b'{"to":[{"number":"966501234567"}],"text":"a","sender":"Berid"}',
    b'{"to":null,"text":"a","sender":"Berid"}',
    b'{"to":"966501234567","text":5,"sender":"Berid"}',
    b'{"to":"966501234567","text":"a","sender":["Berid"]}',
    b'{"to":"966501234567","text":"a","sender":"Berid","category":"otp"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","encoding":"utf-8"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","channel":"pigeon"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","channel":""}',
    b'{"to":"966501234567","text":"a","sender":"Berid","sendat":"2030-01-01T00:00:00Z"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","send_at":"tomorrow"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","send_at":"2030-01-01T00:00:00"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","send_at":"2030-01-01"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","send_at":99999999999999999999}',
    b'{"to":"966501234567","text":"a","sender":"Berid","send_at":253402300800000}',
    b'{"to":"966501234567","text":"a","sender":"Berid","send_at":-1}',
    b'{"to":"966501234567","text":"a","sender":"Berid","send_at":"0001-01-01T00:00:00+14:00"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","valid_for_s":0}',
    b'{"to":"966501234567","text":"a","sender":"Berid","valid_for_s":9223372036854775807}',
    b'{"to":"966501234567","text":"a","sender":"Berid","priority":9}',
    b'{"to":"966501234567","text":"a","sender":"Berid","reference":"' + b"r" * 256 + b'"}',
    b'{"to":"966501234567","text":"a","sender":"Berid","metadata":{"":"x"}}',
    b'{"to":"966501234567","text":"a","sender":"Berid","metadata":{"a":1}}',
    b'{"to":"966501234567","text":"","sender":"Berid"}',
    b'{"to":"966501234567","text":"a","sender":""}',
    b'{"to":"","text":"a","sender":"Berid"}',
    b'{"to":[],"text":"a","sender":"Berid"}',
    b'{"to":-5,"text":"a","sender":"Berid"}',
    b'{"to":"' + b"9" * 1_000_000 + b'","text":"a","sender":"Berid"}',
    b'{"to":"966501234567","text":"' + b"a" * 10_000_000 + b'","sender":"Berid"}',
    b"x" * 10_000_000,
    b'{"to":"966501234567","text":"a","sender":"Berid"' + b" " * 16_777_216 + b"}",
    b"to=966501234567&text=a&sender=Berid",
]


@pytest.mark.parametrize("path", ["/messages", "/messages/batch"])
@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
async def test_bad_requests_are_refused_and_cost_nothing(api: Api, path: str, body: bytes) -> None:
    if path.endswith("batch") and body.startswith(b'{"to"'):
        body = b'{"messages":[' + body + b"]}"
    answer = await api("POST", path, body)
    if answer.status == 200:
        assert (answer.json["accepted"], answer.json["refused"]) == (0, 1)
        problem = answer.json["data"][0]["error"]
    else:
        assert 400 <= answer.status < 500
        problem = answer.json
    assert problem["code"] in {kind.value for kind in RefusalKind} | {"body_too_large"}
    assert await api.count("delivery") == 0
    assert (await api.balance())["available"] == "1000"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"to":"966501234567","text":5}', "text"),
        (b'{"to":"966501234567","sendat":5}', "sendat"),
        (b'{"to":[[]]}', "to[0]"),
        (b'{"send_at":"x"}', "send_at"),
        (b"{", None),
    ],
)
async def test_problem_names_the_field(api: Api, body: bytes, field: str | None) -> None:
    assert (await api("POST", "/messages", body)).json.get("field") == field


async def test_of_a_repeated_key_the_last_value_stands(api: Api) -> None:
    body = b'{"to":"12","to":"966501234567","text":"a","text":"b","sender":"x","sender":"Berid"}'
    answer = await api("POST", "/messages", body)
    assert answer.status == 201
    assert (await api("GET", f"/messages/{answer.json['id']}")).json["text"] == "b"


async def test_text_may_speak_of_nul_without_holding_one(api: Api) -> None:
    said = await api.send(text="\\u0000 and \\x00")
    assert (await api("GET", f"/messages/{said['id']}")).json["text"] == "\\u0000 and \\x00"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/messages", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/messages/batch", "OPTIONS, POST"),
        ("POST", "/messages/msg_1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("GET", "/messages/msg_1/cancel", "OPTIONS, POST"),
        ("TRACE", "/balance", "GET, HEAD, OPTIONS"),
    ],
)
async def test_wrong_methods_are_told_the_right_ones(api: Api, method: str, path: str, allow: str) -> None:
    answer = await api(method, path)
    assert (answer.status, answer.json["code"], answer.headers["allow"]) == (405, "method_not_allowed", allow)


async def test_unknown_path_is_a_problem(api: Api) -> None:
    answer = await api("GET", "/nothing")
    assert (answer.status, answer.json["code"]) == (404, "path_unknown")


async def test_too_many_recipients_are_refused(api: Api) -> None:
    api.rt.config = Config(limits=Limits(recipients_per_request=2))
    answer = await api("POST", "/messages", {**NEW, "to": [NUMBER] * 3})
    assert (answer.status, answer.json["code"], answer.json["field"]) == (422, "recipients_too_many", "to")


async def test_otp_priority_needs_that_service(api: Api) -> None:
    await api.send(priority="otp")
    application = api.rt.directory.applications[2]
    with_directory(api.rt, applications={2: replace(application, services=frozenset({"sms"}))})
    answer = await api("POST", "/messages", {**NEW, "priority": "otp"})
    assert (answer.status, answer.json["code"]) == (403, "service_missing")


# ── Batches ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_batch_accepts_each_message_for_itself(api: Api) -> None:
    messages = [NEW, {**NEW, "sender": "Nobody"}, {**NEW, "text": 5}, {**NEW, "to": ["905321234567"], "text": "b"}]
    answer = await api("POST", "/messages/batch", {"messages": messages})
    said = answer.json
    assert (answer.status, said["accepted"], said["refused"]) == (200, 2, 2)
    assert [item["index"] for item in said["data"]] == [0, 1, 2, 3]
    assert said["data"][0]["message"]["deliveries"][0]["to"] == NUMBER
    assert [said["data"][place]["error"]["code"] for place in (1, 2)] == ["sender_unknown", "malformed"]
    assert said["data"][3]["message"]["balance"] == "999.9"
    await api.check_ledger()


async def test_batch_is_one_commit(api: Api) -> None:
    commits: list[int] = []
    api.rt.store.hot._observe = lambda operations, _: commits.append(operations)
    answer = await api("POST", "/messages/batch", {"messages": [NEW] * 1_000})
    assert answer.json["accepted"] == 1_000
    assert commits == [1_000]


async def test_repeated_batch_sends_only_what_was_refused_before(api: Api) -> None:
    messages = [NEW, {**NEW, "sender": "Late"}]
    first = (await api("POST", "/messages/batch", {"messages": messages}, key="k")).json
    senders = api.rt.directory.senders
    name = senders[ACCOUNT_ID, "sms", "Berid"][0]
    with_directory(api.rt, senders={**senders, (ACCOUNT_ID, "sms", "Late"): (replace(name, name="Late"),)})
    again = (await api("POST", "/messages/batch", {"messages": messages}, key="k")).json
    assert (first["accepted"], again["accepted"]) == (1, 2)
    assert again["data"][0] == first["data"][0]
    assert await api.count("message") == 2


@pytest.mark.parametrize("count", [0, 1_001])
async def test_batch_has_its_bounds(api: Api, count: int) -> None:
    answer = await api("POST", "/messages/batch", {"messages": [NEW] * count})
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "malformed", "messages")


async def test_batch_that_the_store_did_not_take_is_to_be_sent_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    real = HotStore.do
    calls = 0

    async def sometimes(self: HotStore, verb: Any, items: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != 2:
            raise StoreAway("gone")
        return await real(self, verb, items)

    monkeypatch.setattr(HotStore, "do", sometimes)
    body = {"messages": [NEW] * 3}
    some = (await api("POST", "/messages/batch", body)).json
    assert [("message" in item, item.get("error", {}).get("code")) for item in some["data"]] == [
        (False, "store_away"),
        (True, None),
        (False, "store_away"),
    ]
    none = await api("POST", "/messages/batch", body)
    assert (none.status, none.headers["retry-after"]) == (503, "1")


async def test_batch_item_with_an_endless_number_is_refused_alone(api: Api) -> None:
    body = b'{"messages":[' + msgspec.json.encode(NEW) + b',{"to":' + b"9" * 5_000 + b',"text":"a","sender":"Berid"}]}'
    said = (await api("POST", "/messages/batch", body)).json
    assert [item.get("error", {}).get("code") for item in said["data"]] == [None, "malformed"]
