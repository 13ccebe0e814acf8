"""A whole installation in the test's own process, on real sockets, with its doors open to be knocked at."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from berid import channels, demo
from berid.app import App
from berid.base.ids import show
from berid.base.secret import hash_token
from berid.channels.sms.simulator import Carrier, CarrierSettings
from berid.config import Config, load
from berid.domain.account import Rules
from berid.flow import manage
from berid.flow.manage import Office, open_office
from berid.store import schema
from tests.support.database import ask

ACTOR = "test"
NUMBER = "905321234567"
EVERY_RIGHT = ("*", "operator")
V4_HOST = "api.turkeysms.example"
DOCUMENTS = {
    "native": "/api/v1/openapi.json",
    "taqnyat": "/api/v1/openapi/taqnyat.json",
    "turkeysms": "/api/v1/openapi/turkeysms.json",
}
"""Where every dialect that has doors describes them."""

TABLES_OF_MESSAGES = ("message", "delivery", "ledger_entry", "job", "otp", "callback")
"""What a request that is refused must not write to."""


@dataclass
class House:
    """A running installation. `bearer` may do everything, `api_key` is TurkeySMS's, both of the same account."""

    app: App
    url: str
    carrier: Carrier
    account_id: int = 0
    application_id: int = 0
    bearer: str = ""
    api_key: str = ""
    documents: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    """A thing of each kind that the account has, by the prefix of its id."""

    @property
    def database_url(self) -> str:
        """Where everything is kept."""
        return self.app.config.database_url

    async def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """What is committed in the database."""
        return await ask(self.database_url, question, *values)

    async def counts(self) -> dict[str, int]:
        """How many rows the tables have that a refusal must not touch."""
        return {name: (await self.ask(f"SELECT count(*) FROM {name}"))[0][0] for name in TABLES_OF_MESSAGES}

    async def hush(self) -> None:
        """Wait until nothing that was asked before is under way any more: what it still writes is nobody else's doing."""
        async with asyncio.timeout(10):
            while await self.ask("SELECT 1 FROM delivery WHERE final_ms = 0"):
                await asyncio.sleep(0.02)

    async def settle(self) -> None:
        """Have an account that can do everything: with every right one may change one's own rules, or close one's account."""
        directory = self.app.rt.directory
        account, application = directory.accounts.get(self.account_id), directory.applications.get(self.application_id)
        secrets = [directory.tokens.get(hash_token(secret)) for secret in (self.bearer, self.api_key)]
        if (
            account is None
            or application is None
            or not all(token is not None and token.is_live_at(self.app.rt.clock.now_ms()) for token in secrets)
            or (account.state, application.state) != ("active", "active")
            or (account.rules, application.rules) != (Rules(), Rules())
            or not {"sms", "otp"} <= application.services
        ):
            await self.move_in()

    async def move_in(self) -> None:
        """Make a new account with money, prices, a sender name and tokens, and let `bearer` and `api_key` be its."""
        office = Office.of(self.app.rt)
        name = f"House {office.ids.next()}"
        lists = await demo._price_lists(office)
        self.account_id, self.application_id = await demo._account(
            office, demo.Account(name, "TR", "Europe/Istanbul", "en", tuple(demo.PRICES)), lists
        )
        own = (office, ACTOR, self.account_id, self.application_id)
        self.bearer = (await manage.create_bearer(*own, mode="test", scopes=EVERY_RIGHT)).secret
        self.api_key = (await manage.create_api_key(*own, mode="test")).secret
        assert self.app.rt.refresh is not None
        await self.app.rt.refresh()
        found = self.app.rt.directory.tokens[hash_token(self.bearer)]
        self.ids = {
            "account": show("acc", self.account_id),
            "application": show("app", self.application_id),
            "token": show("tok", found.id),
            "price_list": show("prl", next(iter(lists.values()))),
            "connector": show("con", next(iter(self.app.rt.directory.connectors))),
            "route": show("rte", self.app.rt.directory.routes[0].id),
        }
        headers = {"Authorization": f"Bearer {self.bearer}"}
        async with aiohttp.ClientSession(self.url, headers=headers) as http:
            wanted = {"to": NUMBER, "text": "hello", "sender": demo.SENDER}
            async with http.post("/api/v1/messages", json=wanted) as answer:
                sent = await answer.json()
            async with http.post("/api/v1/callbacks", json={"url": "http://127.0.0.1:1024/hook"}) as answer:
                callback = await answer.json()
            async with http.get("/api/v1/senders") as answer:
                senders = await answer.json()
        self.ids |= {
            "message": sent["id"],
            "delivery": sent["deliveries"][0]["id"],
            "callback": callback["id"],
            "sender": senders["data"][0]["id"],
        }

    def id_in(self, path: str) -> str:
        """An id for the parameter of a path, of the kind that the path names: `/messages/{id}`; "1" if there is none."""
        words = path.partition("/{")[0].rpartition("/")[2]
        singular = {"deliveries": "delivery"}.get(words, words.removesuffix("s").replace("-", "_"))
        return self.ids.get(singular, "1")

    def operations(self) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
        """Every operation of every document: (dialect, method, path, the operation)."""
        for dialect, document in self.documents.items():
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    yield dialect, method.upper(), path, operation


@asynccontextmanager
async def open_house(folder: Path, database_url: str, **settings: Any) -> AsyncIterator[House]:
    """An installation on an empty database, with a carrier of its own; `settings` are dotted names, with `__` for the dot."""
    carrier = Carrier(CarrierSettings(accounts={demo.CARRIER_LOGIN: "carrierp"}))
    await carrier.start()
    given: dict[str, object] = {
        "data_dir": folder,
        "database_url": database_url,
        "http.port": "0",
        "smpp.port": "0",
        "net.allowed_networks": "127.0.0.0/8",
        "http.root_dialect_hosts": V4_HOST,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    config: Config = load(None, {}, given)
    await schema.migrate(config.database_url)
    async with open_office(config) as office:
        await demo.seed(office, channels.discover()["sms"], carrier, folder / "demo.json")
    app = await App.start(config)
    try:
        house = House(app, f"http://127.0.0.1:{app.ports.http}", carrier)
        async with aiohttp.ClientSession() as http:
            for dialect, path in DOCUMENTS.items():
                async with http.get(house.url + path) as answer:
                    house.documents[dialect] = json.loads(await answer.read())
        await house.settle()
        yield house
    finally:
        await app.stop()
        await carrier.stop()
