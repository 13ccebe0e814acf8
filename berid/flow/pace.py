"""How fast a connector may send, in parts: never more than N at the carrier in any one-second window.

A part is written at some moment, handled by the carrier at an unknown later one, and answered after that. So it
counts from the moment it is written until one second after its answer. Proof: take all parts that the carrier
handles within one second, and of them the one that was written last. When it was written, each of the others had
been written already, and had either no answer yet or one that came, as every answer does, after its handling, which
is less than a second before this one's: all of them still counted. So there are no more of them than may count at
once, which is N. The price is the round trip: N parts per (1 s + round trip) at most.

Where no answer comes, the proof needs an end of the handling all the same. A part that timed out counts as answered
then: the carrier had the whole response timeout. Parts on a link that broke count until `LOST_S` after the break:
one second as ever, the rest for what lay unread in the carrier's buffers.

Bulk is paced evenly at the rate less a reserve, so that a one-time password that arrives finds room at once.

"Too fast" (ESME_RTHROTTLED, ESME_RMSGQFUL) lowers a ceiling below the rate: every quarter of a second it is
multiplied by the share that the carrier took, so it finds what the carrier really takes; without complaints it
rises again, slowly. A connector without a rate gets its first ceiling from the throughput at which the first
complaints came.
"""

from __future__ import annotations

from collections import deque
from math import inf

RESERVE = 20
"""One in so many of the rate is kept for priority 0. Rates below 5 keep nothing: there it would cost a quarter of
the rate or more, to save a one-time password, which is first in line anyway, one place in an evenly spaced queue."""

LOST_S = 2.0
"""How long parts count whose link broke before their answer."""

_SLOT_S = 0.001
"""Answers this close together are remembered as one, at the end of the slot. It also covers the carrier's clock
being coarser or running a little faster than ours."""

_STEP_S = 0.05
"""Bulk may catch up on this much time at most. A busy loop is late by that much now and then; more would be a
burst."""

_WRITE_S = 0.01
"""Bulk is written a hundred times a second at most, a few parts each time, not part by part."""

_JUDGE_S = 0.25
"""How often the ceiling is looked at."""

_RISE = 1.05
"""What it rises by, each time, without complaints: by a half in two seconds, tenfold in twelve."""

_DOUBT = 4
"""Complaints weigh as if so many more parts had been taken: a single one is no sign of anything."""

_FIRST_CEILING = 50.0
"""Where a ceiling begins at least, when there is no rate to begin at: the throughput measured may just be low
demand."""

_NO_CEILING = 20_000.0
"""Without a rate, a ceiling that has risen to this has gone."""


