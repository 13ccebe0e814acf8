"""submit_sm, submit_multi and data_sm → `Submission`. Pure functions, and on the path of every message: quick
before short.

What is one text becomes text, so that it is coded and cut as its carrier needs it. What cannot be text, or is a
part that the customer has cut himself, is carried as it is: a user data header, SAR parameters, binary data, a
message class.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from berid.base.phone import international, lenient
from berid.base.text import decode
from berid.dialects.smpp.codes import REFUSALS
from berid.domain.errors import RefusalKind
from berid.domain.message import Category, Content, Priority, RawPart, Submission
from berid.wire.smpp.codes import CommandStatus, DataCoding, EsmClass, RegisteredDelivery, Tag, TypeOfNumber
from berid.wire.smpp.pdu import Address, DataSm, SubmitMulti, SubmitSm, Unsuccessful, get_uint
from berid.wire.smpp.times import TimeError, parse_time
from berid.wire.smpp.udh import IE_CONCAT_8, IE_CONCAT_16, HeaderError, read_content

REGISTERED = "rd"
"""The option that keeps registered_delivery, in decimal; absent when no receipt is wanted."""
REFERENCE = "ref"
"""The option that keeps user_message_reference, in decimal."""
MULTI = "multi"
"""The option that marks a submit_multi, whose receipts carry the id of the whole message."""

_UDHI: Final = int(EsmClass.UDHI)
_TYPE_MASK: Final = int(EsmClass.TYPE_MASK)
_WANTS: Final = int(RegisteredDelivery.RECEIPT_MASK | RegisteredDelivery.INTERMEDIATE)
_RESERVED: Final = 0xE0
_INTERNATIONAL: Final = int(TypeOfNumber.INTERNATIONAL)
_USER_MESSAGE_REFERENCE: Final = int(Tag.USER_MESSAGE_REFERENCE)
_SAR_TOTAL_SEGMENTS: Final = int(Tag.SAR_TOTAL_SEGMENTS)

_STRICT: Final = {
    int(DataCoding.IA5): "ascii",
    int(DataCoding.LATIN_1): "latin-1",
    int(DataCoding.CYRILLIC): "iso8859-5",
    int(DataCoding.HEBREW): "iso8859-8",
    int(DataCoding.UCS2): "utf-16-be",
}
_DEFAULT: Final = int(DataCoding.DEFAULT)
_BINARY: Final = frozenset((int(DataCoding.OCTETS_TDMA), int(DataCoding.OCTETS)))
_CLASSES_FROM: Final = 0x10
"""From here on data_coding is a data coding scheme of TS 23.038: a message class, such as flash, or a waiting
indication."""


class Unfit(Exception):
    """What a PDU asks for cannot be a submission. `status` answers it, `kind` is for the figures."""

    def __init__(self, status: CommandStatus, kind: RefusalKind) -> None:
        super().__init__(status.name)
        self.status = status
        self.kind = kind


def read_submit(pdu: SubmitSm | DataSm, home: str, now_ms: int, has_otp: bool) -> Submission:
    """The submission of a message to one number.

    `home` is the account's country, in which numbers without a country code are; `has_otp` says that the application
    may send one-time passwords. Raises `Unfit`. A missing sender is left for `accept` to refuse, with all else.
    """
    recipient = read_number(pdu.dest_addr_ton, pdu.destination_addr, home)
    if recipient is None:
        raise Unfit(CommandStatus.ESME_RINVDSTADR, RefusalKind.RECIPIENT_INVALID)
    return _submission(pdu, (recipient,), now_ms, has_otp)


def read_multi(
    pdu: SubmitMulti, home: str, now_ms: int, has_otp: bool
) -> tuple[Submission, list[Unsuccessful], dict[str, list[Address]]]:
    """The submission of a message to several, the destinations that are no numbers, and the others as they were
    written.

    Raises `Unfit`, for a distribution list too: none are kept here.
    """
    recipients: list[str] = []
    failed: list[Unsuccessful] = []
    written: dict[str, list[Address]] = {}
    for destination in pdu.destinations:
        if not isinstance(destination, Address):
            raise Unfit(CommandStatus.ESME_RINVDLNAME, RefusalKind.RECIPIENT_INVALID)
        recipient = read_number(destination.ton, destination.addr, home)
        if recipient is None:
            failed.append(unsuccessful(destination, RefusalKind.RECIPIENT_INVALID))
        else:
            recipients.append(recipient)
            written.setdefault(recipient, []).append(destination)
    if not recipients:
        raise Unfit(CommandStatus.ESME_RINVDSTADR, RefusalKind.RECIPIENT_INVALID)
    return _submission(pdu, recipients, now_ms, has_otp), failed, written


def unsuccessful(destination: Address, kind: RefusalKind) -> Unsuccessful:
    """What submit_multi_resp says of a destination that was refused."""
    return Unsuccessful(destination.ton, destination.npi, destination.addr, REFUSALS[kind])


def read_number(ton: int, address: str, home: str) -> str | None:
    """The number that an address means, None if it is none. Only one that says so is international beyond doubt."""
    if ton == _INTERNATIONAL:
        # Most come exactly as we keep them.
        return international(address) or lenient(address)
    return lenient(address, home)


def _submission(
    pdu: SubmitSm | DataSm | SubmitMulti, recipients: tuple[str, ...] | list[str], now_ms: int, has_otp: bool
) -> Submission:
    """All that the three PDUs share. data_sm has neither a schedule nor a priority."""
    due_ms: int | None = None
    priority: Priority | None = Priority.BULK
    category = Category.TRANSACTIONAL
    if isinstance(pdu, DataSm):
        valid_s = get_uint(pdu.tlvs, Tag.QOS_TIME_TO_LIVE) or None
    else:
        if pdu.schedule_delivery_time:
            due_ms = _due(pdu.schedule_delivery_time, now_ms)
        valid_s = _valid_s(pdu.validity_period, due_ms or now_ms, now_ms) if pdu.validity_period else None
        flag = pdu.priority_flag
        if flag:
            if flag > 3:
                raise Unfit(CommandStatus.ESME_RINVPRTFLG, RefusalKind.MALFORMED)
            priority = Priority.TRANSACTIONAL
            if flag == 3 and has_otp:
                priority, category = None, Category.OTP
    return Submission(
        channel="sms",
        sender=sender_name(pdu.source_addr),
        recipients=recipients,
        content=_content(pdu, category is Category.OTP),
        category=category,
        priority=priority,
        due_ms=due_ms,
        valid_s=valid_s,
        allows_partial=len(recipients) > 1,
        options=_options(pdu),
    )


def sender_name(address: str) -> str:
    """The sender name: a number without its plus, as names are kept; any other text as it is."""
    return address[1:] if address.startswith("+") and address[1:].isdecimal() else address


def _options(pdu: SubmitSm | DataSm | SubmitMulti) -> dict[str, str]:
    """What the receipt will need."""
    registered = pdu.registered_delivery
    if registered & _RESERVED:
        raise Unfit(CommandStatus.ESME_RINVREGDLVFLG, RefusalKind.MALFORMED)
    if not registered & _WANTS:
        return {}
    options = {REGISTERED: str(registered & _WANTS)}
    if _USER_MESSAGE_REFERENCE in pdu.tlvs:
        reference = get_uint(pdu.tlvs, _USER_MESSAGE_REFERENCE)
        if reference is not None:
            options[REFERENCE] = str(reference)
    if isinstance(pdu, SubmitMulti):
        options[MULTI] = "1"
    return options


def _due(text: str, now_ms: int) -> int | None:
    """The planned time, None for at once. One in the past is left for `accept` to refuse."""
    try:
        moment = parse_time(text)
    except TimeError:
        raise Unfit(CommandStatus.ESME_RINVSCHED, RefusalKind.SCHEDULE_TIME_INVALID) from None
    if isinstance(moment, timedelta):
        return now_ms + moment // _MILLISECOND if moment else None
    return int(moment.timestamp() * 1000)


def _valid_s(text: str, start_ms: int, now_ms: int) -> int:
    """How long the message is worth delivering once it is due. A relative period runs from the submit (section
    5.2.16)."""
    try:
        moment = parse_time(text)
    except TimeError:
        raise Unfit(CommandStatus.ESME_RINVEXPIRY, RefusalKind.MALFORMED) from None
    if isinstance(moment, timedelta):
        end_ms = now_ms + moment // _MILLISECOND
    else:
        end_ms = int(moment.timestamp() * 1000)
    if end_ms - start_ms < 1000:
        raise Unfit(CommandStatus.ESME_RINVEXPIRY, RefusalKind.MALFORMED)
    return (end_ms - start_ms) // 1000


_MILLISECOND: Final = timedelta(milliseconds=1)


def _content(pdu: SubmitSm | DataSm | SubmitMulti, is_secret: bool) -> Content:
    """What is to be said: a text, or a part as it is."""
    esm_class = pdu.esm_class
    coding = pdu.data_coding
    if esm_class & _TYPE_MASK:
        # Acknowledgements of handsets, which nothing beyond us would understand.
        raise Unfit(CommandStatus.ESME_RINVESMCLASS, RefusalKind.MALFORMED)
    if esm_class & _UDHI or (pdu.tlvs and _SAR_TOTAL_SEGMENTS in pdu.tlvs):
        raw = _part(pdu)
        if raw is not None:
            return Content("", raw=raw)
    data = pdu.content
    if not data and not isinstance(pdu, DataSm) and pdu.sm_default_msg_id:
        raise Unfit(CommandStatus.ESME_RINVDFTMSGID, RefusalKind.CONTENT_MISSING)
    if coding in _BINARY or coding >= _CLASSES_FROM:
        return Content("", raw=RawPart(b"", data, coding))
    return Content(_text(data, coding), is_secret=is_secret)


def _text(data: bytes, coding: int) -> str:
    """The text, letter for letter: what its coding does not have is refused, never replaced."""
    if coding == _DEFAULT:
        text = decode(data)
        if "\ufffd" in text:
            raise Unfit(CommandStatus.ESME_RINVDCS, RefusalKind.CONTENT_INVALID)
        return text
    codec = _STRICT.get(coding)
    if codec is None:
        raise Unfit(CommandStatus.ESME_RINVDCS, RefusalKind.CONTENT_INVALID)
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        # Its own text shows the octets.
        raise Unfit(CommandStatus.ESME_RINVDCS, RefusalKind.CONTENT_INVALID) from None


def _part(pdu: SubmitSm | DataSm | SubmitMulti) -> RawPart | None:
    """A part that the customer has cut, or what else has a user data header; None if the parameters make no part.

    SAR parameters become a header of ours, with the low 8 bits of their reference: that is the header for which
    customers leave room when they cut.
    """
    try:
        content = read_content(pdu)
    except HeaderError:
        raise Unfit(CommandStatus.ESME_RINVESMCLASS, RefusalKind.CONTENT_INVALID) from None
    header = content.header
    if content.is_part and not _tells_part(header):
        element = bytes((IE_CONCAT_8, 3, content.reference & 0xFF, content.total, content.number))
        header = bytes((len(element) + len(header[1:]),)) + element + header[1:]
    return RawPart(header, content.body, pdu.data_coding) if header else None


def _tells_part(header: bytes) -> bool:
    """Whether a user data header, known to be well made, says which part of a message it heads."""
    at = 1
    while at < len(header):
        if header[at] in (IE_CONCAT_8, IE_CONCAT_16):
            return True
        at += 2 + header[at + 1]
    return False
