"""Telephone numbers: how they are written, where they belong, how long they may be.

A number inside the platform is a string of 8 to 15 ASCII digits that begins with a calling code: no plus, no zeros in
front (ITU-T E.164 without its plus sign). `international`, `lenient` and `normalise_tr` make one from what people write.
`place_of` and `is_possible` answer from a table of prefixes in under a microsecond; they are for the path of a message.
`is_valid` asks the `phonenumbers` library, which is thorough and slow; it is for forms and imports.

The table is `data/phone.txt`, written by tools/phone_data.py, with its source and date in its first lines.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Final

_DIGITS_MIN: Final = 8
_DIGITS_MAX: Final = 15  # E.164, section 6.2.1


class Kind(StrEnum):
    """What a prefix says of the numbers behind it.

    OTHER is what no person carries or has at home: free and premium numbers, internet telephony, pagers, call centres.
    UNKNOWN: fixed and mobile numbers share the prefix, as in the United States.
    """

    MOBILE = "mobile"
    FIXED = "fixed"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a number belongs.

    `operator` is to whom the block was first given, None where we keep no list; a person may since have taken the
    number to another one. `lengths` is how many digits, calling code included, a number of this country and kind may have.
    """

    country_iso2: str
    country_name_en: str
    operator: str | None
    kind: Kind
    lengths: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Country:
    name_en: str
    calling_code: str
    trunk_prefix: str
    lengths: dict[Kind, frozenset[int]]


def international(text: str) -> str | None:
    """The number, if the text is one exactly as we keep it: 8 to 15 digits, the first not 0. Else None.

    "966500000000" passes; "+966500000000", "00966500000000" and "0500000000" do not.
    """
    return text if _INTERNATIONAL(text) else None


def lenient(text: str, country: str | None = None) -> str | None:
    """The number that a person meant, or None if the text cannot be one.

    Spaces, hyphens, dots, slashes, round brackets and marks of writing direction are dropped, Arabic and Persian digits
    become ASCII, a plus or 00 in front is dropped. Without a plus or 00, and with a `country` (ISO2, capitals), the forms
    used inside that country are understood as well: "0532 123 45 67" and "532 123 45 67" in TR, "050 123 4567" and
    "50 123 4567" in SA. A number that could be read both ways is taken as one of that country. Whether the result can
    exist, `is_possible` says.
    """
    digits, is_international = _strip(text)
    home = _COUNTRIES.get(country) if country and not is_international else None
    if home:
        digits = _from_home(digits, home)
    return international(digits)


def normalise_tr(text: str) -> str | None:
    """The recipient as TurkeySMS reads it, or None if it is none (their TS-1034).

    0 and ten digits, or ten digits that begin with 5, are Turkish. In Turkey only mobile numbers are taken: 90, 5 and nine
    digits. "90500000000", which their documents show, is a digit short and refused. Any other number must carry its
    country's code and pass `is_possible`. Source: what their clients are seen to send.
    """
    digits, is_international = _strip(text)
    if not is_international and ((len(digits) == 11 and digits[0] == "0") or (len(digits) == 10 and digits[0] == "5")):
        digits = "90" + digits[-10:]
    if digits.startswith("90"):
        return digits if _TURKISH_MOBILE(digits) else None
    return digits if _INTERNATIONAL(digits) and is_possible(digits) else None


def place_of(digits: str) -> Place | None:
    """Where a number belongs, by its longest known prefix; None if no country has it. Looks no further than that."""
    return _place(digits[:_LONGEST])


@lru_cache(maxsize=32_768)
def _place(head: str) -> Place | None:
    """By the longest prefix. Remembered, since numbers of one operator begin alike: some megabytes when it is full."""
    return next((place for prefix in _heads(head) if (place := _PLACES.get(prefix)) is not None), None)


def country_of(digits: str) -> str | None:
    """The country (ISO2) a number belongs to; None if no country has it, as with satellite telephones."""
    place = place_of(digits)
    return place.country_iso2 if place else None


def country_name(country_iso2: str) -> str | None:
    """The English name of a country, None if it has no telephone numbers of its own. No quotes or brackets are in it."""
    country = _COUNTRIES.get(country_iso2)
    return country.name_en if country else None


def is_possible(digits: str) -> bool:
    """Whether a number of this length can exist at its place: "905000000000" can, "90500000000" cannot.

    A quick check that refuses slips of the finger. It passes blocks that nobody has been given yet.
    """
    place = place_of(digits)
    return place is not None and len(digits) in place.lengths and digits.isascii() and digits.isdigit()