class Pace:
    """Counts parts against a rate. Times are monotonic seconds and never go back.

    `rate` is parts per second and 0 means no limit. Of a fraction the whole part counts in each second (2.5: two in
    any second); a rate below 1 allows one part in each 1/rate seconds.
    """

    __slots__ = (
        "_bucket",
        "_ceiling",
        "_complaints",
        "_counted",
        "_ended",
        "_filled_s",
        "_judged_s",
        "_limit",
        "_lost",
        "_lowered_s",
        "_taken",
        "_window_s",
        "rate",
    )

    def __init__(self, rate: float, now_s: float) -> None:
        self.rate = rate
        self._limit = max(1, int(rate)) if rate else 0
        self._window_s = (1.0 if rate >= 1 or not rate else 1.0 / rate) + _SLOT_S
        self._counted = 0
        # (until when, how many parts) of what is answered or lost and still counts, oldest first.
        self._ended: deque[tuple[float, int]] = deque()
        self._lost: deque[tuple[float, int]] = deque()
        self._bucket = 1.0
        self._filled_s = now_s
        self._ceiling = inf
        self._judged_s = now_s
        self._lowered_s = now_s
        self._taken = 0
        self._complaints = 0

    @property
    def speed(self) -> float:
        """Parts per second that the rate and the carrier's complaints allow now; infinity if neither speaks."""
        return min(self.rate or inf, self._ceiling)

    def room(self, now_s: float) -> tuple[int, int]:
        """(parts that may be written now by priority 0, by the others)."""
        self._age(now_s)
        if now_s - self._judged_s >= _JUDGE_S:
            self._judge(now_s)
        speed = self.speed
        if speed == inf:
            return 1 << 30, 1 << 30
        limit = max(1, int(speed))
        left = limit - self._counted
        reserve = _reserve(limit)
        steady = speed - reserve
        # Without a ceiling nobody looked at the bucket: what was taken from it then is not owed.
        filled = max(0.0, self._bucket) + (now_s - self._filled_s) * steady
        # Room for two at least: what a late timer or a rounding costs one part, the next one has.
        self._bucket = min(max(2.0, steady * _STEP_S), filled)
        self._filled_s = now_s
        return max(0, left), max(0, min(left - reserve, int(self._bucket)))

    def wait_s(self, now_s: float) -> float:
        """How long, after `room` was too little, until it may have grown without an answer coming in; at most a
        second."""
        speed = self.speed
        if speed == inf:
            return 1.0
        limit = max(1, int(speed))
        reserve = _reserve(limit)
        if self._counted >= limit - reserve:
            # Only what ceases to count makes room now.
            ends = [ended[0][0] for ended in (self._ended, self._lost) if ended]
            return min(1.0, max(_SLOT_S, min(ends, default=inf) - now_s))
        steady = speed - reserve
        return min(1.0, max(_WRITE_S, (1.0 - self._bucket) / steady + _SLOT_S))

    def begin_full(self, now_s: float) -> None:
        """Count as if the whole rate had just been used: a connector that begins may be the next of one that ended a
        moment ago, in this process or in one before."""
        if self.rate:
            self._counted += self._limit
            _add(self._ended, now_s + self._window_s, self._limit)

    def written(self, parts: int, is_bulk: bool) -> None:
        """Count parts as written."""
        self._counted += parts
        if is_bulk:
            self._bucket -= parts

    def answered(self, parts: int, now_s: float) -> None:
        """Parts were answered, whatever the answer, or their response timeout has passed."""
        self._taken += parts
        _add(self._ended, now_s + self._window_s, parts)

    def lost(self, parts: int, now_s: float) -> None:
        """The link broke that parts without an answer were on."""
        if parts:
            _add(self._lost, now_s + self._window_s - 1.0 + LOST_S, parts)

    def throttled(self, written_s: float) -> None:
        """The carrier answered a part, written at `written_s`, with "too fast". It is told to `answered` as well."""
        # What was written before the ceiling came down complains of the speed of then.
        if written_s >= self._lowered_s:
            self._complaints += 1

    def _age(self, now_s: float) -> None:
        for ended in (self._ended, self._lost):
            while ended and ended[0][0] <= now_s:
                self._counted -= ended.popleft()[1]

    def _judge(self, now_s: float) -> None:
        """Lower the ceiling by the share that the carrier refused, or let it rise."""
        elapsed_s = now_s - self._judged_s
        if self._complaints:
            share = min(1.0, self._complaints / (self._taken + _DOUBT))
            start = self.speed if self.speed < inf else max(_FIRST_CEILING, self._taken / elapsed_s)
            self._ceiling = max(1.0, start * max(0.5, 1.0 - share))
            self._lowered_s = now_s
        elif self._ceiling < inf:
            risen = self._ceiling * _RISE ** min(400.0, elapsed_s / _JUDGE_S)
            self._ceiling = inf if risen >= (self.rate or _NO_CEILING) else risen
        self._judged_s = now_s
        self._taken = self._complaints = 0


def _reserve(limit: int) -> int:
    return max(1, limit // RESERVE) if limit >= 5 else 0


def _add(ended: deque[tuple[float, int]], until_s: float, parts: int) -> None:
    """Remember parts that still count for a while; those of one slot together, at its end."""
    if ended and until_s < ended[-1][0]:
        ended[-1] = (ended[-1][0], ended[-1][1] + parts)
    else:
        ended.append((until_s + _SLOT_S, parts))
