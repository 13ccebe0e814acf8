"""How much a caller may send: rates per second and per minute, kept in memory.

Each process counts for itself. A refused request changes these counters and nothing else.
"""

from __future__ import annotations

from collections import deque


class _Counter:
    """Messages of one token in the last second and minute, and the bucket of its steady rate."""

    __slots__ = ("bucket", "minute", "refilled_s", "total")

    def __init__(self, now_s: float, burst: float) -> None:
        self.bucket = burst
        self.refilled_s = now_s
        self.minute: deque[tuple[float, int]] = deque()
        self.total = 0

    def age(self, now_s: float) -> None:
        """Forget what is older than a minute."""
        while self.minute and self.minute[0][0] <= now_s - 60:
            self.total -= self.minute.popleft()[1]


class Limits:
    """Counters by key: a token, or any other thing that a rule is about."""

    def __init__(self) -> None:
        self._counters: dict[object, _Counter] = {}
        self._swept_s = 0.0

    def take(self, key: object, now_s: float, count: int, per_second: float, per_minute: int) -> float:
        """Count `count` messages against both limits (0: no limit).

        Returns 0 when they may go, else the seconds after which asking again makes sense; then nothing was counted. A
        request larger than a second's rate is let through when the bucket is full, and the bucket goes into debt.
        """
        if now_s - self._swept_s > 300:
            self._sweep(now_s)
        burst = max(per_second, 1.0)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter(now_s, burst)
        counter.age(now_s)
        if per_minute and counter.total + count > per_minute:
            return max(0.001, counter.minute[0][0] + 60 - now_s) if counter.minute else 60.0
        if per_second:
            counter.bucket = min(burst, counter.bucket + (now_s - counter.refilled_s) * per_second)
            counter.refilled_s = now_s
            needed = min(float(count), burst)
            if counter.bucket < needed:
                return (needed - counter.bucket) / per_second
            counter.bucket -= count
        if counter.minute and now_s - counter.minute[-1][0] < 0.25:
            # Quarter-second steps keep the memory of a busy token small; the minute is never counted short.
            at_s, so_far = counter.minute[-1]
            counter.minute[-1] = (at_s, so_far + count)
        else:
            counter.minute.append((now_s, count))
        counter.total += count
        return 0.0

    def last_minute(self, key: object, now_s: float) -> int:
        """How many were counted in the last minute."""
        counter = self._counters.get(key)
        if counter is None:
            return 0
        counter.age(now_s)
        return counter.total

    def _sweep(self, now_s: float) -> None:
        """Forget keys that were silent for a minute."""
        self._swept_s = now_s
        for key, counter in list(self._counters.items()):
            counter.age(now_s)
            if not counter.total:
                del self._counters[key]
