"""What customers are told over their binds: receipts as they asked for them, and what people wrote to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, select

from berid.base.ids import first_id_at
from berid.base.text import decode
from berid.dialects.smpp import outlet
from berid.dialects.smpp.server import give_up
from berid.dialects.smpp.told import render, wants
from berid.domain.message import State
from berid.domain.report import DEFAULT_EVENTS, EVENT_OF_STATE
from berid.flow import notify
from berid.flow.inbound import InboundSms, receive
from berid.flow.ports import Tell
from berid.store import Store, binds, open_store, tables
from berid.wire.smpp.codes import CommandStatus, EsmClass, MessageState, Tag
from berid.wire.smpp.pdu import Address, BindTransceiver, DeliverSm, SubmitMulti, SubmitSm, get_text, get_uint
from berid.wire.smpp.receipt import is_receipt, parse
from tests.dialects.smpp.esme import Esme
from tests.dialects.smpp.world import LOGIN, PASSWORD, Customer, RushClock, make_login, with_endpoints, with_logins
from tests.support.builders import ACCOUNT_ID, APPLICATION_ID, CONNECTOR_ID, SENDER, FakeClock
from tests.support.database import ask

S = CommandStatus
Serve = Callable[..., Awaitable[Customer]]
NUMBER = "966501234567"
ACCEPTED_MS = 1_795_000_000_000
OTHER_APPLICATION = 22


def submit(registered: int = 1, **changes: Any) -> SubmitSm:
    given = {
        "source_addr": SENDER,
        "dest_addr_ton": 1,
        "destination_addr": NUMBER,
        "short_message": b"hello",
        "registered_delivery": registered,
    }
    return SubmitSm(**(given | changes))


def tell(state: State, options: dict[str, str], reason: str = "", **changes: Any) -> Tell:
    data = {
        "type": EVENT_OF_STATE[state],
        "delivery_id": "dlv_224",
        "message_id": "msg_192",
        "to": NUMBER,
        "sender": SENDER,
        "state": state.value,
        "reason": reason,
        "accepted_ms": ACCEPTED_MS,
    }
    if options:
        data["options"] = options
    return Tell(1, APPLICATION_ID, ACCOUNT_ID, EVENT_OF_STATE[state], json.dumps(data | changes), ACCEPTED_MS + 60_000)


# Which


@pytest.mark.parametrize(
    ("registered", "wanted"),
    [
        (0x00, set()),
        (0x01, {"delivered", "read", "undelivered", "expired", "rejected", "failed", "cancelled"}),
        (0x02, {"undelivered", "expired", "rejected", "failed", "cancelled"}),
        (0x03, {"delivered", "read"}),
        (0x10, {"scheduled", "held", "queued", "sending", "uncertain", "sent"}),
        (0x12, {"scheduled", "held", "queued", "sending", "uncertain", "sent"}
         | {"undelivered", "expired", "rejected", "failed", "cancelled"}),
    ],
)  # fmt: skip
def test_customer_is_told_what_he_asked_for(registered: int, wanted: set[str]) -> None:
    assert {state.value for state in State if wants(registered, state)} == wanted


@pytest.mark.parametrize("options", [{}, {"rd": "2"}])
def test_receipt_that_was_not_asked_for_is_none(options: dict[str, str]) -> None:
    assert render(tell(State.DELIVERED, options)) is None


def test_event_that_is_about_no_message_is_none() -> None:
    assert render(Tell(1, 2, 3, "callback.test", "{}", 0)) is None


# What


@pytest.mark.parametrize(
    ("state", "reason", "stat", "number", "code"),
    [
        (State.DELIVERED, "", "DELIVRD", MessageState.DELIVERED, 0),
        (State.READ, "", "DELIVRD", MessageState.DELIVERED, 0),
        (State.UNDELIVERED, "034", "UNDELIV", MessageState.UNDELIVERABLE, 34),
        (State.UNDELIVERED, "UNDELIV", "UNDELIV", MessageState.UNDELIVERABLE, 0),
        (State.EXPIRED, "no_receipt", "EXPIRED", MessageState.EXPIRED, 0),
        (State.REJECTED, "8", "REJECTD", MessageState.REJECTED, 8),
        (State.FAILED, "uncertain", "UNDELIV", MessageState.UNDELIVERABLE, 0),
        (State.CANCELLED, "", "DELETED", MessageState.DELETED, 0),
    ],
)
def test_receipt_says_it_in_text_and_in_parameters(
    state: State, reason: str, stat: str, number: MessageState, code: int
) -> None:
    pdu = render(tell(state, {"rd": "1"}, reason))
    assert pdu is not None
    assert (pdu.source_addr, pdu.source_addr_ton, pdu.source_addr_npi) == (NUMBER, 1, 1)
    assert (pdu.destination_addr, pdu.dest_addr_ton, pdu.dest_addr_npi) == (SENDER, 5, 0)
    assert pdu.esm_class == EsmClass.TYPE_RECEIPT
    assert pdu.short_message.decode() == (
        f"id:224 sub:001 dlvrd:{int(stat == 'DELIVRD'):03d} submit date:2611181106 done date:2611181107 "
        f"stat:{stat} err:{code:03d} text:"
    )
    read = parse(pdu)
    assert is_receipt(pdu)
    assert (read.message_id, read.state, read.is_final) == ("224", number, True)
    assert get_text(pdu.tlvs, Tag.RECEIPTED_MESSAGE_ID) == "224"
    assert get_uint(pdu.tlvs, Tag.MESSAGE_STATE) == number
    assert (Tag.NETWORK_ERROR_CODE in pdu.tlvs) == bool(code)


def test_receipt_carries_the_customers_own_reference() -> None:
    pdu = render(tell(State.DELIVERED, {"rd": "1", "ref": "513"}))
    assert pdu is not None
    assert get_uint(pdu.tlvs, Tag.USER_MESSAGE_REFERENCE) == 513


def test_receipt_of_a_submit_multi_has_the_id_of_the_whole_message() -> None:
    pdu = render(tell(State.DELIVERED, {"rd": "1", "multi": "1"}))
    assert pdu is not None
    assert parse(pdu).message_id == "192"


def test_intermediate_notification_says_that_it_is_one() -> None:
    pdu = render(tell(State.SENT, {"rd": "17"}))
    assert pdu is not None
    assert pdu.esm_class == EsmClass.TYPE_INTERMEDIATE
    assert (parse(pdu).state, parse(pdu).is_final) == (MessageState.ENROUTE, False)


@pytest.mark.parametrize(
    ("text", "coding", "is_payload"),
    [
        ("hello @ €", 0, False),
        ("x" * 254, 0, False),
        ("x" * 255, 0, True),
        ("€" * 127, 0, False),
        ("€" * 128, 0, True),
        ("مرحبا 👍", 8, False),
        ("م" * 127, 8, False),
        ("م" * 128, 8, True),
        ("", 0, False),
    ],
)
def test_what_a_person_wrote_is_whole_in_one_pdu(text: str, coding: int, is_payload: bool) -> None:
    data = json.dumps({"type": "message.received", "from": "905321234567", "to": "5050", "text": text, "id": "inb_1"})
    pdu = render(Tell(1, 2, 3, "message.received", data, 0))
    assert pdu is not None
    assert (pdu.source_addr, pdu.source_addr_ton, pdu.destination_addr, pdu.dest_addr_ton) == (
        "905321234567",
        1,
        "5050",
        3,
    )
    assert (pdu.data_coding, pdu.esm_class) == (coding, 0)
    assert (Tag.MESSAGE_PAYLOAD in pdu.tlvs, bool(pdu.short_message)) == (is_payload, bool(text) and not is_payload)
    assert decode(pdu.content, coding) == text


# How


async def submitted(esme: Esme, count: int = 1, registered: int = 1) -> list[int]:
    answers = await esme.ask(*(submit(registered) for _ in range(count)))
    assert [status for status, _ in answers] == [0] * count
    return [int(pdu.message_id) for _, pdu in answers]


def receipt_ids(pdus: Any) -> list[int]:
    return sorted(int(parse(pdu).message_id) for pdu in pdus)


async def test_receipt_comes_over_the_bind(customer: Customer) -> None:
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    ids = await submitted(esme)
    await carrier.report(*ids)
    (pdu,) = await esme.next_delivered()
    assert (parse(pdu).state, receipt_ids([pdu])) == (MessageState.DELIVERED, ids)
    await customer.until("SELECT count(*) FROM job", [(0,)])
    assert await customer.rows("SELECT status, error FROM callback_try") == [(0, "")]


async def test_customer_of_an_older_version_gets_his_receipt_without_parameters(customer: Customer) -> None:
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.connect()
    assert (await esme.bind_as(BindTransceiver(LOGIN, PASSWORD, interface_version=0x33)))[0] == 0
    ids = await submitted(esme)
    await carrier.report(*ids)
    (pdu,) = await esme.next_delivered()
    assert (parse(pdu).state, receipt_ids([pdu]), pdu.tlvs) == (MessageState.DELIVERED, ids, {})


async def test_receipt_that_nobody_asked_for_is_done_without_a_word(customer: Customer) -> None:
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    quiet = await submitted(esme, registered=0)
    loud = await submitted(esme)
    await carrier.report(*quiet, *loud)
    assert receipt_ids(await esme.next_delivered()) == loud
    await customer.until("SELECT count(*) FROM job", [(0,)])
    assert esme.delivered.empty()


async def test_receipts_are_kept_while_the_customer_is_away_and_come_when_he_is_back(
    store_url: str, serve: Serve
) -> None:
    customer = await serve(url=store_url)
    await customer.notify()
    carrier, sender = await customer.carrier(), await customer.bind("transmitter")
    ids = await submitted(sender, 20)
    await carrier.report(*ids)
    await customer.until("SELECT count(*) FROM job WHERE kind = 'callback' AND lease_until_ms = 0", [(20,)])
    await asyncio.sleep(0.1)  # in which a try would be made
    assert await customer.rows("SELECT count(*) FROM callback_try") == [(0,)]
    assert await customer.rows("SELECT max(attempts) FROM job") == [(0,)]

    receiver = await customer.bind("receiver")
    assert receipt_ids(await receiver.next_delivered(20)) == ids
    await customer.until("SELECT count(*) FROM job", [(0,)])
    assert receiver.delivered.empty()


async def test_customer_who_comes_and_goes_loses_and_doubles_nothing(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LANE_CAPACITY", 10)
    await customer.notify()
    carrier, sender = await customer.carrier(), await customer.bind("transmitter")
    ids = await submitted(sender, 100)
    await carrier.report(*ids)
    got: list[DeliverSm] = []
    while len(got) < 100:
        receiver = await customer.bind("receiver")
        got += await receiver.next_delivered(1)
        receiver.unbind()
        await receiver.end()
        while not receiver.delivered.empty():
            got.append(receiver.delivered.get_nowait())
    await customer.until("SELECT count(*) FROM job", [(0,)])
    assert receipt_ids(got) == ids


async def test_away_customer_keeps_nobody_busy(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "LANE_CAPACITY", 5)
    customer.rt.directory = with_endpoints(customer.rt.directory, APPLICATION_ID, batch_max=1)
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    seen: list[Any] = []
    esme.answer = seen.append  # takes everything and says nothing
    ids = await submitted(esme, 60)
    await carrier.report(*ids)
    while len(seen) < notify.CALLS_AT_ONCE:
        await asyncio.sleep(0.002)
    await esme.hang_up()
    free = "SELECT count(*) FROM job WHERE kind = 'callback' AND lease_until_ms = 0"
    await customer.until(free, [(60,)])
    commits: list[int] = []
    customer.rt.store.hot._observe = lambda operations, seconds: commits.append(operations)
    await asyncio.sleep(0.2)
    # The dispatcher looks for work some twenty times a second; what an endless round would do is hundreds.
    assert len(commits) < 30
    tried = len(seen)
    assert await customer.rows("SELECT attempts, count(*) FROM job GROUP BY attempts ORDER BY attempts") == [
        (0, 60 - tried),
        (1, tried),
    ]


async def test_window_of_a_bind_is_kept(serve: Serve) -> None:
    customer = await serve(window=5)
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    waiting: list[int] = []
    most = 0

    def hold(sequence: int, pdu: Any) -> None:
        nonlocal most
        waiting.append(sequence)
        most = max(most, len(waiting))
        esme.delivered.put_nowait(pdu)
        asyncio.get_running_loop().call_later(0.01, release)

    def release() -> None:
        esme.session.respond(waiting.pop(0))
        esme._flush()

    esme._on_deliver = hold  # type: ignore[method-assign]
    ids: list[int] = []
    for _ in range(10):
        ids += await submitted(esme, 4)
    await carrier.report(*ids)
    assert receipt_ids(await esme.next_delivered(40)) == ids
    await customer.until("SELECT count(*) FROM job", [(0,)])
    assert most == 5


async def test_binds_of_an_application_share_its_receipts(serve: Serve) -> None:
    customer = await serve(window=3)
    await customer.notify()
    carrier = await customer.carrier()
    one, two = await customer.bind(), await customer.bind("receiver")
    ids: list[int] = []
    for _ in range(10):
        ids += await submitted(one, 3)
    await carrier.report(*ids)
    await customer.until("SELECT count(*) FROM job", [(0,)])
    shares = [[esme.delivered.get_nowait() for _ in range(esme.delivered.qsize())] for esme in (one, two)]
    assert receipt_ids(shares[0] + shares[1]) == ids
    assert all(shares)


async def test_other_applications_are_not_told(customer: Customer) -> None:
    directory = customer.rt.directory
    other = replace(directory.applications[APPLICATION_ID], id=OTHER_APPLICATION)
    directory = replace(directory, applications={**directory.applications, OTHER_APPLICATION: other})
    directory = with_logins(directory, make_login(), make_login(id=31, login="other", application_id=OTHER_APPLICATION))
    customer.rt.directory = with_endpoints(directory, APPLICATION_ID, OTHER_APPLICATION)
    await customer.notify()
    carrier = await customer.carrier()
    mine, others = await customer.bind(), await customer.bind(login="other")
    ids, other_ids = await submitted(mine), await submitted(others)
    await carrier.report(*ids, *other_ids)
    assert receipt_ids(await mine.next_delivered()) == ids
    assert receipt_ids(await others.next_delivered()) == other_ids
    await customer.until("SELECT count(*) FROM job", [(0,)])
    assert mine.delivered.empty()
    assert others.delivered.empty()


@pytest.mark.parametrize("status", [S.ESME_RX_T_APPN, S.ESME_RMSGQFUL, S.ESME_RSYSERR])
async def test_receipt_that_the_customer_did_not_take_comes_again(serve: Serve, status: CommandStatus) -> None:
    customer = await serve(schedule=(0, 0, 3_600))
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    answers = [status, status, 0]
    esme.answer = lambda pdu: int(answers.pop(0))
    ids = await submitted(esme)
    await carrier.report(*ids)
    assert receipt_ids(await esme.next_delivered()) == ids
    await customer.until("SELECT count(*) FROM job", [(0,)])
    tries = await customer.rows("SELECT error FROM callback_try ORDER BY id")
    assert tries == [(f"answered {status.name}",)] * 2 + [("",)]


@pytest.mark.parametrize("status", [S.ESME_RX_P_APPN, S.ESME_RX_R_APPN])
async def test_receipt_that_the_customer_will_never_take_is_done(customer: Customer, status: CommandStatus) -> None:
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    esme.answer = lambda pdu: int(status)
    await carrier.report(*await submitted(esme))
    await esme.next_delivered()
    await customer.until("SELECT count(*) FROM job", [(0,)])


async def test_some_that_fail_do_not_take_the_others_with_them(serve: Serve) -> None:
    customer = await serve(schedule=(0, 0, 3_600))
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    ids = await submitted(esme, 10)
    stubborn = {str(ids[2]), str(ids[7])}

    def answer(pdu: Any) -> int:
        message_id = parse(pdu).message_id
        if message_id not in stubborn:
            return 0
        stubborn.remove(message_id)
        return int(S.ESME_RX_T_APPN)

    esme.answer = answer
    await carrier.report(*ids)
    assert receipt_ids(await esme.next_delivered(10)) == ids
    await customer.until("SELECT count(*) FROM job", [(0,)])
    assert await customer.rows("SELECT count(*) FROM callback_try") == [(12,)]


async def test_next_bind_brings_at_once_what_was_to_be_tried_later(serve: Serve) -> None:
    customer = await serve(schedule=(3_600,))
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    esme.answer = lambda pdu: int(S.ESME_RX_T_APPN)
    ids = await submitted(esme)
    await carrier.report(*ids)
    await customer.until("SELECT attempts, lease_until_ms FROM job", [(1, 0)])
    await esme.hang_up()
    again = await customer.bind("receiver")
    assert receipt_ids(await again.next_delivered()) == ids


async def test_receipt_whose_answer_was_lost_with_the_bind_comes_again(serve: Serve) -> None:
    customer = await serve(schedule=(0, 3_600))
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    seen = asyncio.Event()
    esme._on_deliver = lambda sequence, pdu: seen.set()  # type: ignore[method-assign]
    ids = await submitted(esme)
    await carrier.report(*ids)
    await asyncio.wait_for(seen.wait(), 10)
    await esme.hang_up()
    await customer.until("SELECT error FROM callback_try", [("the bind was lost before the answer came",)])
    assert receipt_ids(await (await customer.bind()).next_delivered()) == ids


async def test_what_finds_no_room_in_time_was_not_tried(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "PLACE_S", 0.05)
    customer = await serve(window=2)
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    held: list[int] = []
    normal = esme._on_deliver
    esme._on_deliver = lambda sequence, pdu: held.append(sequence)  # type: ignore[method-assign]
    ids = await submitted(esme, 2) + await submitted(esme, 2) + await submitted(esme, 2)
    await carrier.report(*ids)
    while len(held) < 2:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.2)
    assert len(held) == 2
    esme._on_deliver = normal  # type: ignore[method-assign]
    for sequence in held:
        esme.session.respond(sequence)
    esme._flush()
    assert len(receipt_ids(await esme.next_delivered(4))) == 4
    await customer.until("SELECT count(*) FROM job", [(0,)])
    assert await customer.rows("SELECT count(*), min(error), max(error) FROM callback_try") == [(6, "", "")]


async def test_customer_who_is_leaving_is_sent_nothing_more(customer: Customer) -> None:
    esme = await customer.bind()
    held: list[int] = []
    esme._on_deliver = lambda sequence, pdu: held.append(sequence)  # type: ignore[method-assign]
    endpoint = binds.endpoint_of(ACCOUNT_ID, APPLICATION_ID)
    under_way = asyncio.create_task(customer.rt.binds.deliver(endpoint, [tell(State.DELIVERED, {"rd": "1"})]))
    while not held:
        await asyncio.sleep(0.002)
    esme.unbind()
    (bind,) = customer.rt.binds._connections
    while bind.is_receiver:
        await asyncio.sleep(0.002)
    too_late = asyncio.create_task(customer.rt.binds.deliver(endpoint, [tell(State.DELIVERED, {"rd": "1"})] * 3))
    await asyncio.sleep(0.02)
    assert len(held) == 1
    esme.session.respond(held[0])
    esme._flush()
    assert await under_way == [""]
    assert await too_late == [None] * 3
    await esme.end()


async def test_answer_that_never_comes_is_waited_for_so_long_and_no_longer(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    esme = await customer.bind()
    esme.answer = lambda pdu: None
    (bind,) = customer.rt.binds._connections
    bind.session._settings = replace(bind.session._settings, response_timeout_s=0.05)
    outcome = await customer.rt.binds.deliver(
        binds.endpoint_of(ACCOUNT_ID, APPLICATION_ID), [tell(State.SENT, {"rd": "16"})]
    )
    assert outcome == ["the answer did not come, or could not be read"]


async def test_receipt_that_no_pdu_can_carry_fails_alone(customer: Customer) -> None:
    esme = await customer.bind()
    endpoint = binds.endpoint_of(ACCOUNT_ID, APPLICATION_ID)
    good, bad = tell(State.DELIVERED, {"rd": "1"}), tell(State.DELIVERED, {"rd": "1"}, sender="x" * 30)
    first, second, third = await customer.rt.binds.deliver(endpoint, [good, bad, good])
    assert (first, third) == ("", "")
    assert second.startswith("cannot be carried: destination_addr")
    assert len(await esme.next_delivered(2)) == 2


async def test_submit_multi_brings_a_receipt_for_each_under_one_id(customer: Customer) -> None:
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    numbers = (NUMBER, "966501234568")
    pdu = SubmitMulti(
        source_addr=SENDER,
        destinations=tuple(Address(1, 1, number) for number in numbers),
        registered_delivery=1,
        short_message=b"hello",
    )
    ((_, answer),) = await esme.ask(pdu)
    ids = [row[0] for row in await customer.rows("SELECT id FROM delivery")]
    await carrier.report(*ids)
    receipts = await esme.next_delivered(2)
    assert {parse(each).message_id for each in receipts} == {answer.message_id}
    assert {each.source_addr for each in receipts} == set(numbers)


async def test_intermediate_states_are_told_where_the_endpoint_wants_them(customer: Customer) -> None:
    events = DEFAULT_EVENTS | {"message.sent"}
    customer.rt.directory = with_endpoints(customer.rt.directory, APPLICATION_ID, events=events)
    await customer.notify()
    carrier, esme = await customer.carrier(), await customer.bind()
    ids = await submitted(esme, registered=0x11)
    (first,) = await esme.next_delivered()
    assert (parse(first).state, parse(first).is_final) == (MessageState.ENROUTE, False)
    await carrier.report(*ids)
    (second,) = await esme.next_delivered()
    assert parse(second).state is MessageState.DELIVERED


async def test_message_from_a_person_comes_over_the_bind(customer: Customer) -> None:
    await customer.notify()
    customer.rt.directory = replace(customer.rt.directory, numbers={"5050": (ACCOUNT_ID, APPLICATION_ID)})
    esme = await customer.bind("receiver")
    texts = ["evet", "نعم " * 60]
    await receive(
        customer.rt, [InboundSms(CONNECTOR_ID, "905321234567", "5050", text, -1, 1, 1, 1_000) for text in texts]
    )
    pdus = await esme.next_delivered(2)
    assert sorted(decode(pdu.content, pdu.data_coding) for pdu in pdus) == sorted(texts)
    assert not any(is_receipt(pdu) for pdu in pdus)


async def test_events_of_an_endpoint_that_is_off_are_not_told(customer: Customer) -> None:
    carrier, esme = await customer.carrier(), await customer.bind()
    ids = await submitted(esme)
    await carrier.report(*ids)
    await customer.until("SELECT count(*) FROM job WHERE kind = 'callback'", [(1,)])
    customer.rt.directory = with_endpoints(customer.rt.directory, APPLICATION_ID, state="off")
    await customer.notify()
    await customer.until("SELECT why FROM job", [("the endpoint is off",)])
    assert esme.delivered.empty()


async def test_stop_leaves_what_is_to_tell_on_disk(customer: Customer) -> None:
    await customer.notify()
    carrier = await customer.carrier()
    ids = await submitted(await customer.bind("transmitter"))
    await customer.rt.binds.shut()
    await carrier.report(*ids)
    await customer.until("SELECT attempts, lease_until_ms, buried_ms FROM job", [(0, 0, 0)])


# In the store, on both databases


@pytest.fixture
async def store(store_url: str) -> Any:
    opened = await open_store(store_url, RushClock())
    yield opened
    await opened.close()


async def test_endpoint_is_made_once_however_many_ask(store: Store) -> None:
    async def ensure() -> bool:
        async with store.transaction() as tx:
            return await binds.ensure_endpoint(tx, ACCOUNT_ID, APPLICATION_ID, 5)

    assert sorted(await asyncio.gather(*(ensure() for _ in range(4)))) == [False, False, False, True]
    rows = await ask(store.url, "SELECT id, host, batch_max, events FROM callback_endpoint")
    assert rows == [(APPLICATION_ID, "smpp:2", 50, " ".join(sorted(DEFAULT_EVENTS)))]


@pytest.mark.parametrize(
    ("lane", "application_id"),
    [("hsmpp:42", 42), ("hexample.com", 0), ("hsmpp:", 0), ("hsmpp:a", 0), ("c42", 0), ("hsmpp:٤", 0), ("42", 0)],
)
def test_application_is_told_by_its_lane(lane: str, application_id: int) -> None:
    assert binds.application_of(lane) == application_id
    if application_id:
        assert binds.endpoint_of(1, application_id).lane == lane


async def test_bind_wakes_its_own_lane_and_no_other(store: Store) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "lane": "hsmpp:2", "due_ms": 900},
        {"id": 2, "lane": "hsmpp:2", "due_ms": 900, "lease_until_ms": 1_000},
        {"id": 3, "lane": "hsmpp:2", "due_ms": 900, "buried_ms": 50},
        {"id": 4, "lane": "hsmpp:22", "due_ms": 900},
        {"id": 5, "lane": "hsmpp:2", "due_ms": 10},
    ]
    async with store.transaction() as tx:
        for row in rows:
            await tx.execute(insert(tables.job).values(kind="callback", **row))
        assert await binds.wake(tx, 2, 100) == 1
    assert await ask(store.url, "SELECT id, due_ms FROM job ORDER BY id") == [
        (1, 100),
        (2, 900),
        (3, 900),
        (4, 900),
        (5, 10),
    ]


async def test_what_nobody_came_for_is_set_aside_as_late_as_any_callback(store_url: str, serve: Serve) -> None:
    customer = await serve(url=store_url, schedule=(100, 200), clock=FakeClock())
    now_ms = customer.rt.clock.now_ms()
    old, young, other = first_id_at(now_ms - 301_000), first_id_at(now_ms - 290_000), first_id_at(now_ms - 999_000)
    async with customer.rt.store.transaction() as tx:
        for identifier, lane in ((old, "hsmpp:2"), (young, "hsmpp:2"), (other, "hexample.com")):
            await tx.execute(insert(tables.job).values(id=identifier, kind="callback", lane=lane, due_ms=1))
        await tx.execute(select(tables.job))
    assert await give_up(customer.rt) == 1
    assert await customer.rows("SELECT id, why FROM job WHERE buried_ms > 0") == [(old, "the customer did not bind")]
