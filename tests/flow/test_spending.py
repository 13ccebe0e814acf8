"""Spending limits on the path: counted when accepted, given back when released, exact under parallel requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest
from sqlalchemy import text

from berid.domain.errors import RefusalKind, Refused
from berid.domain.message import Accepted
from berid.flow.accept import PAGE, accept, explain
from berid.flow.cancel import cancel
from berid.flow.load import undo_loading
from berid.flow.manage import verify_ledger
from berid.flow.ports import Runtime
from berid.store import messages
from tests.support.builders import (
    ACCOUNT_ID,
    PRICE_MICROS,
    FakeClock,
    make_caller,
    make_runtime,
    make_submission,
)

NUMBER = "966501234567"
HOUR_MS = 3_600_000


@pytest.fixture
async def rt(store_url: str) -> AsyncIterator[Runtime]:
    async with make_runtime(store_url, clock=FakeClock()) as rt:
        yield rt
        await rt.store.hot.stop()
        async with rt.store.read() as tx:
            assert await verify_ledger(tx) == []


def limit(rt: Runtime, **rules: int) -> None:
    """Give the account these rules."""
    account = rt.directory.accounts[ACCOUNT_ID]
    limited = replace(account, rules=msgspec.structs.replace(account.rules, **rules))
    rt.directory = replace(rt.directory, accounts={ACCOUNT_ID: limited})


async def send(rt: Runtime, *numbers: str, **changes: object) -> Accepted:
    return await accept(rt, make_caller(rt), make_submission(*(numbers or (NUMBER,)), **changes))


async def refusals(rt: Runtime, *numbers: str, **changes: object) -> list[RefusalKind]:
    with pytest.raises(Refused) as caught:
        await send(rt, *numbers, **changes)
    return [refusal.kind for refusal in caught.value.refusals]


async def test_a_day_takes_as_much_as_its_limit_and_the_next_day_as_much_again(rt: Runtime) -> None:
    limit(rt, spend_per_day_micros=3 * PRICE_MICROS)
    await send(rt)
    await send(rt, NUMBER, "966501234568")
    assert await refusals(rt) == [RefusalKind.SPEND_CAP]
    assert [each.kind for each in await explain(rt, make_caller(rt), make_submission(NUMBER))] == [
        RefusalKind.SPEND_CAP
    ]
    assert isinstance(rt.clock, FakeClock)
    await rt.clock.advance(24 * HOUR_MS / 1000)
    await send(rt)


async def test_what_is_cancelled_may_be_spent_again(rt: Runtime) -> None:
    limit(rt, spend_per_month_micros=PRICE_MICROS)
    accepted = await send(rt, due_ms=rt.clock.now_ms() + HOUR_MS)
    assert await refusals(rt) == [RefusalKind.SPEND_CAP]
    async with rt.store.read() as tx:
        owner = await messages.find(tx, ACCOUNT_ID, "test", accepted.message_id)
    assert owner is not None
    assert (await cancel(rt, ACCOUNT_ID, [owner])).cancelled == 1
    await send(rt)


async def test_a_large_request_counts_whole_and_is_given_back_whole(rt: Runtime) -> None:
    limit(rt, spend_per_day_micros=(PAGE + 10) * PRICE_MICROS)
    numbers = [f"96650{place:07d}" for place in range(PAGE + 1)]
    accepted = await send(rt, *numbers, due_ms=rt.clock.now_ms() + HOUR_MS)
    assert await refusals(rt, *numbers) == [RefusalKind.SPEND_CAP]
    assert await refusals(rt, *numbers[:10]) == [RefusalKind.SPEND_CAP]
    async with rt.store.transaction() as tx:
        # As it would be had the process died while the pages were written.
        await tx.execute(text("UPDATE message SET state = 'loading'"))
        await tx.execute(text("DELETE FROM job"))
    await undo_loading(rt, accepted.message_id)
    await send(rt, *numbers)


async def test_of_two_hundred_parallel_requests_as_many_pass_as_the_limit_allows(rt: Runtime) -> None:
    limit(rt, spend_per_day_micros=50 * PRICE_MICROS)
    answers = await asyncio.gather(*(send(rt) for _ in range(200)), return_exceptions=True)
    assert sum(isinstance(answer, Accepted) for answer in answers) == 50
    assert all(isinstance(answer, Accepted | Refused) for answer in answers)
