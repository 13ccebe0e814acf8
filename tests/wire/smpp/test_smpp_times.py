"""Times as SMPP writes them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid.wire.smpp.times import TimeError, format_absolute, format_relative, parse_time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("261122143207500+", datetime(2026, 11, 22, 14, 32, 7, 500_000, tzinfo=UTC)),
        ("261122143207012+", datetime(2026, 11, 22, 14, 32, 7, tzinfo=timezone(timedelta(hours=3)))),
        ("261122143207008-", datetime(2026, 11, 22, 14, 32, 7, tzinfo=timezone(timedelta(hours=-2)))),
        ("000000000500000R", timedelta(minutes=5)),
        ("000002120000000R", timedelta(days=2, hours=12)),
        ("010101000000000R", timedelta(days=396)),
    ],
)
def test_an_absolute_or_relative_time_is_read(text: str, expected: datetime | timedelta) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2611221432",
        "261122143207500",
        "261122143207500X",
        "261322143207500+",
        "260230143207500+",
        "261122243207500+",
        "261122143207049+",
        "٢٦١١٢٢١٤٣٢٠٧٥٠٠+",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(TimeError):
        parse_time(text)


def test_an_absolute_time_is_written_in_utc() -> None:
    moment = datetime(2026, 11, 22, 17, 32, 7, 512_000, tzinfo=timezone(timedelta(hours=3)))
    assert format_absolute(moment) == "261122143207500+"


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "000000000000000R"),
        (timedelta(minutes=5, milliseconds=900), "000000000500000R"),
        (timedelta(days=2, hours=12), "000002120000000R"),
        (timedelta(days=31), "000031000000000R"),
        (timedelta(days=100), "000310000000000R"),
    ],
)
def test_a_duration_is_written_in_days_and_what_is_left(duration: timedelta, text: str) -> None:
    assert format_relative(duration) == text


@pytest.mark.parametrize("duration", [timedelta(seconds=-1), timedelta(days=3_000)])
def test_a_duration_that_cannot_be_written_is_refused(duration: timedelta) -> None:
    with pytest.raises(TimeError):
        format_relative(duration)


@given(st.integers(0, 2_999 * 86_400))
def test_a_written_duration_reads_back_to_the_second(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_time(format_relative(duration)) == duration


@given(st.integers(946_684_800, 4_102_444_799).map(lambda second: datetime.fromtimestamp(second + 0.25, UTC)))
def test_a_written_moment_reads_back_to_the_tenth(moment: datetime) -> None:
    tenth = moment.microsecond // 100_000 * 100_000
    assert parse_time(format_absolute(moment)) == moment.replace(microsecond=tenth)
