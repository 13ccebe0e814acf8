"""Jobs that a person looks after: taking up again what was set aside, and giving up what should not be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from berid.domain.message import WAITING, State
from berid.flow.changes import Changes
from berid.flow.manage.office import Office, missing, note, unfit
from berid.flow.ports import Runtime
from berid.store import work
from berid.store.hot import HotTx, Verb


async def revive_jobs(office: Office, actor: str, identifiers: Sequence[int]) -> None:
    """Let jobs that were set aside be done now: all of them, or none.

    A delivery that was held is sent if its validity has not ended; a callback begins its schedule again. Raises `Refused`.
    """
    now_ms = office.clock.now_ms()
    async with office.store.transaction() as tx:
        found = await work.find(tx, identifiers)
        for identifier in identifiers:
            if identifier not in found:
                raise missing(f"job: {identifier}")
            if not found[identifier].buried_ms:
                raise unfit("job", f"the job {identifier} has not been set aside")
        for record in found.values():
            await work.revive(tx, record, now_ms, office.ids.next())
            await note(office, tx, actor, record.account_id, "job.revive", str(record.id), kind=record.kind)


@dataclass(slots=True)
class _GiveUp:
    rt: Runtime
    identifier: int
    changes: Changes | None = None


async def cancel_jobs(rt: Runtime, actor: str, identifiers: Sequence[int]) -> int:
    """Give jobs up, whether they wait or were set aside, and return how many there were.

    A delivery that still waits is cancelled: its money is released and its account told. A callback is told no more. What has
    left for the carrier already is not touched. Raises `Refused` when a job does not exist or cannot be given up.
    """
    office = Office.of(rt)
    async with rt.store.transaction() as tx:
        found = await work.find(tx, identifiers)
        for identifier in identifiers:
            if identifier not in found:
                raise missing(f"job: {identifier}")
            record = found[identifier]
            if record.kind not in ("dispatch", "callback"):
                raise unfit("job", f"a {record.kind} job is part of a message; cancel the message instead")
            if record.state and State(record.state) not in WAITING:
                raise unfit("job", f"the delivery of job {identifier} is {record.state}; its job ends by itself")
        for record in found.values():
            await note(office, tx, actor, record.account_id, "job.cancel", str(record.id), kind=record.kind)
    results = await rt.store.hot.do(_CANCEL, [_GiveUp(rt, identifier) for identifier in identifiers])
    return sum(results)


async def _cancel(tx: HotTx, items: list[_GiveUp]) -> list[bool | Exception]:
    """Whether each job was given up; a delivery that has left in the meantime is not."""
    rt = items[0].rt
    changes = items[0].changes = Changes(rt, rt.clock.now_ms())
    rows = {row.id: row for row in await tx.tracked(sorted({item.identifier for item in items}))}
    results: list[bool | Exception] = []
    for item in items:
        row = rows.get(item.identifier)
        if row is not None and State(row.state) not in WAITING:
            results.append(False)
            continue
        if row is not None:
            changes.release(row)
            changes.advance(row, State.CANCELLED, "operator")
        changes.done.append(item.identifier)
        results.append(True)
    await changes.write(tx)
    return results


def _after(items: list[_GiveUp]) -> None:
    if items[0].changes is not None:
        items[0].changes.push()


def _undo(items: list[_GiveUp]) -> None:
    if items[0].changes is not None:
        items[0].changes.withdraw()
        items[0].changes = None


_CANCEL: Verb[_GiveUp, bool] = Verb("cancel_jobs", 14, _cancel, after=_after, undo=_undo)
"""In the place of `flow.cancel`: before what leases and starts."""
