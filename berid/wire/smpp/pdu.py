"""PDUs of SMPP 3.4 as values, and the codec between them and bytes.

`encode(pdu, sequence, status)` gives one whole frame, `decode(frame)` gives sequence, status and PDU back.
A PDU holds the body only: sequence number and status belong to the conversation (see `session`).

Strings of the protocol are `str` in Latin-1, so that every octet survives both ways; message content is
`bytes`; optional parameters are a `dict` from tag to value octets, in the order of the wire, unknown tags
kept (of a tag that comes twice, the last). Numbers are plain `int`.

Speed decides the style of this module: submit_sm, deliver_sm and their responses are packed and parsed by
hand, without an object per field. The rest shares `_Reader` and a few packing helpers.

Strictness: a string longer than its field, a length that points behind the end, or octets left over are
refused with `PduError`, which carries the status to answer with. Optional parameters of a known fixed length
are checked in what customers send (submit_sm, submit_multi). Elsewhere an odd one is kept and its accessor
gives None: a carrier will not mend its receipts for us, and a receipt refused is a receipt lost.
"""

import struct
from collections.abc import Mapping
from typing import ClassVar, Self

import msgspec

from berid.wire.smpp.codes import RESPONSE_BIT, CommandId, CommandStatus, Tag, command_name

HEADER_BYTES = 16
"""command_length, command_id, command_status, sequence_number: four octets each (section 3.2)."""

MAX_PDU_BYTES = 70_000
"""Largest frame taken by default: a message_payload of 65,535 octets, its fields, and some parameters beside it."""

MAX_SEQUENCE = 0x7FFFFFFF
"""Sequence numbers run from 1 to this, then from 1 again (section 5.1.4)."""

MAX_SHORT_MESSAGE_BYTES = 255
"""sm_length is one octet. 3.4 stops at 254, 5.0 at 255; longer content travels in message_payload."""

UNPACK_HEADER = struct.Struct(">IIII").unpack_from
PACK_HEADER = struct.Struct(">IIII").pack
_UNPACK_TAIL = struct.Struct(">5B").unpack_from
_UNPACK_TLV = struct.Struct(">HH").unpack_from
_PACK_TLV = struct.Struct(">HH").pack
_UNPACK_U32 = struct.Struct(">I").unpack_from
_PACK_U32 = struct.Struct(">I").pack

_NETWORK_ERROR_CODE = int(Tag.NETWORK_ERROR_CODE)
_MESSAGE_PAYLOAD = int(Tag.MESSAGE_PAYLOAD)

_OCTET = {value: chr(value) for value in range(256)}
"""One-octet numbers as Latin-1 characters. A dict rather than a tuple, so that -1 is refused, not wrapped."""

UINT_SIZES: Mapping[int, int] = {
    Tag.DEST_ADDR_SUBUNIT: 1,
    Tag.DEST_NETWORK_TYPE: 1,
    Tag.DEST_BEARER_TYPE: 1,
    Tag.DEST_TELEMATICS_ID: 2,
    Tag.SOURCE_ADDR_SUBUNIT: 1,
    Tag.SOURCE_NETWORK_TYPE: 1,
    Tag.SOURCE_BEARER_TYPE: 1,
    Tag.SOURCE_TELEMATICS_ID: 1,
    Tag.QOS_TIME_TO_LIVE: 4,
    Tag.PAYLOAD_TYPE: 1,
    Tag.MS_MSG_WAIT_FACILITIES: 1,
    Tag.PRIVACY_INDICATOR: 1,
    Tag.USER_MESSAGE_REFERENCE: 2,
    Tag.USER_RESPONSE_CODE: 1,
    Tag.SOURCE_PORT: 2,
    Tag.DESTINATION_PORT: 2,
    Tag.SAR_MSG_REF_NUM: 2,
    Tag.LANGUAGE_INDICATOR: 1,
    Tag.SAR_TOTAL_SEGMENTS: 1,
    Tag.SAR_SEGMENT_SEQNUM: 1,
    Tag.SC_INTERFACE_VERSION: 1,
    Tag.CALLBACK_NUM_PRES_IND: 1,
    Tag.NUMBER_OF_MESSAGES: 1,
    Tag.DPF_RESULT: 1,
    Tag.SET_DPF: 1,
    Tag.MS_AVAILABILITY_STATUS: 1,
    Tag.DELIVERY_FAILURE_REASON: 1,
    Tag.MORE_MESSAGES_TO_SEND: 1,
    Tag.MESSAGE_STATE: 1,
    Tag.CONGESTION_STATE: 1,
    Tag.USSD_SERVICE_OP: 1,
    Tag.DISPLAY_TIME: 1,
    Tag.SMS_SIGNAL: 2,
    Tag.MS_VALIDITY: 1,
    Tag.ITS_REPLY_TYPE: 1,
    Tag.ITS_SESSION_INFO: 2,
}
"""Octets of each optional parameter that is one number (section 5.3.2)."""

