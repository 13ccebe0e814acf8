"""The life of a delivery from acceptance to its end, verb by verb, on both stores: states, money, journal, jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import select, text

from berid.domain.errors import Permanent, RefusalKind, Refused, Temporary, Uncertain
from berid.domain.message import ChargeOn, DeliveryReport, Outgoing, Sent, State
from berid.domain.pricing import PriceList, PriceRow
from berid.domain.routing import UncertainPolicy
from berid.flow.accept import accept
from berid.flow.changes import Changes
from berid.flow.dispatch import LEASE, RECORD, START, _Done, _Intent, _Refill
from berid.flow.manage import verify_ledger
from berid.flow.ports import Outcome, Runtime
from berid.flow.settle import settle
from berid.flow.sweep import Sweeper, hold_late_schedules, hold_restored, recover_connector
from berid.store import messages, tables
from berid.store.hot import HotTx, StoreAway, Tracked
from tests.support.builders import (
    ACCOUNT_ID,
    BALANCE_MICROS,
    CONNECTOR_ID,
    CURRENCY,
    PRICE_MICROS,
    ROUTE_ID,
    FakeClock,
    make_caller,
    make_outgoing,
    make_runtime,
    make_submission,
)
from tests.support.database import ask

NUMBER = "966501234567"
HOUR_MS = 3_600_000
STARTED: dict[int, Tracked] = {}
"""What a dispatcher remembers between intent and outcome."""


@pytest.fixture
async def rt(store_url: str) -> AsyncIterator[Runtime]:
    async with make_runtime(store_url, clock=FakeClock()) as rt:
        STARTED.clear()
        yield rt
        await rt.store.hot.stop()
        async with rt.store.read() as tx:
            assert await verify_ledger(tx) == [], "whatever happened, the books must balance"
            counted = (await tx.execute(text("SELECT coalesce(sum(micros), 0) FROM spend"))).scalar_one()
        _, held, spent = await wallet(rt)
        assert counted == held + spent, "spending limits count what is held and what was charged"


async def send(rt: Runtime, **changes: object) -> int:
    """Accept one message to one recipient; returns its delivery."""
    accepted = await accept(rt, make_caller(rt), make_submission(NUMBER, **changes))
    return accepted.deliveries[0].id


async def submit(rt: Runtime, delivery_id: int, outcome: Outcome, connector_id: int = CONNECTOR_ID) -> None:
    """Commit the intent and record an outcome."""
    await record(rt, await begin(rt, delivery_id, connector_id), outcome, connector_id)


async def lease(rt: Runtime) -> None:
    """Take what is due, as its dispatcher would before anything starts."""
    await rt.store.hot.do(LEASE, [_Refill(f"c{CONNECTOR_ID}", [9, 9, 9], [-1, -1, -1], rt.clock.now_ms(), rt.slot)])


async def begin(rt: Runtime, delivery_id: int, connector_id: int = CONNECTOR_ID) -> Outgoing:
    """Commit the intent."""
    async with rt.store.read() as tx:
        delivery = tables.delivery.c
        attempt = (await tx.execute(select(delivery.attempt).where(delivery.id == delivery_id))).scalar_one()
    outgoing = make_outgoing(NUMBER, delivery_id=delivery_id, attempt=attempt)
    STARTED.update((await rt.store.hot.do(START, [_Intent(connector_id, [outgoing], rt.clock.now_ms())]))[0])
    return outgoing


async def record(rt: Runtime, outgoing: Outgoing, outcome: Outcome, connector_id: int = CONNECTOR_ID) -> None:
    row = STARTED.pop(outgoing.delivery_id, None)
    await rt.store.hot.do(RECORD, [_Done(rt, outgoing, connector_id, outcome, rt.clock.now_ms(), row)])


def report(key: str = "k1", state: State = State.DELIVERED, recipient: str = NUMBER) -> DeliveryReport:
    return DeliveryReport(CONNECTOR_ID, key, state, 0, "000", "", recipient)


def sent(*keys: str) -> Sent:
    return Sent(keys or ("k1",), keys or ("k1",))


async def state(rt: Runtime, delivery_id: int) -> tuple[str, str, str]:
    """(state, money, reason) of a delivery."""
    async with rt.store.read() as tx:
        row = (await tx.execute(select(tables.delivery).where(tables.delivery.c.id == delivery_id))).one()
    return row.state, row.money, row.reason


async def journal(rt: Runtime, delivery_id: int) -> list[str]:
    async with rt.store.read() as tx:
        found = await messages.find_delivery(tx, ACCOUNT_ID, "test", delivery_id)
        assert found is not None
        return [line.kind for line in (await messages.journals(tx, ACCOUNT_ID, found[:1]))[delivery_id]]


async def jobs(rt: Runtime) -> list[tuple[str, str, int]]:
    """(kind, lane, milliseconds until due) of every job."""
    async with rt.store.read() as tx:
        rows = await tx.execute(text("SELECT kind, lane, due_ms FROM job ORDER BY id"))
        return [(row[0], row[1], row[2] - rt.clock.now_ms()) for row in rows]


async def wallet(rt: Runtime) -> tuple[int, int, int]:
    async with rt.store.read() as tx:
        rows = await tx.execute(text("SELECT available_micros, held_micros, spent_micros FROM wallet"))
        return tuple(rows.one())  # type: ignore[return-value]


def with_price(rt: Runtime, charge_on: ChargeOn) -> None:
    prices = [PriceList(6, "test", CURRENCY, charge_on, [PriceRow("", PRICE_MICROS)])]
    rt.directory = replace(rt.directory, prices={(ACCOUNT_ID, "sms"): prices})


def with_policy(rt: Runtime, policy: UncertainPolicy) -> None:
    route = replace(rt.directory.routes[0], uncertain={1: policy})
    rt.directory = replace(rt.directory, routes=(route,), route_by_id={ROUTE_ID: route})


async def test_what_is_accepted_is_held_and_queued(rt: Runtime) -> None:
    delivery_id = await send(rt)
    assert await state(rt, delivery_id) == ("queued", "held", "")
    assert await wallet(rt) == (BALANCE_MICROS - PRICE_MICROS, PRICE_MICROS, 0)
    assert await jobs(rt) == [("dispatch", f"c{CONNECTOR_ID}", 0)]


async def test_a_delivery_goes_its_way_and_is_paid_once(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    assert await state(rt, delivery_id) == ("sent", "charged", "")
    assert await jobs(rt) == []
    await settle(rt, [report()])
    assert await state(rt, delivery_id) == ("delivered", "charged", "")
    assert await wallet(rt) == (BALANCE_MICROS - PRICE_MICROS, 0, PRICE_MICROS)
    assert await journal(rt, delivery_id) == ["sent", "delivered"]


@pytest.mark.parametrize(
    ("charge_on", "end", "money"),
    [
        (ChargeOn.SENT, State.DELIVERED, "charged"),
        (ChargeOn.SENT, State.UNDELIVERED, "charged"),
        (ChargeOn.SENT, State.EXPIRED, "charged"),
        (ChargeOn.DELIVERED, State.DELIVERED, "charged"),
        (ChargeOn.DELIVERED, State.UNDELIVERED, "released"),
        (ChargeOn.DELIVERED, State.EXPIRED, "released"),
        (ChargeOn.DELIVERED, State.REJECTED, "released"),
    ],
)
async def test_the_price_list_says_when_a_hold_becomes_a_charge(
    rt: Runtime, charge_on: ChargeOn, end: State, money: str
) -> None:
    with_price(rt, charge_on)
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    await settle(rt, [report(state=end)])
    assert (await state(rt, delivery_id))[:2] == (end.value, money)


async def test_a_receipt_that_comes_twice_changes_nothing(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    await settle(rt, [report(), report()])
    await settle(rt, [report(), report(state=State.UNDELIVERED)])
    assert await state(rt, delivery_id) == ("delivered", "charged", "")
    assert await wallet(rt) == (BALANCE_MICROS - PRICE_MICROS, 0, PRICE_MICROS)


async def test_a_receipt_repeated_after_a_restart_changes_nothing(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    await settle(rt, [report()])
    rt.recent_keys.clear()
    await settle(rt, [report(state=State.UNDELIVERED)])
    assert (await state(rt, delivery_id))[0] == "delivered"


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_receipt_is_settled_alike_whether_its_delivery_is_remembered_or_read(
    rt: Runtime, remembered: bool
) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    if not remembered:
        rt.sent.clear()
    await settle(rt, [report(state=State.SENT)])
    await settle(rt, [report(), report("k9")])
    assert (await state(rt, delivery_id))[:2] == ("delivered", "charged")
    assert (await journal(rt, delivery_id))[-2:] == ["report_ignored", "delivered"]
    assert rt.sent == {}


async def test_what_has_changed_since_it_was_sent_is_read_again(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    async with rt.store.transaction() as tx:
        await tx.execute(tables.delivery.update().values(state="expired", reason="no_receipt"))
    await settle(rt, [report(), report("k9")])
    assert await state(rt, delivery_id) == ("delivered", "charged", "")
    assert rt.parked == {CONNECTOR_ID: 1}


async def test_only_so_many_deliveries_are_remembered_and_the_others_are_settled_too(
    rt: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berid.flow.settle.SENT", 2)
    ids = [await send(rt) for _ in range(3)]
    for delivery_id in ids:
        await submit(rt, delivery_id, sent(f"k{delivery_id}"))
    assert [row.id for row in rt.sent.values()] == ids[1:]
    await settle(rt, [report(f"k{delivery_id}") for delivery_id in ids])
    assert {(await state(rt, delivery_id))[0] for delivery_id in ids} == {"delivered"}


async def test_only_so_many_settled_receipts_are_remembered(rt: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berid.flow.settle.RECENT", 2)
    for key in ("k1", "k2", "k3"):
        await submit(rt, await send(rt), sent(key))
        await settle(rt, [report(key)])
    assert list(rt.recent_keys) == [(CONNECTOR_ID, "k2"), (CONNECTOR_ID, "k3")]


async def test_what_is_parked_is_still_counted_when_a_record_came_to_nothing(
    rt: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery_id = await send(rt)
    outgoing = await begin(rt, delivery_id)
    await settle(rt, [report()])
    write = Changes.write

    async def fail(self: Changes, tx: HotTx) -> None:
        monkeypatch.setattr(Changes, "write", write)
        raise StoreAway("for a moment")

    monkeypatch.setattr(Changes, "write", fail)
    with pytest.raises(StoreAway):
        await record(rt, outgoing, sent())
    await record(rt, outgoing, sent())
    assert (await state(rt, delivery_id))[0] == "delivered"
    assert rt.parked == {CONNECTOR_ID: 0}


async def test_a_receipt_before_the_response_waits_for_it(rt: Runtime) -> None:
    delivery_id = await send(rt)
    outgoing = make_outgoing(NUMBER, delivery_id=delivery_id)
    await rt.store.hot.do(START, [_Intent(CONNECTOR_ID, [outgoing], rt.clock.now_ms())])
    await settle(rt, [report()])
    assert (await state(rt, delivery_id))[0] == "sending"
    await record(rt, outgoing, sent())
    assert (await state(rt, delivery_id))[:2] == ("delivered", "charged")
    assert rt.parked[CONNECTOR_ID] == 0


async def test_a_receipt_before_a_response_that_never_comes_settles_the_doubt(rt: Runtime) -> None:
    delivery_id = await send(rt)
    outgoing = make_outgoing(NUMBER, delivery_id=delivery_id)
    await rt.store.hot.do(START, [_Intent(CONNECTOR_ID, [outgoing], rt.clock.now_ms())])
    await settle(rt, [report()])
    await record(rt, outgoing, Uncertain("no_response"))
    assert (await state(rt, delivery_id))[:2] == ("delivered", "charged")
    assert await jobs(rt) == []


async def test_a_receipt_parked_before_the_message_was_accepted_is_not_its(rt: Runtime) -> None:
    await settle(rt, [report("old")])
    await rt.clock.advance(1)  # type: ignore[attr-defined]
    delivery_id = await send(rt)
    await submit(rt, delivery_id, Uncertain("no_response"))
    assert (await state(rt, delivery_id))[0] == "uncertain"


@pytest.mark.parametrize("first", [State.UNDELIVERED, State.EXPIRED])
async def test_a_late_receipt_lifts_what_had_failed(rt: Runtime, first: State) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    await settle(rt, [report(state=first)])
    await settle(rt, [report(state=State.DELIVERED)])
    assert (await state(rt, delivery_id))[0] == "delivered"


async def test_a_long_message_is_delivered_with_its_last_part(rt: Runtime) -> None:
    delivery_id = await send(rt, text="x" * 400)
    await submit(rt, delivery_id, sent("a", "b", "c"))
    await settle(rt, [report("a"), report("a"), report("b")])
    assert (await state(rt, delivery_id))[0] == "sent"
    await settle(rt, [report("c")])
    assert (await state(rt, delivery_id))[0] == "delivered"


async def test_one_failing_part_fails_a_long_message_and_the_others_do_not_lift_it(rt: Runtime) -> None:
    delivery_id = await send(rt, text="x" * 400)
    await submit(rt, delivery_id, sent("a", "b", "c"))
    await settle(rt, [report("a", State.UNDELIVERED), report("b"), report("c")])
    assert (await state(rt, delivery_id))[0] == "undelivered"


async def test_a_carriers_no_releases_the_money(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, Permanent("ESME_RINVDSTADR"))
    assert await state(rt, delivery_id) == ("rejected", "released", "ESME_RINVDSTADR")
    assert await wallet(rt) == (BALANCE_MICROS, 0, 0)
    assert await jobs(rt) == []


async def test_not_now_is_tried_again_later_and_later(rt: Runtime) -> None:
    delivery_id = await send(rt)
    waits = []
    for _ in range(3):
        await submit(rt, delivery_id, Temporary("ESME_RSYSERR"))
        ((kind, lane, wait_ms),) = await jobs(rt)
        assert (kind, lane) == ("dispatch", f"c{CONNECTOR_ID}")
        waits.append(wait_ms)
    assert (await state(rt, delivery_id))[:2] == ("queued", "held")
    assert 0 < waits[0] < waits[1] < waits[2]


async def test_what_cannot_be_sent_in_time_expires_and_costs_nothing(rt: Runtime) -> None:
    delivery_id = await send(rt, valid_s=1)
    await submit(rt, delivery_id, Temporary("ESME_RSYSERR"))
    await submit(rt, delivery_id, Temporary("ESME_RSYSERR"))
    assert (await state(rt, delivery_id))[:2] == ("expired", "released")
    assert await jobs(rt) == []


@pytest.mark.parametrize(
    ("policy", "after", "money", "kinds"),
    [
        (UncertainPolicy.WAIT, "uncertain", "held", ["resolve"]),
        (UncertainPolicy.RESEND, "queued", "held", ["dispatch"]),
        (UncertainPolicy.FAIL, "failed", "released", []),
    ],
)
async def test_a_submit_without_an_answer_follows_the_policy(
    rt: Runtime, policy: UncertainPolicy, after: str, money: str, kinds: list[str]
) -> None:
    with_policy(rt, policy)
    delivery_id = await send(rt)
    await submit(rt, delivery_id, Uncertain("no_response"))
    assert (await state(rt, delivery_id))[:2] == (after, money)
    assert [job[0] for job in await jobs(rt)] == kinds
    assert "uncertain" in await journal(rt, delivery_id)


async def test_what_was_to_be_sent_again_and_found_no_time_fails_as_uncertain(rt: Runtime) -> None:
    with_policy(rt, UncertainPolicy.RESEND)
    delivery_id = await send(rt, valid_s=60)
    await submit(rt, delivery_id, Uncertain("no_response"))
    await rt.clock.advance(120)  # type: ignore[attr-defined]
    await Sweeper(rt).once()
    assert await state(rt, delivery_id) == ("failed", "released", "uncertain")


async def test_a_receipt_for_an_unknown_id_settles_the_one_uncertain_delivery_to_its_recipient(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, Uncertain("no_response"))
    await settle(rt, [report("never-heard")])
    assert (await state(rt, delivery_id))[:2] == ("delivered", "charged")
    assert await jobs(rt) == []


@pytest.mark.parametrize(("charge_on", "money"), [(ChargeOn.SENT, "charged"), (ChargeOn.DELIVERED, "held")])
async def test_an_interim_receipt_says_that_the_carrier_has_an_uncertain_delivery(
    rt: Runtime, charge_on: ChargeOn, money: str
) -> None:
    with_price(rt, charge_on)
    delivery_id = await send(rt)
    await submit(rt, delivery_id, Uncertain("no_response"))
    await settle(rt, [report("late", State.SENT)])
    assert (await state(rt, delivery_id))[:2] == ("sent", money)
    assert await jobs(rt) == []
    await settle(rt, [report("late")])
    assert (await state(rt, delivery_id))[:2] == ("delivered", "charged")


async def test_with_two_uncertain_deliveries_to_a_recipient_no_guess_is_made(rt: Runtime) -> None:
    both = [await send(rt), await send(rt)]
    for delivery_id in both:
        await submit(rt, delivery_id, Uncertain("no_response"))
    await settle(rt, [report("never-heard")])
    assert [(await state(rt, delivery_id))[0] for delivery_id in both] == ["uncertain", "uncertain"]


async def test_an_uncertain_delivery_fails_when_its_validity_ends_without_a_receipt(rt: Runtime) -> None:
    delivery_id = await send(rt, valid_s=60)
    await submit(rt, delivery_id, Uncertain("no_response"))
    await rt.clock.advance(61)  # type: ignore[attr-defined]
    await Sweeper(rt).once()
    assert (await state(rt, delivery_id))[:2] == ("failed", "released")
    assert await jobs(rt) == []


async def test_what_was_sending_when_its_process_ended_is_uncertain(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await lease(rt)
    await rt.store.hot.do(
        START, [_Intent(CONNECTOR_ID, [make_outgoing(NUMBER, delivery_id=delivery_id)], rt.clock.now_ms())]
    )
    assert await recover_connector(rt, CONNECTOR_ID) == 1
    assert await recover_connector(rt, CONNECTOR_ID) == 0
    assert (await state(rt, delivery_id))[0] == "uncertain"


async def test_a_sent_delivery_without_a_receipt_expires_after_three_days_and_stays_paid(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    sweeper = Sweeper(rt)
    await rt.clock.advance(rt.config.validity.no_receipt_s - 60)  # type: ignore[attr-defined]
    await sweeper.once()
    assert (await state(rt, delivery_id))[0] == "sent"
    await rt.clock.advance(121)  # type: ignore[attr-defined]
    await sweeper.once()
    assert await state(rt, delivery_id) == ("expired", "charged", "no_receipt")


async def test_a_delivery_that_waits_past_its_validity_expires_unsent(rt: Runtime) -> None:
    delivery_id = await send(rt, valid_s=30)
    await rt.clock.advance(120)  # type: ignore[attr-defined]
    await Sweeper(rt).once()
    assert await state(rt, delivery_id) == ("expired", "released", "not_sent_in_time")


async def test_a_long_queue_is_looked_through_a_page_in_each_round(
    rt: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berid.store.jobs.LOOKED_AT", 2)
    ids = [await send(rt, valid_s=valid_s) for valid_s in (30, 3600, 30, 30, 30)]
    await rt.clock.advance(120)  # type: ignore[attr-defined]
    sweeper = Sweeper(rt)
    seen = []
    for _ in range(4):
        await sweeper.once()
        seen.append([(await state(rt, each))[0] for each in ids].count("expired"))
    assert seen == [1, 3, 4, 4]
    await rt.clock.advance(3600)  # type: ignore[attr-defined]
    await sweeper.once()
    assert (await state(rt, ids[1]))[0] == "expired", "the next walk begins at the beginning"


async def test_a_lease_that_has_run_out_is_given_back(rt: Runtime) -> None:
    await send(rt)
    await lease(rt)
    async with rt.store.transaction() as tx:
        alive_ms = rt.clock.now_ms() + HOUR_MS
        await tx.execute(tables.process.insert().values(slot=9, name="other", alive_until_ms=alive_ms))
        await tx.execute(tables.job.update().values(lease_until_ms=rt.clock.now_ms() + 1000, slot=9))
    sweeper = Sweeper(rt)
    await sweeper.once()
    async with rt.store.read() as tx:
        assert (await tx.execute(select(tables.job.c.slot))).scalar_one() == 9
    await rt.clock.advance(2)  # type: ignore[attr-defined]
    await sweeper.once()
    async with rt.store.read() as tx:
        assert (await tx.execute(select(tables.job.c.slot))).scalar_one() == 0


async def test_what_is_final_is_not_started_again(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    await settle(rt, [report()])
    intent = _Intent(CONNECTOR_ID, [make_outgoing(NUMBER, delivery_id=delivery_id)], rt.clock.now_ms())
    assert await rt.store.hot.do(START, [intent]) == [{}]


async def test_an_outcome_of_an_old_attempt_is_left_alone(rt: Runtime) -> None:
    delivery_id = await send(rt)
    await submit(rt, delivery_id, sent())
    await record(rt, make_outgoing(NUMBER, delivery_id=delivery_id), Permanent("ESME_RSUBMITFAIL"))
    assert (await state(rt, delivery_id))[:2] == ("sent", "charged")


@pytest.mark.parametrize("outcome", [Sent(("old",), ("old",)), Temporary("link_down"), Uncertain("no_response")])
async def test_outcome_of_a_process_that_was_taken_for_dead_leaves_the_next_attempt_alone(
    rt: Runtime, outcome: Outcome
) -> None:
    with_policy(rt, UncertainPolicy.RESEND)
    delivery_id = await send(rt)
    await lease(rt)
    first = await begin(rt, delivery_id)
    theirs = STARTED.pop(delivery_id)
    await recover_connector(rt, CONNECTOR_ID)
    second = await begin(rt, delivery_id)
    ours, STARTED[delivery_id] = STARTED[delivery_id], theirs
    await record(rt, first, outcome)
    STARTED[delivery_id] = ours
    assert (await state(rt, delivery_id))[0] == "sending"
    await record(rt, second, sent())
    assert (await state(rt, delivery_id))[:2] == ("sent", "charged")


async def test_schedules_that_came_due_in_a_long_absence_are_held(rt: Runtime) -> None:
    now_ms = rt.clock.now_ms()
    late = await send(rt, due_ms=now_ms + HOUR_MS)
    recent = await send(rt, due_ms=now_ms + 9 * HOUR_MS - 60_000)
    coming = await send(rt, due_ms=now_ms + 20 * HOUR_MS)
    await rt.clock.advance(9 * 3600)  # type: ignore[attr-defined]
    assert await hold_late_schedules(rt, now_ms) == 1
    assert await state(rt, late) == ("held", "held", "late_schedule")
    assert (await state(rt, recent))[0] == (await state(rt, coming))[0] == "scheduled"


async def test_a_short_absence_holds_nothing(rt: Runtime) -> None:
    now_ms = rt.clock.now_ms()
    await send(rt, due_ms=now_ms + 1000)
    await rt.clock.advance(600)  # type: ignore[attr-defined]
    assert await hold_late_schedules(rt, now_ms) == 0


async def test_what_waited_in_a_restored_backup_is_held_once(rt: Runtime) -> None:
    now_ms = rt.clock.now_ms()
    queued = await send(rt)
    planned = await send(rt, due_ms=now_ms + HOUR_MS)
    coming = await send(rt, due_ms=now_ms + 20 * HOUR_MS)
    shut = await send(rt, due_ms=now_ms + HOUR_MS)
    await ask(rt.config.database_url, "UPDATE delivery SET state = 'held', reason = 'quiet_hours' WHERE id = $1", shut)
    assert await hold_restored(rt) == 0
    await rt.clock.advance(9 * 3600)  # type: ignore[attr-defined]
    await ask(
        rt.config.database_url,
        "INSERT INTO meta (key, value) VALUES ('backup_ms', $1), ('restored_ms', $2)",
        str(now_ms),
        str(rt.clock.now_ms()),
    )
    assert await hold_restored(rt) == 3
    for delivery_id in (queued, planned, shut):
        assert await state(rt, delivery_id) == ("held", "held", "restored")
    assert (await state(rt, coming))[0] == "scheduled"
    fresh = await send(rt)
    assert await hold_restored(rt) == 0
    assert (await state(rt, fresh))[0] == "queued"


async def test_a_route_of_one_prefix_takes_its_own_numbers_of_a_list_and_no_others(rt: Runtime) -> None:
    route = replace(rt.directory.routes[0], prefixes=("96655",))
    rt.directory = replace(rt.directory, routes=(route,))
    others, own = ["966501234567", "966501234568"], ["966551234567", "966551234568"]
    asked = make_submission(others[0], own[0], others[1], own[1], allows_partial=True)
    accepted = await accept(rt, make_caller(rt), asked)
    assert [each.recipient for each in accepted.deliveries] == own
    assert [(number, refusal.kind) for number, refusal in accepted.refused] == [
        (number, RefusalKind.NO_ROUTE) for number in others
    ]


async def test_the_last_coin_is_spent_once(rt: Runtime) -> None:
    async with rt.store.transaction() as tx:
        await tx.execute(tables.wallet.update().values(available_micros=3 * PRICE_MICROS))
        await tx.execute(tables.ledger_entry.update().values(amount_micros=3 * PRICE_MICROS))
    asked = [accept(rt, make_caller(rt), make_submission(NUMBER)) for _ in range(20)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refusals = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(answers) - len(refusals) == 3
    assert {refusal.refusals[0].kind for refusal in refusals} == {RefusalKind.BALANCE_ZERO}
    assert await wallet(rt) == (0, 3 * PRICE_MICROS, 0)


async def test_one_idempotency_key_sends_once_however_often_it_is_asked(rt: Runtime) -> None:
    submission = make_submission(NUMBER, idempotency=("key", "hash"))
    answers = await asyncio.gather(*(accept(rt, make_caller(rt), submission) for _ in range(100)))
    assert len({answer.message_id for answer in answers}) == 1
    assert sum(not answer.is_replay for answer in answers) == 1
    assert await wallet(rt) == (BALANCE_MICROS - PRICE_MICROS, PRICE_MICROS, 0)
    with pytest.raises(Refused) as refusal:
        await accept(rt, make_caller(rt), make_submission(NUMBER, idempotency=("key", "other")))
    assert refusal.value.refusals[0].kind is RefusalKind.IDEMPOTENCY_CONFLICT
