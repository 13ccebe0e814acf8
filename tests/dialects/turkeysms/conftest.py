"""A small installation in which TurkeySMS's customers can go right and wrong in every way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from berid.base.secret import hash_token
from berid.config import Config, Dialects, Http
from berid.dialects.turkeysms import dialect
from berid.dialects.web import Web, make_app
from berid.domain.account import Account, Application, Caller, Rules, SenderName, SenderState, Token
from berid.domain.ledger import EntryKind
from berid.domain.message import ChargeOn, MoneyState, State
from berid.domain.pricing import PriceList, PriceRow
from berid.domain.routing import Route
from berid.flow.changes import Changes
from berid.flow.ports import Runtime
from berid.store import tables
from berid.store.hot import HotTx, Verb
from tests.dialects.asgi import Answer, call
from tests.support.builders import CONNECTOR_ID, START_MS, FakeClock, make_directory, make_runtime
from tests.support.database import ask

MICROS = 1_000_000
V4_HOST = "api.turkeysms.example"
NUMBER = "905321234567"

PRICES = (
    PriceList(6, "credits", "CREDIT", ChargeOn.SENT, [PriceRow("90", MICROS)]),
    PriceList(
        7, "abroad", "TRY", ChargeOn.SENT, [PriceRow("49", 1_250_000), PriceRow("966", 900_000), PriceRow("971", 1)]
    ),
)
"""One credit a part in Türkiye; 1.25 lira to Germany. No price leads to Britain, no route to the Emirates."""

SENDERS = (
    ("ACME", SenderState.APPROVED, "any", 0),
    ("8507013986", SenderState.APPROVED, "any", 0),
    ("Waiting", SenderState.SUBMITTED, "any", 0),
    ("Rest", SenderState.SUSPENDED, "any", 0),
    ("Ended", SenderState.APPROVED, "any", START_MS - 1),
)
"""Every account's names: name, state, category, last moment."""

EVERY_RIGHT = ("send.post", "send.get", "status", "balance", "senders")

ACCOUNTS: dict[str, dict[str, Any]] = {
    "shop": {},
    "other": {},
    "empty": {"credits": 0, "lira": 0},
    "poor": {"credits": MICROS, "lira": MICROS},
    "closed": {"state": "closed"},
    "silent": {"rules": Rules(api_on=False)},
    "fenced": {"rules": Rules(networks=("203.0.113.0/24",))},
    "national": {"rules": Rules(international_on=False)},
    "german": {"rules": Rules(countries=("DE",))},
    "slow": {"rules": Rules(per_minute=2)},
    "discreet": {"rules": Rules(returns_code=False)},
    "posting": {"scopes": ("send.post",)},
    "getting": {"scopes": ("send.get",)},
    "reading": {"scopes": ("status", "balance", "senders")},
    "counting": {"scopes": ("balance",)},
    "naming": {"scopes": ("senders",)},
    "calling": {"services": ("voice",)},
    "coded": {"services": ("otp",)},
    "o'[brien]": {},
}
"""What is particular to each account. The golden files call its key by its name."""


async def _change(tx: HotTx, steps: list[Any]) -> list[Exception | None]:
    for rt, delivery_id, state in steps:
        changes = Changes(rt, rt.clock.now_ms())
        (row,) = await tx.tracked([delivery_id])
        if state is State.SENT:
            row.sent_ms = rt.clock.now_ms()
            changes.charge(row)
        elif row.money == MoneyState.HELD.value and state not in (State.UNCERTAIN, State.SENDING):
            changes.release(row)
        changes.advance(row, state)
        await changes.write(tx)
        changes.push()
    return [None for _ in steps]


CHANGE: Verb[Any, None] = Verb("change_in_test", 30, _change)


