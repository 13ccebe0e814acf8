"""Spending limits: whose, of which day and month, and what counts against them."""

from datetime import UTC, date, datetime

import msgspec
import pytest

from berid.domain.account import Account, Application, Rules
from berid.domain.spending import Spent, day_of, first_of_month, is_capped, why_capped

DAY = date(2026, 3, 10).toordinal()


def at_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("at", "zone", "day"),
    [
        ("2026-03-10T20:59:59.999", "Asia/Riyadh", "2026-03-10"),
        ("2026-03-10T21:00:00", "Asia/Riyadh", "2026-03-11"),
        ("2026-03-10T18:14:59", "Asia/Kathmandu", "2026-03-10"),
        ("2026-03-10T18:15:00", "Asia/Kathmandu", "2026-03-11"),
        ("2026-03-10T03:59:59", "America/New_York", "2026-03-09"),
        ("2026-03-08T04:59:59", "America/New_York", "2026-03-07"),
        ("2026-12-31T21:00:00", "Europe/Istanbul", "2027-01-01"),
    ],
)
def test_a_day_is_that_of_the_accounts_own_zone(at: str, zone: str, day: str) -> None:
    assert day_of(at_ms(at), zone) == date.fromisoformat(day).toordinal()


def test_a_month_begins_on_its_first() -> None:
    assert first_of_month(DAY) == date(2026, 3, 1).toordinal()
    assert first_of_month(first_of_month(DAY)) == first_of_month(DAY)


def account(**rules: int) -> Account:
    return Account(7, "Acme", "active", "SA", "Asia/Riyadh", "en", msgspec.structs.replace(Rules(), **rules))


def application(**rules: int) -> Application:
    return Application(8, 7, "Shop", "active", frozenset({"sms"}), msgspec.structs.replace(Rules(), **rules))


SPENT: Spent = {
    (1, DAY, 8): 30,
    (1, DAY, 9): 20,
    (1, DAY - 1, 8): 100,
    (1, first_of_month(DAY), 9): 50,
    (2, DAY, 8): 1_000,
}


@pytest.mark.parametrize(
    ("mine", "own", "amount", "whose"),
    [
        ({}, {}, 10**15, None),
        ({"spend_per_day_micros": 60}, {}, 10, None),
        ({"spend_per_day_micros": 60}, {}, 11, "account's spending limit of this day"),
        ({"spend_per_month_micros": 205}, {}, 5, None),
        ({"spend_per_month_micros": 205}, {}, 6, "account's spending limit of this month"),
        ({}, {"spend_per_day_micros": 40}, 10, None),
        ({}, {"spend_per_day_micros": 40}, 11, "application's spending limit of this day"),
        ({}, {"spend_per_month_micros": 140}, 10, None),
        ({}, {"spend_per_month_micros": 140}, 11, "application's spending limit of this month"),
        ({"spend_per_day_micros": 1}, {}, 0, None),
        ({"spend_per_day_micros": 1_000}, {"spend_per_day_micros": 31}, 2, "application's spending limit of this day"),
    ],
)
def test_the_first_limit_that_a_request_would_exceed_is_told(
    mine: dict[str, int], own: dict[str, int], amount: int, whose: str | None
) -> None:
    refusal = why_capped(account(**mine), application(**own), {1: amount}, DAY, SPENT)
    assert (refusal.detail if refusal else None) == (f"the {whose} is reached" if whose else None)


@pytest.mark.parametrize("rule", ["spend_per_day_micros", "spend_per_month_micros"])
def test_what_has_no_limit_is_not_asked_about(rule: str) -> None:
    assert not is_capped(account(), application())
    assert is_capped(account(**{rule: 1}), application())
    assert is_capped(account(), application(**{rule: 1}))
