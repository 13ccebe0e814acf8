"""The only module that knows every part: makes the `Runtime`, starts the parts in order, stops them in reverse.

Start: store, slot and ids, directory, what an ended process left behind, connectors, workers, and last the doors,
so that nothing is accepted before it could be carried. Stop: the doors first, then what is on the wire is finished,
and the store closes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from berid import channels, dialects
from berid.base.clock import Clock, SystemClock
from berid.base.ids import IdMaker
from berid.base.secret import Vault, load_key
from berid.config import Config
from berid.dialects.requests import RequestLog
from berid.dialects.web import make_app
from berid.flow.dispatch import watch_lanes
from berid.flow.links import Links
from berid.flow.manage import verify_ledger
from berid.flow.notify import Notifier
from berid.flow.ports import Runtime
from berid.flow.retention import Retention
from berid.flow.sweep import Sweeper, hold_late_schedules, hold_restored, undo_left_loads
from berid.listener import Listener
from berid.metrics import CONTENT_TYPE, Metrics
from berid.net import Outbound
from berid.store import directory as directories
from berid.store import jobs, open_store, processes, schema
from berid.store.hot import StoreAway
from berid.trace import Trace

log = logging.getLogger("berid.app")

WATCH_S = 0.5
"""How often the directory's version is compared: a revoked token ends within this time in every process."""

DEPTHS_S = 5.0
"""How often queue depths are counted for the metrics, while that is quickly done."""

SHARE = 50
"""One part in so many of the time may go into counting the queue, a page at a time, and into proving the books."""

BOOKS_S = 900.0
"""How often the books are proved while traffic runs. It reads every delivery and entry, beside everything else: two seconds for
each million of them."""

BOOKS_FIRST_S = 60.0
"""When they are proved first: not while a process that has just begun catches up."""

LAG_STEP_S = 0.25
"""How often the event loop's lateness is measured."""

LOCK_WAIT_S = 2.0
"""How long a start waits for the writing process of one that was killed a moment ago."""

STOP_S = 45.0
"""The whole time for an orderly stop: requests 10 s, outstanding submits 10 s, callbacks 15 s, and some to spare.
The service manager's own limit must be longer."""


class AlreadyRunning(Exception):
    """Another process serves this data folder."""


@dataclass(slots=True)
class Ports:
    """Where the process listens; None for what it does not serve."""

    http: int | None = None
    https: int | None = None
    smpp: int | None = None
    smpps: int | None = None
    metrics: int | None = None


