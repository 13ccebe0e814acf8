"""DeliveryReport → state, ledger, callbacks: one transaction for all reports that came together.

A carrier is answered only after `settle` has returned: a crash before means that it repeats, and repeating is
harmless. A report that beats the response to its submit is parked until `record` knows the id. A state never goes
backwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from berid.domain.message import ChargeOn, DeliveryReport, State, may_follow
from berid.flow.changes import Changes
from berid.flow.ports import Runtime
from berid.store.hot import HotTx, Tracked, Verb

RECENT = 50_000
"""Keys of receipts settled for good that are remembered, so that a carrier's repeats need no place to park."""

SENT = 20_000
"""Deliveries that are remembered between response and receipt, so that most receipts need not read theirs: some 15 MB."""

_GOOD = (State.DELIVERED, State.READ)
_encode = msgspec.json.Encoder().encode


class _Told(msgspec.Struct, gc=False):
    rt: Runtime
    report: DeliveryReport
    changes: Changes | None = None


async def settle(rt: Runtime, reports: Sequence[DeliveryReport]) -> None:
    """Settle a batch of reports of one or more connectors. On return everything they say is on disk.

    Raises `StoreAway` when it is not: the carrier must not be answered then, or must be told to repeat.
    """
    fresh = [report for report in reports if (report.connector_id, report.key) not in rt.recent_keys]
    for (connector_id, state), count in Counter((report.connector_id, report.state) for report in reports).items():
        rt.metrics.receipt(connector_id, state, count)
    if fresh:
        with rt.trace.span("settle", reports=len(fresh)):
            await rt.store.hot.do(SETTLE, [_Told(rt, report) for report in fresh])


async def _settle(tx: HotTx, asks: list[_Told]) -> list[Exception | None]:
    rt = asks[0].rt
    changes = Changes(rt, rt.clock.now_ms())
    asks[0].changes = changes
    by_connector: dict[int, list[DeliveryReport]] = {}
    for ask in asks:
        by_connector.setdefault(ask.report.connector_id, []).append(ask.report)
    seen: dict[int, Tracked] = {}
    for connector_id, reports in by_connector.items():
        rows: dict[str, Tracked] = {}
        parts: dict[str, int] = {}
        unread: set[str] = set()
        for report in reports:
            row = rt.sent.pop((connector_id, report.key), None)
            if row is not None:
                rows[report.key] = seen[row.id] = row
                parts[report.key] = 0
            elif report.key not in rows:
                unread.add(report.key)
        for found in await tx.tracked_by_key(connector_id, list(unread)) if unread else ():
            # Parts of one delivery share one row, so that what one report changes the next one sees.
            rows[found.key] = seen.setdefault(found.id, found)
            parts[found.key] = found.part
        unknown = [report for report in reports if report.key not in rows]
        for report in reports:
            row = rows.get(report.key)
            if row is not None:
                row.key, row.part = report.key, parts[report.key]
                apply_report(changes, row, report)
        if unknown:
            await _find_uncertain(tx, changes, connector_id, unknown, seen)
    await changes.write(tx)
    return [None for _ in asks]


async def _find_uncertain(
    tx: HotTx, changes: Changes, connector_id: int, reports: list[DeliveryReport], seen: dict[int, Tracked]
) -> None:
    """Reports whose id we do not know: of a delivery whose submit got no answer, or early, or not ours.

    A delivery that is uncertain never learnt its id. If exactly one delivery to that recipient is uncertain on this
    connector, the report is taken to be its; with several of them no guess is made. The rest is parked.
    """
    rt = changes.rt
    by_recipient: dict[str, list[Tracked]] = {}
    for row in await tx.uncertain(connector_id, list({report.recipient for report in reports if report.recipient})):
        by_recipient.setdefault(row.recipient, []).append(seen.setdefault(row.id, row))
    for report in reports:
        candidates = [row for row in by_recipient.get(report.recipient, ()) if row.state == State.UNCERTAIN]
        if len(candidates) == 1:
            row = candidates[0]
            row.key, row.parts_left = report.key, 1
            changes.done.append(row.id)
            apply_report(changes, row, report)
            if row.state == State.SENT:  # an interim report: the final one will come under this id
                changes.refs.append((connector_id, report.key, row.id, 0, changes.now_ms))
            continue
        text = _encode(_report_words(report)).decode()
        changes.parked.append((rt.ids.next(), connector_id, report.key, report.recipient, text, changes.now_ms))
        rt.parked[connector_id] = rt.parked.get(connector_id, 0) + 1
        changes.counts.append((rt.metrics.parked, connector_id))


