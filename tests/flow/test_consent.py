"""Who may be written to, from the office's verbs to the delivery that leaves, waits or ends: on both stores."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from berid.domain.account import Account, Rules, SenderName, SenderState
from berid.domain.consent import keyword_of
from berid.domain.directory import Directory
from berid.domain.errors import RefusalKind, Refused
from berid.domain.message import Accepted, Category, Outgoing, Sent, State
from berid.domain.routing import ConnectorSettings
from berid.domain.rules import RulePack
from berid.domain.suppression import ALL, Book, Consent, ConsentType, Reason, RecipientType, Status
from berid.flow import consent as flow
from berid.flow.accept import accept
from berid.flow.consent import PAGE, Form
from berid.flow.dispatch import Dispatcher, watch_lanes
from berid.flow.load import spread
from berid.flow.manage import Office
from berid.flow.ports import Report, Runtime
from berid.flow.sweep import look_again
from berid.store import accounts, directory
from tests.support.builders import (
    ACCOUNT_ID,
    BALANCE_MICROS,
    PRICE_MICROS,
    SENDER,
    FakeClock,
    make_caller,
    make_directory,
    make_runtime,
    make_settings,
    make_submission,
)
from tests.support.database import ask

RIYADH = ZoneInfo("Asia/Riyadh")
TURKEY = ZoneInfo("Europe/Istanbul")
SAUDI, TURK, GERMAN = "966501234567", "905321234567", "491711234567"
ADVERT = "Berid-AD"
OTHER = 99


def at(text: str, zone: ZoneInfo = RIYADH) -> int:
    """Milliseconds of a wall-clock time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)


NOON_MS, NIGHT_MS, OPENING_MS = at("2026-09-21T12:00"), at("2026-09-21T23:30"), at("2026-09-22T08:00")
VALID_MS = 172_800_000


@pytest.fixture
async def rt(store_url: str) -> AsyncIterator[Runtime]:
    """A business with a sender name for adverts, at noon; its account stands in the database too."""
    async with make_runtime(store_url, clock=FakeClock(NOON_MS)) as made:
        promotional = SenderName(9, ACCOUNT_ID, "sms", ADVERT, "", "promotional", SenderState.APPROVED, 0)
        made.directory = make_directory(
            senders={**make_directory().senders, (ACCOUNT_ID, "sms", ADVERT): (promotional,)}, version=0
        )
        async with made.store.transaction() as tx:
            await accounts.add_account(
                tx, Account(ACCOUNT_ID, "Test", "active", "SA", "Asia/Riyadh", "en", Rules()), NOON_MS
            )
        yield made


@pytest.fixture
def office(rt: Runtime) -> Office:
    return Office.of(rt)


@pytest.fixture
def clock(rt: Runtime) -> FakeClock:
    assert isinstance(rt.clock, FakeClock)
    return rt.clock


async def refresh(rt: Runtime) -> Directory:
    """Take over what the books and rules are now, as the watch of a process does; the rest of the business stays."""
    async with rt.store.read() as tx:
        found = await directory.load(tx, rt.directory)
    rt.directory = replace(
        rt.directory,
        version=found.version,
        rules=found.rules,
        suppressions=found.suppressions,
        consents=found.consents,
        consent_rules=found.consent_rules,
    )
    return found


async def send(rt: Runtime, *recipients: str, **changes: Any) -> Accepted:
    """Accept an advert."""
    given: dict[str, Any] = {"sender": ADVERT, "category": Category.PROMOTIONAL} | changes
    return await accept(rt, make_caller(rt), make_submission(*recipients, **given))


async def refused(rt: Runtime, *recipients: str, **changes: Any) -> list[RefusalKind]:
    with pytest.raises(Refused) as error:
        await send(rt, *recipients, **changes)
    return [refusal.kind for refusal in error.value.refusals]


async def audits(store_url: str) -> list[tuple[Any, ...]]:
    """(actor, action, subject, detail) of every line."""
    rows = await ask(store_url, "SELECT actor, action, subject, detail FROM audit ORDER BY id")
    return [(*row[:3], msgspec.json.decode(row[3])) for row in rows]


async def deliveries(store_url: str) -> list[tuple[Any, ...]]:
    """(recipient, state, reason, expires_ms, due_ms of its job) of every delivery."""
    return await ask(
        store_url,
        "SELECT d.recipient, d.state, d.reason, d.expires_ms, j.due_ms FROM delivery d "
        "LEFT JOIN job j ON j.id = d.id ORDER BY d.id",
    )


# The book.


async def test_entry_is_listed_checked_audited_and_taken_out(office: Office, store_url: str) -> None:
    assert await flow.suppress(office, "t", ACCOUNT_ID, "+966 50 123 4567", channel="sms", source="call")
    [entry] = await flow.list_suppressions(office, ACCOUNT_ID)
    assert (entry.recipient, entry.channel, entry.reason, entry.source, entry.all_traffic, entry.at_ms) == (
        SAUDI,
        "sms",
        Reason.MANUAL,
        "call",
        False,
        NOON_MS,
    )
    assert await flow.check_suppressions(office, ACCOUNT_ID, [SAUDI, "+966501234567", TURK], "sms") == {
        SAUDI: [entry],
        "+966501234567": [entry],
        TURK: [],
    }
    assert await flow.check_suppressions(office, ACCOUNT_ID, [SAUDI], "voice") == {SAUDI: []}
    await flow.unsuppress(office, "t", ACCOUNT_ID, SAUDI, channel="sms")
    assert await flow.list_suppressions(office, ACCOUNT_ID) == []
    assert await flow.check_suppressions(office, ACCOUNT_ID, [SAUDI], "sms") == {SAUDI: []}
    assert await audits(store_url) == [
        (
            "t",
            "suppression.add",
            SAUDI,
            {"channel": "sms", "reason": "manual", "source": "call", "all_traffic": False},
        ),
        ("t", "suppression.remove", SAUDI, {"channel": "sms"}),
    ]


