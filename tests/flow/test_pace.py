"""The promise of `Pace`, against carriers that handle and answer whenever they like; and that it costs no needless time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from berid.flow.pace import LOST_S, Pace


@dataclass
class Step:
    """What happens next in a run: time passes, perhaps the link breaks, then somebody wants to send."""

    gap_ms: float
    wish: int
    is_bulk: bool = False
    handling_ms: float = 0
    """From the write until the carrier handles it; every further part of this step a little longer."""
    answering_ms: float = 0
    """From the handling until the answer is here."""
    spread_ms: float = 0
    has_break: bool = False
    is_refused: bool = False


STEPS = st.builds(
    Step,
    gap_ms=st.sampled_from((0, 1, 20, 250, 500, 900, 999, 1000, 1001)) | st.floats(0, 1500),
    wish=st.integers(0, 40),
    is_bulk=st.booleans(),
    handling_ms=st.sampled_from((0, 1, 999, 1000)) | st.floats(0, 3000),
    answering_ms=st.sampled_from((0, 1, 1000)) | st.floats(0, 3000),
    spread_ms=st.sampled_from((0, 1)) | st.floats(0, 200),
    has_break=st.integers(0, 9).map(lambda number: number == 0),
    is_refused=st.integers(0, 4).map(lambda number: number == 0),
)


@dataclass
class Carrier:
    """Time, the parts on their way, and when each was handled."""

    pace: Pace
    now_s: float = 100.0
    handled_s: list[float] = field(default_factory=list)
    _flying: list[tuple[float, int, float, float, bool]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def write(self, parts: int, step: Step) -> None:
        """Parts leave now; when each is handled and answered is settled here."""
        self.pace.written(parts, step.is_bulk)
        for number in range(parts):
            handled_s = self.now_s + (step.handling_ms + number * step.spread_ms) / 1000
            answered_s = handled_s + step.answering_ms / 1000
            part = (answered_s, next(self._order), handled_s, self.now_s, step.is_refused)
            heapq.heappush(self._flying, part)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, answers come in."""
        until_s = self.now_s + seconds
        while self._flying and self._flying[0][0] <= until_s:
            answered_s, _, handled_s, written_s, is_refused = heapq.heappop(self._flying)
            self.handled_s.append(handled_s)
            self.now_s = answered_s
            self.pace.answered(1, answered_s)
            if is_refused:
                self.pace.throttled(written_s)
        self.now_s = until_s

    def break_link(self) -> None:
        """Nothing on its way is answered any more; what lies in the carrier's buffers is handled within a second."""
        flying, self._flying = self._flying, []
        self.handled_s += [part[2] for part in flying if part[2] < self.now_s + LOST_S - 1]
        self.pace.lost(len(flying), self.now_s)

    def most_in(self, window_s: float) -> int:
        """The most parts handled in any window of this length, the end not included."""
        times = sorted(self.handled_s)
        first = most = 0
        for place, at_s in enumerate(times):
            while at_s - times[first] >= window_s:
                first += 1
            most = max(most, place - first + 1)
        return most


@settings(max_examples=400, deadline=None)
@given(rate=st.sampled_from((0.3, 1, 2, 2.5, 5, 10, 37)), steps=st.lists(STEPS, min_size=2, max_size=40))
@example(rate=10, steps=[Step(0, 40, handling_ms=900), Step(1000, 40)])
@example(rate=10, steps=[Step(0, 40, handling_ms=1500), Step(500, 0, has_break=True), Step(1100, 40)])
def test_carrier_never_handles_more_than_the_rate_in_any_second(rate: float, steps: list[Step]) -> None:
    carrier = Carrier(Pace(rate, 100.0))
    for step in steps:
        carrier.pass_time(step.gap_ms / 1000)
        if step.has_break:
            carrier.break_link()
        urgent, bulk = carrier.pace.room(carrier.now_s)
        carrier.write(min(step.wish, bulk if step.is_bulk else urgent), step)
    carrier.pass_time(1000)
    if rate < 1:
        assert carrier.most_in(1 / rate - 1e-9) <= 1
    else:
        assert carrier.most_in(1.0 - 1e-9) <= int(rate)


@settings(max_examples=100, deadline=None)
@given(rate=st.sampled_from((0.3, 1, 2.5, 10, 0)), steps=st.lists(STEPS, max_size=40))
def test_all_room_comes_back_when_everything_is_answered_or_lost(rate: float, steps: list[Step]) -> None:
    carrier = Carrier(Pace(rate, 100.0))
    for step in steps:
        carrier.pass_time(step.gap_ms / 1000)
        if step.has_break:
            carrier.break_link()
        urgent, bulk = carrier.pace.room(carrier.now_s)
        carrier.write(min(step.wish, bulk if step.is_bulk else urgent), step)
    carrier.pass_time(1000)
    carrier.pace.room(carrier.now_s)  # judges the last complaints, if there were any
    assert carrier.pace.room(carrier.now_s + 200)[0] == (max(1, int(rate)) if rate else 1 << 30)


def run(carrier: Carrier, seconds: float, step: Step, late_s: float = 0.0) -> int:
    """Send as much as the pace allows, waking only when it says so, and `late_s` after that, or when an answer comes; the
    parts written."""
    end_s = carrier.now_s + seconds
    written = 0
    while carrier.now_s < end_s:
        urgent, bulk = carrier.pace.room(carrier.now_s)
        may = bulk if step.is_bulk else urgent
        if may:
            carrier.write(min(may, 1000), step)
            written += min(may, 1000)
        wait_s = carrier.pace.wait_s(carrier.now_s)
        assert wait_s > 0
        next_answer_s = carrier._flying[0][0] - carrier.now_s if carrier._flying else inf
        carrier.pass_time(min(wait_s + late_s, max(next_answer_s, 0.0005)))
    return written


