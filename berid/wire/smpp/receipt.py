"""Delivery receipts: what a deliver_sm or data_sm says about a message that was submitted before.

Receipts come in two forms, often both at once: a text in the content (SMPP 3.4, appendix B: "typical", and so
every carrier has its own) and optional parameters (receipted_message_id, message_state, network_error_code).
Where both speak, the parameters win.
"""

import re
from datetime import datetime
from enum import Enum

import msgspec

from berid.wire.smpp.codes import DataCoding, EsmClass, MessageState, Tag
from berid.wire.smpp.pdu import (
    DataSm,
    DeliverSm,
    get_network_error,
    get_text,
    put_network_error,
    put_text,
    put_uint,
)

_TEXT_STATES = {
    MessageState.SCHEDULED: "SCHEDLD",
    MessageState.ENROUTE: "ENROUTE",
    MessageState.DELIVERED: "DELIVRD",
    MessageState.EXPIRED: "EXPIRED",
    MessageState.DELETED: "DELETED",
    MessageState.UNDELIVERABLE: "UNDELIV",
    MessageState.ACCEPTED: "ACCEPTD",
    MessageState.UNKNOWN: "UNKNOWN",
    MessageState.REJECTED: "REJECTD",
    MessageState.SKIPPED: "SKIPPED",
}
"""The seven letters of `stat:` for each state."""

# Seven letters are the custom; some carriers write the whole word.
_STATES = {
    **{text: state for state, text in _TEXT_STATES.items()},
    **{state.name: state for state in MessageState},
    "UNDELIVERED": MessageState.UNDELIVERABLE,
}

_STATE_OF_NUMBER = {int(state): state for state in MessageState}
_NOT_FINAL = frozenset((MessageState.SCHEDULED, MessageState.ENROUTE, MessageState.ACCEPTED))

# The customary text, whole and in order: most receipts, in a tenth of the time of looking for each key.
_CUSTOMARY = re.compile(
    r"id:([^\s,;]*) sub:\d* dlvrd:\d* submit date:(\d*) done date:(\d*) stat:(\w*) err:(\w*)(?: text:|$)",
    re.IGNORECASE | re.ASCII,
)

# A key, in any case, at the start or behind a separator, with or without the blank in the two dates' names.
_KEY = re.compile(r"(?:^|(?<=[\s,;]))(id|sub|dlvrd|submit ?date|done ?date|stat|err|text):", re.IGNORECASE | re.ASCII)

_TYPE_MASK = int(EsmClass.TYPE_MASK)
_TYPE_RECEIPT = int(EsmClass.TYPE_RECEIPT)
_TYPE_INTERMEDIATE = int(EsmClass.TYPE_INTERMEDIATE)
_RECEIPTED_MESSAGE_ID = int(Tag.RECEIPTED_MESSAGE_ID)
_MESSAGE_STATE = int(Tag.MESSAGE_STATE)
_UCS2 = int(DataCoding.UCS2)


class Receipt(msgspec.Struct, gc=False):
    """A receipt in one shape, whatever form it came in. Empty strings and None where the carrier was silent."""

    message_id: str
    """The id as the carrier wrote it; compare with `match_key`."""
    state: MessageState
    """UNKNOWN also for a word that is no state, which `stat` then shows."""
    stat: str
    """The word behind `stat:` as it came."""
    error: str
    """The carrier's or network's error code as digits, "000" for none; from network_error_code as three digits."""
    network_type: int | None
    """First octet of network_error_code: 1 ANSI-136, 2 IS-95, 3 GSM; None without that parameter."""
    submit_digits: str
    """The date behind `submit date:` as it came, in the carrier's own time zone."""
    done_digits: str
    """The date behind `done date:`, likewise."""
    is_final: bool
    """False for an intermediate notification and for a state that will change (SCHEDULED, ENROUTE, ACCEPTED)."""
    text: str
    """The whole receipt text as it came. It may quote the message, so it stays out of logs."""

    @property
    def done_at(self) -> datetime | None:
        """`done_digits` as a naive datetime in the carrier's time zone, or None if absent or not a date."""
        return parse_digits(self.done_digits)


def is_receipt(pdu: DeliverSm | DataSm) -> bool:
    """True if the carrier says that this is a receipt: by esm_class, or by the parameter receipted_message_id beside a state.

    A content that only looks like one is not enough, or anyone with a handset could write receipts. Nor is that parameter
    alone: some carriers name a message from a person by it.
    """
    kind = pdu.esm_class & _TYPE_MASK
    if kind:
        return kind in (_TYPE_RECEIPT, _TYPE_INTERMEDIATE)
    if _RECEIPTED_MESSAGE_ID not in pdu.tlvs:
        return False
    return _MESSAGE_STATE in pdu.tlvs or b"stat:" in pdu.content.replace(b"\0", b"").lower()


def parse(pdu: DeliverSm | DataSm) -> Receipt:
    """Return the receipt in a PDU for which `is_receipt` is true. Never raises: what cannot be read is empty."""
    content = pdu.content
    if pdu.data_coding == _UCS2:
        text = content.decode("utf-16-be", "replace")
    else:
        text = content.decode("latin-1")
    match = _CUSTOMARY.match(text)
    if match is not None:
        message_id, submitted, done, stat, error = match.groups()
    else:
        get = _fields(text).get
        message_id, submitted, done, stat, error = (
            get("id", ""),
            get("submitdate", ""),
            get("donedate", ""),
            get("stat", ""),
            get("err", ""),
        )
    state = _STATES.get(stat) or _STATES.get(stat.upper(), MessageState.UNKNOWN)
    network_type = None
    tlvs = pdu.tlvs
    if tlvs:
        message_id = get_text(tlvs, _RECEIPTED_MESSAGE_ID) or message_id
        number = tlvs.get(_MESSAGE_STATE)
        if number is not None and len(number) == 1:
            state = _STATE_OF_NUMBER.get(number[0], state)
        network_error = get_network_error(tlvs)
        if network_error is not None:
            network_type = network_error[0]
            error = f"{network_error[1]:03d}"
    is_final = state not in _NOT_FINAL and pdu.esm_class & _TYPE_MASK != _TYPE_INTERMEDIATE
    return Receipt(message_id, state, stat, error, network_type, submitted, done, is_final, text)


