"""Who must not be written to, and who has agreed to be: the suppression book, and the record of consent.

Both are kept in the store, row by row, with reason and source. What is here in memory answers a single question in about a
microsecond, *is this recipient in it*, from a `Book` of eight bytes for each; so accepting a message needs no query.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from berid.base.phone import lenient

ALL: Final = "all"
"""In place of a channel: every one of them."""

CHANNELS: Final = ("sms", "voice", "email", "whatsapp")


def address_of(text: str) -> str | None:
    """A recipient as messages have it: 8 to 15 digits, or an e-mail address in small letters; None if it is neither.

    Numbers must carry their country's code; a plus or 00 before it and marks between the digits are forgiven.
    """
    if "@" not in text:
        return lenient(text)
    address = text.strip().lower()
    return address if _EMAIL(address) else None


_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[^@\s.]+").fullmatch


# ── The suppression book ──────────────────────────────────────────────────────────────────────────────────────────────


class Reason(StrEnum):
    """Why somebody is not written to, the weakest reason first: only `opt_out` is lifted by the person's own START."""

    OPT_OUT = "opt_out"
    """The person said so to us."""
    MANUAL = "manual"
    """Somebody of the account decided it."""
    BOUNCE = "bounce"
    """The address does not exist."""
    REGISTRY = "registry"
    """A national registry of people who want no advertising."""
    COMPLAINT = "complaint"
    """The person complained to a carrier or to an authority."""


_STRENGTH = {reason: place for place, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True)
class Suppression:
    """One entry of an account's book. `channel` is one of CHANNELS or ALL.

    Promotional messages are always refused, transactional ones only with `all_traffic`, one-time passwords never.
    `source` says in a few words where it came from: `sms:stop`, `import:list.csv`, a person's name.
    """

    recipient: str
    channel: str
    reason: Reason
    source: str
    all_traffic: bool
    at_ms: int


def merge(before: Suppression | None, new: Suppression) -> Suppression:
    """What the entry of a recipient becomes when another is added for the same channel: adding never weakens it.

    The stronger reason stays, with its source and time; traffic that was refused stays refused.
    """
    if before is None:
        return new
    kept = new if _STRENGTH[new.reason] > _STRENGTH[before.reason] else before
    return replace(kept, all_traffic=before.all_traffic or new.all_traffic)


class Book:
    """A set of recipients, each with a mark that is on or off, in eight bytes for each. Never changed after it is made.

    It keeps the sorted hashes of the recipients, not themselves: the upper 63 bits of Python's own hash of text, which is
    keyed anew in every process (SipHash), and the mark in the lowest bit. A recipient who is not in it is taken for one who is
    once in 2**63 / len(book) times: with a million entries, about once in 10**13 questions.
    """

    __slots__ = ("_keys", "marked")

    def __init__(self) -> None:
        self._keys: array[int] = array("Q")
        self.marked = 0
        """How many recipients have the mark on."""

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, recipient: str) -> int:
        """0 if the recipient is not in the book, 1 if it is, 2 if it is and its mark is on."""
        keys, key = self._keys, hash(recipient) & _UPPER
        place = bisect_left(keys, key)
        if place == len(keys):
            return 0
        found = keys[place] - key
        return found + 1 if found < 2 else 0

    def changed(self, changes: Mapping[str, int]) -> Book:
        """The book with some recipients as `changes` has them, in the numbers of `find`: 0 takes one out.

        Costs a microsecond for each change and a copy of the rest, a millisecond for a million.
        """
        book, old, start = Book(), self._keys, 0
        new, book.marked = book._keys, self.marked
        for key, found in sorted((hash(recipient) & _UPPER, found) for recipient, found in changes.items()):
            place = bisect_left(old, key, start)
            new.extend(old[start:place])
            start = place
            if place < len(old) and old[place] - key < 2:
                book.marked -= old[place] & 1
                start += 1
            if found:
                new.append(key | (found - 1))
                book.marked += found - 1
        new.extend(old[start:])
        return book


class BookMaker:
    """Collects the recipients of a new book, each of them once, in a third of the time that `Book.changed` takes for many."""

    __slots__ = ("_keys", "_marked")

    def __init__(self) -> None:
        self._keys: array[int] = array("Q")
        self._marked = 0

    def add(self, recipient: str, found: int) -> None:
        """Enter a recipient: 1, or 2 with its mark on."""
        self._keys.append(hash(recipient) & _UPPER | (found - 1))
        self._marked += found - 1

    def book(self) -> Book:
        """The book of all that were added."""
        book = Book()
        book.marked = self._marked
        # Sorting makes Python integers, five times as large; by the upper byte there are never many of them at once.
        heaps = [array("Q") for _ in range(256)]
        for key in self._keys:
            heaps[key >> 56].append(key)
        for heap in heaps:
            book._keys.extend(array("Q", sorted(heap)))
        return book


_UPPER: Final = (1 << 64) - 2
assert sys.hash_info.width == 64, "the book needs hashes of 64 bits"

Books = Mapping[int, Mapping[str, Book]]
"""The suppression books by account and channel (or ALL); the mark means all traffic. Who has no entry has no book."""


# ── The record of consent ─────────────────────────────────────────────────────────────────────────────────────────────


