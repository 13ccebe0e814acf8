"""What `/v1/messages` does behind its answers: what is stored, held and given back."""

import asyncio
from dataclasses import replace

import msgspec
import pytest

from berid.domain.suppression import Book
from berid.store import tables
from berid.store.hot import StoreAway
from tests.dialects.taqnyat.conftest import World

HELLO = b'{"recipients":[966500000000],"body":"Hello","sender":"Acme"}'
RIYADH_TEN_MS = 1_790_838_000_000
"""2026-10-01 10:00 in Riyadh, 07:00 UTC."""


def body(**changes: object) -> bytes:
    return msgspec.json.encode({"recipients": [966500000000], "body": "Hello", "sender": "Acme", **changes})


async def counts(world: World) -> list[int]:
    tables = ("message", "delivery", "ledger_entry", "job", "idempotency")
    return [int((await world.ask(f"SELECT count(*) FROM {table}"))[0][0]) for table in tables]


async def test_sent_message_is_stored_and_its_price_held(world: World) -> None:
    answer = await world.call("POST", "/v1/messages", body(smsId="25489", deleteId=100))
    rows = await world.ask(
        "SELECT id, dialect, mode, sender, body, category, reference, cancel_key, total FROM message"
    )
    assert rows == [(answer.json["messageId"], "taqnyat", "live", "Acme", "Hello", "transactional", "25489", "100", 1)]
    assert await world.ask("SELECT recipient, state, units, price_micros FROM delivery") == [
        ("966500000000", "queued", 1, 26_000)
    ]
    assert await world.wallet("shop") == (99_974_000, 26_000)


async def test_name_that_ends_in_ad_sends_adverts(world: World) -> None:
    assert (await world.call("POST", "/v1/messages", body(sender="Acme-AD"))).status == 201
    assert await world.ask("SELECT category, priority FROM message") == [("promotional", 2)]


async def test_planned_message_waits_until_its_time(world: World) -> None:
    assert (await world.call("POST", "/v1/messages", body(scheduledDatetime="2026-10-01T10:00"))).status == 201
    assert await world.ask("SELECT due_ms FROM message") == [(RIYADH_TEN_MS,)]
    assert await world.ask("SELECT state FROM delivery") == [("scheduled",)]


async def test_deleting_gives_the_money_back_and_leaves_others_alone(world: World) -> None:
    for key in ("a", "b"):
        await world.call("POST", "/v1/messages", body(deleteId=key, scheduledDatetime="2026-10-01T10:00"))
    await world.call("POST", "/v1/messages", body(deleteId="a", scheduledDatetime="2026-10-01T10:00"), token="keyed")
    assert (await world.call("DELETE", "/v1/messages/delete?deleteId=a")).status == 201
    rows = await world.ask(
        "SELECT m.cancel_key, m.account_id, d.state FROM delivery d JOIN message m ON m.id = d.message_id ORDER BY d.id"
    )
    assert rows == [
        ("a", world.account_ids["shop"], "cancelled"),
        ("b", world.account_ids["shop"], "scheduled"),
        ("a", world.account_ids["keyed"], "scheduled"),
    ]
    assert await world.wallet("shop") == (99_974_000, 26_000)
    assert await world.wallet("keyed") == (99_974_000, 26_000)


async def test_delete_without_a_key_deletes_nothing(world: World) -> None:
    await world.call("POST", "/v1/messages", body(scheduledDatetime="2026-10-01T10:00"))
    for path in ("/v1/messages", "/v1/messages/delete", "/v1/messages/delete/"):
        for given in (
            b"",
            b"{}",
            b"[]",
            b'{"auth":"x"}',
            HELLO,
            b'{"deleteId":""}',
            b'{"deleteId":null,"deleteKey":""}',
        ):
            answer = await world.call("DELETE", path, given)
            assert (answer.status, answer.json) == (422, {"statusCode": 422, "message": "deleteId is not valid"})
    assert await world.ask("SELECT state FROM delivery") == [("scheduled",)]


async def test_longest_keys_are_stored_and_found(world: World) -> None:
    key = "ş" * 255
    planned = body(smsId=key, deleteId=key, scheduledDatetime="2026-10-01T10:00")
    assert (await world.call("POST", "/v1/messages", planned, token="keyed")).status == 201
    given = msgspec.json.encode({"deleteId": key})
    assert (await world.call("DELETE", "/v1/messages/delete", given, token="keyed")).status == 201


async def test_sms_id_is_a_key_only_where_the_rules_say_so(world: World) -> None:
    first, second = [await world.call("POST", "/v1/messages", body(smsId="7")) for _ in range(2)]
    assert first.json["messageId"] != second.json["messageId"]
    assert await world.wallet("shop") == (99_948_000, 52_000)

    first, second = [await world.call("POST", "/v1/messages", body(smsId="7"), token="keyed") for _ in range(2)]
    assert first.body == second.body
    assert await world.wallet("keyed") == (99_974_000, 26_000)


