"""The native API on a whole runtime in the test's own process, on both databases."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from berid.base.ids import read
from berid.dialects.native import dialect
from berid.dialects.web import Web, make_app
from berid.domain.message import MoneyState, State
from berid.flow.changes import Changes
from berid.flow.manage import money
from berid.flow.ports import Runtime
from berid.store.hot import HotTx, Verb
from tests.dialects.asgi import Answer, call
from tests.support.builders import SECRET, FakeClock, make_runtime
from tests.support.database import ask

NUMBER = "966501234567"


@dataclass
class Api:
    """The application, its runtime, and a clock that stands still."""

    rt: Runtime
    app: Web
    clock: FakeClock
    url: str

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = SECRET,
        key: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request below /api/v1; `body` is encoded unless it is bytes already."""
        given = dict(headers or {})
        if token is not None:
            given["authorization"] = f"Bearer {token}"
        if key:
            given["idempotency-key"] = key
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        return await call(self.app, method, "/api/v1" + path, raw, given)

    async def send(self, *to: str, **fields: Any) -> Any:
        """Send a message and return what was answered."""
        body = {"to": list(to) or NUMBER, "text": "hello", "sender": "Berid"} | fields
        answer = await self("POST", "/messages", body)
        assert answer.status == 201, answer.body
        return answer.json

    async def balance(self) -> Any:
        """The one wallet."""
        return (await self("GET", "/balance")).json["wallets"][0]

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        return int((await ask(self.url, f"SELECT count(*) FROM {table}"))[0][0])

    async def check_ledger(self) -> None:
        """Every wallet must equal its entries, and every message its deliveries."""
        async with self.rt.store.read() as tx:
            assert await money.verify_ledger(tx) == []


@pytest.fixture
async def api(store_url: str) -> AsyncIterator[Api]:
    """The API of an account with 1,000 SAR of test money, which pays 0.05 a part."""
    clock = FakeClock()
    async with make_runtime(store_url, clock=clock) as rt:
        rt.dialects["native"] = dialect
        yield Api(rt, make_app(rt, lambda: True), clock, store_url)


async def progress(rt: Runtime, deliveries: Sequence[Any], state: State, reason: str = "", **detail: Any) -> None:
    """Let deliveries (as the API shows them) reach a state, as `record` and `settle` do it."""
    ids = [read("dlv", each["id"]) or 0 for each in deliveries]

    async def run(tx: HotTx, items: list[int]) -> list[Exception | None]:
        changes = Changes(rt, rt.clock.now_ms())
        for row in await tx.tracked(items):
            if state in (State.SENT, State.DELIVERED):
                changes.charge(row)
            elif row.money == MoneyState.HELD.value and state not in (State.SENDING, State.UNCERTAIN):
                changes.release(row)
            changes.advance(row, state, reason, detail or None)
            changes.done.append(row.id)
        await changes.write(tx)
        return [None for _ in items]

    await rt.store.hot.do(Verb("test", 30, run), ids)


def with_directory(rt: Runtime, **changes: Any) -> None:
    """Change fields of the runtime's directory."""
    rt.directory = replace(rt.directory, **changes)
