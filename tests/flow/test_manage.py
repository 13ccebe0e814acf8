"""The office's verbs: what they write, what they refuse, and that a refusal leaves nothing behind."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from berid.base.ids import IdMaker
from berid.base.secret import Vault, check_password, hash_token, is_token
from berid.domain.account import Rules, SenderState
from berid.domain.directory import Directory
from berid.domain.errors import Refused
from berid.domain.routing import Route
from berid.flow import manage
from berid.flow.manage import Office
from berid.flow.manage.people import digest_phrase
from berid.store import accounts, directory, ledger, open_store
from tests.support.database import ask

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000


class Clock:
    """A clock that stands until it is told otherwise."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def ticks_s(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the office does not wait")


class Simulated:
    """A channel of which a connector needs a host."""

    name = "sms"

    def check_settings(self, kind: str, settings: dict[str, object]) -> None:
        if kind != "smpp" or not settings.get("host"):
            raise ValueError("an smpp connector needs a host")


@pytest.fixture
async def office(store_url: str) -> AsyncIterator[Office]:
    clock = Clock()
    store = await open_store(store_url, clock)
    yield Office(store, clock, IdMaker(clock.now_ms, 31), Vault(b"k" * 32))
    await store.close()


@pytest.fixture
async def account_id(office: Office) -> int:
    return await manage.create_account(office, "t", name="Acme", home="SA", currencies=["SAR"])


@pytest.fixture
async def application_id(office: Office, account_id: int) -> int:
    return await manage.create_application(office, "t", account_id, "shop", ["sms", "otp"])


async def business(office: Office) -> Directory:
    async with office.store.read() as tx:
        return await directory.load(tx)


def told(refusal: pytest.ExceptionInfo[Refused]) -> tuple[str, str]:
    """(field, sentence) of a refusal."""
    return refusal.value.refusals[0].field, refusal.value.refusals[0].detail


async def test_new_account_has_empty_wallets_of_both_modes(office: Office) -> None:
    account_id = await manage.create_account(office, "t", name="Acme", home="TR", currencies=["TRY", "CREDIT"])
    async with office.store.read() as tx:
        wallets = await ledger.wallets(tx, account_id)
    assert [(wallet.mode, wallet.currency) for wallet in wallets] == [
        ("live", "CREDIT"),
        ("live", "TRY"),
        ("test", "CREDIT"),
        ("test", "TRY"),
    ]
    assert all(
        (each.available_micros, each.held_micros, each.spent_micros, each.credit_limit_micros) == (0, 0, 0, 0)
        for each in wallets
    )


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": " ", "home": "SA"}, "name"),
        ({"name": "A", "home": "Saudi"}, "home"),
        ({"name": "A", "home": "SA", "zone": "Asia/Mekka"}, "zone"),
        ({"name": "A", "home": "SA", "language": "fr"}, "language"),
        ({"name": "A", "home": "SA", "currencies": ["sar"]}, "currency"),
        ({"name": "A", "home": "SA", "rules": Rules(networks=("10.0.0.0/99",))}, "networks"),
        ({"name": "A", "home": "SA", "rules": Rules(countries=("SAU",))}, "countries"),
        ({"name": "A", "home": "SA", "rules": Rules(per_minute=-1)}, "per_minute"),
        ({"name": "A", "home": "SA", "rules": Rules(webhook_url="ftp://x")}, "webhook_url"),
    ],
)
async def test_account_that_cannot_be_is_refused_whole(
    office: Office, store_url: str, given: dict[str, object], field: str
) -> None:
    with pytest.raises(Refused) as refusal:
        await manage.create_account(office, "t", **given)  # type: ignore[arg-type]
    assert told(refusal)[0] == field
    assert (await ask(store_url, "SELECT count(*) FROM account")) == [(0,)]
    assert (await ask(store_url, "SELECT count(*) FROM audit")) == [(0,)]
    assert (await ask(store_url, "SELECT count(*) FROM meta")) == [(0,)]


