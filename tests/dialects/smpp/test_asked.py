"""query_sm and cancel_sm: what a customer learns of his messages, and what he can still stop."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from berid.domain.account import Scope
from berid.domain.message import State
from berid.flow.accept import accept
from berid.store.hot import StoreAway
from berid.wire.smpp.codes import CommandStatus, MessageState
from berid.wire.smpp.pdu import Address, CancelSm, QuerySm, SubmitMulti, SubmitSm
from berid.wire.smpp.times import format_relative, parse_time
from tests.dialects.smpp.esme import Esme
from tests.dialects.smpp.world import Customer, make_login, with_logins
from tests.support.builders import APPLICATION_ID, SENDER, make_caller, make_submission

S = CommandStatus
NUMBER, SECOND = "966501234567", "966501234568"


async def submitted(esme: Esme, **changes: Any) -> str:
    given = {"source_addr": SENDER, "dest_addr_ton": 1, "destination_addr": NUMBER, "short_message": b"hello"}
    ((status, answer),) = await esme.ask(SubmitSm(**(given | changes)))
    assert status == 0
    return str(answer.message_id)


async def multi(esme: Esme) -> str:
    destinations = (Address(1, 1, NUMBER), Address(1, 1, SECOND))
    pdu = SubmitMulti(source_addr=SENDER, destinations=destinations, short_message=b"hello")
    ((status, answer),) = await esme.ask(pdu)
    assert status == 0
    return str(answer.message_id)


async def asked(esme: Esme, message_id: str, **changes: Any) -> tuple[int, Any]:
    ((status, answer),) = await esme.ask(QuerySm(message_id, **changes))
    return status, answer


async def cancelled(esme: Esme, message_id: str, **changes: Any) -> int:
    ((status, _),) = await esme.ask(CancelSm(message_id=message_id, **changes))
    return status


def with_scopes(customer: Customer, *scopes: Scope) -> None:
    login = make_login(scopes=frozenset(scope.value for scope in scopes))
    customer.rt.directory = with_logins(customer.rt.directory, login)


async def test_waiting_message_is_under_way(customer: Customer) -> None:
    esme = await customer.bind()
    message_id = await submitted(esme)
    status, answer = await asked(esme, message_id)
    assert status == 0
    assert (answer.message_id, answer.message_state, answer.final_date, answer.error_code) == (
        message_id,
        MessageState.ENROUTE,
        "",
        0,
    )


@pytest.mark.parametrize(
    ("state", "code", "told", "error"),
    [
        (State.DELIVERED, "", MessageState.DELIVERED, 0),
        (State.UNDELIVERED, "034", MessageState.UNDELIVERABLE, 34),
        (State.UNDELIVERED, "999", MessageState.UNDELIVERABLE, 255),
        (State.EXPIRED, "EXPIRED", MessageState.EXPIRED, 0),
        (State.REJECTED, "11", MessageState.REJECTED, 11),
    ],
)
async def test_ended_message_has_its_state_its_time_and_its_error(
    customer: Customer, state: State, code: str, told: MessageState, error: int
) -> None:
    carrier, esme = await customer.carrier(), await customer.bind()
    message_id = await submitted(esme)
    await carrier.report(int(message_id), state=state, code=code)
    status, answer = await asked(esme, message_id, source_addr=SENDER)
    assert (status, answer.message_state, answer.error_code) == (0, told, error)
    ended = parse_time(answer.final_date)
    assert isinstance(ended, datetime)
    ((final_ms,),) = await customer.rows("SELECT final_ms FROM delivery")
    assert abs(ended.timestamp() * 1000 - final_ms) < 100


@pytest.mark.parametrize("message_id", ["", "0", "1234567", "abc", "9" * 17, "-1"])
async def test_id_that_was_never_given_is_unknown(customer: Customer, message_id: str) -> None:
    esme = await customer.bind()
    await submitted(esme)
    assert (await asked(esme, message_id))[0] == S.ESME_RINVMSGID
    assert await cancelled(esme, message_id) == (S.ESME_RINVMSGID if message_id else S.ESME_RCANCELFAIL)


async def test_other_senders_name_is_no_answer(customer: Customer) -> None:
    esme = await customer.bind()
    message_id = await submitted(esme)
    assert (await asked(esme, message_id, source_addr="Another"))[0] == S.ESME_RQUERYFAIL


async def test_messages_of_others_are_not_there(customer: Customer) -> None:
    """Of another application of the account, in another mode, through another door."""
    esme = await customer.bind()
    message_id = await submitted(esme)
    by_http = await accept(customer.rt, make_caller(customer.rt), make_submission(NUMBER))
    assert (await asked(esme, str(by_http.deliveries[0].id)))[0] == S.ESME_RINVMSGID

    directory = customer.rt.directory
    other = replace(directory.applications[APPLICATION_ID], id=22)
    directory = replace(directory, applications={**directory.applications, 22: other})
    logins = (make_login(id=31, login="other", application_id=22), make_login(id=32, login="live", mode="live"))
    customer.rt.directory = with_logins(directory, make_login(), *logins)
    for login in ("other", "live"):
        stranger = await customer.bind(login=login)
        assert (await asked(stranger, message_id))[0] == S.ESME_RINVMSGID
        assert await cancelled(stranger, message_id) == S.ESME_RINVMSGID


async def test_message_to_several_is_asked_for_by_its_own_id(customer: Customer) -> None:
    carrier, esme = await customer.carrier(), await customer.bind()
    message_id = await multi(esme)
    first, second = [row[0] for row in await customer.rows("SELECT id FROM delivery ORDER BY id")]
    await customer.until("SELECT DISTINCT state FROM delivery", [("sent",)])
    assert (await asked(esme, message_id))[1].message_state == MessageState.ENROUTE
    await carrier.report(first)
    assert (await asked(esme, message_id))[1].message_state == MessageState.ENROUTE
    await carrier.report(second, state=State.UNDELIVERED, code="7")
    status, answer = await asked(esme, message_id)
    assert (status, answer.message_state, answer.error_code) == (0, MessageState.UNDELIVERABLE, 7)
    assert (await asked(esme, str(first)))[0] == S.ESME_RINVMSGID


async def test_waiting_message_can_be_cancelled_once(customer: Customer) -> None:
    esme = await customer.bind()
    message_id = await submitted(esme, schedule_delivery_time=format_relative(timedelta(hours=1)))
    given = {"source_addr": SENDER, "dest_addr_ton": 1, "destination_addr": NUMBER}
    assert await cancelled(esme, message_id, **given) == S.ESME_ROK
    assert (await asked(esme, message_id))[1].message_state == MessageState.DELETED
    assert await customer.rows("SELECT held_micros FROM wallet") == [(0,)]
    assert await cancelled(esme, message_id) == S.ESME_RCANCELFAIL


async def test_message_that_has_left_cannot_be_cancelled(customer: Customer) -> None:
    await customer.carrier()
    esme = await customer.bind()
    message_id = await submitted(esme)
    await customer.until("SELECT state FROM delivery", [("sent",)])
    assert await cancelled(esme, message_id) == S.ESME_RCANCELFAIL


async def test_message_to_several_is_cancelled_as_a_whole(customer: Customer) -> None:
    esme = await customer.bind()
    message_id = await multi(esme)
    assert await cancelled(esme, message_id, dest_addr_ton=1, destination_addr=SECOND) == S.ESME_ROK
    assert await customer.rows("SELECT DISTINCT state FROM delivery") == [("cancelled",)]


@pytest.mark.parametrize(
    "changes",
    [{"source_addr": "Another"}, {"dest_addr_ton": 1, "destination_addr": SECOND}, {"destination_addr": "nobody"}],
)
async def test_cancellation_that_names_another_message_changes_nothing(
    customer: Customer, changes: dict[str, Any]
) -> None:
    esme = await customer.bind()
    message_id = await submitted(esme)
    assert await cancelled(esme, message_id, **changes) == S.ESME_RCANCELFAIL
    assert await customer.rows("SELECT state FROM delivery") == [("queued",)]


async def test_rights_are_asked_for(customer: Customer) -> None:
    esme = await customer.bind()
    message_id = await submitted(esme)
    with_scopes(customer, Scope.SEND)
    assert (await asked(esme, message_id))[0] == S.ESME_RPROHIBITED
    with_scopes(customer, Scope.STATUS)
    assert await cancelled(esme, message_id) == S.ESME_RPROHIBITED
    assert (await asked(esme, message_id))[0] == S.ESME_ROK


async def test_store_that_is_away_says_try_again(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    esme = await customer.bind()
    message_id = await submitted(esme)

    def away() -> None:
        raise StoreAway("gone")

    monkeypatch.setattr(customer.rt.store, "read", away)
    assert (await asked(esme, message_id))[0] == S.ESME_RSYSERR
    assert await cancelled(esme, message_id) == S.ESME_RSYSERR
