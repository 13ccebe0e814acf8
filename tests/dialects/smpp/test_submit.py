"""What a submit asks for: texts and parts in all codings, times, priorities, and what becomes of it in the store."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import smpplib.client
import smpplib.consts
import smpplib.exceptions
import smpplib.gsm
from sqlalchemy import select

from berid.base.text import Policy, analyse, encode_parts
from berid.channels.sms.content import unpack_raw
from berid.dialects.smpp.codes import REFUSALS, STATES, status_of
from berid.dialects.smpp.submit import Unfit, read_multi, read_submit
from berid.domain.account import SenderName, SenderState
from berid.domain.errors import Refusal, RefusalKind, refused
from berid.domain.message import Category, Content, Priority, RawPart, State, Submission
from berid.domain.routing import Route
from berid.store import tables
from berid.store.hot import StoreAway
from berid.wire.smpp.codes import CommandStatus, EsmClass, Tag
from berid.wire.smpp.pdu import Address, DataSm, DistributionList, SubmitMulti, SubmitSm, put_uint
from berid.wire.smpp.times import format_absolute, format_relative
from tests.dialects.smpp.esme import PATIENCE_S
from tests.dialects.smpp.world import LOGIN, PASSWORD, Customer, rules
from tests.support.builders import (
    ACCOUNT_ID,
    APPLICATION_ID,
    CONNECTOR_ID,
    CURRENCY,
    ROUTE_ID,
    SENDER,
    SENDER_ID,
    WALLET_ID,
)

S = CommandStatus
Serve = Callable[..., Awaitable[Customer]]
NOW_MS = 1_795_000_000_123
NUMBER = "966501234567"


def submit(content: bytes = b"hello", **changes: Any) -> SubmitSm:
    given = {"source_addr": SENDER, "dest_addr_ton": 1, "destination_addr": NUMBER, "short_message": content}
    return SubmitSm(**(given | changes))


def read(pdu: SubmitSm | DataSm, has_otp: bool = False, home: str = "SA") -> Submission:
    return read_submit(pdu, home, NOW_MS, has_otp)


def uints(**values: int) -> dict[int, bytes]:
    tlvs: dict[int, bytes] = {}
    for name, value in values.items():
        put_uint(tlvs, Tag[name.upper()], value)
    return tlvs


def payload(octets: bytes) -> dict[int, bytes]:
    return {int(Tag.MESSAGE_PAYLOAD): octets}


def test_plain_submit_is_a_text_to_one_number() -> None:
    assert read(submit()) == Submission(
        channel="sms",
        sender=SENDER,
        recipients=(NUMBER,),
        content=Content("hello"),
        category=Category.TRANSACTIONAL,
        priority=Priority.BULK,
    )


@pytest.mark.parametrize(
    ("coding", "octets", "text"),
    [
        (0, b"hello", "hello"),
        (0, b"\x00 \x02 \x1b\x65 \x11", "@ $ € _"),
        (1, b"@ $ _", "@ $ _"),
        (3, "café @ ñ".encode("latin-1"), "café @ ñ"),
        (6, "привет".encode("iso8859-5"), "привет"),
        (7, "שלום".encode("iso8859-8"), "שלום"),
        (8, "مرحبا şğı 👍".encode("utf-16-be"), "مرحبا şğı 👍"),
        (8, "\ufffd".encode("utf-16-be"), "\ufffd"),
    ],
)
@pytest.mark.parametrize("way", ["short_message", "payload", "data_sm"])
def test_text_is_read_in_its_coding(coding: int, octets: bytes, text: str, way: str) -> None:
    pdu: SubmitSm | DataSm = submit(octets, data_coding=coding)
    if way == "payload":
        pdu = submit(b"", data_coding=coding, tlvs=payload(octets))
    elif way == "data_sm":
        pdu = DataSm(
            source_addr=SENDER, dest_addr_ton=1, destination_addr=NUMBER, data_coding=coding, tlvs=payload(octets)
        )
    assert read(pdu).content == Content(text)


@pytest.mark.parametrize(
    ("coding", "octets"),
    [
        (0, b"caf\xe9"),  # Latin-1 that calls itself GSM
        (1, b"caf\xe9"),
        (8, b"\x00a\x00"),
        (8, b"\xd8\x3d"),
        (7, b"\xff"),
        (5, b"JIS"),
        (9, b"pictogram"),
        (10, b"music"),
        (13, b"kanji"),
        (14, b"korean"),
        (15, b"reserved"),
    ],
)
def test_octets_that_are_not_of_their_coding_are_refused_not_replaced(coding: int, octets: bytes) -> None:
    with pytest.raises(Unfit) as raised:
        read(submit(octets, data_coding=coding))
    assert raised.value.status == S.ESME_RINVDCS


@pytest.mark.parametrize("coding", [2, 4, 0x10, 0x18, 0xF0, 0xF4, 0xF6])
def test_binary_data_and_message_classes_are_carried_as_they_are(coding: int) -> None:
    assert read(submit(b"\x01\xfe", data_coding=coding)).content == Content("", raw=RawPart(b"", b"\x01\xfe", coding))


@pytest.mark.parametrize(
    ("header", "coding", "data"),
    [
        (bytes((5, 0, 3, 9, 2, 1)), 0, b"part one "),
        (bytes((6, 8, 4, 1, 9, 2, 1)), 8, "جزء".encode("utf-16-be")),
        (bytes((5, 0, 3, 9, 2, 2)), 4, b"\x00\xff"),
        (bytes((6, 5, 4, 0x0B, 0x84, 0x23, 0xF0)), 4, b"wap push"),  # ports, in one part
        (bytes((3, 0x24, 1, 1)), 0, b"Turkish single shift"),
    ],
)
@pytest.mark.parametrize("way", ["short_message", "payload"])
def test_user_data_header_is_carried_as_it_is(header: bytes, coding: int, data: bytes, way: str) -> None:
    content = {"content": header + data} if way == "short_message" else {"content": b"", "tlvs": payload(header + data)}
    pdu = submit(esm_class=int(EsmClass.UDHI) | 3, data_coding=coding, **content)
    assert read(pdu).content == Content("", raw=RawPart(header, data, coding))


@pytest.mark.parametrize(
    ("reference", "octet"), [(9, 9), (0x1234, 0x34)], ids=["narrow reference", "low octet of a wide one"]
)
def test_sar_parameters_become_a_header(reference: int, octet: int) -> None:
    tlvs = uints(sar_msg_ref_num=reference, sar_total_segments=3, sar_segment_seqnum=2)
    raw = read(submit(b"middle", tlvs=tlvs)).content.raw
    assert raw == RawPart(bytes((5, 0, 3, octet, 3, 2)), b"middle", 0)


def test_sar_parameters_join_a_header_that_says_nothing_of_parts() -> None:
    tlvs = uints(sar_msg_ref_num=9, sar_total_segments=2, sar_segment_seqnum=1)
    ports = bytes((6, 5, 4, 0x0B, 0x84, 0x23, 0xF0))
    raw = read(submit(ports + b"x", esm_class=int(EsmClass.UDHI), data_coding=4, tlvs=tlvs)).content.raw
    assert raw == RawPart(bytes((11, 0, 3, 9, 2, 1)) + ports[1:], b"x", 4)


def test_header_that_tells_the_part_wins_over_sar_parameters() -> None:
    tlvs = uints(sar_msg_ref_num=9, sar_total_segments=2, sar_segment_seqnum=1)
    header = bytes((5, 0, 3, 77, 2, 1))
    raw = read(submit(header + b"x", esm_class=int(EsmClass.UDHI), tlvs=tlvs)).content.raw
    assert raw == RawPart(header, b"x", 0)


@pytest.mark.parametrize("number", [0, 3])
def test_sar_parameters_that_cannot_be_are_no_parts(number: int) -> None:
    tlvs = uints(sar_msg_ref_num=9, sar_total_segments=2, sar_segment_seqnum=number)
    assert read(submit(tlvs=tlvs)).content == Content("hello")


def test_single_segment_is_a_text() -> None:
    tlvs = uints(sar_msg_ref_num=9, sar_total_segments=1, sar_segment_seqnum=1)
    assert read(submit(tlvs=tlvs)).content == Content("hello")


UNFIT: dict[str, tuple[SubmitSm, CommandStatus]] = {
    "no number": (submit(destination_addr=""), S.ESME_RINVDSTADR),
    "name for a number": (submit(destination_addr="Berid"), S.ESME_RINVDSTADR),
    "too short a number": (submit(destination_addr="5050"), S.ESME_RINVDSTADR),
    "header longer than the message": (submit(b"\x09\x00", esm_class=0x40), S.ESME_RINVESMCLASS),
    "header without a message": (submit(b"", esm_class=0x40), S.ESME_RINVESMCLASS),
    "element longer than the header": (submit(bytes((3, 0, 9, 1)) + b"x", esm_class=0x40), S.ESME_RINVESMCLASS),
    "acknowledgement of a handset": (submit(esm_class=0x08), S.ESME_RINVESMCLASS),
    "receipt": (submit(esm_class=0x04), S.ESME_RINVESMCLASS),
    "priority": (submit(priority_flag=4), S.ESME_RINVPRTFLG),
    "reserved bits": (submit(registered_delivery=0x21), S.ESME_RINVREGDLVFLG),
    "words for a schedule": (submit(schedule_delivery_time="tomorrow"), S.ESME_RINVSCHED),
    "month 13": (submit(schedule_delivery_time="261301000000000+"), S.ESME_RINVSCHED),
    "words for a validity": (submit(validity_period="a day"), S.ESME_RINVEXPIRY),
    "validity in the past": (submit(validity_period="200101000000000+"), S.ESME_RINVEXPIRY),
    "validity of nothing": (submit(validity_period="000000000000000R"), S.ESME_RINVEXPIRY),
    "ends before it is due": (
        submit(schedule_delivery_time="000000020000000R", validity_period="000000010000000R"),
        S.ESME_RINVEXPIRY,
    ),
    "message that the carrier keeps": (submit(b"", sm_default_msg_id=3), S.ESME_RINVDFTMSGID),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_cannot_be_a_submission_has_its_status(case: str) -> None:
    pdu, status = UNFIT[case]
    with pytest.raises(Unfit) as raised:
        read(pdu)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("ton", "address", "home", "number"),
    [
        (1, NUMBER, "TR", NUMBER),
        (1, f"+{NUMBER}", "TR", NUMBER),
        (1, f"00{NUMBER}", "TR", NUMBER),
        (0, NUMBER, "SA", NUMBER),
        (0, "0501234567", "SA", NUMBER),
        (2, "501234567", "SA", NUMBER),
        (2, "05321234567", "TR", "905321234567"),
        (0, "+905321234567", "SA", "905321234567"),
    ],
)
def test_number_is_read_by_its_type(ton: int, address: str, home: str, number: str) -> None:
    assert read(submit(dest_addr_ton=ton, destination_addr=address), home=home).recipients == (number,)


@pytest.mark.parametrize(
    ("address", "sender"), [("Berid", "Berid"), ("+966112223344", "966112223344"), ("+1Up", "+1Up"), ("", "")]
)
def test_source_address_is_the_sender(address: str, sender: str) -> None:
    assert read(submit(source_addr=address)).sender == sender


@pytest.mark.parametrize(
    ("flag", "has_otp", "priority", "category"),
    [
        (0, True, Priority.BULK, Category.TRANSACTIONAL),
        (1, True, Priority.TRANSACTIONAL, Category.TRANSACTIONAL),
        (2, True, Priority.TRANSACTIONAL, Category.TRANSACTIONAL),
        (3, False, Priority.TRANSACTIONAL, Category.TRANSACTIONAL),
        (3, True, None, Category.OTP),
    ],
)
def test_priority_is_first_only_for_who_may_send_codes(
    flag: int, has_otp: bool, priority: Priority | None, category: Category
) -> None:
    submission = read(submit(priority_flag=flag), has_otp)
    assert (submission.priority, submission.category) == (priority, category)
    assert submission.content.is_secret is (category is Category.OTP)


def at(seconds: float) -> str:
    return format_absolute(datetime.fromtimestamp(NOW_MS / 1000, UTC) + timedelta(seconds=seconds))


def after(seconds: int) -> str:
    return format_relative(timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("schedule", "validity", "due_s", "valid_s"),
    [
        ("", "", None, None),
        (after(0), "", None, None),
        (after(3600), "", 3600, None),
        (at(3600), "", 3600, None),
        (at(-60), "", -60, None),  # left for accept to refuse
        ("", after(90), None, 90),
        ("", at(90), None, 90),
        (after(3600), after(7200), 3600, 3600),
        (at(3600), at(3660), 3600, 60),
    ],
)
def test_times_are_read_absolute_and_relative(
    schedule: str, validity: str, due_s: int | None, valid_s: int | None
) -> None:
    submission = read(submit(schedule_delivery_time=schedule, validity_period=validity))
    if due_s is None:
        assert submission.due_ms is None
    else:
        assert submission.due_ms is not None
        assert abs(submission.due_ms - NOW_MS - due_s * 1000) < 100  # an SMPP time ends with tenths
    if valid_s is None:
        assert submission.valid_s is None
    else:
        assert submission.valid_s is not None
        assert abs(submission.valid_s - valid_s) <= 1


def test_offset_of_an_absolute_time_counts() -> None:
    riyadh = read(submit(schedule_delivery_time="270101120000012+")).due_ms
    assert riyadh == int(datetime(2027, 1, 1, 9, tzinfo=UTC).timestamp() * 1000)


def test_time_to_live_of_data_sm_is_its_validity() -> None:
    tlvs = payload(b"x") | uints(qos_time_to_live=120)
    assert read(DataSm(destination_addr=NUMBER, tlvs=tlvs)).valid_s == 120


@pytest.mark.parametrize(
    ("registered", "tlvs", "options"),
    [
        (0, {}, {}),
        (0, uints(user_message_reference=7), {}),
        (1, {}, {"rd": "1"}),
        (2, {}, {"rd": "2"}),
        (0x11, {}, {"rd": "17"}),
        (0x10, {}, {"rd": "16"}),
        (0x0C, {}, {}),  # acknowledgements of handsets, which nobody sends
        (0x1D, uints(user_message_reference=513), {"rd": "17", "ref": "513"}),
    ],
)
def test_what_the_receipt_will_need_is_kept(registered: int, tlvs: dict[int, bytes], options: dict[str, str]) -> None:
    assert read(submit(registered_delivery=registered, tlvs=tlvs)).options == options


def test_submit_multi_is_one_submission_to_all_its_numbers() -> None:
    pdu = SubmitMulti(
        source_addr=SENDER,
        destinations=(
            Address(1, 1, NUMBER),
            Address(1, 1, "nobody"),
            Address(0, 0, "0501234568"),
            Address(1, 1, NUMBER),
        ),
        registered_delivery=1,
        short_message=b"hello",
    )
    submission, failed, written = read_multi(pdu, "SA", NOW_MS, False)
    assert list(submission.recipients) == [NUMBER, "966501234568", NUMBER]
    assert submission.allows_partial
    assert submission.options == {"rd": "1", "multi": "1"}
    assert [(each.addr, each.status) for each in failed] == [("nobody", S.ESME_RINVDSTADR)]
    assert written == {NUMBER: [Address(1, 1, NUMBER)] * 2, "966501234568": [Address(0, 0, "0501234568")]}


@pytest.mark.parametrize(
    ("destinations", "status"),
    [
        ((Address(1, 1, NUMBER), DistributionList("friends")), S.ESME_RINVDLNAME),
        ((Address(1, 1, "nobody"), Address(1, 1, "5050")), S.ESME_RINVDSTADR),
    ],
)
def test_submit_multi_without_numbers_is_refused(destinations: tuple[Any, ...], status: CommandStatus) -> None:
    with pytest.raises(Unfit) as raised:
        read_multi(SubmitMulti(source_addr=SENDER, destinations=destinations, short_message=b"x"), "SA", NOW_MS, False)
    assert raised.value.status == status


def test_every_refusal_has_a_status_that_is_no_success() -> None:
    assert set(REFUSALS) == set(RefusalKind)
    assert all(status != S.ESME_ROK for status in REFUSALS.values())


@pytest.mark.parametrize("kind", RefusalKind)
def test_only_what_may_be_sent_again_is_answered_so_that_clients_do(kind: RefusalKind) -> None:
    again = {S.ESME_RSYSERR, S.ESME_RTHROTTLED, S.ESME_RMSGQFUL, S.ESME_RX_T_APPN}
    assert (REFUSALS[kind] in again) == (kind in (RefusalKind.STORE_AWAY, RefusalKind.RATE_LIMIT))


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ([RefusalKind.RATE_LIMIT, RefusalKind.SENDER_UNKNOWN], S.ESME_RINVSRCADR),
        ([RefusalKind.CONTENT_INVALID, RefusalKind.RECIPIENT_INVALID], S.ESME_RINVDSTADR),
        ([RefusalKind.SENDER_UNKNOWN, RefusalKind.SERVICE_MISSING], S.ESME_RSERTYPUNAUTH),
        ([RefusalKind.BALANCE_SHORT, RefusalKind.CONTENT_MISSING], S.ESME_RINVMSGLEN),
    ],
)
def test_of_several_refusals_one_is_told(kinds: list[RefusalKind], status: CommandStatus) -> None:
    assert status_of(Refusal(kind) for kind in kinds) == status


def test_every_state_has_a_number() -> None:
    assert set(STATES) == set(State)


# Over the wire, into the store


async def body(customer: Customer) -> list[tuple[Any, ...]]:
    return await customer.rows("SELECT body_kind, alphabet, parts, body FROM message ORDER BY id")


async def test_accepted_submit_is_on_disk_and_known_by_its_delivery(customer: Customer) -> None:
    esme = await customer.bind()
    (first, second) = await esme.ask(submit(), submit(b"again", priority_flag=1))
    assert [status for status, _ in (first, second)] == [0, 0]
    ids = [int(pdu.message_id) for _, pdu in (first, second)]
    assert await customer.rows("SELECT id, recipient, state FROM delivery ORDER BY id") == [
        (identifier, NUMBER, "queued") for identifier in sorted(ids)
    ]
    assert await customer.rows(
        "SELECT account_id, application_id, mode, channel, dialect, sender, category, priority, options FROM message "
        "ORDER BY id"
    ) == [
        (ACCOUNT_ID, APPLICATION_ID, "test", "sms", "smpp", SENDER, "transactional", priority, "")
        for priority in (2, 1)
    ]


async def test_long_text_is_cut_by_us(customer: Customer) -> None:
    esme = await customer.bind()
    texts = ["x" * 300, "م" * 100]
    answers = await esme.ask(
        submit(b"", tlvs=payload(texts[0].encode())),
        submit(b"", data_coding=8, tlvs=payload(texts[1].encode("utf-16-be"))),
    )
    assert [status for status, _ in answers] == [0, 0]
    assert await body(customer) == [("text", "gsm7", 2, texts[0]), ("text", "ucs2", 2, texts[1])]
    assert await customer.rows("SELECT units FROM delivery") == [(2,), (2,)]


@pytest.mark.parametrize("text", ["Merhaba dünya! " * 20, "مرحبا بالعالم " * 10, "çok uzun şey ğ " * 15])
async def test_parts_of_the_customer_leave_as_they_came(customer: Customer, text: str) -> None:
    esme = await customer.bind()
    carrier = await customer.carrier()
    policy = Policy.TURKISH if "ş" in text else Policy.AUTO
    parts = encode_parts(text, analyse(text, policy), 33)
    assert len(parts) > 1
    pdus = [submit(part.udh + part.data, esm_class=0x40, data_coding=part.data_coding) for part in parts]
    assert [status for status, _ in await esme.ask(*pdus)] == [0] * len(parts)
    await customer.until("SELECT count(*) FROM delivery WHERE state = 'sent'", [(len(parts),)])
    assert [(row[0], row[2]) for row in await body(customer)] == [("raw", 1)] * len(parts)
    assert {unpack_raw(each.body) for each in carrier.sent} == {
        RawPart(part.udh, part.data, part.data_coding) for part in parts
    }


async def test_part_that_fits_no_short_message_is_refused(customer: Customer) -> None:
    esme = await customer.bind()
    header = bytes((5, 0, 3, 1, 2, 1))
    fits, over = header + b"x" * 153, header + b"x" * 154
    answers = await esme.ask(submit(fits, esm_class=0x40), submit(over, esm_class=0x40))
    assert [status for status, _ in answers] == [S.ESME_ROK, S.ESME_RINVMSGLEN]


async def test_code_is_sealed_and_goes_first(customer: Customer) -> None:
    esme = await customer.bind()
    assert [status for status, _ in await esme.ask(submit(b"your code is 123456", priority_flag=3))] == [0]
    ((kind, _, _, stored),) = await body(customer)
    assert (kind, "123456" in stored) == ("sealed", False)
    assert await customer.rows("SELECT category, priority FROM message") == [("otp", 0)]


async def test_planned_submit_waits_for_its_time(customer: Customer) -> None:
    esme = await customer.bind()
    answers = await esme.ask(
        submit(schedule_delivery_time=after(3600), validity_period=after(7200)),
        submit(schedule_delivery_time="200101000000000+"),
    )
    assert [status for status, _ in answers] == [S.ESME_ROK, S.ESME_RINVSCHED]
    ((state, ahead_ms, valid_ms),) = await customer.rows(
        "SELECT d.state, m.due_ms - m.created_ms, m.expires_ms - m.due_ms FROM message m "
        "JOIN delivery d ON d.message_id = m.id"
    )
    assert state == "scheduled"
    assert abs(ahead_ms - 3_600_000) < 1_000
    assert abs(valid_ms - 3_600_000) <= 1_000


async def test_data_sm_is_accepted_like_a_submit(customer: Customer) -> None:
    esme = await customer.bind()
    pdu = DataSm(source_addr=SENDER, dest_addr_ton=1, destination_addr=NUMBER, tlvs=payload(b"by data_sm"))
    ((status, answer),) = await esme.ask(pdu)
    assert status == 0
    assert await customer.rows("SELECT id FROM delivery") == [(int(answer.message_id),)]


async def test_submit_multi_tells_who_was_not_reached(customer: Customer) -> None:
    customer.rt.directory = replace(
        customer.rt.directory,
        accounts={
            ACCOUNT_ID: replace(customer.rt.directory.accounts[ACCOUNT_ID], rules=rules(countries=("SA",))),
        },
    )
    esme = await customer.bind()
    addresses = (NUMBER, "905321234567", "nobody", "966501234568")
    pdu = SubmitMulti(
        source_addr=SENDER,
        destinations=tuple(Address(1, 1, address) for address in addresses),
        registered_delivery=1,
        short_message=b"hello",
    )
    ((status, answer),) = await esme.ask(pdu)
    assert status == 0
    assert [(each.ton, each.npi, each.addr, each.status) for each in answer.unsuccessful] == [
        (1, 1, "nobody", S.ESME_RINVDSTADR),
        (1, 1, "905321234567", S.ESME_RINVDSTADR),
    ]
    assert await customer.rows("SELECT id, total FROM message") == [(int(answer.message_id), 2)]
    assert await customer.rows("SELECT recipient FROM delivery ORDER BY id") == [(NUMBER,), ("966501234568",)]


async def test_submit_multi_of_which_nobody_may_be_reached_is_refused(customer: Customer) -> None:
    customer.rt.directory = replace(customer.rt.directory, prices={})
    esme = await customer.bind()
    destinations = (Address(1, 1, NUMBER), Address(1, 1, "966501234568"))
    pdu = SubmitMulti(source_addr=SENDER, destinations=destinations, short_message=b"hello")
    assert [status for status, _ in await esme.ask(pdu)] == [S.ESME_RINVDSTADR]


async def test_submits_of_one_read_share_a_commit_and_a_write(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    esme = await customer.bind()
    commits: list[int] = []
    customer.rt.store.hot._observe = lambda operations, seconds: commits.append(operations)
    (bind,) = customer.rt.binds._connections
    writes: list[bytes] = []
    write = bind._transport.write
    monkeypatch.setattr(
        bind, "_transport", SimpleNamespace(write=lambda data: (writes.append(data), write(data)), abort=lambda: None)
    )
    answers = await esme.ask(*(submit(str(place).encode()) for place in range(50)))
    assert [status for status, _ in answers] == [0] * 50
    assert commits == [50]
    assert len(writes) == 1
    monkeypatch.undo()


async def test_what_does_not_fit_the_window_is_throttled_at_once(serve: Serve) -> None:
    customer = await serve(window=4)
    esme = await customer.bind()
    async with customer.rt.store.transaction() as tx:  # no submit is stored while this lasts
        await tx.execute(select(tables.meta))
        futures = esme.post(*(submit(str(place).encode()) for place in range(10)))
        refused_now = await asyncio.wait_for(asyncio.gather(*futures[4:]), PATIENCE_S)
        assert [status for status, _ in refused_now] == [S.ESME_RTHROTTLED] * 6
        assert not any(future.done() for future in futures[:4])
    accepted = await asyncio.wait_for(asyncio.gather(*futures[:4]), PATIENCE_S)
    assert [status for status, _ in accepted] == [0] * 4
    assert [status for status, _ in await esme.ask(submit())] == [0]
    assert await customer.rows("SELECT count(*) FROM message") == [(5,)]


def account_rules(**changes: Any) -> Callable[[Any], Any]:
    return lambda d: replace(d, accounts={ACCOUNT_ID: replace(d.accounts[ACCOUNT_ID], rules=rules(**changes))})


def sender_state(state: SenderState) -> Callable[[Any], Any]:
    name = SenderName(SENDER_ID, ACCOUNT_ID, "sms", SENDER, "", "any", state, 0)
    return lambda d: replace(d, senders={(ACCOUNT_ID, "sms", SENDER): (name,)})


REFUSED: dict[str, tuple[Callable[[Any], Any], SubmitSm, CommandStatus]] = {
    "sender missing": (lambda d: d, submit(source_addr=""), S.ESME_RINVSRCADR),
    "sender unknown": (lambda d: d, submit(source_addr="Stranger"), S.ESME_RINVSRCADR),
    "sender inactive": (sender_state(SenderState.SUBMITTED), submit(), S.ESME_RINVSRCADR),
    "sender expired": (sender_state(SenderState.EXPIRED), submit(), S.ESME_RINVSRCADR),
    "country": (account_rules(countries=("TR",)), submit(), S.ESME_RINVDSTADR),
    "international": (
        account_rules(international_on=False),
        submit(destination_addr="905321234567"),
        S.ESME_RINVDSTADR,
    ),
    "no route": (lambda d: replace(d, routes=()), submit(), S.ESME_RINVDSTADR),
    "no route in this mode": (
        lambda d: replace(d, routes=(Route(ROUTE_ID, "live", 1, "live", "sms", (CONNECTOR_ID,)),)),
        submit(),
        S.ESME_RINVDSTADR,
    ),
    "no price": (lambda d: replace(d, prices={}), submit(), S.ESME_RINVDSTADR),
    "no wallet": (lambda d: replace(d, wallets={}), submit(), S.ESME_RINVDSTADR),
    "empty": (lambda d: d, submit(b""), S.ESME_RINVMSGLEN),
    "too long": (lambda d: d, submit(b"", tlvs=payload(b"x" * 5_000)), S.ESME_RINVMSGLEN),
    "NUL in a text": (lambda d: d, submit("a\0b".encode("utf-16-be"), data_coding=8), S.ESME_RINVMSGLEN),
    "schedule past": (lambda d: d, submit(schedule_delivery_time="200101000000000+"), S.ESME_RINVSCHED),
    "service": (
        lambda d: replace(
            d, applications={APPLICATION_ID: replace(d.applications[APPLICATION_ID], services=frozenset({"voice"}))}
        ),
        submit(),
        S.ESME_RSERTYPUNAUTH,
    ),
    "api off": (account_rules(api_on=False), submit(), S.ESME_RPROHIBITED),
    "fault of the PDU": (lambda d: d, submit(data_coding=5), S.ESME_RINVDCS),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_submit_has_its_status_and_leaves_nothing(customer: Customer, case: str) -> None:
    change, pdu, status = REFUSED[case]
    esme = await customer.bind()
    customer.rt.directory = change(customer.rt.directory)
    assert [answer[0] for answer in await esme.ask(pdu)] == [status]
    assert await customer.rows("SELECT id FROM message") == []
    assert b'berid_refusals_total{dialect="smpp"' in customer.rt.metrics.render()


@pytest.mark.parametrize("kind", RefusalKind)
async def test_every_kind_of_refusal_reaches_the_customer(
    customer: Customer, kind: RefusalKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise refused(kind, "for this test")

    monkeypatch.setattr("berid.dialects.smpp.bind.accept", refuse)
    esme = await customer.bind()
    assert [answer[0] for answer in await esme.ask(submit())] == [REFUSALS[kind]]


async def test_balance_that_is_used_up_refuses(customer: Customer) -> None:
    async with customer.rt.store.transaction() as tx:
        await tx.execute(tables.wallet.update().where(tables.wallet.c.id == WALLET_ID).values(available_micros=60_000))
    esme = await customer.bind()
    assert [answer[0] for answer in await esme.ask(submit(), submit())] == [S.ESME_ROK, S.ESME_RSUBMITFAIL]
    assert await customer.rows("SELECT currency, available_micros FROM wallet") == [(CURRENCY, 10_000)]


async def test_rate_is_kept(customer: Customer) -> None:
    esme = await customer.bind()
    customer.rt.directory = account_rules(per_minute=3)(customer.rt.directory)
    answers = await esme.ask(*(submit() for _ in range(5)))
    assert [status for status, _ in answers] == [S.ESME_ROK] * 3 + [S.ESME_RTHROTTLED] * 2


@pytest.mark.parametrize("error", [StoreAway("gone"), ZeroDivisionError("a bug")])
async def test_trouble_of_ours_says_try_again(
    customer: Customer, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise error

    esme = await customer.bind()
    monkeypatch.setattr("berid.dialects.smpp.bind.accept", fail)
    assert [answer[0] for answer in await esme.ask(submit(), submit())] == [S.ESME_RSYSERR] * 2
    monkeypatch.undo()
    assert [answer[0] for answer in await esme.ask(submit())] == [S.ESME_ROK]


async def test_customer_who_hangs_up_before_his_answer_is_served_all_the_same(customer: Customer) -> None:
    esme = await customer.bind()
    async with customer.rt.store.transaction() as tx:
        await tx.execute(select(tables.meta))
        esme.post(submit())
        while not any(bind.session.unanswered for bind in customer.rt.binds._connections):
            await asyncio.sleep(0.002)
        await esme.hang_up()
    await customer.until("SELECT count(*) FROM message", [(1,)])
    await customer.bind()


async def test_foreign_client_submits_and_hears_of_it(customer: Customer) -> None:
    """smpplib: another library, in a thread, with blocking sockets."""
    await customer.notify()
    carrier = await customer.carrier()
    outcome: dict[str, Any] = {"ids": [], "receipts": []}

    def run() -> None:
        client = smpplib.client.Client("127.0.0.1", customer.port, timeout=PATIENCE_S, allow_unknown_opt_params=True)
        client.set_message_sent_handler(lambda pdu: outcome["ids"].append(pdu.message_id.decode()))

        def on_message(pdu: Any) -> int:
            outcome["receipts"].append((pdu.short_message, pdu.receipted_message_id, pdu.message_state))
            return 0

        client.set_message_received_handler(on_message)
        client.connect()
        try:
            client.bind_transceiver(system_id=LOGIN, password=PASSWORD)
            parts, coding, esm_class = smpplib.gsm.make_parts("Uzun bir mesaj ğş " * 10)
            outcome["parts"] = len(parts)
            for part in parts:
                client.send_message(
                    source_addr_ton=smpplib.consts.SMPP_TON_ALNUM,
                    source_addr=SENDER,
                    dest_addr_ton=smpplib.consts.SMPP_TON_INTL,
                    destination_addr=NUMBER,
                    short_message=part,
                    data_coding=coding,
                    esm_class=esm_class,
                    registered_delivery=True,
                )
            while len(outcome["receipts"]) < len(parts):
                client.read_once()
            client.unbind()
        finally:
            client.disconnect()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while len(outcome["ids"]) < outcome.get("parts", 1):
            await asyncio.sleep(0.01)
            assert thread.is_alive()
        await carrier.report(*map(int, outcome["ids"]))
    finally:
        await asyncio.to_thread(thread.join, PATIENCE_S)
    assert outcome["parts"] == 3
    assert {receipt[1] for receipt in outcome["receipts"]} == {each.encode() for each in outcome["ids"]}
    assert {receipt[2] for receipt in outcome["receipts"]} == {smpplib.consts.SMPP_MESSAGE_STATE_DELIVERED}
    assert await customer.rows("SELECT DISTINCT body_kind, parts FROM message") == [("raw", 1)]


async def test_foreign_client_hears_no(customer: Customer) -> None:
    def run() -> list[int]:
        client = smpplib.client.Client("127.0.0.1", customer.port, timeout=PATIENCE_S, allow_unknown_opt_params=True)
        client.connect()
        statuses: list[int] = []
        try:
            client.bind_transmitter(system_id=LOGIN, password="nonsense")
        except smpplib.exceptions.PDUError as error:
            statuses.append(error.args[1])
        client.disconnect()
        return statuses

    assert await asyncio.to_thread(run) == [S.ESME_RINVPASWD]


async def test_options_are_stored_as_json(customer: Customer) -> None:
    esme = await customer.bind()
    pdu = submit(registered_delivery=1, tlvs=uints(user_message_reference=99))
    assert [status for status, _ in await esme.ask(pdu)] == [0]
    ((options,),) = await customer.rows("SELECT options FROM message")
    assert json.loads(options) == {"rd": "1", "ref": "99"}


def test_page_for_customers_has_every_refusal_in_its_order() -> None:
    page = (Path(__file__).parents[3] / "docs" / "smpp.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (ESME_\w+) \|$", page, re.MULTILINE)
    assert rows == [(kind.value, status.name) for kind, status in REFUSALS.items()]
