"""Callback endpoints: making and changing them, what they are told and how it is signed, the log, and telling again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from berid.base.clock import SystemClock
from berid.base.secret import hash_token
from berid.base.webhook import verify
from berid.config import Config, Net
from berid.dialects.native import dialect
from berid.domain.message import State
from berid.domain.report import DEFAULT_EVENTS
from berid.flow import endpoints as flow_endpoints
from berid.flow.endpoints import secrets_of
from berid.flow.notify import Notifier
from berid.flow.ports import Tell
from berid.net import Outbound
from berid.store import accounts, binds, directory
from tests.dialects.native.conftest import NUMBER, Api, progress, with_directory
from tests.support.builders import ACCOUNT_ID, APPLICATION_ID, SECRET, START_MS
from tests.support.database import ask
from tests.support.receiver import Receiver, Reply

URL = "https://hooks.example.com/berid?x=1"


@pytest.fixture
async def api(api: Api) -> Api:
    """The same, with account and application in the database, where endpoints are made."""
    account, application = api.rt.directory.accounts[ACCOUNT_ID], api.rt.directory.applications[APPLICATION_ID]
    async with api.rt.store.transaction() as tx:
        await accounts.add_account(tx, account, START_MS)
        await accounts.add_application(tx, application, START_MS)
    return api


async def reload(api: Api) -> None:
    """What every process does when the store's version has risen."""
    async with api.rt.store.read() as tx:
        found = await directory.load(tx)
    with_directory(api.rt, version=found.version, endpoints=found.endpoints, endpoint_by_id=found.endpoint_by_id)


async def create(api: Api, **fields: Any) -> Any:
    """Make an endpoint and return what was answered."""
    answer = await api("POST", "/callbacks", {"url": URL} | fields)
    assert answer.status == 201, answer.body
    await reload(api)
    return answer.json


def tell(identifier: int, event: str = "callback.test", **payload: Any) -> Tell:
    """One event on its way."""
    body = msgspec.json.encode({"type": event, "created_ms": START_MS, **payload}).decode()
    return Tell(identifier, 1, ACCOUNT_ID, event, body, START_MS)


async def test_endpoint_is_made_and_shows_its_secret_once(api: Api) -> None:
    made = await create(api, events=["message.sent", "message.delivered"], batch_max=50, description="shop")
    assert made.pop("secret").startswith("whsec_")
    assert made == {
        "id": made["id"],
        "url": URL,
        "kind": "native",
        "events": ["message.delivered", "message.sent"],
        "batch_max": 50,
        "state": "on",
        "application": None,
        "description": "shop",
        "created_at": "2026-09-21T14:13:20.000Z",
    }
    assert (await api("GET", f"/callbacks/{made['id']}")).json == made
    assert (await api("GET", "/callbacks")).json == {"data": [made]}
    assert await ask(api.url, "SELECT value FROM meta WHERE key = 'version'") == [("1",)]
    assert api.rt.directory.endpoints[ACCOUNT_ID][0].host == "hooks.example.com"


async def test_endpoint_wants_every_end_unless_told_otherwise(api: Api) -> None:
    assert (await create(api))["events"] == sorted(DEFAULT_EVENTS)


async def test_endpoint_may_be_for_one_application(api: Api) -> None:
    assert (await create(api, application="app_2"))["application"] == "app_2"
    answer = await api("POST", "/callbacks", {"url": URL, "application": "app_3"})
    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "ftp://a.example/"}, "url"),
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "https://a.example:22/"}, "url"),
        ({"url": "https://user:pass@a.example/"}, "url"),
        ({"url": "https://" + "a" * 3_000}, "url"),
        ({"url": URL, "events": ["message.lost"]}, "events"),
        ({"url": URL, "events": "message.sent"}, "events"),
        ({"url": URL, "batch_max": 0}, "batch_max"),
        ({"url": URL, "batch_max": 501}, "batch_max"),
        ({"url": URL, "description": "x" * 256}, "description"),
        ({"url": URL, "application": "x"}, "application"),
        ({"url": URL, "secret": "mine"}, "secret"),
    ],
)
async def test_unfit_endpoint_is_refused_with_its_field(api: Api, body: Any, field: str) -> None:
    answer = await api("POST", "/callbacks", body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "malformed", field)
    assert await api.count("callback_endpoint") == 0