# What a customer's submit may carry, as (shortest, longest). source_telematics_id is one octet in the text
# of section 5.3.2.8 and two in its sister dest_telematics_id: both lengths are seen, so both are taken.
# ms_validity grew to four octets in 5.0, alert_on_message_delivery from none to one.
_SUBMIT_TLV_LENGTHS: dict[int, tuple[int, int]] = {
    **{int(tag): (size, size) for tag, size in UINT_SIZES.items()},
    int(Tag.SOURCE_TELEMATICS_ID): (1, 2),
    int(Tag.MS_VALIDITY): (1, 4),
    int(Tag.ALERT_ON_MESSAGE_DELIVERY): (0, 1),
    int(Tag.NETWORK_ERROR_CODE): (3, 3),
    int(Tag.RECEIPTED_MESSAGE_ID): (1, 65),
    int(Tag.SOURCE_SUBADDRESS): (2, 23),
    int(Tag.DEST_SUBADDRESS): (2, 23),
    int(Tag.CALLBACK_NUM): (4, 19),
    int(Tag.CALLBACK_NUM_ATAG): (1, 65),
}


class PduError(Exception):
    """Bytes from the peer that cannot be read as a PDU.

    `status` is what to answer with, `command_id` and `sequence` are the offender's (0 if unreadable),
    `answer_id` is the command id of the answer, and `is_fatal` says that the stream cannot go on because
    its frame limits are lost. The text names the fault and never the content.
    """

    def __init__(self, status: CommandStatus, fault: str) -> None:
        super().__init__(fault)
        self.status = status
        self.command_id = 0
        self.sequence = 0
        self.is_fatal = False

    @property
    def answer_id(self) -> int | None:
        """Command id to answer with, or None if there must be no answer.

        A fault of the header is answered by generic_nack, one of the body by the command's own response
        (sections 4.3 and 5.1.3). A faulty response is never answered: two peers could go on for ever.
        """
        if self.is_fatal:
            return int(CommandId.GENERIC_NACK)
        if self.command_id & RESPONSE_BIT:
            return None
        return answer_id_of(self.command_id)


class EncodeError(ValueError):
    """A PDU holds what the protocol cannot carry: a text too long or with a NUL, a number out of its range."""


class Pdu(msgspec.Struct, gc=False):
    """The body of one PDU. `command_id` says which; fields have the names of the specification."""

    command_id: ClassVar[int] = 0

    def pack_body(self) -> bytes:
        """Return the body as bytes. Raises EncodeError if a field cannot be carried."""
        return b""

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        """Return the PDU whose body is `body`. Raises PduError. This one is for PDUs that are a header only."""
        if body:
            raise PduError(CommandStatus.ESME_RINVCMDLEN, f"{command_name(cls.command_id)} has no body")
        return cls()

    def __repr__(self) -> str:
        """Name and fields, without secrets: content, passwords and parameters show as their sizes."""
        parts = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name == "tlvs":
                value = "{" + ", ".join(f"0x{tag:04X}: {len(octets)}" for tag, octets in value.items()) + "}"
            elif name in ("short_message", "password", "before", "behind"):
                value = f"<{len(value)}>"
            elif value in (0, ""):
                continue
            else:
                value = repr(value)
            parts.append(f"{name}={value}")
        return f"{type(self).__name__}({', '.join(parts)})"


def encode(pdu: Pdu, sequence: int, status: int = 0) -> bytes:
    """Return one frame, header and body. Raises EncodeError if a field cannot be carried."""
    body = pdu.pack_body()
    return PACK_HEADER(HEADER_BYTES + len(body), pdu.command_id, status, sequence) + body


def encode_bare(command_id: int, sequence: int, status: int) -> bytes:
    """Return a response frame that says no more than its status; `command_id` is that of the response.

    For every refusal, and for the usual yes to a deliver_sm. Bind and submit responses have no body when they
    refuse (sections 4.1.2, 4.4.2); deliver_sm_resp and data_sm_resp keep their empty message_id (4.6.2, 4.7.2).
    """
    if command_id in _KEEP_BODY:
        return PACK_HEADER(HEADER_BYTES + 1, command_id, status, sequence) + b"\0"
    return PACK_HEADER(HEADER_BYTES, command_id, status, sequence)


def answer_id_of(command_id: int) -> int:
    """Return the command id that answers a request: its response, or generic_nack if it has none or is unknown."""
    answer_id = command_id | RESPONSE_BIT
    return answer_id if answer_id in _TYPES else int(CommandId.GENERIC_NACK)


def decode(frame: bytes, max_bytes: int = MAX_PDU_BYTES) -> tuple[int, int, Pdu]:
    """Return (sequence, status, pdu) of one whole frame. Raises PduError.

    The frame must be exactly as long as its command_length says; cutting frames out of a stream is the
    session's work.
    """
    if len(frame) < HEADER_BYTES:
        raise bad_length(0, 0)
    length, command_id, status, sequence = UNPACK_HEADER(frame)
    if length != len(frame) or length > max_bytes:
        raise bad_length(command_id, sequence)
    return sequence, status, decode_body(command_id, status, sequence, frame[HEADER_BYTES:])


