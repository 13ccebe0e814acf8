"""Parts of long messages, by user data header, by SAR parameters and by payload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid.base import text
from berid.wire.smpp.codes import EsmClass, Tag
from berid.wire.smpp.pdu import DataSm, DeliverSm, SubmitMulti, SubmitSm
from berid.wire.smpp.udh import Content, HeaderError, read_content

UDHI = EsmClass.UDHI


def with_header(header: bytes, body: bytes = b"text") -> DeliverSm:
    return DeliverSm(esm_class=UDHI, short_message=header + body)


ROWS = [
    ("no header", DeliverSm(short_message=b"text"), Content(b"text")),
    ("8-bit reference", with_header(b"\5\0\3\xcc\3\2"), Content(b"text", b"\5\0\3\xcc\3\2", 0xCC, 3, 2)),
    (
        "16-bit reference",
        with_header(b"\6\x08\4\x12\x34\3\2"),
        Content(b"text", b"\6\x08\4\x12\x34\3\2", 0x1234, 3, 2),
    ),
    (
        "Turkish single shift in one part",
        with_header(b"\3\x24\1\1"),
        Content(b"text", b"\3\x24\1\1", single_shift=1),
    ),
    (
        "part with locking and single shift",
        with_header(b"\x0b\0\3\7\2\1\x24\1\1\x25\1\1"),
        Content(b"text", b"\x0b\0\3\7\2\1\x24\1\1\x25\1\1", 7, 2, 1, 1, 1),
    ),
    ("ports only", with_header(b"\6\5\4\x0b\x84\0\0"), Content(b"text", b"\6\5\4\x0b\x84\0\0")),
    ("empty header", with_header(b"\0"), Content(b"text", b"\0")),
    ("header alone", with_header(b"\5\0\3\1\2\1", b""), Content(b"", b"\5\0\3\1\2\1", 1, 2, 1)),
    ("number 0", with_header(b"\5\0\3\1\2\0"), Content(b"text", b"\5\0\3\1\2\0")),
    ("number above the total", with_header(b"\5\0\3\1\2\3"), Content(b"text", b"\5\0\3\1\2\3")),
    ("total 0", with_header(b"\5\0\3\1\0\0"), Content(b"text", b"\5\0\3\1\0\0")),
    (
        "element of a wrong length",
        with_header(b"\6\0\4\1\2\1\0"),
        Content(b"text", b"\6\0\4\1\2\1\0"),
    ),
    (
        "element twice, the last counts",
        with_header(b"\x0a\0\3\1\2\1\0\3\1\2\2"),
        Content(b"text", b"\x0a\0\3\1\2\1\0\3\1\2\2", 1, 2, 2),
    ),
    (
        "SAR parameters",
        SubmitSm(
            short_message=b"text",
            tlvs={Tag.SAR_MSG_REF_NUM: b"\1\2", Tag.SAR_TOTAL_SEGMENTS: b"\3", Tag.SAR_SEGMENT_SEQNUM: b"\2"},
        ),
        Content(b"text", b"", 0x0102, 3, 2),
    ),
    (
        "SAR without a number",
        SubmitSm(short_message=b"text", tlvs={Tag.SAR_MSG_REF_NUM: b"\1\2", Tag.SAR_TOTAL_SEGMENTS: b"\3"}),
        Content(b"text"),
    ),
    (
        "SAR number above the total",
        SubmitSm(
            short_message=b"text",
            tlvs={Tag.SAR_MSG_REF_NUM: b"\1\2", Tag.SAR_TOTAL_SEGMENTS: b"\1", Tag.SAR_SEGMENT_SEQNUM: b"\2"},
        ),
        Content(b"text"),
    ),
    (
        "SAR parameters with a national table in the header",
        DeliverSm(
            esm_class=UDHI,
            short_message=b"\3\x24\1\1text",
            tlvs={Tag.SAR_MSG_REF_NUM: b"\0\x09", Tag.SAR_TOTAL_SEGMENTS: b"\2", Tag.SAR_SEGMENT_SEQNUM: b"\1"},
        ),
        Content(b"text", b"\3\x24\1\1", 9, 2, 1, single_shift=1),
    ),
    ("payload", DataSm(tlvs={Tag.MESSAGE_PAYLOAD: b"long text"}), Content(b"long text")),
    (
        "part in a payload",
        DataSm(esm_class=UDHI, tlvs={Tag.MESSAGE_PAYLOAD: b"\5\0\3\1\2\1text"}),
        Content(b"text", b"\5\0\3\1\2\1", 1, 2, 1),
    ),
    ("submit_multi", SubmitMulti(short_message=b"text"), Content(b"text")),
]


@pytest.mark.parametrize(("pdu", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_part_and_its_octets_are_told_by_whatever_carries_them(
    pdu: SubmitSm | DeliverSm | DataSm | SubmitMulti, expected: Content
) -> None:
    content = read_content(pdu)
    assert content == expected
    assert content.is_part == (expected.total > 1)


@pytest.mark.parametrize(
    "message", [b"", b"\5\0\3", b"\xff\0\3\1\2\1text", b"\5\0\4\1\2\1text", b"\1\0text", b"\6\0\3\1\2\1\0te"]
)
def test_a_header_that_does_not_fit_is_refused(message: bytes) -> None:
    with pytest.raises(HeaderError):
        read_content(DeliverSm(esm_class=UDHI, short_message=message))


@given(
    st.binary(max_size=255),
    st.integers(0, 255),
    st.dictionaries(st.sampled_from([0x20C, 0x20E, 0x20F]), st.binary(max_size=3)),
)
def test_any_octets_are_content_or_a_header_error(message: bytes, esm_class: int, tlvs: dict[int, bytes]) -> None:
    try:
        content = read_content(DeliverSm(esm_class=esm_class, short_message=message, tlvs=tlvs))
    except HeaderError:
        return
    assert content.header + content.body == message
    assert 1 <= content.number <= content.total


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=400),
    st.integers(0, 0xFFFF),
    st.booleans(),
)
def test_parts_cut_by_our_own_text_module_come_back_as_the_text(message: str, reference: int, wide: bool) -> None:
    encoding = text.analyse(message, text.Policy.TURKISH, wide)
    parts = text.encode_parts(message, encoding, reference, wide)
    read = []
    for part in parts:
        pdu = SubmitSm(
            esm_class=UDHI if part.udh else 0, data_coding=part.data_coding, short_message=part.udh + part.data
        )
        content = read_content(pdu)
        read.append((content.number, text.decode(content.body, pdu.data_coding, content.header)))
        if len(parts) > 1:
            assert (content.total, content.reference) == (len(parts), reference & (0xFFFF if wide else 0xFF))
    assert "".join(piece for _, piece in sorted(read)) == message