async def test_repeated_key_lists_the_rejected_again(world: World) -> None:
    given = body(smsId="7", recipients=[966500000000, 447700900123, "x"])
    first, second = [await world.call("POST", "/v1/messages", given, token="keyed") for _ in range(2)]
    assert first.json["rejected"] == "[x,447700900123,]"
    assert first.body == second.body


async def test_same_key_for_another_message_is_refused(world: World) -> None:
    await world.call("POST", "/v1/messages", body(smsId="7"), token="keyed")
    for other in (
        {"body": "Bye"},
        {"recipients": [966500000001]},
        {"sender": "Acme-AD"},
        {"scheduled": "2026-10-01T10:00"},
        {"deleteId": "x"},
    ):
        answer = await world.call("POST", "/v1/messages", body(smsId="7", **other), token="keyed")
        assert (answer.status, answer.json["message"]) == (400, "smsId was used before with another message")
        assert answer.headers["x-berid-code"] == "idempotency_conflict"
    assert await world.wallet("keyed") == (99_974_000, 26_000)


@pytest.mark.parametrize(
    ("token", "recipients", "message", "code"),
    [
        ("shop", [447700900123, 447700900124], "Sending SMS stopped from support", "no_route"),
        ("shop", [447700900123, "x"], "Mobile(s) number(s) is not specified or incorrect", "recipient_invalid"),
        ("shop", [971500000000, 971500000001], "Sending SMS stopped from support", "no_price"),
        (
            "saudi",
            [905320000000, 447700900123],
            "this country Not authorized to using the API",
            "country_not_allowed",
        ),
    ],
)
async def test_request_of_which_no_country_can_be_reached_is_refused_whole(
    world: World, token: str, recipients: list[object], message: str, code: str
) -> None:
    before = await counts(world)
    answer = await world.call("POST", "/v1/messages", body(recipients=recipients), token=token)
    assert (answer.status, answer.json["message"], answer.headers["x-berid-code"]) == (400, message, code)
    assert await counts(world) == before


async def test_thousand_numbers_go_in_one_request_and_no_more(world: World) -> None:
    numbers = [966500000000 + place for place in range(1_001)]
    answer = await world.call("POST", "/v1/messages", body(recipients=numbers))
    assert (answer.status, answer.json["message"]) == (400, "The number of recipients is greater than 1000")
    assert await counts(world) == await counts(world)
    answer = await world.call("POST", "/v1/messages", body(recipients=numbers[:1_000]))
    assert (answer.status, answer.json["totalCount"], answer.json["cost"]) == (201, 1_000, 26)
    assert answer.json["accepted"] == "[" + "".join(f"{number}," for number in numbers[:1_000]) + "]"


async def test_rejected_numbers_count_as_recipients(world: World) -> None:
    answer = await world.call("POST", "/v1/messages", body(recipients=["x"] * 1_000 + [966500000000]))
    assert answer.json["message"] == "The number of recipients is greater than 1000"


async def test_many_at_once_are_all_stored_and_paid_once(world: World) -> None:
    answers = await asyncio.gather(*(world.call("POST", "/v1/messages", HELLO) for _ in range(50)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["messageId"] for answer in answers}) == 50
    assert await world.wallet("shop") == (100_000_000 - 50 * 26_000, 50 * 26_000)


BAD = {
    "broken JSON": (b'{"recipients":', 400),
    "two documents": (HELLO + HELLO, 400),
    "not UTF-8": (b'{"body":"\xff"}', 400),
    "NUL": (b'{"recipients":[966500000000],"body":"a\\u0000b","sender":"Acme"}', 400),
    "NUL in a form": (b"recipients=966500000000&body=a%00b&sender=Acme", 400),
    "half a pair": (b'{"recipients":[966500000000],"body":"\\ud83d","sender":"Acme"}', 400),
    "half a pair in a form": (b"recipients=966500000000&body=%ED%A0%BD&sender=Acme", 400),
    "deep nesting": (b'{"body":' + b"[" * 100_000, 400),
    "a huge number": (b'{"recipients":[' + b"9" * 5_000 + b"]}", 400),
    "an infinite number": (b'{"recipients":[1e999],"body":"Hello","sender":"Acme"}', 400),
    "a list of two": (b"[{},{}]", 400),
    "true for numbers": (b'{"recipients":true,"body":"Hello","sender":"Acme"}', 400),
    "lists in the list": (b'{"recipients":[[966500000000]],"body":"Hello","sender":"Acme"}', 400),
    "objects in the list": (b'{"recipients":[{"to":966500000000}],"body":"Hello","sender":"Acme"}', 400),
    "text that is a list": (b'{"recipients":[966500000000],"body":["Hello"],"sender":"Acme"}', 400),
    "text that is true": (b'{"recipients":[966500000000],"body":true,"sender":"Acme"}', 400),
    "sender that is an object": (b'{"recipients":[966500000000],"body":"Hello","sender":{"a":1}}', 400),
    "key that is an object": (b'{"recipients":[966500000000],"body":"Hello","sender":"Acme","smsId":{}}', 400),
    "a text of a thousand parts": (body(body="x" * 200_000), 400),
    "an endless number": (b'{"recipients":"' + b"9" * 100_000 + b'","body":"Hello","sender":"Acme"}', 400),
    "ten megabytes": (b'{"body":"' + b"x" * 10_000_000 + b'"}', 413),
    "an endless deleteId": (body(deleteId="x" * 10_000), 400),
    "an endless smsId": (body(smsId="x" * 10_000), 400),
    "an endless sender": (body(sender="x" * 10_000), 400),
    "nothing": (b"", 400),
    "garbage": (bytes(range(1, 256)), 400),
}  # fmt: skip