async def test_endpoint_is_changed_in_what_is_given_only(api: Api) -> None:
    made = await create(api)
    del made["secret"]
    changes = {"url": "https://b.example:8443/", "events": ["message.read"], "batch_max": 5, "state": "off"}
    for name, value in changes.items():
        answer = await api("PATCH", f"/callbacks/{made['id']}", {name: value})
        made[name] = value
        assert (answer.status, answer.json) == (200, made)
    await reload(api)
    endpoint = api.rt.directory.endpoints[ACCOUNT_ID][0]
    assert (endpoint.host, endpoint.state, endpoint.batch_max) == ("b.example:8443", "off", 5)
    assert (await api("PATCH", f"/callbacks/{made['id']}", {})).json == made


@pytest.mark.parametrize(
    "body",
    [
        {"url": "http://10.0.0.1/"},
        {"events": []},
        {"events": ["x"]},
        {"batch_max": 501},
        {"state": "gone"},
        {"kind": "taqnyat"},
    ],
)
async def test_unfit_change_is_refused_and_changes_nothing(api: Api, body: Any) -> None:
    made = await create(api)
    answer = await api("PATCH", f"/callbacks/{made['id']}", body)
    assert (answer.status, answer.json["code"]) == (400, "malformed")
    del made["secret"]
    assert (await api("GET", f"/callbacks/{made['id']}")).json == made


@pytest.mark.parametrize(
    ("kind", "is_sent_told", "is_received_told"), [("native", False, True), ("turkeysms", True, False)]
)
async def test_without_a_wish_an_endpoint_is_told_what_is_usual_for_its_kind(
    api: Api, kind: str, is_sent_told: bool, is_received_told: bool
) -> None:
    events = (await create(api, kind=kind))["events"]
    assert ("message.sent" in events, "message.received" in events) == (is_sent_told, is_received_told)
    assert "message.delivered" in events


async def test_receipts_for_binds_cannot_be_sent_elsewhere(api: Api) -> None:
    async with api.rt.store.transaction() as tx:
        await binds.ensure_endpoint(tx, ACCOUNT_ID, APPLICATION_ID, START_MS)
    path = f"/callbacks/cbe_{APPLICATION_ID}"
    refused = await api("PATCH", path, {"url": "https://hooks.example.com/", "state": "off"})
    assert (refused.status, refused.json["field"]) == (400, "url")
    kept = (await api("PATCH", path, {"state": "off"})).json
    assert (kept["url"], kept["state"]) == (f"smpp://smpp:{APPLICATION_ID}", "off")


async def test_removed_endpoint_is_gone(api: Api) -> None:
    made = await create(api)
    answer = await api("DELETE", f"/callbacks/{made['id']}")
    assert (answer.status, answer.body) == (204, b"")
    assert (await api("GET", f"/callbacks/{made['id']}")).status == 404
    await reload(api)
    assert api.rt.directory.endpoints == {}


async def test_changes_are_in_the_audit_trail_without_secrets(api: Api) -> None:
    made = await create(api)
    await api("PATCH", f"/callbacks/{made['id']}", {"state": "off"})
    rotated = (await api("POST", f"/callbacks/{made['id']}/rotate-secret")).json
    await api("DELETE", f"/callbacks/{made['id']}")
    rows = await ask(api.url, "SELECT actor, action, subject, detail FROM audit ORDER BY id")
    assert [row[1] for row in rows] == [
        "callback.create",
        "callback.change",
        "callback.rotate_secret",
        "callback.remove",
    ]
    assert {(row[0], row[2]) for row in rows} == {("token:3", made["id"])}
    words = str(rows)
    assert made["secret"] not in words
    assert rotated["secret"] not in words
    assert "x=1" not in words


