"""Due delivery → connector → outcome: what leaves, when, and what became of it.

One `Dispatcher` per connector that this process runs. It keeps the connector's lane filled from the table, takes
parcels as large as the connector has room for, commits the intent (*sending*), hands the parcel over, and records
every outcome. Between the intent and the outcome lies the only stretch in which a crash leaves a doubt; it is never
longer than the connector's window.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from berid.domain.errors import Permanent, SendFailure, Uncertain
from berid.domain.journal import sent_detail
from berid.domain.message import ChargeOn, Outgoing, Sent, State
from berid.domain.routing import Route, UncertainPolicy
from berid.domain.rules import QUIET
from berid.flow.accept import LEASE_MS, best_connector
from berid.flow.changes import TIMELY_MS, Changes
from berid.flow.consent import STOP, Stop, stopped_by_rules
from berid.flow.ports import Connector, Fresh, Outcome, Runtime
from berid.flow.settle import apply_report, read_report, remember_sent
from berid.queue.lanes import Lane
from berid.store import jobs
from berid.store.hot import HotTx, StoreAway, Tracked, Verb

log = logging.getLogger("berid.dispatch")

LANE_SECONDS = 5
"""How many seconds' work of its connector a lane holds in memory: what waits there leaves by the rules of a moment ago, and
before its lease runs out."""

LANE_CAPACITY = 50_000
"""The most a lane holds: some 27 MB. What finds no room costs a lease and a second reading, a tenth of its whole way."""

LANE_LEAST = 50
"""What it holds at least, however slow its connector is."""

LEASE_PAGE = 500
"""Jobs of one lease at most: some five milliseconds, in which on SQLite everybody else's commit waits."""

PARCEL = 200
"""Deliveries in one parcel at most: one intent, one hand-over."""

LOOK_S = (0.1, 1.0)
"""How long to wait, at least and at most, before looking into the table again for what another process accepted or whose time
has come."""

LOOK_SHARE = 5
"""A look takes one in so many parts of the time, within these bounds. It costs us a millisecond, and the database ten more for a
thousand accounts whose plans wait for their time."""

IDLE_S = 0.05
"""How long a dispatcher with nothing to do waits before it looks at its connector again."""

RETRY_S = (1, 2, 5, 10, 20, 40, 60)
"""Waits before trying a delivery again when the carrier said "not now" and no other connector can take it."""

SILENT_SWITCH_S = 0.2
"""How often a connector that is down gives its work to others."""


class _Intent(msgspec.Struct):
    connector_id: int
    parcel: list[Outgoing]
    now_ms: int
    unwritten: Collection[Any] = ()
    """Outcomes of the connector that the store did not take: until it has, nothing may start."""


class _Done(msgspec.Struct, gc=False):
    rt: Runtime
    outgoing: Outgoing
    connector_id: int
    outcome: Outcome
    at_ms: int
    row: Tracked | None = None
    """The delivery as `start` left it; None if it is to be read again."""
    changes: Changes | None = None


async def _start(tx: HotTx, intents: list[_Intent]) -> list[dict[int, Tracked] | Exception]:
    """The deliveries that may leave now, by id, for all parcels of a connector together: whoever hands one over takes it out.

    The place of a delivery in its connector's window is free again as soon as its outcome is known. Were another started there
    before that outcome is written, a crash could leave more deliveries in doubt than the window holds.
    """
    by_connector: dict[int, list[_Intent]] = {}
    for intent in intents:
        if not intent.unwritten:
            by_connector.setdefault(intent.connector_id, []).append(intent)
    started: dict[int, dict[int, Tracked]] = {}
    for connector_id, group in by_connector.items():
        going = [outgoing for intent in group for outgoing in intent.parcel]
        ids = [outgoing.delivery_id for outgoing in going]
        known = {outgoing.delivery_id: outgoing.row for outgoing in going if isinstance(outgoing, Fresh)}
        now_ms = max(intent.now_ms for intent in group)
        started[connector_id] = await tx.start_sending(ids, connector_id, now_ms, known)
    behind = StoreAway("outcomes of this connector are to be written first")
    return [behind if intent.unwritten else started[intent.connector_id] for intent in intents]


START: Verb[_Intent, dict[int, Tracked]] = Verb("start", 20, _start, weigh=lambda intent: len(intent.parcel))
"""The intent: committed just before bytes may leave."""


