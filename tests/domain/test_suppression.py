"""The suppression book and the record of consent: what is in, what may be added."""

import sys
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid.domain.suppression import (
    ALL,
    TURKEY,
    Book,
    BookMaker,
    Consent,
    ConsentType,
    Reason,
    RecipientType,
    Status,
    Suppression,
    address_of,
    business_days,
    consent_fault,
    merge,
    registry_fault,
)


def turkey_ms(text: str) -> int:
    """Milliseconds of a time in Turkey."""
    return int(datetime.fromisoformat(text).replace(tzinfo=TURKEY).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("966500000000", "966500000000"),
        ("+966 50 000 0000", "966500000000"),
        ("00905321234567", "905321234567"),
        (" Ali@Example.COM ", "ali@example.com"),
        ("0500000000", None),
        ("STC", None),
        ("ali@", None),
        ("ali@localhost", None),
        ("a b@example.com", None),
        ("", None),
    ],
)
def test_recipients_are_kept_in_one_form(text: str, expected: str | None) -> None:
    assert address_of(text) == expected


RECIPIENTS = st.text(st.sampled_from("0123456789"), min_size=8, max_size=9)


@given(st.lists(st.dictionaries(RECIPIENTS, st.integers(0, 2), max_size=30), max_size=6))
def test_book_knows_what_a_dictionary_knows(steps: list[dict[str, int]]) -> None:
    book, expected = Book(), dict[str, int]()
    for step in steps:
        before, known = book, dict(expected)
        book = book.changed(step)
        expected = {name: found for name, found in (expected | step).items() if found}
        assert {name: before.find(name) for name in known} == known, "a book that was changed is as it was"
    assert {name: book.find(name) for step in steps for name in step if book.find(name)} == expected
    assert len(book) == len(expected)
    assert book.marked == sum(found == 2 for found in expected.values())


@given(st.dictionaries(RECIPIENTS, st.integers(1, 2), max_size=60), st.sets(RECIPIENTS, max_size=60))
def test_book_that_is_made_at_once_is_as_one_that_was_changed(entries: dict[str, int], others: set[str]) -> None:
    maker = BookMaker()
    for recipient, found in entries.items():
        maker.add(recipient, found)
    made, changed = maker.book(), Book().changed(entries)
    asked = [*entries, *others]
    assert [made.find(each) for each in asked] == [changed.find(each) for each in asked]
    assert (len(made), made.marked) == (len(changed), changed.marked)
    assert {each for each in asked if made.find(each)} == set(entries)


def test_recipients_who_are_not_in_a_large_book_are_not_found() -> None:
    book = Book().changed({str(966_500_000_000 + number): 1 for number in range(0, 200_000, 2)})
    assert [number for number in range(0, 200_000, 2) if book.find(str(966_500_000_000 + number)) != 1] == []
    assert [number for number in range(1, 200_000, 2) if book.find(str(966_500_000_000 + number)) != 0] == []


def test_book_takes_no_more_than_ten_bytes_for_each() -> None:
    book = Book()
    for start in range(0, 100_000, 10_000):
        book = book.changed({str(966_500_000_000 + number): 1 for number in range(start, start + 10_000)})
    assert len(book) == 100_000
    assert sys.getsizeof(book._keys) <= 10 * len(book)


def entry(reason: Reason, all_traffic: bool = False, at_ms: int = 1) -> Suppression:
    return Suppression("966500000000", ALL, reason, reason.value, all_traffic, at_ms)


@pytest.mark.parametrize(
    ("before", "new", "expected"),
    [
        (None, entry(Reason.OPT_OUT), entry(Reason.OPT_OUT)),
        (entry(Reason.OPT_OUT, at_ms=1), entry(Reason.OPT_OUT, at_ms=2), entry(Reason.OPT_OUT, at_ms=1)),
        (entry(Reason.OPT_OUT), entry(Reason.COMPLAINT, True, 2), entry(Reason.COMPLAINT, True, 2)),
        (entry(Reason.COMPLAINT, True), entry(Reason.OPT_OUT, False, 2), entry(Reason.COMPLAINT, True)),
        (entry(Reason.COMPLAINT), entry(Reason.MANUAL, True, 2), entry(Reason.COMPLAINT, True)),
        (entry(Reason.OPT_OUT, True), entry(Reason.REGISTRY, False, 2), entry(Reason.REGISTRY, True, 2)),
    ],
)
def test_adding_never_weakens_an_entry(before: Suppression | None, new: Suppression, expected: Suppression) -> None:
    assert merge(before, new) == expected


def test_own_words_are_the_weakest_reason() -> None:
    assert list(Reason) == ["opt_out", "manual", "bounce", "registry", "complaint"]


# 2026-09-21 is a Monday.
NOW_MS = turkey_ms("2026-09-24 12:00:00")


