"""Money is exact, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid.base.money import Money, format_micros, parse_micros


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1", 1_000_000),
        ("0.026", 26_000),
        ("-3.5", -3_500_000),
        ("1e3", 1_000_000_000),
        ("0.000001", 1),
        ("1.00000000", 1_000_000),
        ("999999999999.999999", 999_999_999_999_999_999),
        ("0e-99", 0),
    ],
)
def test_amounts_are_read_exactly(text: str, micros: int) -> None:
    assert parse_micros(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "0.0000001",
        "NaN",
        "Infinity",
        "1e30",
        "1,5",
        "1e999999999",
        "-1e999999999",
        "1e-999999999",
        "1." + "0" * 40 + "1",
    ],
)
def test_what_is_not_an_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        parse_micros(text)


@pytest.mark.parametrize(
    ("micros", "decimals", "text"),
    [
        (26_000, None, "0.026"),
        (12_000_000, None, "12"),
        (-500_000, None, "-0.5"),
        (0, None, "0"),
        (2_044_000_000, 3, "2044.000"),
        (1_250_000, 2, "1.25"),
        (5_000, 2, "0.01"),
        (4_999, 2, "0.00"),
        (-4_999, 2, "0.00"),
        (1_999_999, 0, "2"),
    ],
)
def test_amounts_are_written_as_asked(micros: int, decimals: int | None, text: str) -> None:
    assert format_micros(micros, decimals) == text


@given(st.integers(-(10**17), 10**17))
def test_what_is_written_is_read_again(micros: int) -> None:
    assert parse_micros(format_micros(micros)) == micros


def test_money_shows_its_currency() -> None:
    assert str(Money(1_500_000, "SAR")) == "1.5 SAR"