async def _record(tx: HotTx, dones: list[_Done]) -> list[Exception | None]:
    """Write what became of submits. A delivery that is no longer *sending* is left alone: someone else has settled
    it. What `start` has left need not be read again; should it have changed since, `HotTx.change` finds out."""
    rt = dones[0].rt
    changes = Changes(rt, rt.clock.now_ms())
    dones[0].changes = changes
    rows = {done.row.id: done.row for done in dones if done.row is not None}
    unread = [done.outgoing.delivery_id for done in dones if done.row is None]
    if unread:
        rows.update({row.id: row for row in await tx.tracked(unread)})
    waiting: dict[int, dict[str, tuple[Tracked, int]]] = {}
    """The parts, by connector and key, for which a receipt may be parked."""
    for done in dones:
        row = rows.get(done.outgoing.delivery_id)
        if row is None or row.state != State.SENDING or row.connector_id != done.connector_id:
            continue
        if row.attempt > done.outgoing.attempt + 1:
            continue  # a process that took this one for dead is sending it again: its outcome counts
        outcome = done.outcome
        if isinstance(outcome, Sent):
            _sent(changes, row, done, outcome)
            if rt.parked.get(done.connector_id):
                mine = waiting.setdefault(done.connector_id, {})
                mine.update({key: (row, part) for part, key in enumerate(outcome.keys)})
        elif isinstance(outcome, Uncertain):
            _uncertain(changes, row, done, outcome)
        elif isinstance(outcome, Permanent):
            detail = {"connector": done.connector_id, "code": outcome.code, "attempt": row.attempt}
            changes.release(row)
            changes.advance(row, State.REJECTED, outcome.code, detail)
            changes.done.append(row.id)
        else:
            _try_again(changes, row, done, outcome)
    for connector_id, mine in waiting.items():
        await _take_parked(tx, changes, connector_id, mine)
    for row in [row for row in rows.values() if row.state == State.UNCERTAIN]:
        if rt.parked.get(row.connector_id):
            await _take_parked_of(tx, changes, row)
    await changes.write(tx)
    return [None for _ in dones]


def _sent(changes: Changes, row: Tracked, done: _Done, outcome: Sent) -> None:
    row.sent_ms = done.at_ms
    row.carrier_ids = ",".join(outcome.carrier_ids)
    row.parts_left = len(outcome.keys)
    for part, key in enumerate(outcome.keys):
        changes.refs.append((done.connector_id, key, row.id, part, done.at_ms))
    if row.charge_on == ChargeOn.SENT:
        changes.charge(row)
    is_told_by_row = row.carrier_ids != "" and 0 <= changes.now_ms - done.at_ms <= TIMELY_MS
    changes.advance(row, State.SENT, "", None if is_told_by_row else sent_detail(row), is_told_by_row)
    changes.done.append(row.id)


def _uncertain(changes: Changes, row: Tracked, done: _Done, outcome: Uncertain) -> None:
    """The journal always says *uncertain*, whatever the route's policy then does: a double can be traced to it."""
    rt = changes.rt
    policy = uncertain_policy(rt, row)
    detail = {"connector": done.connector_id, "code": outcome.code, "policy": policy.value, "attempt": row.attempt}
    changes.counts.append((rt.metrics.uncertain, done.connector_id))
    changes.advance(row, State.UNCERTAIN, outcome.code, detail)
    resolve_uncertain(changes, row, policy, done.connector_id)


def uncertain_policy(rt: Runtime, row: Tracked) -> UncertainPolicy:
    """What becomes of an uncertain delivery: as its route says for its priority, else as configured for all."""
    route = _route(rt, row.route_id)
    if route is not None and row.priority in route.uncertain:
        return route.uncertain[row.priority]
    settings = rt.config.dispatch
    return UncertainPolicy(
        (settings.uncertain_otp, settings.uncertain_transactional, settings.uncertain_bulk)[row.priority]
    )


def resolve_uncertain(changes: Changes, row: Tracked, policy: UncertainPolicy, connector_id: int) -> None:
    """Apply a policy to a delivery that has just become uncertain and still has its job."""
    if policy is UncertainPolicy.RESEND and row.expires_ms > changes.now_ms:
        _queue_again(changes, row, connector_id, changes.now_ms)
    elif policy is UncertainPolicy.FAIL:
        changes.release(row)
        changes.advance(row, State.FAILED, "uncertain")
        changes.done.append(row.id)
    else:
        due_ms = max(row.expires_ms, changes.now_ms + 1_000)
        changes.again.append(("resolve", "clock", due_ms, 0, row.id))


