"""What became of messages, what they cost, and how they are written."""

from typing import Any

import pytest

from berid.domain.message import State
from berid.flow.cancel import resend
from berid.store import messages, tables
from tests.dialects.turkeysms.conftest import MICROS, NUMBER, World

STATUS = "/sms-durumu/sms_durumu.php"

WAYS: list[tuple[tuple[State, ...], str, str]] = [
    ((), "TS-1023", "The number out of coverage did not receive the message yet"),
    ((State.SENDING,), "TS-1023", "The number out of coverage did not receive the message yet"),
    ((State.SENDING, State.UNCERTAIN), "TS-1023", "The number out of coverage did not receive the message yet"),
    ((State.SENDING, State.SENT), "TS-1023", "The number out of coverage did not receive the message yet"),
    ((State.SENDING, State.SENT, State.DELIVERED), "TS-1024", "Number received the message"),
    ((State.SENDING, State.SENT, State.DELIVERED, State.READ), "TS-1024", "Number received the message"),
    ((State.SENDING, State.SENT, State.UNDELIVERED), "TS-1022", "The number did not receive the message"),
    (
        (State.SENDING, State.SENT, State.EXPIRED),
        "TS-1023",
        "The number out of coverage did not receive the message yet",
    ),
    ((State.SENDING, State.REJECTED), "TS-1022", "The number did not receive the message"),
    ((State.FAILED,), "TS-1022", "The number did not receive the message"),
    ((State.CANCELLED,), "TS-1022", "The number did not receive the message"),
]


@pytest.mark.parametrize(("states", "code", "text"), WAYS)
async def test_every_state_has_its_status(world: World, states: tuple[State, ...], code: str, text: str) -> None:
    sent = await world.send()
    await world.change(sent["sms_id"], *states)
    assert await world.get(STATUS, sms_id=sent["sms_id"]) == {
        "result": True,
        "sender_id": "ACME",
        "date_of_sending": "2026-09-21",
        "time_of_sending": "17:13:20",
        "sms_status": text,
        "sms_status_code": code,
        "sms_balance": "1 SMS",
        "operator": "Turkcell",
        "result_code": "TS-1064",
    }


async def test_status_shows_when_the_message_left(world: World) -> None:
    sent = await world.send()
    await world.clock.advance(3_600)
    await world.change(sent["sms_id"], State.SENDING, State.SENT)
    await world.clock.advance(3_600)
    assert (await world.get(STATUS, sms_id=sent["sms_id"]))["time_of_sending"] == "18:13:20"


async def test_message_priced_in_lira_shows_lira(world: World) -> None:
    sent = await world.send(sentto="4915112345678")
    shown = await world.get(STATUS, sms_id=sent["sms_id"])
    assert (shown["sms_balance"], shown["operator"]) == ("1.25 TL", "")


@pytest.mark.parametrize("key", ["other", "shop"])
async def test_messages_of_others_are_not_there(world: World, key: str) -> None:
    sent = await world.send(key="other" if key == "shop" else "shop")
    for path, name in ((STATUS, "sms_id"), ("/rapor/temel", "raporid")):
        found = await world.post(path, key, **{name: sent["sms_id"]})
        assert (found["result_code"], found["result_message"]) == ("TS-1052", "There is no message with this ID")


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ((State.DELIVERED, State.DELIVERED), "TS-1024"),
        ((State.DELIVERED, State.UNDELIVERED), "TS-1022"),
        ((State.DELIVERED, State.EXPIRED), "TS-1023"),
        ((State.UNDELIVERED, State.UNDELIVERED), "TS-1022"),
    ],
)
async def test_list_is_received_when_everybody_has_it(world_on_each: World, ends: tuple[State, ...], code: str) -> None:
    world = world_on_each
    answer = await world.post("/gonder_coklu_gsm/add-content", title="ACME", text="Hi", sentto=f"{NUMBER},905421234567")
    ids = await world.ask("SELECT id FROM delivery WHERE message_id = $1 ORDER BY id", answer["rapor_id"])
    for (delivery_id,), end in zip(ids, ends, strict=True):
        await world.change(delivery_id, State.SENDING, State.SENT, end)
    found = await world.get(STATUS, sms_id=answer["sms_id"])
    assert (found["sms_status_code"], found["sms_balance"]) == (code, "2 SMS")
    shown = await world.post("/rapor/temel", raporid=answer["rapor_id"])
    received = ends.count(State.DELIVERED)
    assert (shown["numbers_received"], shown["numbers_not_received"]) == (received, 2 - received)