@dataclass(slots=True)
class App:
    """A running process. `await App.start(config)`; `await app.stop()`."""

    config: Config
    rt: Runtime
    ports: Ports = field(default_factory=Ports)
    _name: str = ""
    _lock: int = -1
    _links: Links | None = None
    _notifier: Notifier | None = None
    _requests: RequestLog | None = None
    _listeners: list[Listener] = field(default_factory=list)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    is_ready: bool = False
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process must end: its slot was taken by another."""

    @classmethod
    async def start(cls, config: Config, clock: Clock | None = None) -> App:
        """Start every part that `config.roles` names. Raises `AlreadyRunning`, `SchemaOutdated`, `StoreAway`,
        `BadKey`, `TracingMissing`, `OSError`."""
        clock = clock or SystemClock()
        config.data_dir.mkdir(parents=True, exist_ok=True)
        await schema.check(config.database_url)
        lock = lock_data(config) if config.database_url.startswith("sqlite") else -1
        vault = Vault(load_key(config.key, config.key_file))
        trace = Trace(config.tracing)
        metrics = Metrics()
        store = await open_store(config.database_url, clock, metrics.commit)
        name = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(3).hex()}"
        async with store.transaction() as tx:
            alive_ms = await processes.last_alive_ms(tx)
            slot = 0
            if not store.is_sqlite:
                slot = await processes.claim_slot(tx, name, clock.now_ms())
            else:
                await _claim_alone(tx, name, clock.now_ms())
            floor = await processes.largest_id(tx)
            await jobs.free_leases(tx, clock.now_ms(), slot)
            found = await directories.load(tx)
        spoken = dialects.discover()
        rt = Runtime(
            config=config,
            clock=clock,
            ids=IdMaker(clock.now_ms, slot, floor),
            slot=slot,
            vault=vault,
            store=store,
            http=Outbound(
                allowed_networks=config.net.allowed_networks,
                timeout_s=config.net.read_timeout_s,
                connect_timeout_s=min(config.net.connect_timeout_s, config.net.read_timeout_s * 0.9),
            ),
            metrics=metrics,
            channels=channels.discover(),
            directory=found,
            dialects=spoken.dialects,
            listeners=spoken.listeners,
            trace=trace,
        )
        app = cls(config, rt, _name=name, _lock=lock)
        rt.refresh = app._refresh
        try:
            await app._start_parts(alive_ms)
        except BaseException:
            await app.stop()
            raise
        return app

    async def _start_parts(self, alive_ms: int) -> None:
        rt, roles = self.rt, self.config.roles
        async with rt.store.read() as tx:
            rt.parked = await jobs.parked_counts(tx)
        undone = await undo_left_loads(rt)
        if undone:
            log.warning("requests that an ended process was still loading are undone", extra={"count": undone})
        restored = await hold_restored(rt)
        if restored:
            log.warning("what waited in the backup that was restored is held", extra={"count": restored})
        held = await hold_late_schedules(rt, alive_ms)
        if held:
            log.warning("schedules that came due while the platform was down are held", extra={"count": held})
        async with rt.store.transaction() as tx:
            # The first beat, and not before late plans are held: were it missing, a process that dies within seconds would
            # leave no trace of when it lived; were it earlier, one that dies here would let the next one fire them.
            await processes.renew(tx, rt.slot, self._name, rt.clock.now_ms())
        self._spawn("store", rt.store.ended())
        self._spawn("watch", self._watch())
        self._spawn("renew", self._renew())
        watch = _Watch(rt)
        self._spawn("depths", watch.run())
        if "links" in roles:
            self._links = Links(rt)
            await self._links.once()
            self._spawn("links", self._links.run())
            self._spawn("lanes", watch_lanes(rt))
        if "worker" in roles:
            self._notifier = Notifier(rt)
            self._spawn("notifier", self._notifier.run())
            self._spawn("sweeper", Sweeper(rt).run())
            self._spawn("retention", Retention(rt).run())
            self._spawn("books", watch.prove_books())
        for listener in rt.listeners.values():
            if listener.name in roles:
                self.ports.smpp, self.ports.smpps = await listener.listen(rt)
        if "web" in roles:
            await self._open_doors()
        self.is_ready = True

    async def _open_doors(self) -> None:
        http = self.config.http
        if self.config.request_log != "off":
            self._requests = RequestLog(self.rt)
            self._spawn("requests", self._requests.run())
        application = make_app(self.rt, lambda: self.is_ready, requests=self._requests)
        arrives_s = http.request_timeout_s
        plain = Listener(application, http.host, http.port, request_timeout_s=arrives_s)
        self._listeners.append(plain)
        self.ports.http = await plain.open()
        if http.tls_port is not None and http.tls_cert is not None and http.tls_key is not None:
            secure = Listener(application, http.host, http.tls_port, http.tls_cert, http.tls_key, arrives_s)
            self._listeners.append(secure)
            self.ports.https = await secure.open()
            self._spawn("certificate", secure.follow_certificate(self.rt.clock))

        metrics = self.config.metrics
        if metrics.enabled:
            figures = Listener(_figures(self.rt), metrics.host, metrics.port)
            self._listeners.append(figures)
            self.ports.metrics = await figures.open()

    async def stop(self) -> None:
        """Stop in order, losing nothing: what was accepted stays queued, what is on the wire is waited for."""
        rt = self.rt
        self.is_ready = False
        await asyncio.gather(*(listener.close() for listener in self._listeners))
        for listener in rt.listeners.values():
            await listener.shut(rt)
        await self._cancel(
            "links", "lanes", "notifier", "sweeper", "retention", "books", "depths", "certificate", "requests"
        )
        if self._requests is not None:
            await self._requests.write()
        if self._links is not None:
            await self._links.stop()
        if self._notifier is not None:
            await self._notifier.drain()
        await self._cancel("watch", "renew", "store")
        try:
            async with rt.store.transaction() as tx:
                await jobs.free_leases(tx, rt.clock.now_ms(), rt.slot)
                await processes.leave(tx, rt.slot, self._name)
        except Exception as error:  # whatever it is, the rest must close
            log.warning("slot and leases could not be given back; they run out", extra={"why": str(error)})
        await rt.http.close()
        await rt.store.close()
        rt.trace.close()
        if self._lock >= 0:
            os.close(self._lock)

    async def _cancel(self, *names: str) -> None:
        tasks = [task for name, task in self._tasks.items() if name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks[name] = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("a part of the process ended", extra={"part": task.get_name()}, exc_info=task.exception())
            self.failed.set()

    async def _watch(self) -> None:
        """Take a new directory whenever the store's version has risen."""
        rt = self.rt
        while True:
            await rt.clock.sleep(WATCH_S)
            try:
                await self._refresh()
            except StoreAway:
                log.warning("the store is away; the directory stays as it was")

    async def _refresh(self) -> None:
        rt = self.rt
        async with rt.store.read() as tx:
            if await directories.version(tx) != rt.directory.version:
                rt.directory = await directories.load(tx, rt.directory)

    async def _renew(self) -> None:
        """Keep slot and connectors. On PostgreSQL, stop using them in good time when that fails."""
        rt = self.rt
        renewed_s = rt.clock.ticks_s()
        while True:
            await rt.clock.sleep(processes.RENEW_S)
            asked_s = rt.clock.ticks_s()
            try:
                async with rt.store.transaction() as tx:
                    held = await processes.renew(tx, rt.slot, self._name, rt.clock.now_ms())
            except StoreAway:
                is_late = rt.clock.ticks_s() - renewed_s > processes.HOLD_S - processes.RENEW_S
                if is_late and not rt.store.is_sqlite and self._links is not None:
                    self._links.fence()
                continue
            if held is None:
                log.critical("another process has taken this one's slot; ending")
                self.failed.set()
                return
            renewed_s = asked_s
            if self._links is not None and not rt.store.is_sqlite:
                self._links.renewed(held, asked_s)


