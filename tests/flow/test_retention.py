"""What is forgotten, and when: every class keeps for its time, nothing open is touched, and money stays for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import Table, func, insert, select

from berid.base.ids import SLOTS, first_id_at
from berid.config import Config
from berid.config import Retention as Times
from berid.domain.errors import Permanent
from berid.domain.message import FINAL, DeliveryReport, Sent, State
from berid.flow.accept import accept
from berid.flow.dispatch import RECORD, START, _Done, _Intent
from berid.flow.manage import verify_ledger
from berid.flow.ports import Runtime
from berid.flow.retention import EVERY_S, Retention, classes, forget_all
from berid.flow.settle import settle
from berid.store import retention, tables, work
from tests.support.builders import (
    CONNECTOR_ID,
    START_MS,
    FakeClock,
    make_caller,
    make_outgoing,
    make_runtime,
    make_submission,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TIMES = Times(
    content_days=2,
    deliveries_days=9,
    callbacks_days=5,
    events_days=8,
    requests_days=3,
    parked_receipts_days=4,
    idempotency_hours=6,
)


@pytest.fixture
async def rt(store_url: str) -> AsyncIterator[Runtime]:
    config = Config(database_url=store_url, retention=TIMES)
    async with make_runtime(store_url, clock=FakeClock(START_MS + 1_000 * DAY_MS), config=config) as rt:
        yield rt


async def put(rt: Runtime, table: Table, **values: Any) -> None:
    async with rt.store.transaction() as tx:
        await tx.execute(insert(table).values(**values))


async def count(rt: Runtime, table: Table, *conditions: Any) -> int:
    async with rt.store.read() as tx:
        return (await tx.execute(select(func.count()).select_from(table).where(*conditions))).scalar_one()


async def rows(rt: Runtime, table: Table) -> list[Any]:
    async with rt.store.read() as tx:
        return list((await tx.execute(select(table).order_by(table.c.id))).all())


def id_of(rt: Runtime, age_ms: int) -> int:
    """An id made so long ago."""
    return first_id_at(rt.clock.now_ms() - age_ms)


async def put_message(
    rt: Runtime,
    age_ms: int,
    state: State = State.DELIVERED,
    expired_ms: int | None = None,
    final_ms: int | None = None,
    body_kind: str = "text",
) -> int:
    """A message with one delivery and a line of its journal; ages as given. Its id, which the delivery's follows."""
    now_ms, identifier = rt.clock.now_ms(), id_of(rt, age_ms)
    expires_ms = now_ms - (age_ms if expired_ms is None else expired_ms)
    last_ms = now_ms - (age_ms if final_ms is None else final_ms) if state in FINAL else 0
    await put(
        rt,
        tables.message,
        id=identifier,
        body="hello",
        body_kind=body_kind,
        first_id=identifier + 1,
        last_id=identifier + 1,
        expires_ms=expires_ms,
    )
    await put(
        rt,
        tables.delivery,
        id=identifier + 1,
        message_id=identifier,
        state=state.value,
        final_ms=last_ms,
        expires_ms=expires_ms,
    )
    await put(rt, tables.event, delivery_id=identifier + 1, id=identifier + 2, kind=state.value)
    return identifier


async def put_callback(rt: Runtime, age_ms: int, **job: Any) -> None:
    """A callback with one try; with a job if anything is said of one."""
    identifier = id_of(rt, age_ms)
    await put(rt, tables.callback, id=identifier, event="delivered", bundle_id=identifier, bundled=1)
    await put(rt, tables.callback_try, callback_id=identifier, id=1)
    if job:
        await put(rt, tables.job, id=identifier, kind="callback", lane="h", **job)


async def put_parked(rt: Runtime, age_ms: int) -> None:
    await put(rt, tables.parked_report, id=id_of(rt, age_ms), key="k")


async def put_key(rt: Runtime, age_ms: int) -> None:
    await put(rt, tables.idempotency, application_id=1, key=str(age_ms), created_ms=rt.clock.now_ms() - age_ms)


async def put_ref(rt: Runtime, age_ms: int) -> None:
    await put(rt, tables.carrier_ref, connector_id=1, key=str(age_ms), sent_ms=rt.clock.now_ms() - age_ms)


async def put_inbound(rt: Runtime, age_ms: int) -> None:
    await put(rt, tables.inbound, id=id_of(rt, age_ms), body="STOP")


def putter(table: Table) -> Callable[[Runtime, int], Any]:
    async def put_row(rt: Runtime, age_ms: int) -> None:
        await put(rt, table, id=id_of(rt, age_ms))

    return put_row


