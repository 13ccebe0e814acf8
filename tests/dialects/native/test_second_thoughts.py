"""Cancelling, planning for another time, sending again: what still waits can be changed, and money follows."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from berid.base.ids import read
from berid.domain.message import State
from berid.domain.report import DEFAULT_EVENTS, Endpoint
from berid.flow import cancel as flow_cancel
from berid.flow.accept import accept
from berid.flow.load import spread
from berid.queue.lanes import Lane
from berid.store import messages
from berid.store.hot import HotTx, Tracked, Verb
from tests.dialects.native.conftest import NUMBER, Api, progress, with_directory
from tests.support.builders import ACCOUNT_ID, CONNECTOR_ID, make_caller, make_submission
from tests.support.database import ask

LATER = "2027-01-01T00:00:00Z"
OTHER = "966507654321"


async def start(api: Api, deliveries: list[Any]) -> set[int]:
    """What the dispatcher does just before bytes may leave: the deliveries that may."""
    ids = [read("dlv", each["id"]) or 0 for each in deliveries]

    async def run(tx: HotTx, items: list[None]) -> list[dict[int, Tracked] | Exception]:
        return [await tx.start_sending(ids, CONNECTOR_ID, api.clock.now_ms()) for _ in items]

    return set((await api.rt.store.hot.do(Verb("test_start", 20, run), [None]))[0])


@pytest.mark.parametrize(("method", "suffix"), [("POST", "/cancel"), ("DELETE", "")])
@pytest.mark.parametrize("send_at", [None, LATER])
async def test_what_waits_is_cancelled_and_paid_back(api: Api, method: str, suffix: str, send_at: str | None) -> None:
    said = await api.send(NUMBER, OTHER, send_at=send_at)
    answer = await api(method, f"/messages/{said['id']}{suffix}")
    assert (answer.status, answer.json) == (
        200,
        {"cancelled": 2, "too_late": 0, "refunded": "0.1", "currency": "SAR"},
    )
    wallet = await api.balance()
    assert (wallet["available"], wallet["held"]) == ("1000", "0")
    assert await api.count("job") == 0
    detail = (await api("GET", f"/messages/{said['id']}")).json
    assert (detail["state"], detail["counts"]) == ("cancelled", {"cancelled": 2})
    assert [line["event"] for line in detail["timeline"]] == ["accepted", "cancelled", "cancelled"]
    assert await start(api, said["deliveries"]) == set()
    await api.check_ledger()


async def test_cancelling_again_is_a_yes_with_zeros(api: Api) -> None:
    said = await api.send()
    await api("DELETE", f"/messages/{said['id']}")
    again = await api("DELETE", f"/messages/{said['id']}")
    assert (again.status, again.json["cancelled"], again.json["too_late"], again.json["refunded"]) == (200, 0, 0, "0")
    await api.check_ledger()


async def test_what_has_left_is_counted_as_too_late(api: Api) -> None:
    said = await api.send(*[NUMBER] * 5)
    first, second, third, fourth, _ = said["deliveries"]
    await start(api, [first])
    await progress(api.rt, [second], State.SENT)
    await progress(api.rt, [third], State.FAILED, "no_route")
    await progress(api.rt, [fourth], State.UNCERTAIN)
    answer = await api("DELETE", f"/messages/{said['id']}")
    assert (answer.json["cancelled"], answer.json["too_late"], answer.json["refunded"]) == (1, 4, "0.05")
    wallet = await api.balance()
    assert (wallet["held"], wallet["spent_total"]) == ("0.1", "0.05")
    await api.check_ledger()


async def test_held_deliveries_can_be_cancelled(api: Api) -> None:
    said = await api.send(send_at=LATER)
    await ask(api.url, "UPDATE delivery SET state = 'held' RETURNING id")
    await ask(api.url, "UPDATE job SET buried_ms = 1 RETURNING id")
    assert (await api("DELETE", f"/messages/{said['id']}")).json["cancelled"] == 1
    assert await api.count("job") == 0


async def test_nothing_left_to_cancel_is_a_conflict(api: Api) -> None:
    said = await api.send()
    await progress(api.rt, said["deliveries"], State.SENT)
    answer = await api("DELETE", f"/messages/{said['id']}")
    assert (answer.status, answer.json["code"]) == (409, "not_cancellable")
    await api.check_ledger()


@pytest.mark.parametrize("cancels_first", [True, False])
async def test_delivery_is_either_sent_or_cancelled(api: Api, cancels_first: bool) -> None:
    said = await api.send(*[NUMBER] * 20)
    works: list[Any] = [api("DELETE", f"/messages/{said['id']}"), start(api, said["deliveries"])]
    results = await asyncio.gather(*(works if cancels_first else works[::-1]))
    answer, started = results if cancels_first else results[::-1]
    counts = (await api("GET", f"/messages/{said['id']}")).json["counts"]
    assert counts.get("sending", 0) == len(started)
    assert counts.get("cancelled", 0) == 20 - len(started)
    if answer.status == 200:
        assert (answer.json["cancelled"], answer.json["too_late"]) == (20 - len(started), len(started))
    await api.check_ledger()


async def test_two_cancellations_at_once_pay_back_once(api: Api) -> None:
    said = await api.send(*[NUMBER] * 20)
    answers = await asyncio.gather(*(api("DELETE", f"/messages/{said['id']}") for _ in range(5)))
    assert sum(answer.json.get("cancelled", 0) for answer in answers) == 20
    assert (await api.balance())["available"] == "1000"
    await api.check_ledger()


async def test_large_message_is_cancelled_page_by_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_cancel, "PAGE", 400)
    said = await api.send(*[NUMBER] * 1_001, send_at=LATER)
    answer = (await api("DELETE", f"/messages/{said['id']}")).json
    assert (answer["cancelled"], answer["too_late"], answer["refunded"]) == (1_001, 0, "50.05")
    await spread(api.rt, read("msg", said["id"]) or 0)
    assert await api.count("job") == 0
    await api.check_ledger()


async def test_schedule_moves_with_its_validity_and_its_jobs(api: Api) -> None:
    said = await api.send(NUMBER, OTHER, send_at=LATER, valid_for_s=3_600)
    answer = await api("PATCH", f"/messages/{said['id']}", {"send_at": "2027-02-01T00:00:00+03:00"})
    assert answer.status == 200
    assert (answer.json["send_at"], answer.json["expires_at"]) == (
        "2027-01-31T21:00:00.000Z",
        "2027-01-31T22:00:00.000Z",
    )
    assert {each["expires_at"] for each in answer.json["deliveries"]} == {"2027-01-31T22:00:00.000Z"}
    assert answer.json["timeline"][0]["detail"] == {"send_at": "2027-01-31T21:00:00.000Z"}
    assert set(await ask(api.url, "SELECT due_ms FROM job")) == {(1_801_429_200_000,)}


async def test_large_schedule_moves_before_its_jobs_are_made(api: Api) -> None:
    said = await api.send(*[NUMBER] * 1_001, send_at=LATER)
    answer = await api("PATCH", f"/messages/{said['id']}", {"send_at": 1_801_429_200_000})
    assert answer.status == 200
    assert await ask(api.url, "SELECT kind, due_ms FROM job") == [("spread", 1_801_429_200_000)]
    await spread(api.rt, read("msg", said["id"]) or 0)
    assert await api.count("job") == 1_001


@pytest.mark.parametrize("trouble", ["never", "started", "leased", "cancelled", "one of two"])
async def test_schedule_that_has_begun_stays(api: Api, trouble: str) -> None:
    said = await api.send(NUMBER, OTHER, send_at=None if trouble == "never" else LATER)
    if trouble == "started":
        await start(api, said["deliveries"])
    elif trouble == "leased":
        await ask(api.url, "UPDATE job SET lease_until_ms = 5, slot = 1 RETURNING id")
    elif trouble == "cancelled":
        await api("DELETE", f"/messages/{said['id']}")
    elif trouble == "one of two":
        await progress(api.rt, said["deliveries"][:1], State.FAILED)
    before = await ask(api.url, "SELECT id, due_ms, expires_ms FROM message")
    times = await ask(api.url, "SELECT id, expires_ms FROM delivery ORDER BY id")
    answer = await api("PATCH", f"/messages/{said['id']}", {"send_at": "2027-02-01T00:00:00Z"})
    assert (answer.status, answer.json["code"]) == (409, "not_cancellable")
    assert await ask(api.url, "SELECT id, due_ms, expires_ms FROM message") == before
    assert await ask(api.url, "SELECT id, expires_ms FROM delivery ORDER BY id") == times


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"send_at": "2020-01-01T00:00:00Z"}, 422, "schedule_past"),
        ({"send_at": "soon"}, 422, "schedule_date_invalid"),
        ({"send_at": "2027-01-01T00:00:00"}, 422, "schedule_time_invalid"),
        ({}, 400, "malformed"),
        ({"send_at": LATER, "text": "x"}, 400, "malformed"),
    ],
)
async def test_schedule_needs_a_time_to_come(api: Api, body: Any, status: int, code: str) -> None:
    said = await api.send(send_at=LATER)
    answer = await api("PATCH", f"/messages/{said['id']}", body)
    assert (answer.status, answer.json["code"]) == (status, code)


async def five_ends(api: Api) -> Any:
    """A message whose deliveries ended in five ways."""
    said = await api.send(
        *(f"96650123456{digit}" for digit in range(6)), reference="r", metadata={"a": "b"}, valid_for_s=600
    )
    ends = (State.DELIVERED, State.UNDELIVERED, State.EXPIRED, State.FAILED, State.REJECTED)
    for delivery, state in zip(said["deliveries"], ends, strict=False):
        await progress(api.rt, [delivery], state)
    return said


@pytest.mark.parametrize(
    ("body", "digits"),
    [
        (None, "1234"),
        ({}, "1234"),
        ({"only": ["expired"]}, "2"),
        ({"only": ["failed", "rejected"]}, "34"),
    ],
)
async def test_message_is_sent_again_to_those_it_did_not_reach(api: Api, body: Any, digits: str) -> None:
    said = await five_ends(api)
    answer = await api("POST", f"/messages/{said['id']}/resend", body)
    assert answer.status == 201
    again = (await api("GET", f"/messages/{answer.json['id']}")).json
    assert [each["to"] for each in again["deliveries"]] == [f"96650123456{digit}" for digit in digits]
    assert (again["resend_of"], again["reference"], again["metadata"], again["text"]) == (
        said["id"],
        "r",
        {"a": "b"},
        "hello",
    )
    assert again["expires_at"] == "2026-09-21T14:23:20.000Z"
    await api.check_ledger()


async def test_resending_is_repeated_under_its_key_only_once(api: Api) -> None:
    said = await five_ends(api)
    first = await api("POST", f"/messages/{said['id']}/resend", key="k")
    again = await api("POST", f"/messages/{said['id']}/resend", key="k")
    assert (again.status, again.json["id"], again.headers["idempotent-replayed"]) == (201, first.json["id"], "true")
    assert await api.count("message") == 2


async def test_alphabet_stays_when_a_message_is_sent_again(api: Api) -> None:
    for encoding in ("turkish", "unicode", "plain", "auto"):
        said = await api.send(text="şeker", encoding=encoding)
        await progress(api.rt, said["deliveries"], State.FAILED)
        again = (await api("POST", f"/messages/{said['id']}/resend")).json
        rows = await ask(api.url, f"SELECT alphabet, body FROM message WHERE id >= {said['id'][4:]} ORDER BY id")
        assert (rows[0], again["parts"]) == (rows[1], said["parts"]), encoding


@pytest.mark.parametrize(
    ("change", "body", "status", "code"),
    [
        ("", {"only": ["undelivered"]}, 422, "recipient_missing"),
        ("", {"only": ["delivered"]}, 400, "malformed"),
        ("", {"only": []}, 400, "malformed"),
        ("body = '', body_kind = 'erased'", {}, 422, "content_missing"),
        ("body = 'x', body_kind = 'sealed'", {}, 422, "content_missing"),
        ("sender = 'Gone'", {}, 422, "sender_unknown"),
    ],
)
async def test_what_cannot_be_sent_again_is_refused(api: Api, change: str, body: Any, status: int, code: str) -> None:
    said = await api.send()
    await progress(api.rt, said["deliveries"], State.FAILED)
    if change:
        await ask(api.url, f"UPDATE message SET {change} RETURNING id")
    answer = await api("POST", f"/messages/{said['id']}/resend", body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert await api.count("message") == 1


async def test_resending_where_nobody_may_be_written_to_any_more_is_refused(api: Api) -> None:
    said = await api.send(NUMBER, OTHER)
    await progress(api.rt, said["deliveries"], State.FAILED)
    with_directory(api.rt, routes=(replace(api.rt.directory.routes[0], countries=frozenset({"TR"})),))
    answer = await api("POST", f"/messages/{said['id']}/resend")
    assert (answer.status, answer.json["code"]) == (422, "no_route")
    assert (await api.balance())["available"] == "1000"


async def test_own_key_finds_every_message_sent_under_it(api: Api) -> None:
    for key in ("100", "100", "200", ""):
        await accept(api.rt, make_caller(api.rt), make_submission(NUMBER, cancel_key=key))
    async with api.rt.store.read() as tx:
        found = [await messages.find_by_cancel_key(tx, ACCOUNT_ID, "test", key) for key in ("100", "200", "", "x")]
        assert [len(each) for each in found] == [2, 1, 0, 0]
        assert await messages.find_by_cancel_key(tx, ACCOUNT_ID, "live", "100") == []
        assert await messages.find_by_cancel_key(tx, ACCOUNT_ID + 1, "test", "100") == []
    done = await flow_cancel.cancel(api.rt, ACCOUNT_ID, found[0])
    assert (done.cancelled, done.refunded_micros, done.currency) == (2, 100_000, "SAR")
    assert await flow_cancel.cancel(api.rt, ACCOUNT_ID, []) == flow_cancel.Cancelled(0, 0, 0, "")


async def test_cancelled_endpoint_is_told(api: Api) -> None:
    endpoint = Endpoint(50, ACCOUNT_ID, 0, "native", "https://a.example/", "a.example", "", DEFAULT_EVENTS, 1, "on")
    with_directory(api.rt, endpoints={ACCOUNT_ID: [endpoint]}, endpoint_by_id={50: endpoint})
    lane: Lane[Any] = Lane(endpoint.lane, 100)
    api.rt.lanes[endpoint.lane] = lane
    said = await api.send(NUMBER, OTHER)
    await api("DELETE", f"/messages/{said['id']}")
    assert [tell.event for bundle in lane.take(10) for tell in bundle.tells] == ["message.cancelled"] * 2