async def test_adding_the_same_again_changes_nothing_and_is_not_audited(office: Office, store_url: str) -> None:
    assert await flow.suppress(office, "t", ACCOUNT_ID, SAUDI, reason=Reason.COMPLAINT, all_traffic=True)
    assert not await flow.suppress(office, "t", ACCOUNT_ID, SAUDI, reason=Reason.OPT_OUT)
    assert [each.reason for each in await flow.list_suppressions(office, ACCOUNT_ID)] == [Reason.COMPLAINT]
    assert len(await audits(store_url)) == 1


async def test_entry_that_was_taken_out_can_be_made_again(office: Office, rt: Runtime) -> None:
    for _ in range(2):
        await flow.suppress(office, "t", ACCOUNT_ID, SAUDI)
        await refresh(rt)
        assert await refused(rt, SAUDI) == [RefusalKind.SUPPRESSED]
        await flow.unsuppress(office, "t", ACCOUNT_ID, SAUDI)
        await refresh(rt)
        await send(rt, SAUDI)


async def test_list_is_paged_by_recipient_and_channel(office: Office) -> None:
    wanted = [(SAUDI, "all"), (SAUDI, "sms"), (SAUDI, "voice"), (f"{SAUDI[:-1]}8", "sms")]
    for recipient, channel in reversed(wanted):
        await flow.suppress(office, "t", ACCOUNT_ID, recipient, channel=channel)
    found: list[tuple[str, str]] = []
    while page := await flow.list_suppressions(office, ACCOUNT_ID, found[-1] if found else ("", ""), limit=2):
        found += [(entry.recipient, entry.channel) for entry in page]
    assert found == wanted
    assert await flow.list_suppressions(office, OTHER) == []


@pytest.mark.parametrize(
    ("recipient", "changes", "account_id", "field"),
    [
        ("0501234567", {}, ACCOUNT_ID, "recipient"),
        (SAUDI, {"channel": "fax"}, ACCOUNT_ID, "channel"),
        (SAUDI, {"channel": "email"}, ACCOUNT_ID, "channel"),
        ("ali@example.com", {"channel": "sms"}, ACCOUNT_ID, "channel"),
        (SAUDI, {}, OTHER, ""),
    ],
)
async def test_entry_that_cannot_be_is_refused(
    office: Office, store_url: str, recipient: str, changes: dict[str, Any], account_id: int, field: str
) -> None:
    with pytest.raises(Refused) as error:
        await flow.suppress(office, "t", account_id, recipient, **changes)
    assert error.value.refusals[0].field == field
    assert await ask(store_url, "SELECT count(*) FROM suppression") == [(0,)]
    assert await audits(store_url) == []


async def test_entry_for_all_channels_is_not_lifted_for_one(office: Office) -> None:
    await flow.suppress(office, "t", ACCOUNT_ID, SAUDI)
    with pytest.raises(Refused) as error:
        await flow.unsuppress(office, "t", ACCOUNT_ID, SAUDI, channel="sms")
    assert error.value.refusals[0].kind is RefusalKind.NOT_FOUND
    assert len(await flow.list_suppressions(office, ACCOUNT_ID)) == 1


LISTS: list[tuple[Form, str]] = [
    (
        "csv",
        "\ufeffrecipient,channel,reason,all_traffic\r\n+966501234567,,,\r\nali@example.com,email,bounce,true\r\n"
        "12,,,\r\n905321234567,fax,,\r\n905321234567,,boredom,\r\n905321234567,,,maybe\r\n966501234567,,,\r\n",
    ),
    (
        "json",
        '[{"recipient": 966501234567}, {"recipient": "ali@example.com", "channel": "email", "reason": "bounce", '
        '"all_traffic": true}, {"recipient": "12"}, {"recipient": "905321234567", "channel": "fax"}, '
        '{"recipient": "905321234567", "reason": "boredom"}, {"recipient": "905321234567", "all_traffic": "maybe"}, '
        '{"recipient": "966501234567", "reason": null}]',
    ),
]