async def test_both_secrets_sign_while_they_overlap(api: Api) -> None:
    made = await create(api)
    answer = await api("POST", f"/callbacks/{made['id']}/rotate-secret", {"overlap_s": 60})
    new = answer.json["secret"]
    assert answer.status == 200
    assert new != made["secret"]
    await reload(api)
    endpoint = api.rt.directory.endpoints[ACCOUNT_ID][0]
    body, headers = dialect.render(api.rt, endpoint, [tell(5)])
    for secret in (new, made["secret"]):
        assert verify([secret], headers, body, START_MS // 1000) == "evt_5"
    await api.clock.advance(60)
    assert secrets_of(api.rt, endpoint) == [new]
    await api("POST", f"/callbacks/{made['id']}/rotate-secret", {"overlap_s": 0})
    await reload(api)
    assert len(secrets_of(api.rt, api.rt.directory.endpoints[ACCOUNT_ID][0])) == 1


async def test_third_secret_ends_the_first(api: Api) -> None:
    made = await create(api)
    second = (await api("POST", f"/callbacks/{made['id']}/rotate-secret")).json["secret"]
    third = (await api("POST", f"/callbacks/{made['id']}/rotate-secret")).json["secret"]
    await reload(api)
    assert secrets_of(api.rt, api.rt.directory.endpoints[ACCOUNT_ID][0]) == [third, second]


@pytest.mark.parametrize("overlap_s", [-1, 604_801, "x", 1e300])
async def test_overlap_has_its_bounds(api: Api, overlap_s: Any) -> None:
    made = await create(api)
    answer = await api("POST", f"/callbacks/{made['id']}/rotate-secret", {"overlap_s": overlap_s})
    assert (answer.status, answer.json["field"]) == (400, "overlap_s")


# ── What is told ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_event_tells_what_was_true_and_nothing_of_ours(api: Api) -> None:
    await create(api)
    said = await api.send(NUMBER, reference="r", metadata={"a": "b"})
    await progress(api.rt, said["deliveries"], State.SENT)
    await progress(api.rt, said["deliveries"], State.DELIVERED)
    identifier, payload = (await ask(api.url, "SELECT id, payload FROM callback"))[0]
    event = Tell(identifier, 1, ACCOUNT_ID, "message.delivered", payload, START_MS)
    body, headers = dialect.render(api.rt, api.rt.directory.endpoints[ACCOUNT_ID][0], [event])
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == f"evt_{identifier}"
    assert msgspec.json.decode(body) == {
        "id": f"evt_{identifier}",
        "type": "message.delivered",
        "created_at": "2026-09-21T14:13:20.000Z",
        "data": {
            "delivery_id": said["deliveries"][0]["id"],
            "message_id": said["id"],
            "channel": "sms",
            "mode": "test",
            "to": NUMBER,
            "sender": "Berid",
            "state": "delivered",
            "reason": "",
            "units": 1,
            "reference": "r",
            "accepted_at": "2026-09-21T14:13:20.000Z",
            "sent_at": None,
            "metadata": {"a": "b"},
        },
    }


async def test_batch_comes_as_a_list_under_an_id_of_its_own(api: Api) -> None:
    made = await create(api, batch_max=10)
    endpoint = api.rt.directory.endpoints[ACCOUNT_ID][0]
    for tells in ([tell(5)], [tell(5), tell(6)]):
        body, headers = dialect.render(api.rt, endpoint, tells)
        said = msgspec.json.decode(body)
        assert [each["id"] for each in said["events"]] == [f"evt_{each.callback_id}" for each in tells]
        assert said["id"] == verify([made["secret"]], headers, body, START_MS // 1000)
    again = dialect.render(api.rt, endpoint, [tell(5), tell(6)])[1]
    assert again["webhook-id"] == said["id"]
    assert dialect.render(api.rt, endpoint, [tell(6), tell(7)])[1]["webhook-id"] != said["id"]


@pytest.mark.parametrize(
    ("status", "is_told"), [(200, True), (204, True), (299, True), (199, False), (301, False), (500, False)]
)
async def test_any_success_counts_as_received(api: Api, status: int, is_told: bool) -> None:
    await create(api)
    assert dialect.is_told(api.rt, api.rt.directory.endpoints[ACCOUNT_ID][0], status, b"") is is_told


# ── The log, and telling again ─────────────────────────────────────────────────────────────────────────────────────────


async def five_events(api: Api) -> tuple[Any, list[int]]:
    """An endpoint and five events of it: told, failed, pending, told, failed; a second apart."""
    made = await create(api)
    said = await api.send(*[NUMBER] * 5)
    for delivery in said["deliveries"]:
        await progress(api.rt, [delivery], State.SENT)
        await progress(api.rt, [delivery], State.DELIVERED)
        await api.clock.advance(1)
    ids = [row[0] for row in await ask(api.url, "SELECT id FROM callback ORDER BY id")]
    assert len(ids) == 5
    for told in (ids[0], ids[3]):
        await ask(api.url, f"DELETE FROM job WHERE id = {told} RETURNING id")
    for failed in (ids[1], ids[4]):
        await ask(api.url, f"UPDATE job SET buried_ms = 5, attempts = 10, why = 'x' WHERE id = {failed} RETURNING id")
    return made, ids


async def test_log_shows_every_event_with_its_tries(api: Api) -> None:
    made, ids = await five_events(api)
    await ask(
        api.url,
        "INSERT INTO callback_try (callback_id, id, at_ms, status, error, elapsed_ms) VALUES "
        f"({ids[1]}, 1, {START_MS}, 500, 'answered 500', 7), ({ids[1]}, 2, {START_MS + 5}, 0, 'timed out', 9) RETURNING id",
    )
    said = (await api("GET", f"/callbacks/{made['id']}/events")).json
    assert [each["id"] for each in said["data"]] == [f"evt_{each}" for each in reversed(ids)]
    assert [each["state"] for each in said["data"]] == ["failed", "told", "pending", "failed", "told"]
    assert [(each["status"], each["error"], each["ms"]) for each in said["data"][3]["tries"]] == [
        (500, "answered 500", 7),
        (0, "timed out", 9),
    ]
    assert said["data"][2]["next_try_at"] == "2026-09-21T14:13:22.000Z"
    assert said["next"] is None
    failed = (await api("GET", f"/callbacks/{made['id']}/events?state=failed&limit=1")).json
    assert [each["id"] for each in failed["data"]] == [f"evt_{ids[4]}"]
    rest = (await api("GET", f"/callbacks/{made['id']}/events?state=failed&cursor={failed['next']}")).json
    assert ([each["id"] for each in rest["data"]], rest["next"]) == ([f"evt_{ids[1]}"], None)


async def jobs(api: Api) -> dict[int, tuple[int, int, int]]:
    """(due, attempts, buried) of the callbacks' jobs."""
    rows = await ask(api.url, "SELECT id, due_ms, attempts, buried_ms FROM job WHERE kind = 'callback'")
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_event_is_told_again_whatever_became_of_it(api: Api, place: int) -> None:
    made, ids = await five_events(api)
    answer = await api("POST", f"/callbacks/{made['id']}/events/evt_{ids[place]}/replay")
    assert (answer.status, answer.json) == (202, {"replayed": 1, "next_from": None})
    assert (await jobs(api))[ids[place]] == (api.clock.now_ms(), 0, 0)


async def test_event_that_is_being_told_is_left_alone(api: Api) -> None:
    made, ids = await five_events(api)
    await ask(api.url, f"UPDATE job SET lease_until_ms = 9 WHERE id = {ids[2]} RETURNING id")
    before = (await jobs(api))[ids[2]]
    answer = await api("POST", f"/callbacks/{made['id']}/events/evt_{ids[2]}/replay")
    assert (answer.status, answer.json["replayed"]) == (202, 0)
    assert (await jobs(api))[ids[2]] == before


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"from": START_MS, "to": START_MS + 10_000}, [1, 4]),
        ({"from": START_MS, "to": START_MS + 4_000}, [1]),
        ({"from": START_MS + 2_000, "to": START_MS + 5_000}, [4]),
        ({"from": START_MS, "to": START_MS + 10_000, "failed_only": False}, [0, 1, 2, 3, 4]),
        ({"from": "2026-09-21T14:13:20Z", "to": "2026-09-21T14:13:21Z", "failed_only": False}, [0]),
        ({"from": START_MS + 9_000, "to": START_MS}, []),
    ],
)
async def test_events_of_a_time_are_told_again(api: Api, body: Any, places: list[int]) -> None:
    made, ids = await five_events(api)
    pending = {ids[2]}
    answer = await api("POST", f"/callbacks/{made['id']}/replay", body)
    assert (answer.status, answer.json) == (202, {"replayed": len(places), "next_from": None})
    waiting = {identifier for identifier, job in (await jobs(api)).items() if not job[2]}
    assert waiting == {ids[place] for place in places} | pending


