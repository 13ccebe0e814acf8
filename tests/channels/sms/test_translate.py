"""Deliveries as PDUs, and the carrier's PDUs as reports and messages: what each setting changes on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from berid.base.text import Alphabet, Encoding, PartBytes, decode, encode_parts, pack, unpack
from berid.channels.sms.content import reference_of
from berid.channels.sms.settings import read_settings
from berid.channels.sms.translate import LONGEST_VALIDITY_S, Translator
from berid.domain.message import State
from berid.wire.smpp import receipt
from berid.wire.smpp.codes import EsmClass, MessageState, Tag
from berid.wire.smpp.pdu import DataSm, DeliverSm, EncodeError, SubmitSm, encode, get_uint, put_text, put_uint
from berid.wire.smpp.udh import read_content
from tests.support.builders import CONNECTOR_ID, FAR_MS, make_outgoing

NOW_MS = 1_790_000_000_000
LONG = "x" * 400


def translator(**settings: Any) -> Translator:
    return Translator(CONNECTOR_ID, read_settings({"host": "smsc", "system_id": "berid"} | settings))


def only(submits: list[Any]) -> Any:
    (submit,) = submits
    encode(submit, 1)
    return submit


@pytest.mark.parametrize(
    ("sender", "settings", "expected"),
    [
        ("Berid", {}, (5, 0, "Berid")),
        ("My Shop", {}, (5, 0, "My Shop")),
        ("4455", {}, (3, 0, "4455")),
        ("12345678", {}, (3, 0, "12345678")),
        ("966501234567", {}, (1, 1, "966501234567")),
        ("+966501234567", {}, (1, 1, "966501234567")),
        ("+4455", {}, (1, 1, "4455")),
        ("٤٤٥٥", {}, (5, 0, "٤٤٥٥")),
        ("Berid", {"alphanumeric_ton": 0, "alphanumeric_npi": 9}, (0, 9, "Berid")),
        ("4455", {"short_code_ton": 6, "short_code_npi": 1}, (6, 1, "4455")),
        ("966501234567", {"number_ton": 2, "number_npi": 8}, (2, 8, "966501234567")),
    ],
)
def test_form_of_the_sender_decides_its_type(
    sender: str, settings: dict[str, int], expected: tuple[int, int, str]
) -> None:
    (pdu,) = translator(**settings).compose(make_outgoing(sender=sender), NOW_MS)
    assert (pdu.source_addr_ton, pdu.source_addr_npi, pdu.source_addr) == expected


def test_submit_asks_for_a_receipt_and_says_how_long_it_is_worth_sending() -> None:
    pdu = only(translator(dest_ton=2, dest_npi=9).compose(make_outgoing(expires_ms=NOW_MS + 300_000), NOW_MS))
    assert isinstance(pdu, SubmitSm)
    assert pdu.registered_delivery == 1
    assert pdu.validity_period == "000000000500000R"
    assert (pdu.dest_addr_ton, pdu.dest_addr_npi, pdu.destination_addr) == (2, 9, "966501234567")
    assert (pdu.short_message, pdu.data_coding, pdu.esm_class) == (b"hello", 0, 0)


def octets(submits: list[Any]) -> list[bytes]:
    return [encode(submit, 1) for submit in submits]


@pytest.mark.parametrize(
    "settings",
    [{}, {"dest_ton": 2, "dest_npi": 9}, {"gsm_packed": True}, {"long_messages": "payload"}, {"use_data_sm": True}],
)
def test_what_is_packed_for_many_is_what_each_of_them_would_be_sent_alone(settings: dict[str, Any]) -> None:
    own = translator(**settings)
    outgoing = [
        make_outgoing(**{"recipient": recipient} | changes)
        for recipient in ("966501234567", "15550001111")
        for changes in (
            {},
            {"sender": "4455"},
            {"body": "bonjour"},
            {"body": "مرحبا", "alphabet": "ucs2"},
            {"body": "00:0500030a0201:68656c6c6f", "body_kind": "raw", "alphabet": "raw"},
            {"expires_ms": NOW_MS + 60_000},
            {"body": LONG, "parts": 3},
        )
    ]
    for each in outgoing * 2:
        assert octets(own.pack(each, NOW_MS)) == octets(own.compose(each, NOW_MS))


def test_only_so_many_texts_are_kept_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berid.channels.sms.translate.PACKED_MAX", 2)
    own = translator()
    for text in ("one", "two", "three", "one"):
        submits = own.pack(make_outgoing(body=text), NOW_MS)
        assert octets(submits) == octets(own.compose(make_outgoing(body=text), NOW_MS))
    assert len(own._packed) == 2


def test_what_cannot_be_encoded_is_refused_before_it_is_sent() -> None:
    with pytest.raises(EncodeError, match="source_addr"):
        translator().pack(make_outgoing(sender="٤٤٥٥"), NOW_MS)


@pytest.mark.parametrize(
    ("expires_ms", "seconds"), [(NOW_MS - 5, 1), (NOW_MS + 1, 1), (NOW_MS + 1999, 1), (FAR_MS, LONGEST_VALIDITY_S)]
)
def test_validity_is_at_least_a_second_and_not_years(expires_ms: int, seconds: int) -> None:
    pdu = only(translator(use_data_sm=True).compose(make_outgoing(expires_ms=expires_ms), NOW_MS))
    assert get_uint(pdu.tlvs, Tag.QOS_TIME_TO_LIVE) == seconds
    only(translator().compose(make_outgoing(expires_ms=expires_ms), NOW_MS))


@pytest.mark.parametrize(("form", "octets"), [("udh", 6), ("udh16", 7)])
def test_long_message_has_headers_with_the_reference_of_its_delivery(form: str, octets: int) -> None:
    outgoing = make_outgoing(body=LONG)
    submits = translator(long_messages=form).compose(outgoing, NOW_MS)
    contents = [read_content(submit) for submit in submits]
    assert [(content.number, content.total) for content in contents] == [(1, 3), (2, 3), (3, 3)]
    mask = 0xFF if form == "udh" else 0xFFFF
    assert {content.reference for content in contents} == {reference_of(outgoing.delivery_id) & mask}
    assert {len(content.header) for content in contents} == {octets}
    assert {submit.esm_class for submit in submits} == {EsmClass.UDHI}
    assert b"".join(content.body for content in contents) == LONG.encode()


def test_long_message_in_sar_parameters_has_no_headers() -> None:
    outgoing = make_outgoing(body=LONG)
    submits = translator(long_messages="sar").compose(outgoing, NOW_MS)
    assert {submit.esm_class for submit in submits} == {0}
    contents = [read_content(submit) for submit in submits]
    assert [(content.number, content.total) for content in contents] == [(1, 3), (2, 3), (3, 3)]
    assert {content.reference for content in contents} == {reference_of(outgoing.delivery_id)}
    assert b"".join(submit.short_message for submit in submits) == LONG.encode()


@pytest.mark.parametrize("use_data_sm", [False, True])
def test_long_message_as_payload_is_one_submit(use_data_sm: bool) -> None:
    pdu = only(translator(long_messages="payload", use_data_sm=use_data_sm).compose(make_outgoing(body=LONG), NOW_MS))
    assert pdu.content == LONG.encode()
    assert pdu.esm_class == 0
    assert isinstance(pdu, DataSm if use_data_sm else SubmitSm)


@pytest.mark.parametrize("form", ["sar", "payload"])
def test_national_alphabet_keeps_its_headers_whatever_the_form(form: str) -> None:
    text = "ığdır şeker " * 20
    submits = translator(long_messages=form).compose(make_outgoing(body=text, alphabet="gsm7_tr_locking"), NOW_MS)
    contents = [read_content(submit) for submit in submits]
    assert len(contents) == 2
    assert "".join(decode(content.body, 0, content.header) for content in contents) == text


def test_short_message_needs_neither_parameters_nor_payload() -> None:
    for form in ("sar", "payload"):
        pdu = only(translator(long_messages=form).compose(make_outgoing(), NOW_MS))
        assert (pdu.short_message, pdu.tlvs) == (b"hello", {})


def test_packed_septets_unpack_to_the_text_behind_any_header() -> None:
    packed = translator(gsm_packed=True)
    assert unpack(only(packed.compose(make_outgoing(), NOW_MS)).short_message) == b"hello"
    text = b""
    for submit in packed.compose(make_outgoing(body=LONG), NOW_MS):
        content = read_content(submit)
        text += unpack(content.body, len(content.header))
        assert len(submit.short_message) <= 140
    assert text == LONG.encode()


def test_packing_leaves_ucs2_alone() -> None:
    pdu = only(translator(gsm_packed=True).compose(make_outgoing(body="مرحبا", alphabet="ucs2"), NOW_MS))
    assert (pdu.short_message, pdu.data_coding) == ("مرحبا".encode("utf-16-be"), 8)


def test_data_codings_are_the_carriers_own() -> None:
    own = translator(gsm_data_coding=0xF1, ucs2_data_coding=0x18)
    assert only(own.compose(make_outgoing(), NOW_MS)).data_coding == 0xF1
    assert only(own.compose(make_outgoing(body="مرحبا", alphabet="ucs2"), NOW_MS)).data_coding == 0x18
    raw = make_outgoing(body="04::ff00", body_kind="raw", alphabet="raw")
    assert only(own.compose(raw, NOW_MS)).data_coding == 4


def test_part_split_by_the_customer_leaves_as_it_came() -> None:
    raw = make_outgoing(body="00:0500032a0201:68616c66", body_kind="raw", alphabet="raw")
    pdu = only(translator().compose(raw, NOW_MS))
    assert pdu.short_message == b"\x05\x00\x03\x2a\x02\x01half"
    assert pdu.esm_class == EsmClass.UDHI


# In


def receipt_pdu(state: MessageState, **changes: Any) -> DeliverSm:
    text = receipt.build("a1", state, submit_digits="2611221430", done_digits="2611221431", error=27, quote=b"my code")
    given = {"source_addr": "+966501234567", "esm_class": int(EsmClass.TYPE_RECEIPT), "short_message": text}
    return DeliverSm(**(given | changes))


@pytest.mark.parametrize(
    ("state", "ours"),
    [
        (MessageState.DELIVERED, State.DELIVERED),
        (MessageState.EXPIRED, State.EXPIRED),
        (MessageState.DELETED, State.UNDELIVERED),
        (MessageState.UNDELIVERABLE, State.UNDELIVERED),
        (MessageState.REJECTED, State.REJECTED),
        (MessageState.SKIPPED, State.UNDELIVERED),
        (MessageState.ACCEPTED, State.SENT),
        (MessageState.ENROUTE, State.SENT),
        (MessageState.SCHEDULED, State.SENT),
        (MessageState.UNKNOWN, State.SENT),
    ],
)
def test_state_of_a_receipt_becomes_ours(state: MessageState, ours: State) -> None:
    report = translator().read_receipt(receipt_pdu(state), NOW_MS)
    assert (report.connector_id, report.key, report.state, report.at_ms) == (CONNECTOR_ID, "a1", ours, NOW_MS)
    assert (report.code, report.recipient) == ("027", "966501234567")


def test_every_state_has_a_word_of_ours() -> None:
    for state in MessageState:
        translator().read_receipt(receipt_pdu(state), NOW_MS)


def test_intermediate_notification_decides_nothing() -> None:
    pdu = receipt_pdu(MessageState.UNDELIVERABLE, esm_class=int(EsmClass.TYPE_INTERMEDIATE))
    assert translator().read_receipt(pdu, NOW_MS).state is State.SENT


def test_words_of_the_message_in_a_receipt_are_not_kept() -> None:
    report = translator().read_receipt(receipt_pdu(MessageState.DELIVERED), NOW_MS)
    assert "code" not in report.raw
    assert report.raw.startswith("id:a1 ")


def test_receipt_without_an_error_code_gives_its_word() -> None:
    text = receipt.build("a1", MessageState.EXPIRED, submit_digits="2611221430", done_digits="2611221431")
    report = translator().read_receipt(receipt_pdu(MessageState.EXPIRED, short_message=text), NOW_MS)
    assert report.code == "EXPIRED"


@pytest.mark.parametrize(
    ("submit_form", "receipt_form", "submitted", "reported"),
    [
        ("as_is", "as_is", "0Ab", "0Ab"),
        ("hex", "decimal", "00A1", "161"),
        ("decimal", "hex", "161", "a1"),
        ("hex", "hex", "0xA1", "00a1"),
        ("either", "either", "a1", "161"),
    ],
)
def test_id_is_matched_in_whatever_form_it_comes_back(
    submit_form: str, receipt_form: str, submitted: str, reported: str
) -> None:
    own = translator(submit_id_form=submit_form, receipt_id_form=receipt_form)
    text = receipt.build(reported, MessageState.DELIVERED, submit_digits="2611221430", done_digits="2611221431")
    report = own.read_receipt(receipt_pdu(MessageState.DELIVERED, short_message=text), NOW_MS)
    assert report.key == own.key_of(submitted)


def test_receipt_that_cannot_be_read_holds_nothing_that_a_store_refuses() -> None:
    text = b"id:a\0b stat:??\0? err:\0 \xff\xfe"
    report = translator().read_receipt(receipt_pdu(MessageState.DELIVERED, short_message=text), NOW_MS)
    assert "\0" not in report.key + report.code + report.raw + report.recipient
    assert report.state is State.SENT


def message_pdu(part: PartBytes, **changes: Any) -> DeliverSm:
    given: dict[str, Any] = {
        "source_addr": "+905551234567",
        "destination_addr": "90850",
        "esm_class": int(EsmClass.UDHI) if part.udh else 0,
        "data_coding": part.data_coding,
        "short_message": part.udh + part.data,
    }
    return DeliverSm(**(given | changes))


def parts_of(text: str, alphabet: Alphabet, reference: int = 77) -> list[PartBytes]:
    return encode_parts(text, Encoding(alphabet, 0, 1), reference)


def test_message_from_a_person_is_read_with_its_numbers() -> None:
    (part,) = parts_of("STOP", Alphabet.GSM7)
    message = translator().read_message(message_pdu(part), NOW_MS)
    assert (message.sender, message.recipient, message.text) == ("905551234567", "90850", "STOP")
    assert (message.reference, message.number, message.total) == (-1, 1, 1)
    assert (message.connector_id, message.received_ms) == (CONNECTOR_ID, NOW_MS)


@pytest.mark.parametrize("alphabet", [Alphabet.GSM7, Alphabet.UCS2, Alphabet.GSM7_TR_LOCKING])
def test_parts_of_a_message_from_a_person_keep_their_places(alphabet: Alphabet) -> None:
    text = "merhaba dünya " * 20
    messages = [translator().read_message(message_pdu(part), NOW_MS) for part in parts_of(text, alphabet)]
    assert [message.number for message in messages] == list(range(1, len(messages) + 1))
    assert {(message.reference, message.total) for message in messages} == {(77, len(messages))}
    assert "".join(message.text for message in messages) == text


def test_message_from_a_person_keeps_what_tells_it_from_the_next_one() -> None:
    (part,) = parts_of("yes", Alphabet.GSM7)
    tlvs: dict[int, bytes] = {}
    put_text(tlvs, Tag.RECEIPTED_MESSAGE_ID, "mo-17")
    put_uint(tlvs, Tag.USER_MESSAGE_REFERENCE, 200)
    told = translator().read_message(message_pdu(part, tlvs=tlvs), NOW_MS, in_doubt=True)
    assert (told.carrier_id, told.mark, told.in_doubt) == ("mo-17", "00c8", True)
    bare = translator().read_message(message_pdu(part), NOW_MS)
    assert (bare.carrier_id, bare.mark, bare.in_doubt) == ("", "", False)


def test_message_in_the_carriers_own_codings_is_read() -> None:
    own = translator(gsm_data_coding=0x01, ucs2_data_coding=0x18, gsm_packed=True)
    (gsm,) = parts_of("a@b", Alphabet.GSM7)
    pdu = message_pdu(gsm, data_coding=1, short_message=pack(gsm.data))
    assert own.read_message(pdu, NOW_MS).text == "a@b"
    (ucs2,) = parts_of("مرحبا", Alphabet.UCS2)
    assert own.read_message(message_pdu(ucs2, data_coding=0x18), NOW_MS).text == "مرحبا"


def test_message_with_a_broken_header_is_read_as_far_as_it_goes() -> None:
    pdu = DeliverSm(source_addr="1", esm_class=int(EsmClass.UDHI), short_message=b"\x50hello")
    message = translator().read_message(pdu, NOW_MS)
    assert message.reference == -1
    assert "hello" in message.text