@pytest.mark.parametrize("rate", [1, 2, 4, 10, 100, 1000])
def test_first_priority_gets_the_whole_rate_when_the_round_trip_is_tiny(rate: int) -> None:
    carrier = Carrier(Pace(rate, 100.0))
    assert run(carrier, 20, Step(0, 0, handling_ms=0.2, answering_ms=0.2)) >= 20 * rate * 0.98


@pytest.mark.parametrize(
    ("rate", "share"), [(1, 0.98), (2, 0.98), (4, 0.98), (5, 0.78), (10, 0.88), (20, 0.93), (100, 0.93), (1000, 0.93)]
)
def test_bulk_gets_the_rate_less_the_reserve(rate: int, share: float) -> None:
    carrier = Carrier(Pace(rate, 100.0))
    assert run(carrier, 20, Step(0, 0, is_bulk=True, handling_ms=0.2, answering_ms=0.2)) >= 20 * rate * share


@pytest.mark.parametrize("rate", [1, 4, 10, 20, 300])
def test_timers_that_are_late_cost_bulk_next_to_nothing(rate: int) -> None:
    step = Step(0, 0, is_bulk=True, handling_ms=0.2, answering_ms=0.2)
    on_time, late = Carrier(Pace(rate, 100.0)), Carrier(Pace(rate, 100.0))
    assert run(late, 20, step, late_s=0.004) >= run(on_time, 20, step) * 0.98


def test_longer_round_trip_costs_no_more_than_itself() -> None:
    carrier = Carrier(Pace(100, 100.0))
    assert run(carrier, 20, Step(0, 0, handling_ms=100, answering_ms=100)) >= 20 * 100 / 1.2 * 0.97


def test_bulk_is_spread_over_the_second() -> None:
    carrier = Carrier(Pace(100, 100.0))
    run(carrier, 5, Step(0, 0, is_bulk=True, handling_ms=0.2, answering_ms=0.2))
    assert carrier.most_in(0.1) <= 12


def test_one_time_password_finds_room_while_bulk_runs() -> None:
    carrier = Carrier(Pace(40, 100.0))
    for _ in range(100):
        run(carrier, 0.05, Step(0, 0, is_bulk=True, handling_ms=5, answering_ms=5))
        assert carrier.pace.room(carrier.now_s)[0] >= 1


def test_late_wake_up_is_caught_up_but_makes_no_burst() -> None:
    pace = Pace(1000, 100.0)
    pace.room(100.0)
    assert pace.room(100.02)[1] == pytest.approx(19, abs=1)
    assert pace.room(103.0)[1] == pytest.approx(47, abs=1)


@pytest.mark.parametrize(("rate", "wait_s"), [(10, 1.01), (0.5, 2.01)])
def test_connector_that_takes_over_from_another_waits_out_its_last_second(rate: float, wait_s: float) -> None:
    pace = Pace(rate, 100.0)
    pace.begin_full(100.0)
    assert pace.room(100.0 + wait_s - 0.02) == (0, 0)
    assert pace.room(100.0 + wait_s)[0] == max(1, int(rate))


def test_no_rate_means_no_limit() -> None:
    pace = Pace(0, 100.0)
    for turn in range(10):
        assert min(pace.room(100.0 + turn / 100)) > 1_000_000
        pace.written(100_000, is_bulk=True)


def complain(carrier: Carrier, capacity: int, seconds: float) -> list[int]:
    """Run against a carrier that takes `capacity` parts in each second and refuses the rest; parts taken, by second."""
    end_s = carrier.now_s + seconds
    taken = [0] * (int(seconds) + 1)
    start_s, pace = carrier.now_s, carrier.pace
    while carrier.now_s < end_s:
        _, bulk = pace.room(carrier.now_s)
        may = min(bulk, 50)
        pace.written(may, is_bulk=True)
        second = int(carrier.now_s - start_s)
        for _ in range(may):
            taken[second] += 1
            if taken[second] > capacity:
                pace.throttled(carrier.now_s)
        pace.answered(may, carrier.now_s)
        carrier.now_s += 0.01
    return [min(each, capacity) for each in taken[:-1]]


@pytest.mark.parametrize("rate", [0, 1000])
def test_carrier_that_takes_less_is_found_out_and_kept_busy(rate: int) -> None:
    carrier = Carrier(Pace(rate, 100.0))
    taken = complain(carrier, capacity=100, seconds=30)
    assert carrier.pace.speed < 250
    assert sum(taken[-10:]) >= 800


def test_single_complaint_slows_little_and_is_forgotten() -> None:
    pace = Pace(1000, 100.0)
    pace.answered(1, 100.1)
    pace.throttled(100.05)
    pace.room(100.3)
    assert 750 <= pace.speed < 1000
    pace.room(110.0)
    assert pace.speed == 1000


def test_complaints_about_the_speed_of_before_do_not_lower_it_again() -> None:
    pace = Pace(1000, 100.0)
    for moment_s in (100.3, 100.6, 100.9, 101.2):
        for _ in range(200):
            pace.throttled(100.1)
        pace.answered(200, moment_s - 0.01)
        pace.room(moment_s)
    assert pace.speed >= 500


def test_speed_without_a_rate_comes_back_to_no_limit() -> None:
    carrier = Carrier(Pace(0, 100.0))
    complain(carrier, capacity=100, seconds=10)
    assert carrier.pace.speed < inf
    for quarter in range(400):
        carrier.pace.room(carrier.now_s + quarter / 4)
    assert carrier.pace.speed == inf