async def test_long_replay_says_where_to_go_on(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_endpoints, "REPLAY_MAX", 2)
    made, _ = await five_events(api)
    body = {"from": START_MS, "to": START_MS + 10_000, "failed_only": False}
    answer = await api("POST", f"/callbacks/{made['id']}/replay", body)
    assert answer.json == {"replayed": 2, "next_from": "2026-09-21T14:13:22.000Z"}


@pytest.mark.parametrize("body", [{}, {"from": 1}, {"from": "x", "to": 2}, {"from": 1, "to": 2, "all": True}])
async def test_replay_needs_its_bounds(api: Api, body: Any) -> None:
    made = await create(api)
    answer = await api("POST", f"/callbacks/{made['id']}/replay", body)
    assert 400 <= answer.status < 500


async def test_endpoints_of_others_are_not_found(api: Api) -> None:
    made, ids = await five_events(api)
    current = api.rt.directory
    token = current.tokens[hash_token(SECRET)]
    theirs = replace(token, account_id=70, application_id=71, hash=hash_token("bt_theirs"))
    with_directory(
        api.rt,
        accounts={**current.accounts, 70: replace(current.accounts[ACCOUNT_ID], id=70)},
        applications={**current.applications, 71: replace(current.applications[2], id=71, account_id=70)},
        tokens={token.hash: token, theirs.hash: theirs},
    )
    span = {"from": START_MS, "to": START_MS + 9_000}
    assert (await api("GET", "/callbacks", token="bt_theirs")).json == {"data": []}
    for token_text, identifier in (("bt_theirs", made["id"]), (SECRET, "cbe_5"), (SECRET, "evt_5")):
        for method, path, body in [
            ("GET", "", None),
            ("PATCH", "", {"state": "off"}),
            ("DELETE", "", None),
            ("POST", "/rotate-secret", {}),
            ("GET", "/events", None),
            ("POST", f"/events/evt_{ids[0]}/replay", None),
            ("POST", "/replay", span),
            ("POST", "/test", None),
        ]:
            answer = await api(method, f"/callbacks/{identifier}{path}", body, token=token_text)
            assert (answer.status, answer.json["code"]) == (404, "not_found"), path
    assert (await api("POST", f"/callbacks/{made['id']}/events/evt_5/replay")).status == 404
    assert len(await ask(api.url, "SELECT id FROM callback_endpoint WHERE state = 'on'")) == 1


