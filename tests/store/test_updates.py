"""What spares PostgreSQL work on the path."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from berid.store.hot_postgres import PostgresDriver
from berid.store.schema import migrate
from tests.support.database import ask, make_tables, row

NOW_MS = 1_000_000


@pytest.fixture
async def driver(postgres_url: str) -> AsyncIterator[PostgresDriver]:
    await make_tables(postgres_url)
    driver = PostgresDriver(postgres_url)
    yield driver
    await driver.close()


@pytest.mark.postgres
async def test_on_its_ordinary_way_a_delivery_changes_no_index(driver: PostgresDriver) -> None:
    ids = range(10, 210)
    tx = driver.begin()
    await tx.insert("message", [row("message", id=1)])
    await tx.insert("delivery", [row("delivery", id=each, message_id=1, connector_id=3) for each in ids])
    await driver.commit(tx)

    tx = driver.begin()
    await tx.start_sending(ids, 3, NOW_MS)
    await driver.commit(tx)
    for state, money, report_code in (("sent", "charged", ""), ("delivered", "charged", "000")):
        tx = driver.begin()
        rows = await tx.tracked(ids)
        for each in rows:
            each.state, each.money, each.sent_ms, each.carrier_ids, each.parts_left = (
                state,
                money,
                NOW_MS,
                "12345678",
                1,
            )
            if report_code:
                each.final_ms, each.report_ms, each.report_code, each.parts_left = NOW_MS, NOW_MS, report_code, 0
        await tx.change(rows)
        await driver.commit(tx)

    connection = await driver.connect()
    await connection.execute("SELECT pg_stat_force_next_flush()")
    changed, in_place, moved = await connection.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd, coalesce((to_jsonb(s) ->> 'n_tup_newpage_upd')::bigint, n_tup_upd - n_tup_hot_upd) "
        "FROM pg_stat_user_tables s WHERE relname = 'delivery'"
    )
    assert changed == 3 * len(ids)
    assert in_place + moved == changed, "what stayed on its page has changed no index"
    # Two versions always find room. The third takes the first one's, unless another test's open transaction may still see that.
    assert in_place > 0.95 * 2 * len(ids)


@pytest.mark.postgres
async def test_keys_of_the_path_are_compared_byte_by_byte_in_a_database_of_any_language(postgres_url: str) -> None:
    await migrate(postgres_url)
    found = await ask(
        postgres_url,
        "SELECT a.attrelid::regclass::text, a.attname FROM pg_attribute a JOIN pg_collation c ON c.oid = a.attcollation "
        "JOIN pg_class t ON t.oid = a.attrelid AND t.relkind = 'r' AND t.relnamespace = 'public'::regnamespace "
        "WHERE c.collname = 'C' ORDER BY 1",
    )
    assert found == [("carrier_ref", "key"), ("idempotency", "key"), ("job", "lane"), ("parked_report", "key")]