async def test_every_change_is_audited_and_raises_the_version(office: Office, account_id: int) -> None:
    before = (await business(office)).version
    await manage.set_account_state(office, "cli:root", account_id, "suspended")
    after = await business(office)
    assert after.version == before + 1
    assert after.accounts[account_id].state == "suspended"
    async with office.store.read() as tx:
        newest = (await accounts.audit(tx, account_id, 0, 1))[0]
    assert (newest.actor, newest.action, newest.subject, newest.at_ms) == (
        "cli:root",
        "account.state",
        f"acc_{account_id}",
        NOW_MS,
    )
    assert newest.detail == '{"state":"suspended"}'


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"networks": "10.0.0.0/8, 192.0.2.1"}, {"networks": ("10.0.0.0/8", "192.0.2.1")}),
        ({"per_second": "2.5"}, {"per_second": 2.5}),
        ({"international_on": "false", "countries": ""}, {"international_on": False, "countries": ()}),
        ({"otp_country_per_minute": 7}, {"otp_country_per_minute": 7}),
    ],
)
def test_rules_are_read_from_words(changes: dict[str, object], expected: dict[str, object]) -> None:
    read = manage.read_rules(changes, Rules(api_on=False))
    assert read == Rules(api_on=False, **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"network": "x"}, {"per_minute": "often"}, {"countries": "XX"}])
def test_rules_that_cannot_be_read_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Refused):
        manage.read_rules(changes)


async def test_rules_and_services_reach_the_directory(office: Office, account_id: int, application_id: int) -> None:
    await manage.set_account_rules(office, "t", account_id, Rules(countries=("SA",)))
    await manage.set_application_rules(office, "t", account_id, application_id, Rules(pass_phrase="open sesame"))
    await manage.set_services(office, "t", account_id, application_id, ["voice"])
    await manage.set_application_state(office, "t", account_id, application_id, "suspended")
    found = await business(office)
    application = found.applications[application_id]
    assert found.accounts[account_id].rules.countries == ("SA",)
    assert application.rules.pass_phrase == digest_phrase(office.vault, " open sesame\n")
    assert (application.services, application.state) == (frozenset({"voice"}), "suspended")
    async with office.store.read() as tx:
        assert "sesame" not in str(await accounts.audit(tx, account_id, 0, 100))


async def test_bearer_token_is_kept_as_hash_and_hint(office: Office, account_id: int, application_id: int) -> None:
    made = await manage.create_bearer(office, "t", account_id, application_id, mode="live", scopes=["send", "status"])
    assert is_token(made.secret)
    assert made.secret.startswith("bl_")
    found = (await business(office)).tokens[hash_token(made.secret)]
    assert (found.id, found.mode, found.kind, found.scopes) == (
        made.id,
        "live",
        "bearer",
        frozenset({"send", "status"}),
    )
    async with office.store.read() as tx:
        record = (await accounts.tokens(tx, account_id))[0]
        assert made.secret not in str(await accounts.audit(tx, account_id, 0, 100))
    assert record.hint == made.secret[:7] + "…" + made.secret[-4:]


async def test_api_key_has_the_shape_of_turkeysms(office: Office, account_id: int, application_id: int) -> None:
    made = await manage.create_api_key(office, "t", account_id, application_id, mode="test")
    assert re.fullmatch("[0-9a-f]{32}", made.secret)
    assert (await business(office)).tokens[hash_token(made.secret)].kind == "api_key"


async def test_smpp_login_opens_with_its_password(office: Office, account_id: int, application_id: int) -> None:
    made = await manage.create_smpp_login(office, "t", account_id, application_id, mode="test", system_id="acme")
    found = (await business(office)).logins["acme"]
    assert len(made.secret) == 8
    assert check_password(made.secret, found.hash)
    with pytest.raises(Refused) as refusal:
        await manage.create_smpp_login(office, "t", account_id, application_id, mode="test", system_id="acme")
    assert told(refusal)[0] == "system_id"


async def test_login_brings_the_endpoint_through_which_its_binds_are_told(
    office: Office, account_id: int, application_id: int
) -> None:
    for system_id in ("first", "second"):
        await manage.create_smpp_login(office, "t", account_id, application_id, mode="test", system_id=system_id)
    endpoints = (await business(office)).endpoints[account_id]
    assert [(each.id, each.kind, each.application_id) for each in endpoints] == [
        (application_id, "smpp", application_id)
    ]


