"""Rules of countries: hours on the wall clock, packs by date, and what a gate decides."""

import re
from datetime import UTC, date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from berid.domain.directory import Directory
from berid.domain.errors import Refusal, RefusalKind
from berid.domain.message import Category
from berid.domain.rules import (
    ANYWHERE,
    Gate,
    Hours,
    Outcome,
    RuleBook,
    RulePack,
    category_of_sender,
    opens_ms,
    pack_fault,
    read_pack,
)
from berid.domain.suppression import ALL, Book

SAUDI = "966501234567"
TURK = "905321234567"
ACCOUNT = 7
PROMOTIONAL = Category.PROMOTIONAL


def at(text: str, zone: str, fold: int = 0) -> int:
    """Milliseconds of a wall-clock time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def hours(zone: str, opening: str, closing: str, outside: str = "hold") -> Hours:
    return Hours(
        zone=zone,
        open=time.fromisoformat(opening),
        close=time.fromisoformat(closing),
        outside=outside,  # type: ignore[arg-type]
    )


RIYADH, ISTANBUL, BERLIN = "Asia/Riyadh", "Europe/Istanbul", "Europe/Berlin"


@pytest.mark.parametrize(
    ("zone", "window", "now", "opening"),
    [
        (RIYADH, ("08:00", "22:00"), "2026-09-21T07:59:59", "2026-09-21T08:00"),
        (RIYADH, ("08:00", "22:00"), "2026-09-21T08:00:00", None),
        (RIYADH, ("08:00", "22:00"), "2026-09-21T21:59:59", None),
        (RIYADH, ("08:00", "22:00"), "2026-09-21T22:00:00", "2026-09-22T08:00"),
        (RIYADH, ("08:00", "22:00"), "2026-12-31T23:30:00", "2027-01-01T08:00"),
        (RIYADH, ("08:00", "22:00"), "2026-09-21T00:00:00", "2026-09-21T08:00"),
        (ISTANBUL, ("08:00", "21:00"), "2026-09-21T20:59:59", None),
        (ISTANBUL, ("08:00", "21:00"), "2026-09-21T21:00:00", "2026-09-22T08:00"),
        (ISTANBUL, ("08:00", "21:00"), "2026-09-21T07:59:59", "2026-09-21T08:00"),
        (ISTANBUL, ("08:00", "21:00"), "2026-09-21T08:00:00", None),
        # Turkey still set its clocks in 2015: the night of 8 November had 25 hours.
        (ISTANBUL, ("08:00", "21:00"), "2015-11-07T21:00:00", "2015-11-08T08:00"),
        # The last Sunday of March has 23 hours in Berlin, that of October 25.
        (BERLIN, ("08:00", "21:00"), "2026-03-28T23:00:00", "2026-03-29T08:00"),
        (BERLIN, ("08:00", "21:00"), "2026-10-24T23:00:00", "2026-10-25T08:00"),
        # A time that the clock skips opens as much later as it jumps.
        (BERLIN, ("02:30", "21:00"), "2026-03-29T01:00:00", "2026-03-29T03:30"),
    ],
)
def test_hours_open_and_close_by_the_wall_clock(
    zone: str, window: tuple[str, str], now: str, opening: str | None
) -> None:
    assert opens_ms(hours(zone, *window), at(now, zone)) == (at(opening, zone) if opening else 0)


def test_night_in_which_clocks_are_set_back_is_an_hour_longer() -> None:
    now_ms = at("2026-10-24T23:00:00", BERLIN)
    assert opens_ms(hours(BERLIN, "08:00", "21:00"), now_ms) - now_ms == 10 * 3_600_000


def test_hours_that_open_twice_in_one_night_open_for_the_second_time_too() -> None:
    window = hours(BERLIN, "02:30", "04:00")
    between_ms = at("2026-10-25T02:10:00", BERLIN, fold=1)
    assert opens_ms(window, between_ms) == at("2026-10-25T02:30:00", BERLIN, fold=1)


MOMENTS = st.integers(1_735_689_600_000, 1_893_456_000_000)
TIMES = st.times(time(0), time(22)).map(lambda moment: moment.replace(second=0, microsecond=0))


@given(st.sampled_from([RIYADH, ISTANBUL, BERLIN, "America/New_York", "Australia/Lord_Howe"]), TIMES, MOMENTS)
@example(BERLIN, time(2, 30), 1_774_745_999_999)
def test_hours_open_within_a_day_and_are_open_then(zone: str, opening: time, now_ms: int) -> None:
    window = Hours(zone=zone, open=opening, close=time(23, 45))
    found_ms = opens_ms(window, now_ms)
    if not found_ms:
        local = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone)).time()
        assert opening <= local < time(23, 45)
        return
    assert now_ms < found_ms <= now_ms + 25 * 3_600_000
    assert opens_ms(window, found_ms) == 0


SHIPPED = {pack.country: pack for pack, _ in RuleBook().packs()}
NOON_MS = at("2026-09-21T12:00:00", RIYADH)
NIGHT_MS = at("2026-09-21T23:30:00", RIYADH)


def test_packs_that_come_with_the_platform_can_be_followed_and_name_their_sources() -> None:
    assert set(SHIPPED) == {"SA", "TR", ANYWHERE}
    assert [pack.name for pack in SHIPPED.values() if pack_fault(pack) or not pack.notes] == []


def test_page_on_rules_tells_what_the_packs_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
    for pack in SHIPPED.values():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{pack.country}` |"))
        said = f"{pack.hours.open:%H:%M} to {pack.hours.close:%H:%M}, {pack.hours.zone}" if pack.hours else "any time"
        assert f"| {said} |" in line
        assert ("| required |" in line) is pack.consent
        assert str(pack.valid_from) in line


def test_pack_as_people_write_it_is_read() -> None:
    pack = read_pack(
        'country = "AE"\nvalid_from = 2026-01-01\nconsent = true\n'
        '[hours]\nzone = "Asia/Dubai"\nopen = 07:00:00\nclose = 21:00:00\noutside = "refuse"\n'
    )
    assert pack == RulePack(
        country="AE", valid_from=date(2026, 1, 1), consent=True, hours=hours("Asia/Dubai", "07:00", "21:00", "refuse")
    )
    assert pack.from_ms == at("2026-01-01T00:00:00", "Asia/Dubai")
    assert msgspec.json.decode(msgspec.json.encode(pack), type=RulePack) == pack


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("country = ", "cannot be read"),
        ('country = "SA"', "valid_from"),
        ('country = "SA"\nvalid_from = 2026-01-01\nquiet = true', "quiet"),
        ('country = "XX"\nvalid_from = 2026-01-01', "not a country"),
        ('country = "SA"\nvalid_from = 2026-01-01\nmax_parts = -1', "max_parts"),
        ('country = "SA"\nvalid_from = 2026-01-01\nsender_min = 5\nsender_max = 4', "sender_max"),
        ('country = "SA"\nvalid_from = 2026-01-01\nsender_suffix = "-AD"\nsender_max = 3', "sender_max"),
        ('country = "SA"\nvalid_from = 2026-01-01\n[hours]\nzone = "Mecca"\nopen = 08:00:00\nclose = 09:00:00', "zone"),
        ('country = "SA"\nvalid_from = 2026-01-01\n[hours]\nzone = "UTC"\nopen = 22:00:00\nclose = 08:00:00', "close"),
        ('country = "SA"\nvalid_from = 2026-01-01\n[hours]\nzone = "UTC"\nopen = 08:00:00', "close"),
    ],
)
def test_pack_that_cannot_be_followed_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        read_pack(text)


def saudi(first_day: str, **changes: object) -> RulePack:
    return RulePack(country="SA", valid_from=date.fromisoformat(first_day), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("country", "at_ms", "expected"),
    [
        ("SA", NOON_MS, "SA 2026-01-01"),
        ("SA", at("2025-12-31T23:59:59", "UTC"), "SA 2018-08-14"),
        ("SA", at("2027-01-01T00:00:00", "UTC"), "SA 2027-01-01"),
        ("TR", NOON_MS, "TR 2015-07-15"),
        ("AE", NOON_MS, "* 2020-01-01"),
        (None, NOON_MS, "* 2020-01-01"),
        ("AE", at("2019-12-31T23:59:59", "UTC"), "* 2015-01-01"),
        ("AE", 0, "* 1970-01-01"),
    ],
)
def test_pack_of_the_country_the_day_and_the_operator_counts(country: str | None, at_ms: int, expected: str) -> None:
    general = RulePack(country=ANYWHERE, valid_from=date(2020, 1, 1))
    rules = RuleBook([saudi("2027-01-01"), saudi("2026-01-01"), general])
    assert rules.pack(country, at_ms).name == expected


def test_of_two_packs_with_one_first_day_the_later_set_counts() -> None:
    rules = RuleBook([saudi("2026-01-01", max_parts=1), saudi("2026-01-01", max_parts=2)])
    assert rules.pack("SA", NOON_MS).max_parts == 2


@pytest.mark.parametrize(
    ("name", "country", "expected"),
    [
        ("Berid-AD", "SA", Category.PROMOTIONAL),
        ("Berid", "SA", Category.TRANSACTIONAL),
        ("Berid-ad", "SA", Category.TRANSACTIONAL),
        ("Berid-AD", "TR", Category.TRANSACTIONAL),
        ("Berid-AD", None, Category.TRANSACTIONAL),
    ],
)
def test_sender_that_ends_as_adverts_do_makes_an_advert(name: str, country: str | None, expected: Category) -> None:
    assert category_of_sender(name, country, RuleBook(), NOON_MS) is expected


def business(**changes: object) -> Directory:
    """A directory in which ACCOUNT has some books."""
    return Directory(**changes)  # type: ignore[arg-type]


def gate(found: Directory, category: Category = PROMOTIONAL, **changes: object) -> Gate | None:
    given: dict[str, object] = {"channel": "sms", "sender": "Berid-AD", "parts": 1, "at_ms": NOON_MS}
    given |= changes
    return found.gate(
        ACCOUNT,
        given["channel"],
        category,
        given["sender"],
        given["parts"],
        given["at_ms"],  # type: ignore[arg-type]
    )


def judged(found: Directory, recipient: str = SAUDI, country: str | None = "SA", **changes: object) -> object:
    """The kind of refusal, or the time until which it is held, of one recipient."""
    asked = gate(found, **changes)  # type: ignore[arg-type]
    if asked is None:
        return "not asked"
    verdict = asked.judge(recipient, country)
    return verdict.kind if isinstance(verdict, Refusal) else verdict


def booked(recipient: str, mark: int = 1, channel: str = "sms", account: int = ACCOUNT) -> Directory:
    return business(suppressions={account: {channel: Book().changed({recipient: mark})}})


@pytest.mark.parametrize(
    ("found", "category", "channel", "expected"),
    [
        (booked(SAUDI), PROMOTIONAL, "sms", RefusalKind.SUPPRESSED),
        (booked(SAUDI), PROMOTIONAL, "voice", 0),
        (booked(SAUDI, channel=ALL), PROMOTIONAL, "voice", RefusalKind.SUPPRESSED),
        (booked("966500000000"), PROMOTIONAL, "sms", 0),
        (booked(SAUDI, account=8), PROMOTIONAL, "sms", 0),
        (booked(SAUDI), Category.TRANSACTIONAL, "sms", "not asked"),
        (booked(SAUDI, 2), Category.TRANSACTIONAL, "sms", RefusalKind.SUPPRESSED),
        (booked(SAUDI, 2, ALL), Category.TRANSACTIONAL, "sms", RefusalKind.SUPPRESSED),
        (booked(SAUDI, 2), Category.TRANSACTIONAL, "voice", "not asked"),
        (booked("966500000000", 2), Category.TRANSACTIONAL, "sms", 0),
        (booked(SAUDI, 2, ALL), Category.OTP, "sms", "not asked"),
        (business(), Category.TRANSACTIONAL, "sms", "not asked"),
    ],
)
def test_book_refuses_adverts_always_other_messages_if_it_says_so_and_codes_never(
    found: Directory, category: Category, channel: str, expected: object
) -> None:
    assert judged(found, category=category, channel=channel) == expected


def test_unmarked_entry_beside_a_marked_one_does_not_refuse_transactional_messages() -> None:
    found = business(suppressions={ACCOUNT: {"sms": Book().changed({SAUDI: 1, TURK: 2})}})
    assert judged(found, SAUDI, category=Category.TRANSACTIONAL) == 0
    assert judged(found, TURK, "TR", category=Category.TRANSACTIONAL) == RefusalKind.SUPPRESSED


def agreed(recipient: str, kind: str = "MESAJ") -> Directory:
    return business(consents={ACCOUNT: {(kind, "123456", "BIREYSEL"): Book().changed({recipient: 1})}})


@pytest.mark.parametrize(
    ("found", "recipient", "country", "channel", "expected"),
    [
        (business(), TURK, "TR", "sms", RefusalKind.NO_OPT_IN),
        (agreed(TURK), TURK, "TR", "sms", 0),
        (agreed("905321234568"), TURK, "TR", "sms", RefusalKind.NO_OPT_IN),
        (agreed(TURK, "ARAMA"), TURK, "TR", "sms", RefusalKind.NO_OPT_IN),
        (agreed(TURK, "ARAMA"), TURK, "TR", "voice", 0),
        (business(), TURK, "TR", "whatsapp", 0),
        (business(), SAUDI, "SA", "sms", 0),
        (business(), "ali@example.com", None, "email", 0),
        (business(consent_rules={ACCOUNT: {"TR": False}}), TURK, "TR", "sms", 0),
        (business(consent_rules={ACCOUNT: {"SA": True}}), SAUDI, "SA", "sms", RefusalKind.NO_OPT_IN),
        (business(consent_rules={8: {"TR": False}}), TURK, "TR", "sms", RefusalKind.NO_OPT_IN),
    ],
)
def test_consent_is_asked_where_the_pack_or_the_account_says_so(
    found: Directory, recipient: str, country: str | None, channel: str, expected: object
) -> None:
    assert judged(found, recipient, country, channel=channel) == expected


@pytest.mark.parametrize(
    ("sender", "country", "channel", "expected"),
    [
        ("Berid-AD", "SA", "sms", 0),
        ("Berid", "SA", "sms", RefusalKind.SENDER_UNKNOWN),
        ("966500000000", "SA", "sms", RefusalKind.SENDER_UNKNOWN),
        ("Beridemail-AD", "SA", "sms", RefusalKind.SENDER_UNKNOWN),
        ("-AD", "SA", "sms", RefusalKind.SENDER_UNKNOWN),
        ("966500000000", "SA", "voice", 0),
        ("Berid", "DE", "sms", 0),
    ],
)
def test_sender_of_adverts_is_as_the_country_wants_it(
    sender: str, country: str, channel: str, expected: object
) -> None:
    assert judged(business(), "491711234567", country, sender=sender, channel=channel) == expected


@pytest.mark.parametrize(("parts", "expected"), [(2, 0), (3, RefusalKind.CONTENT_INVALID)])
def test_adverts_are_as_short_as_the_country_wants_them(parts: int, expected: object) -> None:
    rules = RuleBook([saudi("2026-01-01", max_parts=2)])
    assert judged(business(rules=rules), parts=parts) == expected


@pytest.mark.parametrize(
    ("recipient", "country", "category", "expected"),
    [
        (SAUDI, "SA", PROMOTIONAL, at("2026-09-22T08:00:00", RIYADH)),
        (SAUDI, "SA", Category.TRANSACTIONAL, "not asked"),
        (SAUDI, "SA", Category.OTP, "not asked"),
        ("491711234567", "DE", PROMOTIONAL, 0),
    ],
)
def test_only_adverts_wait_for_the_hours_of_their_recipient(
    recipient: str, country: str, category: Category, expected: object
) -> None:
    assert judged(business(), recipient, country, category=category, at_ms=NIGHT_MS) == expected


def test_hours_that_refuse_say_when_to_ask_again() -> None:
    rules = RuleBook([saudi("2026-01-01", hours=hours(RIYADH, "08:00", "22:00", "refuse"))])
    asked = gate(business(rules=rules), at_ms=NIGHT_MS)
    assert asked is not None
    verdict = asked.judge(SAUDI, "SA")
    assert isinstance(verdict, Refusal)
    assert (verdict.kind, verdict.retry_after_s) == (RefusalKind.QUIET_HOURS, 8.5 * 3600)


BOOKS = [business(), booked(SAUDI), booked(TURK, 2, ALL), agreed(TURK), business(consent_rules={ACCOUNT: {"SA": True}})]
RULES = [
    RuleBook(),
    RuleBook([saudi("2026-01-01", hours=hours(RIYADH, "08:00", "22:00", "refuse"), max_parts=1)]),
]


@given(
    st.sampled_from(BOOKS),
    st.sampled_from(RULES),
    st.sampled_from([(SAUDI, "SA"), (TURK, "TR"), ("491711234567", "DE"), ("ali@example.com", None)]),
    st.sampled_from(["sms", "voice", "email", "whatsapp"]),
    st.sampled_from(["Berid-AD", "Berid", "966500000000", "Beridemail-AD"]),
    st.sampled_from([Category.PROMOTIONAL, Category.TRANSACTIONAL]),
    st.integers(1, 2),
    st.sampled_from([NOON_MS, NIGHT_MS]),
)
def test_explanation_ends_as_the_judgement_does(
    found: Directory,
    rules: RuleBook,
    recipient: tuple[str, str | None],
    channel: str,
    sender: str,
    category: Category,
    parts: int,
    at_ms: int,
) -> None:
    found = Directory(
        suppressions=found.suppressions, consents=found.consents, consent_rules=found.consent_rules, rules=rules
    )
    asked = found.gate(ACCOUNT, channel, category, sender, parts, at_ms)
    if asked is None:
        return
    verdict = asked.judge(*recipient)
    decisions = asked.explain(*recipient, "")
    refused = [each for each in decisions if each.outcome is Outcome.REFUSE]
    if isinstance(verdict, Refusal):
        assert verdict.kind is refused[0].kind
    else:
        assert refused == []
        assert [each.until_ms for each in decisions if each.outcome is Outcome.HOLD] == ([verdict] if verdict else [])


def explained(recipient: str, country: str, text: str = "", **changes: object) -> list[tuple[str, str, str]]:
    asked = gate(business(), **changes)  # type: ignore[arg-type]
    assert asked is not None
    return [(each.rule, each.outcome.value, each.pack) for each in asked.explain(recipient, country, text)]


def test_explanation_names_every_rule_and_its_pack() -> None:
    assert explained(SAUDI, "SA", "sale", sender="Berid", at_ms=NIGHT_MS) == [
        ("suppression", "pass", ""),
        ("sender", "refuse", "SA 2018-08-14"),
        ("length", "pass", "SA 2018-08-14"),
        ("hours", "hold", "SA 2018-08-14"),
        ("consent", "pass", "SA 2018-08-14"),
        ("opt_out_text", "warn", "SA 2018-08-14"),
    ]


@pytest.mark.parametrize(
    ("country", "text", "expected"),
    [
        ("SA", "Sale! Send STOP to 902", "pass"),
        ("SA", "للإلغاء أرسل قف", "pass"),
        ("SA", "Sale without stopping", "warn"),
        ("SA", "to opt-out call us", "pass"),
        ("TR", "Indirim. RET yaz 3338", "pass"),
        ("TR", "ücretsiz", "warn"),
        ("TR", "SMS iptali için IPTAL yaz", "pass"),
        ("TR", "iptal: 3340", "pass"),
    ],
)
def test_text_of_an_advert_should_say_how_to_leave(country: str, text: str, expected: str) -> None:
    assert explained(SAUDI, country, text)[-1][:2] == ("opt_out_text", expected)


def test_country_that_asks_for_no_words_warns_of_none() -> None:
    assert [rule for rule, *_ in explained("491711234567", "DE")][-1] == "consent"


def test_times_of_the_packs_are_those_of_their_zone() -> None:
    assert SHIPPED["SA"].from_ms == int(datetime(2018, 8, 13, 21, tzinfo=UTC).timestamp() * 1000)
