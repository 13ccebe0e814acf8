"""A runtime whose SMPP server listens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from berid.config import Config, Net, Smpp
from berid.dialects.smpp import dialect
from tests.dialects.smpp.world import Customer, RushClock, make_login, with_endpoints, with_logins
from tests.support.builders import APPLICATION_ID, make_runtime

Serve = Callable[..., Any]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a server: `await serve(window=3)`; keywords are settings of `config.Smpp`, `url` the store's, `clock`
    a clock."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(url: str = "", clock: Any = None, schedule: tuple[int, ...] = (), **smpp: Any) -> Customer:
            url = url or f"sqlite:///{tmp_path / 'berid.db'}"
            net = Net(callback_schedule_s=schedule) if schedule else Net()
            config = Config(data_dir=tmp_path, database_url=url, smpp=Smpp(**({"port": 0} | smpp)), net=net)
            rt = await stack.enter_async_context(make_runtime(url, clock=clock or RushClock(), config=config))
            rt.directory = with_endpoints(with_logins(rt.directory, make_login()), APPLICATION_ID)
            port, tls_port = await dialect.listen(rt)
            stack.push_async_callback(dialect.shut, rt)
            assert port is not None
            customer = Customer(rt, port, tls_port)
            await stack.enter_async_context(customer.stack)
            return customer

        yield start


@pytest.fixture
async def customer(serve: Serve) -> Customer:
    """A server as it is by default."""
    made: Customer = await serve()
    return made
