"""Events → deliver_sm: a receipt for what became of a message, or what a person wrote. Pure functions.

A receipt has both of its forms at once, the text that clients have read since the nineties and the parameters of 3.4.
Its times are UTC, to the minute.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec

from berid.base.ids import read
from berid.base.text import DATA_CODING_GSM, DATA_CODING_UCS2, Alphabet, BadText, analyse, encode_parts
from berid.dialects.smpp.codes import STATES
from berid.dialects.smpp.submit import MULTI, REFERENCE, REGISTERED
from berid.domain.message import FINAL, State
from berid.domain.report import EVENT_OF_STATE, INBOUND_EVENT
from berid.flow.ports import Tell
from berid.wire.smpp.codes import EsmClass, NumberingPlan, RegisteredDelivery, Tag, TypeOfNumber
from berid.wire.smpp.pdu import DeliverSm, put_uint
from berid.wire.smpp.receipt import build, build_tlvs

SHORT_MESSAGE_MAX = 254
"""Octets of short_message that every client of 3.4 takes (section 5.2.21); longer ones travel in message_payload."""

SHORT_CODE_DIGITS = 8
"""Digits of the longest short code. Whatever has more is a number with its country code."""

_OF_STATES: Final = frozenset(EVENT_OF_STATE.values())
_SUCCESS: Final = frozenset((State.DELIVERED, State.READ))
_RECEIPT_MASK: Final = int(RegisteredDelivery.RECEIPT_MASK)
_ON_FAILURE: Final = int(RegisteredDelivery.RECEIPT_ON_FAILURE)
_ON_SUCCESS: Final = int(RegisteredDelivery.RECEIPT_ON_SUCCESS)
_INTERMEDIATE: Final = int(RegisteredDelivery.INTERMEDIATE)


class _Outcome(msgspec.Struct, gc=False):
    """What a receipt needs of an event about a delivery (`Changes.payload`)."""

    delivery_id: str
    message_id: str
    to: str
    sender: str
    state: State
    reason: str
    accepted_ms: int
    options: dict[str, str] = {}


class _Inbound(msgspec.Struct, gc=False):
    """What a deliver_sm needs of a message from a person (`flow.inbound`)."""

    to: str
    text: str
    sender: str = msgspec.field(name="from")


_read_outcome = msgspec.json.Decoder(_Outcome).decode
_read_inbound = msgspec.json.Decoder(_Inbound).decode


def render(tell: Tell) -> DeliverSm | None:
    """The PDU that tells an event, or None for what the customer did not ask to be told."""
    if tell.event == INBOUND_EVENT:
        return _message(_read_inbound(tell.payload))
    if tell.event in _OF_STATES:
        return _receipt(_read_outcome(tell.payload), tell.created_ms)
    return None


def wants(registered: int, state: State) -> bool:
    """Whether registered_delivery asks for a receipt of this state (section 5.2.17; RECEIPT_ON_SUCCESS is of 5.0)."""
    if state not in FINAL:
        return bool(registered & _INTERMEDIATE)
    asked = registered & _RECEIPT_MASK
    if asked == _ON_FAILURE:
        return state not in _SUCCESS
    if asked == _ON_SUCCESS:
        return state in _SUCCESS
    return bool(asked)


def error_code(reason: str) -> int:
    """The carrier's error code, where the reason is one; 0 for none, and for reasons that are words."""
    return int(reason) if reason.isascii() and reason.isdigit() and len(reason) <= 3 else 0


def _receipt(outcome: _Outcome, told_ms: int) -> DeliverSm | None:
    options = outcome.options
    if not wants(int(options.get(REGISTERED, "0")), outcome.state):
        return None
    prefix, shown = ("msg", outcome.message_id) if MULTI in options else ("dlv", outcome.delivery_id)
    identifier = str(read(prefix, shown))
    state = STATES[outcome.state]
    code = 0 if outcome.state in _SUCCESS else error_code(outcome.reason)
    tlvs = build_tlvs(identifier, state, error=code or None)
    if REFERENCE in options:
        put_uint(tlvs, Tag.USER_MESSAGE_REFERENCE, int(options[REFERENCE]))
    text = build(
        identifier, state, submit_digits=_digits(outcome.accepted_ms), done_digits=_digits(told_ms), error=code
    )
    kind = EsmClass.TYPE_RECEIPT if outcome.state in FINAL else EsmClass.TYPE_INTERMEDIATE
    return _deliver(outcome.to, outcome.sender, int(kind), DATA_CODING_GSM, text, tlvs)


def _digits(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%y%m%d%H%M")


def _message(inbound: _Inbound) -> DeliverSm:
    """A person's words, whole in one PDU however long they are."""
    coding, octets = _octets(inbound.text)
    if len(octets) <= SHORT_MESSAGE_MAX:
        return _deliver(inbound.sender, inbound.to, 0, coding, octets, {})
    return _deliver(inbound.sender, inbound.to, 0, coding, b"", {int(Tag.MESSAGE_PAYLOAD): octets})


def _octets(text: str) -> tuple[int, bytes]:
    """data_coding and octets of a text: the default GSM alphabet, one septet in an octet, if it has all letters."""
    try:
        encoding = analyse(text)
        if encoding.alphabet is Alphabet.GSM7:
            return DATA_CODING_GSM, b"".join(part.data for part in encode_parts(text, encoding, 0))
    except BadText:
        # Stored texts hold nothing that UCS-2 cannot carry; what an older one may hold shows as a question mark.
        pass
    return DATA_CODING_UCS2, text.encode("utf-16-be", "replace")


def _deliver(
    source: str, destination: str, esm_class: int, coding: int, octets: bytes, tlvs: dict[int, bytes]
) -> DeliverSm:
    source_ton, source_npi = _plan(source)
    dest_ton, dest_npi = _plan(destination)
    return DeliverSm(
        source_addr_ton=source_ton,
        source_addr_npi=source_npi,
        source_addr=source,
        dest_addr_ton=dest_ton,
        dest_addr_npi=dest_npi,
        destination_addr=destination,
        esm_class=esm_class,
        data_coding=coding,
        short_message=octets,
        tlvs=tlvs,
    )


def _plan(address: str) -> tuple[int, int]:
    """Type and plan of an address: a number, a short code, or a name."""
    if not (address.isascii() and address.isdigit()):
        return int(TypeOfNumber.ALPHANUMERIC), int(NumberingPlan.UNKNOWN)
    if len(address) > SHORT_CODE_DIGITS:
        return int(TypeOfNumber.INTERNATIONAL), int(NumberingPlan.ISDN)
    return int(TypeOfNumber.NETWORK_SPECIFIC), int(NumberingPlan.UNKNOWN)
