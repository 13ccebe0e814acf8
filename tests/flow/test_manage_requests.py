"""What accounts ask for: money they have paid, trial credit, other countries, papers; that each yes counts once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from berid.base.ids import IdMaker, show
from berid.base.secret import Unreadable, Vault
from berid.domain.account import Rules, SenderState
from berid.domain.errors import RefusalKind, Refused
from berid.flow import manage
from berid.flow.manage import Office, Once
from berid.flow.manage import attachments as files
from berid.flow.manage.international import APPROVED, REJECTED
from berid.store import attachments, business, directory, open_store, topups
from tests.support.builders import FakeClock
from tests.support.database import ask

PDF = b"%PDF-1.7 slip"
MICROS = 1_000_000
DAY_S = 86_400


@pytest.fixture
async def office(store_url: str) -> AsyncIterator[Office]:
    clock = FakeClock()
    store = await open_store(store_url, clock)
    yield Office(store, clock, IdMaker(clock.now_ms, 31), Vault(b"k" * 32))
    await store.close()


@pytest.fixture
async def account_id(office: Office) -> int:
    return await manage.create_account(office, "t", name="Acme", home="TR", currencies=["SAR"])


async def requested(office: Office, account_id: int, amount: int = 100 * MICROS, **more: Any) -> int:
    """The id of a new top-up request by `asker`."""
    given = {"method": "bank transfer", "reference": "PO 7"} | more
    return (await manage.request_topup(office, "asker", account_id, "live", "SAR", amount, **given))[0]


async def found(office: Office, topup_id: int) -> topups.TopupRecord:
    async with office.store.read() as tx:
        record = await topups.topup(tx, topup_id)
    assert record is not None
    return record


async def entries(office: Office) -> list[tuple[Any, ...]]:
    """(kind, amount, actor, note) of every entry."""
    return await ask(office.store.url, "SELECT kind, amount_micros, actor, note FROM ledger_entry ORDER BY id")


async def actions(office: Office) -> list[str]:
    return [row[0] for row in await ask(office.store.url, "SELECT action FROM audit ORDER BY id")]


async def slip(office: Office, account_id: int, content: bytes = PDF, name: str = "slip.pdf") -> int:
    return (await manage.add_attachment(office, "asker", account_id, name, content)).id


async def version(office: Office) -> int:
    async with office.store.read() as tx:
        return await directory.version(tx)


def kind_of(refusal: pytest.ExceptionInfo[Refused]) -> RefusalKind:
    return refusal.value.refusals[0].kind


async def balanced(office: Office) -> bool:
    async with office.store.read() as tx:
        return await manage.verify_ledger(tx) == []


# ── Top-ups ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_goes_to_its_yes_and_enters_what_came_in(office: Office, account_id: int) -> None:
    topup_id = await requested(office, account_id, slips=[await slip(office, account_id)])
    await manage.check_topup(office, "desk", topup_id)
    await manage.ask_about_topup(office, "desk", topup_id, "the slip cannot be read")
    await manage.complete_topup(
        office, "asker", account_id, topup_id, note_text="better", slips=[await slip(office, account_id)]
    )
    again = await found(office, topup_id)
    assert (again.state, again.note, again.reason, again.decided_ms) == ("submitted", "better", "", 0)
    await manage.approve_topup(office, "desk", topup_id, amount_micros=99 * MICROS, reason="the bank kept one")
    record = await found(office, topup_id)
    assert (record.state, record.approved_micros, record.handled_by) == ("approved", 99 * MICROS, "desk")
    assert await entries(office) == [("topup", 99 * MICROS, "desk", f"{show('top', topup_id)} PO 7")]
    steps = ["request", "check", "needs_info", "complete", "approve"]
    told = [action for action in await actions(office) if action.startswith(("topup", "wallet.topup"))]
    assert told == [*(f"topup.{step}" for step in steps[:-1]), "wallet.topup", "topup.approve"]
    assert await balanced(office)


async def test_approving_twice_enters_once(office: Office, account_id: int) -> None:
    topup_id = await requested(office, account_id)
    for actor in ("desk", "desk", "other"):
        await manage.approve_topup(office, actor, topup_id)
    assert len(await entries(office)) == 1
    with pytest.raises(Refused) as refusal:
        await manage.approve_topup(office, "desk", topup_id, amount_micros=MICROS, reason="less")
    assert kind_of(refusal) is RefusalKind.WRONG_STATE
    assert (await found(office, topup_id)).handled_by == "desk"


async def test_of_many_who_approve_in_parallel_one_enters(office: Office, account_id: int) -> None:
    topup_id = await requested(office, account_id)
    await asyncio.gather(*(manage.approve_topup(office, f"desk{number}", topup_id) for number in range(8)))
    assert [entry[:2] for entry in await entries(office)] == [("topup", 100 * MICROS)]
    assert (await actions(office)).count("topup.approve") == 1
    assert await balanced(office)


async def test_of_a_yes_and_a_no_in_parallel_one_counts(office: Office, account_id: int) -> None:
    topup_id = await requested(office, account_id)
    told = await asyncio.gather(
        manage.approve_topup(office, "ada", topup_id),
        manage.reject_topup(office, "bob", topup_id, "no such transfer"),
        manage.withdraw_topup(office, "asker", account_id, topup_id),
        return_exceptions=True,
    )
    assert sum(one is None for one in told) == 1
    assert {one.refusals[0].kind for one in told if isinstance(one, Refused)} == {RefusalKind.WRONG_STATE}
    state = (await found(office, topup_id)).state
    assert len(await entries(office)) == (1 if state == "approved" else 0)


@pytest.mark.parametrize(("actor", "is_own_account"), [("asker", False), ("token:9", True)])
async def test_who_asks_does_not_approve(office: Office, account_id: int, actor: str, is_own_account: bool) -> None:
    topup_id = await requested(office, account_id)
    with pytest.raises(Refused) as refusal:
        await manage.approve_topup(office, actor, topup_id, approver_account_id=account_id if is_own_account else 7)
    assert kind_of(refusal) is RefusalKind.SELF_APPROVAL
    assert (await found(office, topup_id)).state == "submitted"
    assert await entries(office) == []


@pytest.mark.parametrize("end", ["approved", "rejected", "withdrawn"])
async def test_nothing_follows_an_end(office: Office, account_id: int, end: str) -> None:
    topup_id = await requested(office, account_id)
    if end == "approved":
        await manage.approve_topup(office, "desk", topup_id)
    elif end == "rejected":
        await manage.reject_topup(office, "desk", topup_id, "no such transfer")
    else:
        await manage.withdraw_topup(office, "asker", account_id, topup_id)
    before = await found(office, topup_id)
    assert before.state == end
    for step in (
        manage.check_topup(office, "desk", topup_id),
        manage.ask_about_topup(office, "desk", topup_id, "why?"),
        manage.reject_topup(office, "desk", topup_id, "no"),
        manage.withdraw_topup(office, "asker", account_id, topup_id),
        manage.complete_topup(office, "asker", account_id, topup_id, note_text="please"),
        manage.approve_topup(office, "desk", topup_id, amount_micros=MICROS, reason="less"),
    ):
        with pytest.raises(Refused) as refusal:
            await step
        assert kind_of(refusal) is RefusalKind.WRONG_STATE
    assert await found(office, topup_id) == before


async def test_what_makes_no_sense_is_refused_and_leaves_nothing(office: Office, account_id: int) -> None:
    other = await manage.create_account(office, "t", name="Other", home="SA", currencies=["SAR"])
    topup_id, theirs = await requested(office, account_id), await slip(office, other)
    before = await actions(office)
    for step in (
        manage.request_topup(office, "asker", account_id, "live", "SAR", 0, method="cash"),
        manage.request_topup(office, "asker", account_id, "live", "SAR", -1, method="cash"),
        manage.request_topup(office, "asker", account_id, "live", "SAR", 10**18 + 1, method="cash"),
        manage.request_topup(office, "asker", account_id, "live", "SAR", 1, method=" "),
        manage.request_topup(office, "asker", account_id, "live", "TRY", 1, method="cash"),
        manage.request_topup(office, "asker", account_id, "live", "SAR", 1, method="cash", slips=[theirs]),
        manage.complete_topup(office, "asker", account_id, topup_id, slips=[1]),
        manage.complete_topup(office, "asker", other, topup_id, note_text="mine"),
        manage.withdraw_topup(office, "asker", other, topup_id),
        manage.ask_about_topup(office, "desk", topup_id, " "),
        manage.reject_topup(office, "desk", topup_id, ""),
        manage.approve_topup(office, "desk", topup_id, amount_micros=MICROS),
        manage.approve_topup(office, "desk", topup_id, amount_micros=-MICROS, reason="taken"),
        manage.approve_topup(office, "desk", 1),
    ):
        with pytest.raises(Refused):
            await step
    assert await actions(office) == before
    assert await ask(office.store.url, "SELECT count(*) FROM topup_request") == [(1,)]
    assert await entries(office) == []


async def test_double_click_asks_once(office: Office, account_id: int) -> None:
    once, other = Once(5, "live:a", "hash"), Once(6, "live:a", "hash")
    made = await asyncio.gather(
        *(
            manage.request_topup(office, "asker", account_id, "live", "SAR", MICROS, method="cash", once=key)
            for key in (once, once, once, other)
        )
    )
    assert len({identifier for identifier, _ in made}) == 2
    assert sorted(is_replay for _, is_replay in made) == [False, False, True, True]
    with pytest.raises(Refused) as refusal:
        await requested(office, account_id, once=Once(5, "live:a", "another"))
    assert kind_of(refusal) is RefusalKind.IDEMPOTENCY_CONFLICT


async def test_a_key_is_free_again_if_its_request_was_refused(office: Office, account_id: int) -> None:
    once = Once(5, "live:a", "hash")
    with pytest.raises(Refused):
        await manage.top_up(office, "t", account_id, "live", "TRY", MICROS, once=once)
    done = await manage.top_up(office, "t", account_id, "live", "SAR", MICROS, once=once)
    again = await manage.top_up(office, "t", account_id, "live", "SAR", MICROS, once=once)
    assert (done.is_replay, again.is_replay, again.entry_id) == (False, True, done.entry_id)
    assert len(await entries(office)) == 1


async def test_money_entered_in_parallel_under_one_key_is_entered_once(office: Office, account_id: int) -> None:
    once = Once(5, "live:a", "hash")
    done = await asyncio.gather(
        *(manage.top_up(office, "t", account_id, "live", "SAR", MICROS, once=once) for _ in range(5))
    )
    assert len({each.entry_id for each in done}) == 1
    assert len(await entries(office)) == 1


async def test_a_wallet_never_holds_more_than_can_be_counted(office: Office, account_id: int) -> None:
    await manage.top_up(office, "t", account_id, "live", "SAR", 10**18)
    with pytest.raises(Refused):
        await manage.top_up(office, "t", account_id, "live", "SAR", 1)
    assert await balanced(office)


async def test_what_no_process_looks_at_makes_no_process_read_everything_again(office: Office, account_id: int) -> None:
    before = await version(office)
    topup_id = await requested(office, account_id, slips=[await slip(office, account_id)])
    await manage.approve_topup(office, "desk", topup_id)
    await manage.set_credit_limit(office, "desk", account_id, "live", "SAR", MICROS)
    assert await version(office) == before


async def test_open_requests_of_a_wallet_tell_since_when_they_wait(office: Office, account_id: int) -> None:
    clock = office.clock
    assert isinstance(clock, FakeClock)
    first_ms = clock.now_ms()
    first = await requested(office, account_id)
    await clock.advance(60)
    await requested(office, account_id)

    async def waiting() -> list[tuple[int, int]]:
        async with office.store.read() as tx:
            found = await topups.open_topups(tx, account_id, ["submitted", "checking"])
        return [(each.count, each.oldest_ms) for each in found.values()]

    assert await waiting() == [(2, first_ms)]
    await manage.ask_about_topup(office, "desk", first, "which bank?")
    assert await waiting() == [(2, first_ms + 60_000)]
    await clock.advance(60)
    await manage.complete_topup(office, "asker", account_id, first, note_text="the first one")
    assert (await found(office, first)).submitted_ms == first_ms + 120_000
    await manage.approve_topup(office, "desk", first)
    assert await waiting() == [(1, first_ms + 60_000)]


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PDF, "application/pdf"),
        (b"\xff\xd8\xff\xe0JFIF", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\nIHDR", "image/png"),
        (b"GIF89a", None),
        (b"<svg onload=alert(1)>", None),
        (b" %PDF-1.7", None),
        (b"", None),
        (b"%PDF-" + bytes(files.LARGEST_BYTES), None),
    ],
    ids=["pdf", "jpeg", "png", "gif", "svg", "late pdf", "empty", "large"],
)
async def test_a_file_is_what_it_begins_with(office: Office, account_id: int, content: bytes, kind: str | None) -> None:
    if kind is None:
        with pytest.raises(Refused):
            await slip(office, account_id, content)
        assert await ask(office.store.url, "SELECT count(*) FROM attachment") == [(0,)]
        return
    identifier = await slip(office, account_id, content, name="../evil\r\nname/C:\\scan\u202e.exe")
    record, read = await manage.read_attachment(office, identifier, account_id)
    assert (record.type, record.name, read) == (kind, "scan.exe", content)


async def test_a_file_is_sealed_and_opens_in_its_own_place_only(office: Office, account_id: int) -> None:
    first, second = await slip(office, account_id), await slip(office, account_id)
    url = office.store.url
    for (sealed,) in await ask(url, "SELECT content FROM attachment"):
        assert b"slip" not in sealed
    (moved,) = (await ask(url, "SELECT content FROM attachment WHERE id = $1", first))[0]
    await ask(url, "UPDATE attachment SET content = $1 WHERE id = $2", moved, second)
    with pytest.raises(Unreadable):
        await manage.read_attachment(office, second, account_id)


async def test_a_file_is_shown_to_its_account_and_to_the_operator(office: Office, account_id: int) -> None:
    identifier = await slip(office, account_id)
    assert (await manage.read_attachment(office, identifier, None))[1] == PDF
    with pytest.raises(Refused) as refusal:
        await manage.read_attachment(office, identifier, account_id + 1)
    assert kind_of(refusal) is RefusalKind.NOT_FOUND


async def test_a_file_belongs_to_one_thing(office: Office, account_id: int) -> None:
    identifier = await slip(office, account_id)
    topup_id = await requested(office, account_id, slips=[identifier])
    await manage.complete_topup(office, "asker", account_id, topup_id, slips=[identifier])
    with pytest.raises(Refused):
        await requested(office, account_id, slips=[identifier])
    with pytest.raises(Refused):
        await manage.request_sender(office, "asker", account_id, "sms", "Acme", documents=[identifier])
    assert await ask(office.store.url, "SELECT count(*) FROM sender_name") == [(0,)]


async def test_the_same_slip_is_noticed_whoever_brings_it(office: Office, account_id: int) -> None:
    other = await manage.create_account(office, "t", name="Other", home="SA", currencies=["SAR"])
    first = await requested(office, account_id, slips=[await slip(office, account_id)])
    second = await requested(office, other, slips=[await slip(office, other, name="mine.pdf")])
    await slip(office, other)
    async with office.store.read() as tx:
        mine = await attachments.of_subjects(tx, [show("top", first)])
        twins = await attachments.twins(tx, [each.digest for each in mine[show("top", first)]])
    assert [twin.subject for twin in twins] == [show("top", first), show("top", second)]


async def test_what_belongs_to_nothing_after_a_day_goes(office: Office, account_id: int) -> None:
    clock = office.clock
    assert isinstance(clock, FakeClock)
    used, unused = await slip(office, account_id), await slip(office, account_id)
    await requested(office, account_id, slips=[used])
    await clock.advance(DAY_S + 1)
    fresh = await slip(office, account_id)
    left = await ask(office.store.url, "SELECT id FROM attachment ORDER BY id")
    assert left == [(used,), (fresh,)]
    with pytest.raises(Refused):
        await requested(office, account_id, slips=[unused])


async def test_an_account_hands_in_only_so_much(
    office: Office, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ACCOUNT_BYTES", 2 * len(PDF) + 1)
    done = await asyncio.gather(*(slip(office, account_id) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(one, int) for one in done) == 2
    assert sum(isinstance(one, Refused) for one in done) == 2


async def test_one_thing_has_only_so_many_files(office: Office, account_id: int) -> None:
    many = [await slip(office, account_id) for _ in range(files.PER_THING + 1)]
    topup_id = await requested(office, account_id, slips=many[:-1])
    with pytest.raises(Refused):
        await manage.complete_topup(office, "asker", account_id, topup_id, slips=many[-1:])


async def test_papers_of_a_name_grow_with_its_request(office: Office, account_id: int) -> None:
    first, second = await slip(office, account_id), await slip(office, account_id)
    sender_id = await manage.request_sender(
        office, "asker", account_id, "sms", "Acme", documents=[first], is_draft=True
    )
    await manage.move_sender(office, "asker", account_id, sender_id, SenderState.SUBMITTED, documents=[second, first])
    subject = show("snd", sender_id)
    async with office.store.read() as tx:
        papers = (await attachments.of_subjects(tx, [subject]))[subject]
    assert [each.id for each in papers] == [first, second]
    with pytest.raises(Refused) as refusal:
        await manage.move_sender(office, "asker", account_id, sender_id, SenderState.SUBMITTED)
    assert kind_of(refusal) is RefusalKind.WRONG_STATE


# ── Trial credit ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_trial_credit_is_a_bonus_in_a_wallet_of_its_own(office: Office, account_id: int) -> None:
    await manage.offer_trial(office, "root", "turkeysms", "CREDIT", 10 * MICROS)
    await manage.offer_trial(office, "root", "turkeysms", "TRY", 5 * MICROS)
    before = await version(office)
    done = await manage.claim_trial(office, "asker", account_id, "turkeysms")
    assert await version(office) > before  # or no process would know of the wallet
    assert (done.available_micros, done.currency) == (5 * MICROS, "TRY")
    assert await entries(office) == [("bonus", 5 * MICROS, "asker", "trial credit turkeysms")]
    assert await ask(office.store.url, "SELECT mode FROM wallet WHERE available_micros > 0") == [("live",)]
    assert (await actions(office))[-1] == "trial.claim"


async def test_an_account_has_its_trial_credit_once_however_often_it_claims(office: Office, account_id: int) -> None:
    other = await manage.create_account(office, "t", name="Other", home="SA")
    for product in ("taqnyat", "turkeysms"):
        await manage.offer_trial(office, "root", product, "SAR", MICROS)
    claims = [manage.claim_trial(office, "asker", account_id, product) for product in ("taqnyat", "turkeysms") * 4]
    done = await asyncio.gather(*claims, return_exceptions=True)
    assert {one.refusals[0].kind for one in done if isinstance(one, Refused)} == {RefusalKind.WRONG_STATE}
    assert sum(not isinstance(one, BaseException) for one in done) == 1
    await manage.claim_trial(office, "asker", other, "taqnyat")
    assert [entry[:2] for entry in await entries(office)] == [("bonus", MICROS)] * 2
    assert await balanced(office)


async def test_what_is_not_offered_is_not_given(office: Office, account_id: int) -> None:
    await manage.offer_trial(office, "root", "taqnyat", "SAR", MICROS)
    await manage.end_trial(office, "root", "taqnyat")
    for step in (
        manage.claim_trial(office, "asker", account_id, "taqnyat"),
        manage.claim_trial(office, "asker", 1, "taqnyat"),
        manage.end_trial(office, "root", "taqnyat"),
        manage.offer_trial(office, "root", "Taqnyat", "SAR", MICROS),
        manage.offer_trial(office, "root", "taqnyat", "sar", MICROS),
        manage.offer_trial(office, "root", "taqnyat", "SAR", 0),
    ):
        with pytest.raises(Refused):
            await step
    assert await entries(office) == []


# ── Other countries ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "asked", "countries"),
    [
        (Rules(international_on=False), [], ()),
        (Rules(international_on=False), ["DE"], ("DE", "TR")),
        (Rules(international_on=False, countries=("TR", "SA")), ["DE"], ("DE", "SA", "TR")),
        (Rules(countries=("TR",)), ["DE", "DE"], ("DE", "TR")),
        (Rules(countries=("TR",)), [], ()),
    ],
)
async def test_the_yes_opens_what_was_asked_for(
    office: Office, account_id: int, before: Rules, asked: list[str], countries: tuple[str, ...]
) -> None:
    await manage.set_account_rules(office, "root", account_id, before)
    request_id = await manage.request_international(office, "asker", account_id, asked, purpose="branches abroad")
    await manage.set_account_rules(office, "root", account_id, {"per_minute": 7})
    await manage.decide_international(office, "desk", request_id, APPROVED)
    async with office.store.read() as tx:
        account = await business.account(tx, account_id)
        record = await business.international(tx, request_id)
    assert account is not None
    assert record is not None
    rules = account.rules
    assert (rules.international_on, rules.countries, rules.per_minute) == (True, countries, 7)
    assert (record.state, record.handled_by) == ("approved", "desk")
    with pytest.raises(Refused) as refusal:
        await manage.request_international(office, "asker", account_id, asked, purpose="again")
    assert kind_of(refusal) is RefusalKind.WRONG_STATE


async def test_a_no_changes_no_rules_and_lets_ask_again(office: Office, account_id: int) -> None:
    await manage.set_account_rules(office, "root", account_id, Rules(international_on=False))
    first = await manage.request_international(office, "asker", account_id, ["DE"], purpose="branches")
    await manage.decide_international(office, "desk", first, REJECTED, "which branches?")
    second = await manage.request_international(office, "asker", account_id, ["DE"], purpose="the one in Bonn")
    await manage.withdraw_international(office, "asker", account_id, second)
    for step in (
        manage.decide_international(office, "desk", first, APPROVED),
        manage.decide_international(office, "desk", second, APPROVED),
        manage.withdraw_international(office, "asker", account_id, second),
    ):
        with pytest.raises(Refused) as refusal:
            await step
        assert kind_of(refusal) is RefusalKind.WRONG_STATE
    async with office.store.read() as tx:
        account = await business.account(tx, account_id)
    assert account is not None
    assert account.rules == Rules(international_on=False)


async def test_an_account_asks_one_thing_at_a_time(office: Office, account_id: int) -> None:
    await manage.set_account_rules(office, "root", account_id, Rules(international_on=False))
    asks = [manage.request_international(office, "asker", account_id, ["DE"], purpose="x") for _ in range(4)]
    done = await asyncio.gather(*asks, return_exceptions=True)
    assert sum(isinstance(one, int) for one in done) == 1
    assert {one.refusals[0].kind for one in done if isinstance(one, Refused)} == {RefusalKind.WRONG_STATE}


async def test_an_unreadable_wish_is_refused(office: Office, account_id: int) -> None:
    await manage.set_account_rules(office, "root", account_id, Rules(international_on=False))
    request_id = await manage.request_international(office, "asker", account_id, ["DE"], purpose="x")
    for step in (
        manage.request_international(office, "asker", account_id, ["Germany"], purpose="x"),
        manage.request_international(office, "asker", account_id, ["FR"], purpose=" "),
        manage.request_international(office, "asker", account_id, ["FR"], purpose="x", monthly_volume=-1),
        manage.request_international(office, "asker", 1, ["FR"], purpose="x"),
        manage.decide_international(office, "desk", request_id, REJECTED),
        manage.decide_international(office, "desk", request_id, "withdrawn"),
        manage.decide_international(office, "desk", 1, APPROVED),
        manage.withdraw_international(office, "asker", account_id + 1, request_id),
    ):
        with pytest.raises(Refused):
            await step
    assert (await actions(office)).count("international.request") == 1


async def test_two_who_change_rules_at_once_lose_nothing(office: Office, account_id: int) -> None:
    changes: list[dict[str, object]] = [{"per_minute": 5}, {"countries": "SA,TR"}, {"api_on": False}, {"per_second": 2}]
    await asyncio.gather(*(manage.set_account_rules(office, "t", account_id, change) for change in changes))
    application_id = await manage.create_application(office, "t", account_id, "shop", ["sms"])
    await asyncio.gather(
        *(manage.set_application_rules(office, "t", account_id, application_id, change) for change in changes)
    )
    expected = Rules(api_on=False, countries=("SA", "TR"), per_minute=5, per_second=2)
    async with office.store.read() as tx:
        account = await business.account(tx, account_id)
        application = await business.application(tx, account_id, application_id)
    assert account is not None
    assert application is not None
    assert (account.rules, application.rules) == (expected, expected)
