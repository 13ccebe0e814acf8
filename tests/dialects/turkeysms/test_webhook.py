"""What V4's webhooks say, how they are signed, and who is told of a verified code."""

import hashlib
import hmac
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from berid.dialects.turkeysms import dialect, webhook
from berid.domain.message import State
from berid.domain.otp import Verdict
from berid.domain.report import EVENT_OF_STATE, INBOUND_EVENT, Endpoint
from berid.flow.manage.callbacks import SECRET_PURPOSE
from berid.flow.otp import check_code
from berid.flow.ports import Tell
from berid.store.hot import StoreAway
from tests.dialects.turkeysms.conftest import NUMBER, World
from tests.support.builders import START_MS

SECRET = "whsec_c2VjcmV0IG9mIHRoaXMgZW5kcG9pbnQu"
OLD_SECRET = "whsec_dGhlIHNlY3JldCBvZiBiZWZvcmUuLi4u"


def endpoint_of(world: World, **changes: Any) -> Endpoint:
    """An endpoint of the account `shop`, known to the directory."""
    given = {
        "id": 77,
        "account_id": world.account_ids["shop"],
        "application_id": 0,
        "kind": "turkeysms",
        "url": "https://shop.example/hook",
        "host": "shop.example",
        "sealed_secret": world.rt.vault.seal(SECRET, SECRET_PURPOSE),
        "events": frozenset(EVENT_OF_STATE.values()),
        "batch_max": 1,
        "state": "on",
    }
    endpoint = Endpoint(**(given | changes))
    world.rt.directory = replace(
        world.rt.directory,
        endpoints={endpoint.account_id: (endpoint,)},
        endpoint_by_id={endpoint.id: endpoint},
    )
    return endpoint


async def tells_of(world: World) -> list[Tell]:
    """The callbacks that are written, as they would be told."""
    rows = await world.ask("SELECT id, endpoint_id, account_id, event, payload, created_ms FROM callback ORDER BY id")
    return [Tell(*row) for row in rows]


@pytest.mark.parametrize(
    ("states", "event", "status"),
    [
        ((State.SENT,), "sms.sent", "sent"),
        ((State.SENT, State.DELIVERED), "sms.delivered", "delivered"),
        ((State.SENT, State.DELIVERED, State.READ), "sms.delivered", "read"),
        ((State.SENT, State.UNDELIVERED), "sms.failed", "undelivered"),
        ((State.SENT, State.EXPIRED), "sms.failed", "expired"),
        ((State.REJECTED,), "sms.failed", "rejected"),
        ((State.FAILED,), "sms.failed", "failed"),
        ((State.CANCELLED,), "sms.failed", "cancelled"),
        ((State.UNCERTAIN,), "sms.uncertain", "uncertain"),
        ((State.HELD,), "sms.held", "held"),
    ],
)
async def test_every_state_has_its_event(world: World, states: tuple[State, ...], event: str, status: str) -> None:
    endpoint = endpoint_of(world)
    sent = await world.send()
    await world.change(sent["sms_id"], *states)
    body, _ = dialect.render(world.rt, endpoint, [(await tells_of(world))[-1]])
    ((message_id,),) = await world.ask("SELECT id FROM message")
    assert msgspec.json.decode(body) == {
        "event_type": event,
        "timestamp": START_MS // 1000,
        "data": {
            "sms_id": sent["sms_id"],
            "status": status,
            "reason": "",
            "rapor_id": message_id,
            "mobile": NUMBER,
            "title": "ACME",
            "number_of_sms": 1,
        },
    }


def test_no_event_is_without_a_name() -> None:
    assert set(webhook.EVENTS) >= {*EVENT_OF_STATE.values(), INBOUND_EVENT, "callback.test", "otp.verified"}