async def test_what_cannot_be_read_is_refused_in_this_dialects_words_and_costs_nothing(world: World) -> None:
    before = await counts(world)
    for name, (given, status) in BAD.items():
        answer = await world.call("POST", "/v1/messages", given)
        assert answer.status == status, name
        assert answer.json["statusCode"] == status, name
        assert isinstance(answer.json["message"], str), name
        assert answer.json["message"], name
    assert await counts(world) == before
    assert await world.wallet("shop") == (100_000_000, 0)


async def test_no_path_breaks_on_what_cannot_be_read(world: World) -> None:
    world.install("voice")
    world.install("email")
    before = await counts(world)
    for path in ("/voiceSend.php", "/mailSend.php", "/verify.php", "/v1/messages/delete", "/account/balance"):
        for name, (given, _) in BAD.items():
            method = {"/v1/messages/delete": "DELETE", "/account/balance": "GET"}.get(path, "POST")
            answer = await world.call(method, path, given, token="everything")
            assert answer.status in (200, 400, 413, 422), (path, name)
            assert isinstance(answer.json, dict | int), (path, name)
            assert (path, answer.status) != ("/account/balance", 400) or "message" in answer.json
    assert await counts(world) == before


@pytest.mark.parametrize(
    ("recipients", "accepted", "rejected"),
    [
        ([966500000001], 0, "[966500000001,]"),
        ([966500000001, 966500000001], 0, "[966500000001,966500000001,]"),
        ([966500000001, 966500000000], 1, "[966500000001,]"),
        (["x", 966500000001, 447700900123], 0, "[x,966500000001,447700900123,]"),
    ],
)
async def test_who_asked_for_no_adverts_is_rejected_in_the_answer(
    world: World, recipients: list[object], accepted: int, rejected: str
) -> None:
    book = Book().changed({"966500000001": 1})
    world.rt.directory = replace(world.rt.directory, suppressions={world.account_ids["shop"]: {"sms": book}})
    answer = await world.call("POST", "/v1/messages", body(recipients=recipients, sender="Acme-AD"))
    assert answer.status == 201
    assert (answer.json["totalCount"], answer.json["rejected"]) == (accepted, rejected)
    assert answer.headers["x-berid-code"] == "suppressed"
    assert await world.wallet("shop") == (100_000_000 - accepted * 26_000, accepted * 26_000)
    assert await world.ask("SELECT id, total FROM message") == [(answer.json["messageId"], accepted)]


async def test_answer_names_the_same_request_as_the_log(world: World) -> None:
    answer = await world.call("POST", "/v1/messages", HELLO)
    assert answer.headers["x-request-id"].startswith("req_")
    assert "x-berid-code" not in answer.headers


async def test_when_the_store_is_away_clients_are_told_to_try_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreAway("gone")

    monkeypatch.setattr(world.rt.store.hot, "do", away)
    answer = await world.call("POST", "/v1/messages", HELLO)
    assert (answer.status, answer.json["message"]) == (400, "SMS-API not responding , please try again")
    assert answer.headers["x-berid-code"] == "store_away"


async def test_what_breaks_in_us_is_told_in_this_dialects_shape(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.rt.store.hot, "do", broken)
    answer = await world.call("POST", "/v1/messages", HELLO)
    assert (answer.status, answer.json["statusCode"]) == (500, 500)
    assert isinstance(answer.json["message"], str)


async def test_open_incidents_are_told_until_they_are_closed(world: World) -> None:
    async with world.rt.store.transaction() as tx:
        for place, (service, title, state) in enumerate(
            [("SMS", "Delays to one operator", "open"), ("Voice", "Calls fail", "open"), ("API", "Over", "closed")]
        ):
            await tx.execute(
                tables.incident.insert().values(
                    id=place + 1, service=service, title=title, state=state, started_ms=place
                )
            )
    answer = await world.call("GET", "/system/status", token="")
    assert answer.json["status"] == {"service": "SMS,Voice", "description": "Delays to one operator, Calls fail"}
    await world.ask("UPDATE incident SET state = 'closed'")
    answer = await world.call("GET", "/system/status", token="")
    assert answer.json["status"]["service"] == "none"


async def test_status_tells_of_a_store_that_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise StoreAway("gone")

    monkeypatch.setattr(world.rt.store, "read", away)
    answer = await world.call("GET", "/system/status", token="")
    assert (answer.status, answer.json["status"]["service"]) == (200, "API")