def _try_again(changes: Changes, row: Tracked, done: _Done, failure: SendFailure) -> None:
    """Nothing reached the carrier: the next connector at once, or this one after a wait that grows."""
    rt = changes.rt
    route = _route(rt, row.route_id)
    target = best_connector(rt, route, done.connector_id) if route is not None else done.connector_id
    wait_s = 0.0
    if target == done.connector_id or row.attempt > len(route.connectors if route is not None else ()):
        wait_s = RETRY_S[min(row.attempt, len(RETRY_S)) - 1] * random.uniform(0.8, 1.2)  # noqa: S311
    due_ms = changes.now_ms + int(wait_s * 1000)
    changes.journal(row, "retry", {"connector": done.connector_id, "code": failure.code, "attempt": row.attempt})
    if due_ms >= row.expires_ms:
        row.state = State.SENDING.value
        changes.release(row)
        changes.advance(row, State.EXPIRED, failure.code)
        changes.done.append(row.id)
        return
    _queue_again(changes, row, target, due_ms)


def _queue_again(changes: Changes, row: Tracked, connector_id: int, due_ms: int) -> None:
    rt = changes.rt
    route = _route(rt, row.route_id)
    if route is not None and connector_id == row.connector_id and due_ms <= changes.now_ms:
        connector_id = best_connector(rt, route, row.connector_id)
    row.state = State.QUEUED.value
    changes.rows[row.id] = row
    changes.again.append(("dispatch", f"c{connector_id}", due_ms, row.attempt, row.id))
    lane = rt.lanes.get(f"c{connector_id}")
    if lane is not None:
        lane.spill(row.priority, row.account_id)


async def _take_parked(tx: HotTx, changes: Changes, connector_id: int, waiting: dict[str, tuple[Tracked, int]]) -> None:
    """Receipts that beat the response: apply those that were waiting for these ids, in the order they came."""
    for key, text in await tx.take_parked(connector_id, list(waiting)):
        changes.unpark(connector_id)
        row, part = waiting[key]
        row.key, row.part = key, part
        apply_report(changes, row, read_report(text))


async def _take_parked_of(tx: HotTx, changes: Changes, row: Tracked) -> None:
    """The receipt beat a response that never came: what is parked about this recipient since the message was accepted
    is taken to be of the delivery that has just become uncertain."""
    for key, text in await tx.take_parked_of(row.connector_id, row.recipient, row.created_ms):
        changes.unpark(row.connector_id)
        row.key, row.parts_left = key, 1
        apply_report(changes, row, read_report(text))
    if row.state != State.UNCERTAIN:
        changes.again = [again for again in changes.again if again[4] != row.id]
        changes.done.append(row.id)


def _after(dones: list[_Done]) -> None:
    changes = dones[0].changes
    if changes is not None:
        changes.push()
        remember_sent(changes)


def _undo(dones: list[_Done]) -> None:
    if dones[0].changes is not None:
        dones[0].changes.withdraw()
        dones[0].changes = None
    for done in dones:
        done.row = None


RECORD: Verb[_Done, None] = Verb("record", 30, _record, after=_after, undo=_undo)
"""The outcome of submits."""


def _route(rt: Runtime, route_id: int) -> Route | None:
    return rt.directory.route_by_id.get(route_id)


@dataclass(slots=True)
class _Refill:
    lane: str
    rooms: list[int]
    """How many to lease of each priority."""
    cursors: list[int]
    """The account behind which the round of each priority goes on; moved by the lease."""
    now_ms: int
    slot: int
    found: list[int] = field(default_factory=lambda: [0, 0, 0])


async def _lease(tx: HotTx, asks: list[_Refill]) -> list[list[tuple[Any, ...]] | Exception]:
    """Lease due jobs of a lane, with what a connector needs of them."""
    results: list[list[tuple[Any, ...]] | Exception] = []
    for ask in asks:
        leased: list[int] = []
        left = max(ask.rooms)
        for priority, room in enumerate(ask.rooms):
            room = room if priority == 0 else min(room, left)
            if room <= 0:
                continue
            jobs = await tx.lease(
                ask.lane, priority, room, ask.now_ms, ask.now_ms + LEASE_MS, ask.slot, ask.cursors[priority]
            )
            ask.found[priority] = len(jobs)
            left -= len(jobs)
            if jobs:
                ask.cursors[priority] = jobs[-1].account_id
                leased += [job.id for job in jobs]
        results.append(await tx.outgoing(leased) if leased else [])
    return results