async def test_report_counts_numbers_by_what_became_of_them(world_on_each: World) -> None:
    world = world_on_each
    async with world.rt.store.transaction() as tx:
        await tx.execute(tables.delivery.delete())
    numbers = ["905321234567", "905331234567", "905421234567", "905551234567", "4915112345678", "447700900123", "junk"]
    answer = await world.post("/gruba-gonder/post/tek-metin-gonderimi", title="ACME", text="Hi", sentto=numbers)
    assert (answer["total_mobile_num"], answer["number_of_sms"]) == (5, 5)
    ids = await world.ask("SELECT id FROM delivery WHERE message_id = $1 ORDER BY id", answer["rapor_id"])
    await world.change(ids[0][0], State.SENDING, State.SENT, State.DELIVERED)
    await world.change(ids[1][0], State.SENDING, State.SENT, State.UNDELIVERED)
    await world.ask("UPDATE delivery SET state = 'failed', reason = 'suppressed' WHERE id = $1", ids[2][0])
    assert await world.post("/rapor/temel", raporid=answer["rapor_id"]) == {
        "result": True,
        "numbers_received": 1,
        "numbers_not_received": 3,
        "invalid_numbers": 1,
        "blocked_numbers": 2,
        "turkcell_numbers": 2,
        "vodafone_numbers": 1,
        "turktelekom_numbers": 1,
        "result_code": "TS-1064",
    }


@pytest.mark.parametrize(
    ("text", "language", "to", "parts", "alphabet", "body"),
    [
        ("İyi günler, çiğ", 0, NUMBER, 1, "gsm7", "Iyi günler, cig"),
        ("İyi günler, çiğ", 1, NUMBER, 1, "gsm7_tr_single", "İyi günler, çiğ"),
        ("İyi günler, çiğ", 2, NUMBER, 1, "ucs2", "İyi günler, çiğ"),
        ("Iyi gunler", 2, NUMBER, 1, "gsm7", "Iyi gunler"),
        ("مرحبا", 0, NUMBER, 1, "ucs2", "مرحبا"),
        ("x" * 160, 0, NUMBER, 1, "gsm7", None),
        ("x" * 161, 0, NUMBER, 2, "gsm7", None),
        ("ş" * 155, 1, NUMBER, 1, None, None),
        ("ş" * 156, 1, NUMBER, 2, None, None),
        ("ş" * 71, 2, NUMBER, 2, "ucs2", None),
        ("ğ" * 160, 0, NUMBER, 1, "gsm7", "g" * 160),
    ],
)
async def test_language_says_how_a_text_is_written_and_billed(
    world: World, text: str, language: int, to: str, parts: int, alphabet: str | None, body: str | None
) -> None:
    answer = await world.send(text=text, sms_lang=language, sentto=to)
    assert answer["number_of_sms"] == parts
    assert await world.wallet("shop") == ((1_000 - parts) * MICROS, parts * MICROS)
    ((stored, written),) = await world.ask("SELECT body, alphabet FROM message")
    assert stored == (body or text)
    assert alphabet is None or written == alphabet


@pytest.mark.parametrize(
    ("content_type", "category", "word"),
    [
        (None, "transactional", "Transactional"),
        (0, "transactional", "Transactional"),
        ("1", "transactional", "High Quality"),
        (2, "promotional", "Advertising"),
    ],
)
async def test_content_type_says_what_it_is_for(world: World, content_type: Any, category: str, word: str) -> None:
    assert (await world.send(sentto="4915112345678", content_type=content_type))["content_type"] == word
    assert await world.ask("SELECT category, dialect FROM message") == [(category, "turkeysms")]