@pytest.mark.parametrize("system_id", ["", "a" * 16, "a b", "ünal"])
async def test_system_id_must_fit_the_protocol(
    office: Office, account_id: int, application_id: int, system_id: str
) -> None:
    with pytest.raises(Refused):
        await manage.create_smpp_login(office, "t", account_id, application_id, mode="test", system_id=system_id)


async def test_rotated_token_lives_on_for_the_overlap(office: Office, account_id: int, application_id: int) -> None:
    old = await manage.create_bearer(
        office, "t", account_id, application_id, mode="test", scopes=["send"], label="till"
    )
    new = await manage.rotate_token(office, "t", account_id, old.id, 24)
    found = await business(office)
    before, after = found.tokens[hash_token(old.secret)], found.tokens[hash_token(new.secret)]
    assert before.is_live_at(NOW_MS + DAY_MS - 1)
    assert not before.is_live_at(NOW_MS + DAY_MS)
    assert after == replace(before, id=new.id, hash=hash_token(new.secret), expires_ms=0)


async def test_rotation_never_lengthens_a_life(office: Office, account_id: int, application_id: int) -> None:
    ends_ms = NOW_MS + 1_000
    old = await manage.create_bearer(office, "t", account_id, application_id, mode="test", expires_ms=ends_ms)
    new = await manage.rotate_token(office, "t", account_id, old.id, 24)
    found = await business(office)
    assert {found.tokens[hash_token(each.secret)].expires_ms for each in (old, new)} == {ends_ms}


async def test_rotated_smpp_login_gets_another_password_at_once(
    office: Office, account_id: int, application_id: int
) -> None:
    old = await manage.create_smpp_login(office, "t", account_id, application_id, mode="test", system_id="acme")
    with pytest.raises(Refused):
        await manage.rotate_token(office, "t", account_id, old.id, 24)
    new = await manage.rotate_token(office, "t", account_id, old.id, 0)
    stored = (await business(office)).logins["acme"].hash
    assert (new.id, new.login) == (old.id, "acme")
    assert check_password(new.secret, stored)
    assert not check_password(old.secret, stored)


async def test_revoked_token_is_dead_and_stays_so(office: Office, account_id: int, application_id: int) -> None:
    made = await manage.create_bearer(office, "t", account_id, application_id, mode="test")
    await manage.revoke_token(office, "t", account_id, made.id)
    assert not (await business(office)).tokens[hash_token(made.secret)].is_live_at(NOW_MS)
    with pytest.raises(Refused):
        await manage.revoke_token(office, "t", account_id, made.id)
    with pytest.raises(Refused):
        await manage.rotate_token(office, "t", account_id, made.id)


async def test_what_belongs_to_another_account_is_not_found(
    office: Office, account_id: int, application_id: int
) -> None:
    made = await manage.create_bearer(office, "t", account_id, application_id, mode="test")
    sender_id = await manage.request_sender(office, "t", account_id, "sms", "Acme")
    await manage.assign_number(office, "t", "966800", account_id)
    other = await manage.create_account(office, "t", name="Other", home="TR")
    attempts = [
        manage.create_bearer(office, "t", other, application_id, mode="test"),
        manage.rotate_token(office, "t", other, made.id),
        manage.revoke_token(office, "t", other, made.id),
        manage.set_services(office, "t", other, application_id, ["sms"]),
        manage.set_application_rules(office, "t", other, application_id, Rules()),
        manage.move_sender(office, "t", other, sender_id, SenderState.APPROVED),
        manage.top_up(office, "t", other, "test", "SAR", 1),
        manage.create_endpoint(office, "t", other, application_id, "https://example.com/"),
        manage.assign_number(office, "t", "966801", other, application_id),
        manage.assign_number(office, "t", "966800", other),
        manage.release_number(office, "t", other, "966800"),
    ]
    version = (await business(office)).version
    for attempt in attempts:
        with pytest.raises(Refused):
            await attempt
    assert (await business(office)).version == version