LEASE: Verb[_Refill, list[tuple[Any, ...]]] = Verb("lease", 15, _lease)


async def _give_back(tx: HotTx, rows: list[tuple[str, str, int, int, int]]) -> list[Exception | None]:
    await tx.jobs_again(rows)
    return [None for _ in rows]


GIVE_BACK: Verb[tuple[str, str, int, int, int], None] = Verb("give_back", 16, _give_back)


async def _drop(tx: HotTx, ids: list[int]) -> list[Exception | None]:
    await tx.jobs_done(ids)
    return [None for _ in ids]


DROP: Verb[int, None] = Verb("drop", 60, _drop)
"""Jobs of deliveries that are no longer waiting (cancelled, expired, settled elsewhere)."""


async def watch_lanes(rt: Runtime) -> None:
    """Look into the table, for ever, for due work of the lanes that this process serves: accepted by another process, or its time
    has come. Read beside the path, for all lanes at once: a lease would make everybody's commit wait."""
    while True:
        begun_s = rt.clock.ticks_s()
        try:
            async with rt.store.read() as tx:
                due = await jobs.due_lanes(tx, "c", rt.clock.now_ms())
        except StoreAway:
            due = []  # whoever has something to write says so
        for name, priority in due:
            lane = rt.lanes.get(name)
            if lane is not None:
                lane.spill(priority, 0)
        shortest_s, longest_s = LOOK_S
        await rt.clock.sleep(min(max(shortest_s, (rt.clock.ticks_s() - begun_s) * LOOK_SHARE), longest_s))