async def test_balances_are_two_and_rounded_down(world: World) -> None:
    await world.send()
    await world.send(sentto="4915112345678")
    found = await world.post("/bakiye_sorgulama/add-content")
    assert (found["local_balance_sms"], found["international_balance_tl"]) == (999, "249.25")
    await world.ask("UPDATE wallet SET available_micros = 1999999 WHERE account_id = $1", world.account_ids["shop"])
    found = await world.post("/bakiye_sorgulama/add-content")
    assert (found["local_balance_sms"], found["international_balance_tl"]) == (1, "1.99")


@pytest.mark.parametrize(
    ("key", "balance", "names"),
    [("counting", "TS-1040", "TS-1040"), ("naming", "TS-1065", "TS-1040"), ("posting", "TS-1065", "TS-1065")],
)
async def test_names_open_to_the_right_to_see_the_balance(world: World, key: str, balance: str, names: str) -> None:
    assert (await world.post("/bakiye_sorgulama/add-content", key))["result_code"] == balance
    assert (await world.post("/senderid_sorgulama/add-content", key))["result_code"] == names


async def test_group_of_thousands_is_one_message(world: World) -> None:
    numbers = [f"9053{count:08d}" for count in range(2_500)]
    await world.ask("UPDATE wallet SET available_micros = 9000000000 WHERE account_id = $1", world.account_ids["shop"])
    answer = await world.post("/gruba-gonder/post/tek-metin-gonderimi", title="ACME", text="Hi", sentto=numbers)
    assert (answer["total_mobile_num"], answer["number_of_sms"]) == (2_500, 2_500)
    shown = await world.post("/rapor/temel", raporid=answer["rapor_id"])
    assert (shown["numbers_not_received"], shown["turkcell_numbers"]) == (2_500, 2_500)
    assert await world.wallet("shop") == (6_500 * MICROS, 2_500 * MICROS)


async def test_numbers_that_were_none_are_not_counted_again_when_a_list_is_sent_again(world: World) -> None:
    sent = await world.post("/gonder_coklu_gsm/add-content", title="ACME", text="Hi", sentto=f"junk,{NUMBER},{NUMBER}")
    for (delivery_id,) in await world.ask("SELECT id FROM delivery"):
        await world.change(delivery_id, State.FAILED)
    async with world.rt.store.read() as tx:
        owner = await messages.find(tx, world.account_ids["shop"], "live", sent["rapor_id"])
    assert owner is not None
    again = await resend(world.rt, world.native_caller("shop"), owner)
    counts = [
        (await world.post("/rapor/temel", raporid=each))["invalid_numbers"]
        for each in (sent["rapor_id"], again.message_id)
    ]
    assert counts == [1, 0]


async def test_code_is_in_the_text_and_may_be_checked(world: World) -> None:
    answer = await world.post("/otp_post/add-content", mobile=NUMBER, digits=6, lang=1)
    assert len(answer["otp_code"]) == 6
    ((kind, body),) = await world.ask("SELECT body_kind, body FROM message")
    assert kind == "sealed"
    assert answer["otp_code"] not in body
    assert answer["otp_code"] in world.rt.vault.open(body, "body")
    right = await world.v4("/otp/verify", mobile=NUMBER, otp_code=answer["otp_code"])
    assert (right["result"], right["verified"]) == (True, True)
    again = await world.v4("/otp/verify", mobile=NUMBER, otp_code=answer["otp_code"])
    assert (again["result"], again["verified"]) == (False, False)


async def test_customers_words_hold_code_and_line_break(world: World) -> None:
    text = "Kod: TS_CODETS-L{code}TS-LACME"
    answer = await world.post("/otp_post_detailed/add-content", title="ACME", mobile=NUMBER, sms_text=text, lang=0)
    ((sender, body),) = await world.ask("SELECT sender, body FROM message")
    assert (sender, world.rt.vault.open(body, "body")) == ("ACME", f"Kod: {answer['otp_code']}\n{{code}}\nACME")


async def test_sixth_code_to_a_number_must_wait(world: World) -> None:
    for _ in range(5):
        assert (await world.get("/otp/otp_get.php", mobile=NUMBER))["result_code"] == "TS-1024"
    assert (await world.get("/otp/otp_get.php", mobile=NUMBER))["result_code"] == "TS-1060"
