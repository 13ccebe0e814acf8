"""How the text of a short message becomes parts on the wire, and how parts become text again.

Three things stand here, all pure functions: `analyse` measures a text, `encode_parts` and `decode`
translate between text and octets, `commercial_parts` counts as Turkish operators bill. The rules are those
of 3GPP TS 23.038 (alphabets; the former GSM 03.38) and TS 23.040 section 9.2.3.24 (user data header),
carried by SMPP 3.4 (data_coding, section 5.2.19).

Words: a *septet* is one 7-bit code of a GSM alphabet; a *unit* is what fills a part, a septet in the GSM
alphabets and a UTF-16 code unit in UCS-2; an *escape pair* is the escape septet with the code that follows
it, for a character of an extension table.

Text that leaves and text that comes in obey one rule: it holds neither a lone surrogate nor a NUL. No
alphabet carries a lone surrogate, and a NUL is stored by neither PostgreSQL nor, as a rule, a handset.
Going out, such a text is refused with `BadText`; coming in, the place is taken by U+FFFD. A letter is never
replaced on the way out, except by `fold_turkish`, on request.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DATA_CODING_GSM: Final = 0
"""SMPP data_coding of the GSM alphabets; a national table is named in the user data header, not here."""
DATA_CODING_UCS2: Final = 8
"""SMPP data_coding of UCS-2."""
MAX_PARTS: Final = 255
"""The concatenation element counts parts in one octet (TS 23.040 section 9.2.3.24.1)."""

_PAYLOAD_OCTETS: Final = 140
_ESCAPE: Final = 0x1B
_TURKISH: Final = 1  # national language identifier, TS 23.038 table 6.2.1.2.4.1
_IE_SINGLE_SHIFT: Final = 0x24  # information elements, TS 23.040 section 9.2.3.24
_IE_LOCKING_SHIFT: Final = 0x25


class BadText(ValueError):
    """The text cannot be sent as it is. The message names the cause and the place, never the text."""


class Alphabet(StrEnum):
    """An alphabet that a message is sent in. The value is what is stored.

    Turkish has a single shift table (the seven letters that the default alphabet lacks become escape pairs)
    and a locking shift table (each of them is one septet, at the price of è ì Ø ø Æ æ ¡ ¿). TS 23.038 also
    lets a message name both. That is never sent: the locking table with the default extension table already
    holds every character of the two, none of them dearer, and a second header element would cost three
    octets of each part. `decode` reads it all the same.
    """

    GSM7 = "gsm7"
    GSM7_TR_SINGLE = "gsm7_tr_single"
    GSM7_TR_LOCKING = "gsm7_tr_locking"
    UCS2 = "ucs2"


class Policy(StrEnum):
    """Which alphabets the caller permits.

    AUTO: the default GSM alphabet if the whole text is in it, else UCS-2. TURKISH: the Turkish tables as
    well; only for carriers and handsets in Turkey. UCS2: nothing else.
    """

    AUTO = "auto"
    TURKISH = "turkish"
    UCS2 = "ucs2"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a text travels: its alphabet, its length in units of it, and the number of parts (at least 1)."""

    alphabet: Alphabet
    units: int
    parts: int


@dataclass(frozen=True, slots=True)
class Part:
    """The piece of text in one part, and its length in units."""

    text: str
    units: int


@dataclass(frozen=True, slots=True)
class PartBytes:
    """One part as a carrier takes it.

    `udh` is the whole user data header with its length octet in front, empty if there is none. `data`
    follows it: one septet per octet in the GSM alphabets, UTF-16 big-endian in UCS-2. With a header,
    esm_class needs its UDHI bit (0x40).
    """

    udh: bytes
    data: bytes
    data_coding: int


