"""What a group believes without reading it."""

from __future__ import annotations

import asyncio

import pytest

from berid.store import hot_kept
from berid.store.hot_kept import Belief, Turn


def test_wallet_is_believed_as_it_was_read_and_moved_since() -> None:
    belief = Belief(0)
    assert belief.wallets([1]) is None
    belief.learn_wallets({1: (100, 5), 2: (7, 0)})
    belief.move(1, -30)
    belief.move(3, -1)
    assert belief.wallets([2, 1]) == {1: (70, 5), 2: (7, 0)}
    assert belief.wallets([1, 3]) is None


def test_after_a_transaction_that_came_to_nothing_all_is_read_for_a_while() -> None:
    belief = Belief(2)
    belief.learn_wallets({1: (100, 5)})
    belief.doubt()
    belief.learn_wallets({1: (90, 5)})
    for _ in range(2):
        assert belief.wallets([1]) is None
        assert not belief.are_new([(1, "a")])
        belief.move(1, -1)
        belief.confirm()
    assert belief.wallets([1]) == {1: (88, 5)}
    assert belief.are_new([(1, "a")])


def test_only_so_many_wallets_and_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_kept, "WALLETS_KEPT", 3)
    monkeypatch.setattr(hot_kept, "KEYS_KEPT", 3)
    belief = Belief(0)
    for number in range(5):
        belief.learn_wallets({number: (number, 0)})
        belief.learn_used([(1, str(number))])
    assert [number for number in range(5) if belief.wallets([number]) is None] == [0, 1]
    assert [number for number in range(5) if belief.are_new([(1, str(number))])] == [0, 1]


async def test_groups_have_their_turn_together_and_a_transaction_has_it_alone() -> None:
    turn, order = Turn(), []

    async def transaction() -> None:
        async with turn:
            order.append("transaction")

    async def group() -> None:
        await turn.enter()
        order.append("group")

    await group()
    await group()
    waiting = [asyncio.ensure_future(work()) for work in (transaction, group)]
    turn.leave()
    await asyncio.sleep(0)
    assert order == ["group", "group"]
    turn.leave()
    await asyncio.gather(*waiting)
    assert order == ["group", "group", "transaction", "group"]
