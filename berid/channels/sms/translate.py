"""Between our words and the carrier's: deliveries become submit_sm or data_sm, and what the carrier delivers becomes a
report or a message from a person. Pure functions of the connector's settings."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

from berid.base.text import DATA_CODING_GSM, DATA_CODING_UCS2, Alphabet, PartBytes, decode, pack
from berid.channels.sms.content import encode, reference_of
from berid.channels.sms.settings import SmppSettings
from berid.domain.message import DeliveryReport, Outgoing, State
from berid.flow.inbound import InboundSms
from berid.wire.smpp.codes import EsmClass, MessageState, RegisteredDelivery, Tag
from berid.wire.smpp.pdu import DataSm, DeliverSm, PackedSubmit, SubmitSm, get_text, put_uint
from berid.wire.smpp.receipt import IdForm, match_key, parse
from berid.wire.smpp.times import format_relative
from berid.wire.smpp.udh import Content, HeaderError, read_content

SHORT_CODE_DIGITS = 8
"""Digits of the longest sender that is a short code. No mobile number with its country code is that short."""

LONGEST_VALIDITY_S = 90 * 86_400
"""The longest validity that carriers are told. Their own limits are days; SMPP has no way to write some years."""

RAW_CHARACTERS = 200
"""How much of a receipt's own words is kept."""

_UDHI = int(EsmClass.UDHI)
_RECEIPT = int(RegisteredDelivery.RECEIPT)
_PAYLOAD = int(Tag.MESSAGE_PAYLOAD)
_USER_REFERENCE = int(Tag.USER_MESSAGE_REFERENCE)
_WITHOUT_TABLES = frozenset((Alphabet.GSM7.value, Alphabet.UCS2.value))

STATES: dict[MessageState, State] = {
    MessageState.DELIVERED: State.DELIVERED,
    MessageState.EXPIRED: State.EXPIRED,
    MessageState.DELETED: State.UNDELIVERED,
    MessageState.UNDELIVERABLE: State.UNDELIVERED,
    MessageState.SKIPPED: State.UNDELIVERED,
    MessageState.REJECTED: State.REJECTED,
    MessageState.SCHEDULED: State.SENT,
    MessageState.ENROUTE: State.SENT,
    MessageState.ACCEPTED: State.SENT,
    MessageState.UNKNOWN: State.SENT,
}
"""Our state for each state of a receipt (SMPP 3.4, section 5.2.28). SENT stands for "not known yet": it changes nothing,
and a later receipt, or none within the time for it, decides. UNKNOWN is among these because carriers write it, and words
of their own, for messages that still arrive."""

PACKED_MAX = 64
"""Of so many messages the octets around the destination are kept, at most: those that are being sent just now to many."""

Submit = SubmitSm | DataSm


