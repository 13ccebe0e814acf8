"""The whole platform on one machine with a simulated carrier: what `berid demo` and `make run` start.

Two accounts are made once, with test money, tokens, sender names and prices: *Demo* pays riyals for everything, *Demo TR* pays
with credits inside Türkiye and with liras abroad. The carrier is a real SMPP server inside this process (`channels.sms.simulator`
says which numbers fail in which way). Nothing leaves the machine: test traffic reaches only the simulator.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec

from berid import channels
from berid.app import App, lock_data, serve
from berid.base.clock import Clock, SystemClock
from berid.base.money import MICROS
from berid.base.secret import check_password, hash_token
from berid.channels.sms.simulator import Carrier, CarrierSettings, HandsetMessage
from berid.config import DEFAULT_KEY_FILE, Config
from berid.domain.account import SenderState
from berid.domain.directory import Directory
from berid.domain.routing import Route
from berid.flow import manage
from berid.flow.manage import Office, open_office
from berid.flow.ports import Channel
from berid.store import accounts, directory, schema, topups

ACTOR = "demo"
SENDER = "Berid"
ADVERT_SENDER = "Berid-AD"
CARRIER_LOGIN = "berid"
CUSTOMER_LOGIN = "demo"
BONUS_MICROS = 1_000 * MICROS
TRIAL_MICROS = 1 * MICROS

PRICES = {
    "Demo SAR": ("SAR", "prefix,price\n,0.05\n966,0.026\n"),
    "Demo credits": ("CREDIT", "prefix,price\n90,1\n"),
    "Demo TRY": ("TRY", "prefix,price\n,0.5\n"),
}
"""Currency and rows of the price lists, by name."""

SHOWN_PER_S = 10
"""Messages on handsets that are shown in a second; of more, only how many."""

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
"""Where callbacks and fetches may go in the demo, and only there: the tester's own machine."""


class InEarnest(Exception):
    """The database holds accounts that are not the demo's: it is not the demo's to write to."""


class Tokens(msgspec.Struct, kw_only=True):
    """What the demo has given out; kept in `demo.json` in the data folder, so that a second run gives the same."""

    bearer_token: str = ""
    api_key: str = ""
    smpp_password: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """One account of the demo: `lists` are the price lists that it buys by, in order."""

    name: str
    home: str
    zone: str
    language: str
    lists: tuple[str, ...]


DEMO = Account("Demo", "SA", "Asia/Riyadh", "en", ("Demo SAR",))
DEMO_TR = Account("Demo TR", "TR", "Europe/Istanbul", "tr", ("Demo credits", "Demo TRY"))


class Handsets:
    """Shows the person who started the demo what arrives on the simulated handsets; a load test must not drown the rest."""

    def __init__(self, say: Callable[[str], None], clock: Clock) -> None:
        self._say = say
        self._clock = clock
        self._second = 0
        self._count = 0

    def show(self, message: HandsetMessage) -> None:
        """One line for a message, made of what a terminal prints and never obeys."""
        second = int(self._clock.ticks_s())
        if second != self._second:
            if self._count > SHOWN_PER_S:
                self._say(f"  and {self._count - SHOWN_PER_S:,} more\n")
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= SHOWN_PER_S:
            line = f"  {message.number} has a message from {message.sender}: {message.text}"
            self._say("".join([each if each.isprintable() else " " for each in line]) + "\n")


async def run(config: Config, say: Callable[[str], None], has_reader: bool = False) -> None:
    """Serve the demo until SIGTERM or SIGINT. `say` gets the text for the person who started it, once all is ready; if
    `has_reader`, then also every message that reaches a handset.

    Raises `InEarnest`, and what `app.serve` raises. `config.ready_file`, if it is set, holds one JSON object while the
    demo serves.
    """
    config = settle(config)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    ready_file = config.ready_file
    clock = SystemClock()
    carrier = Carrier(
        CarrierSettings(accounts={CARRIER_LOGIN: secrets.token_hex(4)}),
        clock,
        on_message=Handsets(say, clock).show if has_reader else None,
    )
    await carrier.start()
    try:
        # Not before the folder is ours: a demo that runs there already must keep its carrier.
        lock = lock_data(config)
        try:
            await schema.migrate(config.database_url)
            async with open_office(config) as office:
                tokens = await seed(office, channels.discover()["sms"], carrier, config.data_dir / "demo.json")
        finally:
            os.close(lock)

        with ExitStack() as at_end:

            def announce(app: App) -> None:
                ready = describe(app, carrier, tokens)
                if ready_file is not None:
                    at_end.callback(ready_file.unlink, missing_ok=True)  # not before it is ours
                    write_privately(ready_file, json.dumps(ready, indent=2) + "\n")
                say(welcome(ready, has_reader))

            await serve(config, announce)
    finally:
        await carrier.stop()


