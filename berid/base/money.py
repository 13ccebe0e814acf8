"""Exact money: integers of a millionth of a currency unit (micros), never floats.

A currency is three to eight capital letters: `SAR`, `TRY`, or `CREDIT`, the count of messages by which a prepaid
Turkish account is kept. One credit is 1,000,000 micros, so one arithmetic serves all.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache

MICROS = 1_000_000
"""Micros in one unit of any currency."""

CREDIT = "CREDIT"
"""The currency of message credits."""

_LARGEST = 10**12
"""A trillion units: what fits 64 bits of micros with room for sums."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency. Amounts of different currencies are never added."""

    micros: int
    currency: str

    def __str__(self) -> str:
        return f"{format_micros(self.micros)} {self.currency}"


def parse_micros(text: str) -> int:
    """Read a decimal amount such as `12.5` into micros.

    Raises ValueError when it is not a number, has more than six decimals, or is too large to keep exactly.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"not an amount: {text[:40]!r}") from None
    # Nothing is calculated with it before it is known to be small: arithmetic rounds to 28 digits, or overflows.
    if not value.is_finite() or value.copy_abs() > _LARGEST:
        raise ValueError(f"amount out of range: {text[:40]!r}")
    _, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and exponent < -6 and any(digits[exponent + 6 :]):
        raise ValueError(f"amount has more than six decimals: {text[:40]!r}")
    return int(value * MICROS)


@lru_cache(maxsize=1024)
def format_micros(micros: int, decimals: int | None = None) -> str:
    """Write micros as a decimal amount; prices are written again and again.

    Without `decimals`: the shortest exact form (`0.026`, `12`). With it: that many decimals, halves away from zero.
    """
    if decimals is None:
        whole, rest = divmod(abs(micros), MICROS)
        text = str(whole) if rest == 0 else f"{whole}.{rest:06d}".rstrip("0")
    else:
        step = 10 ** (6 - decimals)
        rounded = (abs(micros) + step // 2) // step
        whole, rest = divmod(rounded, 10**decimals)
        text = f"{whole}.{rest:0{decimals}d}" if decimals else str(whole)
    return f"-{text}" if micros < 0 and text.strip("0.") else text