async def test_calls_are_signed_over_their_body(world: World) -> None:
    endpoint = endpoint_of(world)
    await world.clock.advance(90)
    tell = Tell(
        5, endpoint.id, endpoint.account_id, "callback.test", '{"type":"callback.test","mode":"live"}', START_MS
    )
    body, headers = dialect.render(world.rt, endpoint, [tell])
    assert msgspec.json.decode(body) == {
        "event_type": "key.test",
        "timestamp": START_MS // 1000,
        "data": {"status": "ok", "mode": "live"},
    }
    assert headers == {
        "content-type": "application/json",
        "x-turkeysms-signature": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        "x-turkeysms-timestamp": str(START_MS // 1000 + 90),
        "x-berid-event": "evt_5",
    }


async def test_old_secret_signs_beside_the_new_one_until_it_ends(world: World) -> None:
    both = f"{SECRET} {OLD_SECRET}@{START_MS + 60_000}"
    endpoint = endpoint_of(world, sealed_secret=world.rt.vault.seal(both, SECRET_PURPOSE))
    tell = Tell(5, endpoint.id, endpoint.account_id, "callback.test", "{}", START_MS)
    body, headers = dialect.render(world.rt, endpoint, [tell])
    expected = "sha256=" + hmac.new(OLD_SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-turkeysms-signature-previous"] == expected
    await world.clock.advance(60)
    assert "x-turkeysms-signature-previous" not in dialect.render(world.rt, endpoint, [tell])[1]


async def test_several_events_are_a_list(world: World) -> None:
    endpoint = endpoint_of(world, batch_max=10)
    tells = [Tell(5 + n, endpoint.id, endpoint.account_id, "callback.test", "{}", START_MS) for n in range(3)]
    assert len(msgspec.json.decode(dialect.render(world.rt, endpoint, tells)[0])) == 3


async def test_message_from_a_person_is_told(world: World) -> None:
    endpoint = endpoint_of(world)
    payload = '{"type":"message.received","from":"905321234567","to":"8507013986","text":"RET"}'
    tell = Tell(5, endpoint.id, endpoint.account_id, INBOUND_EVENT, payload, START_MS)
    assert msgspec.json.decode(dialect.render(world.rt, endpoint, [tell])[0])["data"] == {
        "mobile": NUMBER,
        "sentto": "8507013986",
        "text": "RET",
        "status": "received",
    }


@pytest.mark.parametrize(("status", "is_told"), [(200, True), (204, True), (199, False), (302, False), (500, False)])
async def test_any_answer_of_success_is_received(world: World, status: int, is_told: bool) -> None:
    assert dialect.is_told(world.rt, endpoint_of(world), status, b"") is is_told


@pytest.mark.parametrize(
    ("changes", "is_told"),
    [
        ({}, True),
        ({"events": frozenset()}, True),
        ({"kind": "native"}, False),
        ({"state": "off"}, False),
        ({"application_id": 5}, False),
    ],
)
async def test_verified_code_is_told_once(world_on_each: World, changes: dict[str, Any], is_told: bool) -> None:
    world = world_on_each
    endpoint = endpoint_of(world, **{"events": frozenset(("message.failed",)), **changes})
    code = (await world.v4("/otp/send", mobile=NUMBER))["otp_code"]
    await world.v4("/otp/verify", mobile=NUMBER, otp_code="0000")
    for _ in range(2):
        await world.v4("/otp/verify", mobile=NUMBER, otp_code=code)
    tells = await tells_of(world)
    assert [tell.event for tell in tells] == ["otp.verified"] * is_told
    if is_told:
        assert code not in tells[0].payload
        told = msgspec.json.decode(dialect.render(world.rt, endpoint, tells)[0])
        assert told["event_type"] == "otp.verified"
        assert (told["data"]["mobile"], told["data"]["status"]) == (NUMBER, "verified")
        assert set(told["data"]) == {"sms_id", "status", "rapor_id", "mobile", "otp_id"}
        jobs = await world.ask("SELECT count(*) FROM job WHERE kind = 'callback'")
        assert jobs == [(1,)]


async def test_code_verified_at_another_door_is_told_too(world: World) -> None:
    endpoint_of(world)
    code = (await world.v4("/otp/send", mobile=NUMBER))["otp_code"]
    assert (await check_code(world.rt, world.native_caller("shop"), code, number=NUMBER)).verdict is Verdict.VERIFIED
    assert [tell.event for tell in await tells_of(world)] == ["otp.verified"]


async def test_guess_that_the_store_did_not_take_uses_nothing_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint_of(world)
    code = (await world.v4("/otp/send", mobile=NUMBER))["otp_code"]

    async def away(*_: Any) -> None:
        raise StoreAway("gone")

    with monkeypatch.context() as patched:
        patched.setattr("berid.store.callbacks.add_callback", away)
        assert (await world.v4("/otp/verify", status=503, mobile=NUMBER, otp_code=code))["result_code"] == "TS-1060"
    assert (await world.v4("/otp/verify", mobile=NUMBER, otp_code=code))["verified"] is True
    assert len(await tells_of(world)) == 1
