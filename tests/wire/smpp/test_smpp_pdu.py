"""The codec: every PDU both ways, what is refused and with which status, and a foreign peer for comparison."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smpplib import consts, smpp

from berid.wire.smpp import pdu as p
from berid.wire.smpp.codes import RESPONSE_BIT, CommandId, CommandStatus, Tag, command_name, status_name


def c_string(limit: int) -> st.SearchStrategy[str]:
    """What fits in a C-octet string of `limit` octets with its NUL."""
    return st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=limit - 1)


octet = st.integers(0, 255)
unknown_tag = st.integers(0x1400, 0x3FFF)
tlvs = st.dictionaries(unknown_tag, st.binary(max_size=40), max_size=4)
known_tlvs = st.sampled_from(sorted(p.UINT_SIZES)).flatmap(
    lambda tag: st.binary(min_size=p.UINT_SIZES[tag], max_size=p.UINT_SIZES[tag]).map(lambda value: {int(tag): value})
)

FIELDS = {
    "service_type": c_string(6),
    "system_id": c_string(16),
    "password": c_string(9),
    "system_type": c_string(13),
    "address_range": c_string(41),
    "source_addr": c_string(21),
    "destination_addr": c_string(21),
    "schedule_delivery_time": c_string(17),
    "validity_period": c_string(17),
    "final_date": c_string(17),
    "message_id": c_string(65),
    "esme_addr": c_string(65),
    "short_message": st.binary(max_size=255),
    "tlvs": st.one_of(tlvs, known_tlvs),
    "destinations": st.lists(
        st.one_of(
            st.builds(p.Address, octet, octet, c_string(21)),
            st.builds(p.DistributionList, c_string(21)),
        ),
        min_size=1,
        max_size=5,
    ).map(tuple),
    "unsuccessful": st.lists(
        st.builds(p.Unsuccessful, octet, octet, c_string(21), st.integers(0, 0xFFFFFFFF)), max_size=4
    ).map(tuple),
}
LONG_ADDRESSES = {"source_addr": c_string(65), "destination_addr": c_string(65)}


def strategy_of(pdu_type: type[p.Pdu]) -> st.SearchStrategy[p.Pdu]:
    fields = {name: FIELDS.get(name, octet) for name in pdu_type.__struct_fields__}
    if pdu_type in (p.DataSm, p.AlertNotification):
        fields |= {name: strategy for name, strategy in LONG_ADDRESSES.items() if name in fields}
    return st.builds(pdu_type, **fields)


any_pdu = st.one_of([strategy_of(pdu_type) for pdu_type in p.PDU_TYPES])

SUBMIT = p.SubmitSm(
    source_addr_ton=5,
    source_addr="BERID",
    dest_addr_ton=1,
    dest_addr_npi=1,
    destination_addr="966501234567",
    validity_period="000000000500000R",
    registered_delivery=1,
    short_message=b"Your code is 123456",
    tlvs={Tag.USER_MESSAGE_REFERENCE: b"\x01\x02"},
)
SAMPLES = [
    p.BindTransceiver("berid", "secret", "OTA", 0x34, 1, 1, "966.*"),
    p.BindTransceiverResp("carrier", {Tag.SC_INTERFACE_VERSION: b"\x34"}),
    p.Outbind("carrier", "secret"),
    SUBMIT,
    p.SubmitSmResp("a000000001"),
    p.SubmitMulti(destinations=(p.Address(1, 1, "9665"), p.DistributionList("staff")), short_message=b"hi"),
    p.SubmitMultiResp("a1", (p.Unsuccessful(1, 1, "9665", 11),)),
    p.DeliverSm(source_addr="9665", destination_addr="BERID", short_message=b"OK"),
    p.DeliverSmResp(),
    p.DataSm(destination_addr="9665", tlvs={Tag.MESSAGE_PAYLOAD: b"hello"}),
    p.DataSmResp("a1"),
    p.QuerySm("a1", 1, 1, "9665"),
    p.QuerySmResp("a1", "261122143207000+", 2, 0),
    p.CancelSm("", "a1", 5, 0, "BERID", 1, 1, "9665"),
    p.ReplaceSm("a1", 5, 0, "BERID", "", "", 1, 0, b"other"),
    p.AlertNotification(1, 1, "9665", 1, 1, "966", {Tag.MS_AVAILABILITY_STATUS: b"\0"}),
]


def fault_in_body(command_id: int, status: int, body: bytes) -> p.PduError | None:
    """The error that this body raises, or None if it is a PDU. Any other exception is a failure of the test."""
    try:
        p.decode_body(command_id, status, 7, body)
    except p.PduError as error:
        return error
    return None


def fault_in_frame(frame: bytes) -> p.PduError | None:
    """Likewise for a whole frame."""
    try:
        p.decode(frame)
    except p.PduError as error:
        return error
    return None


def test_every_command_of_the_specification_has_a_pdu() -> None:
    assert {pdu_type.command_id for pdu_type in p.PDU_TYPES} == set(CommandId)


@given(any_pdu, st.integers(1, p.MAX_SEQUENCE))
def test_what_is_encoded_decodes_to_itself(pdu: p.Pdu, sequence: int) -> None:
    frame = p.encode(pdu, sequence)
    assert p.decode(frame) == (sequence, 0, pdu)


@given(any_pdu, st.integers(1, p.MAX_SEQUENCE), st.integers(1, 0xFFFFFFFF))
def test_what_decodes_encodes_to_the_same_bytes(pdu: p.Pdu, sequence: int, status: int) -> None:
    frame = p.encode(pdu, sequence, status)
    again_sequence, again_status, again = p.decode(frame)
    assert p.encode(again, again_sequence, again_status) == frame


@pytest.mark.parametrize("pdu_type", p.PDU_TYPES, ids=lambda pdu_type: pdu_type.__name__)
def test_every_pdu_makes_the_round_trip_with_its_defaults(pdu_type: type[p.Pdu]) -> None:
    pdu = p.SubmitMulti(destinations=(p.Address(),)) if pdu_type is p.SubmitMulti else pdu_type()
    assert p.decode(p.encode(pdu, 1)) == (1, 0, pdu)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_or_raise_a_pdu_error(data: bytes) -> None:
    error = fault_in_frame(data)
    assert error is None or error.status in CommandStatus


@given(st.sampled_from(sorted(CommandId)), st.binary(max_size=300), st.integers(0, 255))
@settings(max_examples=400)
def test_an_arbitrary_body_of_any_command_decodes_or_raises_a_pdu_error(
    command_id: CommandId, body: bytes, status: int
) -> None:
    error = fault_in_body(command_id, status, body)
    if error is not None:
        assert error.status in CommandStatus
        assert (error.command_id, error.sequence) == (command_id, 7)
        assert not error.is_fatal
        assert (error.answer_id is None) == bool(command_id & RESPONSE_BIT)


@pytest.mark.parametrize("pdu", SAMPLES, ids=lambda pdu: type(pdu).__name__)
def test_a_frame_cut_at_any_octet_is_refused(pdu: p.Pdu) -> None:
    """With the length mended or not. A cut exactly before the parameters is a shorter, whole PDU."""
    frame = p.encode(pdu, 5)
    whole_without_tlvs = len(frame) - sum(4 + len(value) for value in getattr(pdu, "tlvs", {}).values())
    may_be_empty = isinstance(
        pdu, p.SubmitSmResp | p.DeliverSmResp | p.DataSmResp | p.BindTransceiverResp
    )  # answers whose body peers leave out
    for cut in range(len(frame)):
        with pytest.raises(p.PduError) as caught:
            p.decode(frame[:cut])
        assert caught.value.is_fatal
        if cut < 16 or cut == whole_without_tlvs or (cut == 16 and may_be_empty):
            continue
        with pytest.raises(p.PduError) as caught:
            p.decode(struct.pack(">I", cut) + frame[4:cut])
        assert not caught.value.is_fatal


@pytest.mark.parametrize("pdu", SAMPLES, ids=lambda pdu: type(pdu).__name__)
def test_a_flipped_bit_never_crashes_the_codec(pdu: p.Pdu) -> None:
    frame = p.encode(pdu, 5)
    for bit in range(len(frame) * 8):
        broken = bytearray(frame)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            sequence, status, other = p.decode(bytes(broken))
        except p.PduError:
            continue
        assert p.decode(p.encode(other, sequence, status)) == (sequence, status, other)


def test_a_thousand_random_mutations_never_crash_the_codec() -> None:
    rng = random.Random(34)
    for _ in range(1_000):
        frame = bytearray(p.encode(rng.choice(SAMPLES), 5))
        for _ in range(rng.randrange(1, 6)):
            frame[rng.randrange(16, len(frame)) if len(frame) > 16 else 15] = rng.randrange(256)
        error = fault_in_frame(bytes(frame))
        assert error is None or error.status in CommandStatus


def body_of(pdu: p.Pdu) -> bytes:
    return p.encode(pdu, 1)[16:]


LONG_21 = b"x" * 21
SUBMIT_HEAD = b"\0" + b"\5\0BERID\0" + b"\1\1966501234567\0"
SUBMIT_TAIL = b"\0\0\0" + b"\0" + b"\0" + b"\1\0\0\0"

REFUSALS = [
    ("unknown request", 0x00000777, b"", CommandStatus.ESME_RINVCMDID, CommandId.GENERIC_NACK),
    ("enquire_link with a body", 0x15, b"\0", CommandStatus.ESME_RINVCMDLEN, CommandId.ENQUIRE_LINK_RESP),
    ("service_type too long", 4, b"1234567" + SUBMIT_HEAD, CommandStatus.ESME_RINVSERTYP, 0x80000004),
    (
        "source too long",
        4,
        b"\0\5\0" + LONG_21 + b"\0\1\1966\0" + SUBMIT_TAIL + b"\0",
        CommandStatus.ESME_RINVSRCADR,
        0x80000004,
    ),
    (
        "destination too long",
        4,
        b"\0\5\0A\0\1\1" + LONG_21 + b"\0" + SUBMIT_TAIL + b"\0",
        CommandStatus.ESME_RINVDSTADR,
        0x80000004,
    ),
    (
        "schedule too long",
        4,
        SUBMIT_HEAD + b"\0\0\0" + b"1" * 17 + b"\0\0\1\0\0\0\0",
        CommandStatus.ESME_RINVSCHED,
        0x80000004,
    ),
    (
        "validity too long",
        4,
        SUBMIT_HEAD + b"\0\0\0\0" + b"1" * 17 + b"\0\1\0\0\0\0",
        CommandStatus.ESME_RINVEXPIRY,
        0x80000004,
    ),
    (
        "sm_length above the octets there are",
        4,
        SUBMIT_HEAD + SUBMIT_TAIL + b"\5abcd",
        CommandStatus.ESME_RINVMSGLEN,
        0x80000004,
    ),
    (
        "sm_length below the octets there are",
        4,
        SUBMIT_HEAD + SUBMIT_TAIL + b"\1abc",
        CommandStatus.ESME_RINVOPTPARSTREAM,
        0x80000004,
    ),
    (
        "parameter longer than the PDU",
        4,
        SUBMIT_HEAD + SUBMIT_TAIL + b"\0" + b"\x14\x00\xff\xffab",
        CommandStatus.ESME_RINVOPTPARSTREAM,
        0x80000004,
    ),
    (
        "three octets behind the parameters",
        4,
        SUBMIT_HEAD + SUBMIT_TAIL + b"\0" + b"\x14\x00\x00\x00" + b"abc",
        CommandStatus.ESME_RINVOPTPARSTREAM,
        0x80000004,
    ),
    (
        "sar_msg_ref_num of one octet",
        4,
        SUBMIT_HEAD + SUBMIT_TAIL + b"\0" + b"\x02\x0c\x00\x01a",
        CommandStatus.ESME_RINVPARLEN,
        0x80000004,
    ),
    ("body cut in the middle of an address", 4, SUBMIT_HEAD[:-4], CommandStatus.ESME_RINVCMDLEN, 0x80000004),
    ("body cut before the tail", 4, SUBMIT_HEAD + b"\0\0", CommandStatus.ESME_RINVCMDLEN, 0x80000004),
    ("body cut within the tail", 4, SUBMIT_HEAD + SUBMIT_TAIL, CommandStatus.ESME_RINVCMDLEN, 0x80000004),
    ("empty submit", 4, b"", CommandStatus.ESME_RINVCMDLEN, 0x80000004),
    ("system_id too long", 9, b"x" * 16 + b"\0", CommandStatus.ESME_RINVSYSID, 0x80000009),
    ("password too long", 9, b"a\0" + b"x" * 9 + b"\0", CommandStatus.ESME_RINVPASWD, 0x80000009),
    ("system_type too long", 9, b"a\0b\0" + b"x" * 13 + b"\0", CommandStatus.ESME_RINVSYSTYP, 0x80000009),
    ("message_id too long", 3, b"x" * 65 + b"\0", CommandStatus.ESME_RINVMSGID, 0x80000003),
    ("no destinations", 0x21, b"\0\5\0A\0\0", CommandStatus.ESME_RINVNUMDESTS, 0x80000021),
    ("dest_flag 3", 0x21, b"\0\5\0A\0\1\3", CommandStatus.ESME_RINVDESTFLAG, 0x80000021),
    ("outbind with more behind it", 0x0B, b"a\0b\0c", CommandStatus.ESME_RINVCMDLEN, CommandId.GENERIC_NACK),
]


@pytest.mark.parametrize(
    ("command_id", "body", "status", "answer_id"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_a_fault_is_answered_with_the_status_of_its_field(
    command_id: int, body: bytes, status: CommandStatus, answer_id: int
) -> None:
    with pytest.raises(p.PduError) as caught:
        p.decode_body(command_id, 0, 9, body)
    assert caught.value.status == status
    assert caught.value.answer_id == answer_id
    assert caught.value.sequence == 9


@pytest.mark.parametrize("length", [0, 15, 17, p.MAX_PDU_BYTES + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_command_length_outside_the_limits_ends_the_stream(length: int) -> None:
    frame = struct.pack(">IIII", length, CommandId.SUBMIT_SM, 0, 12)
    with pytest.raises(p.PduError) as caught:
        p.decode(frame)
    assert caught.value.is_fatal
    assert caught.value.status == CommandStatus.ESME_RINVCMDLEN
    assert caught.value.answer_id == CommandId.GENERIC_NACK
    assert caught.value.sequence == 12


def test_a_faulty_response_has_no_answer() -> None:
    with pytest.raises(p.PduError) as caught:
        p.decode_body(CommandId.SUBMIT_SM_RESP, 0, 9, b"id without an end")
    assert caught.value.answer_id is None


def test_an_odd_parameter_in_a_receipt_is_kept_and_its_accessor_gives_none() -> None:
    body = body_of(p.DeliverSm(short_message=b"id:1", tlvs={Tag.MESSAGE_STATE: b"\0\0\0\2"}))
    pdu = p.decode_body(CommandId.DELIVER_SM, 0, 1, body)
    assert isinstance(pdu, p.DeliverSm)
    assert pdu.tlvs == {Tag.MESSAGE_STATE: b"\0\0\0\2"}
    assert p.get_uint(pdu.tlvs, Tag.MESSAGE_STATE) is None


def test_parameters_keep_their_order_and_the_last_of_a_repeated_tag_counts() -> None:
    body = body_of(p.DeliverSm()) + b"\x14\x02\0\1a" + b"\x14\x01\0\1b" + b"\x14\x02\0\1c"
    pdu = p.decode_body(CommandId.DELIVER_SM, 0, 1, body)
    assert isinstance(pdu, p.DeliverSm)
    assert list(pdu.tlvs.items()) == [(0x1402, b"c"), (0x1401, b"b")]


@pytest.mark.parametrize(
    ("command_id", "expected"),
    [
        (CommandId.SUBMIT_SM_RESP, p.SubmitSmResp()),
        (CommandId.QUERY_SM_RESP, p.QuerySmResp()),
        (CommandId.BIND_TRANSCEIVER_RESP, p.BindTransceiverResp()),
        (CommandId.SUBMIT_MULTI_RESP, p.SubmitMultiResp()),
    ],
)
def test_a_refusing_response_may_leave_its_body_out(command_id: int, expected: p.Pdu) -> None:
    assert p.decode_body(command_id, 11, 1, b"") == expected


def test_a_query_answered_with_yes_needs_its_body() -> None:
    with pytest.raises(p.PduError):
        p.decode_body(CommandId.QUERY_SM_RESP, 0, 1, b"")


@pytest.mark.parametrize("command_id", [CommandId.SUBMIT_SM_RESP, CommandId.DELIVER_SM_RESP, CommandId.DATA_SM_RESP])
def test_a_yes_without_a_body_is_a_yes_without_an_id(command_id: int) -> None:
    pdu = p.decode_body(command_id, 0, 1, b"")
    assert isinstance(pdu, p.SubmitSmResp | p.DeliverSmResp | p.DataSmResp)
    assert pdu.message_id == ""


@pytest.mark.parametrize(
    ("command_id", "length"),
    [(CommandId.SUBMIT_SM_RESP, 16), (CommandId.BIND_RECEIVER_RESP, 16), (CommandId.DELIVER_SM_RESP, 17)],
)
def test_a_refusal_has_the_body_that_the_specification_gives_it(command_id: int, length: int) -> None:
    frame = p.encode_bare(command_id, 4, CommandStatus.ESME_RSYSERR)
    assert len(frame) == length
    sequence, status, _ = p.decode(frame)
    assert (sequence, status) == (4, CommandStatus.ESME_RSYSERR)


@pytest.mark.parametrize(
    ("pdu", "field"),
    [
        (p.SubmitSm(source_addr="x" * 21), "source_addr"),
        (p.SubmitSm(destination_addr="x" * 21), "destination_addr"),
        (p.SubmitSm(service_type="123456"), "service_type"),
        (p.SubmitSm(schedule_delivery_time="1" * 17), "schedule_delivery_time"),
        (p.SubmitSm(validity_period="1" * 17), "validity_period"),
        (p.SubmitSm(short_message=b"x" * 256), "short_message"),
        (p.SubmitSm(source_addr="a\0b"), "source_addr"),
        (p.SubmitSm(destination_addr="9665\0"), "destination_addr"),
        (p.SubmitSm(source_addr="ŞOK"), "source_addr"),
        (p.SubmitSm(data_coding=256), "one-octet field"),
        (p.SubmitSm(esm_class=-1), "one-octet field"),
        (p.SubmitSm(tlvs={0x1400: b"x" * 65_536}), "optional parameter"),
        (p.SubmitSm(tlvs={65_536: b""}), "optional parameter"),
        (p.SubmitSmResp("x" * 65), "message_id"),
        (p.SubmitSmResp("a\0"), "message_id"),
        (p.BindTransceiver(password="123456789"), "password"),
        (p.BindTransceiver(interface_version=256), "one-octet field"),
        (p.SubmitMulti(), "1 to 254 destinations"),
        (p.SubmitMulti(destinations=(p.Address(),) * 255), "1 to 254 destinations"),
        (p.SubmitMultiResp(unsuccessful=(p.Unsuccessful(),) * 256), "255 failures"),
        (p.SubmitMultiResp(unsuccessful=(p.Unsuccessful(status=-1),)), "four-octet field"),
        (p.ReplaceSm(short_message=b"x" * 256), "short_message"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_the_field_s_name(pdu: p.Pdu, field: str) -> None:
    with pytest.raises(p.EncodeError, match=field):
        p.encode(pdu, 1)


@given(strategy_of(p.SubmitSm), c_string(21))
def test_a_submit_packed_around_its_destination_is_the_submit_to_that_one(submit: p.Pdu, destination: str) -> None:
    assert isinstance(submit, p.SubmitSm)
    before, behind = submit.around_destination()
    submit.destination_addr = destination
    assert p.encode(p.PackedSubmit(before, destination, behind), 7) == p.encode(submit, 7)


@pytest.mark.parametrize("destination", ["9" * 21, "96\0", "٩٦٦"])
def test_a_packed_submit_is_refused_for_its_destination(destination: str) -> None:
    with pytest.raises(p.EncodeError, match="destination_addr"):
        p.encode(p.PackedSubmit(b"", destination, b""), 7)


def test_content_comes_from_the_payload_if_there_is_no_short_message() -> None:
    assert p.SubmitSm(tlvs={Tag.MESSAGE_PAYLOAD: b"long"}).content == b"long"
    assert p.DeliverSm(short_message=b"short").content == b"short"
    assert p.DataSm(tlvs={Tag.MESSAGE_PAYLOAD: b"long"}).content == b"long"
    assert p.SubmitMulti(tlvs={Tag.MESSAGE_PAYLOAD: b"long"}).content == b"long"
    assert p.DataSm().content == b""


@pytest.mark.parametrize(
    ("tag", "value", "octets"),
    [
        (Tag.SAR_MSG_REF_NUM, 0x1234, b"\x12\x34"),
        (Tag.SAR_TOTAL_SEGMENTS, 3, b"\x03"),
        (Tag.MESSAGE_STATE, 2, b"\x02"),
        (Tag.USER_MESSAGE_REFERENCE, 65_535, b"\xff\xff"),
        (Tag.SC_INTERFACE_VERSION, 0x34, b"\x34"),
        (Tag.QOS_TIME_TO_LIVE, 60, b"\0\0\0\x3c"),
    ],
)
def test_a_number_parameter_is_written_in_its_size_and_read_back(tag: Tag, value: int, octets: bytes) -> None:
    parameters: dict[int, bytes] = {}
    p.put_uint(parameters, tag, value)
    assert parameters == {tag: octets}
    assert p.get_uint(parameters, tag) == value


@pytest.mark.parametrize(("tag", "value"), [(Tag.MESSAGE_STATE, 256), (Tag.SAR_MSG_REF_NUM, -1)])
def test_a_number_that_does_not_fit_its_parameter_is_refused(tag: Tag, value: int) -> None:
    with pytest.raises(p.EncodeError):
        p.put_uint({}, tag, value)


def test_absent_parameters_are_none() -> None:
    assert p.get_uint({}, Tag.MESSAGE_STATE) is None
    assert p.get_text({}, Tag.RECEIPTED_MESSAGE_ID) is None
    assert p.get_network_error({}) is None


@pytest.mark.parametrize("octets", [b"abc\0", b"abc", b"abc\0\0x"])
def test_a_text_parameter_ends_at_its_nul_or_where_it_ends(octets: bytes) -> None:
    assert p.get_text({Tag.RECEIPTED_MESSAGE_ID: octets}, Tag.RECEIPTED_MESSAGE_ID) == "abc"


def test_network_error_code_is_a_type_and_a_code() -> None:
    parameters: dict[int, bytes] = {}
    p.put_network_error(parameters, 3, 0x0102)
    assert parameters == {Tag.NETWORK_ERROR_CODE: b"\x03\x01\x02"}
    assert p.get_network_error(parameters) == (3, 0x0102)
    assert p.get_network_error({Tag.NETWORK_ERROR_CODE: b"\x03\x01"}) is None
    with pytest.raises(p.EncodeError):
        p.put_network_error({}, 3, 65_536)


def test_no_secret_shows_in_the_text_of_a_pdu() -> None:
    assert "hunter2" not in repr(p.BindTransceiver("berid", "hunter2"))
    submit = p.SubmitSm(destination_addr="9665", short_message=b"code 123456", tlvs={Tag.MESSAGE_PAYLOAD: b"654321"})
    assert "123456" not in repr(submit)
    assert "654321" not in repr(submit)
    assert "9665" in repr(submit)
    packed = p.PackedSubmit(b"", "9665", b"code 123456")
    assert "123456" not in repr(packed)
    assert "9665" in repr(packed)


def test_names_for_logs_are_those_of_the_specification_or_the_number() -> None:
    assert status_name(0x58) == "ESME_RTHROTTLED"
    assert status_name(0x412) == "0x00000412"
    assert command_name(4) == "submit_sm"
    assert command_name(0x777) == "0x00000777"


# A foreign codec says the same


class Numbers:
    """What smpplib's PDUs ask their client for."""

    sequence = 31

    def next_sequence(self) -> int:
        return self.sequence


