"""What both drivers of the hot path promise, statement by statement, and what `HotStore` promises on top of them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from berid.base.clock import SystemClock
from berid.base.ids import SLOTS
from berid.domain.otp import Recent
from berid.store import hot_postgres, hot_sqlite, sqlite_path, writer
from berid.store.hot import (
    HOT_COLUMNS,
    HotDriver,
    HotStore,
    HotTx,
    LeasedJob,
    RowRefused,
    StoreAway,
    StoreConflict,
    Tracked,
    Verb,
)
from berid.store.hot_postgres import PostgresDriver
from berid.store.hot_sqlite import SqliteDriver
from tests.contract.conftest import open_driver
from tests.support.database import FAR_MS, ask, make_tables, row
from tests.support.fault_proxy import Cut, FaultProxy

NOW_MS = 1_800_000_000_000


@asynccontextmanager
async def committed(driver: HotDriver[Any]) -> AsyncIterator[HotTx]:
    """A transaction that is committed at the end of the block, and undone if it raises."""
    tx = driver.begin()
    try:
        yield tx
        await driver.commit(tx)
    except BaseException:
        await driver.rollback(tx)
        raise


async def put(driver: HotDriver[Any], table: str, *rows: tuple[Any, ...]) -> None:
    """Insert rows in a transaction of their own."""
    async with committed(driver) as tx:
        await tx.insert(table, rows)


async def put_message(
    driver: HotDriver[Any], message_id: int, deliveries: Sequence[tuple[Any, ...]], **values: Any
) -> None:
    """Insert a message with its deliveries."""
    ids = [delivery[0] for delivery in deliveries]
    message = row("message", id=message_id, first_id=min(ids), last_id=max(ids), total=len(ids), **values)
    async with committed(driver) as tx:
        await tx.insert("message", [message])
        await tx.insert("delivery", deliveries)


async def put_wallets(url: str, *ids: int) -> None:
    """Make wallets with 1000 micros available and a credit limit of 50."""
    for wallet_id in ids:
        await ask(
            url,
            "INSERT INTO wallet (id, account_id, available_micros, credit_limit_micros) VALUES ($1, $1, 1000, 50)",
            wallet_id,
        )


# The statements.


INSERTED = [
    row("message", id=1, account_id=7, body="Merhaba dünya ş €", priority=2, options='{"a": 1}', due_ms=NOW_MS),
    row("message", id=2, body="مرحبا", body_kind="sealed"),
]


async def test_inserted_rows_are_read_back_as_they_were(driver: HotDriver[Any], store_url: str) -> None:
    await put(driver, "message", *INSERTED)
    found = await ask(store_url, f"SELECT {', '.join(HOT_COLUMNS['message'])} FROM message ORDER BY id")
    assert found == INSERTED


async def test_every_hot_table_takes_rows(driver: HotDriver[Any], store_url: str) -> None:
    rows = {table: row(table) for table in HOT_COLUMNS}
    async with committed(driver) as tx:
        for table, one in rows.items():
            await tx.insert(table, [one])
    for table, one in rows.items():
        columns = ", ".join(f'"{column}"' for column in HOT_COLUMNS[table])
        assert await ask(store_url, f"SELECT {columns} FROM {table}") == [one]


async def test_no_rows_are_no_work(driver: HotDriver[Any], store_url: str) -> None:
    async with committed(driver) as tx:
        await tx.insert("message", [])
        await tx.move_money([])
        await tx.change([])
        await tx.forget_keys(1, [])
        await tx.erase_bodies([])
        await tx.jobs_done([])
        await tx.jobs_again([])
        await tx.jobs_bury([])
        assert await tx.wallets([]) == {}
        await tx.add_spent({})
        assert await tx.spent([], 0) == {}
        assert await tx.idempotent([]) == {}
        assert await tx.start_sending([], 1, NOW_MS) == {}
        assert await tx.tracked([]) == []
        assert await tx.tracked_by_key(1, []) == []
        assert await tx.uncertain(1, []) == []
        assert await tx.take_parked(1, []) == []
        assert await tx.outgoing([]) == []
        assert await tx.callbacks([]) == []
        assert await tx.drop_loading([], 1) == []
        await tx.open_messages([])
        assert await tx.take_parts([]) == []
        assert await tx.lease("c1", 1, 0, NOW_MS, NOW_MS + 1, 0, -1) == []


async def test_rows_of_several_inserts_in_one_transaction_are_all_there(driver: HotDriver[Any], store_url: str) -> None:
    async with committed(driver) as tx:
        await tx.insert("event", [row("event", delivery_id=1, id=1)])
        await tx.insert("event", [row("event", delivery_id=1, id=2)])
    assert await ask(store_url, "SELECT id FROM event ORDER BY id") == [(1,), (2,)]


async def test_used_idempotency_keys_are_found_with_their_answers(driver: HotDriver[Any]) -> None:
    await put(
        driver,
        "idempotency",
        row("idempotency", application_id=1, key="a", body_hash="h1", answer="one"),
        row("idempotency", application_id=1, key="b", body_hash="h2", answer="two"),
        row("idempotency", application_id=2, key="c", body_hash="h3", answer="three"),
    )
    async with committed(driver) as tx:
        found = await tx.idempotent({(1, "a"), (1, "c"), (2, "c"), (9, "z")})
    assert found == {(1, "a"): ("h1", "one"), (2, "c"): ("h3", "three")}


@pytest.mark.parametrize("are_together", [True, False])
async def test_second_row_of_a_key_is_refused_and_names_no_value(
    driver: HotDriver[Any], store_url: str, are_together: bool
) -> None:
    first, second = (row("idempotency", application_id=1, key="s3cret", answer=answer) for answer in ("one", "two"))
    if not are_together:
        await put(driver, "idempotency", first)
    with pytest.raises(RowRefused) as caught:
        await put(driver, "idempotency", *([first, second] if are_together else [second]))
    assert "s3cret" not in str(caught.value)
    assert await ask(store_url, "SELECT answer FROM idempotency") == ([] if are_together else [("one",)])


async def test_wallets_tell_what_is_available_and_the_credit_limit(driver: HotDriver[Any], store_url: str) -> None:
    await put_wallets(store_url, 1, 2)
    async with committed(driver) as tx:
        assert await tx.wallets([2, 1, 99, 2]) == {1: (1000, 50), 2: (1000, 50)}


async def test_money_moves_by_the_sum_of_all_changes(driver: HotDriver[Any], store_url: str) -> None:
    await put_wallets(store_url, 1, 2)
    async with committed(driver) as tx:
        await tx.move_money([(-10, 10, 0, 2), (-5, 5, 0, 1), (-1, 1, 0, 2)])
        assert await tx.wallets([1, 2]) == {1: (995, 50), 2: (989, 50)}
        await tx.move_money([(0, -11, 11, 2)])
    found = await ask(store_url, "SELECT id, available_micros, held_micros, spent_micros FROM wallet ORDER BY id")
    assert found == [(1, 995, 5, 0), (2, 989, 0, 11)]


async def test_only_what_waits_and_is_still_valid_starts_sending(driver: HotDriver[Any], store_url: str) -> None:
    cases = {
        "queued": row("delivery", message_id=9, state="queued", attempt=2, connector_id=8),
        "scheduled": row("delivery", message_id=9, state="scheduled"),
        "cancelled": row("delivery", message_id=9, state="cancelled"),
        "held": row("delivery", message_id=9, state="held", reason="late_schedule"),
        "quiet": row("delivery", message_id=9, state="held", reason="quiet_hours"),
        "sending": row("delivery", message_id=9, state="sending", attempt=1, connector_id=8),
        "expired": row("delivery", message_id=9, state="queued", expires_ms=NOW_MS),
    }
    await put_message(driver, 9, list(cases.values()))
    ids = {name: delivery[0] for name, delivery in cases.items()}
    async with committed(driver) as tx:
        started = await tx.start_sending([*ids.values(), 999_999], 5, NOW_MS)
    assert set(started) == {ids["queued"], ids["scheduled"], ids["quiet"]}
    assert {(one.state, one.connector_id) for one in started.values()} == {("sending", 5)}
    rows = {
        found[0]: found[1:] for found in await ask(store_url, "SELECT id, state, attempt, connector_id FROM delivery")
    }
    assert rows[ids["queued"]] == ("sending", 3, 5)
    assert rows[ids["scheduled"]] == ("sending", 1, 5)
    assert rows[ids["cancelled"]] == ("cancelled", 0, 0)
    assert rows[ids["held"]] == ("held", 0, 0)
    assert rows[ids["sending"]] == ("sending", 1, 8)
    assert rows[ids["expired"]] == ("queued", 0, 0)


async def test_what_is_known_starts_without_being_read(driver: HotDriver[Any], store_url: str) -> None:
    rows = {
        "new": row("delivery", id=1, message_id=9),
        "later": row("delivery", id=2, message_id=9, expires_ms=NOW_MS + 7),
        "tried": row("delivery", id=3, message_id=9, attempt=1),
        "cancelled": row("delivery", id=4, message_id=9, state="cancelled"),
        "expired": row("delivery", id=5, message_id=9, expires_ms=NOW_MS),
        "read": row("delivery", id=6, message_id=9),
    }
    await put_message(driver, 9, list(rows.values()))
    async with committed(driver) as tx:
        all_of_them = {one.id: one for one in await tx.tracked([1, 2, 3, 4, 5, 6])}
    known = {number: one for number, one in all_of_them.items() if number < 6}
    for one in known.values():
        one.recipient, one.expires_ms = "as it is remembered", FAR_MS
    async with committed(driver) as tx:
        started = await tx.start_sending([1, 2, 3, 4, 5, 6], 5, NOW_MS, known)
    assert {number: (one.recipient, one.expires_ms) for number, one in started.items()} == {
        1: ("as it is remembered", FAR_MS),
        2: ("as it is remembered", NOW_MS + 7),
        6: (all_of_them[6].recipient, FAR_MS),
    }
    assert started[1] is known[1]
    found = await ask(store_url, "SELECT id, state, attempt, connector_id FROM delivery ORDER BY id")
    assert found == [
        (1, "sending", 1, 5),
        (2, "sending", 1, 5),
        (3, "queued", 1, 0),
        (4, "cancelled", 0, 0),
        (5, "queued", 0, 0),
        (6, "sending", 1, 5),
    ]
    async with committed(driver) as tx:
        assert await tx.start_sending([1, 4], 5, NOW_MS, {1: known[1], 4: known[4]}) == {}


async def test_tracked_delivery_carries_its_own_and_its_messages_facts(driver: HotDriver[Any]) -> None:
    mine = row("delivery", id=11, message_id=10, account_id=7, recipient="1555", state="sent", units=2, price_micros=9,
               wallet_id=3, carrier_ids="x,y", parts_left=2, attempt=1, connector_id=4, route_id=6, sent_ms=5)  # fmt: skip
    other = row("delivery", id=13, message_id=12)
    await put_message(driver, 10, [mine], account_id=7, application_id=8, sender="Berid", category="otp", parts=2,
                      priority=0, reference="r", options="{}", body_kind="sealed", dialect="native", created_ms=3)  # fmt: skip
    await put_message(driver, 12, [other])
    async with committed(driver) as tx:
        found = await tx.tracked([11, 13, 11, 999_999])
    assert sorted(one.id for one in found) == [11, 13]
    assert next(one for one in found if one.id == 11) == Tracked(
        id=11, message_id=10, account_id=7, recipient="1555", state="sent", reason="", units=2, price_micros=9, wallet_id=3,
        charge_on="sent", money="held", route_id=6, connector_id=4, attempt=1, parts_left=2, carrier_ids="x,y", sent_ms=5,
        final_ms=0, expires_ms=FAR_MS, report_ms=0, report_code="", application_id=8, mode="live", channel="sms",
        dialect="native", sender="Berid", category="otp", priority=0, parts=2, reference="r", options="{}", body_kind="sealed",
        total=1, created_ms=3,
    )  # fmt: skip


async def test_delivery_is_tracked_by_the_keys_of_its_parts_on_one_connector(driver: HotDriver[Any]) -> None:
    await put_message(driver, 20, [row("delivery", id=21, message_id=20), row("delivery", id=22, message_id=20)])
    await put(
        driver,
        "carrier_ref",
        row("carrier_ref", connector_id=3, key="a", delivery_id=21, part=0),
        row("carrier_ref", connector_id=3, key="b", delivery_id=21, part=1),
        row("carrier_ref", connector_id=3, key="c", delivery_id=22, part=0),
        row("carrier_ref", connector_id=4, key="b", delivery_id=22, part=7),
    )
    async with committed(driver) as tx:
        found = await tx.tracked_by_key(3, ["b", "a", "none", "b"])
        assert sorted((one.id, one.key, one.part) for one in found) == [(21, "a", 0), (21, "b", 1)]
        await tx.forget_keys(3, ["a", "none"])
        assert [one.key for one in await tx.tracked_by_key(3, ["a", "b"])] == ["b"]
        assert [one.id for one in await tx.tracked_by_key(4, ["b"])] == [22]


async def test_parts_are_taken_by_what_they_share(driver: HotDriver[Any]) -> None:
    rows = [
        (connector_id, sender, "5050", reference, number, 2, "body", NOW_MS)
        for connector_id, sender, reference in ((1, "a", 7), (1, "a", 8), (1, "b", 7), (2, "a", 7))
        for number in (1, 2)
    ]
    async with committed(driver) as tx:
        await tx.insert("inbound_part", rows)
    async with committed(driver) as tx:
        taken = await tx.take_parts([(1, "a", "5050", 7), (2, "a", "5050", 7), (3, "a", "5050", 7)])
        assert sorted(taken) == [row for row in rows if row[:4] in {(1, "a", "5050", 7), (2, "a", "5050", 7)}]
        assert await tx.take_parts([(1, "a", "5050", 7)]) == []
        assert len(await tx.take_parts([(1, "a", "5050", 8), (1, "b", "5050", 7)])) == 4


async def test_rows_of_an_earlier_verb_are_seen_by_a_later_one(driver: HotDriver[Any]) -> None:
    async with committed(driver) as tx:
        await tx.insert("message", [row("message", id=30, first_id=31, last_id=31)])
        await tx.insert("delivery", [row("delivery", id=31, message_id=30)])
        await tx.insert("job", [row("job", id=31)])
        await tx.insert("carrier_ref", [row("carrier_ref", connector_id=1, key="k", delivery_id=31)])
        await tx.insert("parked_report", [row("parked_report", connector_id=1, key="k", report="r")])
        await tx.insert("callback", [row("callback", id=32, payload="p", bundle_id=32, bundled=1)])
        await tx.insert("idempotency", [row("idempotency", application_id=1, key="i")])
        assert [one.id for one in await tx.tracked_by_key(1, ["k"])] == [31]
        assert await tx.take_parked(1, ["k"]) == [("k", "r")]
        assert [one[4] for one in await tx.callbacks([32])] == ["p"]
        assert list(await tx.idempotent([(1, "i")])) == [(1, "i")]
        started = await tx.start_sending([31], 1, NOW_MS)
        assert [one[14] for one in await tx.outgoing([31])] == ["sending"]
        assert [(one.id, one.message_id, one.state, one.attempt) for one in started.values()] == [
            (31, 30, "sending", 1)
        ]
        assert [one.state for one in await tx.tracked([31])] == ["sending"]
        assert [job.id for job in await tx.lease("c1", 1, 5, NOW_MS, NOW_MS + 1, 0, -1)] == [31]


async def test_change_is_seen_by_whatever_reads_the_delivery_later(driver: HotDriver[Any], store_url: str) -> None:
    await put_message(driver, 30, [row("delivery", id=number, message_id=30) for number in (31, 32)])
    await put(driver, "carrier_ref", row("carrier_ref", connector_id=0, key="k", delivery_id=31))
    async with committed(driver) as tx:

        async def change(state: str) -> None:
            (one,) = await tx.tracked([31])
            one.state = state
            await tx.change([one])

        await change("uncertain")
        assert [one.id for one in await tx.uncertain(0, ["1555"])] == [31]
        await change("sent")
        assert [one.state for one in await tx.tracked_by_key(0, ["k"])] == ["sent"]
        await change("expired")
        assert [one[14] for one in await tx.outgoing([31])] == ["expired"]
        started = await tx.start_sending([31, 32], 1, NOW_MS)
        await change("failed")
        await change("delivered")
    assert list(started) == [32]
    assert await ask(store_url, "SELECT state FROM delivery ORDER BY id") == [("delivered",), ("sending",)]


async def test_what_changes_twice_in_a_transaction_is_as_the_last_change_says(
    driver: HotDriver[Any], store_url: str
) -> None:
    await put(driver, "job", *(row("job", id=number) for number in (1, 2, 3)))
    await put(driver, "carrier_ref", row("carrier_ref", connector_id=1, key="a", delivery_id=1))
    async with committed(driver) as tx:
        await tx.jobs_again([("dispatch", "c2", NOW_MS, 1, number) for number in (1, 2, 3)])
        await tx.jobs_bury([(NOW_MS, "why", 1)])
        await tx.jobs_done([2])
        await tx.insert("job", [row("job", id=4)])
        await tx.jobs_done([4])
        await tx.forget_keys(1, ["a"])
        await tx.insert("carrier_ref", [row("carrier_ref", connector_id=1, key="a", delivery_id=2)])
        await tx.insert("carrier_ref", [row("carrier_ref", connector_id=1, key="b", delivery_id=2)])
        await tx.forget_keys(1, ["b"])
    assert await ask(store_url, "SELECT id, lane, buried_ms FROM job ORDER BY id") == [(1, "c2", NOW_MS), (3, "c2", 0)]
    assert await ask(store_url, "SELECT key, delivery_id FROM carrier_ref") == [("a", 2)]


async def test_lease_heeds_what_the_same_transaction_did_to_jobs(driver: HotDriver[Any]) -> None:
    await put(driver, "job", *(row("job", id=number) for number in (1, 2)))
    async with committed(driver) as tx:
        await tx.insert("job", [row("job", id=3), row("job", id=4, lease_until_ms=NOW_MS + 1)])
        assert [job.id for job in await tx.lease("c1", 1, 2, NOW_MS, NOW_MS + 1, 0, -1)] == [1, 2]
        await tx.jobs_done([3])
        await tx.jobs_again([("dispatch", "c1", 0, 1, 2)])
        assert [job.id for job in await tx.lease("c1", 1, 9, NOW_MS, NOW_MS + 1, 0, -1)] == [2]


async def test_many_rows_at_once_are_all_there(driver: HotDriver[Any], store_url: str) -> None:
    count = 600
    async with committed(driver) as tx:
        for table in HOT_COLUMNS:
            await tx.insert(table, [row(table, **_keys(table, number)) for number in range(count)])
        await tx.jobs_done(range(0, count, 2))
    for table in HOT_COLUMNS:
        assert await ask(store_url, f"SELECT count(*) FROM {table}") == [(count // 2 if table == "job" else count,)]


def _keys(table: str, number: int) -> dict[str, Any]:
    """What makes a row of a table different from the others."""
    for column in ("id", "key", "number"):
        if column in HOT_COLUMNS[table]:
            return {column: str(number) if column == "key" else number}
    raise AssertionError(table)


async def test_uncertain_deliveries_are_found_by_connector_and_recipient(driver: HotDriver[Any]) -> None:
    rows = [
        row("delivery", id=41, message_id=40, connector_id=3, recipient="1"),
        row("delivery", id=42, message_id=40, connector_id=3, recipient="2"),
        row("delivery", id=43, message_id=40, connector_id=3, recipient="1"),
        row("delivery", id=44, message_id=40, connector_id=4, recipient="1"),
        row("delivery", id=45, message_id=40, connector_id=3, recipient="1"),
    ]
    await put_message(driver, 40, rows)

    async def become(state: str, *ids: int) -> None:
        changed = await tx.tracked(ids)
        for one in changed:
            one.state = state
        await tx.change(changed)

    async with committed(driver) as tx:
        await become("uncertain", 41, 42, 43, 44)
        await become("sent", 45)
        assert sorted(one.id for one in await tx.uncertain(3, ["1", "1", "9"])) == [41, 43]
    async with committed(driver) as tx:
        await become("delivered", 43)
        assert [one.id for one in await tx.uncertain(3, ["1"])] == [41]


async def test_changes_are_written_back(driver: HotDriver[Any], store_url: str) -> None:
    await put_message(driver, 50, [row("delivery", id=number, message_id=50) for number in (51, 52, 53)])
    async with committed(driver) as tx:
        first, second = sorted(await tx.tracked([51, 52]), key=lambda one: one.id)
        first.state, first.reason, first.money, first.connector_id = "sent", "why", "charged", 4
        first.parts_left, first.carrier_ids = 2, "x,y"
        first.sent_ms, first.final_ms, first.expires_ms = 7, 8, 9
        first.report_ms, first.report_code = 10, "000"
        second.state = "expired"
        await tx.change([second, first])
    found = await ask(
        store_url,
        "SELECT id, state, reason, money, connector_id, parts_left, carrier_ids, sent_ms, final_ms, expires_ms, report_ms, "
        "report_code FROM delivery ORDER BY id",
    )
    assert found == [
        (51, "sent", "why", "charged", 4, 2, "x,y", 7, 8, 9, 10, "000"),
        (52, "expired", "", "held", 0, 0, "", 0, 0, FAR_MS, 0, ""),
        (53, "queued", "", "held", 0, 0, "", 0, 0, FAR_MS, 0, ""),
    ]


@pytest.mark.parametrize(
    "since", ["UPDATE delivery SET state = 'expired'", "UPDATE delivery SET attempt = attempt + 1"]
)
async def test_what_is_no_longer_as_it_was_left_is_not_changed(
    driver: HotDriver[Any], store_url: str, since: str
) -> None:
    await put_message(driver, 55, [row("delivery", id=56, message_id=55), row("delivery", id=57, message_id=55)])
    async with committed(driver) as tx:
        started = await tx.start_sending([56, 57], 1, NOW_MS)
    first, second = started[56], started[57]
    for remembered in (first, second):
        remembered.left_as, remembered.state = remembered.state, "sent"
    async with committed(driver) as tx:
        await tx.change([first])
    await ask(store_url, f"{since} WHERE id = 57")
    with pytest.raises(StoreConflict):
        async with committed(driver) as tx:
            await tx.change([second])
    assert await ask(store_url, "SELECT id FROM delivery WHERE state = 'sent'") == [(56,)]


async def test_parked_reports_are_taken_once_in_the_order_they_came(driver: HotDriver[Any]) -> None:
    await put(
        driver,
        "parked_report",
        row("parked_report", id=3, connector_id=1, key="a", report="third"),
        row("parked_report", id=1, connector_id=1, key="b", report="first"),
        row("parked_report", id=2, connector_id=1, key="a", report="second"),
        row("parked_report", id=4, connector_id=2, key="a", report="of another connector"),
    )
    async with committed(driver) as tx:
        assert await tx.take_parked(1, ["a", "b"]) == [("b", "first"), ("a", "second"), ("a", "third")]
        assert await tx.take_parked(1, ["a", "b"]) == []
        assert await tx.take_parked(2, ["a"]) == [("a", "of another connector")]


@pytest.mark.parametrize(
    ("body_kind", "final_ms", "expected"),
    [
        ("sealed", (5, 5), ("", "erased")),
        ("sealed", (5, 0), ("secret", "sealed")),
        ("text", (5, 5), ("secret", "text")),
    ],
)
async def test_sealed_body_is_erased_when_all_its_deliveries_are_final(
    driver: HotDriver[Any], store_url: str, body_kind: str, final_ms: tuple[int, int], expected: tuple[str, str]
) -> None:
    first, last = final_ms
    rows = [row("delivery", id=61, message_id=60, final_ms=first), row("delivery", id=63, message_id=60, final_ms=last)]
    await put_message(driver, 60, rows, body="secret", body_kind=body_kind)
    # Another message's delivery lies between, and is not final.
    await put_message(driver, 70, [row("delivery", id=62, message_id=70)], body="other", body_kind="sealed")
    async with committed(driver) as tx:
        await tx.erase_bodies([60])
    found = await ask(store_url, "SELECT body, body_kind FROM message ORDER BY id")
    assert found == [expected, ("other", "sealed")]


async def test_outgoing_tells_all_that_a_connector_needs_in_the_order_asked(driver: HotDriver[Any]) -> None:
    rows = [row("delivery", id=number, message_id=80, account_id=7, recipient=f"r{number}", expires_ms=9, attempt=2,
                route_id=6) for number in (81, 82)]  # fmt: skip
    await put_message(driver, 80, rows, priority=2, sender="Berid", body="b", alphabet="gsm", parts=3, dialect="smpp")
    async with committed(driver) as tx:
        found = await tx.outgoing([82, 81, 999_999])
    assert found == [
        (number, 80, 7, 2, "Berid", f"r{number}", "b", "text", "gsm", 3, 9, 2, 6, "smpp", "queued", 0, "", "", "")
        for number in (82, 81)
    ]


async def test_callbacks_are_given_bundle_by_bundle_in_the_order_asked(driver: HotDriver[Any]) -> None:
    bundles = {91: (91, 3), 91 + SLOTS: (91, 0), 91 + 2 * SLOTS: (91, 0), 92: (92, 1), 93: (93, 2), 93 + SLOTS: (93, 0)}
    rows = [row("callback", id=number, account_id=1, endpoint_id=2, delivery_id=3, event="e", payload=f"p{number}",
                created_ms=4, bundle_id=first, bundled=count) for number, (first, count) in bundles.items()]  # fmt: skip
    await put(driver, "callback", *rows)
    async with committed(driver) as tx:
        assert await tx.callbacks([92, 91, 5]) == [
            (92, 2, 1, "e", "p92", 4, 92),
            *((number, 2, 1, "e", f"p{number}", 4, 91) for number in (91, 91 + SLOTS, 91 + 2 * SLOTS)),
        ]


# Requests that are loaded page by page.


async def test_only_loading_messages_are_opened(driver: HotDriver[Any], store_url: str) -> None:
    states = {1: "loading", 2: "cancelled", 3: "loading"}
    await put(driver, "message", *(row("message", id=number, state=state) for number, state in states.items()))
    async with committed(driver) as tx:
        await tx.open_messages([1, 2, 99])
    assert await ask(store_url, "SELECT id, state FROM message ORDER BY id") == [
        (1, "open"),
        (2, "cancelled"),
        (3, "loading"),
    ]


async def test_what_days_have_cost_adds_up_by_wallet_day_and_application(driver: HotDriver[Any]) -> None:
    async with committed(driver) as tx:
        await tx.add_spent({(1, 100, 7): 50, (1, 101, 7): 20, (1, 101, 8): 3, (2, 101, 7): 9})
        await tx.add_spent({(1, 101, 7): -5})
        assert await tx.spent([1], 101) == {(1, 101, 7): 15, (1, 101, 8): 3}
    async with committed(driver) as tx:
        await tx.add_spent({(1, 101, 7): 1})
    async with committed(driver) as tx:
        assert await tx.spent([1, 2], 100) == {(1, 100, 7): 50, (1, 101, 7): 16, (1, 101, 8): 3, (2, 101, 7): 9}


async def test_codes_are_counted_by_application_number_and_purpose(driver: HotDriver[Any], store_url: str) -> None:
    mine = {"application_id": 3, "recipient": "1", "purpose": "p"}
    await put(
        driver,
        "otp",
        row("otp", **mine, created_ms=100),
        row("otp", **mine, created_ms=200),
        row("otp", **mine, created_ms=300),
        row("otp", **mine, created_ms=250, state="verified"),
        row("otp", **mine | {"recipient": "2"}, created_ms=500),
    )
    await ask(store_url, "UPDATE otp SET checks_used = 2 WHERE created_ms IN (200, 300)")
    async with committed(driver) as tx:
        places = [(3, "1", "p"), (3, "2", "p"), (3, "1", "another"), (4, "1", "p")]
        found = await tx.codes(places, 100)
        assert found == {(3, "1", "p"): Recent(3, 4, 200), (3, "2", "p"): Recent(1, 0, 500)}
        await tx.insert("otp", [row("otp", **mine, created_ms=600)])
        assert (await tx.codes(places[:1], 100))[3, "1", "p"].sends == 4


async def test_newer_code_ends_only_the_open_ones_before_it(driver: HotDriver[Any], store_url: str) -> None:
    mine = {"application_id": 3, "recipient": "1", "purpose": "p"}
    await put(
        driver,
        "otp",
        row("otp", id=1, **mine),
        row("otp", id=2, **mine, state="verified"),
        row("otp", id=3, **mine | {"purpose": "another"}),
        row("otp", id=4, **mine),
        row("otp", id=5, **mine),
    )
    async with committed(driver) as tx:
        await tx.replace_codes([(3, "1", "p", 5)])
    found = await ask(store_url, "SELECT id, state FROM otp ORDER BY id")
    assert found == [(1, "replaced"), (2, "verified"), (3, "open"), (4, "replaced"), (5, "open")]


async def test_dropped_loading_message_leaves_nothing_and_names_its_holds(
    driver: HotDriver[Any], store_url: str
) -> None:
    await put_message(
        driver,
        10,
        [row("delivery", id=11, message_id=10), row("delivery", id=14, message_id=10)],
        state="loading",
        application_id=8,
        created_ms=9,
    )
    await put_message(driver, 12, [row("delivery", id=13, message_id=12)], state="open")
    hold = {"wallet_id": 5, "account_id": 7, "message_id": 10}
    await put(
        driver,
        "ledger_entry",
        row("ledger_entry", id=15, kind="hold", amount_micros=30, deliveries=2, **hold),
        row("ledger_entry", id=16, kind="adjust", amount_micros=1, **hold),
        row("ledger_entry", id=17, kind="hold", amount_micros=2, wallet_id=5, message_id=12),
        row("ledger_entry", id=900, kind="hold", amount_micros=4, **hold),
    )
    async with committed(driver) as tx:
        assert await tx.drop_loading([10, 12, 99], 500) == [(5, 7, 30, 10, 2, 8, 9)]
        assert await tx.drop_loading([10], 500) == []
    assert await ask(store_url, "SELECT id FROM message") == [(12,)]
    assert await ask(store_url, "SELECT id FROM delivery") == [(13,)]


async def test_spreading_makes_the_jobs_of_waiting_deliveries_page_by_page(
    driver: HotDriver[Any], store_url: str
) -> None:
    states = {21: "queued", 22: "cancelled", 24: "scheduled", 25: "queued", 26: "queued"}
    deliveries = [
        row("delivery", id=number, message_id=20, account_id=7, state=state, connector_id=number % 2)
        for number, state in states.items()
    ]
    await put_message(driver, 20, deliveries, priority=2)
    await put_message(driver, 30, [row("delivery", id=23, message_id=30)])
    await put(driver, "job", row("job", id=25, kind="resolve", lane="clock"))
    seen = [0]
    while True:
        async with committed(driver) as tx:
            last = await tx.spread(20, seen[-1], 2, NOW_MS)
        if not last:
            break
        seen.append(last)
    assert seen == [0, 22, 25, 26]
    found = await ask(
        store_url, "SELECT id, kind, lane, priority, account_id, due_ms, lease_until_ms FROM job ORDER BY id"
    )
    assert found == [
        (21, "dispatch", "c1", 2, 7, NOW_MS, 0),
        (24, "dispatch", "c0", 2, 7, NOW_MS, 0),
        (25, "resolve", "clock", 1, 1, 0, 0),
        (26, "dispatch", "c0", 2, 7, NOW_MS, 0),
    ]


# Leases.


async def lease(driver: HotDriver[Any], room: int, after_account: int = -1, **values: Any) -> list[LeasedJob]:
    """Lease jobs of lane c1, priority 1, until a minute from now."""
    asked = {"lane": "c1", "priority": 1, "now_ms": NOW_MS, "until_ms": NOW_MS + 60_000, "slot": 3} | values
    async with committed(driver) as tx:
        return await tx.lease(room=room, after_account=after_account, **asked)


def jobs(account_id: int, first: int, count: int, **values: Any) -> list[tuple[Any, ...]]:
    """Jobs with ids from `first` on, the later one due later."""
    return [
        row("job", id=number, account_id=account_id, due_ms=NOW_MS - 20_000 + number - first, **values)
        for number in range(first, first + count)
    ]


async def test_small_account_is_not_kept_waiting_by_a_large_one(driver: HotDriver[Any]) -> None:
    await put(driver, "job", *jobs(1, 100_000, 10_000), *jobs(2, 500, 10))
    found = await lease(driver, 100)
    assert [job.id for job in found if job.account_id == 2] == list(range(500, 510))
    assert [job.id for job in found if job.account_id == 1] == list(range(100_000, 100_090)), (
        "the rest is not left idle"
    )


@pytest.mark.parametrize(
    ("counts", "room", "expected"),
    [
        ([5, 5, 5], 15, [5, 5, 5]),
        ([9, 9, 9], 9, [3, 3, 3]),
        ([50, 50, 1], 31, [15, 15, 1]),
        ([1, 50, 1, 30], 40, [1, 19, 1, 19]),
        ([3, 2, 1], 100, [3, 2, 1]),
        ([1, 1, 1, 1], 2, [1, 1, 0, 0]),
    ],
)
async def test_room_is_shared_evenly_and_filled(
    driver: HotDriver[Any], counts: list[int], room: int, expected: list[int]
) -> None:
    for account_id, count in enumerate(counts):
        await put(driver, "job", *jobs(account_id, 1_000 * (account_id + 1), count))
    found = await lease(driver, room)
    assert len(found) == sum(expected)
    assert len({job.id for job in found}) == len(found)
    given = [sum(job.account_id == account_id for job in found) for account_id in range(len(counts))]
    assert all(abs(one - other) <= 1 for one, other in zip(given, expected, strict=True)), given


async def test_jobs_of_an_account_are_leased_in_the_order_they_are_due(driver: HotDriver[Any]) -> None:
    await put(driver, "job", row("job", id=1, due_ms=30), row("job", id=2, due_ms=10), row("job", id=3, due_ms=10))
    assert [job.id for job in await lease(driver, 2)] == [2, 3]


async def test_only_due_free_jobs_of_the_lane_and_priority_are_leased(driver: HotDriver[Any]) -> None:
    await put(
        driver,
        "job",
        row("job", id=1, due_ms=NOW_MS, attempts=4),
        row("job", id=2, due_ms=NOW_MS + 1),
        row("job", id=3, lease_until_ms=NOW_MS + 5),
        row("job", id=4, lane="c2"),
        row("job", id=5, priority=0),
        row("job", id=6),
    )
    async with committed(driver) as tx:
        await tx.jobs_bury([(NOW_MS, "nobody answers", 6)])
    assert await lease(driver, 10) == [LeasedJob(1, "dispatch", "c1", 1, 1, NOW_MS, 4)]


async def test_lease_names_its_holder_and_its_end_and_counts_the_attempt(
    driver: HotDriver[Any], store_url: str
) -> None:
    await put(driver, "job", row("job", id=1, attempts=4))
    await lease(driver, 10)
    assert await ask(store_url, "SELECT lease_until_ms, slot, attempts FROM job") == [(NOW_MS + 60_000, 3, 5)]
    assert await lease(driver, 10) == []


async def test_round_goes_on_behind_the_account_it_was_left_at(driver: HotDriver[Any]) -> None:
    for account_id in range(5):
        await put(driver, "job", *jobs(account_id, 1_000 * (account_id + 1), 3))
    seen = []
    cursor = -1
    for _ in range(6):
        found = await lease(driver, 2, after_account=cursor)
        cursor = found[-1].account_id
        seen.append([job.account_id for job in found])
    assert seen == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4], [0, 1]]


async def test_accounts_with_future_jobs_only_take_no_share_from_the_others(driver: HotDriver[Any]) -> None:
    future = [row("job", account_id=account_id, due_ms=FAR_MS) for account_id in range(50)]
    await put(driver, "job", *future, *jobs(99, 100_000, 20))
    assert [job.account_id for job in await lease(driver, 10)] == [99] * 10


async def test_finished_jobs_are_gone(driver: HotDriver[Any], store_url: str) -> None:
    await put(driver, "job", row("job", id=1), row("job", id=2), row("job", id=3))
    async with committed(driver) as tx:
        await tx.jobs_done([1, 3, 99])
    assert await ask(store_url, "SELECT id FROM job") == [(2,)]


async def test_job_given_back_can_be_leased_again_in_its_new_lane(driver: HotDriver[Any]) -> None:
    await put(driver, "job", row("job", id=1), row("job", id=2))
    assert len(await lease(driver, 10)) == 2
    async with committed(driver) as tx:
        await tx.jobs_again([("resolve", "c9", NOW_MS - 1, 1, 2), ("dispatch", "c1", NOW_MS + 1, 0, 1)])
        await tx.jobs_again([("dispatch", "c1", NOW_MS - 5, 7, 1)])
    assert await lease(driver, 10) == [LeasedJob(1, "dispatch", "c1", 1, 1, NOW_MS - 5, 7)]
    assert await lease(driver, 10, lane="c9") == [LeasedJob(2, "resolve", "c9", 1, 1, NOW_MS - 1, 1)]


async def test_buried_job_keeps_the_reason_and_loses_its_lease(driver: HotDriver[Any], store_url: str) -> None:
    await put(driver, "job", row("job", id=1), row("job", id=2))
    await lease(driver, 1)
    async with committed(driver) as tx:
        await tx.jobs_bury([(NOW_MS, "gone", 1)])
    found = await ask(store_url, "SELECT id, buried_ms, why, lease_until_ms, slot FROM job ORDER BY id")
    assert found == [(1, NOW_MS, "gone", 0, 0), (2, 0, "", 0, 0)]


# Transactions.


async def test_nothing_of_a_transaction_that_is_undone_remains(driver: HotDriver[Any], store_url: str) -> None:
    await put_wallets(store_url, 1)
    tx = driver.begin()
    await tx.insert("event", [row("event", delivery_id=1, id=1)])
    await tx.move_money([(-1, 1, 0, 1)])
    await driver.rollback(tx)
    await put(driver, "event", row("event", delivery_id=1, id=2))
    assert await ask(store_url, "SELECT id FROM event") == [(2,)]
    assert await ask(store_url, "SELECT available_micros FROM wallet") == [(1000,)]


async def test_undoing_twice_does_no_harm(driver: HotDriver[Any]) -> None:
    tx = driver.begin()
    await tx.wallets([1])
    await driver.rollback(tx)
    await driver.rollback(tx)
    await put(driver, "event", row("event"))


# HotStore.


@pytest.fixture
async def commits() -> list[int]:
    """Sizes of the commits that `store` made."""
    return []


@pytest.fixture
async def store(driver: HotDriver[Any], commits: list[int]) -> AsyncIterator[HotStore]:
    """A running `HotStore` on `driver`."""
    started = HotStore(driver, SystemClock(), observe=lambda operations, _seconds: commits.append(operations))
    started.start()
    yield started
    await started.stop()


async def _write(tx: HotTx, items: list[Any]) -> list[Any]:
    """Write one event an item; an item may be an exception, which is its result, or "bug", or a row that is refused."""
    if "bug" in items:
        raise ZeroDivisionError("a bug")
    await tx.insert("event", [row("event", delivery_id=1, id=item) for item in items if isinstance(item, int)])
    return [item if isinstance(item, Exception) else f"wrote {item}" for item in items]


WRITE: Verb[Any, str] = Verb("write", 10, _write)


async def events(url: str) -> list[int]:
    """The ids of the events that are on disk."""
    return [found[0] for found in await ask(url, "SELECT id FROM event ORDER BY id")]


async def test_work_is_on_disk_when_do_returns(store: HotStore, store_url: str) -> None:
    assert await store.do(WRITE, [1, 2]) == ["wrote 1", "wrote 2"]
    assert await events(store_url) == [1, 2]


async def test_callers_that_come_meanwhile_share_a_commit(store: HotStore, store_url: str, commits: list[int]) -> None:
    results = await asyncio.gather(*(store.do(WRITE, [number]) for number in range(500)))
    assert results == [[f"wrote {number}"] for number in range(500)]
    assert await events(store_url) == list(range(500))
    assert sum(commits) == 500
    assert len(commits) <= 3


async def test_group_is_no_larger_than_allowed(driver: HotDriver[Any], store_url: str) -> None:
    sizes: list[int] = []
    store = HotStore(driver, SystemClock(), group_max=10, observe=lambda count, _seconds: sizes.append(count))
    store.start()
    await asyncio.gather(*(store.do(WRITE, [number, number + 1000, number + 2000]) for number in range(10)))
    await store.stop()
    assert sizes == [9, 9, 9, 3]


async def test_exception_of_an_item_reaches_its_caller_only(store: HotStore, store_url: str) -> None:
    results = await asyncio.gather(
        store.do(WRITE, [1]), store.do(WRITE, [KeyError("mine")]), store.do(WRITE, [2]), return_exceptions=True
    )
    assert [results[0], results[2]] == [["wrote 1"], ["wrote 2"]]
    assert isinstance(results[1], KeyError)
    assert await events(store_url) == [1, 2]


async def test_do_each_gives_an_exception_in_its_items_place(store: HotStore, store_url: str) -> None:
    first, second, third = await store.do_each(WRITE, [1, KeyError("mine"), 3])
    assert (first, third) == ("wrote 1", "wrote 3")
    assert isinstance(second, KeyError)
    assert await events(store_url) == [1, 3]


@pytest.mark.parametrize("bad", ["bug", 7, 2**80, -(2**80)])
async def test_item_that_cannot_be_written_fails_alone(store: HotStore, store_url: str, bad: Any) -> None:
    await store.do(WRITE, [7])
    asks = [store.do(WRITE, [number]) for number in range(100, 140)]
    asks.insert(17, store.do(WRITE, [bad]))
    results = await asyncio.gather(*asks, return_exceptions=True)
    failure = results.pop(17)
    assert isinstance(failure, ZeroDivisionError if bad == "bug" else RowRefused if bad == 7 else Exception)
    assert not isinstance(failure, StoreAway)
    assert results == [[f"wrote {number}"] for number in range(100, 140)]
    assert await events(store_url) == [7, *range(100, 140)]


async def test_items_of_one_caller_are_divided_too(store: HotStore, store_url: str) -> None:
    await store.do(WRITE, [7])
    results = await store.do_each(WRITE, [1, 2, 7, 3])
    assert [results[0], results[1], results[3]] == ["wrote 1", "wrote 2", "wrote 3"]
    assert isinstance(results[2], RowRefused)
    with pytest.raises(RowRefused):
        await store.do(WRITE, [4, 7, 5])
    assert await events(store_url) == [1, 2, 3, 4, 5, 7]


async def test_verbs_of_a_group_run_in_the_order_of_their_ranks(store: HotStore) -> None:
    order: list[str] = []

    def verb(name: str, rank: int) -> Verb[int, None]:
        async def run(_tx: HotTx, items: list[int]) -> list[None]:
            order.append(name)
            return [None for _ in items]

        return Verb(name, rank, run)

    late, early, middle = verb("late", 3), verb("early", 1), verb("middle", 2)
    await asyncio.gather(*(store.do(one, [0]) for one in (late, early, middle, early)))
    assert order == ["early", "middle", "late"]


async def test_later_verb_of_a_group_sees_the_rows_of_an_earlier_one(store: HotStore, commits: list[int]) -> None:
    async def accept(tx: HotTx, ids: list[int]) -> list[None]:
        await tx.insert("job", [row("job", id=identifier) for identifier in ids])
        return [None for _ in ids]

    async def take(tx: HotTx, rooms: list[int]) -> list[list[int]]:
        return [[job.id for job in await tx.lease("c1", 1, room, NOW_MS, NOW_MS + 1, 0, -1)] for room in rooms]

    taken, _ = await asyncio.gather(
        store.do(Verb("take", 2, take), [5]),
        store.do(Verb("accept", 1, accept), [71, 72]),
    )
    assert taken == [[71, 72]]
    assert len(commits) == 1


async def test_verb_hears_whether_its_items_reached_the_disk(store: HotStore) -> None:
    heard: list[tuple[str, list[Any]]] = []
    verb = Verb(
        "told",
        10,
        _write,
        after=lambda items: heard.append(("after", list(items))),
        undo=lambda items: heard.append(("undo", list(items))),
    )
    results = await asyncio.gather(store.do(verb, [1]), store.do(verb, ["bug"]), return_exceptions=True)
    assert results[0] == ["wrote 1"]
    assert isinstance(results[1], ZeroDivisionError)
    assert heard[0] == ("undo", [1, "bug"])
    assert ("after", [1]) in heard
    assert ("undo", ["bug"]) in heard
    assert ("after", ["bug"]) not in heard


@pytest.mark.parametrize("fails", ["after", "undo"])
async def test_everyone_is_answered_although_a_verb_fails_at_what_follows(
    store: HotStore, store_url: str, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_items: list[Any]) -> None:
        raise KeyError("a fault of ours")

    faulty: Verb[Any, str] = Verb("faulty", 10, _write, **{fails: fail})
    asked = [store.do(faulty, [1]), store.do(WRITE, [2]), store.do(WRITE, ["bug"])]
    results = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    assert results[:2] == [["wrote 1"], ["wrote 2"]]
    assert isinstance(results[2], ZeroDivisionError)
    assert await store.do(WRITE, [3]) == ["wrote 3"]
    assert await events(store_url) == [1, 2, 3]
    assert "verb faulty" in caplog.text


async def test_caller_who_gives_up_harms_nobody(store: HotStore, store_url: str) -> None:
    asks = [asyncio.ensure_future(store.do(WRITE, [number])) for number in range(20)]
    await asyncio.sleep(0)
    for task in asks[::2]:
        task.cancel()
    results = await asyncio.gather(*asks, return_exceptions=True)
    assert results[1::2] == [[f"wrote {number}"] for number in range(1, 20, 2)]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert set(await events(store_url)) >= set(range(1, 20, 2))
    assert await store.do(WRITE, [100]) == ["wrote 100"]


async def test_stopping_serves_who_waits_and_turns_away_who_comes_later(driver: HotDriver[Any], store_url: str) -> None:
    store = HotStore(driver, SystemClock())
    store.start()
    asks = [asyncio.ensure_future(store.do(WRITE, [number])) for number in range(5)]
    await asyncio.sleep(0)
    await store.stop()
    assert [await one for one in asks] == [[f"wrote {number}"] for number in range(5)]
    with pytest.raises(StoreAway):
        await store.do(WRITE, [9])
    assert await events(store_url) == list(range(5))


@pytest.mark.parametrize("are_together", [True, False])
async def test_carrier_reference_that_exists_is_replaced(store: HotStore, store_url: str, are_together: bool) -> None:
    async def refer(tx: HotTx, rows: list[tuple[Any, ...]]) -> list[None]:
        await tx.insert("carrier_ref", rows)
        return [None for _ in rows]

    verb = Verb("refer", 1, refer)
    old = row("carrier_ref", connector_id=3, key="a", delivery_id=1, part=0, sent_ms=5)
    new = row("carrier_ref", connector_id=3, key="a", delivery_id=2, part=1, sent_ms=6)
    other = row("carrier_ref", connector_id=4, key="a", delivery_id=3)
    for rows in ([old, other, new],) if are_together else ([old, other], [new]):
        await store.do(verb, rows)
    found = await ask(store_url, "SELECT connector_id, key, delivery_id, part, sent_ms FROM carrier_ref ORDER BY 1")
    assert found == [new, other]


async def test_key_that_another_process_has_just_used_is_found_the_second_time(store: HotStore, store_url: str) -> None:
    tries = 0

    async def once(tx: HotTx, keys: list[str]) -> list[str]:
        nonlocal tries
        tries += 1
        used = await tx.idempotent([(1, key) for key in keys])
        if tries == 1:  # between our look and our write, another process is faster
            used = {}
        new = [key for key in keys if (1, key) not in used]
        await tx.insert("idempotency", [row("idempotency", application_id=1, key=key, answer="ours") for key in new])
        return [used[1, key][1] if (1, key) in used else "ours" for key in keys]

    await ask(store_url, "INSERT INTO idempotency (application_id, key, answer) VALUES (1, 'k', 'theirs')")
    assert await store.do(Verb("once", 1, once), ["k"]) == ["theirs"]
    assert await ask(store_url, "SELECT answer FROM idempotency") == [("theirs",)]


async def _spend(tx: HotTx, amounts: list[int]) -> list[str]:
    """Take what the wallet and its credit allow, and say what was left."""
    said = []
    ((left, credit),) = (await tx.wallets([1])).values()
    for amount in amounts:
        if amount <= left + credit:
            left -= amount
            await tx.move_money([(-amount, amount, 0, 1)])
        said.append(f"{left} left")
    return said


SPEND: Verb[int, str] = Verb("spend", 1, _spend)


@pytest.mark.parametrize(
    ("change", "amount", "expected"),
    [
        ("available_micros = 5", 100, "5 left"),
        ("available_micros = 5, credit_limit_micros = 95", 100, "-95 left"),
        ("credit_limit_micros = 0", 1000, "990 left"),
        ("available_micros = 2000", 1500, "500 left"),
    ],
)
async def test_wallet_that_another_process_has_changed_since_is_as_it_is_now(
    store: HotStore, store_url: str, change: str, amount: int, expected: str
) -> None:
    await put_wallets(store_url, 1)
    assert await store.do(SPEND, [4]) == ["996 left"]
    assert await store.do(SPEND, [6]) == ["990 left"]
    await ask(store_url, f"UPDATE wallet SET {change}")
    assert await store.do(SPEND, [amount]) == [expected]
    assert await ask(store_url, "SELECT available_micros FROM wallet") == [(int(expected.split()[0]),)]


async def test_limits_are_asked_of_a_wallet_that_nobody_else_can_spend_from(store: HotStore, store_url: str) -> None:
    await put_wallets(store_url, 1)

    async def run(tx: HotTx, amounts: list[int]) -> list[tuple[int, int]]:
        ((available, _),) = (await tx.wallets([1])).values()
        before = await tx.spent([1], 0)
        await tx.move_money([(-amount, amount, 0, 1) for amount in amounts])
        await tx.add_spent({(1, 9, 2): sum(amounts)})
        return [(available, sum(before.values())) for _ in amounts]

    verb = Verb("limited", 1, run)
    assert await store.do(verb, [1]) == [(1000, 0)]
    assert await store.do(verb, [2]) == [(999, 1)]
    await ask(store_url, "UPDATE wallet SET available_micros = 500")
    assert await store.do(verb, [3]) == [(500, 3)]
    assert await ask(store_url, "SELECT available_micros FROM wallet") == [(497,)]


@pytest.mark.parametrize("inserts", [True, False])
async def test_key_that_another_process_used_is_found_whatever_this_one_believes(
    store: HotStore, store_url: str, inserts: bool
) -> None:
    async def once(tx: HotTx, keys: list[str]) -> list[str]:
        used = await tx.idempotent([(1, key) for key in keys])
        if inserts:
            new = [key for key in keys if (1, key) not in used]
            await tx.insert("idempotency", [row("idempotency", application_id=1, key=key) for key in new])
        return [used[1, key][1] if (1, key) in used else "new" for key in keys]

    verb = Verb("once", 1, once)
    assert await store.do(verb, ["a", "b"]) == ["new", "new"]
    await ask(store_url, "INSERT INTO idempotency (application_id, key, answer) VALUES (1, 'k', 'theirs')")
    assert await store.do(verb, ["c", "k"]) == ["new", "theirs"]
    assert await store.do(verb, ["k"]) == ["theirs"]


# HotStore decides a group while the one before is being committed.


class Gate:
    """Holds a driver's commits up; `fail` makes the next one that passes fail."""

    def __init__(self, driver: HotDriver[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit = driver.commit
        self._passes = asyncio.Semaphore(0)
        self.waiting = 0
        self.fails = 0
        monkeypatch.setattr(driver, "commit", self._pass)

    async def _pass(self, tx: Any) -> None:
        self.waiting += 1
        await self._passes.acquire()
        self.waiting -= 1
        if self.fails:
            self.fails -= 1
            raise StoreAway("for a moment")
        await self._commit(tx)

    def let(self, commits: int = 1) -> None:
        """Let so many pass."""
        for _ in range(commits):
            self._passes.release()

    async def holds(self) -> None:
        """Until a commit waits."""
        while not self.waiting:
            await asyncio.sleep(0)


@pytest.fixture
def gate(driver: HotDriver[Any], store: HotStore, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Holds the commits of `store` up."""
    return Gate(driver, monkeypatch)


async def _turns() -> None:
    """Let everyone who can do something do it."""
    for _ in range(20):
        await asyncio.sleep(0)


def _noting(name: str, seen: list[Any]) -> Verb[Any, str]:
    async def run(tx: HotTx, items: list[Any]) -> list[Any]:
        seen.append(list(items))
        return await _write(tx, items)

    return Verb(name, 10, run, undo=lambda items: seen.append(("undo", list(items))))


async def test_what_comes_while_a_group_is_being_committed_is_decided_meanwhile(
    store: HotStore, store_url: str, gate: Gate
) -> None:
    seen: list[Any] = []
    verb = _noting("noted", seen)
    first = asyncio.ensure_future(store.do(verb, [1]))
    await gate.holds()
    behind = [asyncio.ensure_future(store.do(verb, [number])) for number in (2, 3)]
    await _turns()
    later = asyncio.ensure_future(store.do(verb, [4]))
    await _turns()
    assert seen == [[1], [2, 3], [4]]
    assert await events(store_url) == []
    gate.let(2)
    assert [await one for one in (first, *behind, later)] == [[f"wrote {number}"] for number in range(1, 5)]
    assert await events(store_url) == [1, 2, 3, 4]


async def test_what_was_decided_behind_a_group_that_came_to_nothing_is_decided_again(
    store: HotStore, store_url: str, gate: Gate
) -> None:
    seen: list[Any] = []
    verb = _noting("noted", seen)
    first = asyncio.ensure_future(store.do(verb, [1]))
    await gate.holds()
    behind = asyncio.ensure_future(store.do(verb, [2]))
    await _turns()
    gate.fails = 1
    gate.let(2)
    with pytest.raises(StoreAway):
        await first
    assert await behind == ["wrote 2"]
    assert seen == [[1], [2], ("undo", [1]), ("undo", [2]), [2]]
    assert await events(store_url) == [2]


async def test_large_group_is_handed_over_behind_another_and_done_again_if_that_comes_to_nothing(
    store: HotStore, store_url: str, gate: Gate, commits: list[int]
) -> None:
    await ask(store_url, "INSERT INTO event (delivery_id, id) VALUES (1, 7)")
    first = asyncio.ensure_future(store.do_each(WRITE, [7, 8]))
    await gate.holds()
    behind = asyncio.ensure_future(store.do(WRITE, list(range(100, 300))))
    await _turns()
    later = asyncio.ensure_future(store.do(WRITE, list(range(300, 500))))
    await _turns()
    assert gate.waiting == 2  # and no third
    gate.let(100)
    refused, written = await first
    assert isinstance(refused, RowRefused)
    assert written == "wrote 8"
    assert len(await behind) == len(await later) == 200
    assert await events(store_url) == [7, 8, *range(100, 500)]
    assert sum(commits) == 401


async def test_money_that_a_group_ahead_takes_is_there_again_when_that_comes_to_nothing(
    store: HotStore, store_url: str, gate: Gate
) -> None:
    await put_wallets(store_url, 1)
    gate.let(1)
    assert await store.do(SPEND, [1]) == ["999 left"]  # from here on it is believed
    first = asyncio.ensure_future(store.do(SPEND, [900]))
    await gate.holds()
    behind = asyncio.ensure_future(store.do(SPEND, [500]))
    await _turns()
    gate.fails = 1
    gate.let(2)
    with pytest.raises(StoreAway):
        await first
    assert await behind == ["499 left"]
    assert await ask(store_url, "SELECT available_micros, held_micros FROM wallet") == [(499, 501)]


async def test_money_that_a_group_ahead_takes_is_not_there_for_the_next(
    store: HotStore, store_url: str, gate: Gate
) -> None:
    await put_wallets(store_url, 1)
    gate.let(1)
    assert await store.do(SPEND, [1]) == ["999 left"]
    first = asyncio.ensure_future(store.do(SPEND, [900]))
    await gate.holds()
    behind = [asyncio.ensure_future(store.do(SPEND, [amount])) for amount in (500, 149)]
    await _turns()
    gate.let(2)
    assert [await one for one in (first, *behind)] == [["99 left"], ["99 left"], ["-50 left"]]
    assert await ask(store_url, "SELECT available_micros, held_micros FROM wallet") == [(-50, 1050)]


async def test_key_that_a_group_ahead_uses_is_found_by_the_next_if_that_comes_to_something(
    store: HotStore, gate: Gate
) -> None:
    async def once(tx: HotTx, keys: list[str]) -> list[str]:
        used = await tx.idempotent([(1, key) for key in keys])
        new = [key for key in keys if (1, key) not in used]
        await tx.insert("idempotency", [row("idempotency", application_id=1, key=key, answer="first") for key in new])
        return [used[1, key][1] if (1, key) in used else "new" for key in keys]

    verb = Verb("once", 1, once)
    for fails, key, expected in ((0, "a", "first"), (1, "b", "new")):
        first = asyncio.ensure_future(store.do(verb, [key]))
        await gate.holds()
        behind = asyncio.ensure_future(store.do(verb, [key]))
        await _turns()
        gate.fails = fails
        gate.let(2)
        await asyncio.wait([first])
        assert await behind == [expected]


async def test_group_that_must_read_waits_for_the_one_ahead_and_sees_its_rows(store: HotStore, gate: Gate) -> None:
    async def look(tx: HotTx, ids: list[int]) -> list[int]:
        return [len(await tx.tracked([identifier])) for identifier in ids]

    async def accept(tx: HotTx, ids: list[int]) -> list[None]:
        await tx.insert("message", [row("message", id=9)])
        await tx.insert("delivery", [row("delivery", id=identifier, message_id=9) for identifier in ids])
        return [None for _ in ids]

    first = asyncio.ensure_future(store.do(Verb("accept", 1, accept), [5]))
    await gate.holds()
    behind = asyncio.ensure_future(store.do(Verb("look", 2, look), [5, 6]))
    gate.let(2)
    await first
    assert await behind == [1, 0]


# SQLite: the file is the only thing that can be away.


@pytest.fixture
async def sqlite_url(tmp_path: Any) -> str:
    """A SQLite database with all tables."""
    url = f"sqlite:///{tmp_path}/berid.db"
    await make_tables(url)
    return url


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[tuple[HotStore, HotDriver[Any]]]:
    """A running `HotStore` and its driver."""
    driver = open_driver(url)
    store = HotStore(driver, SystemClock())
    store.start()
    try:
        yield store, driver
    finally:
        await store.stop()


async def test_file_locked_by_another_process_is_away_until_it_lets_go(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_sqlite, "LOCK_TRIES", 2)
    other = sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)
    async with serving(sqlite_url) as (store, _):
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(*(store.do(WRITE, [number]) for number in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [StoreAway] * 3
        other.execute("ROLLBACK")
        assert await store.do(WRITE, [5]) == ["wrote 5"]
    other.close()
    assert await events(sqlite_url) == [5]


async def test_full_disk_is_away_with_nothing_half_written_until_there_is_room(sqlite_url: str) -> None:
    async def much(tx: HotTx, items: list[int]) -> list[None]:
        for item in items:
            await tx.insert("event", [row("event", delivery_id=2, id=item)])
            await tx.insert("message", [row("message", id=item, body="x" * 100_000)])
        return [None for _ in items]

    verb = Verb("much", 1, much)
    async with serving(sqlite_url) as (store, driver):

        async def pragma(words: str) -> int:  # the limit is the connection's own
            assert isinstance(driver, SqliteDriver)
            (((found,),),) = await (await driver.connect()).run(2**60, [(writer.ONE, f"PRAGMA {words}", (), -1)], True)
            return int(found)

        await pragma(f"max_page_count = {await pragma('page_count') + 30}")
        await store.do(verb, [1])
        results = await asyncio.gather(*(store.do(verb, [number]) for number in range(2, 5)), return_exceptions=True)
        assert [type(result) for result in results] == [StoreAway] * 3
        assert await events(sqlite_url) == [1]
        assert await ask(sqlite_url, "SELECT id FROM message") == [(1,)]
        await pragma("max_page_count = 1000000")
        await store.do(verb, [2])
    assert await events(sqlite_url) == [1, 2]


async def test_folder_that_is_not_there_is_away(tmp_path: Any) -> None:
    with pytest.raises(StoreAway):
        await SqliteDriver(tmp_path / "absent" / "berid.db").connect()


# PostgreSQL: the server may be away, full, read-only, or at work for others.


@pytest.fixture
async def server_url(postgres_url: str) -> str:
    """A PostgreSQL database with all tables."""
    await make_tables(postgres_url)
    return postgres_url


KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'berid'"
)


@pytest.mark.postgres
async def test_connection_that_was_cut_while_idle_is_replaced_unnoticed(server_url: str) -> None:
    async with serving(server_url) as (store, _):
        await store.do(WRITE, [1])
        assert await ask(server_url, KILL) == [(True,)]
        assert await store.do(WRITE, [2]) == ["wrote 2"]
    assert await events(server_url) == [1, 2]


@pytest.mark.postgres
async def test_connection_cut_in_a_group_writes_nothing_and_work_goes_on(server_url: str) -> None:
    async def die(tx: HotTx, items: list[int]) -> list[None]:
        await tx.insert("delivery", [row("delivery", id=item) for item in items])
        await tx.tracked(items)  # writes what was kept
        await ask(server_url, KILL)
        await tx.tracked(items)
        return [None for _ in items]

    async with serving(server_url) as (store, _):
        results = await asyncio.gather(
            store.do(Verb("die", 20, die), [1]), store.do(WRITE, [1]), return_exceptions=True
        )
        assert [type(result) for result in results] == [StoreAway] * 2
        assert await events(server_url) == []
        assert await ask(server_url, "SELECT id FROM delivery") == []
        assert await store.do(WRITE, [2]) == ["wrote 2"]


@asynccontextmanager
async def through_proxy(url: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """A proxy before the server, and the URL of the database through it."""
    async with asyncio.timeout(60):
        address = await _address(url)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opening = (
                asyncio.open_unix_connection(address) if isinstance(address, str) else asyncio.open_connection(*address)
            )
            carried.add(task := asyncio.current_task())
            try:
                inner_reader, inner_writer = await opening
                ways = _pipe(reader, inner_writer), _pipe(inner_reader, writer)
                await asyncio.gather(*ways, return_exceptions=True)
                for one in (writer, inner_writer):
                    one.close()
                    with contextlib.suppress(OSError):
                        await one.wait_closed()
            finally:
                carried.discard(task)

        carried: set[asyncio.Task[None] | None] = set()
        bridge = await asyncio.start_server(carry, "127.0.0.1", 0)
        port = bridge.sockets[0].getsockname()[1]
        async with FaultProxy("127.0.0.1", port) as proxy:
            database = url.partition("?")[0].rpartition("/")[2]
            yield proxy, f"postgresql://postgres@127.0.0.1:{proxy.port}/{database}?sslmode=disable"
        bridge.close()
        while carried:
            await asyncio.sleep(0.01)


async def _address(url: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return connection._addr
    finally:
        await connection.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def _prepared(proxy_action: Any) -> Verb[int, str]:
    """A verb that writes all it has to write, and then disturbs the line: the commit is what is disturbed."""

    async def run(tx: HotTx, items: list[int]) -> list[str]:
        await tx.insert("delivery", [row("delivery", id=item) for item in items])
        await tx.tracked(items)
        proxy_action()
        return [f"wrote {item}" for item in items]

    return Verb("prepared", 1, run)


@pytest.mark.postgres
@pytest.mark.parametrize("how", list(Cut))
async def test_commit_whose_answer_is_lost_is_found_to_have_happened(server_url: str, how: Cut) -> None:
    async with through_proxy(server_url) as (proxy, url), serving(url) as (store, _):
        verb = _prepared(lambda: proxy.to_client.cut_after(1, how))
        assert await store.do(verb, [1]) == ["wrote 1"]
        assert await ask(server_url, "SELECT id FROM delivery") == [(1,)]
        assert proxy.connections_made == 2


@pytest.mark.postgres
async def test_commit_that_never_reached_the_server_is_found_not_to_have_happened(server_url: str) -> None:
    async with through_proxy(server_url) as (proxy, url), serving(url) as (store, _):
        verb = _prepared(lambda: proxy.to_target.cut_after(1))
        with pytest.raises(StoreAway):
            await store.do(verb, [1])
        assert await ask(server_url, "SELECT id FROM delivery") == []
        assert await store.do(_prepared(lambda: None), [2]) == ["wrote 2"]


@pytest.mark.postgres
async def test_commit_that_the_server_is_still_at_is_waited_for(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_postgres, "DOUBT_S", 60.0)
    connection = await asyncpg.connect(server_url)
    await connection.execute(
        """
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            WHILE NOT pg_try_advisory_xact_lock(1) LOOP PERFORM pg_sleep(0.01); END LOOP;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON delivery DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION slow();
        SELECT pg_advisory_lock(1);
        """
    )
    async with through_proxy(server_url) as (proxy, url), serving(url) as (store, _):
        commit_bytes = len(b"Q\0\0\0\0COMMIT\0")
        verb = _prepared(lambda: proxy.to_target.cut_after(commit_bytes, Cut.CLOSE))
        asked = asyncio.ensure_future(store.do(verb, [1]))
        look = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_stat_activity WHERE pid =%')"
        while not await connection.fetchval(look):
            await asyncio.sleep(0.01)
        assert await ask(server_url, "SELECT id FROM delivery") == []
        await connection.execute("SELECT pg_advisory_unlock(1)")
        assert await asked == ["wrote 1"]
        assert await ask(server_url, "SELECT id FROM delivery") == [(1,)]
    await connection.close()


@pytest.mark.postgres
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("has_reached_the_server", [True, False])
async def test_intent_whose_commit_was_not_answered_is_found_too(
    server_url: str, has_reached_the_server: bool, is_known: bool
) -> None:
    await ask(server_url, "INSERT INTO message (id) VALUES (2)")
    for number in (1, 3, 4):
        await ask(
            server_url,
            "INSERT INTO delivery (id, message_id, state, expires_ms) VALUES ($1, 2, $2, $3)",
            number,
            "cancelled" if number == 3 else "queued",
            FAR_MS,
        )
    driver = PostgresDriver(server_url)
    async with committed(driver) as tx:
        known = {one.id: one for one in await tx.tracked([1, 3, 4])}
    await driver.close()
    for one in known.values():
        one.state, one.attempt = "sending", 1
    async with through_proxy(server_url) as (proxy, url), serving(url) as (store, _):

        async def start(tx: HotTx, ids: list[int]) -> list[dict[int, Tracked]]:
            started = await tx.start_sending(ids, 1, NOW_MS, {each: known[each] for each in ids if is_known})
            return [started for _ in ids]

        verb = Verb("start", 1, start)
        assert list((await store.do(verb, [1]))[0]) == [
            1
        ]  # the server knows the statement now: the next bytes are its own
        (proxy.to_client if has_reached_the_server else proxy.to_target).cut_after(1)
        (started, _) = await store.do(verb, [3, 4])
        assert [(one.id, one.state, one.attempt) for one in started.values()] == [(4, "sending", 1)]
        assert proxy.connections_made == 2


@pytest.mark.postgres
async def test_commit_in_doubt_stays_open_when_the_server_does_not_come_back(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_postgres, "DOUBT_S", 0.3)
    async with through_proxy(server_url) as (proxy, url), serving(url) as (store, _):

        async def run(tx: HotTx, items: list[int]) -> list[None]:
            await tx.insert("delivery", [row("delivery", id=item) for item in items])
            await tx.tracked(items)
            await proxy.refuse()
            proxy.to_client.cut_after(1)
            return [None for _ in items]

        with pytest.raises(StoreAway, match="during a commit"):
            await store.do(Verb("run", 1, run), [1])
        with pytest.raises(StoreAway, match="cannot be reached"):
            await store.do(WRITE, [1])
        await proxy.heal()
        assert await store.do(WRITE, [2]) == ["wrote 2"]
    assert await events(server_url) == [2]


@pytest.mark.postgres
async def test_server_that_falls_silent_is_away(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with through_proxy(server_url) as (proxy, url), serving(url) as (store, _):

        async def run(tx: HotTx, ids: list[int]) -> list[None]:
            proxy.to_client.swallow()
            await tx.tracked(ids)
            return [None for _ in ids]

        with monkeypatch.context() as hurry:
            hurry.setattr(hot_postgres, "STATEMENT_TIMEOUT_S", 1.0)
            hurry.setattr(hot_postgres, "ROLLBACK_TIMEOUT_S", 0.2)
            with pytest.raises(StoreAway):
                await store.do(Verb("run", 1, run), [1])
        assert proxy.to_client.bytes_swallowed
        await proxy.heal()
        assert await store.do(WRITE, [2]) == ["wrote 2"]


async def _raise_from_event(url: str, sqlstate: str, times: int) -> None:
    """Let the server answer the first writes to `event` with an error; a sequence counts even what is rolled back."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        f"""
        CREATE SEQUENCE tries;
        CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'trouble' USING ERRCODE = '{sqlstate}'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER trouble BEFORE INSERT ON event FOR EACH STATEMENT EXECUTE FUNCTION trouble();
        """
    )
    await connection.close()


@pytest.mark.postgres
@pytest.mark.parametrize("sqlstate", ["53100", "53200", "58030", "57014", "25006"])
async def test_server_that_cannot_write_now_is_away_and_work_goes_on_when_it_can(
    server_url: str, sqlstate: str
) -> None:
    await _raise_from_event(server_url, sqlstate, times=1)
    async with serving(server_url) as (store, _):
        results = await asyncio.gather(*(store.do(WRITE, [number]) for number in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [StoreAway] * 3
        assert await store.do(WRITE, [5]) == ["wrote 5"]
    assert await ask(server_url, "SELECT id FROM event WHERE id < 5") == []


@pytest.mark.postgres
@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize(("sqlstate", "is_left"), [("25006", True), ("40001", False)])
async def test_server_that_cannot_write_is_left_for_the_one_that_can(
    server_url: str, sqlstate: str, is_left: bool, begins: bool
) -> None:
    await _raise_from_event(server_url, sqlstate, times=1)
    driver = PostgresDriver(server_url)
    before = (await driver.connect()).get_server_pid()

    async def write() -> None:
        async with committed(driver) as tx:
            if begins:
                await tx.tracked([1])
            await tx.insert("event", [row("event", delivery_id=1, id=1)])

    with pytest.raises(StoreAway):
        await write()
    assert ((await driver.connect()).get_server_pid() != before) == is_left
    await driver.close()


@pytest.mark.postgres
@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03"])
async def test_group_that_met_another_process_is_repeated_unnoticed(server_url: str, sqlstate: str) -> None:
    await _raise_from_event(server_url, sqlstate, times=1)
    async with serving(server_url) as (store, _):
        results = await asyncio.gather(*(store.do(WRITE, [number]) for number in range(3)))
        assert results == [["wrote 0"], ["wrote 1"], ["wrote 2"]]


@pytest.mark.postgres
async def test_group_that_meets_others_again_and_again_is_told_so(server_url: str) -> None:
    await _raise_from_event(server_url, "40001", times=2)
    async with serving(server_url) as (store, _):
        with pytest.raises(StoreConflict):
            await store.do(WRITE, [1])


@pytest.mark.postgres
async def test_two_processes_that_spend_crosswise_both_come_through(server_url: str) -> None:
    await put_wallets(server_url, 1, 2)

    async def spend(tx: HotTx, orders: list[tuple[int, int]]) -> list[None]:
        for order in orders:
            for wallet_id in order:
                await tx.wallets([wallet_id])
                await asyncio.sleep(0.05)  # gives the other the time to lock its own first one
                await tx.move_money([(-1, 1, 0, wallet_id)])
        return [None for _ in orders]

    verb = Verb("spend", 1, spend)
    async with serving(server_url) as (one, _), serving(server_url) as (other, _):
        await asyncio.gather(one.do(verb, [(1, 2)]), other.do(verb, [(2, 1)]))
    assert await ask(server_url, "SELECT available_micros FROM wallet") == [(998,), (998,)]


@pytest.mark.postgres
async def test_wallet_is_ours_alone_until_the_commit(server_url: str) -> None:
    await put_wallets(server_url, 1)
    first, second = PostgresDriver(server_url), PostgresDriver(server_url)
    tx = first.begin()
    await tx.wallets([1])
    await tx.move_money([(-400, 400, 0, 1)])
    second_tx = second.begin()
    other = asyncio.ensure_future(second_tx.wallets([1]))
    await asyncio.sleep(0.1)
    assert not other.done()
    await first.commit(tx)
    assert await other == {1: (600, 50)}
    await second.commit(second_tx)
    await first.close()
    await second.close()


@pytest.mark.postgres
async def test_ordinary_group_is_one_statement_that_commits_itself(server_url: str) -> None:
    await put_wallets(server_url, 1)
    await ask(server_url, "INSERT INTO message (id) VALUES (2)")
    await ask(
        server_url, "INSERT INTO delivery (id, message_id, state, expires_ms) VALUES (1, 2, 'queued', $1)", FAR_MS
    )
    driver = PostgresDriver(server_url)
    for key, is_known in (("a", False), ("b", True)):
        async with committed(driver) as tx:
            assert await tx.idempotent([(1, key)]) == {}
            assert await tx.wallets([1]) == {1: (990 if is_known else 1000, 50)}
            await tx.insert("idempotency", [row("idempotency", application_id=1, key=key)])
            await tx.move_money([(-10, 10, 0, 1)])
            started = await tx.start_sending([1], 4, NOW_MS)
        assert tx.has_begun != is_known  # type: ignore[attr-defined]
        assert list(started) == ([] if is_known else [1])
    assert await ask(server_url, "SELECT available_micros, held_micros FROM wallet") == [(980, 20)]
    await driver.close()


@pytest.mark.postgres
async def test_codes_of_a_number_are_counted_by_one_process_at_a_time(server_url: str) -> None:
    first, second = PostgresDriver(server_url), PostgresDriver(server_url)
    place = (1, "1", "p")
    tx = first.begin()
    assert await tx.codes([place], 0) == {}
    waiting = second.begin()
    other = asyncio.ensure_future(waiting.codes([place], 0))
    while not await ask(server_url, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        await asyncio.sleep(0.01)
    await tx.insert("otp", [row("otp", application_id=1, recipient="1", purpose="p", created_ms=7)])
    await first.commit(tx)
    assert await other == {place: Recent(1, 0, 7)}
    await second.commit(waiting)
    await first.close()
    await second.close()


@pytest.mark.postgres
async def test_leases_of_two_processes_at_once_never_share_a_job(server_url: str) -> None:
    first, second = PostgresDriver(server_url), PostgresDriver(server_url)
    await put(first, "job", *jobs(1, 1_000, 60), *jobs(2, 5_000, 60))
    tx, other = first.begin(), second.begin()
    asked = ("c1", 1, 80, NOW_MS, NOW_MS + 1, 0, -1)
    mine, theirs = await asyncio.gather(tx.lease(*asked), other.lease(*asked))
    await first.commit(tx)
    await second.commit(other)
    assert len(mine) + len(theirs) == 120
    assert not {job.id for job in mine} & {job.id for job in theirs}
    await first.close()
    await second.close()


@pytest.mark.postgres
async def test_no_hot_statement_reads_a_whole_table(server_url: str) -> None:
    driver = PostgresDriver(server_url)
    await put_wallets(server_url, *range(1, 5))
    await ask(server_url, "SELECT pg_stat_reset()")
    for start in range(0, 3_000, 1_000):
        numbers = range(start + 1, start + 1_001)
        async with committed(driver) as tx:
            await tx.insert(
                "message", [row("message", id=number, first_id=number, last_id=number) for number in numbers]
            )
            await tx.insert("delivery", [row("delivery", id=number, message_id=number) for number in numbers])
            await tx.insert("job", [row("job", id=number, account_id=number % 7) for number in numbers])
            await tx.insert("callback", [row("callback", id=number, bundle_id=number, bundled=1) for number in numbers])
            await tx.insert("idempotency", [row("idempotency", key=str(number)) for number in numbers])
            await tx.insert(
                "carrier_ref", [row("carrier_ref", connector_id=1, key=f"k{n}", delivery_id=n) for n in numbers]
            )
            await tx.insert("parked_report", [row("parked_report", connector_id=1, key=f"k{n}") for n in numbers])
            await tx.insert("otp", [row("otp", recipient=str(number), created_ms=NOW_MS) for number in numbers])
            few = list(numbers)[:20]
            await tx.codes([(0, str(number), "") for number in few], 0)
            await tx.replace_codes([(0, str(number), "", 1) for number in few])
            await tx.idempotent([(0, str(number)) for number in few])
            await tx.wallets([1, 2])
            await tx.move_money([(-1, 1, 0, 1)])
            await tx.start_sending(few, 1, NOW_MS)
            tracked = await tx.tracked(few)
            assert len(tracked) == 20
            await tx.tracked_by_key(1, [f"k{number}" for number in few])
            for one in tracked:
                one.state = "uncertain"
            await tx.change(tracked)
            assert len(await tx.uncertain(1, ["1555"])) == 20 + start // 50
            await tx.forget_keys(1, [f"k{number}" for number in few])
            await tx.take_parked(1, [f"k{number}" for number in few])
            await tx.erase_bodies(few)
            assert len(await tx.lease("c1", 1, 50, NOW_MS, NOW_MS + 1, 0, -1)) == 50
            await tx.jobs_again([("dispatch", "c1", 0, 0, number) for number in few])
            await tx.jobs_bury([(1, "why", number) for number in few])
            await tx.jobs_done(few)
            assert await tx.spread(start + 1, 0, 10, NOW_MS) == start + 1
            await tx.open_messages(few)
            await tx.drop_loading(few, start + 1_000)
            assert len(await tx.outgoing(few)) == 20
            assert len(await tx.callbacks(few)) == 20
    await driver.close()  # its counters are told when it leaves
    assert await ask(server_url, "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0") == []


@pytest.mark.postgres
async def test_connection_is_durable_and_named_whatever_the_server_says(server_url: str) -> None:
    driver = PostgresDriver(server_url)
    connection = await driver.connect()
    for setting, expected in (("synchronous_commit", "on"), ("jit", "off"), ("application_name", "berid")):
        assert await connection.fetchval("SELECT current_setting($1)", setting) == expected
    await driver.close()
