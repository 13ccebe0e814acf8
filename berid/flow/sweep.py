"""What time does by itself: validity ends, receipts never come, leases run out, doubts must be settled.

Nothing here is on the path of a message that goes well. Everything is found by a query and changed by a grouped
verb that looks again, so that the sweeper of one process never undoes what another has just done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from berid.base.ids import first_id_at, slot_of
from berid.domain.message import WAITING, State
from berid.flow.changes import Changes
from berid.flow.dispatch import resolve_uncertain, uncertain_policy
from berid.flow.inbound import sweep_parts
from berid.flow.load import spread, undo_loading
from berid.flow.ports import Runtime
from berid.store import jobs, processes
from berid.store.hot import HotTx, StoreAway, Tracked, Verb

log = logging.getLogger("berid.sweep")

PAGE = 500
SWEEP_S = 1.0
CLOCK_LANE = "clock"

JUMP_MS = 2_000
"""A wall clock that is further from where it should be was set. Slewing and a busy machine make less."""

LOADING_MS = 600_000
"""A message that has been loading for longer was left behind by an ended process. A process that takes its slot does not
wait so long."""


@dataclass(slots=True)
class _Look:
    """One delivery to look at again. `why` says what is thought of it: `waiting`, `found_sending`, `resolve`,
    `no_receipt`, `late`, `restored`."""

    rt: Runtime
    delivery_id: int
    why: str
    changes: Changes | None = None


async def _look(tx: HotTx, looks: list[_Look]) -> list[Exception | None]:
    rt = looks[0].rt
    changes = Changes(rt, rt.clock.now_ms())
    looks[0].changes = changes
    rows = {row.id: row for row in await tx.tracked(list({look.delivery_id for look in looks}))}
    for look in looks:
        row = rows.get(look.delivery_id)
        if row is None:
            changes.done.append(look.delivery_id)
            continue
        _JUDGES[look.why](changes, row)
    buried = [(changes.now_ms, row.reason, row.id) for row in changes.rows.values() if row.state == State.HELD.value]
    await changes.write(tx)
    if buried:
        await tx.jobs_bury(buried)
    return [None for _ in looks]


def _waiting(changes: Changes, row: Tracked) -> None:
    """It could not start: its validity has ended, or it no longer waits and its job is left over."""
    if State(row.state) not in WAITING:
        if row.state != State.UNCERTAIN.value and row.state != State.SENDING.value:
            changes.done.append(row.id)
        return
    if row.expires_ms <= changes.now_ms:
        changes.release(row)
        if row.state == State.QUEUED.value and row.reason:
            # An earlier submit had no answer, and there was no time to send it again: the doubt is all that is left.
            changes.advance(row, State.FAILED, "uncertain")
        else:
            changes.advance(row, State.EXPIRED, "not_sent_in_time")
        changes.done.append(row.id)


def _found_sending(changes: Changes, row: Tracked) -> None:
    """The process that was sending it is gone, and with it the answer."""
    if row.state != State.SENDING.value:
        return
    policy = uncertain_policy(changes.rt, row)
    detail = {"connector": row.connector_id, "code": "process_ended", "policy": policy.value, "attempt": row.attempt}
    changes.counts.append((changes.rt.metrics.uncertain, row.connector_id))
    changes.advance(row, State.UNCERTAIN, "process_ended", detail)
    resolve_uncertain(changes, row, policy, row.connector_id)


def _resolve(changes: Changes, row: Tracked) -> None:
    """An uncertain delivery waited for a receipt until its validity ended, and none came."""
    if row.state == State.UNCERTAIN.value:
        changes.release(row)
        changes.advance(row, State.FAILED, "uncertain")
    changes.done.append(row.id)


def _no_receipt(changes: Changes, row: Tracked) -> None:
    """The carrier took it and never spoke of it again: the charge stays."""
    if row.state == State.SENT.value:
        changes.charge(row)
        changes.advance(row, State.EXPIRED, "no_receipt")


def _late(changes: Changes, row: Tracked) -> None:
    """Its planned time passed while the platform was down: a person decides whether it still makes sense."""
    if row.state == State.SCHEDULED.value:
        changes.advance(row, State.HELD, "late_schedule")


def _restored(changes: Changes, row: Tracked) -> None:
    """It waited when the backup was made, and has most likely been sent since: a person decides."""
    if State(row.state) in WAITING:
        changes.advance(row, State.HELD, "restored")


_JUDGES = {
    "waiting": _waiting,
    "found_sending": _found_sending,
    "resolve": _resolve,
    "no_receipt": _no_receipt,
    "late": _late,
    "restored": _restored,
}


def _after(looks: list[_Look]) -> None:
    if looks[0].changes is not None:
        looks[0].changes.push()


def _undo(looks: list[_Look]) -> None:
    if looks[0].changes is not None:
        looks[0].changes.withdraw()
        looks[0].changes = None


LOOK: Verb[_Look, None] = Verb("look", 45, _look, after=_after, undo=_undo)
"""Looks again at deliveries that time has overtaken."""


async def look_again(rt: Runtime, delivery_ids: list[int], why: str) -> None:
    """Judge these deliveries in one grouped transaction; see `_Look.why`."""
    if delivery_ids:
        await rt.store.hot.do(LOOK, [_Look(rt, identifier, why) for identifier in delivery_ids])


async def recover_connector(rt: Runtime, connector_id: int) -> int:
    """Before a connector starts here: what was *sending* on it when its last process ended becomes uncertain.

    Must run while nobody else runs the connector. Returns how many there were: never more than the connector's
    window.
    """
    total = 0
    while True:
        async with rt.store.read() as tx:
            found = await jobs.found_sending(tx, connector_id, PAGE)
        if not found:
            return total
        await look_again(rt, found, "found_sending")
        total += len(found)


async def hold_late_schedules(rt: Runtime, last_alive_ms: int) -> int:
    """At start: schedules that came due while the platform was down longer than the limit are held, not fired.

    `last_alive_ms` is the last beat of any process before.
    """
    limit_ms = int(rt.config.dispatch.late_schedule_limit_s * 1000)
    now_ms = rt.clock.now_ms()
    if not last_alive_ms or now_ms - last_alive_ms < limit_ms:
        return 0
    total = 0
    while True:
        async with rt.store.read() as tx:
            found = await jobs.overdue_schedules(tx, now_ms - limit_ms, PAGE)
        if not found:
            return total
        await look_again(rt, found, "late")
        total += len(found)


async def hold_restored(rt: Runtime) -> int:
    """At the first start after a restore: whatever was due by then is held, whether it was queued, planned or held already.

    The database remembers it as waiting, and the world, which has not gone back with it, may have it. Returns how many there
    were. What comes due later is as it was, and so is what is accepted from now on.
    """
    async with rt.store.read() as tx:
        restored_ms = await processes.restored_ms(tx)
    if not restored_ms:
        return 0
    total, last = 0, 0
    while True:
        async with rt.store.read() as tx:
            found = await jobs.waiting(tx, restored_ms, last, PAGE)
        if not found:
            break
        await look_again(rt, found, "restored")
        total, last = total + len(found), found[-1]
    async with rt.store.transaction() as tx:
        await processes.forget_restore(tx)
    return total


async def undo_left_loads(rt: Runtime) -> int:
    """At start: messages that the last holder of our slot was still loading are undone, and their money is given back.

    Their callers had no answer. What processes of other slots left behind is undone when it is `LOADING_MS` old. Returns how
    many there were.
    """
    async with rt.store.read() as tx:
        unfinished = [each for each in await jobs.unfinished_loads(tx, rt.ids.next()) if slot_of(each) == rt.slot]
    for message_id in unfinished:
        await undo_loading(rt, message_id)
    return len(unfinished)


@dataclass(slots=True)
class _Clock:
    room: int
    now_ms: int
    slot: int


async def _lease_clock(tx: HotTx, asks: list[_Clock]) -> list[list[tuple[str, int]] | Exception]:
    """Due jobs of the clock lane, of any priority: (kind, id)."""
    found: list[tuple[str, int]] = []
    for priority in (0, 1, 2):
        leased = await tx.lease(
            CLOCK_LANE, priority, asks[0].room, asks[0].now_ms, asks[0].now_ms + 30_000, asks[0].slot, -1
        )
        found += [(job.kind, job.id) for job in leased]
    return [found, *([] for _ in asks[1:])]


LEASE_CLOCK: Verb[_Clock, list[tuple[str, int]]] = Verb("lease_clock", 18, _lease_clock)


class Sweeper:
    """Runs the sweep every few seconds. One per process; several on one database do no harm."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._minute = 0
        self._is_looking = False
        """Whether a walk through the queue, for validity that has ended, is under way."""
        self._looked_until = 0
        self._watch = processes.Watch(rt.clock)
        self._seen_ms = rt.clock.now_ms()
        self._seen_s = rt.clock.ticks_s()

    async def run(self) -> None:
        """Sweep until cancelled."""
        rt = self._rt
        while True:
            try:
                await self.once()
            except StoreAway as error:
                log.warning("the store is away; the sweep waits", extra={"why": str(error)})
            await rt.clock.sleep(SWEEP_S)

    async def once(self) -> None:
        """One round: leases that ran out, doubts whose time has come, and every minute the slower looks; the one through the
        queue, which may be long, goes on in the rounds after."""
        rt = self._rt
        now_ms = rt.clock.now_ms()
        await self._follow_clock(now_ms)
        async with rt.store.transaction() as tx:
            freed = await jobs.free_leases(tx, now_ms)
            if not rt.store.is_sqlite:
                # A process that died holds its jobs no longer than its connectors. If it only slept, it finds them started
                # by others when it wakes, and leaves them.
                beats = await processes.beats(tx)
                dead = {slot for slot, until_ms in beats.items() if self._watch.is_dead(slot, until_ms, until_ms)}
                freed += await jobs.free_leases_of_others(tx, (beats.keys() - dead) | {rt.slot})
        if freed:
            log.info("leases ran out", extra={"jobs": freed})
        await self._resolve_due(now_ms)
        minute = now_ms // 60_000
        if minute != self._minute:
            self._minute = minute
            self._is_looking = True
            await self._slow(now_ms)
        if self._is_looking:
            await self._end_validity(now_ms)

    async def _follow_clock(self, now_ms: int) -> None:
        """See whether the wall clock was set since the last round. What was due before it was set back stays due: it would
        wait for as long as the clock was set back, one-time passwords too."""
        rt = self._rt
        now_s = rt.clock.ticks_s()
        expected_ms = self._seen_ms + int((now_s - self._seen_s) * 1000)
        if abs(now_ms - expected_ms) > JUMP_MS:
            log.warning("the clock was set", extra={"by_s": (now_ms - expected_ms) / 1000})
            if now_ms < expected_ms:
                async with rt.store.transaction() as tx:
                    await jobs.keep_due(tx, now_ms, expected_ms)
        self._seen_ms, self._seen_s = now_ms, now_s

    async def _resolve_due(self, now_ms: int) -> None:
        rt = self._rt
        while True:
            found = (await rt.store.lease(LEASE_CLOCK, [_Clock(PAGE, now_ms, rt.slot)]))[0]
            if not found:
                return
            await look_again(rt, [identifier for kind, identifier in found if kind == "resolve"], "resolve")
            for kind, identifier in found:
                if kind == "spread":
                    await spread(rt, identifier)

    async def _end_validity(self, now_ms: int) -> None:
        """Go on through the queue by a page. All of it at once would take the database a second for each million, and one-time
        passwords with it."""
        rt = self._rt
        async with rt.store.read() as tx:
            found, until = await jobs.past_validity(tx, now_ms, self._looked_until)
        for place in range(0, len(found), PAGE):
            await look_again(rt, found[place : place + PAGE], "waiting")
        self._looked_until = until
        self._is_looking = until > 0

    async def _slow(self, now_ms: int) -> None:
        rt = self._rt
        await sweep_parts(rt)
        async with rt.store.read() as tx:
            unfinished = await jobs.unfinished_loads(tx, first_id_at(now_ms - LOADING_MS))
        for message_id in unfinished:
            await undo_loading(rt, message_id)
        while True:
            async with rt.store.read() as tx:
                found = await jobs.without_receipt(tx, now_ms - rt.config.validity.no_receipt_s * 1000, PAGE)
            await look_again(rt, found, "no_receipt")
            if len(found) < PAGE:
                break
