"""A whole `Runtime` in the test's own process, on an empty database, with the least of a business in it.

    async with make_runtime(f"sqlite:///{tmp_path}/berid.db", clock=FakeClock()) as rt:
        accepted = await accept(rt, make_caller(rt), make_submission("966501234567"))

One account with one application, one token, one sender name, one wallet (test money), one price list, one route and one
connector that nobody runs. Their ids are the constants below. They stand in `rt.directory` only; of the database's own
tables the wallet alone has a row, for it is the only one of them that the path of a message looks at. What a test wants
otherwise it changes with `dataclasses.replace` on `rt.directory`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from berid.base.clock import Clock, SystemClock
from berid.base.ids import IdMaker
from berid.base.secret import Vault, hash_token
from berid.config import Config
from berid.domain.account import Account, Application, Caller, Rules, SenderName, SenderState, Token
from berid.domain.directory import Directory
from berid.domain.ledger import EntryKind
from berid.domain.message import ChargeOn, Content, Outgoing, Submission
from berid.domain.pricing import PriceList, PriceRow
from berid.domain.routing import ConnectorSettings, Route
from berid.flow.ports import Channel, Runtime
from berid.metrics import Metrics
from berid.net import Outbound
from berid.store import open_store, tables
from tests.support.database import make_tables

START_MS = 1_790_000_000_000
"""Where a `FakeClock` begins."""

ACCOUNT_ID = 1
APPLICATION_ID = 2
TOKEN_ID = 3
SENDER_ID = 4
WALLET_ID = 5
PRICE_LIST_ID = 6
ROUTE_ID = 7
CONNECTOR_ID = 8
SECRET = "bt_secret"
SENDER = "Berid"
CURRENCY = "SAR"
BALANCE_MICROS = 1_000_000_000
PRICE_MICROS = 50_000
FAR_MS = 4_000_000_000_000

_ids = itertools.count(1_000_000_000)


class FakeClock:
    """A clock that stands still until `advance`. Those who sleep by it wake when their time has been reached."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._ms = float(now_ms)
        self._set_by_ms = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return int(self._ms) + self._set_by_ms

    def ticks_s(self) -> float:
        """See `Clock.ticks_s`."""
        return self._ms / 1000

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._ms + seconds * 1000, next(self._order), future))
        await future

    def set_by(self, seconds: float) -> None:
        """Set the wall clock forward or back, as a person or a time daemon does; no time passes."""
        self._set_by_ms += int(seconds * 1000)

    async def advance(self, seconds: float) -> None:
        """Let time pass and everybody whose sleep has ended run."""
        until_ms = self._ms + seconds * 1000
        while self._sleepers and self._sleepers[0][0] <= until_ms:
            due_ms, _, future = heapq.heappop(self._sleepers)
            self._ms = max(self._ms, due_ms)
            if not future.done():
                future.set_result(None)
            for _ in range(5):
                await asyncio.sleep(0)
        self._ms = until_ms


@asynccontextmanager
async def make_runtime(
    url: str | Path,
    *,
    clock: Clock | None = None,
    channels: Mapping[str, Channel] | None = None,
    config: Config | None = None,
) -> AsyncIterator[Runtime]:
    """A runtime on an empty database, open as long as the block.

    `url` is that of the database, or a folder in which an SQLite file is made. The machine's clock unless another is given;
    every channel there is unless some are named.
    """
    if isinstance(url, Path):
        url = f"sqlite:///{url / 'berid.db'}"
    clock = clock or SystemClock()
    await make_tables(url)
    metrics = Metrics()
    store = await open_store(url, clock, metrics.commit)
    if channels is None:
        from berid.channels import discover

        channels = discover()
    http = Outbound()
    rt = Runtime(
        config=config or Config(database_url=url),
        clock=clock,
        ids=IdMaker(clock.now_ms),
        slot=0,
        vault=Vault(b"k" * 32),
        store=store,
        http=http,
        metrics=metrics,
        channels=dict(channels),
        directory=make_directory(),
    )
    async with store.transaction() as tx:
        await tx.execute(
            tables.wallet.insert().values(
                id=WALLET_ID, account_id=ACCOUNT_ID, mode="test", currency=CURRENCY, available_micros=BALANCE_MICROS
            )
        )
        await tx.execute(
            tables.ledger_entry.insert().values(
                id=1,
                account_id=ACCOUNT_ID,
                wallet_id=WALLET_ID,
                kind=EntryKind.TOPUP.value,
                amount_micros=BALANCE_MICROS,
            )
        )
    try:
        yield rt
    finally:
        await http.close()
        await store.close()


