"""Requests too large for one commit: loaded page by page, paid for all at once, released by the last page.

First commit: the message in state *loading*, the hold for everything, the idempotency key. Then pages of
deliveries. The last commit opens the message and writes one `spread` job, which makes the deliveries' jobs, page by
page, and can be taken up again after a crash. Nothing leaves before; a crash in between leaves a loading message,
which the sweeper undoes: the caller had no answer yet.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from berid.base.ids import first_id_at, made_ms
from berid.domain.errors import Refused
from berid.domain.ledger import EntryKind, effect
from berid.domain.message import Accepted
from berid.domain.spending import day_of
from berid.flow.accept import (
    PAGE,
    Order,
    accepted_of,
    delivery_rows,
    hold_rows,
    message_row,
    replay,
    spent_before,
    why_over,
    why_short,
)
from berid.flow.ports import Runtime
from berid.store.hot import HotTx, StoreAway, Verb

SPREAD_LANE = "clock"

HOLD_WRITTEN_MS = 60_000
"""The hold's entry gets its id within this time of the message's own."""


async def accept_large(rt: Runtime, order: Order) -> Accepted:
    """Accept an order of any size. Raises as `accept` does; after a refusal or failure nothing remains of it."""
    hot = rt.store.hot
    accepted = (await hot.do(OPEN, [order]))[0]
    if accepted.is_replay:
        return accepted
    try:
        for start in range(0, len(order.lines), PAGE):
            page = slice(start, start + PAGE)
            await hot.do(PAGES, delivery_rows(order, order.ids[page], order.lines[page]))
        twin = (await hot.do(RELEASE, [_Loaded(order, accepted)]))[0]
    except BaseException:
        # Best effort at once; if this fails too, the sweeper finds the loading message.
        await hot.do(UNDO, [_Undo(rt, order.message_id)])
        raise
    if twin is not None:
        await undo_loading(rt, order.message_id)
        return twin
    if not order.due_ms:
        task = asyncio.get_running_loop().create_task(_spread_now(rt, order.message_id))
        rt.background.add(task)
        task.add_done_callback(rt.background.discard)
    return accepted


async def _open(tx: HotTx, orders: list[Order]) -> list[Accepted | Exception]:
    results: list[Accepted | Exception] = []
    for order in orders:
        idem = order.submission.idempotency
        key = (order.caller.application.id, idem[0]) if idem is not None else None
        used = await tx.idempotent([key]) if key is not None else {}
        if key is not None and key in used and idem is not None:
            results.append(replay(used[key], idem[1]))
            continue
        balances = await tx.wallets(order.holds)
        left = {wallet_id: available for wallet_id, (available, _) in balances.items()}
        short = why_short(order, balances, left) or why_over(order, await spent_before(tx, [order]))
        if short is not None:
            results.append(Refused(short))
            continue
        for wallet_id, amount in order.holds.items():
            left[wallet_id] -= amount
        await tx.insert("message", [message_row(order, "loading")])
        entries = hold_rows(order)
        if entries:
            await tx.insert("ledger_entry", entries)
            await tx.move_money([(-amount, amount, 0, wallet_id) for wallet_id, amount in sorted(order.holds.items())])
            application_id = order.caller.application.id
            await tx.add_spent(
                {(wallet_id, order.day, application_id): amount for wallet_id, amount in order.holds.items()}
            )
        results.append(accepted_of(order, left))
    return results


OPEN: Verb[Order, Accepted] = Verb("load_open", 11, _open)


async def _pages(tx: HotTx, rows: list[tuple[Any, ...]]) -> list[Exception | None]:
    await tx.insert("delivery", rows)
    return [None for _ in rows]


PAGES: Verb[tuple[Any, ...], None] = Verb("load_pages", 12, _pages)


@dataclass(slots=True)
class _Loaded:
    order: Order
    accepted: Accepted


async def _release(tx: HotTx, loads: list[_Loaded]) -> list[Accepted | Exception | None]:
    """Open messages whose pages are all there. If a twin with the same idempotency key was first, the answer is the
    twin's."""
    results: list[Accepted | Exception | None] = []
    for load in loads:
        order, idem = load.order, load.order.submission.idempotency
        if idem is not None:
            key = (order.caller.application.id, idem[0])
            used = await tx.idempotent([key])
            if key in used:
                results.append(replay(used[key], idem[1]))
                continue
            answer = msgspec.json.encode(load.accepted).decode()
            await tx.insert("idempotency", [(*key, idem[1], answer, order.now_ms)])
        await tx.open_messages([order.message_id])
        due_ms = order.due_ms or order.now_ms
        job = (order.message_id, "spread", SPREAD_LANE, int(order.priority), order.caller.account.id, due_ms, 0, 0, 0)
        await tx.insert("job", [job])
        results.append(None)
    return results


RELEASE: Verb[_Loaded, Accepted | None] = Verb("load_release", 13, _release)


@dataclass(slots=True)
class _Undo:
    rt: Runtime
    message_id: int


async def _undo(tx: HotTx, items: list[_Undo]) -> list[Exception | None]:
    """Take back messages that are still loading: their money, their deliveries, their key."""
    rt = items[0].rt
    until_id = first_id_at(made_ms(max(item.message_id for item in items)) + HOLD_WRITTEN_MS)
    for wallet_id, account_id, amount, message_id, count, application_id, created_ms in await tx.drop_loading(
        [item.message_id for item in items], until_id
    ):
        await tx.insert(
            "ledger_entry",
            [
                (
                    rt.ids.next(),
                    account_id,
                    wallet_id,
                    EntryKind.RELEASE.value,
                    amount,
                    message_id,
                    count,
                    rt.clock.now_ms(),
                    "",
                    "loading was not finished",
                )
            ],
        )
        await tx.move_money([(*effect(EntryKind.RELEASE, amount), wallet_id)])
        account = rt.directory.accounts.get(account_id)
        if account is not None:
            await tx.add_spent({(wallet_id, day_of(created_ms, account.zone), application_id): -amount})
    return [None for _ in items]


UNDO: Verb[_Undo, None] = Verb("load_undo", 14, _undo)


@dataclass(slots=True)
class _Spread:
    rt: Runtime
    message_id: int
    after_id: int


async def _spread(tx: HotTx, asks: list[_Spread]) -> list[int | Exception]:
    """Make the dispatch jobs of the next page of a message; the answer is the last id handled, 0 when there are no
    more."""
    results: list[int | Exception] = []
    for ask in asks:
        last = await tx.spread(ask.message_id, ask.after_id, PAGE, ask.rt.clock.now_ms())
        if not last:
            await tx.jobs_done([ask.message_id])
        results.append(last)
    return results


SPREAD: Verb[_Spread, int] = Verb("load_spread", 19, _spread)


async def spread(rt: Runtime, message_id: int) -> None:
    """Make the jobs of all deliveries of an opened message that wait and have none; then the `spread` job is done."""
    after_id = 0
    while True:
        after_id = (await rt.store.hot.do(SPREAD, [_Spread(rt, message_id, after_id)]))[0]
        if not after_id:
            return
        for lane in rt.lanes.values():
            lane.wake.set()


async def _spread_now(rt: Runtime, message_id: int) -> None:
    """Spread a message that has just been accepted, without the sweeper's second."""
    with suppress(StoreAway):  # its job is still there, and the sweeper takes it up
        await spread(rt, message_id)


async def undo_loading(rt: Runtime, message_id: int) -> None:
    """Undo a loading message that an ended process left behind."""
    await rt.store.hot.do(UNDO, [_Undo(rt, message_id)])
