"""The part of a lane that this process holds in memory: leased, about to be done, ordered and fair.

Work that has just been accepted goes straight into its lane, with the lease already written in the same commit; whatever does
not fit stays in the table only and is leased later. An account whose backlog is in the table puts nothing in front of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

PRIORITIES = (0, 1, 2)

BULK_SHARE = 10
"""One in so many places of a parcel is kept for bulk while higher priorities could fill it, so that bulk never starves."""


class Laned(Protocol):
    """What a lane needs to know of an item."""

    account_id: int
    priority: int
    parts: int
    """How much of the connector's room it takes."""


T = TypeVar("T", bound=Laned)


class Lane(Generic[T]):
    """One lane: three priorities, and inside each a round over accounts.

    `capacity` bounds the items in memory, of all priorities together; priority 0 may exceed it by as much again, so that
    a full lane never sends a one-time password the long way through the table.
    """

    __slots__ = ("_by_account", "_held", "_round", "_size", "_spilled", "capacity", "name", "spills", "wake")

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.capacity = capacity
        self.wake = asyncio.Event()
        """Set when there may be something to take."""
        self._by_account: tuple[dict[int, deque[T]], ...] = tuple({} for _ in PRIORITIES)
        self._round: tuple[deque[int], ...] = tuple(deque() for _ in PRIORITIES)
        self._size = 0
        self._held = 0
        self._spilled: tuple[dict[int, int], ...] = tuple({} for _ in PRIORITIES)
        self.spills = 0
        """How often it was noted that the table holds something."""

    def __len__(self) -> int:
        return self._size

    @property
    def room(self) -> int:
        """How many more items fit."""
        return max(0, self.capacity - self._size - self._held)

    @property
    def is_awaiting(self) -> bool:
        """Whether places are held for work that is not on disk yet. Until it has come, or was withdrawn, the lane is needed."""
        return self._held > 0

    def admit(self, priority: int, account_id: int, count: int) -> bool:
        """Ask for `count` places before the commit. True holds them until `push` or `withdraw`.

        False: the work is to be written without a lease; the lane remembers that the table has some of this account.
        """
        limit = self.capacity * 2 if priority == 0 else self.capacity
        if account_id in self._spilled[priority] or self._size + self._held + count > limit:
            self.spill(priority, account_id)
            return False
        self._held += count
        return True

    def withdraw(self, count: int) -> None:
        """Give back places that were held for work which was not accepted after all."""
        self._held -= count
        self.wake.set()

    def push(self, items: Iterable[T], held: int = 0) -> None:
        """Put in leased items; `held` of them had places held by `admit`."""
        self._held -= held
        for item in items:
            queues = self._by_account[item.priority]
            queue = queues.get(item.account_id)
            if queue is None:
                queues[item.account_id] = queue = deque()
                self._round[item.priority].append(item.account_id)
            queue.append(item)
            self._size += 1
        self.wake.set()

    def take(self, room: int, reserved: int = 0) -> list[T]:
        """Take items worth up to `room` parts: priority 0 first, then 1, then 2, each in rounds over the accounts.

        `reserved` parts of the room are for priority 0 only. The last item taken may exceed the room by its further parts.
        """
        taken: list[T] = []
        left = self._take(0, room, taken)
        ordinary = min(left, room - reserved)
        if ordinary <= 0:
            return taken
        kept = ordinary // BULK_SHARE if self._by_account[2] else 0
        rest = self._take(1, ordinary - kept, taken) + kept
        rest = self._take(2, rest, taken)
        if rest > 0 and self._by_account[1]:
            self._take(1, rest, taken)
        return taken

    def _take(self, priority: int, room: int, taken: list[T]) -> int:
        queues, turns = self._by_account[priority], self._round[priority]
        while room > 0 and turns:
            account_id = turns[0]
            queue = queues[account_id]
            item = queue.popleft()
            taken.append(item)
            room -= item.parts
            self._size -= 1
            if queue:
                turns.rotate(-1)
            else:
                turns.popleft()
                del queues[account_id]
        return room

    def empty(self) -> list[T]:
        """Take everything out, to be given back to the table."""
        items = [item for queues in self._by_account for queue in queues.values() for item in queue]
        for queues, turns in zip(self._by_account, self._round, strict=True):
            queues.clear()
            turns.clear()
        self._size = 0
        return items

    def waiting(self, priority: int) -> int:
        """How many items of a priority are in memory."""
        return sum(map(len, self._by_account[priority].values()))

    @property
    def has_spilled(self) -> bool:
        """Whether the table may hold due work of this lane that is not in memory."""
        return any(self._spilled)

    def has_spilled_of(self, priority: int) -> bool:
        """Whether it may hold some of this priority."""
        return bool(self._spilled[priority])

    def spill(self, priority: int, account_id: int) -> None:
        """Note that the table holds work of this account; 0 if it is not known of which."""
        self.spills += 1
        self._spilled[priority][account_id] = self.spills
        self.wake.set()

    def drained(self, priority: int, spills: int | None = None) -> None:
        """Note that the table holds nothing of this priority that is due: a lease, begun when there had been so many `spills`,
        found less than it asked for. What was noted since is still there."""
        noted = self._spilled[priority]
        for account_id in [each for each, spill in noted.items() if spills is None or spill <= spills]:
            del noted[account_id]
