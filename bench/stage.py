"""Sets the stage for a row: a database with a business in it, the far sides, the server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench import far
from berid import channels
from berid.base.ids import first_id_at
from berid.config import load
from berid.domain.account import Rules, SenderState
from berid.domain.routing import Route
from berid.flow import manage
from berid.store import make_engine, schema
from tools import pg

ACTOR = "bench"
MONEY = 10**17
SENDER = "Bench"

SLOW_SYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static void wait2(void) { struct timespec t = {0, 2000000}; nanosleep(&t, 0); }
int fsync(int fd) { static int (*real)(int); if (!real) real = dlsym(RTLD_NEXT, "fsync"); wait2(); return real(fd); }
int fdatasync(int fd) { static int (*real)(int); if (!real) real = dlsym(RTLD_NEXT, "fdatasync"); wait2(); return real(fd); }
"""


@dataclass
class Stage:
    """Everything a row needs: the server and far sides as processes, and the tokens of its business."""

    server: far.Process
    carrier: far.Process
    receiver: far.Process
    port: int
    token: str
    api_key: str
    url: str
    options: dict[str, str]
    """How the server was started."""

    def restart(self) -> float:
        """Stop the server in order, start it again, and return the seconds from start to ready."""
        self.server.end()
        started = time.perf_counter()
        self.server = far.Process(far.server, {}, **self.options)
        self.port = self.server.ready
        return time.perf_counter() - started


def slow_sync() -> str:
    """The path of a shared library that adds 2 ms to every sync, "" when there is no C compiler to make it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return ""
    folder = Path(tempfile.mkdtemp(prefix="berid-slow-"))
    folder.chmod(0o755)
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(SLOW_SYNC)
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    library.chmod(0o755)
    return str(library)


@contextlib.contextmanager
def database(kind: str, folder: Path, preload: str) -> Iterator[str]:
    """The URL of a new, durable database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'berid.db'}"
        return
    if preload:
        os.environ["LD_PRELOAD"] = preload
    try:
        with pg.running(durable=True) as url:
            os.environ.pop("LD_PRELOAD", None)
            yield url
    finally:
        os.environ.pop("LD_PRELOAD", None)


async def business(
    url: str, data_dir: Path, carrier_port: int, receiver_port: int, callbacks: bool, rate: int
) -> tuple[str, str]:
    """Migrate, and make one account with money, a price list, a sender, a connector, a route and, if asked, an endpoint."""
    config = load(None, {}, {"data_dir": str(data_dir), "database_url": url, "net.allowed_networks": "127.0.0.0/8"})
    await schema.migrate(url)
    sms = channels.discover()["sms"]
    async with manage.open_office(config) as office:
        account_id = await manage.create_account(
            office, ACTOR, name="Bench", home="SA", zone="Asia/Riyadh", language="en"
        )
        application_id = await manage.create_application(office, ACTOR, account_id, "Bench", manage.SERVICES)
        await manage.open_wallets(office, ACTOR, account_id, ("SAR",))
        await manage.add_bonus(office, ACTOR, account_id, "test", "SAR", MONEY, "bench")
        list_id = await manage.create_price_list(office, ACTOR, "Bench", "sms", "SAR")
        await manage.import_prices(office, ACTOR, list_id, "prefix,price\n,0.05\n966,0.026\n")
        await manage.use_price_list(office, ACTOR, account_id, list_id, 1)
        sender_id = await manage.request_sender(office, ACTOR, account_id, "sms", SENDER, category="any")
        await manage.move_sender(office, ACTOR, account_id, sender_id, SenderState.APPROVED)
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": carrier_port,
            "system_id": "bench",
            "password": "bench",
            "window": 100,
            "binds": 4,
            "rate": rate,
        }
        connector_id = await manage.create_connector(office, ACTOR, "bench", sms, "smpp", "test", settings)
        await manage.create_route(office, ACTOR, Route(0, "bench", 100, "test", "sms", (connector_id,)))
        rules = Rules(otp_prefix_per_minute=1_000_000)
        await manage.set_application_rules(office, ACTOR, account_id, application_id, rules)
        token = (
            await manage.create_bearer(office, ACTOR, account_id, application_id, mode="test", label="bench")
        ).secret
        key = (
            await manage.create_api_key(office, ACTOR, account_id, application_id, mode="test", label="bench")
        ).secret
        if callbacks:
            await manage.create_endpoint(
                office,
                ACTOR,
                account_id,
                application_id,
                f"http://127.0.0.1:{receiver_port}/",
                batch_max=100,
                allowed_networks=config.net.allowed_networks,
            )
    return token, key


