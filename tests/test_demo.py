"""The demo: what it seeds, that a second start changes nothing, and what it tells of itself."""

import json
import stat
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from berid import demo
from berid.base.clock import SystemClock
from berid.base.ids import IdMaker
from berid.base.secret import Vault, check_password, hash_token
from berid.channels.sms.settings import read_settings
from berid.channels.sms.simulator import Carrier, CarrierSettings, HandsetMessage, Submitted
from berid.config import Config, Http, load
from berid.domain.errors import Refused
from berid.flow import manage
from berid.flow.manage import Office
from berid.store import directory, ledger, open_store
from berid.wire.smpp.pdu import SubmitSm
from tests.support.builders import FakeClock
from tests.support.database import ask


class Sms:
    """The channel as far as the demo's seed needs it."""

    name = "sms"

    def check_settings(self, kind: str, settings: dict[str, object]) -> None:
        read_settings(settings)


@pytest.fixture
async def office(store_url: str) -> AsyncIterator[Office]:
    clock = SystemClock()
    store = await open_store(store_url, clock)
    yield Office(store, clock, IdMaker(clock.now_ms, 31), Vault(b"k" * 32))
    await store.close()


def a_carrier(port: int) -> Carrier:
    """A carrier that does not listen; only its settings are read."""
    carrier = Carrier(CarrierSettings(accounts={demo.CARRIER_LOGIN: f"pass{port}"}))
    carrier.port = port
    return carrier


async def seed(office: Office, folder: Path, port: int = 5_000) -> demo.Tokens:
    return await demo.seed(office, Sms(), a_carrier(port), folder / "demo.json")  # type: ignore[arg-type]


async def business(office: Office) -> directory.Directory:
    async with office.store.read() as tx:
        return await directory.load(tx)


async def test_seeded_tokens_belong_to_their_accounts(office: Office, tmp_path: Path) -> None:
    tokens = await seed(office, tmp_path)
    found = await business(office)
    bearer, key = found.tokens[hash_token(tokens.bearer_token)], found.tokens[hash_token(tokens.api_key)]
    assert (found.accounts[bearer.account_id].name, bearer.kind, bearer.mode) == ("Demo", "bearer", "test")
    assert (found.accounts[key.account_id].name, key.kind, key.mode) == ("Demo TR", "api_key", "test")
    assert found.logins["demo"].account_id == bearer.account_id
    assert check_password(tokens.smpp_password, found.logins["demo"].hash)
    assert found.applications[bearer.application_id].services == {"sms", "voice", "email", "whatsapp", "otp"}
    for account_id in (bearer.account_id, key.account_id):
        states = {name.name: (name.state, name.category) for name in found.senders_of(account_id, "sms")}
        assert states == {"Berid": ("approved", "any"), "Berid-AD": ("approved", "promotional")}


@pytest.mark.parametrize(
    ("account", "number", "unit_micros", "currency"),
    [
        ("Demo", "966501234567", 26_000, "SAR"),
        ("Demo", "905321234567", 50_000, "SAR"),
        ("Demo TR", "905321234567", 1_000_000, "CREDIT"),
        ("Demo TR", "966501234567", 500_000, "TRY"),
    ],
)
async def test_each_account_pays_in_its_way(
    office: Office, tmp_path: Path, account: str, number: str, unit_micros: int, currency: str
) -> None:
    await seed(office, tmp_path)
    account_id = next(each.id for each in (await business(office)).accounts.values() if each.name == account)
    found = await manage.explain(office, number, "transactional", "test", account_id)
    assert found.price is not None
    assert (found.price.unit_micros, found.pays) == (unit_micros, currency)
    assert found.connectors == (("simulator", "on"),)
    async with office.store.read() as tx:
        assert await manage.verify_ledger(tx) == []
        wallet = await manage.wallet_of(tx, account_id, "test", currency)
    assert wallet.available_micros == 1_000_000_000
    assert (await manage.explain(office, number, "transactional", "live", account_id)).route == ""


async def test_a_trial_credit_can_be_claimed_once(office: Office, tmp_path: Path) -> None:
    await seed(office, tmp_path)
    await seed(office, tmp_path)
    account_id = next(iter((await business(office)).accounts))
    entered = await manage.claim_trial(office, "somebody", account_id, "taqnyat")
    assert entered.available_micros == 1_000_000
    with pytest.raises(Refused):
        await manage.claim_trial(office, "somebody", account_id, "taqnyat")


