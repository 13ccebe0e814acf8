"""A small installation in which Taqnyat's customers can go right and wrong in every way."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from berid.base.secret import hash_token
from berid.dialects.taqnyat import Taqnyat
from berid.dialects.web import Web, make_app
from berid.domain.account import Account, Application, Rules, SenderName, SenderState, Token
from berid.domain.ledger import EntryKind
from berid.domain.message import ChargeOn, Draft, Submission
from berid.domain.pricing import PriceList, PriceRow
from berid.domain.routing import Route
from berid.flow.ports import Prepared, Runtime
from berid.store import tables
from tests.dialects.asgi import Answer, call
from tests.support.builders import CONNECTOR_ID, START_MS, FakeClock, make_directory, make_runtime
from tests.support.database import ask

MINUTE_MS = 60_000

PRICES = PriceList(
    6, "standard", "SAR", ChargeOn.SENT, [PriceRow("966", 26_000), PriceRow("90", 50_000), PriceRow("44", 400_000)]
)
"""SAR per part: 0.026 to Saudi Arabia, 0.05 to Türkiye. No price leads to the Emirates, no route to Britain."""

SENDERS = (
    ("Acme", SenderState.APPROVED, "any", "", 0),
    ("Acme-AD", SenderState.APPROVED, "promotional", "SA", 0),
    ("Ended", SenderState.APPROVED, "any", "", START_MS - 1),
    ("Old", SenderState.EXPIRED, "any", "", 0),
    ("Rest", SenderState.SUSPENDED, "any", "TR", 0),
    ("Waiting", SenderState.SUBMITTED, "any", "", 0),
)
"""Every account's names for SMS: name, state, category, country, last moment."""

OTHER_SENDERS = {
    "voice": (("966500000000", SenderState.APPROVED), ("966500000008", SenderState.SUBMITTED)),
    "email": (("news@example.com", SenderState.APPROVED), ("waiting@example.com", SenderState.SUBMITTED)),
}
"""Every account's names for the other channels."""

ALL = ("sms", "otp", "voice", "email")

ACCOUNTS: dict[str, dict[str, Any]] = {
    "shop": {},
    "lenient": {"rules": Rules(lenient_numbers=True)},
    "keyed": {"rules": Rules(sms_id_is_key=True)},
    "empty": {"balance_micros": 0},
    "poor": {"balance_micros": 25_999},
    "closed": {"state": "closed"},
    "silent": {"rules": Rules(api_on=False)},
    "fenced": {"rules": Rules(networks=("203.0.113.0/24",))},
    "saudi": {"rules": Rules(countries=("SA",))},
    "national": {"rules": Rules(international_on=False)},
    "calling": {"services": ("voice", "email")},
    "reading": {"scopes": ("status", "balance", "senders")},
    "slow": {"rules": Rules(per_minute=1)},
    "ended": {"expires_ms": START_MS},
    "ending": {"expires_ms": START_MS + 86_400_000},
    "everything": {"services": ALL},
    "quietest": {"services": ALL, "rules": Rules(api_on=False)},
    "walled": {"services": ALL, "rules": Rules(networks=("203.0.113.0/24",))},
    "saudi_calling": {"services": ALL, "rules": Rules(countries=("SA",))},
    "emptiest": {"services": ALL, "balance_micros": 0},
    "poorest": {"services": ALL, "balance_micros": 5_000},
}
"""What is particular to each account. The golden files call its token by its name."""


@dataclass(frozen=True)
class OtherChannel:
    """A channel that this installation has, with as little in it as a channel can have: one unit for each recipient."""

    name: str

    def prepare(self, submission: Submission) -> Prepared:
        return Prepared(submission.content.text, "text", "", 1, [Draft(each, 1) for each in submission.recipients])


