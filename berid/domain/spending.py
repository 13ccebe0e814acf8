"""Spending limits: what an account, or one of its applications, may spend on messages in a day and in a month.

Days and months are those of the account's own zone. A message counts on the day on which it was accepted, with all that it
may cost; what is given back is taken off the same day. Limits hold for each wallet by itself, so for each currency, and for
test money apart from real money.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from berid.domain.account import Account, Application
from berid.domain.errors import Refusal, RefusalKind

Spent = dict[tuple[int, int, int], int]
"""Micros by (wallet, day, application)."""

_QUARTER_MS = 900_000
"""Every zone's midnight lies on a quarter of an hour."""


def day_of(at_ms: int, zone: str) -> int:
    """The day of a moment in a zone, as the ordinal of its date (`date.toordinal`)."""
    return _day(at_ms // _QUARTER_MS, zone)


@lru_cache(maxsize=4096)
def _day(quarter: int, zone: str) -> int:
    at = datetime.fromtimestamp(quarter * _QUARTER_MS / 1000, UTC)
    return at.astimezone(ZoneInfo(zone)).date().toordinal()


def first_of_month(day: int) -> int:
    """The first day of a day's month."""
    return date.fromordinal(day).replace(day=1).toordinal()


def is_capped(account: Account, application: Application) -> bool:
    """Whether anything limits what these may spend."""
    mine, own = account.rules, application.rules
    return bool(
        mine.spend_per_day_micros
        or mine.spend_per_month_micros
        or own.spend_per_day_micros
        or own.spend_per_month_micros
    )


def why_capped(
    account: Account, application: Application, holds: Mapping[int, int], day: int, spent: Spent
) -> Refusal | None:
    """The first limit that a request would exceed, None if it keeps within all.

    `holds` is what it would cost, by wallet; `spent` what these wallets have spent since the first of the month.
    """
    for wallet_id, amount in holds.items():
        if not amount:
            continue
        mine = [(at, by, micros) for (wallet, at, by), micros in spent.items() if wallet == wallet_id]
        for rules, whose, counted in (
            (account.rules, "account", mine),
            (application.rules, "application", [each for each in mine if each[1] == application.id]),
        ):
            for limit, period, since in (
                (rules.spend_per_day_micros, "day", day),
                (rules.spend_per_month_micros, "month", first_of_month(day)),
            ):
                if limit and _sum(counted, since) + amount > limit:
                    return Refusal(RefusalKind.SPEND_CAP, f"the {whose}'s spending limit of this {period} is reached")
    return None


def _sum(counted: Iterable[tuple[int, int, int]], since: int) -> int:
    return sum(micros for at, _, micros in counted if at >= since)