@pytest.mark.parametrize(("form", "text"), LISTS)
async def test_list_is_imported_and_its_bad_rows_are_told(
    office: Office, store_url: str, form: Form, text: str
) -> None:
    done = await flow.import_suppressions(
        office, "t", ACCOUNT_ID, text, form, reason=Reason.REGISTRY, source="list.csv"
    )
    assert (done.changed, done.unchanged, done.refused) == (2, 1, 4)
    assert [(fault.row, fault.field) for fault in done.faults] == [
        (3, "recipient"),
        (4, "channel"),
        (5, "reason"),
        (6, "all_traffic"),
    ]
    entries = await flow.list_suppressions(office, ACCOUNT_ID)
    assert [(each.recipient, each.channel, each.reason, each.source, each.all_traffic) for each in entries] == [
        (SAUDI, ALL, Reason.REGISTRY, "list.csv", False),
        ("ali@example.com", "email", Reason.BOUNCE, "list.csv", True),
    ]
    again = await flow.import_suppressions(
        office, "t", ACCOUNT_ID, text, form, reason=Reason.REGISTRY, source="list.csv"
    )
    assert (again.changed, again.unchanged, again.refused) == (0, 3, 4)
    assert [line[1:] for line in await audits(store_url)] == [
        ("suppression.import", f"acc_{ACCOUNT_ID}", {"source": "list.csv", "changed": 2, "refused": 4})
    ]


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("csv", "", "recipient"),
        ("csv", "number\n966501234567\n", "recipient"),
        ("csv", "recipient,colour\n966501234567,red\n", "colour"),
        ("csv", f'recipient\n"{"x" * 200_000}"\n', "line"),
        ("json", "{", "JSON"),
        ("json", '{"recipient": "966501234567"}', "JSON"),
        ("json", '[{"recipient": "966501234567"}, {}]', "row 2"),
    ],
)
async def test_list_that_cannot_be_read_is_refused_whole(
    office: Office, store_url: str, form: Form, text: str, says: str
) -> None:
    with pytest.raises(Refused) as error:
        await flow.import_suppressions(office, "t", ACCOUNT_ID, text, form)
    assert says in error.value.refusals[0].detail
    assert await ask(store_url, "SELECT count(*) FROM suppression") == [(0,)]


async def test_list_longer_than_a_page_is_imported_whole_and_refused_to_all(office: Office, rt: Runtime) -> None:
    numbers = [str(966_500_000_000 + number) for number in range(PAGE * 2 + 10)]
    done = await flow.import_suppressions(office, "t", ACCOUNT_ID, "recipient\n" + "\n".join(numbers), "csv")
    assert (done.changed, done.unchanged, done.refused) == (len(numbers), 0, 0)
    found = await refresh(rt)
    book = found.suppressions[ACCOUNT_ID][ALL]
    assert len(book) == len(numbers)
    assert all(book.find(number) == 1 for number in numbers)


# Words of people.


async def hear(rt: Runtime, text: str, sender: str = f"+{SAUDI}", account_id: int = ACCOUNT_ID) -> None:
    await flow.heard(rt, account_id, sender, keyword_of(text), "sms")
    await refresh(rt)


async def test_stop_enters_the_book_for_its_channel_and_start_lifts_it(
    rt: Runtime, office: Office, store_url: str
) -> None:
    for _ in range(2):
        await hear(rt, "STOP")
    [entry] = await flow.list_suppressions(office, ACCOUNT_ID)
    assert (entry.recipient, entry.channel, entry.reason, entry.source) == (SAUDI, "sms", Reason.OPT_OUT, "sms:stop")
    assert await refused(rt, SAUDI) == [RefusalKind.SUPPRESSED]
    await send(rt, SAUDI, sender=SENDER, category=Category.TRANSACTIONAL)
    for _ in range(2):
        await hear(rt, "start")
    await send(rt, SAUDI)
    assert [line[:2] for line in await audits(store_url)] == [
        ("recipient", "suppression.add"),
        ("recipient", "suppression.remove"),
    ]


@pytest.mark.parametrize(
    ("text", "sender", "account_id"),
    [("hello", SAUDI, ACCOUNT_ID), ("help", SAUDI, ACCOUNT_ID), ("stop", "STC", ACCOUNT_ID), ("stop", SAUDI, 0)],
)
async def test_what_is_no_wish_of_a_known_recipient_changes_nothing(
    rt: Runtime, store_url: str, text: str, sender: str, account_id: int
) -> None:
    await hear(rt, text, sender, account_id)
    assert await ask(store_url, "SELECT count(*) FROM suppression") == [(0,)]
    assert await ask(store_url, "SELECT count(*) FROM meta WHERE key = 'version'") == [(0,)]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.OPT_OUT])
async def test_start_lifts_only_what_the_persons_own_stop_had_entered(
    rt: Runtime, office: Office, reason: Reason
) -> None:
    await flow.suppress(office, "t", ACCOUNT_ID, SAUDI, channel="sms", reason=reason)
    await hear(rt, "STOP")
    await hear(rt, "START")
    assert [each.reason for each in await flow.list_suppressions(office, ACCOUNT_ID)] == [reason]


# What a process knows of it.


async def test_versions_are_given_once_however_many_ask(rt: Runtime) -> None:
    async def one() -> int:
        async with rt.store.transaction() as tx:
            version = await directory.bump(tx)
            await asyncio.sleep(0)
            return version

    assert sorted(await asyncio.gather(*(one() for _ in range(8)))) == list(range(1, 9))


async def test_change_is_read_without_reading_the_rest_again(rt: Runtime, office: Office, store_url: str) -> None:
    await flow.suppress(office, "t", ACCOUNT_ID, SAUDI)
    await flow.suppress(office, "t", ACCOUNT_ID, TURK, channel="sms", all_traffic=True)
    first = await refresh(rt)
    assert {name: len(book) for name, book in first.suppressions[ACCOUNT_ID].items()} == {"all": 1, "sms": 1}
    # A row that was changed behind the platform's back shows that only newer ones are read.
    await ask(store_url, "DELETE FROM suppression WHERE channel = 'all'")
    await flow.suppress(office, "t", ACCOUNT_ID, GERMAN)
    await flow.unsuppress(office, "t", ACCOUNT_ID, TURK, channel="sms")
    second = await refresh(rt)
    books = second.suppressions[ACCOUNT_ID]
    assert {name: len(book) for name, book in books.items()} == {"all": 2}
    assert (books["all"].find(SAUDI), books["all"].find(GERMAN)) == (1, 1)
    assert first.suppressions[ACCOUNT_ID]["all"].find(GERMAN) == 0, "the older directory is as it was"
    async with rt.store.read() as tx:
        unchanged = await directory.load(tx, second)
        fresh = await directory.load(tx)
    assert unchanged.suppressions is second.suppressions
    assert len(fresh.suppressions[ACCOUNT_ID]["all"]) == 1


