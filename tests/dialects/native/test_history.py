"""Lists of messages, one message with its timeline, its deliveries."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from berid.base.ids import read
from berid.base.secret import hash_token
from berid.domain.message import State
from berid.domain.report import Endpoint
from berid.store import messages
from tests.dialects.native.conftest import NUMBER, Api, progress, with_directory
from tests.support.builders import ACCOUNT_ID, SECRET
from tests.support.database import ask

OTHER = "966507654321"


async def ids(api: Api, query: str = "") -> list[str]:
    """The ids that a list shows."""
    answer = await api("GET", f"/messages?{query}")
    assert answer.status == 200, answer.body
    return [each["id"] for each in answer.json["data"]]


async def walk(api: Api, path: str, query: str = "") -> tuple[list[str], int]:
    """All ids of a list, and the number of calls it took."""
    found: list[str] = []
    cursor = ""
    for calls in range(1, 100):
        said = (await api("GET", f"{path}?{query}&cursor={cursor}")).json
        found += [each["id"] for each in said["data"]]
        cursor = said["next"]
        if cursor is None:
            return found, calls
    raise AssertionError("the list has no end")


async def test_message_is_shown_with_counts_deliveries_and_timeline(api: Api) -> None:
    said = await api.send(NUMBER, OTHER, "12", reference="r", metadata={"a": "b"})
    await api.clock.advance(1)
    await progress(api.rt, said["deliveries"][:1], State.SENT, connector=8, carrier_ids="x", attempt=1)
    await api.clock.advance(1)
    await progress(api.rt, said["deliveries"][:1], State.DELIVERED, connector=8, code="000")
    detail = (await api("GET", f"/messages/{said['id']}")).json
    first, second = said["deliveries"]
    assert detail.pop("deliveries")[0] == {
        "id": first["id"],
        "message": said["id"],
        "to": NUMBER,
        "country": "SA",
        "state": "delivered",
        "reason": "",
        "units": 1,
        "price": "0.05",
        "attempts": 0,
        "sent_at": None,
        "ended_at": "2026-09-21T14:13:22.000Z",
        "expires_at": "2026-09-22T14:13:20.000Z",
    }
    assert detail == {
        "id": said["id"],
        "channel": "sms",
        "mode": "test",
        "state": "queued",
        "sender": "Berid",
        "category": "transactional",
        "total": 2,
        "parts": 1,
        "cost": "0.1",
        "currency": "SAR",
        "reference": "r",
        "metadata": {"a": "b"},
        "application": "app_2",
        "created_at": "2026-09-21T14:13:20.000Z",
        "send_at": None,
        "expires_at": "2026-09-22T14:13:20.000Z",
        "resend_of": None,
        "text": "hello",
        "counts": {"delivered": 1, "queued": 1},
        "refused": [],
        "timeline": [
            {"at": "2026-09-21T14:13:20.000Z", "event": "accepted"},
            {"at": "2026-09-21T14:13:21.000Z", "event": "sent", "delivery": first["id"], "detail": {"attempt": 1}},
            {
                "at": "2026-09-21T14:13:22.000Z",
                "event": "delivered",
                "delivery": first["id"],
                "detail": {"code": "000"},
            },
        ],
    }
    assert (await api("GET", f"/deliveries/{second['id']}")).json["timeline"] == detail["timeline"][:1]


async def test_timeline_tells_of_callbacks_and_their_tries(api: Api) -> None:
    sent = frozenset({"message.sent", "message.delivered"})
    first = Endpoint(50, ACCOUNT_ID, 0, "native", "https://a.example/", "a.example", "", sent, 1, "on")
    second = replace(first, id=51, url="https://b.example/", host="b.example")
    with_directory(api.rt, endpoints={ACCOUNT_ID: [first, second]}, endpoint_by_id={50: first, 51: second})
    said = await api.send(NUMBER, OTHER)
    for state in (State.SENT, State.DELIVERED):
        await api.clock.advance(5)
        await progress(api.rt, said["deliveries"], state)
    rows = await ask(api.url, "SELECT id, delivery_id, endpoint_id FROM callback ORDER BY delivery_id, id")
    told, failed = rows[0][0], rows[1][0]
    await ask(api.url, f"DELETE FROM job WHERE id = {told} RETURNING id")
    await ask(api.url, f"UPDATE job SET buried_ms = 5 WHERE id = {failed} RETURNING id")
    await ask(
        api.url,
        "INSERT INTO callback_try (callback_id, id, at_ms, status, error, elapsed_ms) "
        f"VALUES ({told}, 1, 1790000005001, 200, '', 12), ({failed}, 2, 1790000005002, 0, 'refused', 3) RETURNING id",
    )
    timeline = (await api("GET", f"/deliveries/{said['deliveries'][0]['id']}")).json["timeline"]
    assert [line["event"] for line in timeline] == [
        "accepted",
        "sent",
        "callback",
        "callback",
        "delivered",
        "callback",
        "callback",
    ]
    assert timeline[2]["callback"] == {
        "id": f"evt_{told}",
        "endpoint": "cbe_50",
        "type": "message.sent",
        "state": "told",
        "created_at": "2026-09-21T14:13:25.000Z",
        "next_try_at": None,
        "tries": [{"at": "2026-09-21T14:13:25.001Z", "status": 200, "error": "", "ms": 12}],
        "delivery": said["deliveries"][0]["id"],
    }
    assert (timeline[3]["callback"]["state"], timeline[5]["callback"]["state"]) == ("failed", "pending")
    assert timeline[3]["callback"]["tries"][0]["error"] == "refused"
    whole = (await api("GET", f"/messages/{said['id']}")).json["timeline"]
    assert len([line for line in whole if line["event"] == "callback"]) == len(rows) == 8


async def test_list_is_newest_first_with_schedules_and_ten_deliveries_each(api: Api) -> None:
    sent = [await api.send(*[NUMBER] * 12), await api.send(send_at="2027-01-01T00:00:00Z"), await api.send()]
    said = (await api("GET", "/messages")).json
    assert [each["id"] for each in said["data"]] == [each["id"] for each in reversed(sent)]
    assert [(each["state"], each["total"], len(each["deliveries"])) for each in said["data"]] == [
        ("queued", 1, 1),
        ("scheduled", 1, 1),
        ("queued", 12, 10),
    ]
    assert [each["id"] for each in said["data"][2]["deliveries"]] == [each["id"] for each in sent[0]["deliveries"]]
    assert said["next"] is None


async def test_list_is_walked_by_cursor_without_gap_or_repeat(api: Api) -> None:
    sent = [(await api.send())["id"] for _ in range(7)]
    found, calls = await walk(api, "/messages", "limit=3")
    assert (found, calls) == (sent[::-1], 3)


async def test_new_messages_do_not_disturb_a_walk(api: Api) -> None:
    sent = [(await api.send())["id"] for _ in range(4)]
    first = (await api("GET", "/messages?limit=2")).json
    await api.send()
    second = (await api("GET", f"/messages?limit=2&cursor={first['next']}")).json
    assert [each["id"] for each in second["data"]] == [sent[1], sent[0]]


async def test_list_is_narrowed_by_every_filter(api: Api) -> None:
    one = await api.send(NUMBER, reference="a")
    await api.clock.advance(10)
    two = await api.send(NUMBER, OTHER, reference="b")
    await api.clock.advance(10)
    three = await api.send(OTHER, send_at="2027-01-01T00:00:00Z")
    await progress(api.rt, two["deliveries"][1:], State.SENT)
    for query, found in [
        ("", [three, two, one]),
        ("state=scheduled", [three]),
        ("state=sent", [two]),
        ("state=queued", [two, one]),
        ("state=read", []),
        ("channel=sms", [three, two, one]),
        ("channel=voice", []),
        ("reference=b", [two]),
        ("reference=nothing", []),
        ("application=app_2", [three, two, one]),
        ("application=2", [three, two, one]),
        ("application=app_3", []),
        ("number=966507654321", [three, two]),
        ("number=0507654321", [three, two]),
        ("number=%2B966507654321&state=sent", [two]),
        ("number=966507654321&state=queued", []),
        ("number=966500000000", []),
        ("from=2026-09-21T14:13:30Z", [three, two]),
        ("from=2026-09-21T17:13:30%2B03:00", [three, two]),
        ("from=2026-09-21T17:13:30+03:00", [three, two]),
        ("from=1790000010000&to=1790000020000", [two]),
        ("to=2026-09-21T14:13:30Z", [one]),
        ("from=1790000030000", []),
    ]:
        assert await ids(api, query) == [each["id"] for each in found], query


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=c", "cursor"),
        ("cursor=c-5", "cursor"),
        ("cursor=c" + "f" * 40, "cursor"),
        ("cursor=%F0%9F%98%80", "cursor"),
        ("state=lost", "state"),
        ("from=yesterday", "from"),
        ("from=2026-09-21", "from"),
        ("to=99999999999999999999999", "to"),
        ("number=12", "number"),
        ("application=app_x", "application"),
        ("application=app_99999999999999999999", "application"),
        ("sate=queued", "sate"),
    ],
)
async def test_list_refuses_what_it_cannot_read(api: Api, query: str, field: str) -> None:
    answer = await api("GET", f"/messages?{query}")
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "malformed", field)


async def test_bound_that_is_no_time_is_not_taken_for_a_plan(api: Api) -> None:
    answer = await api("GET", "/messages?to=%2B966500000001")
    assert answer.json["detail"] == "this is not a time by RFC 3339 with its offset"


async def test_query_with_nul_is_refused(api: Api) -> None:
    answer = await api("GET", "/messages?reference=a%00b")
    assert (answer.status, answer.json["code"]) == (400, "malformed")


async def test_rare_matches_are_found_window_by_window(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "WINDOW", 3)
    rare = [await api.send(OTHER, reference="rare")]
    for _ in range(7):
        await api.send(NUMBER)
    rare.append(await api.send(OTHER, reference="rare"))
    await api.send(NUMBER)
    for query in ("number=966507654321", "reference=rare", "reference=rare&number=966507654321"):
        found, calls = await walk(api, "/messages", query)
        assert found == [rare[1]["id"], rare[0]["id"]]
        assert calls == 4, query
    first = (await api("GET", "/messages?number=966500000000")).json
    assert first["data"] == []
    assert first["next"] is not None


async def test_window_is_bounded_by_deliveries_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "WINDOW_DELIVERIES", 10)
    sent = [(await api.send(*[NUMBER] * 8))["id"] for _ in range(3)]
    found, calls = await walk(api, "/messages", "number=" + NUMBER)
    assert (found, calls) == (sent[::-1], 3)


async def test_window_does_not_reach_beyond_the_time_asked_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "WINDOW", 2)
    for _ in range(6):
        await api.send()
        await api.clock.advance(10)
    found, calls = await walk(api, "/messages", "from=1790000030000&reference=x")
    assert (found, calls) == ([], 2)


async def test_deliveries_are_walked_by_cursor_and_state(api: Api) -> None:
    said = await api.send(*[NUMBER] * 7)
    shown = [each["id"] for each in said["deliveries"]]
    found, calls = await walk(api, f"/messages/{said['id']}/deliveries", "limit=3")
    assert (found, calls) == (shown, 3)
    await progress(api.rt, said["deliveries"][2:4], State.SENT)
    found, _ = await walk(api, f"/messages/{said['id']}/deliveries", "state=sent&limit=1")
    assert found == shown[2:4]


async def test_deliveries_of_others_between_are_not_shown(api: Api) -> None:
    first = await api.send(*[NUMBER] * 2)
    low, high = (read("dlv", each["id"]) or 0 for each in first["deliveries"])
    await ask(
        api.url,
        "INSERT INTO delivery (id, message_id, account_id, recipient, state) VALUES "
        f"({low + 1}, 5, 77, '{OTHER}', 'sent'), ({high - 1}, 6, {ACCOUNT_ID}, '{OTHER}', 'sent') RETURNING id",
    )
    detail = (await api("GET", f"/messages/{first['id']}")).json
    assert detail["counts"] == {"queued": 2}
    assert len((await api("GET", f"/messages/{first['id']}/deliveries")).json["data"]) == 2
    assert await ids(api, f"number={OTHER}") == []
    assert (await api("GET", f"/deliveries/{low + 1}")).status == 404


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["delivered", "delivered"], "delivered"),
        (["delivered", "failed"], "failed"),
        (["delivered", "sent"], "sent"),
        (["cancelled", "queued"], "queued"),
        (["read", "delivered"], "delivered"),
        (["expired", "undelivered"], "expired"),
    ],
)
async def test_message_has_the_state_of_its_least_delivery(api: Api, states: list[str], state: str) -> None:
    said = await api.send(NUMBER, OTHER)
    for delivery, each in zip(said["deliveries"], states, strict=True):
        await ask(api.url, f"UPDATE delivery SET state = '{each}' WHERE id = {delivery['id'][4:]} RETURNING id")
    assert (await api("GET", f"/messages/{said['id']}")).json["state"] == state
    assert (await api("GET", "/messages")).json["data"][0]["state"] == state


async def stranger(api: Api) -> str:
    """A token of another account, and of the same account in live mode: (their secrets)."""
    directory = api.rt.directory
    token = directory.tokens[hash_token(SECRET)]
    account = replace(directory.accounts[ACCOUNT_ID], id=70)
    application = replace(directory.applications[2], id=71, account_id=70)
    theirs = replace(token, id=72, account_id=70, application_id=71, hash=hash_token("bt_theirs"))
    live = replace(token, id=73, mode="live", hash=hash_token("bl_mine"))
    with_directory(
        api.rt,
        accounts={ACCOUNT_ID: directory.accounts[ACCOUNT_ID], 70: account},
        applications={2: directory.applications[2], 71: application},
        tokens={token.hash: token, theirs.hash: theirs, live.hash: live},
    )
    return "bt_theirs"


@pytest.mark.parametrize("token", ["bt_theirs", "bl_mine"])
async def test_other_accounts_and_the_other_mode_see_nothing(api: Api, token: str) -> None:
    await stranger(api)
    said = await api.send(send_at="2027-01-01T00:00:00Z")
    message, delivery = said["id"], said["deliveries"][0]["id"]
    assert (await api("GET", "/messages", token=token)).json["data"] == []
    for method, path, body in [
        ("GET", f"/messages/{message}", None),
        ("GET", f"/messages/{message}/deliveries", None),
        ("GET", f"/deliveries/{delivery}", None),
        ("POST", f"/messages/{message}/cancel", None),
        ("DELETE", f"/messages/{message}", None),
        ("PATCH", f"/messages/{message}", {"send_at": "2028-01-01T00:00:00Z"}),
        ("POST", f"/messages/{message}/resend", {}),
    ]:
        answer = await api(method, path, body, token=token)
        assert (answer.status, answer.json["code"]) == (404, "not_found"), path
    assert (await api("GET", f"/messages/{message}")).json["state"] == "scheduled"


@pytest.mark.parametrize("identifier", ["msg_1", "dlv_1", "x", "msg_", "-1", "msg_99999999999999999999", "%00", "ş"])
async def test_what_is_no_message_is_not_found(api: Api, identifier: str) -> None:
    for path in (f"/messages/{identifier}", f"/messages/{identifier}/deliveries", f"/deliveries/{identifier}"):
        answer = await api("GET", path)
        assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_plain_number_of_an_id_is_taken_too(api: Api) -> None:
    said = await api.send()
    assert (await api("GET", f"/messages/{said['id'][4:]}")).json["id"] == said["id"]


async def test_message_that_is_still_loading_is_not_there_yet(api: Api) -> None:
    said = await api.send()
    await ask(api.url, "UPDATE message SET state = 'loading' RETURNING id")
    assert await ids(api) == []
    assert (await api("GET", f"/messages/{said['id']}")).status == 404


async def test_text_that_is_not_kept_is_null(api: Api) -> None:
    said = await api.send()
    await ask(api.url, "UPDATE message SET body = '', body_kind = 'erased' RETURNING id")
    assert (await api("GET", f"/messages/{said['id']}")).json["text"] is None


async def test_left_out_recipients_stay_on_record(api: Api) -> None:
    with_directory(api.rt, routes=(replace(api.rt.directory.routes[0], countries=frozenset({"SA"})),))
    said = await api.send(NUMBER, "905321234567")
    assert (await api("GET", f"/messages/{said['id']}")).json["refused"] == [{"to": "905321234567", "code": "no_route"}]


async def test_reading_needs_its_right(api: Api) -> None:
    token = api.rt.directory.tokens[hash_token(SECRET)]
    with_directory(api.rt, tokens={token.hash: replace(token, scopes=frozenset({"send"}))})
    for path in ("/messages", "/messages/msg_1", "/messages/msg_1/deliveries", "/deliveries/dlv_1"):
        answer = await api("GET", path)
        assert (answer.status, answer.json["code"]) == (403, "scope_missing")


async def test_many_readers_at_once_are_served(api: Api) -> None:
    said = await api.send()
    answers: list[Any] = await asyncio.gather(*(api("GET", f"/messages/{said['id']}") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