@pytest.mark.parametrize(
    ("name", "kept_ms", "put_one", "left"),
    [
        ("contents", 2 * DAY_MS, put_message, (tables.message, tables.message.c.body != "")),
        ("inbound contents", 2 * DAY_MS, put_inbound, (tables.inbound, tables.inbound.c.body != "")),
        ("messages", 9 * DAY_MS, put_message, (tables.message,)),
        ("messages", 9 * DAY_MS, put_message, (tables.delivery,)),
        ("messages", 9 * DAY_MS, put_message, (tables.event,)),
        ("one-time passwords", 9 * DAY_MS, putter(tables.otp), (tables.otp,)),
        ("inbound", 9 * DAY_MS, put_inbound, (tables.inbound,)),
        ("callbacks", 5 * DAY_MS, put_callback, (tables.callback,)),
        ("callbacks", 5 * DAY_MS, put_callback, (tables.callback_try,)),
        ("carrier references", 5 * DAY_MS, put_ref, (tables.carrier_ref,)),
        ("parked receipts", 4 * DAY_MS, put_parked, (tables.parked_report,)),
        ("request log", 3 * DAY_MS, putter(tables.request_log), (tables.request_log,)),
        ("audit", 8 * DAY_MS, putter(tables.audit), (tables.audit,)),
        ("idempotency keys", 6 * HOUR_MS, put_key, (tables.idempotency,)),
    ],
)
async def test_class_is_kept_for_its_time_and_then_gone(
    rt: Runtime, name: str, kept_ms: int, put_one: Callable[[Runtime, int], Any], left: tuple[Any, ...]
) -> None:
    for age_ms in (kept_ms - HOUR_MS, kept_ms + HOUR_MS, kept_ms + 2 * HOUR_MS):
        await put_one(rt, age_ms)
    gone = await forget_all(rt)
    assert gone[name] >= 2
    assert await count(rt, *left) == 1
    assert not any((await forget_all(rt)).values())


async def test_every_class_and_every_setting_is_tested() -> None:
    (marked,) = test_class_is_kept_for_its_time_and_then_gone.pytestmark  # type: ignore[attr-defined]
    tested = {row[0] for row in marked.args[1]}
    rt: Any = type("Settings", (), {"config": Config(retention=TIMES)})
    assert {name for name, _, _ in classes(rt)} == tested
    told = {age_ms for _, age_ms, _ in classes(rt)}
    assert {getattr(TIMES, field) for field in msgspec.structs.asdict(TIMES)} <= {
        age_ms // unit for age_ms in told for unit in (DAY_MS, HOUR_MS)
    }


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL])
async def test_nothing_of_an_open_delivery_is_forgotten_however_old(rt: Runtime, state: State) -> None:
    identifier = await put_message(rt, 500 * DAY_MS, state)
    await put(rt, tables.carrier_ref, connector_id=1, key="k", delivery_id=identifier + 1, sent_ms=1)
    await put(rt, tables.job, id=identifier + 1, kind="dispatch", lane="c1")
    assert not any((await forget_all(rt)).values())
    assert await count(rt, tables.message, tables.message.c.body == "hello") == 1
    for table in (tables.delivery, tables.event, tables.carrier_ref, tables.job):
        assert await count(rt, table) == 1


@pytest.mark.parametrize("body_kind", ["text", "raw", "sealed"])
async def test_text_of_a_message_whose_validity_goes_on_is_kept(rt: Runtime, body_kind: str) -> None:
    await put_message(rt, 8 * DAY_MS, expired_ms=DAY_MS, body_kind=body_kind)
    await put_message(rt, 8 * DAY_MS + 1, expired_ms=3 * DAY_MS, body_kind=body_kind)
    await forget_all(rt)
    assert await count(rt, tables.message, tables.message.c.body_kind == body_kind) == 1
    assert await count(rt, tables.message, tables.message.c.body_kind == "erased", tables.message.c.body == "") == 1


async def test_time_begins_when_a_delivery_is_final_and_not_when_its_message_was_made(rt: Runtime) -> None:
    await put_message(rt, 30 * DAY_MS, expired_ms=29 * DAY_MS, final_ms=DAY_MS)
    assert not any((await forget_all(rt)).values())


async def test_one_open_delivery_keeps_the_whole_message(rt: Runtime) -> None:
    identifier = await put_message(rt, 500 * DAY_MS)
    await put(rt, tables.delivery, id=identifier + 2, message_id=identifier, state="sent")
    async with rt.store.transaction() as tx:
        await tx.execute(tables.message.update().values(last_id=identifier + 2))
    assert not any((await forget_all(rt)).values())
    assert await count(rt, tables.delivery) == 2


async def test_deliveries_of_others_between_its_own_stay(rt: Runtime) -> None:
    old = await put_message(rt, 500 * DAY_MS)
    other = await put_message(rt, 500 * DAY_MS - 1, State.SENT)
    async with rt.store.transaction() as tx:
        await tx.execute(tables.message.update().where(tables.message.c.id == old).values(last_id=other + 5))
    assert (await forget_all(rt))["messages"] == 2
    assert await count(rt, tables.delivery, tables.delivery.c.message_id == other) == 1
    assert await count(rt, tables.event) == 1


async def test_callback_that_still_waits_is_kept_and_one_set_aside_goes_with_its_job(rt: Runtime) -> None:
    await put_callback(rt, 40 * DAY_MS, due_ms=1)
    await put_callback(rt, 41 * DAY_MS, due_ms=1, buried_ms=2)
    await forget_all(rt)
    for table in (tables.callback, tables.callback_try, tables.job):
        assert await count(rt, table) == 1
    assert await count(rt, tables.job, tables.job.c.buried_ms == 0) == 1


