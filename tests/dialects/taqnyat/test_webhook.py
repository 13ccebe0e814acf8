"""The delivery webhook: what is written, when it counts as received, how often it is tried."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network

import msgspec
import pytest

from berid.base.webhook import new_secret
from berid.config import Config, Net
from berid.dialects.taqnyat import dialect, webhook
from berid.domain.account import Rules
from berid.domain.message import State
from berid.domain.report import DEFAULT_EVENTS, EVENT_OF_STATE, INBOUND_EVENT, Endpoint
from berid.flow import manage
from berid.flow.endpoints import secrets_of
from berid.flow.manage import Office
from berid.flow.manage.callbacks import SECRET_PURPOSE
from berid.flow.manage.people import digest_phrase
from berid.flow.notify import Notifier, pauses_s
from berid.flow.ports import Tell
from berid.net import Outbound
from berid.store import directory
from tests.dialects.taqnyat.conftest import World
from tests.support.receiver import Receiver, Reply

PHRASE = "فتح open-sesame"
SECRET = new_secret()
PLANNED = msgspec.json.encode(
    {
        "recipients": [966500000000],
        "body": "Hello",
        "sender": "Acme",
        "scheduled": "2026-10-01T10:00",
        "deleteId": "x",
        "smsId": "25489",
    }
)


def endpoint_of(world: World, url: str = "https://shop.example/hook", *, batch_max: int = 1) -> Endpoint:
    account_id = world.account_ids["shop"]
    return Endpoint(
        id=77,
        account_id=account_id,
        application_id=account_id + 1,
        kind="taqnyat",
        url=url,
        host=url.split("/")[2],
        sealed_secret=world.rt.vault.seal(SECRET, SECRET_PURPOSE),
        events=frozenset(EVENT_OF_STATE.values()),
        batch_max=batch_max,
        state="on",
    )


def give_phrase(world: World, phrase: str) -> None:
    directory = world.rt.directory
    application = directory.applications[world.account_ids["shop"] + 1]
    changed = replace(application, rules=Rules(pass_phrase=phrase and digest_phrase(world.rt.vault, phrase)))
    world.rt.directory = replace(directory, applications={**directory.applications, application.id: changed})


def tell_of(state: State, **data: object) -> Tell:
    payload = {
        "type": EVENT_OF_STATE.get(state, "message.queued"),
        "message_id": "msg_5452899970",
        "state": state.value,
        "to": "966500000000",
        "sender": "Acme",
        "reference": "25489",
        "total": 1,
        **data,
    }
    return Tell(9, 77, 1, "event", msgspec.json.encode(payload).decode(), 0)


@pytest.mark.parametrize("state", list(State))
async def test_every_state_has_a_word(world: World, state: State) -> None:
    body, headers = dialect.render(world.rt, endpoint_of(world), [tell_of(state)])
    assert msgspec.json.decode(body) == {
        "messageId": 5452899970,
        "status": webhook.STATUS[state],
        "recipient": "966500000000",
        "sender": "Acme",
        "smsId": "25489",
    }
    assert headers["content-type"] == "application/json"


async def test_several_events_in_one_call_are_a_list(world: World) -> None:
    body, _ = dialect.render(world.rt, endpoint_of(world, batch_max=9), [tell_of(State.SENT), tell_of(State.DELIVERED)])
    assert [each["status"] for each in msgspec.json.decode(body)] == ["sent", "delivered"]


async def test_message_from_a_person_is_told_in_its_own_shape(world: World) -> None:
    payload = {"type": INBOUND_EVENT, "from": "966500000000", "to": "701234", "text": "STOP", "keyword": "stop"}
    tell = Tell(9, 77, 1, INBOUND_EVENT, msgspec.json.encode(payload).decode(), 0)
    body, _ = dialect.render(world.rt, endpoint_of(world), [tell])
    assert msgspec.json.decode(body) == {
        "event": INBOUND_EVENT,
        "from": "966500000000",
        "recipient": "701234",
        "body": "STOP",
    }


@pytest.mark.parametrize(
    ("phrase", "status", "answer", "is_told"),
    [
        (PHRASE, 200, PHRASE.encode(), True),
        (PHRASE, 200, b"\n " + PHRASE.encode() + b"\r\n", True),
        (PHRASE, 201, PHRASE.encode(), True),
        (PHRASE, 200, b"", False),
        (PHRASE, 200, b"OK", False),
        (PHRASE, 200, PHRASE.encode() + b"!", False),
        (PHRASE, 500, PHRASE.encode(), False),
        (PHRASE, 302, PHRASE.encode(), False),
        ("", 200, b"", True),
        ("", 204, b"anything", True),
        ("", 302, b"", False),
        ("", 500, b"", False),
    ],
)
async def test_only_the_pass_phrase_means_received(
    world: World, phrase: str, status: int, answer: bytes, is_told: bool
) -> None:
    give_phrase(world, phrase)
    assert dialect.is_told(world.rt, endpoint_of(world), status, answer) is is_told


async def test_endpoint_of_the_whole_account_takes_the_accounts_phrase(world: World) -> None:
    directory = world.rt.directory
    account = directory.accounts[world.account_ids["shop"]]
    changed = replace(account, rules=Rules(pass_phrase=digest_phrase(world.rt.vault, PHRASE)))
    world.rt.directory = replace(directory, accounts={**directory.accounts, account.id: changed})
    endpoint = replace(endpoint_of(world), application_id=0)
    assert dialect.is_told(world.rt, endpoint, 200, PHRASE.encode())
    assert not dialect.is_told(world.rt, endpoint, 200, b"OK")


async def test_other_endpoints_keep_the_configured_schedule(world: World) -> None:
    endpoint = endpoint_of(world)
    native = replace(endpoint, id=78, kind="native")
    world.rt.directory = replace(world.rt.directory, endpoint_by_id={77: endpoint, 78: native})
    assert pauses_s(world.rt, 77) == webhook.PAUSES_S
    assert pauses_s(world.rt, 78) == world.rt.config.net.callback_schedule_s
    assert pauses_s(world.rt, 79) == world.rt.config.net.callback_schedule_s


async def test_webhook_follows_the_rules(world: World) -> None:
    office = Office.of(world.rt)
    account_id = await manage.create_account(office, "t", name="Acme", home="SA")
    application_id = await manage.create_application(office, "t", account_id, "shop", ["sms"])

    async def webhooks() -> list[tuple[int, str, str, str, str]]:
        async with world.rt.store.read() as tx:
            found = (await directory.load(tx)).endpoints.get(account_id, ())
        assert all(each.events == DEFAULT_EVENTS - {INBOUND_EVENT} and each.batch_max == 1 for each in found)
        assert all(secrets_of(world.rt, each)[0].startswith("whsec_") for each in found)
        return [(each.application_id, each.kind, each.url, each.host, each.state) for each in found]

    async def rule(url: str) -> None:
        await manage.set_application_rules(office, "t", account_id, application_id, Rules(webhook_url=url))

    assert await webhooks() == []
    await rule("")
    assert await webhooks() == []
    await rule("https://Shop.example/hook")
    assert await webhooks() == [(application_id, "taqnyat", "https://Shop.example/hook", "shop.example", "on")]
    await rule("https://other.example:8443/hook")
    there = (application_id, "taqnyat", "https://other.example:8443/hook", "other.example:8443")
    assert await webhooks() == [(*there, "on")]
    await rule("")
    assert await webhooks() == [(*there, "off")]
    await rule("https://other.example:8443/hook")
    assert await webhooks() == [(*there, "on")]


async def test_accounts_webhook_is_for_all_its_applications(world: World) -> None:
    office = Office.of(world.rt)
    rules = Rules(webhook_url="https://shop.example/all")
    account_id = await manage.create_account(office, "t", name="Acme", home="SA", rules=rules)
    own = Rules(webhook_url="https://shop.example/one")
    application_id = await manage.create_application(office, "t", account_id, "shop", ["sms"], own)
    async with world.rt.store.read() as tx:
        found = (await directory.load(tx)).endpoints[account_id]
    assert {(each.application_id, each.url) for each in found} == {
        (0, "https://shop.example/all"),
        (application_id, "https://shop.example/one"),
    }
    await manage.set_account_rules(office, "t", account_id, Rules())
    async with world.rt.store.read() as tx:
        found = (await directory.load(tx)).endpoints[account_id]
    assert {each.application_id: each.state for each in found} == {0: "off", application_id: "on"}


@asynccontextmanager
async def telling(world: World, receiver: Receiver) -> AsyncIterator[None]:
    """Callbacks are told to this machine, and a message has just been deleted."""
    loopback = (ip_network("127.0.0.0/8"),)
    rt = world.rt
    rt.config = Config(net=Net(allowed_networks=loopback))
    before, rt.http = rt.http, Outbound(allowed_networks=loopback)
    endpoint = endpoint_of(world, receiver.url())
    rt.directory = replace(rt.directory, endpoints={endpoint.account_id: (endpoint,)}, endpoint_by_id={77: endpoint})
    await world.call("POST", "/v1/messages", PLANNED)
    await world.call("DELETE", "/v1/messages/delete?deleteId=x")
    notifier = Notifier(rt)
    task = asyncio.create_task(notifier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await notifier.drain()
        await rt.http.close()
        rt.http = before


STEP_S = 0.25


async def arrives(world: World, receiver: Receiver, count: int) -> None:
    """Let time pass, a little at a time, until so many calls have come; then wait, without time passing, until the last one's
    end is on record."""
    async with asyncio.timeout(20):
        while receiver.count < count:
            await world.clock.advance(STEP_S)
            await asyncio.sleep(0.002)
        while (await world.ask("SELECT count(*) FROM callback_try"))[0][0] < count:
            await asyncio.sleep(0.01)


async def stays_silent(world: World, receiver: Receiver, seconds: float) -> None:
    """Let time pass, and nothing comes."""
    count = receiver.count
    for _ in range(10):
        await world.clock.advance(seconds / 10)
        await asyncio.sleep(0.01)
    assert receiver.count == count


async def test_receiver_hears_of_it_once_and_answers_with_the_phrase(world: World) -> None:
    give_phrase(world, PHRASE)
    async with Receiver(secrets=[SECRET], now_s=lambda: world.clock.now_ms() // 1000) as receiver:
        receiver.always(Reply(200, PHRASE.encode()))
        async with telling(world, receiver):
            await arrives(world, receiver, 1)
            await stays_silent(world, receiver, 600)
        request = receiver.requests[0]
        assert request.problem == ""
        body = msgspec.json.decode(request.body)
        assert (body["status"], body["recipient"], body["smsId"]) == ("deleted", "966500000000", "25489")
        assert await world.ask("SELECT id FROM message") == [(body["messageId"],)]
        assert await world.ask("SELECT status, error FROM callback_try") == [(200, "")]


async def test_receiver_that_does_not_know_the_phrase_is_tried_three_times(world: World) -> None:
    give_phrase(world, PHRASE)
    async with Receiver() as receiver:
        receiver.always(Reply(200, b"OK"))
        async with telling(world, receiver):
            for count, pause_s in ((1, 30), (2, 120)):
                await arrives(world, receiver, count)
                [(due_ms,)] = await world.ask("SELECT due_ms FROM job WHERE kind = 'callback'")
                waits_s = (due_ms - world.clock.now_ms()) / 1000
                assert pause_s - STEP_S <= waits_s <= pause_s
                await stays_silent(world, receiver, pause_s - 1)
            await arrives(world, receiver, 3)
            await stays_silent(world, receiver, 1_000)
        assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
        [(buried_ms,)] = await world.ask("SELECT buried_ms FROM job WHERE kind = 'callback'")
        assert buried_ms > 0
