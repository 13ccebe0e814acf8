"""What a country asks of promotional messages: hours, consent, sender names, length. And what that means for one submission.

The rules of a country are a `RulePack`, dated: a pack counts from its first day until a later one begins. The platform comes
with packs in `data/rules/`, each with notes on where its numbers are from; packs that the operator sets win over them. What is
not promotional keeps none of these rules; one-time passwords are not even held against the suppression book.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from importlib.resources import files
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from berid.base.phone import country_name
from berid.domain.errors import Refusal, RefusalKind
from berid.domain.message import Category
from berid.domain.suppression import TYPE_OF_CHANNEL, Book, ConsentKey, has_consent

ANYWHERE: Final = "*"
"""The country of the pack for all that have none of their own."""

QUIET: Final = "quiet_hours"
"""The reason of a delivery that is held until its recipient's hours open."""

RELEASED: Final = "released"
"""The reason of a delivery that a person has let go although rules held it: they do not hold it again."""


class Hours(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When promotional messages may be sent, by the wall clock of one time zone: from `open` until before `close`.

    What comes outside is held until they open, or refused.
    """

    zone: str
    open: time
    close: time
    outside: Literal["hold", "refuse"] = "hold"


class RulePack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rules of one country (ISO 3166, or ANYWHERE) for promotional messages from a day on. Empty or 0 asks nothing.

    `sender_suffix`, the lengths of the sender's name (suffix included) and `max_parts` are about SMS; a sender that is a
    number has no such length. `opt_out_words`: a text should hold one of them, which is a warning and refuses nothing.
    `notes` say where the rules come from.
    """

    country: str
    valid_from: date
    hours: Hours | None = None
    consent: bool = False
    sender_suffix: str = ""
    sender_min: int = 0
    sender_max: int = 0
    max_parts: int = 0
    opt_out_words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How people call the pack: `SA 2018-08-14`."""
        return f"{self.country} {self.valid_from}"

    @property
    def from_ms(self) -> int:
        """The moment from which it counts: midnight of its first day, in its own time zone if it has one."""
        zone = ZoneInfo(self.hours.zone) if self.hours else UTC
        return int(datetime.combine(self.valid_from, time(), zone).timestamp() * 1000)


def read_pack(text: str) -> RulePack:
    """A pack as people write it, in TOML. Raises ValueError with a sentence on what is wrong."""
    try:
        pack = msgspec.toml.decode(text, type=RulePack)
    except msgspec.DecodeError as error:
        raise ValueError(f"the rule pack cannot be read: {error}") from None
    fault = pack_fault(pack)
    if fault is not None:
        raise ValueError(f"{fault[0]}: {fault[1]}")
    return pack


def pack_fault(pack: RulePack) -> tuple[str, str] | None:
    """The field of a pack that cannot be followed, and a sentence why; None if all can."""
    if pack.country != ANYWHERE and country_name(pack.country) is None:
        return "country", f"{pack.country!r} is not a country; write its two letters, or * for all others"
    if pack.hours is not None:
        try:
            ZoneInfo(pack.hours.zone)
        except (KeyError, ValueError, OSError):
            return "hours.zone", f"{pack.hours.zone!r} is not a time zone; write a name such as Asia/Riyadh"
        if not pack.hours.open < pack.hours.close:
            return "hours.close", "the hours must close later than they open, on the same day"
        if pack.hours.open.tzinfo or pack.hours.close.tzinfo:
            return "hours.open", "the hours are local times without an offset"
    for name in ("sender_min", "sender_max", "max_parts"):
        if getattr(pack, name) < 0:
            return name, f"{name} must be 0 (no rule) or more"
    if pack.sender_max and pack.sender_max <= max(len(pack.sender_suffix), pack.sender_min - 1):
        return "sender_max", "no sender name can be as short as that"
    return None


def opens_ms(hours: Hours, at_ms: int) -> int:
    """0 if the hours are open at a moment, else the moment at which they open next.

    By the wall clock, also on the days on which clocks are set: hours that open at 08:00 do so at 08:00. When the clock
    skips the time of opening, they open as much later as it jumps.
    """
    zone = ZoneInfo(hours.zone)
    local = datetime.fromtimestamp(at_ms / 1000, zone)
    if hours.open <= local.time() < hours.close:
        return 0
    day = local.date()
    if local.time() >= hours.open:
        day += timedelta(days=1)
    opening = datetime.combine(day, hours.open, zone)
    if opening.timestamp() * 1000 <= at_ms:
        # The clock was set back, the hours have been open already, and this is the second time before they open.
        opening = opening.replace(fold=1)
    return int(opening.timestamp() * 1000)


class RuleBook:
    """All packs, and which of them counts where and when."""

    __slots__ = ("_set", "_shipped")

    def __init__(self, packs: Iterable[RulePack] = ()) -> None:
        """`packs` are the operator's, in the order in which they were set: of two with the same first day the later wins."""
        self._shipped = _SHIPPED
        self._set = _by_country(packs)

    def pack(self, country: str | None, at_ms: int) -> RulePack:
        """The pack for recipients in a country at a moment: a country's own before the general one, and for each of these
        the operator's before ours."""
        for name in (country, ANYWHERE):
            for packs in (self._set, self._shipped):
                for pack in packs.get(name or ANYWHERE, ()):
                    if pack.from_ms <= at_ms:
                        return pack
        return _NOTHING

    def packs(self) -> list[tuple[RulePack, bool]]:
        """Every pack, with whether the operator set it: by country, in the order in which `pack` looks for them."""
        countries = sorted({*self._set, *self._shipped})
        return [
            (pack, packs is self._set)
            for country in countries
            for packs in (self._set, self._shipped)
            for pack in packs.get(country, ())
        ]


def _by_country(packs: Iterable[RulePack]) -> Mapping[str, Sequence[RulePack]]:
    """The packs of each country, the newest first day first."""
    found: dict[str, list[RulePack]] = {}
    for pack in packs:
        found.setdefault(pack.country, []).insert(0, pack)
    for each in found.values():
        each.sort(key=lambda pack: pack.from_ms, reverse=True)
    return found


def _load() -> Iterator[RulePack]:
    for file in (files("berid.domain") / "data" / "rules").iterdir():
        if file.name.endswith(".toml"):
            yield read_pack(file.read_text(encoding="utf-8"))


_SHIPPED: Final = _by_country(_load())
_NOTHING: Final = RulePack(country=ANYWHERE, valid_from=date(1970, 1, 1))


def category_of_sender(name: str, country: str | None, rules: RuleBook, at_ms: int) -> Category:
    """What a sender's name makes of a message to a country: promotional if it ends as promotional names do there.

    Taqnyat's customers say it in no other way: "Brand-AD" is advertising, "Brand" is not.
    """
    suffix = rules.pack(country, at_ms).sender_suffix
    return Category.PROMOTIONAL if suffix and name.endswith(suffix) else Category.TRANSACTIONAL


# ── One submission ────────────────────────────────────────────────────────────────────────────────────────────────────


class Outcome(StrEnum):
    """What one rule says of one recipient."""

    PASS = "pass"  # noqa: S105
    WARN = "warn"
    HOLD = "hold"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """What one rule says, and by which pack ("" if by the account's own books). `until_ms` is when the hours open."""

    rule: str
    outcome: Outcome
    detail: str
    pack: str = ""
    kind: RefusalKind | None = None
    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the pack of a country says of the submission, whoever the recipient is there; all of it but consent."""

    pack: RulePack
    decisions: tuple[Decision, ...]
    refusal: Refusal | None
    needs_consent: bool
    until_ms: int


_SUPPRESSED = Refusal(RefusalKind.SUPPRESSED, "the recipient must not be written to", "recipients")
_NO_OPT_IN = Refusal(
    RefusalKind.NO_OPT_IN, "the recipient's consent to promotional messages is not recorded", "recipients"
)
_FIELDS = {"sender": "sender", "length": "text", "hours": "due"}
"""Which field of a request a rule is about."""


class Gate:
    """What books and packs say of one submission: `judge` for each recipient, or `explain` with every reason.

    Made by `Directory.gate`, which gives none where there is nothing to ask.
    """

    __slots__ = (
        "_at_ms",
        "_books",
        "_channel",
        "_consent_rules",
        "_consents",
        "_is_promotional",
        "_least",
        "_parts",
        "_plans",
        "_rules",
        "_sender",
    )

    def __init__(
        self,
        *,
        is_promotional: bool,
        channel: str,
        sender: str,
        parts: int,
        at_ms: int,
        rules: RuleBook,
        books: Sequence[Book],
        consents: Mapping[ConsentKey, Book],
        consent_rules: Mapping[str, bool],
    ) -> None:
        """`at_ms` is when the submission is to leave; `books` are the suppression books of its account for its channel;
        `consent_rules` says, by country, whether the account wants consent where that differs from the pack."""
        self._is_promotional = is_promotional
        # Promotional messages are refused to whoever is in a book, others only where the mark says all traffic.
        self._least = 1 if is_promotional else 2
        self._channel = channel
        self._sender = sender
        self._parts = parts
        self._at_ms = at_ms
        self._rules = rules
        self._books = books
        wanted = TYPE_OF_CHANNEL.get(channel)
        self._consents = [book for key, book in consents.items() if key[0] == wanted]
        self._consent_rules = consent_rules
        self._plans: dict[str | None, _Plan] = {}

    def judge(self, recipient: str, country: str | None) -> Refusal | int:
        """The first reason to refuse a recipient; else the moment until which it must be held, 0 if it may go."""
        if self._is_suppressed(recipient):
            return _SUPPRESSED
        if not self._is_promotional:
            return 0
        plan = self._plan(country)
        if plan.refusal is not None:
            return plan.refusal
        if plan.needs_consent and not has_consent(self._consents, recipient):
            return _NO_OPT_IN
        return plan.until_ms

    def explain(self, recipient: str, country: str | None, text: str) -> list[Decision]:
        """What every rule says of a recipient, in the order of `judge`; those that pass, and the warnings about the text, too."""
        if self._is_suppressed(recipient):
            found = [Decision("suppression", Outcome.REFUSE, _SUPPRESSED.detail, kind=_SUPPRESSED.kind)]
        else:
            found = [Decision("suppression", Outcome.PASS, "the recipient may be written to")]
        if not self._is_promotional:
            return found
        plan = self._plan(country)
        name = plan.pack.name
        if not plan.needs_consent:
            consent = Decision("consent", Outcome.PASS, "no recorded consent is asked for", name)
        elif has_consent(self._consents, recipient):
            consent = Decision("consent", Outcome.PASS, "the recipient has agreed", name)
        else:
            consent = Decision("consent", Outcome.REFUSE, _NO_OPT_IN.detail, name, _NO_OPT_IN.kind)
        found += [*plan.decisions, consent]
        if plan.pack.opt_out_words:
            found.append(_opt_out_text(plan.pack, text))
        return found

    def _is_suppressed(self, recipient: str) -> bool:
        least = self._least
        for book in self._books:  # noqa: SIM110 -- half the time of any()
            if book.find(recipient) >= least:
                return True
        return False

    def _plan(self, country: str | None) -> _Plan:
        plan = self._plans.get(country)
        if plan is not None:
            return plan
        pack = self._rules.pack(country, self._at_ms)
        hours = self._hours(pack)
        decisions = (self._sender_name(pack), self._length(pack), hours)
        refused = next((each for each in decisions if each.outcome is Outcome.REFUSE), None)
        wait_s = max(0, hours.until_ms - self._at_ms) / 1000
        self._plans[country] = plan = _Plan(
            pack=pack,
            decisions=decisions,
            refusal=Refusal(refused.kind, refused.detail, _FIELDS[refused.rule], wait_s if refused is hours else 0)
            if refused and refused.kind
            else None,
            needs_consent=self._channel in TYPE_OF_CHANNEL and self._consent_rules.get(country or "", pack.consent),
            until_ms=hours.until_ms,
        )
        return plan

    def _sender_name(self, pack: RulePack) -> Decision:
        name, fault = self._sender, ""
        if self._channel == "sms":
            if not name.endswith(pack.sender_suffix):
                fault = f"the sender of promotional messages to {pack.country} must end in {pack.sender_suffix}"
            elif not name.isdigit() and len(name) < pack.sender_min:
                fault = f"a sender name in {pack.country} has at least {pack.sender_min} characters"
            elif not name.isdigit() and 0 < pack.sender_max < len(name):
                fault = f"a sender name in {pack.country} has at most {pack.sender_max} characters"
        if fault:
            return Decision("sender", Outcome.REFUSE, fault, pack.name, RefusalKind.SENDER_UNKNOWN)
        return Decision("sender", Outcome.PASS, "the sender's name fits", pack.name)

    def _length(self, pack: RulePack) -> Decision:
        if self._channel == "sms" and 0 < pack.max_parts < self._parts:
            fault = f"a promotional text to {pack.country} takes at most {pack.max_parts} parts, this one {self._parts}"
            return Decision("length", Outcome.REFUSE, fault, pack.name, RefusalKind.CONTENT_INVALID)
        return Decision("length", Outcome.PASS, "the text is short enough", pack.name)

    def _hours(self, pack: RulePack) -> Decision:
        hours = pack.hours
        if hours is None:
            return Decision("hours", Outcome.PASS, "promotional messages may be sent at any time", pack.name)
        window = f"{hours.open:%H:%M} to {hours.close:%H:%M} in {hours.zone}"
        until_ms = opens_ms(hours, self._at_ms)
        if not until_ms:
            return Decision("hours", Outcome.PASS, f"promotional messages may be sent from {window}", pack.name)
        if hours.outside == "refuse":
            fault = f"promotional messages to {pack.country} may be sent from {window} only"
            return Decision("hours", Outcome.REFUSE, fault, pack.name, RefusalKind.QUIET_HOURS, until_ms)
        detail = f"promotional messages wait until the hours open, {window}"
        return Decision("hours", Outcome.HOLD, detail, pack.name, until_ms=until_ms)


def _opt_out_text(pack: RulePack, text: str) -> Decision:
    found = _plain(text)
    if any(_plain(word) in found for word in pack.opt_out_words):
        return Decision("opt_out_text", Outcome.PASS, "the text says how to leave", pack.name)
    words = ", ".join(pack.opt_out_words)
    return Decision("opt_out_text", Outcome.WARN, f"the text should say how to leave, by one of: {words}", pack.name)


def _plain(text: str) -> str:
    """The words of a text with one space around each, capitals and the dots of Turkish i aside."""
    return f" {_BETWEEN.sub(' ', text.translate(_ONE_I)).strip().casefold()} "


_BETWEEN: Final = re.compile(r"[\W_]+")
_ONE_I: Final = str.maketrans("İIı", "iii")