def decode_body(command_id: int, status: int, sequence: int, body: bytes) -> Pdu:
    """Return the PDU of a frame whose header has been read already. Raises PduError, never a fatal one.

    A response with a status other than zero may leave its body out (section 4.4.2); its fields are then empty.
    """
    pdu_type = _TYPES.get(command_id)
    try:
        if pdu_type is None:
            raise PduError(CommandStatus.ESME_RINVCMDID, f"command {command_name(command_id)} is unknown")
        if status and not body and command_id & RESPONSE_BIT:
            return pdu_type()
        return pdu_type.read_body(body)
    except PduError as error:
        error.command_id = command_id
        error.sequence = sequence
        raise


def bad_length(command_id: int, sequence: int) -> PduError:
    """Return the error for a command_length outside the limits: where the next frame begins is unknown."""
    error = PduError(CommandStatus.ESME_RINVCMDLEN, "command_length is outside the limits")
    error.command_id = command_id
    error.sequence = sequence
    error.is_fatal = True
    return error


# Optional parameters


def get_uint(tlvs: Mapping[int, bytes], tag: int) -> int | None:
    """Return an optional parameter that is one number; None if it is absent or its length is not that of the tag."""
    octets = tlvs.get(tag)
    if octets is None or len(octets) != UINT_SIZES[tag]:
        return None
    return int.from_bytes(octets, "big")


def put_uint(tlvs: dict[int, bytes], tag: int, value: int) -> None:
    """Set an optional parameter that is one number. Raises EncodeError if the value does not fit the tag's size."""
    try:
        tlvs[tag] = value.to_bytes(UINT_SIZES[tag], "big")
    except OverflowError:
        raise EncodeError(f"the value of parameter 0x{tag:04X} does not fit in {UINT_SIZES[tag]} octets") from None


def get_text(tlvs: Mapping[int, bytes], tag: int) -> str | None:
    """Return an optional parameter that is a C-octet string, up to its NUL; a missing NUL is forgiven."""
    octets = tlvs.get(tag)
    if octets is None:
        return None
    text = octets.decode("latin-1")
    end = text.find("\0")
    return text if end < 0 else text[:end]


def put_text(tlvs: dict[int, bytes], tag: int, value: str) -> None:
    """Set an optional parameter that is a C-octet string; the NUL is added. Raises EncodeError."""
    tlvs[tag] = _cstring(value, 65, "an optional parameter")


def get_network_error(tlvs: Mapping[int, bytes]) -> tuple[int, int] | None:
    """Return network_error_code as (network type, error code), section 5.3.2.31; None if absent or not 3 octets."""
    octets = tlvs.get(_NETWORK_ERROR_CODE)
    if octets is None or len(octets) != 3:
        return None
    return octets[0], int.from_bytes(octets[1:], "big")


def put_network_error(tlvs: dict[int, bytes], network_type: int, code: int) -> None:
    """Set network_error_code; type 3 is GSM. Raises EncodeError if the numbers do not fit in 1 and 2 octets."""
    try:
        tlvs[_NETWORK_ERROR_CODE] = network_type.to_bytes(1, "big") + code.to_bytes(2, "big")
    except OverflowError:
        raise EncodeError("network_error_code does not fit in 1 and 2 octets") from None


def _parse_tlvs(body: bytes, at: int, lengths: Mapping[int, tuple[int, int]] | None = None) -> dict[int, bytes]:
    tlvs = {}
    end = len(body)
    while at < end:
        if at + 4 > end:
            raise PduError(CommandStatus.ESME_RINVOPTPARSTREAM, "octets are left behind the last parameter")
        tag, length = _UNPACK_TLV(body, at)
        at += 4
        stop = at + length
        if stop > end:
            raise PduError(CommandStatus.ESME_RINVOPTPARSTREAM, f"parameter 0x{tag:04X} is longer than the PDU")
        if lengths is not None and tag in lengths:
            shortest, longest = lengths[tag]
            if not shortest <= length <= longest:
                raise PduError(CommandStatus.ESME_RINVPARLEN, f"parameter 0x{tag:04X} has a wrong length")
        tlvs[tag] = body[at:stop]
        at = stop
    return tlvs


def _pack_tlvs(tlvs: Mapping[int, bytes]) -> bytes:
    try:
        return b"".join([_PACK_TLV(tag, len(octets)) + octets for tag, octets in tlvs.items()])
    except struct.error:
        raise EncodeError("an optional parameter has a tag or a length above 65,535") from None


# Packing and reading of the PDUs that are not worth doing by hand


def _cstring(value: str, limit: int, name: str) -> bytes:
    """Return a C-octet string of at most `limit` octets with its NUL."""
    if len(value) >= limit:
        raise EncodeError(f"{name} is longer than {limit - 1} characters")
    if "\0" in value:
        raise EncodeError(f"{name} has a NUL in it")
    try:
        return value.encode("latin-1") + b"\0"
    except UnicodeEncodeError:
        raise EncodeError(f"{name} has a character outside Latin-1") from None


def _octets(*values: int) -> bytes:
    try:
        return bytes(values)
    except ValueError:
        raise EncodeError("a one-octet field is outside 0 to 255") from None


def _content(value: bytes) -> bytes:
    if len(value) > MAX_SHORT_MESSAGE_BYTES:
        raise EncodeError(f"short_message is longer than {MAX_SHORT_MESSAGE_BYTES} octets")
    return bytes((len(value),)) + value