@dataclass
class World:
    """The installation. `values` are the keys by the names of their accounts."""

    rt: Runtime
    clock: FakeClock
    url: str
    app: Web
    values: dict[str, str] = field(default_factory=dict)
    account_ids: dict[str, int] = field(default_factory=dict)

    async def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the database as a second connection sees them."""
        return await ask(self.url, question, *values)

    async def post(self, path: str, key: str = "shop", **fields: Any) -> Any:
        """POST to a path of V3 and return the decoded answer. `key` is an account's name; a field that is None is left out."""
        body = {"api_key": self.values.get(key, key), "response_type": "json", **fields}
        given = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
        answer = await self.call("POST", "/api/v3" + path, given)
        assert answer.status == 200
        return answer.json

    async def get(self, path: str, key: str = "shop", **fields: Any) -> Any:
        """As `post`, by GET."""
        body = {"api_key": self.values.get(key, key), "response_type": "json", **fields}
        query = urlencode({name: value for name, value in body.items() if value is not None})
        answer = await self.call("GET", f"/api/v3{path}?{query}")
        assert answer.status == 200
        return answer.json

    async def send(self, **fields: Any) -> Any:
        """Send one message by POST and return the decoded answer."""
        return await self.post("/gonder/add-content", **{"title": "ACME", "text": "Hello", "sentto": NUMBER, **fields})

    async def v4(self, path: str, key: str = "shop", status: int = 200, **fields: Any) -> Any:
        """POST to a path of V4 and return the decoded answer, whose HTTP status must be `status`."""
        body = {"api_key": self.values.get(key, key), **fields}
        given = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
        answer = await self.call("POST", "/turkeysms/v4" + path, given)
        assert answer.status == status, answer.body
        return answer.json

    async def call(self, method: str, target: str, body: bytes = b"", **options: Any) -> Answer:
        """One request."""
        return await call(self.app, method, target, body, **options)

    async def change(self, delivery_id: int, *states: State) -> None:
        """Put a delivery through some states, with their money and their events."""
        for state in states:
            await self.rt.store.hot.do(CHANGE, [(self.rt, delivery_id, state)])

    async def wallet(self, name: str, currency: str = "CREDIT") -> tuple[int, int]:
        """(available, held) of an account, in micros."""
        found = await self.ask(
            "SELECT available_micros, held_micros FROM wallet WHERE account_id = $1 AND currency = $2",
            self.account_ids[name],
            currency,
        )
        return int(found[0][0]), int(found[0][1])

    def native_caller(self, name: str) -> Caller:
        """Whoever holds an account's key, as he comes to the door of our own API, with every right."""
        directory, account_id = self.rt.directory, self.account_ids[name]
        token = replace(directory.tokens[hash_token(self.values[name])], scopes=frozenset("*"))
        application = directory.applications[account_id + 1]
        return Caller(directory.accounts[account_id], application, token, "127.0.0.1", "native")

    async def counts(self) -> list[int]:
        """Rows of the tables that a message is written to: what a refusal must not change."""
        names = ("message", "delivery", "ledger_entry", "job")
        return [(await self.ask(f"SELECT count(*) FROM {name}"))[0][0] for name in names]

    async def add(self, name: str, identifier: int, **particular: Any) -> None:
        """Add an account with one application and one live key; its ids count up from `identifier`."""
        given: dict[str, Any] = {
            "credits": 1_000 * MICROS,
            "lira": 250_500_000,
            "state": "active",
            "services": ("sms", "otp"),
            "scopes": EVERY_RIGHT,
            "rules": Rules(),
            **particular,
        }
        self.account_ids[name] = identifier
        self.values[name] = f"{identifier:032x}"
        account = Account(identifier, name, given["state"], "TR", "Europe/Istanbul", "tr", Rules())
        application = Application(
            identifier + 1, identifier, "app", "active", frozenset(given["services"]), given["rules"]
        )
        token = Token(
            identifier + 2,
            identifier,
            identifier + 1,
            "api_key",
            "live",
            "",
            "",
            hash_token(self.values[name]),
            frozenset(given["scopes"]),
            0,
            0,
        )
        senders = {
            (identifier, "sms", sender): (
                SenderName(identifier + 10 + place, identifier, "sms", sender, "", category, state, expires_ms),
            )
            for place, (sender, state, category, expires_ms) in enumerate(SENDERS)
        }
        wallets = (("CREDIT", identifier + 3, given["credits"]), ("TRY", identifier + 4, given["lira"]))
        directory = self.rt.directory
        self.rt.directory = replace(
            directory,
            accounts={**directory.accounts, identifier: account},
            applications={**directory.applications, application.id: application},
            tokens={**directory.tokens, token.hash: token},
            senders={**directory.senders, **senders},
            wallets={
                **directory.wallets,
                **{(identifier, "live", currency): wallet_id for currency, wallet_id, _ in wallets},
            },
        )
        async with self.rt.store.transaction() as tx:
            await tx.execute(tables.account.insert().values(id=identifier, name=name, home="TR"))
            for currency, wallet_id, amount in wallets:
                await tx.execute(
                    tables.wallet.insert().values(
                        id=wallet_id,
                        account_id=identifier,
                        mode="live",
                        currency=currency,
                        available_micros=amount,
                    )
                )
                await tx.execute(
                    tables.ledger_entry.insert().values(
                        id=wallet_id + 500,
                        account_id=identifier,
                        wallet_id=wallet_id,
                        kind=EntryKind.TOPUP.value,
                        amount_micros=amount,
                    )
                )


@asynccontextmanager
async def make_world(store_url: str, settings: Dialects | None = None) -> AsyncIterator[World]:
    """The installation on an empty database, as long as the block."""
    clock = FakeClock()
    http = Http(root_dialect_hosts=(V4_HOST,))
    config = Config(database_url=store_url, http=http, dialects=settings or Dialects())
    async with make_runtime(store_url, clock=clock, config=config) as rt:
        rt.dialects = {dialect.name: dialect}
        rt.channels = {"sms": rt.channels["sms"]}
        rt.directory = make_directory(
            accounts={},
            applications={},
            tokens={},
            senders={},
            wallets={},
            routes=(Route(7, "sms", 1, "live", "sms", (CONNECTOR_ID,), countries=frozenset({"TR", "DE", "SA", "GB"})),),
            prices={(0, "sms"): PRICES},
        )
        world = World(rt, clock, store_url, make_app(rt, lambda: True))
        for place, (name, particular) in enumerate(ACCOUNTS.items()):
            await world.add(name, 1_000 * (place + 1), **particular)
        yield world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """The installation on SQLite."""
    async with make_world(f"sqlite:///{tmp_path}/berid.db") as world:
        yield world


@pytest.fixture
async def world_on_each(store_url: str) -> AsyncIterator[World]:
    """The installation on each of the two databases: for what the database itself works out."""
    async with make_world(store_url) as world:
        yield world