class _Watch:
    """Looks at what the figures cannot be counted from: what waits, how late the loop is, how full the disk."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._found: list[jobs.LaneDepth] = []
        self._lag_s = 0.0
        self._balanced = 1.0
        rt.metrics.watch("berid_money_balanced", lambda: self._balanced)
        rt.metrics.watch("berid_queue_depth", lambda: {(d.lane, d.priority): d.jobs for d in self._found})
        rt.metrics.watch(
            "berid_queue_oldest_age_seconds",
            lambda: {(d.lane, d.priority): max(0.0, (rt.clock.now_ms() - d.oldest_due_ms) / 1000) for d in self._found},
        )
        rt.metrics.watch(
            "berid_bind_up",
            lambda: {
                (identifier,): {"up": 1.0, "degraded": 0.5}.get(connector.health().partition(":")[0], 0.0)
                for identifier, connector in rt.connectors.items()
            },
        )

        rt.metrics.watch("berid_loop_lag_seconds", self._worst_lag)
        rt.metrics.watch(
            "berid_disk_free_bytes", lambda: {("data",): float(shutil.disk_usage(rt.config.data_dir).free)}
        )

    async def run(self) -> None:
        """Count every few seconds, a long queue page by page, and see in between how late a short sleep ends."""
        rt = self._rt
        after = 0
        pages: list[jobs.LaneDepth] = []
        while True:
            begun_s = rt.clock.ticks_s()
            least_s = DEPTHS_S
            with contextlib.suppress(StoreAway):
                async with rt.store.read() as tx:
                    page, after = await jobs.depths(tx, after)
                pages += page
                if after:
                    least_s = 0.0
                else:
                    self._found = _summed(pages)
                    pages.clear()
            counted_s = rt.clock.ticks_s()
            pause_s = max(least_s, (counted_s - begun_s) * SHARE)
            while (now_s := rt.clock.ticks_s()) - counted_s < pause_s:
                await rt.clock.sleep(LAG_STEP_S)
                self._lag_s = max(self._lag_s, rt.clock.ticks_s() - now_s - LAG_STEP_S)

    async def prove_books(self) -> None:
        """Prove every balance from its entries, now and then; what does not fit is named in the log."""
        rt = self._rt
        await rt.clock.sleep(BOOKS_FIRST_S)
        while True:
            begun_s = rt.clock.ticks_s()
            try:
                async with rt.store.read() as tx:
                    found = await verify_ledger(tx, limit=10)
                self._balanced = 0.0 if found else 1.0
                for discrepancy in found:
                    log.critical("the books do not balance", extra={"discrepancy": repr(discrepancy)})
            except StoreAway:
                log.warning("the store is away; the books were not proved")
            await rt.clock.sleep(max(BOOKS_S, (rt.clock.ticks_s() - begun_s) * SHARE))

    def _worst_lag(self) -> float:
        worst, self._lag_s = self._lag_s, 0.0
        return worst


def _summed(pages: Iterable[jobs.LaneDepth]) -> list[jobs.LaneDepth]:
    """One depth for each lane and priority."""
    found: dict[tuple[str, int], jobs.LaneDepth] = {}
    for depth in pages:
        place = (depth.lane, depth.priority)
        before = found.get(place, depth._replace(jobs=0))
        found[place] = depth._replace(
            jobs=before.jobs + depth.jobs, oldest_due_ms=min(before.oldest_due_ms, depth.oldest_due_ms)
        )
    return list(found.values())


def _figures(rt: Runtime) -> Any:
    """The listener of `metrics.enabled`: whatever the path, the figures."""

    async def application(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", CONTENT_TYPE.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": rt.metrics.render()})

    return application


def lock_data(config: Config) -> int:
    """Hold the data folder for this process: SQLite has one writer of the hot path. The lock ends with the process, and with
    its writing process, which may need a moment longer to undo what it was doing: `LOCK_WAIT_S` at most."""
    import fcntl

    descriptor = os.open(config.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    until_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() < until_s:
                time.sleep(0.02)
                continue
            os.close(descriptor)
            raise AlreadyRunning(
                f"another process serves {config.data_dir}; stop it, or give this one its own data folder (BERID_DATA_DIR)"
            ) from None


async def _claim_alone(tx: Any, name: str, now_ms: int) -> None:
    """Take slot 0 whoever held it: the lock on the data folder says that he is gone."""
    await processes.leave_all(tx)
    await processes.claim_slot(tx, name, now_ms)


def calm_collector() -> None:
    """Tell Python's collector of cycles that what the start has made will stay, and to look less often at what is new.

    Left as it is, it walks over the whole process every few thousand messages: a tenth of the time goes there, and whoever asks
    meanwhile waits tens of milliseconds. The path makes no cycles; what does (exceptions, tasks) is still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


async def serve(config: Config, announce: Callable[[App], None] | None = None) -> None:
    """Run until SIGTERM or SIGINT, then stop in order. `announce` is called once the process serves."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    app = await App.start(config)
    calm_collector()
    try:
        if announce is not None:
            announce(app)
        waits = [asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(app.failed.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    finally:
        try:
            await asyncio.wait_for(app.stop(), STOP_S)
        except TimeoutError:
            log.error("the stop took too long; what is unfinished is taken up at the next start")
    if app.failed.is_set() and not stopping.is_set():
        raise SystemExit(1)