async def test_directory_that_is_newer_than_the_store_is_read_anew(rt: Runtime, office: Office) -> None:
    await flow.suppress(office, "t", ACCOUNT_ID, SAUDI)
    restored = replace(make_directory(), version=1_000, suppressions={ACCOUNT_ID: {ALL: Book().changed({TURK: 1})}})
    async with rt.store.read() as tx:
        found = await directory.load(tx, restored)
    assert (found.suppressions[ACCOUNT_ID][ALL].find(SAUDI), found.suppressions[ACCOUNT_ID][ALL].find(TURK)) == (1, 0)


# Consent.


def told(status: Status = Status.ONAY, **changes: Any) -> Consent:
    given: dict[str, Any] = {
        "brand": "123456",
        "recipient": TURK,
        "recipient_type": RecipientType.BIREYSEL,
        "type": ConsentType.MESAJ,
        "status": status,
        "source": "HS_WEB",
        "consent_ms": NOON_MS - 3_600_000,
    }
    return Consent(**(given | changes))


async def test_advert_to_turkey_needs_a_yes_that_was_not_taken_back(rt: Runtime, office: Office) -> None:
    assert await refused(rt, TURK, sender=SENDER) == [RefusalKind.NO_OPT_IN]
    await send(rt, TURK, sender=SENDER, category=Category.TRANSACTIONAL)
    await flow.record_consent(office, "t", ACCOUNT_ID, told())
    await refresh(rt)
    await send(rt, TURK, sender=SENDER)
    await flow.record_consent(office, "t", ACCOUNT_ID, told(Status.RET))
    await refresh(rt)
    assert await refused(rt, TURK, sender=SENDER) == [RefusalKind.NO_OPT_IN]


async def test_no_to_one_brand_leaves_the_yes_to_another(rt: Runtime, office: Office) -> None:
    for brand in ("123456", "654321"):
        await flow.record_consent(office, "t", ACCOUNT_ID, told(brand=brand))
    await refresh(rt)
    await flow.record_consent(office, "t", ACCOUNT_ID, told(Status.RET))
    await refresh(rt)
    await send(rt, TURK, sender=SENDER)


async def test_account_may_ask_for_less_or_more_than_the_pack(rt: Runtime, office: Office, store_url: str) -> None:
    await flow.set_consent_rules(office, "t", ACCOUNT_ID, {"TR": False})
    await flow.set_consent_rules(office, "t", ACCOUNT_ID, {"SA": True})
    await refresh(rt)
    await send(rt, TURK, sender=SENDER)
    assert await refused(rt, SAUDI) == [RefusalKind.NO_OPT_IN]
    await flow.set_consent_rules(office, "t", ACCOUNT_ID, {"TR": None})
    await refresh(rt)
    assert await refused(rt, TURK, sender=SENDER) == [RefusalKind.NO_OPT_IN]
    assert [line[3] for line in await audits(store_url)] == [
        {"countries": {"TR": False}},
        {"countries": {"SA": True}},
        {"countries": {"TR": None}},
    ]
    with pytest.raises(Refused):
        await flow.set_consent_rules(office, "t", ACCOUNT_ID, {"Turkey": True})


async def test_record_keeps_every_word_and_refuses_what_the_registry_would(office: Office, store_url: str) -> None:
    await flow.record_consent(office, "t", ACCOUNT_ID, told())
    await flow.record_consent(office, "t", ACCOUNT_ID, told(Status.RET))
    for fault in (told(Status.RET), told(Status.RET, brand="1"), told(consent_ms=NOON_MS + 1)):
        with pytest.raises(Refused) as error:
            await flow.record_consent(office, "t", ACCOUNT_ID, fault)
        assert error.value.refusals[0].field in ("status", "consent_date")
    records = await flow.list_consents(office, ACCOUNT_ID)
    assert [(each.consent.status, each.is_current, each.recorded_ms) for each in records] == [
        (Status.RET, True, NOON_MS),
        (Status.ONAY, False, NOON_MS),
    ]
    assert await flow.list_consents(office, ACCOUNT_ID, before_id=records[0].id) == records[1:]
    assert await flow.list_consents(office, ACCOUNT_ID, recipient=f"+{TURK}") == records
    assert await flow.list_consents(office, ACCOUNT_ID, recipient=SAUDI) == []
    assert [line[1:3] for line in await audits(store_url)] == [("consent.record", TURK)] * 2