def settle(config: Config) -> Config:
    """The settings as the demo wants them: loopback may be called, and ports that nobody has set are free ones.

    The web port keeps its default, so that the calls that the demo prints can be kept.
    """
    smpp, metrics = config.smpp, config.metrics
    if "smpp.port" not in config.sources:
        smpp = msgspec.structs.replace(smpp, port=0)
    if "metrics.port" not in config.sources:
        metrics = msgspec.structs.replace(metrics, port=0)
    networks = (*config.net.allowed_networks, *LOOPBACK)
    return msgspec.structs.replace(
        config,
        # A key that was given as such must not meet a key file that was only derived.
        key_file=DEFAULT_KEY_FILE if config.key else config.key_file,
        smpp=smpp,
        metrics=metrics,
        net=msgspec.structs.replace(config.net, allowed_networks=networks),
    )


async def seed(office: Office, channel: Channel, carrier: Carrier, file: Path) -> Tokens:
    """Make what is missing of the demo's accounts, lists and routes, and point the connector at `carrier`.

    `file` keeps the tokens. Those of them that still work are kept; for the others new ones are made. A second call changes
    nothing but the connector's settings. Raises `InEarnest`, and has changed nothing.
    """
    names = {each.name for each in (await _business(office)).accounts.values()}
    if names and DEMO.name not in names:
        raise InEarnest("this database is in use in earnest; give the demo its own data folder (--data-dir)")
    lists = await _price_lists(office)
    demo = await _account(office, DEMO, lists)
    demo_tr = await _account(office, DEMO_TR, lists)
    await _way_out(office, channel, carrier)
    async with office.store.read() as tx:
        has_offers = bool(await topups.offers(tx))
    if not has_offers:
        await manage.offer_trial(office, ACTOR, "taqnyat", "SAR", TRIAL_MICROS)
    if SENDER not in (await _business(office)).numbers:
        # Handsets answer to the name they see: what they write to it is for this account.
        await manage.assign_number(office, ACTOR, SENDER, *demo)
    tokens = await _tokens(office, demo, demo_tr, _kept(file))
    write_privately(file, msgspec.json.format(msgspec.json.encode(tokens)).decode() + "\n")
    return tokens


async def _business(office: Office) -> Directory:
    async with office.store.read() as tx:
        return await directory.load(tx, with_books=False)


async def _price_lists(office: Office) -> dict[str, int]:
    """The ids of the demo's price lists by name."""
    async with office.store.read() as tx:
        found = {each.name: each.id for each in await accounts.price_lists(tx) if each.channel == "sms"}
    for name, (currency, rows) in PRICES.items():
        if name not in found:
            found[name] = await manage.create_price_list(office, ACTOR, name, "sms", currency)
            await manage.import_prices(office, ACTOR, found[name], rows)
    return found


async def _account(office: Office, wanted: Account, lists: dict[str, int]) -> tuple[int, int]:
    """The ids of an account and its application, with money, price lists and sender names."""
    async with office.store.read() as tx:
        account_id = await accounts.account_named(tx, wanted.name)
    if account_id is None:
        account_id = await manage.create_account(
            office, ACTOR, name=wanted.name, home=wanted.home, zone=wanted.zone, language=wanted.language
        )
    business = await _business(office)
    own = [each.id for each in business.applications.values() if each.account_id == account_id]
    application_id = (
        own[0] if own else await manage.create_application(office, ACTOR, account_id, wanted.name, manage.SERVICES)
    )
    bought = {each.name for each in business.prices.get((account_id, "sms"), ())}
    for rank, name in enumerate(wanted.lists, 1):
        if name not in bought:
            await manage.use_price_list(office, ACTOR, account_id, lists[name], rank)
        await _first_money(office, account_id, PRICES[name][0])
    for sender, category in ((SENDER, "any"), (ADVERT_SENDER, "promotional")):
        if not business.senders.get((account_id, "sms", sender)):
            sender_id = await manage.request_sender(office, ACTOR, account_id, "sms", sender, category=category)
            await manage.move_sender(office, ACTOR, account_id, sender_id, SenderState.APPROVED)
    return account_id, application_id


async def _first_money(office: Office, account_id: int, currency: str) -> None:
    """Give a test wallet its bonus, once."""
    async with office.store.read() as tx:
        has_entries = await manage.statement(tx, account_id, "test", currency, limit=1)
    if not has_entries:
        await manage.add_bonus(office, ACTOR, account_id, "test", currency, BONUS_MICROS, "money to try things with")