def analyse(text: str, allowed: Policy = Policy.AUTO, wide_reference: bool = False) -> Encoding:
    """Choose the alphabet that takes the fewest parts among the permitted ones, and measure the text in it.

    Equal parts go to the earlier of: default GSM, Turkish single shift, Turkish locking shift, UCS-2.
    Single shift stands before locking shift because a handset that knows neither then shows plain letters
    (s for ş) instead of wrong ones (æ for ş). UCS-2 stands last because it never takes fewer parts than a
    GSM alphabet that holds the text.

    `wide_reference` says that the parts will carry the 16-bit reference, which takes one octet more. An
    empty text is one part. More than MAX_PARTS parts are counted, and refused only by `encode_parts`.
    Raises BadText for a lone surrogate or a NUL.
    """
    best: Encoding | None = None
    for table in _PERMITTED[allowed]:
        marked = table.mark(text)
        if marked is None:
            continue
        units = len(marked) if marked.isascii() else len(marked) + len(marked.translate(None, _BELOW_128))
        if units <= table.single:
            return table.in_one_part[units]
        if units == len(marked):
            parts = -(-units // table.chained(wide_reference))
        else:
            parts = sum(1 for _ in _cut(table.septets(marked), table.chained(wide_reference), False))
        if best is None or parts < best.parts:
            best = Encoding(table.alphabet, units, parts)
    return best or _analyse_ucs2(text, wide_reference)


def split(text: str, encoding: Encoding, wide_reference: bool = False) -> list[Part]:
    """The pieces of text that the parts carry; joined they are the text.

    An escape pair or a surrogate pair stays in one part, so a part may be one unit short of full.
    Raises BadText as `encode_parts` does.
    """
    table = _TABLES.get(encoding.alphabet)
    pieces = _pieces(text, table, wide_reference)
    if table is None:
        return [Part(piece.decode("utf-16-be"), len(piece) // 2) for piece in pieces]
    parts = []
    start = 0
    for piece in pieces:
        end = start + len(piece) - piece.count(_ESCAPE)
        parts.append(Part(text[start:end], len(piece)))
        start = end
    return parts


def encode_parts(text: str, encoding: Encoding, reference: int, wide_reference: bool = False) -> list[PartBytes]:
    """The octets of each part, in order.

    Only the alphabet of `encoding` is used; to get as many parts as it says, give `analyse` the same
    `wide_reference`. Of `reference` the low 8 bits count, with `wide_reference` the low 16. It should
    differ between messages to one number that are under way at the same time; a text in one part carries
    none.
    Raises BadText for a lone surrogate, a NUL, a character outside the alphabet, or more than MAX_PARTS
    parts.
    """
    table = _TABLES.get(encoding.alphabet)
    national, data_coding = (table.element, DATA_CODING_GSM) if table else (b"", DATA_CODING_UCS2)
    pieces = _pieces(text, table, wide_reference)
    if len(pieces) == 1:
        return [PartBytes(_header(national), pieces[0], data_coding)]
    if len(pieces) > MAX_PARTS:
        raise BadText(f"the text takes {len(pieces)} parts, and a message has at most {MAX_PARTS}")
    # Elements of TS 23.040: 9.2.3.24.1 (8-bit reference) and 9.2.3.24.8 (16-bit reference).
    if wide_reference:
        chain = bytes((0x08, 4, reference >> 8 & 0xFF, reference & 0xFF, len(pieces)))
    else:
        chain = bytes((0x00, 3, reference & 0xFF, len(pieces)))
    return [
        PartBytes(_header(chain + bytes((number,)) + national), piece, data_coding)
        for number, piece in enumerate(pieces, start=1)
    ]


def decode(data: bytes, data_coding: int = DATA_CODING_GSM, udh: bytes = b"", packed: bool = False) -> str:
    """The text of one received part. Never raises: what cannot be read is U+FFFD, as is a NUL.

    `udh` is the user data header with its length octet, already taken off `data`; of it only the national
    language elements are read, and a language other than Turkish counts as not given, which TS 23.038 asks
    of a receiver that does not know it. `packed` says that GSM septets come eight in seven octets instead
    of one in each.

    data_coding: 0 GSM, 1 ASCII, 3 Latin-1, 6 Cyrillic, 7 Hebrew, 8 UCS-2; from 0x10 on it is a data coding
    scheme of TS 23.038 section 4, as carriers send it for flash messages (0x10, 0x18, 0xF0). Anything else
    is not text; it is read as Latin-1 so that a reader sees something of it.
    """
    kind = _kind_of_coding(data_coding)
    if kind == "gsm":
        return _decode_gsm(unpack(data, len(udh)) if packed else data, udh)
    return data.decode(kind, "replace").replace("\0", "\ufffd")


def pack(septets: bytes, udh_octets: int = 0) -> bytes:
    """Pack septets, one per octet, into the dense form of TS 23.038 section 6.1.2.1.

    `udh_octets` is the length of the user data header with its length octet. The septets start at the first
    septet boundary behind it (TS 23.040 section 9.2.3.24), so up to six zero bits come first. The header
    itself is not part of the result.
    """
    value = 0
    for septet in reversed(septets):
        value = value << 7 | septet
    fill_bits = -udh_octets * 8 % 7
    return (value << fill_bits).to_bytes((fill_bits + 7 * len(septets) + 7) // 8, "little")


def unpack(octets: bytes, udh_octets: int = 0, septets: int | None = None) -> bytes:
    """Undo `pack`: one septet per octet.

    `septets` is how many there are, at most as many as fit. Without it the length in octets must do, and
    that is ambiguous when seven bits are left over: a last septet of zero may be `@` or padding, and is
    then taken as padding.
    """
    fill_bits = -udh_octets * 8 % 7
    room = max(0, len(octets) * 8 - fill_bits) // 7
    count = room if septets is None else min(septets, room)
    value = int.from_bytes(octets, "little") >> fill_bits
    result = bytes(value >> 7 * at & 0x7F for at in range(count))
    could_be_padding = septets is None and (fill_bits + 7 * count) == len(octets) * 8
    return result[:-1] if could_be_padding and result.endswith(b"\0") else result


def fold_turkish(text: str) -> str:
    """Turn ç ğ ı İ ş Ğ Ş, the Turkish letters outside the default alphabet, into plain ones; nothing else."""
    return text.translate(_PLAIN_LETTERS)


def commercial_parts(text: str, mode: Policy = Policy.AUTO, footer_len: int = 0) -> int:
    """How many parts a Turkish operator bills inside Turkey. What goes over the wire, `analyse` says.

    Tiers, for one part and for each of several: 160/153 if the text is in the default GSM alphabet; 155/149
    if Turkish letters are all it has besides and `mode` is TURKISH; 70/67 else, and always if `mode` is
    UCS2. In the first two a Turkish letter counts one, though single shift spends two septets on it, and
    only ^ { } \\ [ ] ~ | and € count two; in the third the count is in UTF-16 units. `footer_len` is the
    length of what the operator appends (B-code and a space: 5), 0 if it appends nothing.
    Source: the tier table and the counting rules in the HTTP API guide of Verimor, a Turkish operator.
    Raises BadText for a lone surrogate or a NUL.
    """
    length = len(text) + len(_COUNTED_TWICE.findall(text))
    if mode is not Policy.UCS2 and _GSM7.mark(text) is not None:
        single, chained = 160, 153
    elif mode is Policy.TURKISH and _TR_SINGLE.mark(text) is not None:
        single, chained = 155, 149
    else:
        single, chained = 70, 67
        length = len(_utf16(text)) // 2
    length += footer_len
    return 1 if length <= single else -(-length // chained)


# ── Tables ──────────────────────────────────────────────────────────────────────────────────────────────────

_DEFAULT: Final = (  # TS 23.038 section 6.2.1, sixteen codes a line; 0x1B is the escape
    "@£$¥èéùìòÇ\nØø\rÅå"
    "Δ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./"
    "0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNO"
    "PQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmno"
    "pqrstuvwxyzäöñüà"
)
_EXTENSION: Final = {  # section 6.2.1.1; 0x0A is the page break
    0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\",
    0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|", 0x65: "€",
}  # fmt: skip
_TURKISH_EXTENSION: Final = _EXTENSION | {  # section A.2.1: each letter at the place of the plain one
    0x47: "Ğ", 0x49: "İ", 0x53: "Ş", 0x63: "ç", 0x67: "ğ", 0x69: "ı", 0x73: "ş",
}  # fmt: skip
_TURKISH_LOCKING: Final = "".join(  # section A.3.1: the default alphabet but for eight places
    {0x04: "€", 0x07: "ı", 0x0B: "Ğ", 0x0C: "ğ", 0x1C: "Ş", 0x1D: "ş", 0x40: "İ", 0x60: "ç"}.get(code, character)
    for code, character in enumerate(_DEFAULT)
)

_PLAIN_LETTERS: Final = str.maketrans("çğıİşĞŞ", "cgiIsGS")
_COUNTED_TWICE: Final = re.compile(r"[\^{}\\\[\]~|€]")
_BELOW_128: Final = bytes(range(128))
_AT_IN_PLACE: Final = bytes.maketrans(bytes((_ESCAPE,)), b"\0")
_RECEIVED_ESCAPE: Final = re.compile("\x1b(.?)", re.DOTALL)


class _Table:
    """One GSM alphabet made ready for use.

    A text is first *marked*: one octet per character, an extension character being its code with the high
    bit set. One call into C (the charmap codec, over a map of all 256 octets) so says whether a text fits,
    how long it is, and how it begins on the wire. The codec is quick only if octet 0 stands for NUL, hence
    `@`, whose code is 0, is marked by the escape's octet, which no character has.
    """

    def __init__(self, alphabet: Alphabet, main: str, extension: Mapping[int, str], element: bytes) -> None:
        marks = dict(enumerate(main)) | {0: "\0", _ESCAPE: main[0]}
        marks |= {0x80 | code: character for code, character in extension.items() if character not in main}
        nothing = "\ufffe"  # how the charmap codec spells "no character here"
        self._map = codecs.charmap_build("".join(marks.get(octet, nothing) for octet in range(256)))
        self.alphabet = alphabet
        self.element = element
        self.single = _septets_behind(_header(element))
        self._narrow = _septets_behind(_header(bytes(5) + element))
        self._wide = _septets_behind(_header(bytes(6) + element))
        # Most texts take one part. Their results are made once, for making one costs as much as measuring.
        self.in_one_part = tuple(Encoding(alphabet, units, 1) for units in range(self.single + 1))

    def chained(self, wide_reference: bool) -> int:
        """Septets in each part of several."""
        return self._wide if wide_reference else self._narrow

    def mark(self, text: str) -> bytes | None:
        """The marked text, or None if a character is not in this alphabet."""
        try:
            marked = codecs.charmap_encode(text, "strict", self._map)[0]
        except UnicodeEncodeError:
            return None
        return None if 0 in marked else marked

    def septets(self, marked: bytes) -> bytes:
        """A marked text as septets, one per octet."""
        octets = marked.translate(_AT_IN_PLACE)
        if not octets.isascii():
            for mark in set(octets.translate(None, _BELOW_128)):
                octets = octets.replace(bytes((mark,)), bytes((_ESCAPE, mark & 0x7F)))
        return octets


def _header(elements: bytes) -> bytes:
    return bytes((len(elements),)) + elements if elements else b""


def _septets_behind(header: bytes) -> int:
    return (_PAYLOAD_OCTETS - len(header)) * 8 // 7


_GSM7: Final = _Table(Alphabet.GSM7, _DEFAULT, _EXTENSION, b"")
_TR_SINGLE: Final = _Table(
    Alphabet.GSM7_TR_SINGLE, _DEFAULT, _TURKISH_EXTENSION, bytes((_IE_SINGLE_SHIFT, 1, _TURKISH))
)
_TR_LOCKING: Final = _Table(
    Alphabet.GSM7_TR_LOCKING, _TURKISH_LOCKING, _EXTENSION, bytes((_IE_LOCKING_SHIFT, 1, _TURKISH))
)
_TABLES: Final = {table.alphabet: table for table in (_GSM7, _TR_SINGLE, _TR_LOCKING)}
_PERMITTED: Final = {
    Policy.AUTO: (_GSM7,),
    Policy.TURKISH: (_GSM7, _TR_SINGLE, _TR_LOCKING),
    Policy.UCS2: (),
}


# ── Out ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _analyse_ucs2(text: str, wide_reference: bool) -> Encoding:
    octets = _utf16(text)
    units = len(octets) // 2
    if units <= _PAYLOAD_OCTETS // 2:
        return Encoding(Alphabet.UCS2, units, 1)
    return Encoding(Alphabet.UCS2, units, sum(1 for _ in _cut(octets, _ucs2_octets(wide_reference), True)))


def _utf16(text: str) -> bytes:
    """The octets of UCS-2, or BadText."""
    try:
        octets = text.encode("utf-16-be")
    except UnicodeEncodeError as error:  # its object holds the text, so it goes no further
        raise BadText(f"the text has a lone surrogate at index {error.start}") from None
    if "\0" in text:
        raise BadText(f"the text has a NUL at index {text.index(chr(0))}")
    return octets


def _ucs2_octets(wide_reference: bool) -> int:
    """Octets of text in each UCS-2 part of several: what the header leaves, whole units only (67, or 66)."""
    return (_PAYLOAD_OCTETS - (7 if wide_reference else 6)) // 2 * 2


def _pieces(text: str, table: _Table | None, wide_reference: bool) -> list[bytes]:
    """The text as octets, cut into what each part carries. Without a table it is UCS-2."""
    if table is None:
        octets = _utf16(text)
        if len(octets) <= _PAYLOAD_OCTETS:
            return [octets]
        return list(_cut(octets, _ucs2_octets(wide_reference), True))
    marked = table.mark(text)
    if marked is None:
        raise BadText(f"the text has a character outside the alphabet {table.alphabet.value}")
    octets = table.septets(marked)
    if len(octets) <= table.single:
        return [octets]
    return list(_cut(octets, table.chained(wide_reference), False))


def _cut(octets: bytes, limit: int, ucs2: bool) -> Iterator[bytes]:
    """Cut after at most `limit` octets, one unit earlier where the cut would come inside a pair."""
    start = 0
    while start < len(octets):
        end = start + limit
        if end < len(octets):
            if not ucs2:
                end -= octets[end - 1] == _ESCAPE  # no second half of an escape pair is 0x1B
            elif octets[end - 2] & 0xFC == 0xD8:  # a high surrogate
                end -= 2
        yield octets[start:end]
        start = end


# ── In ──────────────────────────────────────────────────────────────────────────────────────────────────────

_SMPP_CODINGS: Final = {0: "gsm", 1: "ascii", 3: "latin-1", 6: "iso8859-5", 7: "iso8859-8", 8: "utf-16-be"}
_SCHEME_CODINGS: Final = ("gsm", "latin-1", "utf-16-be", "gsm")  # by bits 3 and 2; the last is reserved


def _kind_of_coding(data_coding: int) -> str:
    """The codec that reads the data, or "gsm"."""
    if data_coding < 0x10:
        return _SMPP_CODINGS.get(data_coding, "latin-1")
    group = data_coding >> 4
    if group < 0x8:  # general data coding, also with automatic deletion
        return _SCHEME_CODINGS[data_coding >> 2 & 3]
    if group == 0xE:  # message waiting, text in UCS-2
        return "utf-16-be"
    if group == 0xF:  # data coding and message class; bit 2 says 8-bit data
        return _SCHEME_CODINGS[data_coding >> 2 & 1]
    return "gsm"  # message waiting (0xC, 0xD); section 4 wants reserved groups read likewise


def _decode_gsm(septets: bytes, udh: bytes) -> str:
    languages = dict(_national_languages(udh))
    main = _TURKISH_LOCKING if languages.get(_IE_LOCKING_SHIFT) == _TURKISH else _DEFAULT
    text = codecs.charmap_decode(septets, "replace", main)[0]
    if "\x1b" not in text:
        return text
    extension = _TURKISH_EXTENSION if languages.get(_IE_SINGLE_SHIFT) == _TURKISH else _EXTENSION
    # Section 6.2.1.1: a code that the extension table lacks shows the character of the main table, and an
    # escape of an escape shows a space.
    shown = {main[code]: character for code, character in extension.items()} | {"\x1b": " ", "": " "}
    return _RECEIVED_ESCAPE.sub(lambda found: shown.get(found[1], found[1]), text)


def _national_languages(udh: bytes) -> Iterator[tuple[int, int]]:
    """The national language elements of a header as (element, language). Stops where the header is broken."""
    at = 1
    end = min(len(udh), udh[0] + 1) if udh else 0
    while at + 2 < end:
        element, length = udh[at], udh[at + 1]
        if element in (_IE_SINGLE_SHIFT, _IE_LOCKING_SHIFT) and length == 1:
            yield element, udh[at + 2]
        at += 2 + length