@pytest.mark.parametrize(
    ("channel", "name", "country", "category", "is_good"),
    [
        ("sms", "Berid", "", "any", True),
        ("sms", "8507013986", "TR", "any", True),
        ("sms", "966500000000", "", "any", True),
        ("sms", "TwelveLetter", "", "any", False),
        ("sms", "بريد", "", "any", False),
        ("sms", " Berid", "", "any", False),
        ("sms", "Berid\n", "", "any", False),
        ("sms", "", "", "any", False),
        ("sms", "Berid", "XX", "any", False),
        ("sms", "Berid", "", "otp", False),
        ("sms", "Berid-AD", "SA", "promotional", True),
        ("sms", "EightLet-AD", "SA", "promotional", True),
        ("sms", "NineLette-AD", "SA", "promotional", False),
        ("sms", "Berid", "SA", "promotional", False),
        ("sms", "Berid-AD", "SA", "transactional", False),
        ("sms", "Berid-AD", "", "any", False),
        ("sms", "-AD", "SA", "promotional", False),
        ("sms", "Berid", "TR", "promotional", True),
        ("sms", "My Shop.1-*", "TR", "any", True),
        ("sms", "My_Shop", "TR", "any", False),
        ("sms", "My", "TR", "any", False),
        ("sms", "My", "SA", "any", True),
        ("email", "news@example.com", "", "any", True),
        ("email", "Shop <news@example.com>", "", "any", False),
        ("voice", "966112345678", "", "any", True),
        ("voice", "Berid", "", "any", False),
        ("fax", "Berid", "", "any", False),
    ],
)
def test_names_that_could_be_approved(channel: str, name: str, country: str, category: str, is_good: bool) -> None:
    if is_good:
        manage.check_name(channel, name, country, category)
    else:
        with pytest.raises(Refused):
            manage.check_name(channel, name, country, category)


async def test_sender_name_goes_its_way(office: Office, account_id: int) -> None:
    sender_id = await manage.request_sender(office, "t", account_id, "sms", "Acme", is_draft=True)
    for state, reason, expires_ms in [
        (SenderState.SUBMITTED, "", 0),
        (SenderState.NEEDS_INFO, "the licence is missing", 0),
        (SenderState.SUBMITTED, "", 0),
        (SenderState.APPROVED, "", NOW_MS + DAY_MS),
        (SenderState.APPROVED, "", NOW_MS + 2 * DAY_MS),
        (SenderState.SUSPENDED, "complaints", 0),
        (SenderState.WITHDRAWN, "", 0),
    ]:
        await manage.move_sender(office, "t", account_id, sender_id, state, reason=reason, expires_ms=expires_ms)
        async with office.store.read() as tx:
            record = await accounts.sender(tx, account_id, sender_id)
        assert record is not None
        assert (record.state, record.reason, record.expires_ms) == (state.value, reason, expires_ms)


@pytest.mark.parametrize(
    ("before", "state", "more"),
    [
        (SenderState.SUBMITTED, SenderState.DRAFT, {}),
        (SenderState.SUBMITTED, SenderState.EXPIRED, {}),
        (SenderState.SUBMITTED, SenderState.REJECTED, {}),
        (SenderState.SUBMITTED, SenderState.APPROVED, {"expires_ms": NOW_MS}),
        (SenderState.WITHDRAWN, SenderState.APPROVED, {}),
        (SenderState.APPROVED, SenderState.SUBMITTED, {}),
        (SenderState.APPROVED, SenderState.WITHDRAWN, {"expires_ms": NOW_MS + 1}),
    ],
)
async def test_moves_that_are_not_allowed_change_nothing(
    office: Office, account_id: int, before: SenderState, state: SenderState, more: dict[str, int]
) -> None:
    sender_id = await manage.request_sender(office, "t", account_id, "sms", "Acme")
    if before is not SenderState.SUBMITTED:
        await manage.move_sender(office, "t", account_id, sender_id, before)
    with pytest.raises(Refused):
        await manage.move_sender(office, "t", account_id, sender_id, state, **more)
    async with office.store.read() as tx:
        record = await accounts.sender(tx, account_id, sender_id)
    assert record is not None
    assert record.state == before.value


