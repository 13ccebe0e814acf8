"""How parameters are read, row by row."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from berid.dialects.taqnyat.reading import KEY_MAX, RECIPIENTS_MAX, due_of, key_of, numbers_of, text_of, texts_of
from berid.domain.errors import RefusalKind, Refused

RIYADH = ZoneInfo("Asia/Riyadh")
RIYADH_TEN_MS = 1_790_838_000_000
"""2026-10-01 10:00 in Riyadh, 07:00 UTC."""


@pytest.mark.parametrize(
    "fields",
    [
        {"scheduledDatetime": "2026-10-01T10:00"},
        {"scheduled": "2026-10-01T10:00"},
        {"scheduledDatetime": "", "scheduled": "2026-10-01T10:00"},
        {"scheduledDatetime": None, "scheduled": "2026-10-01T10:00"},
        {"scheduledDatetime": "2026-10-01T10:00", "scheduled": "2026-10-01T11:00"},
        {"scheduledDatetime": "2026-10-01 10:00:00"},
        {"scheduledDatetime": " 2026-10-01T10:00 "},
        {"scheduledDatetime": "2026-10-01T07:00Z"},
        {"scheduledDatetime": "2026-10-01T07:00:00.000Z"},
        {"scheduledDatetime": "2026-10-01T12:30+05:30"},
    ],
)
def test_planned_time_is_riyadhs_unless_it_says_otherwise(fields: dict[str, Any]) -> None:
    assert due_of(fields, RIYADH) == RIYADH_TEN_MS


@pytest.mark.parametrize(
    "fields", [{}, {"scheduled": ""}, {"scheduledDatetime": None}, {"scheduledDatetime": "", "scheduled": ""}]
)
def test_without_a_planned_time_it_is_now(fields: dict[str, Any]) -> None:
    assert due_of(fields, RIYADH) is None


@pytest.mark.parametrize(
    "time",
    [
        "x", " ", "10:00", "2026-10-01", "2026-10-01T", "2026-13-01T10:00", "2026-02-30T10:00", "20261001T1000",
        "01-10-2026 10:00", "2026-W40-4T10:00", "2026-10-01T25:00", "2026-10-01T10:00 tomorrow", "0000-01-01T00:00",
        "٢٠٢٦-١٠-٠١T١٠:٠٠", 1790838000, 0, 1.5, True, False, {}, [], ["2026-10-01T10:00"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["scheduled", "scheduledDatetime"])
def test_planned_time_that_cannot_be_read_is_never_now(name: str, time: object) -> None:
    with pytest.raises(Refused) as refusal:
        due_of({name: time}, RIYADH)
    assert refusal.value.refusals[0].kind is RefusalKind.SCHEDULE_DATE_INVALID


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00", "9999-12-31T23:59", "0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59"]
)
def test_times_at_the_ends_of_the_calendar_are_numbers(time: str) -> None:
    assert isinstance(due_of({"scheduled": time}, RIYADH), int)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), ("", ""), (None, ""), (100, "100"), (0, "0"), (-5, "-5"), (5452899970, "5452899970"), (" a ", " a ")],
)
def test_text_is_taken_as_it_is(value: object, text: str) -> None:
    assert text_of({"x": value}, "x") == text


@pytest.mark.parametrize("value", [True, False, 1.5, [], {}, ["a"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(Refused) as refusal:
        text_of({"x": value}, "x")
    assert (refusal.value.refusals[0].kind, refusal.value.refusals[0].field) == (RefusalKind.MALFORMED, "x")


def test_key_has_a_greatest_length() -> None:
    assert key_of({"x": "ş" * KEY_MAX}, "x") == "ş" * KEY_MAX
    with pytest.raises(Refused) as refusal:
        key_of({"x": "ş" * (KEY_MAX + 1)}, "x")
    assert refusal.value.refusals[0].kind is RefusalKind.MALFORMED


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, []), ("", []), ([], []), ({}, []), (",, ,", []), ([None, "", " ", ","], []),
        ("1", ["1"]), (1, ["1"]), ([1, "2"], ["1", "2"]), ("1,2", ["1", "2"]), (" 1 , 2 ,", ["1", "2"]),
        (["1,2", 3], ["1", "2", "3"]), ({"0": "1", "2": 2}, ["1", "2"]), ([1.0, 9.665e11], ["1", "966500000000"]),
        ([1.5], ["1.5"]), (["1", "1"], ["1", "1"]), ([-1], ["-1"]),
    ],
)  # fmt: skip
def test_lists_come_in_many_shapes(value: object, texts: list[str]) -> None:
    assert texts_of({"x": value}, "x") == texts


@pytest.mark.parametrize("value", [True, [True], [[1]], [{"a": 1}], {"a": [1]}])
def test_lists_of_other_things_are_refused(value: object) -> None:
    with pytest.raises(Refused) as refusal:
        texts_of({"x": value}, "x")
    assert refusal.value.refusals[0].kind is RefusalKind.MALFORMED


@pytest.mark.parametrize("value", [["1"] * (RECIPIENTS_MAX + 1), ",".join(["1"] * (RECIPIENTS_MAX + 1))])
def test_there_may_be_a_thousand_and_no_more(value: object) -> None:
    assert len(texts_of({"x": ["1"] * RECIPIENTS_MAX}, "x")) == RECIPIENTS_MAX
    with pytest.raises(Refused) as refusal:
        texts_of({"x": value}, "x")
    assert refusal.value.refusals[0].kind is RefusalKind.RECIPIENTS_TOO_MANY


@pytest.mark.parametrize(
    ("written", "strictly", "leniently"),
    [
        ("966500000000", "966500000000", "966500000000"),
        ("+966500000000", None, "966500000000"),
        ("00966500000000", None, "966500000000"),
        ("966 50 000 0000", None, "966500000000"),
        ("٩٦٦٥٠٠٠٠٠٠٠٠", None, "966500000000"),
        ("0500000000", None, None),
        ("96650000000", None, None),
        ("9665000000000", None, None),
        ("000000000000", None, None),
        ("999999999999", None, None),
        ("Acme", None, None),
        ("-966500000000", None, "966500000000"),
    ],
)
def test_numbers_are_international_and_exist(written: str, strictly: str | None, leniently: str | None) -> None:
    for is_lenient, expected in ((False, strictly), (True, leniently)):
        usable, rejected = numbers_of({"x": [written]}, "x", is_lenient)
        assert usable == ([expected] if expected else [])
        assert rejected == ([] if expected else [written])