CONSENTS = (
    "brandCode,type,recipient,recipientType,status,source,consentDate\r\n"
    "123456,MESAJ,+905321234567,BIREYSEL,ONAY,HS_WEB,2026-09-21 10:00:00\r\n"
    "123456,MESAJ,+905321234567,BIREYSEL,RET,HS_MESAJ,2026-09-21T08:00:00Z\r\n"
    "123456,EPOSTA,Ali@example.com,TACIR,ONAY,,\r\n"
    "123456,MESAJ,+905321234568,,ONAY,HS_WEB,2020-01-01 10:00:00\r\n"
    "123456,MESAJ,+905321234569,,RET,IYS_WEB,2020-01-01 10:00:00\r\n"
    "123456,FAKS,+905321234567,,ONAY,HS_WEB,2026-09-21 10:00:00\r\n"
    "123456,MESAJ,+905321234567,,ONAY,HS_WEB,yesterday\r\n"
)


async def test_list_of_consents_is_imported_in_its_order_by_the_rules(office: Office, store_url: str) -> None:
    done = await flow.import_consents(office, "t", ACCOUNT_ID, CONSENTS, "csv")
    assert (done.changed, done.unchanged, done.refused) == (3, 0, 4)
    assert sorted((fault.row, fault.field) for fault in done.faults) == [
        (4, "consent_date"),
        (5, "status"),
        (6, "type"),
        (7, "consentDate"),
    ]
    records = await flow.list_consents(office, ACCOUNT_ID)
    assert [(each.consent.recipient, each.consent.status, each.is_current) for each in records] == [
        ("ali@example.com", Status.ONAY, True),
        (TURK, Status.RET, True),
        (TURK, Status.ONAY, False),
    ]
    assert records[1].consent.consent_ms == at("2026-09-21T11:00", TURKEY)
    assert await audits(store_url) == [
        ("t", "consent.import", f"acc_{ACCOUNT_ID}", {"source": "", "changed": 3, "refused": 4})
    ]


async def test_what_the_registry_has_is_imported_as_it_is_and_only_once(office: Office) -> None:
    done = await flow.import_consents(office, "t", ACCOUNT_ID, CONSENTS, "csv", is_from_registry=True)
    assert (done.changed, done.unchanged, done.refused) == (5, 0, 2)
    again = await flow.import_consents(
        office, "t", ACCOUNT_ID, "".join(CONSENTS.splitlines(keepends=True)[i] for i in (0, 2, 3, 4, 5)), "csv",
        is_from_registry=True,
    )  # fmt: skip
    assert (again.changed, again.unchanged, again.refused) == (0, 4, 0)


@pytest.mark.parametrize("form", ["csv", "json"])
async def test_export_is_what_an_import_reads(office: Office, form: Form) -> None:
    async with office.store.transaction() as tx:
        await accounts.add_account(tx, Account(OTHER, "Other", "active", "TR", "UTC", "tr", Rules()), NOON_MS)
    assert msgspec.json.decode("".join([piece async for piece in flow.export_consents(office, OTHER, "json")])) == []
    await flow.import_consents(office, "t", ACCOUNT_ID, CONSENTS, "csv", is_from_registry=True)
    text = "".join([piece async for piece in flow.export_consents(office, ACCOUNT_ID, form)])
    if form == "csv":
        assert "123456,MESAJ,+905321234567,BIREYSEL,RET,HS_MESAJ,2026-09-21 11:00:00\r\n" in text
    done = await flow.import_consents(office, "t", OTHER, text, form, is_from_registry=True)
    assert (done.changed, done.refused) == (4, 0)
    copies = {each.consent for each in await flow.list_consents(office, OTHER)}
    assert copies == {each.consent for each in await flow.list_consents(office, ACCOUNT_ID) if each.is_current}


# Rule packs.


DUBAI = 'country = "AE"\nvalid_from = 2026-01-01\n[hours]\nzone = "Asia/Dubai"\nopen = 07:00:00\nclose = 21:00:00\n'


async def test_pack_of_the_operator_wins_and_is_audited(rt: Runtime, office: Office, store_url: str) -> None:
    assert [(pack.country, is_set) for pack, is_set in await flow.list_rule_packs(office)] == [
        ("*", False),
        ("SA", False),
        ("TR", False),
    ]
    assert await flow.set_rule_pack(office, "t", DUBAI) == 1
    shown = await flow.show_rule_pack(office, "AE")
    assert shown.name == "AE 2026-01-01"
    assert await flow.set_rule_pack(office, "t", msgspec.structs.replace(shown, max_parts=2)) == 2
    assert (await flow.show_rule_pack(office, "AE")).max_parts == 2
    lines = await audits(store_url)
    assert [line[:3] for line in lines] == [("t", "rule_pack.set", "AE 2026-01-01")] * 2
    assert lines[1][3] == {"version": 2, "changes": {"max_parts": [0, 2]}}
    found = await refresh(rt)
    assert found.rules.pack("AE", NOON_MS).max_parts == 2


@pytest.mark.parametrize("pack", ["hours", DUBAI.replace("Asia/Dubai", "Dubai")])
async def test_pack_that_cannot_be_followed_is_not_set(office: Office, store_url: str, pack: str) -> None:
    with pytest.raises(Refused):
        await flow.set_rule_pack(office, "t", pack)
    bad = RulePack(country="XX", valid_from=datetime(2026, 1, 1, tzinfo=RIYADH).date())
    with pytest.raises(Refused):
        await flow.set_rule_pack(office, "t", bad)
    with pytest.raises(Refused):
        await flow.show_rule_pack(office, "XX")
    assert await ask(store_url, "SELECT count(*) FROM rule_pack") == [(0,)]
    assert await audits(store_url) == []


# Accepting.


