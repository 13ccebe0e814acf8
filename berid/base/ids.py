"""Time-ordered integer ids below 2**53, and the prefixed words by which the native API shows them.

An id is `milliseconds since 2026 << 13 | sequence << 5 | slot`: 40 bits of time last until 2060, 8 bits of sequence
give 256 ids in a millisecond, 5 bits of slot keep up to 32 processes on one database apart. A burst borrows from the
next milliseconds instead of waiting. JavaScript reads every id exactly, because none reaches 2**53.
"""

from __future__ import annotations

from collections.abc import Callable

EPOCH_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""

SLOTS = 32
"""How many processes may make ids on one database at the same time."""

_SEQUENCE_BITS = 8


class IdMaker:
    """Makes ids for one process; `slot` must be held by no other live process on the same database.

    `floor` is the largest id known to exist: ids start above it even if the clock was set back since.
    """

    __slots__ = ("_last", "_now_ms", "_slot")

    def __init__(self, now_ms: Callable[[], int], slot: int = 0, floor: int = 0) -> None:
        if not 0 <= slot < SLOTS:
            raise ValueError(f"slot must be from 0 to {SLOTS - 1}, got {slot}")
        self._now_ms = now_ms
        self._slot = slot
        self._last = floor // SLOTS

    @property
    def reached_ms(self) -> int:
        """The millisecond that the newest id tells: ahead of the clock after a burst, and when the clock was set back."""
        return (self._last >> _SEQUENCE_BITS) + EPOCH_MS

    def next(self) -> int:
        """One new id, larger than every id this maker gave before."""
        current = (self._now_ms() - EPOCH_MS) << _SEQUENCE_BITS
        last = self._last + 1
        if current > last:
            last = current
        self._last = last
        return last * SLOTS + self._slot

    def take(self, count: int) -> range:
        """`count` new ids in ascending order, as a range; no other id of this maker lies between them."""
        current = (self._now_ms() - EPOCH_MS) << _SEQUENCE_BITS
        first = max(self._last + 1, current)
        self._last = first + count - 1
        return range(first * SLOTS + self._slot, (first + count) * SLOTS + self._slot, SLOTS)


def made_ms(identifier: int) -> int:
    """The wall-clock millisecond at which an id was made (later, if a burst borrowed time)."""
    return (identifier // SLOTS >> _SEQUENCE_BITS) + EPOCH_MS


def slot_of(identifier: int) -> int:
    """The slot of the process that made an id."""
    return identifier % SLOTS


def first_id_at(at_ms: int) -> int:
    """The smallest id that can have been made at `at_ms`: turns a time filter into an id filter."""
    return max(0, (at_ms - EPOCH_MS) << _SEQUENCE_BITS) * SLOTS


def show(prefix: str, identifier: int) -> str:
    """The public form: `show("msg", 5)` is `msg_5`."""
    return f"{prefix}_{identifier}"


def read(prefix: str, text: str) -> int | None:
    """The integer behind a public id, or None if it is not one of this prefix. The bare integer is accepted too."""
    digits = text[len(prefix) + 1 :] if text.startswith(prefix + "_") else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 16:
        return None
    value = int(digits)
    return value if value < 1 << 53 else None