class Dispatcher:
    """Drives one connector. `run` until cancelled; then `drain` to give back what was not sent."""

    def __init__(self, rt: Runtime, connector: Connector) -> None:
        settings = connector.settings
        self._rt = rt
        self._connector = connector
        self._id = settings.id
        rate = float(settings.settings.get("rate", 0) or 0)  # type: ignore[arg-type]
        self._capacity = min(LANE_CAPACITY, max(LANE_LEAST, int(rate * LANE_SECONDS))) if rate else LANE_CAPACITY
        self.lane: Lane[Outgoing] = Lane(settings.lane, self._capacity)
        self._taken = 0
        """How many have left the lane since `_fitted_s`."""
        self._fitted_s = rt.clock.ticks_s()
        self._started: dict[int, Tracked] = {}
        """What is handed over, as `start` left it: no more than the connector has room for."""
        self._outcomes: list[_Done] = []
        self._turn_ms = 0
        """When the first of them came."""
        self._unwritten: set[int] = set()
        """Deliveries whose outcomes the store did not take; they are offered again and again."""
        self._flushes: set[asyncio.Task[None]] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._cursors = [-1, -1, -1]
        self._is_refilling = False
        self._is_stopping = False
        connector.on_room(self.lane.wake.set)

    async def run(self) -> None:
        """Send until cancelled."""
        rt, lane, connector = self._rt, self.lane, self._connector
        rt.lanes[lane.name] = lane
        lane.spill(1, 0)  # what was there before
        while True:
            lane.wake.clear()
            now_s = rt.clock.ticks_s()
            self._fit(now_s)
            if not connector.is_up:
                await self._pass_on()
                await self._wait(SILENT_SWITCH_S)
                continue
            self._refill()
            room, reserved = connector.room() if self._is_on else (0, 0)
            parcel = lane.take(min(room, PARCEL), min(reserved, max(0, min(room, PARCEL)))) if room > 0 else []
            if parcel:
                self._taken += len(parcel)
                connector.reserve(sum(outgoing.parts for outgoing in parcel))
                self._keep(self._sending, self._send(parcel))
                # Give others the loop; an unlimited connector would otherwise fill its window in one go.
                await asyncio.sleep(0)
                continue
            await self._wait(IDLE_S)

    @property
    def _is_on(self) -> bool:
        settings = self._rt.directory.connectors.get(self._id)
        return settings is not None and settings.state in ("on", "draining")

    async def _wait(self, seconds: float) -> None:
        # Not `wait_for`: until Python 3.12 it forgets that it was cancelled if what it waits for comes in the same turn.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.lane.wake.wait()

    def _fit(self, now_s: float) -> None:
        """Let the lane hold what its connector has taken in the last `LANE_SECONDS` of unbroken work, and give back what is
        far beyond that."""
        lane = self.lane
        if not len(lane):
            self._fitted_s, self._taken = now_s, 0
            lane.capacity = self._capacity
        elif now_s - self._fitted_s >= LANE_SECONDS:
            lane.capacity = min(self._capacity, max(LANE_LEAST, self._taken))
            self._fitted_s, self._taken = now_s, 0
            if len(lane) > 2 * lane.capacity:
                kept = lane.take(lane.capacity)
                others = lane.empty()
                lane.push(kept)
                self._keep(self._sending, self._give_back(others, self._id))

    def _refill(self) -> None:
        """Start a lease when the table may have something that there is room for; the first priority is never without."""
        lane = self.lane
        if self._is_refilling or not self._is_on:
            return
        is_low = lane.has_spilled and lane.room * 2 >= lane.capacity
        if is_low or (lane.has_spilled_of(0) and lane.waiting(0) < PARCEL):
            self._is_refilling = True
            self._keep(self._sending, self._lease())

    async def _lease(self) -> None:
        """Lease what fits, in order of priority."""
        rt, lane = self._rt, self.lane
        try:
            room, spills = min(lane.room, LEASE_PAGE), lane.spills
            # The first priority never waits for room that the others take.
            ask = _Refill(lane.name, [max(room, PARCEL), room, room], self._cursors, rt.clock.now_ms(), rt.slot)
            rows = (await rt.store.lease(LEASE, [ask]))[0]
            left = room
            for priority, found in enumerate(ask.found):
                asked = ask.rooms[priority] if priority == 0 else min(ask.rooms[priority], left)
                if found < asked:
                    lane.drained(priority, spills)
                left -= found
            await self._admit(rows)
        except StoreAway as error:
            log.warning("the store is away; leasing waits", extra={"lane": lane.name, "why": str(error)})
            await rt.clock.sleep(0.5)
        finally:
            self._is_refilling = False

    async def _admit(self, rows: list[tuple[Any, ...]]) -> None:
        """Put leased deliveries that still wait into the lane; drop the jobs of those that do not.

        Rules are asked again: since a delivery was accepted, its recipient may have opted out or the hours have closed.
        """
        rt = self._rt
        items: list[Outgoing] = []
        dropped: list[int] = []
        stopped = stopped_by_rules(rt, self._connector.settings.channel, rows)
        for row in rows:
            if row[14] in ("sending", "uncertain"):
                continue  # under way for longer than its lease: what comes of it needs the job, or ends it
            if row[14] not in ("queued", "scheduled") and (row[14], row[18]) != ("held", QUIET):
                dropped.append(row[0])
                continue
            if row[0] in stopped:
                continue
            body, body_kind = row[6], row[7]
            if body_kind == "sealed":
                body, body_kind = rt.vault.open(body, "body"), "text"
            items.append(
                Outgoing(
                    delivery_id=row[0],
                    message_id=row[1],
                    account_id=row[2],
                    priority=row[3],
                    sender=row[4],
                    recipient=row[5],
                    body=body,
                    body_kind=body_kind,
                    alphabet=row[8],
                    parts=row[9],
                    expires_ms=row[10],
                    attempt=row[11],
                    route_id=row[12],
                    dialect=row[13],
                )
            )
        self.lane.push(items)
        if dropped:
            await rt.store.hot.do(DROP, dropped)
        if stopped:
            await rt.store.hot.do(STOP, [Stop(rt, delivery_id, self.lane.name) for delivery_id in stopped])

    async def _send(self, parcel: list[Outgoing]) -> None:
        """Commit the intent, then hand over those that may go."""
        rt, connector = self._rt, self._connector
        # The places of these outcomes are free already: they must stand in line before the intent (see `_start`).
        self._flush()
        try:
            with rt.trace.span("dispatch", connector=self._id, deliveries=len(parcel)):
                intent = _Intent(self._id, parcel, rt.clock.now_ms(), self._unwritten)
                started = (await rt.store.hot.do(START, [intent]))[0]
        except StoreAway:
            connector.give_back(sum(outgoing.parts for outgoing in parcel))
            self.lane.push(parcel)
            await rt.clock.sleep(0.2)
            return
        going: list[Outgoing] = []
        staying: list[Outgoing] = []
        for outgoing in parcel:
            # Taken out: of a delivery whose lease ran out in a lane that stood still, the lane may hold a second copy.
            row = started.pop(outgoing.delivery_id, None)
            if row is None:
                staying.append(outgoing)
                continue
            outgoing.attempt = row.attempt - 1  # it may have been tried since this copy was made
            row.left_as = row.state
            self._started[row.id] = row
            going.append(outgoing)
        if staying:
            connector.give_back(sum(outgoing.parts for outgoing in staying))
            await self._settle_stayed(staying)
        if going:
            connector.send(going, self._report)

    async def _settle_stayed(self, staying: list[Outgoing]) -> None:
        """Deliveries that could not start: cancelled or settled elsewhere, or past their validity."""
        from berid.flow.sweep import look_again

        try:
            await look_again(self._rt, [outgoing.delivery_id for outgoing in staying], "waiting")
        except StoreAway:
            return  # their leases run out and they are looked at again

    def _report(self, outgoing: Outgoing, outcome: Outcome) -> None:
        """One outcome; those of one turn of the loop are recorded together, with one time."""
        if not self._outcomes:
            asyncio.get_running_loop().call_soon(self._flush)
            self._turn_ms = self._rt.clock.now_ms()
        row = self._started.pop(outgoing.delivery_id, None)
        self._outcomes.append(_Done(self._rt, outgoing, self._id, outcome, self._turn_ms, row))

    def _flush(self) -> None:
        dones, self._outcomes = self._outcomes, []
        if not dones:
            return
        for kind, count in Counter(type(done.outcome) for done in dones).items():
            self._rt.metrics.outcome(self._id, kind.__name__.lower(), count)
        self._keep(self._flushes, self._record(dones, self._rt.store.hot.do(RECORD, dones)))

    async def _record(self, dones: list[_Done], asked: Coroutine[Any, Any, list[None]]) -> None:
        """Record outcomes, however long the store is away: they are known nowhere else."""
        hot, ids, wait_s = self._rt.store.hot, [done.outgoing.delivery_id for done in dones], 0.1
        while True:
            try:
                await asked
                self._unwritten.difference_update(ids)
                return
            except StoreAway as error:
                self._unwritten.update(ids)
                log.warning("the store is away; outcomes wait", extra={"count": len(dones), "why": str(error)})
                await self._rt.clock.sleep(wait_s)
                wait_s = min(wait_s * 2, 2.0)
                asked = hot.do(RECORD, dones)

    async def _pass_on(self) -> None:
        """While the link is down: give what is in memory back, and what others could carry to them."""
        rt, lane = self._rt, self.lane
        self._refill_for_passing_on()
        items = lane.empty()
        if not items:
            return
        by_target: dict[int, list[Outgoing]] = {}
        for outgoing in items:
            route = _route(rt, outgoing.route_id)
            target = best_connector(rt, route, self._id) if route is not None else self._id
            by_target.setdefault(target, []).append(outgoing)
        for target, mine in by_target.items():
            await self._give_back(mine, target)

    async def _give_back(self, items: list[Outgoing], target: int) -> None:
        """Give leased work back to the table, for a connector's lane. If the store is away, the leases run out by themselves."""
        rt, name, now_ms = self._rt, f"c{target}", self._rt.clock.now_ms()
        lane = rt.lanes.get(name)
        if lane is not None:
            for priority, account_id in {(outgoing.priority, outgoing.account_id) for outgoing in items}:
                lane.spill(priority, account_id)
        for start in range(0, len(items), LEASE_PAGE):
            page = items[start : start + LEASE_PAGE]
            rows = [("dispatch", name, now_ms, outgoing.attempt + 1, outgoing.delivery_id) for outgoing in page]
            try:
                await rt.store.hot.do(GIVE_BACK, rows)
            except StoreAway:
                return
            if lane is not None:
                lane.spill(1, 0)  # they are there now

    def _refill_for_passing_on(self) -> None:
        """Lease from the table only if some route has another connector that could take the work."""
        rt = self._rt
        for route in rt.directory.routes:
            if self._id in route.connectors and best_connector(rt, route, self._id) != self._id:
                self._refill()
                return

    def _keep(self, tasks: set[asyncio.Task[None]], work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def drain(self) -> None:
        """Wait until everything that was handed over is recorded; give the rest back to the table."""
        rt = self._rt
        rt.lanes.pop(self.lane.name, None)
        while self._sending:
            await asyncio.gather(*self._sending, return_exceptions=True)
        await self._connector.stop()
        self._flush()
        while self._flushes:
            await asyncio.gather(*self._flushes, return_exceptions=True)
        while self.lane.is_awaiting:
            self.lane.wake.clear()
            await self.lane.wake.wait()
        await self._give_back(self.lane.empty(), self._id)
