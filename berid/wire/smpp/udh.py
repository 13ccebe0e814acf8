"""Parts of a long message: user data headers (3GPP TS 23.040, 9.2.3.24) and the SAR parameters of SMPP.

`read_content` is the one place that knows all the ways in which a PDU can carry text: in short_message or in
message_payload, with or without a user data header, in one piece or in parts.
"""

from collections.abc import Iterator

import msgspec

from berid.wire.smpp.codes import EsmClass, Tag
from berid.wire.smpp.pdu import DataSm, DeliverSm, SubmitMulti, SubmitSm, get_uint

IE_CONCAT_8 = 0x00
"""Concatenated short message, 8-bit reference: reference, total, number (9.2.3.24.1)."""
IE_CONCAT_16 = 0x08
"""The same with a 16-bit reference (9.2.3.24.8)."""
IE_SINGLE_SHIFT = 0x24
"""National language single shift: one octet, the language (9.2.3.24.15)."""
IE_LOCKING_SHIFT = 0x25
"""National language locking shift: one octet, the language (9.2.3.24.16)."""


_UDHI = int(EsmClass.UDHI)
_SAR_TOTAL_SEGMENTS = int(Tag.SAR_TOTAL_SEGMENTS)


class HeaderError(ValueError):
    """A user data header that does not fit in its message. ESME_RINVESMCLASS is the answer that fits: the bit lies."""


class Content(msgspec.Struct, gc=False):
    """What a PDU carries: `body` octets without their header, and which part of a message they are."""

    body: bytes
    header: bytes = b""
    """The user data header with its length octet, b"" if there is none."""
    reference: int = 0
    """What the parts of one message share, together with their addresses; 0 where there is one part."""
    total: int = 1
    number: int = 1
    """From 1 to `total`."""
    single_shift: int = 0
    """Language of the single shift table in a GSM text, 0 for the default; 1 is Turkish (TS 23.038, 6.2.1.2.4)."""
    locking_shift: int = 0
    """Language of the locking shift table, likewise."""

    @property
    def is_part(self) -> bool:
        """True if the message has further parts."""
        return self.total > 1


def read_content(pdu: SubmitSm | DeliverSm | DataSm | SubmitMulti) -> Content:
    """Return what the PDU carries.

    Parts are told by the user data header, or else by sar_msg_ref_num and its sisters. A part number that
    cannot be (0, or above the total) counts as no part at all, as TS 23.040 asks.
    Raises HeaderError if esm_class promises a header that the content does not hold.
    """
    content = pdu.content
    result = _read_with_header(content) if pdu.esm_class & _UDHI else Content(content)
    tlvs = pdu.tlvs
    if result.total == 1 and tlvs and _SAR_TOTAL_SEGMENTS in tlvs:
        reference = get_uint(tlvs, Tag.SAR_MSG_REF_NUM)
        total = get_uint(tlvs, Tag.SAR_TOTAL_SEGMENTS)
        number = get_uint(tlvs, Tag.SAR_SEGMENT_SEQNUM)
        if reference is not None and total and number and number <= total:
            result.reference, result.total, result.number = reference, total, number
    return result


def _read_with_header(content: bytes) -> Content:
    if not content or content[0] >= len(content):
        raise HeaderError("the user data header is longer than the message")
    end = 1 + content[0]
    result = Content(content[end:], content[:end])
    for iei, data in _elements(result.header):
        if iei == IE_CONCAT_8 and len(data) == 3:
            reference, total, number = data
        elif iei == IE_CONCAT_16 and len(data) == 4:
            reference, total, number = data[0] << 8 | data[1], data[2], data[3]
        else:
            if iei == IE_SINGLE_SHIFT and len(data) == 1:
                result.single_shift = data[0]
            elif iei == IE_LOCKING_SHIFT and len(data) == 1:
                result.locking_shift = data[0]
            continue
        if 1 <= number <= total:
            result.reference, result.total, result.number = reference, total, number
    return result


def _elements(header: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (identifier, data) of each information element. Of one that comes twice the last counts (9.2.3.24)."""
    at = 1
    while at < len(header):
        if at + 2 > len(header) or at + 2 + header[at + 1] > len(header):
            raise HeaderError("an information element is longer than the user data header")
        stop = at + 2 + header[at + 1]
        yield header[at], header[at + 2 : stop]
        at = stop