@lru_cache(maxsize=4096)
def is_valid(digits: str) -> bool:
    """Whether the block has been given to someone, by the metadata of the `phonenumbers` library.

    The first call loads the library (some 15 MB). A new block may be missing from it, so this warns but should not refuse.
    """
    import phonenumbers

    if not (digits.isascii() and digits.isdigit()):
        return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse("+" + digits))
    except phonenumbers.NumberParseException:
        return False


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

_INTERNATIONAL: Final = re.compile(rf"[1-9][0-9]{{{_DIGITS_MIN - 1},{_DIGITS_MAX - 1}}}").fullmatch
_TURKISH_MOBILE: Final = re.compile("905[0-9]{9}").fullmatch
_MEANINGLESS: Final = "".join(
    map(
        chr,
        (
            *b" \t\r\n-()./",
            *(0xA0, 0xAD, 0x061C),  # fixed space, soft hyphen, Arabic letter mark
            *range(0x2000, 0x2016),  # spaces, unseen joiners, writing direction, dashes
            *range(0x2028, 0x2030),  # separators, writing direction, narrow space
            *range(0x205F, 0x206A),  # unseen
            *(0x2212, 0x3000, 0xFEFF),  # minus, wide space, byte order mark
        ),
    )
)
_WRITTEN: Final = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "0123456789" * 2, _MEANINGLESS)


def _strip(text: str) -> tuple[str, bool]:
    """What is left of a written number, and whether a plus or 00 stood in front."""
    digits = text if text.isascii() and text.isdigit() else text.translate(_WRITTEN)
    if digits.startswith("+"):
        return digits[1:].removeprefix("00"), True
    if digits.startswith("00"):
        return digits[2:], True
    return digits, False


def _from_home(digits: str, home: _Country) -> str:
    """The international form of a number written in `home`, or the digits as they are."""
    if home.trunk_prefix and digits.startswith(home.trunk_prefix):
        number = home.calling_code + digits.removeprefix(home.trunk_prefix)
        if is_possible(number):
            return number
    number = home.calling_code + digits
    place = place_of(number)
    # Mobile numbers are often written without the trunk prefix; others are not, and would hide foreign numbers.
    if place and place.kind in (Kind.MOBILE, Kind.UNKNOWN) and is_possible(number):
        return number
    return digits


# ── The table ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _sections() -> Iterator[list[list[str]]]:
    """The sections of the data file, each as its lines cut at the bars."""
    text = (files("berid.base") / "data" / "phone.txt").read_text(encoding="utf-8")
    for section in text.split("\n[")[1:]:
        yield [line.split("|") for line in section.splitlines()[1:] if line]


def _load() -> tuple[dict[str, _Country], dict[str, Place]]:
    """Countries by ISO2, and places by prefix."""
    country_lines, kind_lines, operator_lines = _sections()
    countries = {}
    for iso2, name, code, trunk, *columns in country_lines:
        mobile, fixed, other = (
            frozenset(len(code) + int(length) for length in column.split(",") if length) for column in columns
        )
        lengths = {Kind.MOBILE: mobile, Kind.FIXED: fixed, Kind.OTHER: other, Kind.UNKNOWN: mobile | fixed}
        countries[iso2] = _Country(name, code, trunk, lengths)

    made: dict[tuple[str, str | None, Kind], Place] = {}

    def place(iso2: str, operator: str | None, kind: Kind) -> Place:
        key = (iso2, operator, kind)
        if key not in made:
            country = countries[iso2]
            made[key] = Place(iso2, country.name_en, operator, kind, country.lengths[kind])
        return made[key]

    operators = {prefix: name for _, name, prefixes in operator_lines for prefix in prefixes.split()}
    kinds = {prefix: (iso2, Kind(kind)) for iso2, kind, prefixes in kind_lines for prefix in prefixes.split()}
    places = {}
    for prefix in kinds | operators:
        iso2, kind = next(kinds[head] for head in _heads(prefix) if head in kinds)
        operator = next((operators[head] for head in _heads(prefix) if head in operators), None)
        places[prefix] = place(iso2, operator, kind)
    return countries, places


def _heads(prefix: str) -> Iterator[str]:
    """A prefix and all that it begins with, the longest first."""
    return (prefix[:length] for length in range(len(prefix), 0, -1))


_COUNTRIES, _PLACES = _load()
_LONGEST: Final = max(map(len, _PLACES))