# ── The whole way ──────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def told(api: Api) -> AsyncIterator[None]:
    """Callbacks are really told, to this machine too."""
    loopback = (ip_network("127.0.0.0/8"),)
    api.rt.clock = SystemClock()
    api.rt.config = Config(net=Net(allowed_networks=loopback))
    api.rt.http, before = Outbound(allowed_networks=loopback), api.rt.http
    notifier = Notifier(api.rt)
    task = asyncio.create_task(notifier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await notifier.drain()
        await api.rt.http.close()
        api.rt.http = before


async def test_test_event_goes_the_ordinary_way_and_is_told_again_on_request(api: Api) -> None:
    async with Receiver() as receiver, told(api):
        made = await create(api, url=receiver.url(), events=["message.read"])
        receiver.next(Reply(204))
        answer = await api("POST", f"/callbacks/{made['id']}/test")
        assert answer.status == 202
        event = answer.json["event"]
        first = (await receiver.wait_for(1))[0]
        assert first.headers["webhook-id"] == event
        assert verify([made["secret"]], first.headers, first.body, api.rt.clock.now_ms() // 1000) == event
        said = msgspec.json.decode(first.body)
        assert (said["id"], said["type"], said["data"]) == (event, "callback.test", {"mode": "test"})
        log = await wait_for_state(api, made["id"], "told")
        assert [(each["status"], each["error"]) for each in log["tries"]] == [(204, "")]
        await api("POST", f"/callbacks/{made['id']}/events/{event}/replay")
        again = (await receiver.wait_for(2))[1]
        assert (again.body, again.headers["webhook-id"]) == (first.body, event)


async def wait_for_state(api: Api, identifier: str, state: str) -> Any:
    """The newest event of an endpoint once it is in this state."""
    for _ in range(200):
        newest = (await api("GET", f"/callbacks/{identifier}/events")).json["data"][0]
        if newest["state"] == state:
            return newest
        await asyncio.sleep(0.01)
    raise AssertionError(f"the event is {newest['state']}")