def consent(**changes: object) -> Consent:
    """A yes that was given on the day before."""
    given: dict[str, object] = {
        "brand": "123456",
        "recipient": "905321234567",
        "recipient_type": RecipientType.BIREYSEL,
        "type": ConsentType.MESAJ,
        "status": Status.ONAY,
        "source": "HS_WEB",
        "consent_ms": turkey_ms("2026-09-23 12:00:00"),
    }
    return Consent(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "before", "field"),
    [
        ({}, None, None),
        ({}, Status.RET, None),
        ({"status": Status.RET}, Status.ONAY, None),
        ({"status": Status.RET}, None, "status"),
        ({"status": Status.RET}, Status.RET, "status"),
        ({}, Status.ONAY, "status"),
        ({"source": ""}, None, "source"),
        ({"source": "HS_TAHMIN"}, None, "source"),
        ({"source": "IYS_WEB"}, None, "source"),
        ({"consent_ms": 0}, None, "consent_date"),
        ({"consent_ms": NOW_MS}, None, None),
        ({"consent_ms": NOW_MS + 1}, None, "consent_date"),
        # Monday to Thursday are three business days.
        ({"consent_ms": turkey_ms("2026-09-21 00:00:00")}, None, None),
        ({"consent_ms": turkey_ms("2026-09-20 23:59:59")}, None, "consent_date"),
        ({"consent_ms": turkey_ms("2015-04-30 23:59:59")}, None, "consent_date"),
        ({"recipient_type": RecipientType.TACIR, "source": "", "consent_ms": 0}, None, None),
        ({"recipient_type": RecipientType.TACIR, "source": "HS_TAHMIN"}, None, "source"),
        ({"recipient_type": RecipientType.TACIR, "consent_ms": NOW_MS + 1}, None, "consent_date"),
        ({"brand": " "}, None, "brand"),
        ({"recipient": "+905321234567"}, None, "recipient"),
        ({"recipient": "ali@example.com"}, None, "recipient"),
        ({"recipient": "ali@example.com", "type": ConsentType.EPOSTA}, None, None),
        ({"type": ConsentType.EPOSTA}, None, "recipient"),
    ],
)
def test_record_keeps_the_rules_of_the_registry(
    changes: dict[str, object], before: Status | None, field: str | None
) -> None:
    fault = consent_fault(consent(**changes), before, NOW_MS)
    assert (fault and fault[0]) == field


def test_too_old_and_before_the_law_are_told_apart() -> None:
    first_second = consent_fault(consent(consent_ms=turkey_ms("2015-05-01 00:00:00")), None, NOW_MS)
    second_before = consent_fault(consent(consent_ms=turkey_ms("2015-04-30 23:59:59")), None, NOW_MS)
    assert first_second is not None
    assert "business days" in first_second[1]
    assert second_before is not None
    assert "2015-05-01" in second_before[1]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"status": Status.RET, "consent_ms": 0, "source": ""}, None),
        ({"consent_ms": turkey_ms("2016-01-01 00:00:00"), "source": "IYS_WEB"}, None),
        ({"source": "WEB"}, "source"),
        ({"recipient": "5321234567x"}, "recipient"),
    ],
)
def test_what_the_registry_has_is_taken_as_it_is(changes: dict[str, object], field: str | None) -> None:
    fault = registry_fault(consent(**changes))
    assert (fault and fault[0]) == field


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (date(2026, 9, 21), date(2026, 9, 21), 0),
        (date(2026, 9, 21), date(2026, 9, 24), 3),
        (date(2026, 9, 24), date(2026, 9, 29), 3),  # Thursday to Tuesday
        (date(2026, 9, 24), date(2026, 9, 30), 4),
        (date(2026, 9, 25), date(2026, 9, 27), 0),  # Friday to Sunday
        (date(2026, 9, 26), date(2026, 9, 28), 1),  # Saturday to Monday
        (date(2026, 9, 21), date(2026, 10, 5), 10),
    ],
)
def test_business_days_are_counted_without_weekends(first: date, last: date, expected: int) -> None:
    assert business_days(first, last) == expected


@given(st.dates(date(2015, 1, 1), date(2030, 1, 1)), st.integers(0, 60))
def test_business_days_are_those_that_a_calendar_counts(first: date, days: int) -> None:
    last = date.fromordinal(first.toordinal() + days)
    one_by_one = sum(date.fromordinal(day).weekday() < 5 for day in range(first.toordinal() + 1, last.toordinal() + 1))
    assert business_days(first, last) == one_by_one


def test_day_of_a_consent_is_turkeys() -> None:
    # Sunday 21:30 in Greenwich is Monday in Turkey, three business days before Thursday.
    told = datetime(2026, 9, 20, 21, 30, tzinfo=UTC)
    assert consent_fault(consent(consent_ms=int(told.timestamp() * 1000)), None, NOW_MS) is None
