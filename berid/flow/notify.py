"""Callback job → the customer's URL or bind, signed, tried again on a published schedule, every try recorded.

Each host has its own lane, its own few calls at a time, and its own place in the waiting room: one slow receiver
harms only itself. Events for one endpoint that allows it travel together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from berid.base import failpoint
from berid.base.ids import show
from berid.domain.errors import Refused
from berid.domain.report import Endpoint
from berid.flow.changes import CALLBACK_LEASE_MS
from berid.flow.endpoints import change_endpoint
from berid.flow.ports import Bundle, Runtime, Tell
from berid.net import NetError
from berid.queue.lanes import Lane
from berid.store import binds, callbacks, jobs
from berid.store.hot import HotTx, StoreAway, Verb

log = logging.getLogger("berid.notify")

LANE_CAPACITY = 400
"""Bundles of one host in memory at most: with `flow.changes.BUNDLE_MAX` events in each, some twenty megabytes."""

GONE = 410
"""What a receiver answers that is there no more and wants to hear nothing (Standard Webhooks): its endpoint is turned off."""

CALLS_AT_ONCE = 8
"""Calls in flight to one host at most."""

BATCH_MAX = 500
"""Events in one call at most, whatever the endpoint asks for."""

GATHER = 8
GATHER_S = 0.01
"""While calls are under way, fewer bundles than this wait so long for others: a call costs as much as fifty events in it."""

DISCOVER_S = 0.25
"""How often the table is asked for hosts that have due work and no lane in memory."""

IDLE_END_S = 30.0
"""A host without work for this long gives its lane up."""


class _Try(msgspec.Struct):
    """What came of one try, of bundles that travelled together. `due_ms` 0 means told; -1 means no further try."""

    rt: Runtime
    bundles: Sequence[Bundle]
    status: int
    error: str
    elapsed_ms: int
    at_ms: int
    due_ms: int
    lane: str


async def _record_tries(tx: HotTx, tries: list[_Try]) -> list[Exception | None]:
    rt = tries[0].rt
    await tx.insert(
        "callback_try",
        [
            (bundle.id, identifier, item.at_ms, item.status, item.error, item.elapsed_ms)
            for item in tries
            if item.at_ms
            for bundle, identifier in zip(item.bundles, rt.ids.take(len(item.bundles)), strict=True)
        ],
    )
    done = [bundle.id for item in tries if item.due_ms == 0 for bundle in item.bundles]
    again = [
        ("callback", item.lane, item.due_ms, bundle.attempts, bundle.id)
        for item in tries
        if item.due_ms > 0
        for bundle in item.bundles
    ]
    buried = [(item.at_ms, item.error, bundle.id) for item in tries if item.due_ms < 0 for bundle in item.bundles]
    if done:
        await tx.jobs_done(done)
    if again:
        await tx.jobs_again(again)
    if buried:
        await tx.jobs_bury(buried)
    return [None for _ in tries]


TRIES: Verb[_Try, None] = Verb("tries", 50, _record_tries)
"""Tries of callbacks, with their jobs done, given back or buried."""


@dataclass(slots=True)
class _Ask:
    lane: str
    room: int
    now_ms: int
    slot: int
    cursor: int
    found: int = 0


async def _lease(tx: HotTx, asks: list[_Ask]) -> list[list[Bundle] | Exception]:
    results: list[list[Bundle] | Exception] = []
    for ask in asks:
        jobs = await tx.lease(ask.lane, 1, ask.room, ask.now_ms, ask.now_ms + CALLBACK_LEASE_MS, ask.slot, ask.cursor)
        ask.found = len(jobs)
        attempts = {job.id: job.attempts + 1 for job in jobs}
        rows = await tx.callbacks(list(attempts)) if jobs else []
        if jobs:
            ask.cursor = jobs[-1].account_id
        tells: dict[int, list[Tell]] = {}
        for row in rows:
            tells.setdefault(row[6], []).append(Tell(*row[:6]))
        missing = attempts.keys() - tells.keys()
        if missing:
            await tx.jobs_done(list(missing))
        results.append([_bundle(found, attempts[bundle_id]) for bundle_id, found in tells.items()])
    return results


def _bundle(tells: Sequence[Tell], attempts: int) -> Bundle:
    """The bundle of these events."""
    first = tells[0]
    return Bundle(first.callback_id, first.endpoint_id, first.account_id, tells, attempts, len(tells))


LEASE: Verb[_Ask, list[Bundle]] = Verb("lease_callbacks", 17, _lease)


class Notifier:
    """Runs every callback lane that has work. `run` until cancelled, then `drain`."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._hosts: dict[str, _Host] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Find hosts with work and serve them, until cancelled."""
        rt = self._rt
        while True:
            try:
                async with rt.store.read() as tx:
                    due = await jobs.due_lanes(tx, "h", rt.clock.now_ms())
                for lane_name, _ in due:
                    if not _waits_for_bind(rt, lane_name):
                        self._serve(lane_name)
            except StoreAway:
                log.warning("the store is away; callbacks wait")
            for lane_name, host in list(self._hosts.items()):
                if host.is_idle_since(rt.clock.ticks_s() - IDLE_END_S):
                    rt.lanes.pop(lane_name, None)
                    del self._hosts[lane_name]
            await rt.clock.sleep(DISCOVER_S)

    def _serve(self, lane_name: str) -> None:
        host = self._hosts.get(lane_name)
        if host is None:
            host = self._hosts[lane_name] = _Host(self._rt, lane_name)
            self._rt.lanes[lane_name] = host.lane
            task = asyncio.get_running_loop().create_task(host.run(), name=f"notify-{lane_name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        host.lane.spill(1, 0)

    async def drain(self) -> None:
        """Let calls that are under way end and be recorded, within their time limit; give the rest back."""
        for host in self._hosts.values():
            host.stop()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


class _Host:
    """One receiver: its lane, and a few calls at a time."""

    def __init__(self, rt: Runtime, lane_name: str) -> None:
        self._rt = rt
        self.lane: Lane[Bundle] = Lane(lane_name, LANE_CAPACITY)
        self._calls: set[asyncio.Task[None]] = set()
        self._cursor = -1
        self._busy_s = rt.clock.ticks_s()
        self._is_stopping = False

    def is_idle_since(self, moment_s: float) -> bool:
        """Whether nothing happened since, in which case it has also stopped."""
        lane = self.lane
        is_needed = self._calls or len(lane) or lane.has_spilled or lane.is_awaiting
        if self._busy_s < moment_s and not is_needed:
            self.stop()
            return True
        return False

    def stop(self) -> None:
        """Take nothing more."""
        self._is_stopping = True
        self.lane.wake.set()

    async def run(self) -> None:
        """Serve until stopped."""
        rt, lane = self._rt, self.lane
        while not self._is_stopping:
            lane.wake.clear()
            if lane.has_spilled and lane.room * 2 >= lane.capacity:
                await self._refill()
            if self._calls and 0 < len(lane) < GATHER:
                await rt.clock.sleep(GATHER_S)
            while len(lane) and len(self._calls) < CALLS_AT_ONCE and not self._is_stopping:
                self._busy_s = rt.clock.ticks_s()
                self._start_calls(lane.take(BATCH_MAX))
            if lane.has_spilled and lane.room * 2 >= lane.capacity:
                continue
            await lane.wake.wait()
        if self._calls:
            await asyncio.gather(*self._calls, return_exceptions=True)
        left = lane.empty()
        if left:
            await self._record([_Try(rt, left, 0, "", 0, 0, rt.clock.now_ms(), lane.name)])

    async def _refill(self) -> None:
        rt, lane, spills = self._rt, self.lane, self.lane.spills
        ask = _Ask(lane.name, lane.room, rt.clock.now_ms(), rt.slot, self._cursor)
        try:
            bundles = (await rt.store.lease(LEASE, [ask]))[0]
        except StoreAway:
            lane.drained(1)  # the notifier will find it again
            return
        self._cursor = ask.cursor
        if ask.found < lane.room:
            lane.drained(1, spills)
        lane.push(bundles)

    def _start_calls(self, bundles: list[Bundle]) -> None:
        """Group by endpoint, as many bundles in a call as the endpoint allows events."""
        by_endpoint: dict[int, list[Bundle]] = {}
        for bundle in bundles:
            by_endpoint.setdefault(bundle.endpoint_id, []).append(bundle)
        for endpoint_id, mine in by_endpoint.items():
            endpoint = self._rt.directory.endpoint_by_id.get(endpoint_id)
            room = min(endpoint.batch_max, BATCH_MAX) if endpoint is not None else BATCH_MAX
            batch: list[Bundle] = []
            events = 0
            for bundle in mine:
                if endpoint is not None and bundle.parts > room:
                    self._start(self._divide(bundle))
                    continue
                if events + bundle.parts > room:
                    self._start(self._call(endpoint, batch))
                    batch, events = [], 0
                batch.append(bundle)
                events += bundle.parts
            if batch:
                self._start(self._call(endpoint, batch))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._called)

    def _called(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self.lane.wake.set()

    async def _divide(self, bundle: Bundle) -> None:
        """The endpoint takes fewer events in a call than when these were bundled: each of them goes on by itself."""
        rt = self._rt
        try:
            async with rt.store.transaction() as tx:
                await callbacks.divide(tx, bundle.account_id, [bundle.id])
        except StoreAway:
            return  # the lease runs out, and it is divided then
        self.lane.push([_bundle([tell], bundle.attempts) for tell in bundle.tells])

    async def _call(self, endpoint: Endpoint | None, bundles: list[Bundle]) -> None:
        """One call, and its record."""
        rt = self._rt
        at_ms = rt.clock.now_ms()
        if endpoint is None or endpoint.state != "on":
            await self._record([_Try(rt, bundles, 0, "the endpoint is off", 0, at_ms, -1, self.lane.name)])
            return
        if endpoint.kind == binds.KIND:
            await self._record(await self._over_binds(endpoint, bundles, at_ms))
            return
        tells = [tell for bundle in bundles for tell in bundle.tells]
        status, error, elapsed_ms, is_told = await tell_endpoint(rt, endpoint, tells)
        rt.metrics.callback("told" if is_told else "failed", len(tells))
        if is_told:
            await self._record([_Try(rt, bundles, status, error, elapsed_ms, at_ms, 0, self.lane.name)])
            return
        if status == GONE and endpoint.kind == "native":
            await self._turn_off(endpoint)
            await self._record([_Try(rt, bundles, status, error, elapsed_ms, at_ms, -1, self.lane.name)])
            return
        await self._record(
            [
                _Try(rt, [bundle], status, error, elapsed_ms, at_ms, self._next_ms(bundle), self.lane.name)
                for bundle in bundles
            ]
        )

    async def _turn_off(self, endpoint: Endpoint) -> None:
        """Turn an endpoint off whose receiver has said that it is gone; its owner can turn it on and have the events replayed."""
        log.warning("an endpoint is gone and was turned off", extra={"endpoint": endpoint.id})
        # Refused: its owner has just deleted it. StoreAway: the next call hears the same.
        with contextlib.suppress(Refused, StoreAway):
            await change_endpoint(self._rt, "receiver", endpoint.account_id, endpoint.id, state="off")

    async def _over_binds(self, endpoint: Endpoint, bundles: list[Bundle], at_ms: int) -> list[_Try]:
        """Tell over the customer's binds, each event with an outcome of its own: none of them is bundled with others.

        What found no bind, or none with room, was not tried: its job is given back as if it had not been leased, and the
        lane looks into the table no more until the notifier finds it worth serving.
        """
        rt, lane = self._rt, self.lane.name
        tells = [tell for bundle in bundles for tell in bundle.tells]
        outcomes = await rt.binds.deliver(endpoint, tells) if rt.binds is not None else [None] * len(tells)
        elapsed_ms = rt.clock.now_ms() - at_ms
        if None in outcomes:
            self.lane.drained(1)
        tries: list[_Try] = []
        for bundle, error in zip(bundles, outcomes, strict=True):
            if error is None:
                bundle.attempts -= 1
                tries.append(_Try(rt, [bundle], 0, "", 0, 0, rt.clock.now_ms(), lane))
                continue
            rt.metrics.callback("failed" if error else "told")
            tries.append(_Try(rt, [bundle], 0, error, elapsed_ms, at_ms, self._next_ms(bundle) if error else 0, lane))
        return tries

    def _next_ms(self, bundle: Bundle) -> int:
        schedule = pauses_s(self._rt, bundle.endpoint_id)
        if bundle.attempts > len(schedule):
            return -1
        return self._rt.clock.now_ms() + int(schedule[bundle.attempts - 1] * 1000)

    async def _record(self, tries: list[_Try]) -> None:
        while True:
            try:
                await self._rt.store.hot.do(TRIES, tries)
                return
            except StoreAway:
                if self._is_stopping:
                    return  # the leases run out: the receiver hears the same event, with the same id, again
                await self._rt.clock.sleep(0.5)


def _waits_for_bind(rt: Runtime, lane_name: str) -> bool:
    """Whether a lane is that of an SMPP application without a bind here: it is away, or bound to another process.

    Its events stay due in the table, so that a bind, here or there, has them at once and none is given up for the time
    that the customer was away.
    """
    application_id = binds.application_of(lane_name)
    endpoint = rt.directory.endpoint_by_id.get(application_id) if application_id else None
    if endpoint is None or endpoint.kind != binds.KIND or endpoint.state != "on":
        return False
    return rt.binds is None or not rt.binds.serves(application_id)


def pauses_s(rt: Runtime, endpoint_id: int) -> Sequence[float]:
    """The pauses after each failed try of an endpoint's callbacks; after the last one it is given up.

    As configured, unless the endpoint's dialect has a `schedule_s(endpoint)`: some providers promise a schedule of their own.
    """
    endpoint = rt.directory.endpoint_by_id.get(endpoint_id)
    own = getattr(rt.dialects.get(endpoint.kind), "schedule_s", None) if endpoint is not None else None
    if endpoint is None or own is None:
        return rt.config.net.callback_schedule_s
    pauses: Sequence[float] = own(endpoint)
    return pauses


async def tell_endpoint(rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[int, str, int, bool]:
    """Tell one web address some events. Returns (status, error in words, milliseconds, whether it was received)."""
    dialect = rt.dialects.get(endpoint.kind)
    if dialect is None:
        return 0, f"no dialect {endpoint.kind!r}", 0, False
    body, headers = dialect.render(rt, endpoint, tells)
    if failpoint.armed:
        failpoint.hit("notify.before_post")
    begun_s = rt.clock.ticks_s()
    try:
        with rt.trace.span("callback", endpoint=endpoint.id, events=len(tells)):
            answer = await rt.http.post(endpoint.url, body, headers)
    except NetError as error:
        return 0, f"{error.kind}: {error}", round((rt.clock.ticks_s() - begun_s) * 1000), False
    if failpoint.armed:
        failpoint.hit("notify.after_post")
    if dialect.is_told(rt, endpoint, answer.status, answer.body):
        return answer.status, "", answer.elapsed_ms, True
    return answer.status, f"answered {answer.status}", answer.elapsed_ms, False


def event_id(tell: Tell) -> str:
    """The public id of an event: the same at every try, so that a receiver can drop repeats."""
    return show("evt", tell.callback_id)