class Translator:
    """Speaks the language of one connector, as its settings say."""

    def __init__(self, connector_id: int, settings: SmppSettings) -> None:
        self._connector_id = connector_id
        self._settings = settings
        self._is_wide = settings.long_messages == "udh16"
        self._submit_form = IdForm(settings.submit_id_form)
        self._receipt_form = IdForm(settings.receipt_id_form)
        # By data_coding as base.text gives it.
        self._codings = {DATA_CODING_GSM: settings.gsm_data_coding, DATA_CODING_UCS2: settings.ucs2_data_coding}
        self._source = lru_cache(maxsize=4096)(self._source_of)
        self._packed: dict[tuple[str, str, str, str, int], tuple[bytes, bytes]] = {}
        """What stands around the destination, by all that it depends on: sender, text, its kind and alphabet, validity."""

    # Out

    def compose(self, outgoing: Outgoing, now_ms: int) -> list[Submit]:
        """The PDUs that carry a delivery, in order. A text in a national alphabet always has its parts tied by headers,
        since it needs one anyway.

        Raises ValueError for what cannot be written; that is a fault of whoever accepted it.
        """
        settings = self._settings
        parts = encode(outgoing, self._is_wide)
        if len(parts) > 1 and settings.long_messages in ("sar", "payload") and outgoing.alphabet in _WITHOUT_TABLES:
            return self._compose_long(outgoing, parts, now_ms)
        return [self._submit(outgoing, part.udh, part.data, part.data_coding, now_ms) for part in parts]

    def pack(self, outgoing: Outgoing, now_ms: int) -> list[Submit | PackedSubmit]:
        """The same octets as `compose` gives, in a third of the time for a text in one part that goes to many.

        Raises ValueError as `compose` does, and at once for what could not be encoded later.
        """
        if outgoing.parts > 1 or self._settings.use_data_sm:
            return [*self.compose(outgoing, now_ms)]
        seconds = (outgoing.expires_ms - now_ms) // 1000
        key = (outgoing.sender, outgoing.body, outgoing.body_kind, outgoing.alphabet, seconds)
        around = self._packed.get(key)
        if around is None:
            submits = self.compose(outgoing, now_ms)
            if len(submits) > 1 or not isinstance(submits[0], SubmitSm):
                return [*submits]
            if len(self._packed) == PACKED_MAX:
                self._packed.clear()
            around = self._packed[key] = submits[0].around_destination()
        return [PackedSubmit(around[0], outgoing.recipient, around[1])]

    def _compose_long(self, outgoing: Outgoing, parts: list[PartBytes], now_ms: int) -> list[Submit]:
        """Parts without headers: the carrier makes them."""
        coding = parts[0].data_coding
        if self._settings.long_messages == "payload":
            text = b"".join([part.data for part in parts])
            return [self._submit(outgoing, b"", text, coding, now_ms, as_payload=True)]
        submits = []
        for number, part in enumerate(parts, start=1):
            submit = self._submit(outgoing, b"", part.data, coding, now_ms)
            put_uint(submit.tlvs, Tag.SAR_MSG_REF_NUM, reference_of(outgoing.delivery_id))
            put_uint(submit.tlvs, Tag.SAR_TOTAL_SEGMENTS, len(parts))
            put_uint(submit.tlvs, Tag.SAR_SEGMENT_SEQNUM, number)
            submits.append(submit)
        return submits

    def _submit(
        self, outgoing: Outgoing, header: bytes, data: bytes, coding: int, now_ms: int, as_payload: bool = False
    ) -> Submit:
        settings = self._settings
        ton, npi, source = self._source(outgoing.sender)
        if coding == DATA_CODING_GSM and settings.gsm_packed:
            data = pack(data, len(header))
        content = header + data if header else data
        seconds = min(LONGEST_VALIDITY_S, max(1, (outgoing.expires_ms - now_ms) // 1000))
        if settings.use_data_sm:
            submit = DataSm(
                "",
                ton,
                npi,
                source,
                settings.dest_ton,
                settings.dest_npi,
                outgoing.recipient,
                _UDHI if header else 0,
                _RECEIPT,
                self._codings.get(coding, coding),
            )
            put_uint(submit.tlvs, Tag.QOS_TIME_TO_LIVE, seconds)
            submit.tlvs[_PAYLOAD] = content
            return submit
        return SubmitSm(
            "",
            ton,
            npi,
            source,
            settings.dest_ton,
            settings.dest_npi,
            outgoing.recipient,
            _UDHI if header else 0,
            0,
            0,
            "",
            _validity(seconds),
            _RECEIPT,
            0,
            self._codings.get(coding, coding),
            0,
            b"" if as_payload else content,
            {_PAYLOAD: content} if as_payload else {},
        )

    def _source_of(self, sender: str) -> tuple[int, int, str]:
        """TON, NPI and address of a sender, by its form."""
        settings = self._settings
        address = sender.removeprefix("+")
        if not (address.isascii() and address.isdigit()):
            return settings.alphanumeric_ton, settings.alphanumeric_npi, sender
        if len(address) <= SHORT_CODE_DIGITS and address == sender:
            return settings.short_code_ton, settings.short_code_npi, address
        return settings.number_ton, settings.number_npi, address

    def key_of(self, message_id: str) -> str:
        """The key under which the receipt of a submitted part is expected; empty if the carrier gave no id."""
        return match_key(message_id, self._submit_form)

    # In

    def read_receipt(self, pdu: DeliverSm | DataSm, now_ms: int) -> DeliveryReport:
        """A receipt in our words. Never raises.

        `at_ms` is the time at which it came: carriers write theirs without a time zone. `raw` leaves out the words of
        the message that many receipts quote.
        """
        receipt = parse(pdu)
        state = STATES[receipt.state] if receipt.is_final else State.SENT
        error = receipt.error if receipt.error.strip("0") else ""
        raw = receipt.text.partition(" text:")[0][:RAW_CHARACTERS]
        return DeliveryReport(
            self._connector_id,
            _storable(match_key(receipt.message_id, self._receipt_form)),
            state,
            now_ms,
            _storable(error or receipt.stat),
            _storable(raw),
            _number(pdu.source_addr),
        )

    def read_message(self, pdu: DeliverSm | DataSm, now_ms: int, in_doubt: bool = False) -> InboundSms:
        """A message from a person, or one part of it. Never raises: of a broken header nothing is used.

        The carrier's id is receipted_message_id, in which some name each message from a person. The mark is
        user_message_reference (section 5.3.2.17), the handset's own count of what it has sent.
        """
        try:
            content = read_content(pdu)
        except HeaderError:
            content = Content(pdu.content)
        coding = pdu.data_coding
        if coding == self._settings.gsm_data_coding:
            coding = DATA_CODING_GSM
        elif coding == self._settings.ucs2_data_coding:
            coding = DATA_CODING_UCS2
        text = decode(content.body, coding, content.header, self._settings.gsm_packed)
        return InboundSms(
            connector_id=self._connector_id,
            sender=_number(pdu.source_addr),
            recipient=_number(pdu.destination_addr),
            text=text,
            reference=content.reference if content.is_part else -1,
            number=content.number,
            total=content.total,
            received_ms=now_ms,
            carrier_id=_storable(get_text(pdu.tlvs, Tag.RECEIPTED_MESSAGE_ID) or ""),
            mark=pdu.tlvs.get(_USER_REFERENCE, b"").hex(),
            in_doubt=in_doubt,
        )


@lru_cache(maxsize=4096)
def _validity(seconds: int) -> str:
    """A validity period, relative, as SMPP writes it."""
    return format_relative(timedelta(seconds=seconds))


def _number(address: str) -> str:
    """An address as we write numbers, without a plus."""
    return _storable(address.removeprefix("+"))


def _storable(text: str) -> str:
    """A carrier's word without NUL, which PostgreSQL does not take."""
    return text.replace("\0", "") if "\0" in text else text
