"""How fast a connector may send, in parts: never more than N at the carrier in any one-second window.

A part is written at some moment, handled by the carrier at an unknown later one, and answered after that. So it counts from
the moment it is written until one second after its answer: then whatever the carrier handles within one second of it was
written while it still counted. The price is the round trip: N per (1 s + round trip) at most.

Bulk is paced evenly at the rate less a reserve, in steps of a fiftieth of a second, so that a one-time password that
arrives finds room at once.
"""

from __future__ import annotations

from collections import deque

RESERVE = 20
"""One in so many of the rate is kept for priority 0."""

_STEP_S = 0.02


class Pace:
    """Counts parts against a rate. `rate` 0 means no limit. Times are monotonic seconds."""

    __slots__ = ("_answered", "_bucket", "_counted", "_filled_s", "_slow_until_s", "_slowed", "rate")

    def __init__(self, rate: float, now_s: float) -> None:
        self.rate = rate
        self._counted = 0
        self._answered: deque[tuple[float, int]] = deque()
        self._bucket = 0.0
        self._filled_s = now_s
        self._slowed = 1.0
        self._slow_until_s = 0.0

    def room(self, now_s: float) -> tuple[int, int]:
        """(parts that may be written now by priority 0, by the others)."""
        if not self.rate:
            return (1 << 30, 1 << 30) if self._slowed == 1.0 or now_s >= self._slow_until_s else (1, 0)
        self._age(now_s)
        limit = int(self.rate)
        left = limit - self._counted
        reserve = max(1, limit // RESERVE) if limit > 1 else 0
        steady = (self.rate - reserve if limit > 1 else self.rate) * self._speed(now_s)
        self._bucket = min(max(1.0, steady * _STEP_S), self._bucket + (now_s - self._filled_s) * steady)
        self._filled_s = now_s
        return max(0, left), max(0, min(left - reserve, int(self._bucket)))

    def wait_s(self, now_s: float) -> float:
        """How long until room may have grown."""
        if not self.rate:
            return max(0.001, self._slow_until_s - now_s)
        return min(_STEP_S, max(0.001, 1.0 / self.rate))

    def written(self, parts: int, is_bulk: bool) -> None:
        """Count parts as written."""
        self._counted += parts
        if is_bulk:
            self._bucket -= parts

    def answered(self, parts: int, now_s: float) -> None:
        """Parts were answered, or the link that carried them is gone: they count for one more second."""
        if not self.rate:
            self._counted -= parts
        elif self._answered and now_s - self._answered[-1][0] < 0.001:
            at_s, so_far = self._answered[-1]
            self._answered[-1] = (now_s, so_far + parts)
        else:
            self._answered.append((now_s, parts))

    def throttled(self, now_s: float) -> None:
        """The carrier said "too fast": halve the speed, down to a sixteenth, and recover over the next seconds."""
        if now_s >= self._slow_until_s - 1.5:
            self._slowed = max(1 / 16, self._slowed / 2)
        self._slow_until_s = now_s + 2.0

    def _speed(self, now_s: float) -> float:
        if now_s >= self._slow_until_s and self._slowed < 1.0:
            self._slowed = min(1.0, self._slowed * 2)
            self._slow_until_s = now_s + 1.0
        return self._slowed

    def _age(self, now_s: float) -> None:
        while self._answered and self._answered[0][0] <= now_s - 1.0:
            self._counted -= self._answered.popleft()[1]