async def test_suppressed_recipient_is_refused_alone_where_the_request_allows_it(rt: Runtime, office: Office) -> None:
    await flow.suppress(office, "t", ACCOUNT_ID, SAUDI)
    await refresh(rt)
    assert await refused(rt, SAUDI, GERMAN) == [RefusalKind.SUPPRESSED]
    accepted = await send(rt, SAUDI, GERMAN, allows_partial=True)
    assert [each.recipient for each in accepted.deliveries] == [GERMAN]
    assert [(number, refusal.kind) for number, refusal in accepted.refused] == [(SAUDI, RefusalKind.SUPPRESSED)]


@pytest.mark.parametrize(
    ("all_traffic", "category", "is_refused"),
    [
        (False, Category.PROMOTIONAL, True),
        (False, Category.TRANSACTIONAL, False),
        (False, Category.OTP, False),
        (True, Category.PROMOTIONAL, True),
        (True, Category.TRANSACTIONAL, True),
        (True, Category.OTP, False),
    ],
)
async def test_entry_refuses_what_it_says(
    rt: Runtime, office: Office, all_traffic: bool, category: Category, is_refused: bool
) -> None:
    await flow.suppress(office, "t", ACCOUNT_ID, GERMAN, all_traffic=all_traffic)
    await refresh(rt)
    if is_refused:
        assert await refused(rt, GERMAN, sender=SENDER, category=category) == [RefusalKind.SUPPRESSED]
    else:
        assert (await send(rt, GERMAN, sender=SENDER, category=category)).total == 1


async def test_advert_at_night_is_accepted_and_held_until_the_morning(
    rt: Runtime, clock: FakeClock, store_url: str
) -> None:
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    lane = Dispatcher(rt, Carrier()).lane
    rt.lanes[lane.name] = lane
    accepted = await send(rt, SAUDI)
    assert (accepted.state, accepted.due_ms) == (State.HELD, OPENING_MS)
    assert await deliveries(store_url) == [(SAUDI, "held", "quiet_hours", OPENING_MS + VALID_MS, OPENING_MS)]
    assert len(lane) == 0
    assert await ask(store_url, "SELECT lease_until_ms FROM job") == [(0,)]
    assert await ask(store_url, "SELECT expires_ms, due_ms FROM message") == [(OPENING_MS + VALID_MS, 0)]
    assert await ask(store_url, "SELECT held_micros FROM wallet") == [(PRICE_MICROS,)]


async def test_every_recipient_waits_for_the_hours_of_its_own_country(
    rt: Runtime, office: Office, clock: FakeClock, store_url: str
) -> None:
    await flow.set_consent_rules(office, "t", ACCOUNT_ID, {"TR": False})
    await refresh(rt)
    await clock.advance((at("2026-09-21T21:30") - NOON_MS) / 1000)  # half past nine in Riyadh and in Istanbul
    accepted = await send(rt, SAUDI, TURK, GERMAN)
    now_ms = clock.now_ms()
    assert accepted.state is State.QUEUED
    assert await deliveries(store_url) == [
        (SAUDI, "queued", "", now_ms + VALID_MS, now_ms),
        (TURK, "held", "quiet_hours", at("2026-09-22T08:00", TURKEY) + VALID_MS, at("2026-09-22T08:00", TURKEY)),
        (GERMAN, "queued", "", now_ms + VALID_MS, now_ms),
    ]


async def test_lane_in_memory_gets_what_may_go_and_not_what_is_held(
    rt: Runtime, clock: FakeClock, store_url: str
) -> None:
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    lane = Dispatcher(rt, Carrier()).lane
    rt.lanes[lane.name] = lane
    room = lane.room
    await send(rt, SAUDI, GERMAN)
    assert [outgoing.recipient for outgoing in lane.take(10)] == [GERMAN]
    assert lane.room == room
    leases = await ask(store_url, "SELECT lease_until_ms > 0 FROM job ORDER BY id")
    assert [bool(lease[0]) for lease in leases] == [False, True]


async def test_planned_advert_is_judged_by_the_time_it_is_planned_for(rt: Runtime, store_url: str) -> None:
    accepted = await send(rt, SAUDI, due_ms=NIGHT_MS)
    assert (accepted.state, accepted.due_ms) == (State.HELD, OPENING_MS)
    assert await deliveries(store_url) == [(SAUDI, "held", "quiet_hours", OPENING_MS + VALID_MS, OPENING_MS)]
    planned = await send(rt, SAUDI, due_ms=OPENING_MS)
    assert (planned.state, planned.due_ms) == (State.SCHEDULED, OPENING_MS)


async def test_hours_that_refuse_refuse(rt: Runtime, office: Office, clock: FakeClock) -> None:
    shown = await flow.show_rule_pack(office, "SA")
    assert shown.hours is not None
    await flow.set_rule_pack(
        office, "t", msgspec.structs.replace(shown, hours=msgspec.structs.replace(shown.hours, outside="refuse"))
    )
    await refresh(rt)
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    with pytest.raises(Refused) as error:
        await send(rt, SAUDI)
    [refusal] = error.value.refusals
    assert (refusal.kind, refusal.retry_after_s) == (RefusalKind.QUIET_HOURS, 8.5 * 3600)


async def test_transactional_message_at_night_is_queued(rt: Runtime, clock: FakeClock, store_url: str) -> None:
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    accepted = await send(rt, SAUDI, sender=SENDER, category=Category.TRANSACTIONAL)
    assert (accepted.state, accepted.due_ms) == (State.QUEUED, None)
    assert [row[1:3] for row in await deliveries(store_url)] == [("queued", "")]