async def _way_out(office: Office, channel: Channel, carrier: Carrier) -> None:
    """The connector to the simulated carrier, which has another port at every start, and the route that leads there."""
    settings: dict[str, object] = {
        "host": "127.0.0.1",
        "port": carrier.port,
        "system_id": CARRIER_LOGIN,
        "password": carrier.settings.accounts[CARRIER_LOGIN],
        "submit_id_form": "hex",
        "receipt_id_form": "either",
    }
    business = await _business(office)
    connector_id = next((each.id for each in business.connectors.values() if each.name == "simulator"), 0)
    if connector_id:
        await manage.update_connector(office, ACTOR, connector_id, channel, settings)
    else:
        connector_id = await manage.create_connector(office, ACTOR, "simulator", channel, "smpp", "test", settings)
    async with office.store.read() as tx:
        routes = await accounts.route_states(tx)
    if "test" not in routes:
        await manage.create_route(office, ACTOR, Route(0, "test", 100, "test", "sms", (connector_id,)))


def _kept(file: Path) -> Tokens:
    """The tokens of an earlier run; none if there was none or its file cannot be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Tokens)
    except (FileNotFoundError, msgspec.DecodeError):
        return Tokens()


async def _tokens(office: Office, demo: tuple[int, int], demo_tr: tuple[int, int], kept: Tokens) -> Tokens:
    """Tokens that work: those of `kept` where they do, else new ones."""
    business = await _business(office)
    now_ms = office.clock.now_ms()

    def works(secret: str) -> bool:
        found = business.tokens.get(hash_token(secret))
        return found is not None and found.is_live_at(now_ms)

    if not works(kept.bearer_token):
        made = await manage.create_bearer(office, ACTOR, *demo, mode="test", label="demo")
        kept.bearer_token = made.secret
    if not works(kept.api_key):
        made = await manage.create_api_key(office, ACTOR, *demo_tr, mode="test", label="demo")
        kept.api_key = made.secret
    login = business.logins.get(CUSTOMER_LOGIN)
    if login is None:
        made = await manage.create_smpp_login(office, ACTOR, *demo, mode="test", system_id=CUSTOMER_LOGIN, label="demo")
        kept.smpp_password = made.secret
    elif not check_password(kept.smpp_password, login.hash):
        made = await manage.rotate_token(office, ACTOR, demo[0], login.id, 0)
        kept.smpp_password = made.secret
    return kept


def describe(app: App, carrier: Carrier, tokens: Tokens) -> dict[str, Any]:
    """The object of the ready file: where everything listens, and what opens it."""
    config = app.config
    return {
        "base_url": f"http://{_near(config.http.host)}:{app.ports.http}",
        "portal_url": None,
        "bearer_token": tokens.bearer_token,
        "api_key": tokens.api_key,
        "sender_name": SENDER,
        "email_from": None,
        "caller_id": None,
        "smpp": {
            "host": _near(config.smpp.host).strip("[]"),
            "port": app.ports.smpp,
            "system_id": CUSTOMER_LOGIN,
            "password": tokens.smpp_password,
        },
        "carrier": {"smpp_port": carrier.port, "smtp_port": None, "sip_port": None, "graph_url": None},
    }


def welcome(ready: dict[str, Any], has_reader: bool = False) -> str:
    """What the person who started the demo reads: the address, a token, and calls that can be pasted.

    `has_reader` announces the messages that `run` then shows.
    """
    url, token = ready["base_url"], ready["bearer_token"]
    authorization = f"-H 'Authorization: Bearer {token}'"
    json_type = "-H 'Content-Type: application/json'"
    theirs = f'{{"recipients":[966500000001],"body":"hello","sender":"{SENDER}"}}'
    ours = f'{{"to":"966500000001","text":"hello","sender":"{SENDER}"}}'
    smpp = ready["smpp"]
    handsets = "What arrives on its handsets is shown here:\n\n" if has_reader else ""
    return f"""Berid serves at {url}

  test token    {token}   (account Demo, SAR)
  api key       {ready["api_key"]}             (account Demo TR, credits and TRY)
  SMPP          {smpp["host"]}:{smpp["port"]}  system_id {smpp["system_id"]}  password {smpp["password"]}

Send a message as a client of Taqnyat does:

  curl -X POST {url}/v1/messages {authorization} {json_type} -d '{theirs}'

or by our own API:

  curl -X POST {url}/api/v1/messages {authorization} {json_type} -d '{ours}'

See what became of it:

  curl '{url}/api/v1/messages?limit=1' {authorization}

The carrier is simulated: nothing leaves this machine. Ctrl-C stops it; a second start gives the same tokens.
{handsets}"""


def write_privately(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _near(host: str) -> str:
    """The address by which this machine reaches a listener of its own, as it stands in a URL."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - read, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
