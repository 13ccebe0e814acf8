"""One-time passwords: random, short-lived, counted, and readable nowhere but on the handset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from msgspec import structs
from sqlalchemy import select, text

from berid.domain.account import Caller
from berid.domain.errors import RefusalKind, Refused
from berid.domain.otp import DIGITS, LANGUAGES, Verdict, new_code, wording
from berid.flow.otp import check_code, send_code
from berid.flow.ports import Runtime
from berid.store import otp as codes
from berid.store import tables
from tests.support.builders import FakeClock, make_caller, make_runtime

NUMBER = "966501234567"


@pytest.fixture
async def rt(store_url: str) -> AsyncIterator[Runtime]:
    async with make_runtime(store_url, clock=FakeClock()) as rt:
        yield rt


@pytest.fixture
def caller(rt: Runtime) -> Caller:
    return make_caller(rt)


def wrong(code: str) -> str:
    return code[:-1] + str((int(code[-1]) + 1) % 10)


@pytest.mark.parametrize("digits", DIGITS)
def test_a_code_has_its_digits_and_never_begins_with_zero(digits: int) -> None:
    made = {new_code(digits) for _ in range(300)}
    assert all(len(code) == digits and code[0] != "0" for code in made)
    assert len(made) > 200


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_names_brand_and_code_once(language: str) -> None:
    said = wording(language, "Acme", "123456")
    assert said.count("Acme") == said.count("123456") == 1


async def test_the_right_code_is_verified_once(rt: Runtime, caller: Caller) -> None:
    sent = await send_code(rt, caller, NUMBER)
    first = await check_code(rt, caller, sent.code, number=NUMBER)
    second = await check_code(rt, caller, sent.code, number=NUMBER)
    assert (first.verdict, second.verdict) == (Verdict.VERIFIED, Verdict.ALREADY_VERIFIED)


async def test_five_wrong_guesses_end_it_even_for_the_right_code(rt: Runtime, caller: Caller) -> None:
    sent = await send_code(rt, caller, NUMBER)
    found = [await check_code(rt, caller, wrong(sent.code), otp_id=sent.id) for _ in range(5)]
    assert [check.checks_left for check in found] == [4, 3, 2, 1, 0]
    assert (await check_code(rt, caller, sent.code, otp_id=sent.id)).verdict is Verdict.EXHAUSTED


async def test_a_new_code_brings_no_new_guesses(rt: Runtime, caller: Caller) -> None:
    first = await send_code(rt, caller, NUMBER)
    for _ in range(3):
        await check_code(rt, caller, wrong(first.code), otp_id=first.id)
    second = await send_code(rt, caller, NUMBER)
    assert (await check_code(rt, caller, wrong(second.code), otp_id=second.id)).checks_left == 1
    assert (await check_code(rt, caller, first.code, otp_id=first.id)).verdict is not Verdict.VERIFIED


async def test_a_code_that_could_not_be_sent_leaves_the_one_before_it_good(rt: Runtime, caller: Caller) -> None:
    first = await send_code(rt, caller, NUMBER)
    with pytest.raises(Refused):
        await send_code(rt, caller, NUMBER, sender="Nobody")
    assert (await check_code(rt, caller, first.code, number=NUMBER)).verdict is Verdict.VERIFIED


async def test_a_new_code_ends_the_one_before_it(rt: Runtime, caller: Caller) -> None:
    first = await send_code(rt, caller, NUMBER)
    second = await send_code(rt, caller, NUMBER)
    assert (await check_code(rt, caller, first.code, otp_id=first.id)).verdict is Verdict.EXPIRED
    assert (await check_code(rt, caller, second.code, otp_id=second.id)).verdict is Verdict.VERIFIED


async def test_a_thousand_guesses_at_once_get_five_answers(rt: Runtime, caller: Caller) -> None:
    sent = await send_code(rt, caller, NUMBER)
    guesses = [wrong(sent.code)] * 1000
    found = await asyncio.gather(*(check_code(rt, caller, guess, otp_id=sent.id) for guess in guesses))
    async with rt.store.read() as tx:
        row = await codes.find(tx, caller.application.id, sent.id)
    assert row is not None
    assert row.checks_used == 5
    assert sum(check.verdict is Verdict.WRONG for check in found) == 4
    assert sum(check.verdict is Verdict.EXHAUSTED for check in found) == 996


async def test_of_many_right_answers_at_once_one_wins(rt: Runtime, caller: Caller) -> None:
    sent = await send_code(rt, caller, NUMBER)
    found = await asyncio.gather(*(check_code(rt, caller, sent.code, otp_id=sent.id) for _ in range(50)))
    assert sum(check.verdict is Verdict.VERIFIED for check in found) == 1


async def test_a_code_ends_after_its_time(rt: Runtime, caller: Caller) -> None:
    sent = await send_code(rt, caller, NUMBER)
    await rt.clock.advance(rt.config.validity.otp_s + 1)  # type: ignore[attr-defined]
    assert (await check_code(rt, caller, sent.code, otp_id=sent.id)).verdict is Verdict.EXPIRED


async def test_a_sixth_code_in_ten_minutes_is_refused_and_says_when(rt: Runtime, caller: Caller) -> None:
    for _ in range(5):
        await send_code(rt, caller, NUMBER)
    with pytest.raises(Refused) as refusal:
        await send_code(rt, caller, NUMBER)
    assert refusal.value.refusals[0].kind is RefusalKind.OTP_LIMIT
    assert 0 < refusal.value.refusals[0].retry_after_s <= 600
    await send_code(rt, caller, NUMBER, purpose="payment")
    await rt.clock.advance(601)  # type: ignore[attr-defined]
    await send_code(rt, caller, NUMBER)


async def test_twenty_requests_at_once_send_five_codes(rt: Runtime, caller: Caller) -> None:
    found = await asyncio.gather(*(send_code(rt, caller, NUMBER) for _ in range(20)), return_exceptions=True)
    assert sum(not isinstance(result, Exception) for result in found) == 5


async def test_of_codes_sent_at_once_the_last_one_is_good(rt: Runtime, caller: Caller) -> None:
    sent = await asyncio.gather(*(send_code(rt, caller, NUMBER) for _ in range(3)))
    last = max(sent, key=lambda one: one.id)
    others = [await check_code(rt, caller, one.code, otp_id=one.id) for one in sent if one is not last]
    assert [check.verdict for check in others] == [Verdict.EXPIRED] * 2
    assert (await check_code(rt, caller, last.code, number=NUMBER)).verdict is Verdict.VERIFIED


async def test_what_else_is_wrong_is_told_with_the_limit(rt: Runtime, caller: Caller) -> None:
    for _ in range(5):
        await send_code(rt, caller, NUMBER)
    with pytest.raises(Refused) as refusal:
        await send_code(rt, caller, NUMBER, sender="Nobody")
    kinds = [one.kind for one in refusal.value.refusals]
    assert kinds == [RefusalKind.OTP_LIMIT, RefusalKind.SENDER_UNKNOWN]


async def test_a_code_knows_its_message(rt: Runtime, caller: Caller) -> None:
    sent = await send_code(rt, caller, NUMBER)
    async with rt.store.read() as tx:
        row = await codes.find(tx, caller.application.id, sent.id)
    assert row is not None
    assert (row.message_id, row.delivery_id) == (sent.accepted.message_id, sent.accepted.deliveries[0].id)
    assert (row.country, row.checks_left, row.expires_ms) == ("SA", 5, sent.expires_ms)


async def test_a_block_of_numbers_has_a_limit(rt: Runtime, caller: Caller) -> None:
    for number in range(30):
        await send_code(rt, caller, f"9665012345{number:02d}")
    with pytest.raises(Refused) as refusal:
        await send_code(rt, caller, "966501234530")
    assert refusal.value.refusals[0].kind is RefusalKind.OTP_LIMIT


async def test_a_refused_code_is_not_counted(rt: Runtime, caller: Caller) -> None:
    poor = replace(rt.directory, prices={})
    full, rt.directory = rt.directory, poor
    for _ in range(6):
        with pytest.raises(Refused):
            await send_code(rt, caller, NUMBER)
    rt.directory = full
    await send_code(rt, caller, NUMBER)


async def test_another_applications_code_is_unknown(rt: Runtime, caller: Caller) -> None:
    sent = await send_code(rt, caller, NUMBER)
    stranger = structs.replace(caller, application=replace(caller.application, id=999))
    assert (await check_code(rt, stranger, sent.code, otp_id=sent.id)).verdict is Verdict.UNKNOWN
    assert (await check_code(rt, stranger, sent.code, number=NUMBER)).verdict is Verdict.UNKNOWN


async def test_no_column_of_the_database_holds_the_code(rt: Runtime, caller: Caller) -> None:
    sent = await send_code(rt, caller, NUMBER, digits=8)
    async with rt.store.read() as tx:
        for table in tables.metadata.sorted_tables:
            for row in await tx.execute(select(table)):
                assert sent.code not in " ".join(str(value) for value in row), table.name
        kept = (await tx.execute(text("SELECT body_kind FROM message"))).scalar_one()
    assert kept == "sealed"


async def test_conversion_counts_codes_by_country(rt: Runtime, caller: Caller) -> None:
    first = await send_code(rt, caller, NUMBER)
    await send_code(rt, caller, "966501234568")
    await check_code(rt, caller, first.code, otp_id=first.id)
    async with rt.store.read() as tx:
        assert await codes.conversion(tx, caller.account.id, caller.mode, 0) == [("SA", 2, 0, 1)]


async def test_a_wording_without_a_place_for_the_code_is_refused(rt: Runtime, caller: Caller) -> None:
    with pytest.raises(Refused) as refusal:
        await send_code(rt, caller, NUMBER, text="hello")
    assert refusal.value.refusals[0].kind is RefusalKind.CONTENT_INVALID