async def test_same_name_is_asked_for_once_a_country(office: Office, account_id: int) -> None:
    await manage.request_sender(office, "t", account_id, "sms", "Acme")
    await manage.request_sender(office, "t", account_id, "sms", "Acme", country="TR")
    with pytest.raises(Refused):
        await manage.request_sender(office, "t", account_id, "sms", "Acme")
    async with office.store.read() as tx:
        assert [each.country for each in await accounts.senders(tx, account_id)] == ["", "TR"]


CSV = (
    "prefix,price,category,operator,from,until\n,0.05,,,,\n966,0.026,,,,\n966,0.02,promotional,,2026-01-01,2027-01-01\n"
)


async def test_prices_are_imported_with_their_difference(office: Office, account_id: int) -> None:
    list_id = await manage.create_price_list(office, "t", "Retail", "sms", "SAR")
    await manage.use_price_list(office, "t", account_id, list_id, 1)
    dry = await manage.import_prices(office, "t", list_id, CSV, is_dry_run=True)
    assert (len(dry.added), await priced(office, account_id, "966500000000")) == (3, None)
    assert await manage.import_prices(office, "t", list_id, CSV) == dry
    assert await priced(office, account_id, "966500000000") == 26_000
    assert await priced(office, account_id, "905320000000") == 50_000
    again = await manage.import_prices(office, "t", list_id, CSV)
    assert (again.added, again.changed, again.removed, again.unchanged) == ((), (), (), 3)

    diff = await manage.import_prices(office, "t", list_id, "prefix,price\n966,0.03\n90,0.01\n")
    assert [row.prefix for row in diff.added] == ["90"]
    assert [(before.amount_micros, after.amount_micros) for before, after in diff.changed] == [(26_000, 30_000)]
    assert [(row.prefix, row.category) for row in diff.removed] == [("", ""), ("966", "promotional")]
    assert await priced(office, account_id, "966500000000") == 30_000
    assert await priced(office, account_id, "4930000000") is None


async def test_whoever_asks_about_routes_does_not_read_the_books_of_people(
    office: Office, account_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unread(*_: object) -> None:
        raise AssertionError("a book was read")

    monkeypatch.setattr("berid.store.consent.load_books", unread)
    monkeypatch.setattr("berid.store.consent.load_consents", unread)
    assert (await manage.explain(office, "966500000000", "otp", "live", account_id)).route == ""


async def priced(office: Office, account_id: int, number: str) -> int | None:
    found = await manage.explain(office, number, "transactional", "test", account_id)
    return found.price.unit_micros if found.price else None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names its columns"),
        ("prefix,amount\n966,1", "names its columns"),
        ("prefix,price\n+966,1", "line 2"),
        ("prefix,price\n966,1\n966,2", "line 3 repeats line 2"),
        ("prefix,price\n966,much", "line 2"),
        ("prefix,price\n966,-1", "line 2"),
        ("prefix,price\n966,0.0000001", "line 2"),
        ("prefix,price\n966", "line 2"),
        ("prefix,price\n966,1,2", "line 2"),
        ("prefix,price,category\n966,1,adverts", "line 2"),
        ("prefix,price,from\n966,1,soon", "line 2"),
        ("prefix,price,from,until\n966,1,2026-02-01,2026-01-01", "line 2"),
        ('prefix,price\n"966"x,1', "line 2"),
    ],
)
async def test_price_file_that_cannot_be_read_names_its_line(office: Office, text: str, said: str) -> None:
    list_id = await manage.create_price_list(office, "t", "Retail", "sms", "SAR")
    await manage.import_prices(office, "t", list_id, "prefix,price\n1,1\n")
    with pytest.raises(Refused) as refusal:
        await manage.import_prices(office, "t", list_id, text)
    assert said in told(refusal)[1]
    async with office.store.read() as tx:
        assert len(await accounts.price_rows(tx, list_id)) == 1