async def write_history(url: str, count: int) -> None:
    """Write finished messages with one delivery each, as if they had been sent yesterday: old enough to be forgotten, they would
    be, while we measure. A million at a time, within what the store allows a statement."""
    at_ms = time.time_ns() // 1_000_000 - 86_400_000
    for start in range(0, count, 1_000_000):
        await _write_some(url, first_id_at(at_ms), at_ms, start + 1, min(start + 1_000_000, count))


async def _write_some(url: str, base: int, at_ms: int, first: int, last: int) -> None:
    numbers = (
        f"generate_series({first}, {last}) AS n(i)"
        if url.startswith("postgresql")
        else f"(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n) n"
    )
    engine = make_engine(url)
    async with engine.connect() as connection:
        await connection.execution_options(berid_write=True)
        async with connection.begin():
            (account_id,) = (await connection.execute(text("SELECT id FROM account"))).one()
            for statement in (
                "INSERT INTO message (id, account_id, mode, channel, dialect, sender, category, body, total, first_id, "
                f"last_id, created_ms, expires_ms) SELECT {base} + i * 64, :account, 'test', 'sms', 'native', 'Bench', "
                f"'transactional', 'An old message', 1, {base} + i * 64 + 32, {base} + i * 64 + 32, {at_ms}, {at_ms} "
                f"FROM {numbers}",
                "INSERT INTO delivery (id, message_id, account_id, recipient, country, state, units, money, connector_id, "
                "attempt, carrier_ids, sent_ms, final_ms, report_ms, report_code) "
                f"SELECT {base} + i * 64 + 32, {base} + i * 64, :account, '966500000000', 'SA', 'delivered', 1, 'charged', 1, 1, "
                f"i, {at_ms}, {at_ms}, {at_ms}, '000' FROM {numbers}",
            ):
                await connection.execute(text(statement), {"account": account_id})
    await engine.dispose()


@contextlib.asynccontextmanager
async def stage(
    kind: str, preload: str = "", *, callbacks: bool = True, rate: int = 0, links: bool = True, history: int = 0
) -> AsyncIterator[Stage]:
    """A whole stage on a new database; `links` False leaves the connectors out, so that only acceptance is measured.

    `history` is how many finished deliveries the database holds already.
    """
    folder = Path(tempfile.mkdtemp(prefix="berid-bench-"))
    folder.chmod(0o755)
    running: list[far.Process] = []
    try:
        with database(kind, folder, preload) as url:
            carrier = far.Process(far.carrier, {})
            running.append(carrier)
            receiver = far.Process(far.receiver, {})
            running.append(receiver)
            token, key = await business(url, folder, carrier.ready, receiver.ready, callbacks, rate)
            roles = "web,worker,links" if links else "web"
            if history:
                await write_history(url, history)
            options = {
                "data_dir": str(folder),
                "database_url": url,
                "http.port": "0",
                "roles": roles,
                "net.allowed_networks": "127.0.0.0/8",
            }
            environment = {"LD_PRELOAD": preload} if preload and kind == "sqlite" else {}
            server = far.Process(far.server, environment, **options)
            ground = Stage(server, carrier, receiver, server.ready, token, key, url, options)
            try:
                yield ground
            finally:
                ground.server.end()
    finally:
        for process in reversed(running):
            process.end()
        shutil.rmtree(folder, ignore_errors=True)
