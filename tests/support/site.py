"""A whole site: a database with the demo's business in it, a carrier, a receiver of callbacks, and Berid as a process.

    async with make_site(folder, database_url) as site:
        await site.berid.start()
        status, answer = await site.send("966501234567", text="hello")
        await site.until_state(answer["id"], "delivered")

Carrier and receiver run in the process of the test, so that they outlive every death of ours, as carriers do.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from berid import channels, demo
from berid.channels.sms.simulator import Carrier, CarrierSettings
from berid.config import load
from berid.domain.routing import Route
from berid.flow import manage
from berid.flow.manage import Office, open_office
from berid.store import accounts, schema
from tests.support.database import ask
from tests.support.process import BeridProcess
from tests.support.receiver import Receiver

ACTOR = "test"
LOOK_S = 0.05
"""How often a condition is looked at that nothing announces."""


@dataclass
class Site:
    """See the module's text. `token` is a test token of the account Demo, `connector_id` the way to `carrier`."""

    folder: Path
    database_url: str
    carrier: Carrier
    receiver: Receiver
    berid: BeridProcess
    http: aiohttp.ClientSession
    token: str
    connector_id: int
    route_id: int
    account_id: int
    processes: list[BeridProcess] = field(default_factory=list)

    # The customer

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str = "",
        berid: BeridProcess | None = None,
    ) -> tuple[int, Any]:
        """One call of the API: the status, and the body if it is JSON. Raises `aiohttp.ClientError` and TimeoutError."""
        given = {"Authorization": f"Bearer {token or self.token}", **(headers or {})}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            given["Content-Type"] = "application/json"
        url = (berid or self.berid).url + path
        async with self.http.request(method, url, data=data, headers=given) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if text else None

    async def send(
        self,
        *to: str,
        text: str = "hello",
        key: str = "",
        token: str = "",
        berid: BeridProcess | None = None,
        **fields: Any,
    ) -> tuple[int, Any]:
        """POST /messages by the native API."""
        body = {"to": list(to), "text": text, "sender": demo.SENDER, **fields}
        headers = {"Idempotency-Key": key} if key else {}
        return await self.call("POST", "/api/v1/messages", body, headers=headers, token=token, berid=berid)

    async def accepted(self, *to: str, **fields: Any) -> dict[str, Any]:
        """Send, and the yes to it. Raises AssertionError with the answer if it was a no."""
        status, answer = await self.send(*to, **fields)
        assert status == 201, f"{status} {answer}"
        found: dict[str, Any] = answer
        return found

    async def state(self, message_id: str) -> str:
        """The state of a message."""
        _, answer = await self.call("GET", f"/api/v1/messages/{message_id}")
        found: str = answer["state"]
        return found

    async def until_state(self, message_id: str, *states: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """Wait until a message is in one of these states; the whole message."""
        answer: dict[str, Any] = {}

        async def is_there() -> bool:
            nonlocal answer
            _, answer = await self.call("GET", f"/api/v1/messages/{message_id}")
            return answer["state"] in states

        await self.until(
            is_there, timeout_s, lambda: f"the message is {answer.get('state')}, not {' or '.join(states)}"
        )
        return answer

    async def until(
        self,
        condition: Callable[[], Awaitable[bool]],
        timeout_s: float = 10.0,
        what: Callable[[], str] = lambda: "it did not come true",
    ) -> None:
        """Wait until `condition` is true. Raises AssertionError with what `what` says."""
        end_s = time.monotonic() + timeout_s
        while not await condition():
            assert time.monotonic() < end_s, f"{what()} after {timeout_s:g} s\n{self.berid.log[-2000:]}"
            await asyncio.sleep(LOOK_S)

    # The operator

    @asynccontextmanager
    async def office(self) -> AsyncIterator[Office]:
        """The office, to change the business beside a running process."""
        async with open_office(self._config()) as office:
            yield office

    async def set_connector(self, connector_id: int = 0, **settings: object) -> None:
        """Change settings of a connector, the first one unless another is named."""
        async with self.office() as office:
            channel = channels.discover()["sms"]
            await manage.update_connector(office, ACTOR, connector_id or self.connector_id, channel, settings)

    async def add_connector(self, name: str, carrier: Carrier, **settings: object) -> int:
        """A second way out; behind the first on the one route."""
        async with self.office() as office:
            channel = channels.discover()["sms"]
            given = {**_login(carrier), **settings}
            identifier = await manage.create_connector(office, ACTOR, name, channel, "smpp", "test", given)
            await self.change_route(connectors=(self.connector_id, identifier))
            return identifier

    async def change_route(self, **changes: Any) -> None:
        """Change the one route."""
        async with self.office() as office:
            async with office.store.read() as tx:
                routes = await accounts.route_states(tx)
            assert len(routes) == 1
            route = Route(self.route_id, "test", 100, "test", "sms", (self.connector_id,))
            await manage.update_route(office, ACTOR, replace(route, **changes))

    async def add_account(self, name: str, riyals: int = 1_000) -> str:
        """Another account like Demo, with so much money; its token."""
        async with self.office() as office:
            wanted = replace(demo.DEMO, name=name)
            async with office.store.read() as tx:
                lists = {each.name: each.id for each in await accounts.price_lists(tx) if each.channel == "sms"}
            account_id, application_id = await demo._account(office, wanted, lists)
            change = riyals * 1_000_000 - demo.BONUS_MICROS
            if change:
                await manage.adjust(office, ACTOR, account_id, "test", "SAR", change, "for the test")
            made = await manage.create_bearer(office, ACTOR, account_id, application_id, mode="test", label="test")
            return made.secret

    async def be_called_back(self, receiver: Receiver | None = None, account_id: int = 0, batch_max: int = 1) -> None:
        """An endpoint that is told every end of a message. A running process knows of it within a second."""
        async with self.office() as office:
            await manage.create_endpoint(
                office,
                ACTOR,
                account_id or self.account_id,
                0,
                (receiver or self.receiver).url(),
                batch_max=batch_max,
                allowed_networks=demo.LOOPBACK,
            )

    async def add_money(self, riyals: int) -> None:
        """More for the account Demo to spend."""
        async with self.office() as office:
            await manage.add_bonus(office, ACTOR, self.account_id, "test", "SAR", riyals * 1_000_000, "for the test")

    async def ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        """What is committed in the database."""
        return await ask(self.database_url, question, *values)

    async def states(self) -> dict[str, int]:
        """How many deliveries are in each state."""
        return {row[0]: row[1] for row in await self.ask("SELECT state, count(*) FROM delivery GROUP BY state")}

    async def until_settled(self, timeout_s: float = 20.0, but: tuple[str, ...] = ()) -> dict[str, int]:
        """Wait until every delivery has reached its end, or is in one of the states `but`; how many are in each."""
        found: dict[str, int] = {}
        settled = {"delivered", "read", "undelivered", "expired", "rejected", "failed", "cancelled", *but}

        async def is_there() -> bool:
            nonlocal found
            found = await self.states()
            return found.keys() <= settled

        await self.until(is_there, timeout_s, lambda: f"deliveries are {found}")
        return found

    async def check_books(self) -> None:
        """`berid ledger verify` finds nothing, and available, held and spent of every wallet add up to what came in."""
        async with self.office() as office, office.store.read() as tx:
            found = await manage.verify_ledger(tx)
        assert not found, "\n".join(map(str, found))
        rows = await self.ask("SELECT account_id, available_micros + held_micros + spent_micros, id FROM wallet")
        for _, total, wallet_id in rows:
            ((came_in,),) = await self.ask(
                "SELECT coalesce(sum(amount_micros), 0) FROM ledger_entry WHERE wallet_id = $1 AND kind IN "
                "('topup', 'bonus', 'adjust')",
                wallet_id,
            )
            assert total == came_in, f"wallet {wallet_id}: {total} of {came_in}"

    def another(self, name: str) -> BeridProcess:
        """Another process on the same database (which must be PostgreSQL), with a folder of its own."""
        folder = self.folder / name
        settings = {**self.berid.settings, "BERID_KEY_FILE": str(self.folder / "key")}
        made = BeridProcess(folder, self.database_url, settings)
        self.processes.append(made)
        return made

    def _config(self) -> Any:
        return load(
            None, {}, {"data_dir": self.folder, "database_url": self.database_url, "key_file": self.folder / "key"}
        )


@asynccontextmanager
async def make_site(
    folder: Path,
    database_url: str,
    settings: Mapping[str, str] | None = None,
    carrier: CarrierSettings | None = None,
) -> AsyncIterator[Site]:
    """A site on an empty database, with Berid not started yet. `settings` are its environment variables."""
    folder.mkdir(parents=True, exist_ok=True)
    far = Carrier(replace(carrier or CarrierSettings(), accounts={demo.CARRIER_LOGIN: "secret"}, log_size=500_000))
    await far.start()
    berid = BeridProcess(folder, database_url, settings)
    try:
        async with (
            Receiver(keep=1_000_000) as receiver,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
            ) as http,
        ):
            site = Site(folder, database_url, far, receiver, berid, http, "", 0, 0, 0, [berid])
            await schema.migrate(database_url)
            async with site.office() as office:
                tokens = await demo.seed(office, channels.discover()["sms"], far, folder / "demo.json")
                async with office.store.read() as tx:
                    (site.connector_id,) = await accounts.connectors(tx)
                    ((site.route_id, _),) = (await accounts.route_states(tx)).values()
                    found = await accounts.account_named(tx, demo.DEMO.name)
            assert found is not None
            site.account_id = found
            site.token = tokens.bearer_token
            try:
                yield site
            finally:
                for process in site.processes:
                    process.kill()
    finally:
        await far.stop()


def _login(carrier: Carrier) -> dict[str, object]:
    return {
        "host": "127.0.0.1",
        "port": carrier.port,
        "system_id": demo.CARRIER_LOGIN,
        "password": carrier.settings.accounts[demo.CARRIER_LOGIN],
        "submit_id_form": "hex",
        "receipt_id_form": "either",
    }