async def test_order_of_lists_decides_which_wallet_pays(office: Office, account_id: int) -> None:
    credits_id = await manage.create_price_list(office, "t", "Credits", "sms", "CREDIT")
    lira_id = await manage.create_price_list(office, "t", "Lira", "sms", "TRY", "delivered")
    await manage.import_prices(office, "t", credits_id, "prefix,price\n90,1\n")
    await manage.import_prices(office, "t", lira_id, "prefix,price\n,0.9\n90,0.1\n")
    await manage.use_price_list(office, "t", account_id, credits_id, 1)
    await manage.use_price_list(office, "t", account_id, lira_id, 2)

    async def pays(number: str) -> tuple[str, str]:
        found = await manage.explain(office, number, "otp", "test", account_id)
        return found.pays, found.price_list

    assert await pays("905321234567") == ("CREDIT", "Credits")
    assert await pays("966501234567") == ("TRY", "Lira")
    await manage.use_price_list(office, "t", account_id, credits_id, 3)
    assert await pays("905321234567") == ("TRY", "Lira")
    await manage.drop_price_list(office, "t", account_id, lira_id)
    assert await pays("905321234567") == ("CREDIT", "Credits")


async def test_default_list_serves_whoever_has_none(office: Office, account_id: int) -> None:
    list_id = await manage.create_price_list(office, "t", "Default", "sms", "SAR")
    await manage.import_prices(office, "t", list_id, "prefix,price\n,0.9\n")
    await manage.use_price_list(office, "t", 0, list_id, 1)
    assert await priced(office, account_id, "966501234567") == 900_000


async def test_price_list_name_is_unique_in_its_channel(office: Office) -> None:
    await manage.create_price_list(office, "t", "Retail", "sms", "SAR")
    await manage.create_price_list(office, "t", "Retail", "voice", "SAR")
    with pytest.raises(Refused):
        await manage.create_price_list(office, "t", "Retail", "sms", "TRY")


async def simulator(office: Office, name: str = "sim", mode: str = "test") -> int:
    settings = {"host": "127.0.0.1", "port": 1, "password": "hush"}
    return await manage.create_connector(office, "t", name, Simulated(), "smpp", mode, settings)  # type: ignore[arg-type]


async def test_secrets_of_a_connector_are_sealed(office: Office, store_url: str) -> None:
    connector_id = await simulator(office)
    assert "hush" not in str(await ask(store_url, "SELECT settings FROM connector"))
    assert "hush" not in str(await ask(store_url, "SELECT detail FROM audit"))
    first = (await business(office)).connectors[connector_id].settings
    assert office.vault.open(str(first["password"]).removeprefix("sealed:"), "connector") == "hush"
    await manage.update_connector(office, "t", connector_id, Simulated(), {"port": 2})  # type: ignore[arg-type]
    assert (await business(office)).connectors[connector_id].settings == {**first, "port": 2}
    with pytest.raises(Refused) as refusal:
        await manage.update_connector(office, "t", connector_id, Simulated(), {"host": None})  # type: ignore[arg-type]
    assert told(refusal) == ("settings", "an smpp connector needs a host")


async def test_connector_changes_state(office: Office) -> None:
    connector_id = await simulator(office)
    for state in ("paused", "draining", "off", "on"):
        await manage.set_connector_state(office, "t", connector_id, state)
        assert (await business(office)).connectors[connector_id].state == state
    for wrong_id, state in ((connector_id, "asleep"), (1, "on")):
        with pytest.raises(Refused):
            await manage.set_connector_state(office, "t", wrong_id, state)
    with pytest.raises(Refused):
        await simulator(office)


def a_route(connector_id: int, **more: object) -> Route:
    route = Route(0, "test", 1, "test", "sms", (connector_id,))
    return replace(route, **more)  # type: ignore[arg-type]


async def test_test_traffic_cannot_be_routed_to_live_connectors(office: Office) -> None:
    live = await simulator(office, "carrier", "live")
    with pytest.raises(Refused):
        await manage.create_route(office, "t", a_route(live))
    route_id = await manage.create_route(office, "t", a_route(live, mode="live"))
    with pytest.raises(Refused):
        await manage.update_route(office, "t", a_route(live, id=route_id))