class _Reader:
    """Takes fields from the front of a body, one after the other. Each method raises PduError at the end."""

    __slots__ = ("at", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def text(self, limit: int, status: CommandStatus) -> str:
        """Take a C-octet string of at most `limit` octets with its NUL; `status` blames the field if it is longer."""
        end = self.body.find(b"\0", self.at, self.at + limit)
        if end < 0:
            raise _bad_string(self.body, self.at, limit, status)
        value = self.body[self.at : end].decode("latin-1")
        self.at = end + 1
        return value

    def octet(self) -> int:
        if self.at >= len(self.body):
            raise _too_short()
        value = self.body[self.at]
        self.at += 1
        return value

    def u32(self) -> int:
        if self.at + 4 > len(self.body):
            raise _too_short()
        (value,) = _UNPACK_U32(self.body, self.at)
        self.at += 4
        return int(value)

    def content(self) -> bytes:
        """Take sm_length and as many octets of short_message."""
        length = self.octet()
        value = self.body[self.at : self.at + length]
        if len(value) != length:
            raise _bad_message_length()
        self.at += length
        return value

    def tlvs(self, lengths: Mapping[int, tuple[int, int]] | None = None) -> dict[int, bytes]:
        return _parse_tlvs(self.body, self.at, lengths)

    def end(self) -> None:
        if self.at != len(self.body):
            raise PduError(CommandStatus.ESME_RINVCMDLEN, "octets are left behind the last field")


def _too_short() -> PduError:
    return PduError(CommandStatus.ESME_RINVCMDLEN, "the body ends before its last field")


def _bad_message_length() -> PduError:
    return PduError(CommandStatus.ESME_RINVMSGLEN, "sm_length points behind the end of the PDU")


def _bad_string(body: bytes, at: int, limit: int, status: CommandStatus) -> PduError:
    """Tell a string that is too long for its field from a body that was cut off within it."""
    if at + limit > len(body):
        return _too_short()
    return PduError(status, f"a string is longer than its {limit} octets")


# Binding (sections 4.1 and 4.2)


class _Bind(Pdu):
    system_id: str = ""
    password: str = ""
    system_type: str = ""
    interface_version: int = 0x34
    addr_ton: int = 0
    addr_npi: int = 0
    address_range: str = ""
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        return (
            _cstring(self.system_id, 16, "system_id")
            + _cstring(self.password, 9, "password")
            + _cstring(self.system_type, 13, "system_type")
            + _octets(self.interface_version, self.addr_ton, self.addr_npi)
            + _cstring(self.address_range, 41, "address_range")
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        return cls(
            take.text(16, CommandStatus.ESME_RINVSYSID),
            take.text(9, CommandStatus.ESME_RINVPASWD),
            take.text(13, CommandStatus.ESME_RINVSYSTYP),
            take.octet(),
            take.octet(),
            take.octet(),
            take.text(41, CommandStatus.ESME_RINVCMDLEN),
            take.tlvs(),
        )


class BindReceiver(_Bind):
    """bind_receiver, section 4.1.3: deliver_sm only."""

    command_id: ClassVar[int] = int(CommandId.BIND_RECEIVER)


class BindTransmitter(_Bind):
    """bind_transmitter, section 4.1.1: submit_sm only."""

    command_id: ClassVar[int] = int(CommandId.BIND_TRANSMITTER)


class BindTransceiver(_Bind):
    """bind_transceiver, section 4.1.5: both ways over one connection."""

    command_id: ClassVar[int] = int(CommandId.BIND_TRANSCEIVER)


class _BindResp(Pdu):
    system_id: str = ""
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        return _cstring(self.system_id, 16, "system_id") + _pack_tlvs(self.tlvs)

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        if not body:
            return cls()
        take = _Reader(body)
        return cls(take.text(16, CommandStatus.ESME_RINVSYSID), take.tlvs())


class BindReceiverResp(_BindResp):
    """bind_receiver_resp, section 4.1.4."""

    command_id: ClassVar[int] = int(CommandId.BIND_RECEIVER_RESP)


class BindTransmitterResp(_BindResp):
    """bind_transmitter_resp, section 4.1.2."""

    command_id: ClassVar[int] = int(CommandId.BIND_TRANSMITTER_RESP)


class BindTransceiverResp(_BindResp):
    """bind_transceiver_resp, section 4.1.6."""

    command_id: ClassVar[int] = int(CommandId.BIND_TRANSCEIVER_RESP)


class Outbind(Pdu):
    """outbind, section 4.1.7: the carrier asks us to bind. It has no response."""

    command_id: ClassVar[int] = int(CommandId.OUTBIND)
    system_id: str = ""
    password: str = ""

    def pack_body(self) -> bytes:
        return _cstring(self.system_id, 16, "system_id") + _cstring(self.password, 9, "password")

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        pdu = cls(take.text(16, CommandStatus.ESME_RINVSYSID), take.text(9, CommandStatus.ESME_RINVPASWD))
        take.end()
        return pdu


class Unbind(Pdu):
    """unbind, section 4.2.1."""

    command_id: ClassVar[int] = int(CommandId.UNBIND)


class UnbindResp(Pdu):
    """unbind_resp, section 4.2.2."""

    command_id: ClassVar[int] = int(CommandId.UNBIND_RESP)


class GenericNack(Pdu):
    """generic_nack, section 4.3: the header could not be made sense of."""

    command_id: ClassVar[int] = int(CommandId.GENERIC_NACK)


class EnquireLink(Pdu):
    """enquire_link, section 4.11.1: are you there."""

    command_id: ClassVar[int] = int(CommandId.ENQUIRE_LINK)


class EnquireLinkResp(Pdu):
    """enquire_link_resp, section 4.11.2."""

    command_id: ClassVar[int] = int(CommandId.ENQUIRE_LINK_RESP)


# Messages (sections 4.4 and 4.6)


class _Message(Pdu):
    """submit_sm and deliver_sm have one layout."""

    service_type: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    dest_addr_ton: int = 0
    dest_addr_npi: int = 0
    destination_addr: str = ""
    esm_class: int = 0
    protocol_id: int = 0
    priority_flag: int = 0
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    replace_if_present_flag: int = 0
    data_coding: int = 0
    sm_default_msg_id: int = 0
    short_message: bytes = b""
    tlvs: dict[int, bytes] = {}

    _tlv_lengths: ClassVar[Mapping[int, tuple[int, int]] | None] = None

    @property
    def content(self) -> bytes:
        """The message's octets, from short_message or else from message_payload; a user data header is still on."""
        return self.short_message or self.tlvs.get(_MESSAGE_PAYLOAD, b"")

    def pack_body(self) -> bytes:
        service_type = self.service_type
        source = self.source_addr
        destination = self.destination_addr
        schedule = self.schedule_delivery_time
        validity = self.validity_period
        message = self.short_message
        octet = _OCTET
        if (
            len(service_type) > 5
            or len(source) > 20
            or len(destination) > 20
            or len(schedule) > 16
            or len(validity) > 16
            or len(message) > MAX_SHORT_MESSAGE_BYTES
            or "\0" in service_type
            or "\0" in source
            or "\0" in destination
            or "\0" in schedule
            or "\0" in validity
        ):
            raise self._fault()
        try:
            body = (
                f"{service_type}\0"
                f"{octet[self.source_addr_ton]}{octet[self.source_addr_npi]}{source}\0"
                f"{octet[self.dest_addr_ton]}{octet[self.dest_addr_npi]}{destination}\0"
                f"{octet[self.esm_class]}{octet[self.protocol_id]}{octet[self.priority_flag]}"
                f"{schedule}\0{validity}\0"
                f"{octet[self.registered_delivery]}{octet[self.replace_if_present_flag]}"
                f"{octet[self.data_coding]}{octet[self.sm_default_msg_id]}{octet[len(message)]}"
            ).encode("latin-1") + message
        except (KeyError, UnicodeEncodeError):
            raise self._fault() from None
        return body + _pack_tlvs(self.tlvs) if self.tlvs else body

    def _fault(self) -> EncodeError:
        """Find the field that cannot be carried by packing each again, slowly."""
        try:
            _cstring(self.service_type, 6, "service_type")
            _cstring(self.source_addr, 21, "source_addr")
            _cstring(self.destination_addr, 21, "destination_addr")
            _cstring(self.schedule_delivery_time, 17, "schedule_delivery_time")
            _cstring(self.validity_period, 17, "validity_period")
            _content(self.short_message)
        except EncodeError as error:
            return error
        return EncodeError("a one-octet field is outside 0 to 255")

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        text = body.decode("latin-1")
        find = text.find
        # Each limit is that of the field with its NUL, so a string that is too long is not found at all:
        # service_type 6; source_addr 21 behind TON and NPI; destination_addr 21 likewise;
        # schedule_delivery_time 17 behind esm_class, protocol_id and priority_flag; validity_period 17.
        a = find("\0", 0, 6)
        b = find("\0", a + 3, a + 24)
        c = find("\0", b + 3, b + 24)
        d = find("\0", c + 4, c + 21)
        e = find("\0", d + 1, d + 18)
        if (a | b | c | d | e) < 0:
            raise _message_fault(body)
        start = e + 6
        if start > len(body):
            raise _too_short()
        registered, replace, coding, default_id, length = _UNPACK_TAIL(body, e + 1)
        stop = start + length
        if stop == len(body):
            tlvs = {}
        elif stop > len(body):
            raise _bad_message_length()
        else:
            tlvs = _parse_tlvs(body, stop, cls._tlv_lengths)
        return cls(
            text[:a],
            body[a + 1],
            body[a + 2],
            text[a + 3 : b],
            body[b + 1],
            body[b + 2],
            text[b + 3 : c],
            body[c + 1],
            body[c + 2],
            body[c + 3],
            text[c + 4 : d],
            text[d + 1 : e],
            registered,
            replace,
            coding,
            default_id,
            body[start:stop],
            tlvs,
        )


def _message_fault(body: bytes) -> PduError:
    """Find the string of a submit_sm or deliver_sm that is too long or cut off by reading it again, slowly."""
    take = _Reader(body)
    try:
        take.text(6, CommandStatus.ESME_RINVSERTYP)
        take.octet(), take.octet()
        take.text(21, CommandStatus.ESME_RINVSRCADR)
        take.octet(), take.octet()
        take.text(21, CommandStatus.ESME_RINVDSTADR)
        take.octet(), take.octet(), take.octet()
        take.text(17, CommandStatus.ESME_RINVSCHED)
        take.text(17, CommandStatus.ESME_RINVEXPIRY)
    except PduError as error:
        return error
    raise AssertionError("read slowly, the strings have no fault")


class SubmitSm(_Message):
    """submit_sm, section 4.4.1: a message towards a handset."""

    command_id: ClassVar[int] = int(CommandId.SUBMIT_SM)
    _tlv_lengths: ClassVar[Mapping[int, tuple[int, int]] | None] = _SUBMIT_TLV_LENGTHS

    def around_destination(self) -> tuple[bytes, bytes]:
        """The octets of the body before `destination_addr` and behind its NUL: see `PackedSubmit`. Raises EncodeError."""
        body = self.pack_body()
        start = len(self.service_type) + len(self.source_addr) + 6  # with two NULs, and TON and NPI of both addresses
        return body[:start], body[start + len(self.destination_addr) + 1 :]


class PackedSubmit(Pdu):
    """A submit_sm that is packed but for its destination: what goes to many differs in nothing else. To be sent, not read."""

    command_id: ClassVar[int] = int(CommandId.SUBMIT_SM)
    before: bytes
    destination_addr: str
    behind: bytes

    def pack_body(self) -> bytes:
        return self.before + _cstring(self.destination_addr, 21, "destination_addr") + self.behind


class DeliverSm(_Message):
    """deliver_sm, section 4.6.1: a message or a receipt towards us; told apart by esm_class (see `receipt`)."""

    command_id: ClassVar[int] = int(CommandId.DELIVER_SM)


class _MessageIdResp(Pdu):
    message_id: str = ""
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        body = _cstring(self.message_id, 65, "message_id")
        return body + _pack_tlvs(self.tlvs) if self.tlvs else body

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        # Some peers leave the body out although the status is zero. The yes is clear, so the id is just empty.
        if not body:
            return cls()
        end = body.find(b"\0", 0, 65)
        if end < 0:
            raise _bad_string(body, 0, 65, CommandStatus.ESME_RINVMSGID)
        end += 1
        return cls(body[: end - 1].decode("latin-1"), {} if end == len(body) else _parse_tlvs(body, end))


class SubmitSmResp(_MessageIdResp):
    """submit_sm_resp, section 4.4.2: `message_id` is the carrier's name for the message."""

    command_id: ClassVar[int] = int(CommandId.SUBMIT_SM_RESP)


class DeliverSmResp(_MessageIdResp):
    """deliver_sm_resp, section 4.6.2: `message_id` is unused and empty."""

    command_id: ClassVar[int] = int(CommandId.DELIVER_SM_RESP)


class DataSm(Pdu):
    """data_sm, section 4.7.1: a message either way, content in message_payload, longer addresses."""

    command_id: ClassVar[int] = int(CommandId.DATA_SM)
    service_type: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    dest_addr_ton: int = 0
    dest_addr_npi: int = 0
    destination_addr: str = ""
    esm_class: int = 0
    registered_delivery: int = 0
    data_coding: int = 0
    tlvs: dict[int, bytes] = {}

    @property
    def content(self) -> bytes:
        """The message's octets, from message_payload; a user data header is still on."""
        return self.tlvs.get(_MESSAGE_PAYLOAD, b"")

    def pack_body(self) -> bytes:
        return (
            _cstring(self.service_type, 6, "service_type")
            + _octets(self.source_addr_ton, self.source_addr_npi)
            + _cstring(self.source_addr, 65, "source_addr")
            + _octets(self.dest_addr_ton, self.dest_addr_npi)
            + _cstring(self.destination_addr, 65, "destination_addr")
            + _octets(self.esm_class, self.registered_delivery, self.data_coding)
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        return cls(
            take.text(6, CommandStatus.ESME_RINVSERTYP),
            take.octet(),
            take.octet(),
            take.text(65, CommandStatus.ESME_RINVSRCADR),
            take.octet(),
            take.octet(),
            take.text(65, CommandStatus.ESME_RINVDSTADR),
            take.octet(),
            take.octet(),
            take.octet(),
            take.tlvs(),
        )


class DataSmResp(_MessageIdResp):
    """data_sm_resp, section 4.7.2."""

    command_id: ClassVar[int] = int(CommandId.DATA_SM_RESP)


class Address(msgspec.Struct, gc=False):
    """A destination of submit_multi that is a number (dest_flag 1), section 4.5.1.1."""

    ton: int = 0
    npi: int = 0
    addr: str = ""


class DistributionList(msgspec.Struct, gc=False):
    """A destination of submit_multi that is a list kept by the carrier (dest_flag 2), section 4.5.1.2."""

    name: str = ""


class SubmitMulti(Pdu):
    """submit_multi, section 4.5.1: one message towards 1 to 254 destinations."""

    command_id: ClassVar[int] = int(CommandId.SUBMIT_MULTI)
    service_type: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    destinations: tuple[Address | DistributionList, ...] = ()
    esm_class: int = 0
    protocol_id: int = 0
    priority_flag: int = 0
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    replace_if_present_flag: int = 0
    data_coding: int = 0
    sm_default_msg_id: int = 0
    short_message: bytes = b""
    tlvs: dict[int, bytes] = {}

    @property
    def content(self) -> bytes:
        """The message's octets, from short_message or else from message_payload; a user data header is still on."""
        return self.short_message or self.tlvs.get(_MESSAGE_PAYLOAD, b"")

    def pack_body(self) -> bytes:
        if not 1 <= len(self.destinations) <= 254:
            raise EncodeError("submit_multi has 1 to 254 destinations")
        destinations = bytearray()
        for destination in self.destinations:
            if isinstance(destination, Address):
                destinations += _octets(1, destination.ton, destination.npi)
                destinations += _cstring(destination.addr, 21, "destination_addr")
            else:
                destinations += b"\x02" + _cstring(destination.name, 21, "dl_name")
        return (
            _cstring(self.service_type, 6, "service_type")
            + _octets(self.source_addr_ton, self.source_addr_npi)
            + _cstring(self.source_addr, 21, "source_addr")
            + bytes((len(self.destinations),))
            + destinations
            + _octets(self.esm_class, self.protocol_id, self.priority_flag)
            + _cstring(self.schedule_delivery_time, 17, "schedule_delivery_time")
            + _cstring(self.validity_period, 17, "validity_period")
            + _octets(self.registered_delivery, self.replace_if_present_flag, self.data_coding, self.sm_default_msg_id)
            + _content(self.short_message)
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        return cls(
            take.text(6, CommandStatus.ESME_RINVSERTYP),
            take.octet(),
            take.octet(),
            take.text(21, CommandStatus.ESME_RINVSRCADR),
            _read_destinations(take),
            take.octet(),
            take.octet(),
            take.octet(),
            take.text(17, CommandStatus.ESME_RINVSCHED),
            take.text(17, CommandStatus.ESME_RINVEXPIRY),
            take.octet(),
            take.octet(),
            take.octet(),
            take.octet(),
            take.content(),
            take.tlvs(_SUBMIT_TLV_LENGTHS),
        )


def _read_destinations(take: _Reader) -> tuple[Address | DistributionList, ...]:
    count = take.octet()
    if not 1 <= count <= 254:
        raise PduError(CommandStatus.ESME_RINVNUMDESTS, "submit_multi has 1 to 254 destinations")
    destinations: list[Address | DistributionList] = []
    for _ in range(count):
        flag = take.octet()
        if flag == 1:
            address = Address(take.octet(), take.octet(), take.text(21, CommandStatus.ESME_RINVDSTADR))
            destinations.append(address)
        elif flag == 2:
            destinations.append(DistributionList(take.text(21, CommandStatus.ESME_RINVDLNAME)))
        else:
            raise PduError(CommandStatus.ESME_RINVDESTFLAG, "dest_flag is neither 1 nor 2")
    return tuple(destinations)


class Unsuccessful(msgspec.Struct, gc=False):
    """A destination that submit_multi did not reach, with its status, section 4.5.2.1."""

    ton: int = 0
    npi: int = 0
    addr: str = ""
    status: int = 0


class SubmitMultiResp(Pdu):
    """submit_multi_resp, section 4.5.2."""

    command_id: ClassVar[int] = int(CommandId.SUBMIT_MULTI_RESP)
    message_id: str = ""
    unsuccessful: tuple[Unsuccessful, ...] = ()
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        if len(self.unsuccessful) > 255:
            raise EncodeError("submit_multi_resp has room for 255 failures")
        failures = bytearray()
        for failure in self.unsuccessful:
            failures += _octets(failure.ton, failure.npi) + _cstring(failure.addr, 21, "destination_addr")
            failures += _pack_u32(failure.status)
        return (
            _cstring(self.message_id, 65, "message_id")
            + bytes((len(self.unsuccessful),))
            + failures
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        message_id = take.text(65, CommandStatus.ESME_RINVMSGID)
        failures = tuple(
            Unsuccessful(take.octet(), take.octet(), take.text(21, CommandStatus.ESME_RINVDSTADR), take.u32())
            for _ in range(take.octet())
        )
        return cls(message_id, failures, take.tlvs())


def _pack_u32(value: int) -> bytes:
    try:
        return _PACK_U32(value)
    except struct.error:
        raise EncodeError("a four-octet field is outside its range") from None


# Questions about a message (sections 4.8 to 4.10) and news of a handset (4.12)


class QuerySm(Pdu):
    """query_sm, section 4.8.1."""

    command_id: ClassVar[int] = int(CommandId.QUERY_SM)
    message_id: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        return (
            _cstring(self.message_id, 65, "message_id")
            + _octets(self.source_addr_ton, self.source_addr_npi)
            + _cstring(self.source_addr, 21, "source_addr")
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        return cls(
            take.text(65, CommandStatus.ESME_RINVMSGID),
            take.octet(),
            take.octet(),
            take.text(21, CommandStatus.ESME_RINVSRCADR),
            take.tlvs(),
        )


class QuerySmResp(Pdu):
    """query_sm_resp, section 4.8.2; `message_state` is a MessageState, `final_date` an SMPP time or empty."""

    command_id: ClassVar[int] = int(CommandId.QUERY_SM_RESP)
    message_id: str = ""
    final_date: str = ""
    message_state: int = 0
    error_code: int = 0
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        return (
            _cstring(self.message_id, 65, "message_id")
            + _cstring(self.final_date, 17, "final_date")
            + _octets(self.message_state, self.error_code)
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        return cls(
            take.text(65, CommandStatus.ESME_RINVMSGID),
            take.text(17, CommandStatus.ESME_RINVCMDLEN),
            take.octet(),
            take.octet(),
            take.tlvs(),
        )


class CancelSm(Pdu):
    """cancel_sm, section 4.9.1."""

    command_id: ClassVar[int] = int(CommandId.CANCEL_SM)
    service_type: str = ""
    message_id: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    dest_addr_ton: int = 0
    dest_addr_npi: int = 0
    destination_addr: str = ""
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        return (
            _cstring(self.service_type, 6, "service_type")
            + _cstring(self.message_id, 65, "message_id")
            + _octets(self.source_addr_ton, self.source_addr_npi)
            + _cstring(self.source_addr, 21, "source_addr")
            + _octets(self.dest_addr_ton, self.dest_addr_npi)
            + _cstring(self.destination_addr, 21, "destination_addr")
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        return cls(
            take.text(6, CommandStatus.ESME_RINVSERTYP),
            take.text(65, CommandStatus.ESME_RINVMSGID),
            take.octet(),
            take.octet(),
            take.text(21, CommandStatus.ESME_RINVSRCADR),
            take.octet(),
            take.octet(),
            take.text(21, CommandStatus.ESME_RINVDSTADR),
            take.tlvs(),
        )


class CancelSmResp(Pdu):
    """cancel_sm_resp, section 4.9.2."""

    command_id: ClassVar[int] = int(CommandId.CANCEL_SM_RESP)


class ReplaceSm(Pdu):
    """replace_sm, section 4.10.1."""

    command_id: ClassVar[int] = int(CommandId.REPLACE_SM)
    message_id: str = ""
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    sm_default_msg_id: int = 0
    short_message: bytes = b""
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        return (
            _cstring(self.message_id, 65, "message_id")
            + _octets(self.source_addr_ton, self.source_addr_npi)
            + _cstring(self.source_addr, 21, "source_addr")
            + _cstring(self.schedule_delivery_time, 17, "schedule_delivery_time")
            + _cstring(self.validity_period, 17, "validity_period")
            + _octets(self.registered_delivery, self.sm_default_msg_id)
            + _content(self.short_message)
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        return cls(
            take.text(65, CommandStatus.ESME_RINVMSGID),
            take.octet(),
            take.octet(),
            take.text(21, CommandStatus.ESME_RINVSRCADR),
            take.text(17, CommandStatus.ESME_RINVSCHED),
            take.text(17, CommandStatus.ESME_RINVEXPIRY),
            take.octet(),
            take.octet(),
            take.content(),
            take.tlvs(),
        )


class ReplaceSmResp(Pdu):
    """replace_sm_resp, section 4.10.2."""

    command_id: ClassVar[int] = int(CommandId.REPLACE_SM_RESP)


class AlertNotification(Pdu):
    """alert_notification, section 4.12.1: a handset that was away is back. It has no response."""

    command_id: ClassVar[int] = int(CommandId.ALERT_NOTIFICATION)
    source_addr_ton: int = 0
    source_addr_npi: int = 0
    source_addr: str = ""
    esme_addr_ton: int = 0
    esme_addr_npi: int = 0
    esme_addr: str = ""
    tlvs: dict[int, bytes] = {}

    def pack_body(self) -> bytes:
        return (
            _octets(self.source_addr_ton, self.source_addr_npi)
            + _cstring(self.source_addr, 65, "source_addr")
            + _octets(self.esme_addr_ton, self.esme_addr_npi)
            + _cstring(self.esme_addr, 65, "esme_addr")
            + _pack_tlvs(self.tlvs)
        )

    @classmethod
    def read_body(cls, body: bytes) -> Self:
        take = _Reader(body)
        return cls(
            take.octet(),
            take.octet(),
            take.text(65, CommandStatus.ESME_RINVSRCADR),
            take.octet(),
            take.octet(),
            take.text(65, CommandStatus.ESME_RINVDSTADR),
            take.tlvs(),
        )


PDU_TYPES: tuple[type[Pdu], ...] = (
    GenericNack,
    BindReceiver,
    BindReceiverResp,
    BindTransmitter,
    BindTransmitterResp,
    QuerySm,
    QuerySmResp,
    SubmitSm,
    SubmitSmResp,
    DeliverSm,
    DeliverSmResp,
    Unbind,
    UnbindResp,
    ReplaceSm,
    ReplaceSmResp,
    CancelSm,
    CancelSmResp,
    BindTransceiver,
    BindTransceiverResp,
    Outbind,
    EnquireLink,
    EnquireLinkResp,
    SubmitMulti,
    SubmitMultiResp,
    AlertNotification,
    DataSm,
    DataSmResp,
)
"""Every PDU of SMPP 3.4."""

_TYPES: dict[int, type[Pdu]] = {pdu_type.command_id: pdu_type for pdu_type in PDU_TYPES}
_KEEP_BODY = frozenset((DeliverSmResp.command_id, DataSmResp.command_id))