def _fields(text: str) -> dict[str, str]:
    """Return the fields of a receipt text by lower-case key without blanks. The first of each key counts.

    A value is the first word behind its key: what follows up to the next key is something of the carrier's own.
    `text:` quotes the sender's words, so nothing behind it is looked at.
    """
    fields: dict[str, str] = {}
    key = ""
    start = 0
    for match in _KEY.finditer(text):
        if key:
            fields.setdefault(key, _first_word(text[start : match.start()]))
        key = match[1].lower().replace(" ", "")
        start = match.end()
        if key == "text":
            return fields
    if key:
        fields.setdefault(key, _first_word(text[start:]))
    return fields


def _first_word(text: str) -> str:
    words = _BETWEEN_WORDS.split(text.lstrip(), maxsplit=1)
    return words[0]


_BETWEEN_WORDS = re.compile(r"[\s,;\0]", re.ASCII)


def parse_digits(digits: str) -> datetime | None:
    """Return the date in a receipt's digits as a naive datetime, or None if they are no date.

    YYMMDDhhmm is the custom; seconds may follow, and the year may have four digits. Twelve digits are read
    as YYMMDDhhmmss first: a year of four digits would give that reading a month of 13 or more from 2013 on.
    """
    if not digits.isascii() or not digits.isdigit():
        return None
    for length, pattern in _DIGIT_FORMS:
        if len(digits) == length:
            try:
                # Naive on purpose: the carrier does not say its zone.
                return datetime.strptime(digits, pattern)  # noqa: DTZ007
            except ValueError:
                continue
    return None


_DIGIT_FORMS = ((10, "%y%m%d%H%M"), (12, "%y%m%d%H%M%S"), (12, "%Y%m%d%H%M"), (14, "%Y%m%d%H%M%S"))


def build(
    message_id: str,
    state: MessageState,
    *,
    submit_digits: str,
    done_digits: str,
    error: int = 0,
    quote: bytes = b"",
) -> bytes:
    """Return the text form of a receipt, for the short_message of a deliver_sm with esm_class TYPE_RECEIPT.

    `submit_digits` and `done_digits` are YYMMDDhhmm or YYMMDDhhmmss in the time zone agreed with the client.
    `quote` is the start of the message; at most 20 octets of it are used.
    """
    delivered = 1 if state is MessageState.DELIVERED else 0
    return (
        f"id:{message_id} sub:001 dlvrd:{delivered:03d} submit date:{submit_digits} done date:{done_digits} "
        f"stat:{_TEXT_STATES[state]} err:{error:03d} text:"
    ).encode("latin-1") + quote[:20]


def build_tlvs(message_id: str, state: MessageState, *, error: int | None = None) -> dict[int, bytes]:
    """Return a receipt as optional parameters; `error` is a GSM network error code, None to leave it out."""
    tlvs: dict[int, bytes] = {}
    put_text(tlvs, _RECEIPTED_MESSAGE_ID, message_id)
    put_uint(tlvs, _MESSAGE_STATE, state)
    if error is not None:
        put_network_error(tlvs, 3, error)
    return tlvs


class IdForm(Enum):
    """How a carrier writes its message ids; a route sets one for responses and one for receipts.

    Some carriers answer submit_sm with the id in one form and write the receipt with another. The same route
    settings give the same `match_key` for both, so

    - the usual carrier has AS_IS and AS_IS;
    - hexadecimal answers, decimal receipts: HEX and DECIMAL; the other way round: DECIMAL and HEX;
    - one form, but zeros in front or letters of another case: HEX and HEX, or DECIMAL and DECIMAL;
    - EITHER and EITHER where the carrier mixes forms freely. Digits alone are then decimal, so this is only
      for carriers whose hexadecimal ids always have a letter in them.
    """

    AS_IS = "as_is"
    """Not a number, or always written the same way. The key is the id."""
    HEX = "hex"
    """A hexadecimal number: case, zeros in front and "0x" mean nothing."""
    DECIMAL = "decimal"
    """A decimal number: zeros in front mean nothing."""
    EITHER = "either"
    """Decimal if it is digits alone, else hexadecimal."""


_DECIMAL = re.compile(r"[0-9]{1,64}")
_HEX = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{1,64})")


def match_key(raw_id: str, form: IdForm) -> str:
    """Return the key under which an id of this form is stored and looked up.

    Blanks around the id never count. A number becomes its decimal digits without zeros in front, so keys of
    HEX and DECIMAL agree for the same number. What is not a number of the given form stays as it is, in
    lower case: a carrier that changes its ids without a word still matches itself.
    """
    raw_id = raw_id.strip()
    if form is IdForm.AS_IS:
        return raw_id
    if form is not IdForm.HEX and _DECIMAL.fullmatch(raw_id):
        return raw_id.lstrip("0") or "0"
    match = _HEX.fullmatch(raw_id) if form is not IdForm.DECIMAL else None
    if match is None:
        return raw_id.lower()
    return str(int(match[1], 16))
