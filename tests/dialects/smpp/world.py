"""A customer's world: the login he has, the server he binds to, and a carrier that takes everything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import msgspec

from berid.base.secret import hash_password
from berid.domain.account import Rules, Scope, Token
from berid.domain.directory import Directory
from berid.domain.message import DeliveryReport, Outgoing, Sent, State
from berid.flow.dispatch import Dispatcher
from berid.flow.notify import Notifier
from berid.flow.ports import Report, Runtime
from berid.flow.settle import settle
from berid.store.binds import endpoint_of
from tests.dialects.smpp.esme import Esme
from tests.support.builders import ACCOUNT_ID, APPLICATION_ID, CONNECTOR_ID
from tests.support.database import ask

LOGIN, PASSWORD = "customer", "password"
LOGIN_ID = 30


class RushClock:
    """Real time in which nobody sleeps longer than a moment."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def ticks_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


@cache
def hashed(password: str) -> str:
    """A password's hash, which takes long to make on purpose."""
    return hash_password(password)


def make_login(**changes: Any) -> Token:
    scopes = frozenset({Scope.SEND.value, Scope.STATUS.value})
    plain = Token(LOGIN_ID, ACCOUNT_ID, APPLICATION_ID, "smpp", "test", "", LOGIN, hashed(PASSWORD), scopes, 0, 0)
    return replace(plain, **changes)


def with_logins(directory: Directory, *logins: Token) -> Directory:
    """The directory with these SMPP logins."""
    return replace(directory, logins={token.login: token for token in logins})


def with_endpoints(directory: Directory, *application_ids: int, **changes: Any) -> Directory:
    """The directory with the endpoints of these applications' binds, all of the one account."""
    endpoints = [replace(endpoint_of(ACCOUNT_ID, application_id), **changes) for application_id in application_ids]
    return replace(
        directory,
        endpoints={ACCOUNT_ID: endpoints},
        endpoint_by_id={endpoint.id: endpoint for endpoint in endpoints},
    )


@dataclass
class Carrier:
    """A connector that takes whatever it is given at once, and reports as a test says."""

    rt: Runtime
    settings: Any
    sent: list[Outgoing] = field(default_factory=list)
    is_up: bool = True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def health(self) -> str:
        return "up"

    def room(self) -> tuple[int, int]:
        return 1_000, 0

    def reserve(self, parts: int) -> None: ...

    def give_back(self, parts: int) -> None: ...

    def on_room(self, wake: Callable[[], None]) -> None: ...

    def send(self, parcel: Sequence[Outgoing], report: Report) -> None:
        for outgoing in parcel:
            self.sent.append(outgoing)
            key = f"k{outgoing.delivery_id}"
            report(outgoing, Sent((key,), (key,)))

    async def report(self, *delivery_ids: int, state: State = State.DELIVERED, code: str = "") -> None:
        """Say what became of deliveries, once they are known to be sent."""
        keys = [f"k{identifier}" for identifier in delivery_ids]
        while len(await ask(self.rt.store.url, "SELECT 1 FROM carrier_ref")) < len(keys):
            await asyncio.sleep(0.005)
        now_ms = self.rt.clock.now_ms()
        await settle(self.rt, [DeliveryReport(CONNECTOR_ID, key, state, now_ms, code) for key in keys])


@dataclass
class Customer:
    """The server as a test sees it: its runtime, its port, and connections to it."""

    rt: Runtime
    port: int
    tls_port: int | None = None
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def connect(self) -> Esme:
        """A connection that is not bound, ended with the test."""
        return await self.stack.enter_async_context(await Esme.connect(self.port))

    async def bind(self, kind: str = "transceiver", login: str = LOGIN, password: str = PASSWORD) -> Esme:
        """A bound connection."""
        esme = await self.connect()
        assert await esme.bind(kind, login, password) == 0
        return esme

    async def carrier(self) -> Carrier:
        """Let what is accepted leave, through a connector that takes everything."""
        carrier = Carrier(self.rt, self.rt.directory.connectors[CONNECTOR_ID])
        self.rt.connectors[CONNECTOR_ID] = carrier
        dispatcher = Dispatcher(self.rt, carrier)
        await self.stack.enter_async_context(_running(dispatcher.run()))
        return carrier

    async def notify(self) -> None:
        """Let events be told."""
        notifier = Notifier(self.rt)
        self.stack.push_async_callback(notifier.drain)
        await self.stack.enter_async_context(_running(notifier.run()))

    async def rows(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """What is committed."""
        return await ask(self.rt.store.url, question, *values)

    async def until(self, question: str, wanted: list[tuple[Any, ...]]) -> None:
        """Wait until a query gives this."""
        for _ in range(1_000):
            found = await self.rows(question)
            if found == wanted:
                return
            await asyncio.sleep(0.005)
        assert found == wanted


@contextlib.asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def rules(**changes: Any) -> Rules:
    """Rules of an account or application that differ from the defaults in this."""
    return msgspec.structs.replace(Rules(), **changes)
