"""What a unit costs: prefix price lists with dates, by longest prefix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from berid.domain.message import ChargeOn


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One line of a price list. `prefix` empty matches every number; `category` empty every kind of traffic.

    Valid from `from_ms` (0: always) until before `until_ms` (0: for ever). `operator` empty means every operator.
    """

    prefix: str
    amount_micros: int
    category: str = ""
    operator: str = ""
    from_ms: int = 0
    until_ms: int = 0


class Quote(msgspec.Struct, frozen=True):
    """The price of one unit, and the rule that gave it."""

    price_list_id: int
    unit_micros: int
    currency: str
    charge_on: ChargeOn
    prefix: str


class PriceList:
    """The rows of one list for one channel, ready for look-up by longest prefix."""

    __slots__ = ("_lengths", "_rows", "charge_on", "currency", "id", "name")

    def __init__(
        self, identifier: int, name: str, currency: str, charge_on: ChargeOn, rows: Iterable[PriceRow]
    ) -> None:
        self.id = identifier
        self.name = name
        self.currency = currency
        self.charge_on = charge_on
        self._rows: dict[str, list[PriceRow]] = {}
        for row in rows:
            self._rows.setdefault(row.prefix, []).append(row)
        for found in self._rows.values():
            # The more particular row first: it wins over the general one of the same prefix.
            found.sort(key=lambda row: (not row.operator, not row.category, -row.from_ms))
        self._lengths = sorted({len(prefix) for prefix in self._rows}, reverse=True)

    def find(self, number: str, category: str, operator: str, now_ms: int) -> PriceRow | None:
        """The row for a number, or None if the list does not cover it now."""
        rows = self._rows
        for length in self._lengths:
            for row in rows.get(number[:length], ()):
                if (
                    (not row.category or row.category == category)
                    and (not row.operator or row.operator == operator)
                    and row.from_ms <= now_ms
                    and not (row.until_ms and row.until_ms <= now_ms)
                ):
                    return row
        return None


def quote(lists: Sequence[PriceList], number: str, category: str, operator: str, now_ms: int) -> Quote | None:
    """The price of one unit to `number`: the first of the account's lists that covers it decides, and pays."""
    for price_list in lists:
        row = price_list.find(number, category, operator, now_ms)
        if row is not None:
            return Quote(price_list.id, row.amount_micros, price_list.currency, price_list.charge_on, row.prefix)
    return None
