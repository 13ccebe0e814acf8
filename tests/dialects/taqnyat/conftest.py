"""A small installation in which Taqnyat's customers can go right and wrong in every way."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from berid import channels
from berid.base.ids import IdMaker
from berid.base.secret import Vault
from berid.config import Config
from berid.dialects.taqnyat import Taqnyat
from berid.dialects.web import Web, make_app
from berid.domain.account import Rules, SenderState
from berid.domain.routing import Route
from berid.flow import manage
from berid.flow.manage import Office
from berid.flow.ports import Runtime
from berid.metrics import Metrics
from berid.net import Outbound
from berid.store import directory, open_store
from tests.dialects.asgi import Answer, call
from tests.support.database import ask, make_tables

NOW_MS = 1_790_000_000_000
"""2026-09-21 14:13:20 UTC, 17:13:20 in Riyadh."""

DAY_MS = 86_400_000
CARRIER = {"host": "192.0.2.1", "port": 2775, "system_id": "berid", "password": "secret"}
SAR = 1_000_000


class Clock:
    """A clock that stands until it is told otherwise."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def ticks_s(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("no request waits for time to pass")


@dataclass
class World:
    """The installation. `values` are the tokens by the names that the golden files call them."""

    rt: Runtime
    clock: Clock
    url: str
    app: Web = field(init=False)
    values: dict[str, str] = field(default_factory=dict)
    account_ids: dict[str, int] = field(default_factory=dict)
    application_ids: dict[str, int] = field(default_factory=dict)

    @property
    def office(self) -> Office:
        return Office.of(self.rt)

    async def refresh(self) -> None:
        """Take the directory as it is now."""
        async with self.rt.store.read() as tx:
            self.rt.directory = await directory.load(tx)

    async def account(
        self,
        name: str,
        *,
        balance_micros: int = 100 * SAR,
        services: tuple[str, ...] = ("sms",),
        scopes: tuple[str, ...] = ("*",),
        rules: Rules | None = None,
        state: str = "active",
    ) -> None:
        """An account in Saudi Arabia with a live token called `name` and the sender names of the golden files."""
        office = self.office
        account_id = await manage.create_account(office, "t", name=name, home="SA", currencies=["SAR"])
        self.account_ids[name] = account_id
        application_id = await manage.create_application(office, "t", account_id, "app", services, rules)
        self.application_ids[name] = application_id
        token = await manage.create_bearer(office, "t", account_id, application_id, mode="live", scopes=scopes)
        self.values[name] = token.secret
        if balance_micros:
            await manage.top_up(office, "t", account_id, "live", "SAR", balance_micros)
        for sender, category, after in SENDERS:
            sender_id = await manage.request_sender(office, "t", account_id, "sms", sender, category=category)
            for moved, expires_ms in after:
                await manage.move_sender(
                    office, "t", account_id, sender_id, moved, reason="because", expires_ms=expires_ms
                )
        if state != "active":
            await manage.set_account_state(office, "t", account_id, state)

    async def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the database as a second connection sees them."""
        return await ask(self.url, question, *values)

    async def call(self, method: str, target: str, body: bytes = b"", token: str = "shop", **headers: str) -> Answer:
        """One request with a token's name; "" sends none."""
        given = {"authorization": f"Bearer {self.values[token]}"} if token else {}
        return await call(self.app, method, target, body, {**given, **headers})


SENDERS: tuple[tuple[str, str, tuple[tuple[SenderState, int], ...]], ...] = (
    ("Acme", "any", ((SenderState.APPROVED, 0),)),
    ("Acme-AD", "promotional", ((SenderState.APPROVED, 0),)),
    ("Waiting", "any", ()),
    ("Old", "any", ((SenderState.APPROVED, 0), (SenderState.EXPIRED, 0))),
    ("Ended", "any", ((SenderState.APPROVED, NOW_MS + 1),)),
)


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    await make_tables(store_url)
    clock = Clock()
    store = await open_store(store_url, clock)
    dialect = Taqnyat()
    rt = Runtime(
        config=Config(data_dir=tmp_path),
        clock=clock,
        ids=IdMaker(clock.now_ms, 0),
        slot=0,
        vault=Vault(b"k" * 32),
        store=store,
        http=Outbound(),
        metrics=Metrics(),
        channels=channels.discover(),
        dialects={dialect.name: dialect},
    )
    made = World(rt, clock, store_url)
    office = made.office
    prices = await manage.create_price_list(office, "t", "standard", "sms", "SAR")
    await manage.import_prices(office, "t", prices, "prefix,price\n966,0.026\n90,0.05\n44,0.4\n")
    await manage.use_price_list(office, "t", 0, prices, 0)
    connector = await manage.create_connector(office, "t", "carrier", rt.channels["sms"], "smpp", "live", CARRIER)
    await manage.create_route(
        office, "t", Route(0, "all", 1, "live", "sms", (connector,), countries=frozenset({"SA", "TR"}))
    )
    await made.account("shop")
    await made.account("lenient", rules=Rules(lenient_numbers=True))
    await made.refresh()
    made.app = make_app(rt, lambda: True)
    yield made
    await rt.http.close()
    await store.close()
