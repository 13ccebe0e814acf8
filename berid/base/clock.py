"""The only place that reads the time. Everything else is handed a `Clock`, so that tests hold it in their hand."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits. All times are integers: milliseconds since 1970, UTC."""

    def now_ms(self) -> int:
        """Wall-clock time. May jump when the machine's clock is set; never used to measure a duration."""

    def ticks_s(self) -> float:
        """Monotonic seconds from an arbitrary start, for durations, windows and rates. Never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait at least `seconds` of monotonic time."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return time.time_ns() // 1_000_000

    def ticks_s(self) -> float:
        """See `Clock.ticks_s`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(seconds)
