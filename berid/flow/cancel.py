"""Second thoughts about an accepted message: cancel what still waits, move its time, send again what failed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from berid.base.ids import show
from berid.domain.account import Caller
from berid.domain.errors import RefusalKind, refused
from berid.domain.message import (
    BILLING_OPTION,
    WAITING,
    Accepted,
    Category,
    Content,
    MoneyState,
    Priority,
    State,
    Submission,
)
from berid.flow.accept import PAGE, accept
from berid.flow.changes import Changes
from berid.flow.ports import Runtime
from berid.store import messages
from berid.store.hot import HotTx, Verb
from berid.store.messages import MessageRecord

RESENT = frozenset({State.UNDELIVERED, State.EXPIRED, State.FAILED, State.REJECTED})
"""The states whose deliveries may be sent again: they have ended, and nobody got the message."""

RESEND_OPTION = "resend_of"
"""The option of a message that was sent again; its value is the public id of the first one."""

_POLICIES = {"gsm7_tr_single": "turkish", "gsm7_tr_locking": "turkish", "ucs2": "ucs2"}
"""The content policy that gives a text the alphabet that it had before; any other alphabet is what `auto` chooses."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a cancellation came to. `too_late` counts deliveries that had left, or had ended, before."""

    cancelled: int
    too_late: int
    refunded_micros: int
    currency: str


@dataclass(slots=True)
class _Page:
    rt: Runtime
    account_id: int
    delivery_ids: Sequence[int]
    changes: Changes | None = None


async def cancel(rt: Runtime, account_id: int, owners: Sequence[MessageRecord]) -> Cancelled:
    """Cancel every delivery of these messages that still waits, and give its money back.

    Deliveries up to `PAGE` go in one commit; of more, each page is a commit of its own, and whoever was not answered may call
    again. A delivery that leaves at the same moment is either sent or cancelled, never both; the count says which.
    Raises `StoreAway`.
    """
    done = refunded = total = gone = 0
    for owner in owners:
        async with rt.store.read() as tx:
            ids = await messages.unfinished(tx, account_id, owner)
            gone += (await messages.counts(tx, account_id, owner)).get(State.CANCELLED.value, 0)
        total += owner.total
        for start in range(0, len(ids), PAGE):
            page = _Page(rt, account_id, ids[start : start + PAGE])
            count, micros = (await rt.store.hot.do(CANCEL, [page]))[0]
            done, refunded = done + count, refunded + micros
    return Cancelled(done, total - gone - done, refunded, owners[0].currency if owners else "")


async def _cancel(tx: HotTx, pages: list[_Page]) -> list[tuple[int, int] | Exception]:
    """(deliveries cancelled, micros released) of each page."""
    rt = pages[0].rt
    changes = Changes(rt, rt.clock.now_ms())
    pages[0].changes = changes
    rows = {row.id: row for row in await tx.tracked(sorted({each for page in pages for each in page.delivery_ids}))}
    results: list[tuple[int, int] | Exception] = []
    for page in pages:
        count = micros = 0
        for delivery_id in page.delivery_ids:
            row = rows.get(delivery_id)
            if row is None or row.account_id != page.account_id or State(row.state) not in WAITING:
                continue
            count += 1
            micros += row.price_micros if row.money == MoneyState.HELD.value else 0
            changes.release(row)
            changes.advance(row, State.CANCELLED)
            changes.done.append(row.id)
        results.append((count, micros))
    await changes.write(tx)
    return results


def _after(pages: list[_Page]) -> None:
    if pages[0].changes is not None:
        pages[0].changes.push()


def _undo(pages: list[_Page]) -> None:
    if pages[0].changes is not None:
        pages[0].changes.withdraw()
        pages[0].changes = None


CANCEL: Verb[_Page, tuple[int, int]] = Verb("cancel", 14, _cancel, after=_after, undo=_undo)
"""Before `lease` and `start`: of a cancellation and a start that meet in one group, the cancellation wins."""


async def reschedule(rt: Runtime, account_id: int, owner: MessageRecord, due_ms: int) -> None:
    """Plan a scheduled message for another time; its validity moves along.

    Raises `Refused` with SCHEDULE_PAST, or NOT_CANCELLABLE when any of it has begun, was cancelled or was never scheduled; then
    nothing has changed. Raises `StoreAway`.
    """
    if due_ms <= rt.clock.now_ms():
        raise refused(RefusalKind.SCHEDULE_PAST, "the planned time is in the past", "due")
    begun = refused(RefusalKind.NOT_CANCELLABLE, "the message is no longer waiting for its time")
    if not owner.due_ms:
        raise begun
    async with rt.store.transaction() as tx:
        if not await messages.move_schedule(tx, account_id, owner, due_ms):
            raise begun


async def resend(
    rt: Runtime,
    caller: Caller,
    owner: MessageRecord,
    states: Collection[State] = RESENT,
    idempotency: tuple[str, str] | None = None,
) -> Accepted:
    """Send a message again to those of its recipients whose delivery ended in one of `states`, as a new message.

    Sender, text, category, reference and the way of counting units stay, and the option `resend_of` names the first
    message. It is accepted, priced and paid for like any other. Raises as `accept` does; CONTENT_MISSING when the text is
    not kept any more, or never was (one-time passwords); RECIPIENT_MISSING when nothing ended so.
    """
    if owner.body_kind != "text" or not owner.body:
        raise refused(RefusalKind.CONTENT_MISSING, "the text of this message is not kept", "text")
    limit = rt.config.limits.recipients_per_request
    async with rt.store.read() as tx:
        wanted = [state.value for state in states]
        found = await messages.deliveries(tx, caller.account.id, owner, 0, limit, wanted)
    if not found:
        raise refused(RefusalKind.RECIPIENT_MISSING, "no delivery of this message ended in these states", "only")
    options = msgspec.json.decode(owner.options, type=dict[str, str]) if owner.options else {}
    submission = Submission(
        channel=owner.channel,
        sender=owner.sender,
        recipients=[delivery.recipient for delivery in found],
        content=Content(owner.body, _POLICIES.get(owner.alphabet, "auto")),
        category=Category(owner.category),
        priority=Priority(owner.priority),
        valid_s=max(1, (owner.expires_ms - (owner.due_ms or owner.created_ms)) // 1000),
        reference=owner.reference,
        idempotency=idempotency,
        allows_partial=len(found) > 1,
        needs_sender=bool(owner.sender),
        billing=options.get(BILLING_OPTION, ""),
        options={**options, RESEND_OPTION: show("msg", owner.id)},
    )
    return await accept(rt, caller, submission)