# Leaving.


class Carrier:
    """A connector whose carrier takes everything at once."""

    def __init__(self) -> None:
        self.settings: ConnectorSettings = make_settings()
        self.sent: list[str] = []

    is_up = True

    def health(self) -> str:
        return "up"

    def room(self) -> tuple[int, int]:
        return 1_000, 0

    def reserve(self, parts: int) -> None:
        pass

    def give_back(self, parts: int) -> None:
        pass

    def on_room(self, wake: Callable[[], None]) -> None:
        pass

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def send(self, parcel: Sequence[Outgoing], report: Report) -> None:
        for outgoing in parcel:
            self.sent.append(outgoing.recipient)
            report(outgoing, Sent((str(outgoing.delivery_id),), (str(outgoing.delivery_id),)))


@asynccontextmanager
async def dispatching(rt: Runtime) -> AsyncIterator[Carrier]:
    """A connector that runs while the block does; at its end all that it began is recorded."""
    carrier = Carrier()
    dispatcher = Dispatcher(rt, carrier)
    running = asyncio.gather(dispatcher.run(), watch_lanes(rt), return_exceptions=True)
    try:
        yield carrier
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await dispatcher.drain()


async def until(rt: Runtime, clock: FakeClock, store_url: str, states: Sequence[str]) -> list[tuple[Any, ...]]:
    """Let a connector look into its lane until the deliveries are in these states; gives them."""
    async with asyncio.timeout(10):
        while True:
            rows = await deliveries(store_url)
            if [row[1] for row in rows] == list(states):
                return rows
            await clock.advance(0.1)
            await asyncio.sleep(0.005)


async def test_held_advert_leaves_by_itself_when_its_hours_open(rt: Runtime, clock: FakeClock, store_url: str) -> None:
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    await send(rt, SAUDI, GERMAN)
    async with dispatching(rt) as carrier:
        await until(rt, clock, store_url, ["held", "sent"])
        await clock.advance((OPENING_MS - clock.now_ms()) / 1000 - 5)
        for _ in range(10):
            await clock.advance(0.1)
            await asyncio.sleep(0.005)
        assert carrier.sent == [GERMAN]
        await clock.advance(5)
        await until(rt, clock, store_url, ["sent", "sent"])
    assert carrier.sent == [GERMAN, SAUDI]
    assert [row[2] for row in await deliveries(store_url)] == ["", ""]


async def test_advert_that_waited_past_the_close_is_held_with_its_validity_standing_still(
    rt: Runtime, clock: FakeClock, store_url: str
) -> None:
    await send(rt, SAUDI)
    await send(rt, SAUDI, sender=SENDER, category=Category.TRANSACTIONAL)
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    async with dispatching(rt) as carrier:
        rows = await until(rt, clock, store_url, ["held", "sent"])
    assert carrier.sent == [SAUDI]
    recipient, state, reason, expires_ms, due_ms = rows[0]
    assert (recipient, state, reason, due_ms) == (SAUDI, "held", "quiet_hours", OPENING_MS)
    left_ms = NOON_MS + VALID_MS - clock.now_ms()
    assert abs(expires_ms - OPENING_MS - left_ms) < 5_000
    events = await ask(store_url, "SELECT kind, detail FROM event WHERE kind = 'held'")
    assert events == [("held", f'{{"until_ms":{OPENING_MS}}}')]
    await look_again(rt, [row[0] for row in await ask(store_url, "SELECT id FROM delivery ORDER BY id")], "waiting")
    assert (await deliveries(store_url))[0][1:3] == ("held", "quiet_hours"), "to the sweeper it is what still waits"


async def test_recipient_who_opted_out_after_accept_gets_nothing_and_costs_nothing(
    rt: Runtime, clock: FakeClock, office: Office, store_url: str
) -> None:
    await send(rt, SAUDI, GERMAN)
    await flow.heard(rt, ACCOUNT_ID, SAUDI, "stop", "sms")
    await refresh(rt)
    async with dispatching(rt) as carrier:
        await until(rt, clock, store_url, ["failed", "sent"])
    assert carrier.sent == [GERMAN]
    assert (await deliveries(store_url))[0][2:] == ("suppressed", NOON_MS + VALID_MS, None)
    [(available, held, spent)] = await ask(store_url, "SELECT available_micros, held_micros, spent_micros FROM wallet")
    assert (available, held, spent) == (BALANCE_MICROS - PRICE_MICROS, 0, PRICE_MICROS)


async def test_large_advert_at_night_is_held_and_leaves_in_the_morning(
    rt: Runtime, clock: FakeClock, store_url: str
) -> None:
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    numbers = [str(966_500_000_000 + number) for number in range(1_001)]
    accepted = await send(rt, *numbers)
    assert (accepted.state, accepted.due_ms, accepted.total) == (State.HELD, OPENING_MS, 1_001)
    await spread(rt, accepted.message_id)
    async with dispatching(rt) as carrier:
        async with asyncio.timeout(20):
            while await ask(store_url, "SELECT count(*) FROM job WHERE due_ms = $1", OPENING_MS) != [(1_001,)]:
                await clock.advance(0.1)
                await asyncio.sleep(0.01)
        assert carrier.sent == []
        assert await ask(store_url, "SELECT DISTINCT state, reason FROM delivery") == [("held", "quiet_hours")]
        await clock.advance((OPENING_MS - clock.now_ms()) / 1000)
        await until(rt, clock, store_url, ["sent"] * 1_001)
    assert sorted(carrier.sent) == numbers