@pytest.mark.parametrize(
    "more",
    [
        {"name": ""},
        {"mode": "trial"},
        {"connectors": ()},
        {"connectors": (7,)},
        {"countries": frozenset({"Saudi"})},
        {"prefixes": ("+966",)},
        {"categories": frozenset({"adverts"})},
    ],
)
async def test_route_that_cannot_be_followed_is_refused(office: Office, more: dict[str, object]) -> None:
    connector_id = await simulator(office)
    with pytest.raises(Refused):
        await manage.create_route(office, "t", a_route(connector_id, **more))
    assert (await business(office)).routes == ()


async def test_explain_reads_numbers_as_people_write_them(office: Office, account_id: int) -> None:
    assert (await manage.explain(office, "+966 50 123 4567", "otp", "test", account_id)).number == "966501234567"
    with pytest.raises(Refused):
        await manage.explain(office, "abc", "otp", "test", account_id)


async def test_explain_says_of_each_route_why_not(office: Office, account_id: int) -> None:
    connector_id = await simulator(office)
    spare_id = await simulator(office, "spare")
    both = (connector_id, spare_id)
    await manage.create_route(office, "t", a_route(0, name="turkey", connectors=both, countries=frozenset({"TR"})))
    second = a_route(0, name="otp", rank=2, connectors=both, categories=frozenset({"otp"}))
    second_id = await manage.create_route(office, "t", second)
    await manage.create_route(office, "t", a_route(connector_id, name="rest", rank=3))
    found = await manage.explain(office, "966501234567", "otp", "test", account_id)
    assert [(each.name, each.why_not) for each in found.routes] == [
        ("turkey", "does not serve SA"),
        ("otp", ""),
        ("rest", ""),
    ]
    assert (found.route, found.country, found.connectors) == ("otp", "SA", (("sim", "on"), ("spare", "on")))
    assert (found.price, found.pays) == (None, "")

    await manage.set_route_state(office, "t", second_id, "off")
    assert (await manage.explain(office, "966501234567", "otp", "test", account_id)).route == "rest"
    await manage.set_route_state(office, "t", second_id, "on")
    await manage.update_route(office, "t", replace(second, id=second_id, rank=9))
    assert (await manage.explain(office, "966501234567", "otp", "test", account_id)).route == "rest"
    assert (await manage.explain(office, "966501234567", "otp", "live", account_id)).route == ""


async def test_number_goes_to_its_account_until_released(office: Office, account_id: int, application_id: int) -> None:
    await manage.assign_number(office, "t", "966800", account_id)
    await manage.assign_number(office, "t", "966800", account_id, application_id)
    assert (await business(office)).numbers == {"966800": (account_id, application_id)}
    await manage.release_number(office, "t", account_id, "966800")
    assert (await business(office)).numbers == {}


async def test_endpoint_keeps_its_secret_sealed(
    office: Office, account_id: int, application_id: int, store_url: str
) -> None:
    endpoint_id, secret = await manage.create_endpoint(
        office, "t", account_id, application_id, "https://Example.com:8443/x?k=1", ["message.sent"], 10, "till"
    )
    assert secret.startswith("whsec_")
    endpoint = (await business(office)).endpoint_by_id[endpoint_id]
    assert office.vault.open(endpoint.sealed_secret, "callback") == secret
    assert (endpoint.host, endpoint.batch_max, endpoint.events) == ("example.com:8443", 10, {"message.sent"})
    assert "k=1" not in str(await ask(store_url, "SELECT detail FROM audit"))


@pytest.mark.parametrize(
    "given",
    [
        {"url": "https://127.0.0.1/"},
        {"url": "ftp://example.com/"},
        {"url": "https://example.com/", "events": ["message.lost"]},
        {"url": "https://example.com/", "batch_max": 501},
    ],
)
async def test_endpoint_that_cannot_be_told_is_refused(
    office: Office, account_id: int, given: dict[str, object]
) -> None:
    with pytest.raises(Refused):
        await manage.create_endpoint(office, "t", account_id, 0, **given)  # type: ignore[arg-type]
    assert (await business(office)).endpoint_by_id == {}