@dataclass
class World:
    """The installation. `values` are the tokens by the names of their accounts."""

    rt: Runtime
    clock: FakeClock
    url: str
    app: Web
    values: dict[str, str] = field(default_factory=dict)
    account_ids: dict[str, int] = field(default_factory=dict)

    async def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the database as a second connection sees them."""
        return await ask(self.url, question, *values)

    async def call(self, method: str, target: str, body: bytes = b"", token: str = "shop", **options: Any) -> Answer:
        """One request with the token of an account; "" sends none."""
        headers = {"authorization": f"Bearer {self.values[token]}"} if token else {}
        return await call(self.app, method, target, body, headers, **options)

    async def wallet(self, name: str) -> tuple[int, int]:
        """(available, held) of an account, in micros."""
        found = await self.ask(
            "SELECT available_micros, held_micros FROM wallet WHERE account_id = $1", self.account_ids[name]
        )
        return int(found[0][0]), int(found[0][1])

    def add(self, name: str, identifier: int, **particular: Any) -> None:
        """Add an account with one application and one live token; its ids count up from `identifier`. Its wallet is empty."""
        given: dict[str, Any] = {
            "state": "active",
            "services": ("sms",),
            "scopes": ("*",),
            "expires_ms": 0,
            "rules": Rules(),
            **particular,
        }
        self.account_ids[name] = identifier
        self.values[name] = f"bl_{name}"
        account = Account(identifier, name, given["state"], "SA", "Asia/Riyadh", "en", Rules())
        application = Application(
            identifier + 1, identifier, "app", "active", frozenset(given["services"]), given["rules"]
        )
        token = Token(
            identifier + 2,
            identifier,
            identifier + 1,
            "bearer",
            "live",
            "",
            "",
            hash_token(self.values[name]),
            frozenset(given["scopes"]),
            given["expires_ms"],
            0,
        )
        names: Iterable[SenderName] = (
            SenderName(identifier + 10 + place, identifier, "sms", sender, country, category, state, expires_ms)
            for place, (sender, state, category, country, expires_ms) in enumerate(SENDERS)
        )
        others: Iterable[SenderName] = (
            SenderName(identifier + 100, identifier, channel, sender, "", "any", state, 0)
            for channel, senders in OTHER_SENDERS.items()
            for sender, state in senders
        )
        directory = self.rt.directory
        self.rt.directory = replace(
            directory,
            accounts={**directory.accounts, identifier: account},
            applications={**directory.applications, application.id: application},
            tokens={**directory.tokens, token.hash: token},
            senders={
                **directory.senders,
                **{(identifier, each.channel, each.name): (each,) for each in (*names, *others)},
            },
            wallets={**directory.wallets, (identifier, "live", "SAR"): identifier + 3},
        )

    async def fill(self, balances_micros: Mapping[str, int]) -> None:
        """Make the wallets of these accounts."""
        wallets = [
            {
                "id": self.account_ids[name] + 3,
                "account_id": self.account_ids[name],
                "mode": "live",
                "currency": "SAR",
                "available_micros": amount,
            }
            for name, amount in balances_micros.items()
        ]
        entries = [
            {
                "id": wallet["id"] + 1,
                "account_id": wallet["account_id"],
                "wallet_id": wallet["id"],
                "kind": EntryKind.TOPUP.value,
                "amount_micros": wallet["available_micros"],
            }
            for wallet in wallets
        ]
        async with self.rt.store.transaction() as tx:
            await tx.execute(tables.wallet.insert(), wallets)
            await tx.execute(tables.ledger_entry.insert(), entries)

    def install(self, channel: str) -> None:
        """Let the installation have one of the other channels."""
        self.rt.channels[channel] = OtherChannel(channel)  # type: ignore[assignment]


@pytest.fixture
async def world(store_url: str) -> AsyncIterator[World]:
    clock = FakeClock()
    async with make_runtime(store_url, clock=clock) as rt:
        dialect = Taqnyat()
        rt.dialects = {dialect.name: dialect}
        rt.channels = {"sms": rt.channels["sms"]}
        reached = frozenset({"SA", "TR", "AE"})
        rt.directory = make_directory(
            accounts={},
            applications={},
            tokens={},
            senders={},
            wallets={},
            routes=(
                Route(7, "sms", 1, "live", "sms", (CONNECTOR_ID,), countries=reached),
                Route(8, "voice", 1, "live", "voice", (CONNECTOR_ID,)),
                Route(9, "email", 1, "live", "email", (CONNECTOR_ID,)),
            ),
            prices={
                (0, "sms"): (PRICES,),
                (0, "voice"): (PriceList(7, "calls", "SAR", ChargeOn.SENT, [PriceRow("", 100_000)]),),
                (0, "email"): (PriceList(8, "mails", "SAR", ChargeOn.SENT, [PriceRow("", 10_000)]),),
            },
        )
        world = World(rt, clock, store_url, make_app(rt, lambda: True))
        balances = {}
        for place, (name, particular) in enumerate(ACCOUNTS.items()):
            given = dict(particular)
            balances[name] = given.pop("balance_micros", 100_000_000)
            world.add(name, 1_000 * (place + 1), **given)
        await world.fill(balances)
        yield world
