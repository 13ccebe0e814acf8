"""A lane: order by priority, fairness between accounts, bounded memory, nothing lost between admit and take."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from berid.queue.lanes import Lane


@dataclass
class Item:
    account_id: int
    priority: int = 1
    parts: int = 1
    name: str = ""


def filled(*items: Item, capacity: int = 1000) -> Lane[Item]:
    lane: Lane[Item] = Lane("c1", capacity)
    lane.push(items)
    return lane


def test_a_one_time_password_overtakes_everything() -> None:
    lane = filled(*(Item(1, 2) for _ in range(50)), *(Item(1, 1) for _ in range(50)), Item(2, 0, name="otp"))
    assert lane.take(1)[0].name == "otp"


def test_ten_messages_behind_another_accounts_thousand_leave_in_the_first_parcel() -> None:
    lane = filled(*(Item(1) for _ in range(900)), *(Item(2) for _ in range(10)))
    taken = lane.take(40)
    assert sum(item.account_id == 2 for item in taken) == 10


def test_an_accounts_own_messages_keep_their_order() -> None:
    lane = filled(*(Item(1, name=str(number)) for number in range(20)), *(Item(2) for _ in range(5)))
    mine = [item.name for item in lane.take(30) if item.account_id == 1]
    assert mine == [str(number) for number in range(20)]


def test_bulk_never_starves_behind_transactional_messages() -> None:
    lane = filled(*(Item(1, 1) for _ in range(100)), *(Item(2, 2) for _ in range(100)))
    taken = lane.take(50)
    assert sum(item.priority == 2 for item in taken) == 5


def test_reserved_room_is_for_the_first_priority_only() -> None:
    lane = filled(*(Item(1, 2) for _ in range(20)))
    assert len(lane.take(10, reserved=3)) == 7
    lane.push([Item(1, 0) for _ in range(5)])
    assert [item.priority for item in lane.take(3, reserved=3)] == [0, 0, 0]


def test_parts_count_against_the_room() -> None:
    lane = filled(*(Item(1, 1, parts=3) for _ in range(10)))
    assert len(lane.take(6)) == 2


def test_a_full_lane_sends_new_work_to_the_table_and_keeps_an_accounts_order() -> None:
    lane = filled(*(Item(1) for _ in range(10)), capacity=10)
    assert not lane.admit(1, 1, 1)
    lane.take(10)
    assert not lane.admit(1, 1, 1), "its backlog is in the table: nothing may overtake it"
    assert lane.admit(1, 2, 1)
    lane.drained(1)
    assert lane.admit(1, 1, 1)


def test_what_is_left_in_the_table_is_known_by_priority() -> None:
    lane = filled(*(Item(1, 2) for _ in range(10)), capacity=10)
    assert not lane.has_spilled
    lane.wake.clear()
    lane.spill(0, 0)
    assert lane.wake.is_set()
    assert not lane.admit(2, 1, 1)
    lane.drained(0)
    assert [lane.has_spilled_of(priority) for priority in (0, 1, 2)] == [False, False, True]
    spills = lane.spills
    assert not lane.admit(2, 2, 1)
    lane.drained(2, spills)
    assert lane.has_spilled_of(2), "of the second account it was noted later"
    lane.drained(2)
    assert not lane.has_spilled


def test_a_full_lane_still_takes_one_time_passwords() -> None:
    lane = filled(*(Item(1, 2) for _ in range(10)), capacity=10)
    assert lane.admit(0, 1, 1)


def test_places_that_were_held_and_not_used_come_back() -> None:
    lane: Lane[Item] = Lane("c1", 10)
    assert lane.admit(1, 1, 10)
    assert not lane.admit(1, 2, 1)
    assert lane.is_awaiting
    lane.wake.clear()
    lane.withdraw(10)
    assert not lane.is_awaiting
    assert lane.wake.is_set()
    lane.drained(1)
    assert lane.admit(1, 2, 10)
    lane.push([Item(2) for _ in range(10)], held=10)
    assert not lane.is_awaiting
    assert lane.room == 0
    assert len(lane) == 10


def test_emptying_gives_everything_back() -> None:
    lane = filled(*(Item(account, priority) for account in range(3) for priority in range(3)))
    assert len(lane.empty()) == 9
    assert lane.take(10) == []


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 3)), max_size=60),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=40),
)
def test_nothing_is_lost_or_doubled(work: list[tuple[int, int, int]], takes: list[tuple[int, int]]) -> None:
    items = [Item(account, priority, parts, str(number)) for number, (account, priority, parts) in enumerate(work)]
    lane = filled(*items)
    seen = [item for room, reserved in takes for item in lane.take(room, min(room, reserved))] + lane.empty()
    assert sorted(item.name for item in seen) == sorted(item.name for item in items)
    assert len(lane) == 0