@pytest.mark.parametrize(("buried_ms", "left"), [(0, (3, 1, 1)), (2, (0, 0, 0))])
async def test_bundle_of_callbacks_is_kept_while_it_waits_and_goes_as_a_whole(
    rt: Runtime, buried_ms: int, left: tuple[int, int, int]
) -> None:
    await put_callback(rt, 40 * DAY_MS, due_ms=1, buried_ms=buried_ms)
    first = id_of(rt, 40 * DAY_MS)
    for place in (1, 2):
        await put(rt, tables.callback, id=first + place * SLOTS, event="delivered", bundle_id=first)
    await forget_all(rt)
    assert (
        await count(rt, tables.callback),
        await count(rt, tables.callback_try),
        await count(rt, tables.job),
    ) == left


async def test_callback_that_is_taken_up_while_it_is_being_forgotten_is_kept(rt: Runtime) -> None:
    await put_callback(rt, 40 * DAY_MS, buried_ms=2)
    async with rt.store.read() as tx:
        found = (await tx.execute(retention.CALLBACKS.old(rt.clock.now_ms()))).all()
        (record,) = await work.jobs(tx, buried=True)
    async with rt.store.transaction() as tx:
        await work.revive(tx, record, rt.clock.now_ms(), 1)
        assert await retention.CALLBACKS.remove(tx, found) == 0
    for table in (tables.callback, tables.callback_try, tables.job):
        assert await count(rt, table) == 1


async def test_money_is_never_forgotten(rt: Runtime) -> None:
    for outcome in (Sent(("k1",), ("k1",)), Permanent("ESME_RINVDSTADR")):
        accepted = await accept(rt, make_caller(rt), make_submission("966501234567"))
        outgoing = make_outgoing(delivery_id=accepted.deliveries[0].id)
        await rt.store.hot.do(START, [_Intent(CONNECTOR_ID, [outgoing], rt.clock.now_ms())])
        await rt.store.hot.do(RECORD, [_Done(rt, outgoing, CONNECTOR_ID, outcome, rt.clock.now_ms())])
    await settle(rt, [DeliveryReport(CONNECTOR_ID, "k1", State.DELIVERED, 0, "000", "", "966501234567")])
    before = await rows(rt, tables.ledger_entry), await rows(rt, tables.wallet)
    assert [row.kind for row in before[0]] == ["topup", "hold", "charge", "hold", "release"]
    await rt.clock.advance(1_000 * 86_400)  # type: ignore[attr-defined]
    assert (await forget_all(rt))["messages"] == 4
    assert await count(rt, tables.message) == 0
    assert (await rows(rt, tables.ledger_entry), await rows(rt, tables.wallet)) == before
    async with rt.store.read() as tx:
        assert await verify_ledger(tx) == []


async def test_message_to_many_goes_page_by_page(rt: Runtime) -> None:
    many = 2 * retention.PAGE + 100
    identifier = await put_message(rt, 500 * DAY_MS)
    async with rt.store.transaction() as tx:
        numbers = range(identifier + 2, identifier + 1 + many)
        final = {"message_id": identifier, "state": "delivered", "final_ms": 1}
        await tx.execute(insert(tables.delivery), [{"id": number, **final} for number in numbers])
        await tx.execute(tables.message.update().values(last_id=identifier + many))
    before_ms = rt.clock.now_ms()
    left = []
    while removed := await retention.forget_page(rt.store, retention.MESSAGES, before_ms):
        assert removed <= retention.PAGE + 1
        left.append((await count(rt, tables.delivery), await count(rt, tables.message)))
    assert left == [(retention.PAGE + 100, 1), (100, 1), (0, 0)]


async def test_round_goes_on_until_nothing_old_is_left_and_pauses_between_pages(rt: Runtime) -> None:
    many = 2 * retention.PAGE + 1
    async with rt.store.transaction() as tx:
        first = id_of(rt, 100 * DAY_MS)
        await tx.execute(insert(tables.audit), [{"id": first + number} for number in range(many)])
    runner = asyncio.create_task(Retention(rt).run())
    clock: Any = rt.clock
    await clock.advance(EVERY_S - 1)
    assert await count(rt, tables.audit) == many
    left = []
    async with asyncio.timeout(20):
        while (now := await count(rt, tables.audit)) or not left:
            left.append(now)
            await clock.advance(1)
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)
    assert {many, many - retention.PAGE} <= set(left)


async def test_carriers_id_of_a_delivery_that_is_through_is_forgotten(rt: Runtime) -> None:
    identifier = await put_message(rt, 7 * DAY_MS, State.EXPIRED)
    await put(rt, tables.carrier_ref, connector_id=CONNECTOR_ID, key="k", delivery_id=identifier + 1, sent_ms=1)
    await put(rt, tables.carrier_ref, connector_id=CONNECTOR_ID + 1, key="k", delivery_id=identifier + 1, sent_ms=9**15)
    assert (await forget_all(rt))["carrier references"] == 1
    assert await count(rt, tables.carrier_ref, tables.carrier_ref.c.connector_id == CONNECTOR_ID) == 0
