"""What a short message is made of: which texts can be sent, in which alphabet, in how many parts, billed as how many units.

`prepare` decides when a message is accepted, `encode` makes the octets when it leaves. Between them the message is stored as
its text and the name of its alphabet; a part that a customer has split himself is stored whole, in `raw` form (`_pack_raw`).
"""

from __future__ import annotations

from functools import lru_cache

from berid.base.text import (
    DATA_CODING_GSM,
    Alphabet,
    BadText,
    Encoding,
    PartBytes,
    Policy,
    analyse,
    commercial_parts,
    encode_parts,
    fold_turkish,
)
from berid.domain.errors import RefusalKind, refused
from berid.domain.message import Draft, Outgoing, RawPart, Submission
from berid.flow.ports import Prepared

MAX_PARTS = 10
"""Longer texts are refused. Ten parts are 1,530 GSM characters or 670 of UCS-2; carriers and handsets commonly stop there."""

COMMERCIAL = "turkeysms"
"""The `billing` of a submission that counts by the tiers of Turkish operators inside Turkey; `turkeysms:5` counts five
characters besides, which operators append to each message."""

_TURKEY = "90"
_POLICIES = {
    "auto": Policy.AUTO,
    "plain": Policy.AUTO,
    "turkish": Policy.TURKISH,
    "ucs2": Policy.UCS2,
}
_PART_OCTETS = 140
_RAW = "raw"

_REMEMBERED = 64
"""Texts whose octets are kept: those that are being sent just now to many recipients, from several accounts."""


def prepare(submission: Submission) -> Prepared:
    """Choose the alphabet, count parts, and units for every recipient. See `Channel.prepare`.

    Units are the parts on the wire; with `billing` COMMERCIAL and a recipient in Turkey they are what operators there bill.
    Raises `Refused`: CONTENT_MISSING for an empty text, CONTENT_INVALID for one that no alphabet carries, that takes more
    than MAX_PARTS parts, for a content policy that does not exist, and for a raw part that does not fit one short message.
    """
    content = submission.content
    recipients = submission.recipients
    if content.raw is not None:
        _check_raw(content.raw)
        return Prepared(_pack_raw(content.raw), _RAW, _RAW, 1, [Draft(recipient, 1) for recipient in recipients])
    text = content.text
    if not text:
        raise refused(RefusalKind.CONTENT_MISSING, "the text is empty", "text")
    if content.policy == "plain":
        text = fold_turkish(text)
    policy = _POLICIES.get(content.policy)
    if policy is None:
        raise refused(RefusalKind.CONTENT_INVALID, f"there is no content policy {content.policy!r}", "policy")
    try:
        encoding = analyse(text, policy)
    except BadText as error:
        raise refused(RefusalKind.CONTENT_INVALID, str(error), "text") from None
    parts = encoding.parts
    if parts > MAX_PARTS:
        raise refused(
            RefusalKind.CONTENT_INVALID, f"the text takes {parts} parts, and a message has at most {MAX_PARTS}", "text"
        )
    way, _, footer_len = submission.billing.partition(":")
    if way == COMMERCIAL:
        billed = commercial_parts(text, policy, int(footer_len or 0))
        drafts = [Draft(recipient, billed if recipient.startswith(_TURKEY) else parts) for recipient in recipients]
    else:
        drafts = [Draft(recipient, parts) for recipient in recipients]
    return Prepared(text, "text", encoding.alphabet.value, parts, drafts)


def encode(outgoing: Outgoing, wide_reference: bool = False) -> list[PartBytes]:
    """The octets of each part of a delivery, in order.

    Deliveries of one text share one encoding; only the reference that ties the parts together is each delivery's own (see
    `reference_of`). With `wide_reference` it has 16 bits, and the text may take a part more.
    """
    parts = _encode(outgoing.body, outgoing.body_kind, outgoing.alphabet, wide_reference)
    if len(parts) == 1:
        return parts
    return _with_reference(parts, reference_of(outgoing.delivery_id), wide_reference)


def reference_of(delivery_id: int) -> int:
    """The 16-bit reference of a delivery's parts; narrow headers carry its low 8 bits.

    Made of the id alone, so that a delivery sent again keeps it. An id is milliseconds, a sequence and a slot
    (`base.ids`), and the low 8 bits are their sum. So the deliveries made in one millisecond all differ, and on a
    process that is not busy those of a quarter of a second; of others one pair in 256 shares a narrow reference.
    """
    milliseconds_and_sequence, slot = divmod(delivery_id, 32)
    return ((milliseconds_and_sequence >> 8) + milliseconds_and_sequence + slot * 37) & 0xFFFF


@lru_cache(maxsize=_REMEMBERED)
def _encode(body: str, body_kind: str, alphabet: str, wide_reference: bool) -> list[PartBytes]:
    """The parts with a reference of 0. Remembered by the text: recipients of one message share it, and so do the messages of
    a customer who sends the same words one by one. Callers must not change the list."""
    if body_kind == _RAW:
        raw = unpack_raw(body)
        return [PartBytes(raw.udh, raw.data, raw.data_coding)]
    # Only the alphabet of an Encoding is looked at here.
    return encode_parts(body, Encoding(Alphabet(alphabet), 0, 1), 0, wide_reference)


def _with_reference(parts: list[PartBytes], reference: int, wide_reference: bool) -> list[PartBytes]:
    """The parts with their reference in place: `encode_parts` puts the concatenation element first in every header, so the
    reference stands behind the header's length, the element's name and the element's length."""
    octets = reference.to_bytes(2, "big") if wide_reference else bytes((reference & 0xFF,))
    behind = 3 + len(octets)
    return [PartBytes(part.udh[:3] + octets + part.udh[behind:], part.data, part.data_coding) for part in parts]


def _check_raw(raw: RawPart) -> None:
    """Refuse a part that no single short message can carry."""
    if not raw.udh and not raw.data:
        raise refused(RefusalKind.CONTENT_MISSING, "the message is empty", "text")
    if raw.udh and raw.udh[0] + 1 != len(raw.udh):
        raise refused(RefusalKind.CONTENT_INVALID, "the user data header has another length than it says", "text")
    octets = _PART_OCTETS - len(raw.udh)
    room = octets * 8 // 7 if raw.data_coding == DATA_CODING_GSM else octets
    if len(raw.data) > room:
        raise refused(
            RefusalKind.CONTENT_INVALID, f"a part with this header and alphabet carries {room} octets at most", "text"
        )


def _pack_raw(raw: RawPart) -> str:
    """A raw part as text that every store can keep: data coding, header and data in hexadecimal, with colons between."""
    return f"{raw.data_coding:02x}:{raw.udh.hex()}:{raw.data.hex()}"


def unpack_raw(body: str) -> RawPart:
    """The raw part behind a stored body of kind `raw`."""
    data_coding, udh, data = body.split(":")
    return RawPart(bytes.fromhex(udh), bytes.fromhex(data), int(data_coding, 16))