def test_a_submit_of_ours_is_read_alike_by_smpplib() -> None:
    frame = p.encode(SUBMIT, 77)
    theirs = smpp.parse_pdu(frame, client=Numbers(), allow_unknown_opt_params=True)
    assert theirs.command == "submit_sm"
    assert theirs.sequence == 77
    assert theirs.source_addr == b"BERID"
    assert theirs.destination_addr == b"966501234567"
    assert theirs.validity_period == b"000000000500000R"
    assert theirs.short_message == b"Your code is 123456"
    assert theirs.registered_delivery == 1
    assert theirs.user_message_reference == 0x0102


def test_a_submit_of_smpplib_is_read_alike_by_us() -> None:
    theirs = smpp.make_pdu(
        "submit_sm",
        client=Numbers(),
        source_addr_ton=consts.SMPP_TON_ALNUM,
        source_addr="BERID",
        dest_addr_ton=consts.SMPP_TON_INTL,
        dest_addr_npi=consts.SMPP_NPI_ISDN,
        destination_addr="966501234567",
        short_message=b"hello",
        data_coding=8,
        registered_delivery=1,
        sar_msg_ref_num=513,
    )
    frame = theirs.generate()
    sequence, status, pdu = p.decode(frame)
    assert (sequence, status) == (31, 0)
    assert pdu == p.SubmitSm(
        source_addr_ton=5,
        source_addr="BERID",
        dest_addr_ton=1,
        dest_addr_npi=1,
        destination_addr="966501234567",
        short_message=b"hello",
        data_coding=8,
        registered_delivery=1,
        tlvs={Tag.SAR_MSG_REF_NUM: b"\x02\x01"},
    )


def test_our_statuses_have_the_numbers_that_smpplib_gives_them() -> None:
    theirs = {name.removeprefix("SMPP_"): value for name, value in vars(consts).items() if name.startswith("SMPP_ESME")}
    ours = {status.name: int(status) for status in CommandStatus}
    for name in theirs.keys() & ours.keys():
        assert ours[name] == theirs[name], name
    assert len(theirs.keys() & ours.keys()) > 40


def test_our_parameter_tags_have_the_numbers_that_smpplib_gives_them() -> None:
    theirs = {name.upper(): value for name, value in consts.OPTIONAL_PARAMS.items()}
    ours = {tag.name: int(tag) for tag in Tag}
    for name in theirs.keys() & ours.keys():
        assert ours[name] == theirs[name], name
    assert len(theirs.keys() & ours.keys()) > 40