# Letting go.


async def test_held_advert_that_a_person_releases_leaves_at_night(
    rt: Runtime, clock: FakeClock, office: Office, store_url: str
) -> None:
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    accepted = await send(rt, SAUDI, GERMAN)
    assert await flow.release_held(office, "cli:root", ACCOUNT_ID, accepted.message_id) == 1
    assert await deliveries(store_url) == [
        (SAUDI, "queued", "released", NIGHT_MS + VALID_MS, NIGHT_MS),
        (GERMAN, "queued", "", NIGHT_MS + VALID_MS, NIGHT_MS),
    ]
    assert await ask(store_url, "SELECT kind, detail FROM event") == [
        ("released", '{"by":"cli:root","was":"quiet_hours"}')
    ]
    assert (await audits(store_url))[-1] == (
        "cli:root",
        "message.release",
        f"msg_{accepted.message_id}",
        {"deliveries": 1},
    )
    async with dispatching(rt) as carrier:
        await until(rt, clock, store_url, ["sent", "sent"])
    assert sorted(carrier.sent) == [GERMAN, SAUDI]


async def test_released_advert_still_asks_the_book(
    rt: Runtime, clock: FakeClock, office: Office, store_url: str
) -> None:
    await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    accepted = await send(rt, SAUDI)
    await flow.release_held(office, "t", ACCOUNT_ID, accepted.message_id)
    await flow.suppress(office, "t", ACCOUNT_ID, SAUDI)
    await refresh(rt)
    async with dispatching(rt):
        await until(rt, clock, store_url, ["failed"])


async def test_planned_advert_that_is_released_leaves_at_its_planned_time(
    rt: Runtime, office: Office, store_url: str
) -> None:
    accepted = await send(rt, SAUDI, due_ms=NIGHT_MS)
    await flow.release_held(office, "t", ACCOUNT_ID, accepted.message_id)
    assert await deliveries(store_url) == [(SAUDI, "scheduled", "released", NIGHT_MS + VALID_MS, NIGHT_MS)]


async def test_late_schedule_that_a_person_releases_leaves_now(
    rt: Runtime, clock: FakeClock, office: Office, store_url: str
) -> None:
    due_ms = NOON_MS + 60_000
    given = {"sender": SENDER, "category": Category.TRANSACTIONAL, "due_ms": due_ms}
    accepted = await send(rt, SAUDI, **given)
    await clock.advance(7_200)
    await look_again(rt, [accepted.deliveries[0].id], "late")
    assert [row[1:3] for row in await deliveries(store_url)] == [("held", "late_schedule")]
    assert (await ask(store_url, "SELECT buried_ms FROM job"))[0][0] > 0
    async with dispatching(rt) as carrier:
        await clock.advance(1)
        await asyncio.sleep(0.1)
        assert carrier.sent == []
        await flow.release_held(office, "t", ACCOUNT_ID, accepted.message_id)
        await until(rt, clock, store_url, ["sent"])
    assert carrier.sent == [SAUDI]


@pytest.mark.parametrize(("account_id", "is_held"), [(OTHER, True), (ACCOUNT_ID, False)])
async def test_what_is_not_held_or_not_ones_own_is_not_released(
    rt: Runtime, clock: FakeClock, office: Office, store_url: str, account_id: int, is_held: bool
) -> None:
    if is_held:
        await clock.advance((NIGHT_MS - NOON_MS) / 1000)
    accepted = await send(rt, SAUDI)
    before = await deliveries(store_url)
    with pytest.raises(Refused) as error:
        await flow.release_held(office, "t", account_id, accepted.message_id)
    assert error.value.refusals[0].kind is RefusalKind.NOT_FOUND
    assert await deliveries(store_url) == before
    assert await audits(store_url) == []


# What would happen.


async def test_dry_run_tells_every_decision_and_changes_nothing(rt: Runtime, store_url: str) -> None:
    submission = make_submission(SAUDI, TURK, sender=ADVERT, category=Category.PROMOTIONAL, text="Sale!")
    told_of = dict(flow.would_pass(rt.directory, ACCOUNT_ID, submission, 1, NIGHT_MS))
    assert {recipient: [(each.rule, each.outcome.value) for each in found] for recipient, found in told_of.items()} == {
        SAUDI: [
            ("suppression", "pass"),
            ("sender", "pass"),
            ("length", "pass"),
            ("hours", "hold"),
            ("consent", "pass"),
            ("opt_out_text", "warn"),
        ],
        TURK: [
            ("suppression", "pass"),
            ("sender", "pass"),
            ("length", "pass"),
            ("hours", "hold"),
            ("consent", "refuse"),
            ("opt_out_text", "warn"),
        ],
    }
    assert next(each.until_ms for each in told_of[SAUDI] if each.rule == "hours") == OPENING_MS
    assert await deliveries(store_url) == []


@pytest.mark.parametrize("category", [Category.OTP, Category.TRANSACTIONAL])
async def test_dry_run_of_what_no_rule_is_about_passes(rt: Runtime, category: Category) -> None:
    submission = make_submission(SAUDI, category=category)
    [(recipient, [decision])] = flow.would_pass(rt.directory, ACCOUNT_ID, submission, 1, NIGHT_MS)
    assert (recipient, decision.outcome.value) == (SAUDI, "pass")