def make_directory(**changes: Any) -> Directory:
    """The business described at the top. `changes` replace whole fields of `Directory`."""
    services = frozenset(("sms", "otp", "voice", "email", "whatsapp"))
    token = Token(
        TOKEN_ID, ACCOUNT_ID, APPLICATION_ID, "bearer", "test", "", "", hash_token(SECRET), frozenset("*"), 0, 0
    )
    route = Route(ROUTE_ID, "test", 100, "test", "sms", (CONNECTOR_ID,))
    sender = SenderName(SENDER_ID, ACCOUNT_ID, "sms", SENDER, "", "any", SenderState.APPROVED, 0)
    prices = PriceList(PRICE_LIST_ID, "test", CURRENCY, ChargeOn.SENT, [PriceRow("", PRICE_MICROS)])
    directory = Directory(
        version=1,
        accounts={ACCOUNT_ID: Account(ACCOUNT_ID, "Test", "active", "SA", "Asia/Riyadh", "en", Rules())},
        applications={
            APPLICATION_ID: Application(APPLICATION_ID, ACCOUNT_ID, "Test", "active", services, Rules()),
        },
        tokens={token.hash: token},
        senders={(ACCOUNT_ID, "sms", SENDER): (sender,)},
        wallets={(ACCOUNT_ID, "test", CURRENCY): WALLET_ID},
        prices={(ACCOUNT_ID, "sms"): (prices,)},
        routes=(route,),
        route_by_id={ROUTE_ID: route},
        connectors={CONNECTOR_ID: make_settings()},
    )
    return replace(directory, **changes)


def make_settings(kind: str = "smpp", channel: str = "sms", **settings: object) -> ConnectorSettings:
    """The settings of the one connector; `settings` are the channel's own."""
    return ConnectorSettings(CONNECTOR_ID, "carrier", channel, kind, "test", "on", settings)


def make_caller(rt: Runtime, dialect: str = "native") -> Caller:
    """Whoever holds the one token."""
    directory = rt.directory
    return Caller(
        directory.accounts[ACCOUNT_ID],
        directory.applications[APPLICATION_ID],
        directory.tokens[hash_token(SECRET)],
        "127.0.0.1",
        dialect,
    )


def make_submission(*recipients: str, text: str = "hello", **changes: Any) -> Submission:
    """A text for these recipients; `changes` are fields of `Submission`."""
    given: dict[str, Any] = {"channel": "sms", "sender": SENDER, "recipients": recipients, "content": Content(text)}
    return Submission(**(given | changes))


def make_outgoing(recipient: str = "966501234567", body: str = "hello", **changes: Any) -> Outgoing:
    """One delivery as a connector gets it, with an id of its own; `changes` are fields of `Outgoing`."""
    identifier = next(_ids) * 32
    given: dict[str, Any] = {
        "delivery_id": identifier,
        "message_id": identifier + 1,
        "account_id": ACCOUNT_ID,
        "priority": 1,
        "sender": SENDER,
        "recipient": recipient,
        "body": body,
        "body_kind": "text",
        "alphabet": "gsm7",
        "parts": 1,
        "expires_ms": FAR_MS,
        "attempt": 1,
        "route_id": ROUTE_ID,
        "dialect": "native",
    }
    return Outgoing(**(given | changes))