async def test_second_start_gives_the_same_and_only_moves_the_connector(
    office: Office, tmp_path: Path, store_url: str
) -> None:
    first = await seed(office, tmp_path, 5_000)
    tables = ("account", "application", "token", "sender_name", "wallet", "ledger_entry", "price", "price_use", "route")
    before = [await ask(store_url, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]
    second = await seed(office, tmp_path, 6_000)
    assert second == first
    assert [await ask(store_url, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables] == before
    connector = next(iter((await business(office)).connectors.values()))
    settings = read_settings(connector.settings, office.vault)
    assert (settings.port, settings.password) == (6_000, "pass6000")


async def test_lost_file_costs_new_tokens_and_nothing_else(office: Office, tmp_path: Path, store_url: str) -> None:
    first = await seed(office, tmp_path)
    (tmp_path / "demo.json").unlink()
    second = await seed(office, tmp_path)
    assert second.bearer_token != first.bearer_token
    found = await business(office)
    assert hash_token(second.bearer_token) in found.tokens
    assert hash_token(second.api_key) in found.tokens
    assert check_password(second.smpp_password, found.logins["demo"].hash)
    assert await ask(store_url, "SELECT count(*) FROM account") == [(2,)]


async def test_half_a_seed_is_completed(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(demo, "_way_out", None)
        with pytest.raises(TypeError):
            await seed(office, tmp_path)
    tokens = await seed(office, tmp_path)
    account_id = (await business(office)).tokens[hash_token(tokens.bearer_token)].account_id
    async with office.store.read() as tx:
        wallets = await ledger.wallets(tx, account_id)
    assert sorted((each.mode, each.available_micros) for each in wallets) == [("live", 0), ("test", 1_000_000_000)]
    assert (await manage.explain(office, "966501234567", "otp", "test", account_id)).route == "test"


async def test_database_in_earnest_is_left_alone(office: Office, tmp_path: Path, store_url: str) -> None:
    await manage.create_account(office, "t", name="Acme", home="SA")
    with pytest.raises(demo.InEarnest):
        await seed(office, tmp_path)
    assert await ask(store_url, "SELECT name FROM account") == [("Acme",)]
    assert list(tmp_path.glob("demo*")) == []


async def test_tokens_are_kept_from_other_users(office: Office, tmp_path: Path) -> None:
    tokens = await seed(office, tmp_path)
    file = tmp_path / "demo.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["bearer_token"] == tokens.bearer_token
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".demo")] == []


@pytest.mark.parametrize(
    ("env", "http_port", "smpp_port"),
    [
        ({}, 8080, 0),
        ({"BERID_PORT": "0"}, 0, 0),
        ({"BERID_SMPP_PORT": "2775"}, 8080, 2775),
        ({"BERID_KEY": "ab" * 32}, 8080, 0),
    ],
)
def test_only_the_web_port_is_fixed_unless_others_are_set(env: dict[str, str], http_port: int, smpp_port: int) -> None:
    settled = demo.settle(load(None, env, {}))
    assert (settled.http.port, settled.smpp.port, settled.metrics.port) == (http_port, smpp_port, 0)
    assert settled.key == env.get("BERID_KEY", "")


def test_loopback_may_be_called_in_the_demo_only() -> None:
    def may_be_called(config: Config, address: str) -> bool:
        return any(ip_address(address) in network for network in config.net.allowed_networks)

    for address in ("127.0.0.1", "::1"):
        assert may_be_called(demo.settle(Config()), address)
        assert not may_be_called(Config(), address)
    assert not may_be_called(demo.settle(Config()), "10.0.0.1")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
        ("example.com", "http://example.com:8080"),
    ],
)
def test_ready_object_names_what_can_be_reached(host: str, url: str) -> None:
    class App:
        config = Config(http=Http(host=host))

        class ports:  # noqa: N801
            http, smpp = 8080, 2775

    tokens = demo.Tokens(bearer_token="bt_x", api_key="ab", smpp_password="pw")
    ready = demo.describe(App(), a_carrier(5_000), tokens)  # type: ignore[arg-type]
    assert ready == {
        "base_url": url,
        "portal_url": None,
        "bearer_token": "bt_x",
        "api_key": "ab",
        "sender_name": "Berid",
        "email_from": None,
        "caller_id": None,
        "smpp": {"host": "127.0.0.1", "port": 2775, "system_id": "demo", "password": "pw"},
        "carrier": {"smpp_port": 5000, "smtp_port": None, "sip_port": None, "graph_url": None},
    }
    assert f"curl -X POST {url}/v1/messages -H 'Authorization: Bearer bt_x'" in demo.welcome(ready)
    assert "is shown here" not in demo.welcome(ready)
    assert demo.welcome(ready, has_reader=True).endswith("is shown here:\n\n")


def on_handset(number: str, sender: str, text: bytes) -> HandsetMessage:
    pdu = SubmitSm(source_addr=sender, destination_addr=number, short_message=text)
    return HandsetMessage(0, (Submitted(0, "demo", pdu),))


def test_who_watches_sees_what_arrives_on_a_handset() -> None:
    seen: list[str] = []
    handsets = demo.Handsets(seen.append, FakeClock())
    handsets.show(on_handset("966500000001", "Berid", b"hello"))
    assert seen == ["  966500000001 has a message from Berid: hello\n"]


def test_a_message_does_nothing_to_the_terminal_that_shows_it() -> None:
    seen: list[str] = []
    handsets = demo.Handsets(seen.append, FakeClock())
    handsets.show(on_handset("966500000001", "Berid", b"two\nlines\r"))
    assert seen == ["  966500000001 has a message from Berid: two lines \n"]


async def test_of_many_messages_a_few_are_shown_and_the_others_counted() -> None:
    seen: list[str] = []
    clock = FakeClock()
    handsets = demo.Handsets(seen.append, clock)
    for _ in range(demo.SHOWN_PER_S + 1_500):
        handsets.show(on_handset("966500000001", "Berid", b"hello"))
    assert len(seen) == demo.SHOWN_PER_S
    await clock.advance(1.0)
    handsets.show(on_handset("966500000002", "Berid", b"later"))
    assert seen[-2:] == ["  and 1,500 more\n", "  966500000002 has a message from Berid: later\n"]
