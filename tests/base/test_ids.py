"""Ids: ordered by time, never twice, small enough for JavaScript, readable both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berid.base.ids import EPOCH_MS, SLOTS, IdMaker, first_id_at, made_ms, read, show


def test_ids_of_one_moment_rise_and_borrow_from_the_next_milliseconds() -> None:
    maker = IdMaker(lambda: EPOCH_MS + 1000)
    made = [maker.next() for _ in range(1000)]
    assert made == sorted(set(made))
    assert made_ms(made[0]) == EPOCH_MS + 1000
    assert made_ms(made[-1]) == EPOCH_MS + 1003


def test_a_clock_set_back_does_not_bring_an_id_twice() -> None:
    now = EPOCH_MS + 5000
    maker = IdMaker(lambda: now)
    first = maker.next()
    now -= 4000
    assert maker.next() > first


def test_a_new_process_starts_above_every_id_that_exists() -> None:
    existing = IdMaker(lambda: EPOCH_MS + 9000, slot=7).next()
    assert IdMaker(lambda: EPOCH_MS + 100, slot=3, floor=existing).next() > existing


def test_slots_keep_processes_apart() -> None:
    makers = [IdMaker(lambda: EPOCH_MS + 5, slot=slot) for slot in range(SLOTS)]
    made = [maker.next() for maker in makers for _ in range(10)]
    assert len(set(made)) == 10 * SLOTS


def test_a_slot_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="slot"):
        IdMaker(lambda: EPOCH_MS, slot=SLOTS)


@given(st.lists(st.integers(1, 40), max_size=20), st.integers(0, SLOTS - 1))
def test_a_range_holds_new_ids_only_and_none_between(counts: list[int], slot: int) -> None:
    maker = IdMaker(lambda: EPOCH_MS + 77, slot)
    seen: list[int] = []
    for count in counts:
        taken = maker.take(count)
        assert len(taken) == count
        seen += taken
        seen.append(maker.next())
    assert seen == sorted(set(seen))


def test_ids_stay_below_two_to_the_53_until_2060() -> None:
    year_2060_ms = 2_840_140_800_000
    assert IdMaker(lambda: year_2060_ms, SLOTS - 1).next() < 1 << 53


def test_a_time_filter_as_an_id_filter_divides_exactly() -> None:
    before = IdMaker(lambda: EPOCH_MS + 9_999, SLOTS - 1).next()
    after = IdMaker(lambda: EPOCH_MS + 10_000).next()
    assert before < first_id_at(EPOCH_MS + 10_000) <= after


def test_ids_reach_ahead_of_the_clock_after_a_burst_and_when_it_is_set_back() -> None:
    now_ms = EPOCH_MS + 10_000
    ids = IdMaker(lambda: now_ms)
    ids.next()
    assert ids.reached_ms == now_ms
    ids.take(1_000)
    assert ids.reached_ms == now_ms + 3
    now_ms -= 5_000
    ids.next()
    assert ids.reached_ms == now_ms + 5_003


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("msg_5", 5),
        ("5", 5),
        ("dlv_5", None),
        ("msg_", None),
        ("", None),
        ("msg_-5", None),
        ("msg_٥", None),
        ("msg_99999999999999999", None),
        ("msg_9007199254740992", None),
        ("msg_9007199254740991", 9007199254740991),
    ],
)
def test_only_a_public_id_of_the_kind_is_read(text: str, found: int | None) -> None:
    assert read("msg", text) == found


def test_what_is_shown_is_read_again() -> None:
    assert read("dlv", show("dlv", 123)) == 123
