"""Who may bind, how often and for how long, and how binds end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from berid.base.secret import hash_password
from berid.dialects.smpp import server as smpp_server
from berid.domain.account import Scope
from berid.domain.directory import Directory
from berid.flow.ports import Runtime
from berid.store import tables
from berid.wire.smpp.codes import CommandStatus, Tag
from berid.wire.smpp.pdu import BindReceiver, BindTransceiver, DeliverSm, EnquireLink, ReplaceSm, SubmitSm, encode
from berid.wire.smpp.session import CloseReason, State, WrongState
from tests.dialects.smpp.esme import Esme
from tests.dialects.smpp.world import (
    LOGIN,
    PASSWORD,
    Customer,
    hashed,
    make_login,
    rules,
    with_endpoints,
    with_logins,
)
from tests.support.builders import ACCOUNT_ID, APPLICATION_ID, FakeClock
from tests.support.certificate import make_certificate

S = CommandStatus
Serve = Callable[..., Awaitable[Customer]]


def submit(text: str = "hello", **changes: Any) -> SubmitSm:
    given = {"source_addr": "Berid", "dest_addr_ton": 1, "destination_addr": "966501234567"}
    return SubmitSm(**(given | {"short_message": text.encode()} | changes))


def change_account(directory: Directory, **changes: Any) -> Directory:
    return replace(directory, accounts={ACCOUNT_ID: replace(directory.accounts[ACCOUNT_ID], **changes)})


def change_application(directory: Directory, **changes: Any) -> Directory:
    application = replace(directory.applications[APPLICATION_ID], **changes)
    return replace(directory, applications={APPLICATION_ID: application})


async def drive(clock: FakeClock, done: asyncio.Future[Any], seconds: float) -> float:
    """Let time pass until something has happened, and return how long it took; at most `seconds`."""
    passed = 0.0
    while passed < seconds and not done.done():
        await clock.advance(0.25)
        passed += 0.25
        await asyncio.sleep(0.002)  # the bytes travel between two sockets of one process
    assert done.done()
    return passed


@pytest.mark.parametrize("kind", ["receiver", "transmitter", "transceiver"])
async def test_login_with_its_password_is_bound(customer: Customer, kind: str) -> None:
    esme = await customer.connect()
    assert await esme.bind(kind) == S.ESME_ROK
    assert customer.rt.binds.serves(APPLICATION_ID) is (kind != "transmitter")


@pytest.mark.parametrize("version", [0x00, 0x33, 0x34, 0x50])
async def test_bind_is_answered_with_our_name_and_for_who_can_read_it_our_version(
    customer: Customer, version: int
) -> None:
    esme = await customer.connect()
    _, pdu = await esme.bind_as(BindTransceiver(LOGIN, PASSWORD, interface_version=version))
    expected = {int(Tag.SC_INTERFACE_VERSION): b"\x34"} if version >= 0x34 else {}
    assert (pdu.system_id, pdu.tlvs) == ("berid", expected)


REFUSED: dict[str, tuple[Callable[[Directory], Directory], CommandStatus]] = {
    "unknown system_id": (lambda d: with_logins(d), S.ESME_RINVSYSID),
    "wrong password": (lambda d: with_logins(d, make_login(hash=hashed("another"))), S.ESME_RINVPASWD),
    "login revoked": (lambda d: with_logins(d, make_login(revoked_ms=1)), S.ESME_RBINDFAIL),
    "login expired": (lambda d: with_logins(d, make_login(expires_ms=1)), S.ESME_RBINDFAIL),
    "token of another kind": (lambda d: with_logins(d, make_login(kind="bearer")), S.ESME_RBINDFAIL),
    "account suspended": (lambda d: change_account(d, state="suspended"), S.ESME_RBINDFAIL),
    "application suspended": (lambda d: change_application(d, state="suspended"), S.ESME_RBINDFAIL),
    "application gone": (lambda d: replace(d, applications={}), S.ESME_RBINDFAIL),
    "no sms": (lambda d: change_application(d, services=frozenset({"otp", "voice"})), S.ESME_RBINDFAIL),
    "API off": (lambda d: change_account(d, rules=rules(api_on=False)), S.ESME_RBINDFAIL),
    "network": (lambda d: change_account(d, rules=rules(networks=("192.0.2.0/24",))), S.ESME_RBINDFAIL),
    "network of application": (lambda d: change_application(d, rules=rules(networks=("::1",))), S.ESME_RBINDFAIL),
    "no right to send": (
        lambda d: with_logins(d, make_login(scopes=frozenset({Scope.STATUS.value}))),
        S.ESME_RBINDFAIL,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_bind_is_refused(customer: Customer, case: str) -> None:
    change, status = REFUSED[case]
    customer.rt.directory = change(customer.rt.directory)
    esme = await customer.connect()
    assert await esme.bind() == status
    with pytest.raises(WrongState):
        esme.post(submit())


async def test_network_on_the_list_may_bind(customer: Customer) -> None:
    customer.rt.directory = change_account(customer.rt.directory, rules=rules(networks=("127.0.0.0/8",)))
    await customer.bind()


async def test_receiver_needs_no_right_to_send(customer: Customer) -> None:
    login = make_login(scopes=frozenset({Scope.STATUS.value}))
    customer.rt.directory = with_logins(customer.rt.directory, login)
    await customer.bind("receiver")


async def test_refused_customer_may_try_again_on_his_connection(customer: Customer) -> None:
    esme = await customer.connect()
    assert await esme.bind(password="wrong") == S.ESME_RINVPASWD
    assert await esme.bind() == S.ESME_ROK


async def test_failure_is_answered_late(serve: Serve) -> None:
    clock = FakeClock()
    customer = await serve(clock=clock)
    esme = await customer.connect()
    answer = asyncio.create_task(esme.bind(login="nobody"))
    took_s = await drive(clock, answer, 3)
    assert (answer.result(), took_s >= smpp_server.FAILURE_WAIT_S) == (S.ESME_RINVSYSID, True)


async def test_address_that_fails_often_is_not_looked_at_for_a_while(serve: Serve) -> None:
    clock = FakeClock()
    customer = await serve(clock=clock)
    other = make_login(id=31, login="other", hash=hashed("secret"))
    customer.rt.directory = with_logins(customer.rt.directory, make_login(), other)
    old = await customer.bind()  # his password is known from now on
    esmes = [await customer.connect() for _ in range(smpp_server.FAILURES_PER_MINUTE)]
    wrong = asyncio.gather(*(esme.bind(login=f"guess{place}") for place, esme in enumerate(esmes)))
    await drive(clock, wrong, 3)

    new = asyncio.create_task((await customer.connect()).bind(login="other", password="secret"))
    await drive(clock, new, 3)
    assert new.result() == S.ESME_RBINDFAIL
    await old.hang_up()
    assert await (await customer.connect()).bind() == S.ESME_ROK

    await clock.advance(61)
    assert await (await customer.connect()).bind(login="other", password="secret") == S.ESME_ROK


async def test_account_has_so_many_binds_and_no_more(serve: Serve) -> None:
    customer = await serve(max_binds_per_account=2)
    second = make_login(id=31, login="second")
    customer.rt.directory = with_logins(customer.rt.directory, make_login(), second)
    first = await customer.bind("transmitter")
    await customer.bind("receiver", "second")
    third = await customer.connect()
    assert await third.bind() == S.ESME_RALYBND
    await first.hang_up()
    for _ in range(200):
        if len(customer.rt.binds._connections) == 2:
            break
        await asyncio.sleep(0.005)
    assert await third.bind() == S.ESME_ROK


async def test_binds_that_come_together_cannot_pass_the_limit(serve: Serve) -> None:
    customer = await serve(max_binds_per_account=2)
    esmes = [await customer.connect() for _ in range(5)]
    statuses = await asyncio.gather(*(esme.bind() for esme in esmes))
    assert sorted(statuses) == [S.ESME_ROK] * 2 + [S.ESME_RALYBND] * 3


async def test_second_bind_on_one_connection_is_refused(customer: Customer) -> None:
    esme = await customer.bind()
    esme.writer.write(encode(BindReceiver(LOGIN, PASSWORD), 77))
    (status, _), *_ = await esme.ask(submit())
    assert status == 0  # and the bind stands


@pytest.mark.parametrize(
    ("kind", "pdu", "status"),
    [
        ("receiver", submit(), S.ESME_RINVBNDSTS),
        ("transmitter", ReplaceSm("1", short_message=b"new"), S.ESME_RREPLACEFAIL),
        ("transceiver", ReplaceSm("1", short_message=b"new"), S.ESME_RREPLACEFAIL),
    ],
)
async def test_what_a_bind_may_not_ask_is_refused(
    customer: Customer, kind: str, pdu: SubmitSm | ReplaceSm, status: CommandStatus
) -> None:
    esme = await customer.bind(kind)
    esme.session._may_send |= {pdu.command_id}  # as a customer who does not keep the rules
    assert [answer[0] for answer in await esme.ask(pdu)] == [status]


async def test_nothing_is_submitted_before_a_bind(customer: Customer) -> None:
    esme = await customer.connect()
    esme.session._may_send |= {SubmitSm.command_id}
    assert [answer[0] for answer in await esme.ask(submit())] == [S.ESME_RINVBNDSTS]
    assert await customer.rows("SELECT id FROM message") == []


async def test_connection_that_never_binds_is_closed(serve: Serve) -> None:
    clock = FakeClock()
    customer = await serve(clock=clock)
    esme = await customer.connect()
    await drive(clock, esme.closed, 11)


async def test_customer_is_asked_whether_he_is_there_and_stays_if_he_is(serve: Serve) -> None:
    clock = FakeClock()
    customer = await serve(clock=clock)
    esme = await customer.bind()
    for _ in range(300):
        await clock.advance(0.5)
        await asyncio.sleep(0.001)
    assert not esme.closed.done()
    (bind,) = customer.rt.binds._connections
    assert bind.session.enquire_round_trip_s is not None


async def test_customer_who_is_gone_without_a_word_is_let_go(serve: Serve) -> None:
    clock = FakeClock()
    customer = await serve(clock=clock)
    esme = await customer.bind()
    esme.is_deaf = True
    assert 49 <= await drive(clock, esme.closed, 60) <= 52  # 30 s of silence, 20 s for the answer
    assert not customer.rt.binds.serves(APPLICATION_ID)


async def test_customers_own_question_is_answered(customer: Customer) -> None:
    esme = await customer.bind()
    esme.writer.write(encode(EnquireLink(), 4711) * 3)
    assert [answer[0] for answer in await esme.ask(submit())] == [0]


async def test_bind_does_not_wait_to_fill_packets(customer: Customer) -> None:
    await customer.bind()
    (bind,) = customer.rt.binds._connections
    assert bind._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


ENDED: dict[str, Callable[[Directory], Directory]] = {
    "login revoked": lambda d: with_logins(d, make_login(revoked_ms=1)),
    "login gone": lambda d: with_logins(d),
    "login given to another": lambda d: with_logins(d, make_login(id=99)),
    "account suspended": lambda d: change_account(d, state="suspended"),
    "application suspended": lambda d: change_application(d, state="suspended"),
    "network taken away": lambda d: change_account(d, rules=rules(networks=("192.0.2.0/24",))),
}


@pytest.mark.parametrize("case", ENDED)
async def test_bind_ends_within_a_second_when_it_may_no_longer_be(serve: Serve, case: str) -> None:
    clock = FakeClock()
    customer = await serve(clock=clock)
    esme = await customer.bind()
    customer.rt.directory = ENDED[case](customer.rt.directory)
    began_s = asyncio.get_running_loop().time()
    assert await drive(clock, esme.closed, 1) <= 0.75
    assert asyncio.get_running_loop().time() - began_s < 1
    assert esme.closed.result() is CloseReason.PEER_UNBOUND


async def test_bind_that_is_being_ended_takes_nothing_more(customer: Customer) -> None:
    esme = await customer.bind()
    customer.rt.directory = ENDED["login revoked"](customer.rt.directory)
    (status, _), *_ = await esme.ask(submit())
    assert status == S.ESME_RPROHIBITED
    await esme.end()
    assert await customer.rows("SELECT id FROM message") == []


async def test_deaf_customer_is_closed_as_fast_when_his_login_ends(customer: Customer) -> None:
    esme = await customer.bind()
    esme.is_deaf = True
    began_s = asyncio.get_running_loop().time()
    customer.rt.directory = ENDED["login revoked"](customer.rt.directory)
    await esme.end()
    assert asyncio.get_running_loop().time() - began_s < 1


async def test_login_that_expires_ends_its_bind(serve: Serve) -> None:
    clock = FakeClock()
    customer = await serve(clock=clock)
    login = make_login(expires_ms=clock.now_ms() + 5_000)
    customer.rt.directory = with_logins(customer.rt.directory, login)
    esme = await customer.bind()
    assert 5 <= await drive(clock, esme.closed, 7) <= 6


async def test_new_password_leaves_open_binds_open(customer: Customer) -> None:
    esme = await customer.bind()
    login = make_login(hash=hash_password("changed"))
    customer.rt.directory = with_logins(customer.rt.directory, login)
    assert [answer[0] for answer in await esme.ask(submit())] == [0]
    assert await (await customer.connect()).bind() == S.ESME_RINVPASWD
    assert await (await customer.connect()).bind(password="changed") == S.ESME_ROK


async def test_rules_that_change_hold_for_open_binds(customer: Customer) -> None:
    esme = await customer.bind()
    customer.rt.directory = change_account(customer.rt.directory, rules=rules(countries=("TR",)))
    assert [answer[0] for answer in await esme.ask(submit())] == [S.ESME_RINVDSTADR]
    customer.rt.directory = change_account(customer.rt.directory, rules=rules(api_on=False))
    assert [answer[0] for answer in await esme.ask(submit())] == [S.ESME_RPROHIBITED]


async def test_customer_who_unbinds_gets_his_answer(customer: Customer) -> None:
    esme = await customer.bind()
    esme.unbind()
    assert await esme.end() is CloseReason.UNBOUND


async def test_customer_who_unbinds_behind_his_submits_gets_their_answers_first(customer: Customer) -> None:
    esme = await customer.bind()
    futures = esme.post(*(submit(str(place)) for place in range(20)))
    esme.unbind()
    assert [status for status, _ in await asyncio.gather(*futures)] == [0] * 20
    assert await esme.end() is CloseReason.UNBOUND


async def test_stop_answers_what_was_submitted_and_then_unbinds(customer: Customer) -> None:
    esme, idle, stranger = await customer.bind(), await customer.bind("receiver"), await customer.connect()
    rt: Runtime = customer.rt
    server = rt.binds
    async with rt.store.transaction() as tx:  # no submit is stored while this lasts
        await tx.execute(select(tables.meta))
        (submitted,) = esme.post(submit())
        while not server._connections or not any(bind.session.unanswered for bind in server._connections):
            await asyncio.sleep(0.002)
        stopping = asyncio.create_task(server.shut())
        await idle.end()
        await stranger.end()
        assert not submitted.done()
        (late,) = await esme.ask(submit("too late"))
        assert late[0] == S.ESME_RSYSERR
    status, pdu = await asyncio.wait_for(submitted, 10)
    assert status == 0
    assert await customer.rows("SELECT id FROM delivery") == [(int(pdu.message_id),)]
    assert await esme.end() is CloseReason.PEER_UNBOUND
    await stopping
    with pytest.raises(ConnectionError):
        await Esme.connect(customer.port)


async def test_stop_waits_for_the_answer_to_a_receipt(customer: Customer) -> None:
    esme = await customer.bind()
    held: list[int] = []
    esme._on_deliver = lambda sequence, pdu: held.append(sequence)  # type: ignore[method-assign]
    server = customer.rt.binds
    sending = asyncio.create_task(
        server._outlets[APPLICATION_ID].send([DeliverSm(source_addr="1", destination_addr="2", short_message=b"x")])
    )
    while not held:
        await asyncio.sleep(0.002)
    stopping = asyncio.create_task(server.shut())
    await asyncio.sleep(0.05)
    assert esme.session.state is State.BOUND_TRX
    esme.session.respond(held[0])
    esme._flush()
    assert await sending == [""]
    await esme.end()
    await stopping


async def test_stop_does_not_wait_long_for_a_customer_who_does_not_answer(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smpp_server, "LEAVE_S", 0.1)
    esme = await customer.bind()
    esme.is_deaf = True
    await asyncio.wait_for(customer.rt.binds.shut(), 5)
    await esme.end()


async def test_first_bind_makes_the_endpoint_of_the_application(store_url: str, serve: Serve) -> None:
    customer = await serve(url=store_url)
    customer.rt.directory = with_endpoints(customer.rt.directory)
    await asyncio.gather(customer.bind(), customer.bind())
    question = "SELECT id, account_id, application_id, kind, host, url, batch_max, state FROM callback_endpoint"
    row = (APPLICATION_ID, ACCOUNT_ID, APPLICATION_ID, "smpp", "smpp:2", "smpp://smpp:2", 50, "on")
    assert await customer.rows(question) == [row]
    assert await customer.rows("SELECT value FROM meta WHERE key = 'version'") == [("1",)]
    # What is settled from now on finds it, although no new directory has been loaded yet.
    endpoint = customer.rt.directory.endpoint_by_id[APPLICATION_ID]
    assert endpoint.wants(APPLICATION_ID, "message.delivered")
    assert endpoint.wants(APPLICATION_ID, "message.received")
    assert list(customer.rt.directory.endpoints[ACCOUNT_ID]) == [endpoint]
    assert endpoint.lane == "hsmpp:2"


async def test_tls_port_speaks_tls_and_takes_a_renewed_certificate(serve: Serve, tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    customer = await serve(tls_port=0, tls_cert=cert_file, tls_key=key_file)
    assert customer.tls_port not in (None, customer.port)

    async def bind() -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with await Esme.connect(customer.tls_port or 0, context) as esme:
            assert await esme.bind() == 0
            assert [answer[0] for answer in await esme.ask(submit())] == [0]
            seen: bytes = esme.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            return seen

    first = await bind()
    make_certificate(tmp_path)
    second = first
    for _ in range(100):
        second = await bind()
        if second != first:
            break
    assert second == ssl.PEM_cert_to_DER_cert(cert_file.read_text())
