"""Receipts in the forms that carriers send, and ids that are written in two ways."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid.wire.smpp.codes import DataCoding, EsmClass, MessageState, Tag
from berid.wire.smpp.pdu import DataSm, DeliverSm, decode, encode
from berid.wire.smpp.receipt import (
    IdForm,
    Receipt,
    build,
    build_tlvs,
    is_receipt,
    match_key,
    parse,
    parse_digits,
)


def naive(*parts: int) -> datetime:
    """A date without a zone, as carriers write them."""
    return datetime(*parts)  # noqa: DTZ001


def receipt_of(text: str, tlvs: dict[int, bytes] | None = None, esm_class: int = EsmClass.TYPE_RECEIPT) -> Receipt:
    return parse(DeliverSm(esm_class=esm_class, short_message=text.encode("latin-1"), tlvs=tlvs or {}))


TEXTS = [
    pytest.param(
        "id:a000000001 sub:001 dlvrd:001 submit date:2611221430 done date:2611221432 stat:DELIVRD err:000 text:Your code",
        ("a000000001", MessageState.DELIVERED, "000", "2611221430", "2611221432"),
        id="customary",
    ),
    pytest.param(
        "id:7220bb6bd0be98fa628de66590f80070 sub:001 dlvrd:000 submit date:261122143005 done date:261122143205 "
        "stat:UNDELIV err:075 text:-",
        ("7220bb6bd0be98fa628de66590f80070", MessageState.UNDELIVERABLE, "075", "261122143005", "261122143205"),
        id="dates with seconds",
    ),
    pytest.param(
        "ID:12 SUB:001 DLVRD:001 SUBMIT DATE:2611221430 DONE DATE:2611221432 STAT:EXPIRED ERR:9 TEXT:HELLO",
        ("12", MessageState.EXPIRED, "9", "2611221430", "2611221432"),
        id="upper case",
    ),
    pytest.param(
        "id:0118Z-0122I-2309U sub:000 dlvrd:000 submitdate:261122143005 donedate:261122143205 stat:REJECTED err:375 text:",
        ("0118Z-0122I-2309U", MessageState.REJECTED, "375", "261122143005", "261122143205"),
        id="dates' names without the blank, the whole word as state",
    ),
    pytest.param("id:5 stat:DELIVRD", ("5", MessageState.DELIVERED, "", "", ""), id="fields missing"),
    pytest.param("stat:DELETED id:5", ("5", MessageState.DELETED, "", "", ""), id="another order"),
    pytest.param(
        "id: 5  sub: 001 dlvrd: 001 submit date: 2611221430 done date: 2611221432 stat: ACCEPTD err: 0",
        ("5", MessageState.ACCEPTED, "0", "2611221430", "2611221432"),
        id="blanks behind the colons",
    ),
    pytest.param("id:5,stat:enroute,err:1", ("5", MessageState.ENROUTE, "1", "", ""), id="commas, lower case"),
    pytest.param("id:5 stat:UNDELIVERED", ("5", MessageState.UNDELIVERABLE, "", "", ""), id="undelivered"),
    pytest.param("id:5 stat:SKIPPED err:", ("5", MessageState.SKIPPED, "", "", ""), id="5.0 state, empty field"),
    pytest.param("id:5 stat:WHATEVER err:1", ("5", MessageState.UNKNOWN, "1", "", ""), id="a word that is no state"),
    pytest.param("", ("", MessageState.UNKNOWN, "", "", ""), id="empty"),
    pytest.param("OK", ("", MessageState.UNKNOWN, "", "", ""), id="no receipt at all"),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_the_text_form_is_read_in_any_custom(text: str, expected: tuple[str, MessageState, str, str, str]) -> None:
    receipt = receipt_of(text)
    assert (
        receipt.message_id,
        receipt.state,
        receipt.error,
        receipt.submit_digits,
        receipt.done_digits,
    ) == expected
    assert receipt.text == text


def test_what_the_sender_wrote_is_not_taken_for_the_carrier_s_words() -> None:
    receipt = receipt_of("id:5 stat:UNDELIV err:1 text:id:6 stat:DELIVRD err:0")
    assert (receipt.message_id, receipt.state, receipt.error) == ("5", MessageState.UNDELIVERABLE, "1")


def test_a_key_inside_a_word_is_not_a_key() -> None:
    assert receipt_of("paid:9 id:5 upstat:X stat:DELIVRD").message_id == "5"
    assert receipt_of("paid:9 id:5 upstat:X stat:DELIVRD").state is MessageState.DELIVERED


def test_the_word_behind_stat_is_kept_as_it_came() -> None:
    assert receipt_of("id:5 stat:Delivrd").stat == "Delivrd"
    assert receipt_of("id:5 stat:BUFFRED").stat == "BUFFRED"


def test_parameters_win_over_the_text() -> None:
    receipt = receipt_of(
        "id:5 sub:001 dlvrd:001 submit date:2611221430 done date:2611221432 stat:ENROUTE err:000 text:",
        {
            Tag.RECEIPTED_MESSAGE_ID: b"a000000001\0",
            Tag.MESSAGE_STATE: b"\x05",
            Tag.NETWORK_ERROR_CODE: b"\x03\x00\x1b",
        },
    )
    assert receipt.message_id == "a000000001"
    assert receipt.state is MessageState.UNDELIVERABLE
    assert (receipt.error, receipt.network_type) == ("027", 3)
    assert receipt.done_digits == "2611221432"
    assert receipt.is_final


def test_a_receipt_may_be_parameters_alone() -> None:
    receipt = parse(DataSm(esm_class=EsmClass.TYPE_RECEIPT, tlvs=build_tlvs("77", MessageState.EXPIRED, error=8)))
    assert receipt.message_id == "77"
    assert receipt.state is MessageState.EXPIRED
    assert (receipt.error, receipt.network_type) == ("008", 3)
    assert receipt.done_at is None


@pytest.mark.parametrize(
    "tlvs",
    [
        {Tag.MESSAGE_STATE: b"\x63"},
        {Tag.MESSAGE_STATE: b""},
        {Tag.MESSAGE_STATE: b"\0\0\0\1"},
        {Tag.NETWORK_ERROR_CODE: b"\x03"},
        {Tag.RECEIPTED_MESSAGE_ID: b"\0"},
        {Tag.RECEIPTED_MESSAGE_ID: b""},
        {0x1454: b"\0\0\0\0"},
    ],
)
def test_a_parameter_that_makes_no_sense_leaves_the_text_s_word(tlvs: dict[int, bytes]) -> None:
    receipt = receipt_of("id:5 stat:DELIVRD err:007", tlvs)
    assert (receipt.message_id, receipt.state, receipt.error) == ("5", MessageState.DELIVERED, "007")


def test_a_receipt_text_in_ucs2_is_read() -> None:
    text = "id:5 stat:DELIVRD err:000"
    pdu = DeliverSm(
        esm_class=EsmClass.TYPE_RECEIPT, data_coding=DataCoding.UCS2, short_message=text.encode("utf-16-be")
    )
    assert parse(pdu).message_id == "5"


@pytest.mark.parametrize(
    ("esm_class", "text", "is_final"),
    [
        (EsmClass.TYPE_RECEIPT, "id:5 stat:DELIVRD", True),
        (EsmClass.TYPE_RECEIPT, "id:5 stat:ENROUTE", False),
        (EsmClass.TYPE_RECEIPT, "id:5 stat:ACCEPTD", False),
        (EsmClass.TYPE_RECEIPT, "id:5 stat:UNKNOWN", True),
        (EsmClass.TYPE_INTERMEDIATE, "id:5 stat:UNDELIV", False),
    ],
)
def test_only_a_state_that_stays_is_final(esm_class: int, text: str, is_final: bool) -> None:
    assert receipt_of(text, esm_class=esm_class).is_final is is_final


@pytest.mark.parametrize(
    ("esm_class", "tlvs", "expected"),
    [
        (0x04, {}, True),
        (0x20, {}, True),
        (0x04 | 0x40 | 0x03, {}, True),
        (0x00, {Tag.RECEIPTED_MESSAGE_ID: b"5\0"}, True),
        (0x00, {}, False),
        (0x40, {}, False),
        (0x08, {Tag.RECEIPTED_MESSAGE_ID: b"5\0"}, False),
        (0x10, {}, False),
        (0x18, {}, False),
    ],
)
def test_a_receipt_is_what_the_carrier_marks_as_one(esm_class: int, tlvs: dict[int, bytes], expected: bool) -> None:
    pdu = DeliverSm(esm_class=esm_class, short_message=b"id:5 stat:DELIVRD", tlvs=tlvs)
    assert is_receipt(pdu) is expected


@pytest.mark.parametrize(
    ("tlvs", "text", "expected"),
    [
        ({Tag.RECEIPTED_MESSAGE_ID: b"5\0", Tag.MESSAGE_STATE: b"\2"}, b"", True),
        ({Tag.RECEIPTED_MESSAGE_ID: b"5\0"}, b"id:5 Stat:DELIVRD", True),
        ({Tag.RECEIPTED_MESSAGE_ID: b"5\0"}, "id:5 stat:DELIVRD".encode("utf-16-be"), True),
        ({Tag.RECEIPTED_MESSAGE_ID: b"5\0"}, b"yes", False),
        ({Tag.RECEIPTED_MESSAGE_ID: b"5\0"}, b"", False),
    ],
)
def test_an_id_alone_makes_no_receipt_of_what_a_person_wrote(
    tlvs: dict[int, bytes], text: bytes, expected: bool
) -> None:
    assert is_receipt(DeliverSm(short_message=text, tlvs=tlvs)) is expected


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("2611221432", naive(2026, 11, 22, 14, 32)),
        ("261122143207", naive(2026, 11, 22, 14, 32, 7)),
        ("202611221432", naive(2026, 11, 22, 14, 32)),
        ("20261122143207", naive(2026, 11, 22, 14, 32, 7)),
        ("000000000000", None),
        ("0000000000", None),
        ("2613221432", None),
        ("26112214320", None),
        ("", None),
        ("yesterday", None),
        ("٢٦١١٢٢١٤٣٢", None),
    ],
)
def test_dates_are_read_with_or_without_seconds_and_century(digits: str, expected: datetime | None) -> None:
    assert parse_digits(digits) == expected


@given(
    st.text(st.characters(min_codepoint=1, max_codepoint=255)),
    st.dictionaries(st.sampled_from([0x001E, 0x0427, 0x0423]), st.binary(max_size=10)),
    st.integers(0, 255),
)
def test_whatever_stands_in_a_receipt_it_is_read_without_an_error(
    text: str, tlvs: dict[int, bytes], esm_class: int
) -> None:
    assert receipt_of(text, tlvs, esm_class).text == text


word = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",;"), max_size=12)
digits = st.text("0123456789", max_size=14)


@given(word, digits, digits, st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", max_size=9), digits, word)
def test_the_short_cut_for_the_customary_text_reads_what_the_long_way_reads(
    message_id: str, submitted: str, done: str, stat: str, error: str, quote: str
) -> None:
    """Two blanks in a row are not customary, so the second text takes the long way."""
    text = f"id:{message_id} sub:001 dlvrd:001 submit date:{submitted} done date:{done} stat:{stat} err:{error} text:{quote}"
    short_cut = receipt_of(text)
    long_way = receipt_of(text.replace(" sub:", "  sub:", 1))
    assert short_cut.message_id == message_id
    long_way.text = text
    assert short_cut == long_way


@pytest.mark.parametrize("state", list(MessageState))
def test_a_built_receipt_is_read_back(state: MessageState) -> None:
    text = build(
        "a1", state, submit_digits="2611221430", done_digits="2611221432", error=27, quote=b"Your code is 123456789"
    )
    pdu = DeliverSm(esm_class=EsmClass.TYPE_RECEIPT, short_message=text)
    _, _, received = decode(encode(pdu, 1))
    assert isinstance(received, DeliverSm)
    receipt = parse(received)
    assert (receipt.message_id, receipt.state, receipt.error) == ("a1", state, "027")
    assert receipt.done_at == naive(2026, 11, 22, 14, 32)
    assert receipt.submit_digits == "2611221430"
    assert receipt.text.endswith("text:Your code is 1234567")
    by_parameters = parse(DeliverSm(esm_class=EsmClass.TYPE_RECEIPT, tlvs=build_tlvs("a1", state)))
    assert (by_parameters.message_id, by_parameters.state) == ("a1", state)


def test_a_built_receipt_counts_what_was_delivered() -> None:
    delivered = build("1", MessageState.DELIVERED, submit_digits="2611221430", done_digits="2611221432")
    expired = build("1", MessageState.EXPIRED, submit_digits="2611221430", done_digits="2611221432")
    assert delivered == (
        b"id:1 sub:001 dlvrd:001 submit date:2611221430 done date:2611221432 stat:DELIVRD err:000 text:"
    )
    assert b"dlvrd:000" in expired


SAME_MESSAGE = [
    # id answered, its form, id in the receipt, its form
    ("77", IdForm.AS_IS, "77", IdForm.AS_IS),
    ("77", IdForm.AS_IS, " 77 ", IdForm.AS_IS),
    ("1A2B3C", IdForm.HEX, "1715004", IdForm.DECIMAL),
    ("001a2b3c", IdForm.HEX, "0001715004", IdForm.DECIMAL),
    ("0x1A2B3C", IdForm.HEX, "1a2b3c", IdForm.HEX),
    ("1715004", IdForm.DECIMAL, "1A2B3C", IdForm.HEX),
    ("0001715004", IdForm.DECIMAL, "1715004", IdForm.DECIMAL),
    ("1a2b3c", IdForm.HEX, "00000000001A2B3C", IdForm.HEX),
    ("a000000001", IdForm.EITHER, "687194767361", IdForm.EITHER),
    ("a000000001", IdForm.EITHER, "000000A000000001", IdForm.EITHER),
    ("0", IdForm.DECIMAL, "000", IdForm.HEX),
    ("7220bb6bd0be98fa628de66590f80070", IdForm.HEX, "7220BB6BD0BE98FA628DE66590F80070", IdForm.HEX),
    ("0118Z-0122I", IdForm.HEX, "0118z-0122i", IdForm.DECIMAL),
    ("0118Z-0122I", IdForm.EITHER, "0118z-0122i", IdForm.EITHER),
]


@pytest.mark.parametrize(("answered", "answered_form", "receipted", "receipted_form"), SAME_MESSAGE)
def test_one_id_in_two_forms_has_one_key(
    answered: str, answered_form: IdForm, receipted: str, receipted_form: IdForm
) -> None:
    assert match_key(answered, answered_form) == match_key(receipted, receipted_form)


OTHER_MESSAGE = [
    ("77", IdForm.AS_IS, "077", IdForm.AS_IS),
    ("1a", IdForm.AS_IS, "1A", IdForm.AS_IS),
    ("10", IdForm.HEX, "10", IdForm.DECIMAL),
    ("10", IdForm.DECIMAL, "100", IdForm.DECIMAL),
    ("1a", IdForm.HEX, "1b", IdForm.HEX),
]


@pytest.mark.parametrize(("answered", "answered_form", "receipted", "receipted_form"), OTHER_MESSAGE)
def test_ids_that_differ_in_their_form_have_two_keys(
    answered: str, answered_form: IdForm, receipted: str, receipted_form: IdForm
) -> None:
    assert match_key(answered, answered_form) != match_key(receipted, receipted_form)


@given(st.integers(0, 2**64))
def test_any_number_has_one_key_in_all_numeric_forms(number: int) -> None:
    assert (
        match_key(f"{number:x}", IdForm.HEX)
        == match_key(f"{number:020X}", IdForm.HEX)
        == match_key(str(number), IdForm.DECIMAL)
        == match_key(f"{number:024d}", IdForm.DECIMAL)
    )


@given(st.text(), st.sampled_from(IdForm))
def test_any_text_has_a_key_and_the_key_is_its_own_key(raw_id: str, form: IdForm) -> None:
    key = match_key(raw_id, form)
    if form is not IdForm.HEX:
        assert match_key(key, form) == key
