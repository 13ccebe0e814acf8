"""Top-up requests: an account says what it has paid, somebody else finds the money, and the yes enters it, once.

`submitted` → `checking` → `needs_info` and back → `approved`, `rejected` or `withdrawn`. Every step locks the request, so of
two people who decide at the same time one is too late and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from berid.base.ids import show
from berid.base.money import format_micros
from berid.domain.errors import RefusalKind, refused
from berid.domain.ledger import TOPUP_OPEN, EntryKind, TopupState
from berid.flow.manage.attachments import attach
from berid.flow.manage.money import LARGEST_MICROS, enter_money, wallet_of
from berid.flow.manage.office import Office, Once, first_answer, keep_answer, missing, too_late, unfit, write_down
from berid.store import Tx, topups
from berid.store.topups import TopupRecord


async def request_topup(
    office: Office,
    actor: str,
    account_id: int,
    mode: str,
    currency: str,
    amount_micros: int,
    *,
    method: str,
    reference: str = "",
    note_text: str = "",
    slips: Sequence[int] = (),
    once: Once | None = None,
) -> tuple[int, bool]:
    """Say that money was paid for a wallet, and return the request's id, and whether the same request was made before.

    `method` is how it was paid, `reference` what the account calls it, `slips` are ids of the account's files that prove it. With
    the key of a request, `once`, the same request again is made once. Raises `Refused`.
    """
    if not 0 < amount_micros <= LARGEST_MICROS:
        raise unfit("amount", f"the amount must be more than 0, and no more than {format_micros(LARGEST_MICROS)}")
    if not method.strip():
        raise unfit("method", "say how it was paid, such as bank transfer")
    async with office.store.transaction() as tx:
        before = await first_answer(office, tx, once)
        if before is not None:
            return int(before), True
        wallet = await wallet_of(tx, account_id, mode, currency)
        identifier, now_ms = office.ids.next(), office.clock.now_ms()
        record = TopupRecord(
            id=identifier,
            account_id=account_id,
            wallet_id=wallet.id,
            mode=mode,
            currency=currency,
            amount_micros=amount_micros,
            method=method.strip(),
            reference=reference.strip(),
            note=note_text,
            state=TopupState.SUBMITTED.value,
            reason="",
            approved_micros=0,
            entry_id=0,
            asked_by=actor,
            handled_by="",
            created_ms=now_ms,
            submitted_ms=now_ms,
            decided_ms=0,
        )
        await topups.add(tx, record)
        await attach(tx, account_id, slips, show("top", identifier), "slips")
        detail = {"wallet": show("wal", wallet.id), "amount_micros": amount_micros, "currency": currency, "mode": mode}
        await _note(office, tx, actor, record, "request", **detail, reference=record.reference)
        await keep_answer(tx, once, str(identifier))
    return identifier, False


async def complete_topup(
    office: Office, actor: str, account_id: int, topup_id: int, *, note_text: str = "", slips: Sequence[int] = ()
) -> None:
    """Add files or another note to an open request. What needed information is submitted anew, and its clock begins again.

    Raises `Refused`.
    """
    async with office.store.transaction() as tx:
        found = await _open_topup(tx, topup_id, account_id)
        await attach(tx, account_id, slips, show("top", topup_id), "slips")
        values: dict[str, Any] = {"note": note_text} if note_text else {}
        if found.state == TopupState.NEEDS_INFO.value:
            values |= {"state": TopupState.SUBMITTED.value, "reason": "", "submitted_ms": office.clock.now_ms()}
        if values:
            await topups.change(tx, topup_id, **values)
        await _note(office, tx, actor, found, "complete", slips=[show("att", each) for each in slips])


async def withdraw_topup(office: Office, actor: str, account_id: int, topup_id: int) -> None:
    """Take an open request back. Raises `Refused`."""
    async with office.store.transaction() as tx:
        found = await _open_topup(tx, topup_id, account_id)
        await _decide(office, tx, found, TopupState.WITHDRAWN, handled_by=found.handled_by)
        await _note(office, tx, actor, found, "withdraw")


async def check_topup(office: Office, actor: str, topup_id: int) -> None:
    """Say that somebody looks for the money of a request that waits. Raises `Refused`."""
    async with office.store.transaction() as tx:
        found = await _open_topup(tx, topup_id)
        if found.state != TopupState.SUBMITTED.value:
            raise _not_now(found)
        await topups.change(tx, topup_id, state=TopupState.CHECKING.value, handled_by=actor)
        await _note(office, tx, actor, found, "check")


async def ask_about_topup(office: Office, actor: str, topup_id: int, reason: str) -> None:
    """Ask the account for what is missing; `reason` says what. Raises `Refused`."""
    _check_reason(reason)
    async with office.store.transaction() as tx:
        found = await _open_topup(tx, topup_id)
        await topups.change(tx, topup_id, state=TopupState.NEEDS_INFO.value, reason=reason, handled_by=actor)
        await _note(office, tx, actor, found, "needs_info", reason=reason)


async def reject_topup(office: Office, actor: str, topup_id: int, reason: str) -> None:
    """Turn a request down; `reason` tells the account why. Raises `Refused`."""
    _check_reason(reason)
    async with office.store.transaction() as tx:
        found = await _open_topup(tx, topup_id)
        await _decide(office, tx, found, TopupState.REJECTED, handled_by=actor, reason=reason)
        await _note(office, tx, actor, found, "reject", reason=reason)


async def approve_topup(
    office: Office,
    actor: str,
    topup_id: int,
    *,
    approver_account_id: int = 0,
    amount_micros: int | None = None,
    reason: str = "",
) -> None:
    """Enter the money of a request in its wallet. An amount other than the one asked for needs a `reason`.

    Approving again with the same amount enters nothing and is a yes, whoever does it. `approver_account_id` is the account whose
    token the approver holds (0: none): raises `Refused` with SELF_APPROVAL if that is the one which asks, or if the approver made
    the request; with WRONG_STATE if it was decided otherwise.
    """
    async with office.store.transaction() as tx:
        found = await _locked(tx, topup_id)
        if found.asked_by == actor or approver_account_id == found.account_id:
            raise refused(RefusalKind.SELF_APPROVAL, "this request is the approver's own")
        amount = found.amount_micros if amount_micros is None else amount_micros
        if found.state == TopupState.APPROVED.value and found.approved_micros == amount:
            return
        if TopupState(found.state) not in TOPUP_OPEN:
            raise _not_now(found)
        if amount != found.amount_micros and not reason.strip():
            raise unfit("reason", "an amount other than the one asked for needs a reason that the account can act upon")
        wallet = await wallet_of(tx, found.account_id, found.mode, found.currency)
        what = " ".join(filter(None, (show("top", topup_id), found.reference)))
        entered = await enter_money(office, tx, actor, wallet, EntryKind.TOPUP, amount, what)
        given = {"approved_micros": amount, "entry_id": entered.entry_id}
        await _decide(office, tx, found, TopupState.APPROVED, handled_by=actor, reason=reason, **given)
        detail = {"amount_micros": amount, "entry": show("ent", entered.entry_id), "reason": reason}
        await _note(office, tx, actor, found, "approve", **detail)


async def _locked(tx: Tx, topup_id: int, account_id: int | None = None) -> TopupRecord:
    """A request, locked. Raises `Refused` with NOT_FOUND, for one of another account than `account_id` as well."""
    found = await topups.topup(tx, topup_id, is_locked=True)
    if found is None or account_id not in (None, found.account_id):
        raise missing("top-up request")
    return found


async def _open_topup(tx: Tx, topup_id: int, account_id: int | None = None) -> TopupRecord:
    """As `_locked`. Raises `Refused` with WRONG_STATE if the request has been decided."""
    found = await _locked(tx, topup_id, account_id)
    if TopupState(found.state) not in TOPUP_OPEN:
        raise _not_now(found)
    return found


def _not_now(found: TopupRecord) -> Exception:
    return too_late(f"this request is {found.state}")


async def _decide(office: Office, tx: Tx, found: TopupRecord, state: TopupState, **values: Any) -> None:
    await topups.change(tx, found.id, state=state.value, decided_ms=office.clock.now_ms(), **values)


async def _note(office: Office, tx: Tx, actor: str, found: TopupRecord, step: str, **detail: Any) -> None:
    await write_down(office, tx, actor, found.account_id, f"topup.{step}", show("top", found.id), **detail)


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise unfit("reason", "say why, in words that the account can act upon")