def remember_sent(changes: Changes) -> None:
    """After the commit: keep what has just been sent until its receipt comes. What has several receipts is read again.

    A row of this memory is only believed: should it have changed since, `HotTx.change` finds out, and it is read.
    """
    sent, rows, left_as = changes.rt.sent, changes.rows, State.SENT.value
    for connector_id, key, delivery_id, _part, _sent_ms in changes.refs:
        place = (connector_id, key)
        sent.pop(place, None)
        row = rows[delivery_id]
        if row.state == left_as and row.parts_left == 1:
            row.left_as = left_as
            sent[place] = row
    _keep_newest(sent, SENT)


def _keep_newest(memory: dict[Any, Any], most: int) -> None:
    """Forget the oldest of a full memory, a tenth of it at once: they stand behind the places of all that have gone before, so
    that looking for them one by one would take the longer the more have gone, half of all else that a delivery takes."""
    if len(memory) > most:
        for key in list(islice(memory, len(memory) - most + most // 10)):
            del memory[key]


def apply_report(changes: Changes, row: Tracked, report: DeliveryReport) -> None:
    """Let one report change one delivery. `row.key` names the part that it is about.

    A message in parts is delivered when its last part is; it fails with its first failing part. What may not follow
    changes nothing and is journalled.
    """
    state, target = row.state, report.state
    if target in _GOOD:
        if (report.connector_id, report.key) in changes.rt.recent_keys:
            return  # the same part again in this very batch
        _forget(changes, report)
        row.parts_left -= 1
        changes.rows[row.id] = row
        if row.parts_left > 0:
            changes.journal(row, "part_delivered", _detail(row, report))
            return
    if not may_follow(state, target):
        changes.journal(row, "report_ignored", {**_detail(row, report), "state": target})
        return
    if target in _GOOD or row.charge_on == ChargeOn.SENT:
        # The carrier has taken it, whatever became of it then; a hold that is still there becomes a charge.
        changes.charge(row)
    elif target is not State.SENT:
        changes.release(row)
    if not row.sent_ms:
        row.sent_ms = report.at_ms
    is_told_by_row = (
        state == State.SENT
        and target is State.DELIVERED
        and row.parts == 1
        and report.connector_id == row.connector_id
        and report.at_ms > 0
    )
    if is_told_by_row:
        row.report_ms, row.report_code = report.at_ms, report.code
        changes.advance(row, target, is_told_by_row=True)
        return
    detail = _detail(row, report)
    if state in (State.EXPIRED, State.UNDELIVERED):
        detail["was"] = state
    changes.advance(row, target, "" if target in _GOOD else report.code, detail)


def _detail(row: Tracked, report: DeliveryReport) -> dict[str, Any]:
    """What the journal tells of a report."""
    detail: dict[str, Any] = {"connector": report.connector_id, "code": report.code, "at_ms": report.at_ms}
    if row.parts > 1:
        detail["part"] = row.part
    return detail


def _forget(changes: Changes, report: DeliveryReport) -> None:
    changes.forgotten.setdefault(report.connector_id, []).append(report.key)
    recent = changes.rt.recent_keys
    recent[(report.connector_id, report.key)] = None
    _keep_newest(recent, RECENT)


def _report_words(report: DeliveryReport) -> list[Any]:
    return [
        report.connector_id,
        report.key,
        report.state.value,
        report.at_ms,
        report.code,
        report.raw,
        report.recipient,
    ]


def read_report(text: str) -> DeliveryReport:
    """A report that was parked."""
    connector_id, key, state, at_ms, code, raw, recipient = msgspec.json.decode(text)
    return DeliveryReport(connector_id, key, State(state), at_ms, code, raw, recipient)


def _after(asks: list[_Told]) -> None:
    if asks[0].changes is not None:
        asks[0].changes.push()


def _undo(asks: list[_Told]) -> None:
    if asks[0].changes is not None:
        asks[0].changes.withdraw()
        asks[0].changes = None


SETTLE: Verb[_Told, None] = Verb("settle", 40, _settle, after=_after, undo=_undo)
"""What carriers report; after `record`, so that a response and its receipt in one group meet."""