class Status(StrEnum):
    """Yes or no to commercial messages, in the words of İYS, the Turkish registry of consent."""

    ONAY = "ONAY"
    RET = "RET"


class RecipientType(StrEnum):
    """A private person, or a trader: who trades may be written to without asking, until he refuses."""

    BIREYSEL = "BIREYSEL"
    TACIR = "TACIR"


class ConsentType(StrEnum):
    """The kind of message that is agreed to."""

    MESAJ = "MESAJ"
    ARAMA = "ARAMA"
    EPOSTA = "EPOSTA"


TYPE_OF_CHANNEL: Final = {"sms": ConsentType.MESAJ, "voice": ConsentType.ARAMA, "email": ConsentType.EPOSTA}
"""Which consent a channel needs. The registry has no word for WhatsApp, which has its own rule of consent."""

SOURCES: Final = frozenset(
    {
        "HS_FIZIKSEL_ORTAM", "HS_ISLAK_IMZA", "HS_WEB", "HS_CAGRI_MERKEZI", "HS_SOSYAL_MEDYA", "HS_EPOSTA", "HS_MESAJ",
        "HS_MOBIL", "HS_EORTAM", "HS_ETKINLIK", "HS_2015", "HS_ATM", "HS_KARAR",
    }
)  # fmt: skip
"""Where a sender may have been given consent. What people tell the registry itself has sources that begin with IYS_."""

TURKEY: Final = ZoneInfo("Europe/Istanbul")
"""The registry's times are Turkey's."""

FIRST_DAY: Final = date(2015, 5, 1)
"""The law of electronic commerce (6563) took force on this day; the registry knows no consent that is older."""

BUSINESS_DAYS: Final = 3
"""How many business days a sender has to record what it was told."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What one recipient told one brand about one kind of message. `consent_ms` is when; 0 and "" where it is not known.

    The record of a brand, a recipient and its type, and a kind of message is the row of what it said over time.
    """

    brand: str
    recipient: str
    recipient_type: RecipientType
    type: ConsentType
    status: Status
    source: str
    consent_ms: int


ConsentKey = tuple[str, str, str]
"""Type, brand and recipient type."""

Consents = Mapping[int, Mapping[ConsentKey, Book]]
"""Who has agreed, by account and key."""


def consent_fault(consent: Consent, before: Status | None, now_ms: int) -> tuple[str, str] | None:
    """The field and the sentence why a record may not be added after the status `before` (None: it would be the first).

    Source of the rules: İYS, record rules of its consent interface. Public holidays are not known here, so at the end of one
    a record may be refused that the registry would still take.
    """
    fault = _form_fault(consent)
    if fault is not None:
        return fault
    if before is None and consent.status is Status.RET:
        return "status", "the first record of a recipient cannot be RET: there is no consent to take back"
    if before is consent.status:
        return "status", f"the recipient's last record is {before.value} already"
    is_trader = consent.recipient_type is RecipientType.TACIR
    if not consent.source and not is_trader:
        return "source", "a private person's consent needs its source, such as HS_WEB"
    if consent.source and consent.source not in SOURCES:
        return "source", f"there is no source {consent.source!r}; the sources are {', '.join(sorted(SOURCES))}"
    if not consent.consent_ms:
        return None if is_trader else ("consent_date", "a private person's consent needs its date")
    told, today = _day_in_turkey(consent.consent_ms), _day_in_turkey(now_ms)
    if told < FIRST_DAY:
        return "consent_date", f"the date is before {FIRST_DAY}, when the law began"
    if consent.consent_ms > now_ms:
        return "consent_date", "the date is in the future"
    if business_days(told, today) > BUSINESS_DAYS:
        return "consent_date", f"the date is more than {BUSINESS_DAYS} business days ago"
    return None


def registry_fault(consent: Consent) -> tuple[str, str] | None:
    """As `consent_fault`, for a record that the registry has already: only what it could not have is refused."""
    fault = _form_fault(consent)
    if fault is None and consent.source and consent.source not in SOURCES and not consent.source.startswith("IYS_"):
        return "source", f"there is no source {consent.source!r}"
    return fault


def _form_fault(consent: Consent) -> tuple[str, str] | None:
    if not consent.brand.strip() or len(consent.brand) > 64:
        return "brand", "a consent is given to a brand: its code in the registry, or its name"
    if address_of(consent.recipient) != consent.recipient:
        return "recipient", "the recipient must be a number with its country's code, or an e-mail address"
    if (consent.type is ConsentType.EPOSTA) != ("@" in consent.recipient):
        return "recipient", "EPOSTA needs an e-mail address, MESAJ and ARAMA a number"
    return None


def business_days(first: date, last: date) -> int:
    """How many days from Monday to Friday lie behind `first`, up to and with `last`."""
    weeks, rest = divmod((last - first).days, 7)
    return weeks * 5 + sum((first + timedelta(day)).weekday() < 5 for day in range(1, rest + 1))


def _day_in_turkey(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(TURKEY).date()


def has_consent(books: Sequence[Book], recipient: str) -> bool:
    """Whether a recipient has agreed to one of them."""
    return any(book.find(recipient) for book in books)
