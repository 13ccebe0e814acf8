"""Commands about what accounts ask for: money they have paid, trial credit, other countries; and the files behind it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from berid.base.ids import show
from berid.base.money import format_micros
from berid.cli.here import At, Failed, amount_of, facts_of, read_id
from berid.domain.ledger import TOPUP_OPEN, TopupState
from berid.flow import manage
from berid.flow.manage import Office
from berid.flow.manage.international import APPROVED, REJECTED
from berid.store import Tx, attachments, business, topups
from berid.store.topups import TopupRecord

Mode = Literal["test", "live"]
Many = Parameter(consume_multiple=True, negative=())

topup_request = App(name="topup-request", help="Money that accounts say they have paid: ask, check, approve.")
trial = App(name="trial", help="Credit for whoever tries a product.")
international = App(name="international", help="Accounts that want to write to other countries.")


@topup_request.command(name="make")
async def request_topup(
    account: str,
    amount: str,
    currency: str,
    /,
    *,
    method: str,
    reference: str = "",
    note: str = "",
    slip: Annotated[list[Path], Many] = [],  # noqa: B006 - never changed
    mode: Mode = "live",
    at: At,
) -> None:
    """Say that an account has paid. Somebody else approves it; what needs nobody's yes is berid topup.

    Parameters
    ----------
    account
        The account's id or name.
    amount
        How much, such as 250 or 99.90.
    currency
        SAR, TRY, CREDIT …
    method
        How it was paid, such as "bank transfer".
    reference
        What the account calls it.
    note
        Anything else.
    slip
        Files that prove it: PDF, JPEG or PNG.
    mode
        live or test.
    """
    async with at.office_of(account) as (office, owner):
        slips = [await hand_in(office, at, owner, file) for file in slip]
        made, _ = await manage.request_topup(
            office,
            at.actor,
            owner,
            mode,
            currency,
            amount_of(amount),
            method=method,
            reference=reference,
            note_text=note,
            slips=slips,
        )
    at.say(f"The request is {show('top', made)}.", id=show("top", made))


@topup_request.command(name="list")
async def list_topups(*, state: TopupState | None = None, limit: int = 100, at: At) -> None:
    """List the requests of all accounts, the oldest first.

    Parameters
    ----------
    state
        Only those in this state; without it those that are open.
    limit
        How many.
    """
    states = TOPUP_OPEN if state is None else {state}
    async with at.read() as tx:
        found = await topups.topups(tx, [each.value for each in states], 0, 0, limit)
    columns = ("id", "account", "state", "amount", "currency", "mode", "method", "reference", "submitted_at")
    rows = [facts_of(each, "top") for each in found]
    at.show(rows if at.is_json else [{name: row[name] for name in columns} for row in rows], "There are no requests.")


@topup_request.command(name="show")
async def show_topup(request: str, /, *, at: At) -> None:
    """Show a request with its files, and what else came with the same file.

    Parameters
    ----------
    request
        The request's id.
    """
    async with at.read() as tx:
        found = await _topup(tx, request)
        subject = show("top", found.id)
        slips = (await attachments.of_subjects(tx, [subject]))[subject]
        twins = await attachments.twins(tx, [each.digest for each in slips])
    facts = facts_of(found, "top")
    facts["slips"] = [f"{show('att', each.id)} {each.name}" for each in slips]
    facts["same_files"] = sorted({twin.subject for twin in twins} - {subject})
    at.show_one(facts)


@topup_request.command(name="check")
async def check_topup(request: str, /, *, at: At) -> None:
    """Say that somebody looks for the money.

    Parameters
    ----------
    request
        The request's id.
    """
    identifier = read_id("top", request)
    async with at.office() as office:
        await manage.check_topup(office, at.actor, identifier)
    at.say(f"{request} is checking.", id=show("top", identifier), state="checking")


@topup_request.command(name="ask")
async def ask_about_topup(request: str, reason: str, /, *, at: At) -> None:
    """Ask the account for what is missing.

    Parameters
    ----------
    request
        The request's id.
    reason
        What is missing.
    """
    identifier = read_id("top", request)
    async with at.office() as office:
        await manage.ask_about_topup(office, at.actor, identifier, reason)
    at.say(f"{request} needs information.", id=show("top", identifier), state="needs_info")


@topup_request.command(name="approve")
async def approve_topup(request: str, /, *, amount: str = "", reason: str = "", at: At) -> None:
    """Enter the money of a request in its wallet. Approving again enters nothing.

    Parameters
    ----------
    request
        The request's id.
    amount
        What has come in, if it is not what was asked for; then a reason is needed.
    reason
        Why the amount is another one.
    """
    identifier = read_id("top", request)
    async with at.office() as office:
        await manage.approve_topup(
            office, at.actor, identifier, amount_micros=amount_of(amount) if amount else None, reason=reason
        )
        async with office.store.read() as tx:
            found = await _topup(tx, request)
    entered = format_micros(found.approved_micros)
    at.say(f"{entered} {found.currency} entered.", entry=show("ent", found.entry_id), approved=entered)


@topup_request.command(name="reject")
async def reject_topup(request: str, reason: str, /, *, at: At) -> None:
    """Turn a request down.

    Parameters
    ----------
    request
        The request's id.
    reason
        Why.
    """
    identifier = read_id("top", request)
    async with at.office() as office:
        await manage.reject_topup(office, at.actor, identifier, reason)
    at.say(f"{request} is rejected.", id=show("top", identifier), state="rejected")


@topup_request.command(name="withdraw")
async def withdraw_topup(account: str, request: str, /, *, at: At) -> None:
    """Take a request back.

    Parameters
    ----------
    account
        The account's id or name.
    request
        The request's id.
    """
    identifier = read_id("top", request)
    async with at.office_of(account) as (office, owner):
        await manage.withdraw_topup(office, at.actor, owner, identifier)
    at.say(f"{request} is withdrawn.", id=show("top", identifier), state="withdrawn")


async def save_attachment(attachment: str, target: Path, /, *, at: At) -> None:
    """Write a file that an account has handed in to this machine, readable by you alone.

    Parameters
    ----------
    attachment
        The file's id.
    target
        Where it goes; it must not exist yet.
    """
    identifier = read_id("att", attachment)
    async with at.office() as office:
        record, content = await manage.read_attachment(office, identifier, None)
    await asyncio.to_thread(_write, target, content)
    at.say(f"{record.name} is in {target}.", id=show("att", identifier), type=record.type, bytes=record.size_bytes)


@trial.command(name="offer")
async def offer_trial(product: str, amount: str, currency: str, /, *, at: At) -> None:
    """Give something to whoever tries a product, once for every account.

    Parameters
    ----------
    product
        A dialect's name, or any word of yours.
    amount
        How much, such as 1.
    currency
        SAR, TRY, CREDIT …
    """
    async with at.office() as office:
        await manage.offer_trial(office, at.actor, product, currency, amount_of(amount))
    at.say(f"Whoever tries {product} gets {amount} {currency}.", product=product, amount=amount, currency=currency)


@trial.command(name="end")
async def end_trial(product: str, /, *, at: At) -> None:
    """Give nothing any more to whoever tries a product.

    Parameters
    ----------
    product
        The product's name.
    """
    async with at.office() as office:
        await manage.end_trial(office, at.actor, product)
    at.say(f"Whoever tries {product} gets nothing.", product=product)


@trial.command(name="list")
async def list_trials(*, at: At) -> None:
    """List what is given for trying."""
    async with at.read() as tx:
        found = await topups.offers(tx)
    at.show_records(found, "", "Nothing is given. Offer something: berid trial offer PRODUCT AMOUNT CURRENCY")


@trial.command(name="claim")
async def claim_trial(account: str, product: str, /, *, at: At) -> None:
    """Enter the trial credit of an account.

    Parameters
    ----------
    account
        The account's id or name.
    product
        What it tries.
    """
    async with at.office_of(account) as (office, owner):
        done = await manage.claim_trial(office, at.actor, owner, product)
    left = format_micros(done.available_micros)
    sentence = f"{account} has {left} {done.currency} to spend."
    at.say(sentence, entry=show("ent", done.entry_id), available=left, currency=done.currency)


@international.command(name="ask")
async def request_international(
    account: str,
    /,
    *,
    purpose: str,
    country: Annotated[list[str], Many] = [],  # noqa: B006
    volume: int = 0,
    at: At,
) -> None:
    """Ask that an account may write to other countries.

    Parameters
    ----------
    account
        The account's id or name.
    purpose
        What the messages are for.
    country
        The countries, two letters each; all if left out.
    volume
        How many messages a month are expected.
    """
    async with at.office_of(account) as (office, owner):
        made = await manage.request_international(
            office, at.actor, owner, country, purpose=purpose, monthly_volume=volume
        )
    at.say(f"The request is {show('int', made)}.", id=show("int", made))


@international.command(name="list")
async def list_internationals(
    *,
    state: Literal["submitted", "approved", "rejected", "withdrawn"] = "submitted",
    limit: int = 100,
    at: At,
) -> None:
    """List requests of all accounts, the oldest first.

    Parameters
    ----------
    state
        Those in this state.
    limit
        How many.
    """
    async with at.read() as tx:
        found = await business.internationals(tx, state, 0, limit)
    at.show_records(found, "int", "There are no requests.", without=["asked_by", "handled_by"])


@international.command(name="approve")
async def approve_international(request: str, /, *, reason: str = "", at: At) -> None:
    """Let an account write to the countries that it asked for: this changes its rules.

    Parameters
    ----------
    request
        The request's id.
    reason
        A word for the account.
    """
    await _decide(at, request, APPROVED, reason)


@international.command(name="reject")
async def reject_international(request: str, reason: str, /, *, at: At) -> None:
    """Do not let an account write to other countries.

    Parameters
    ----------
    request
        The request's id.
    reason
        Why.
    """
    await _decide(at, request, REJECTED, reason)


@international.command(name="withdraw")
async def withdraw_international(account: str, request: str, /, *, at: At) -> None:
    """Take a request back.

    Parameters
    ----------
    account
        The account's id or name.
    request
        The request's id.
    """
    identifier = read_id("int", request)
    async with at.office_of(account) as (office, owner):
        await manage.withdraw_international(office, at.actor, owner, identifier)
    at.say(f"{request} is withdrawn.", id=show("int", identifier), state="withdrawn")


async def hand_in(office: Office, at: At, account_id: int, file: Path) -> int:
    """The id of a file of this machine, once it is handed in for an account. Raises `Failed`."""
    try:
        content = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from None
    return (await manage.add_attachment(office, at.actor, account_id, file.name, content)).id


async def _decide(at: At, request: str, state: str, reason: str) -> None:
    identifier = read_id("int", request)
    async with at.office() as office:
        await manage.decide_international(office, at.actor, identifier, state, reason)
    at.say(f"{request} is {state}.", id=show("int", identifier), state=state)


async def _topup(tx: Tx, text: str) -> TopupRecord:
    found = await topups.topup(tx, read_id("top", text))
    if found is None:
        raise Failed(f"there is no request {text}", "berid topup-request list shows those that are open")
    return found


def _write(target: Path, content: bytes) -> None:
    try:
        with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(content)
    except OSError as error:
        raise Failed(f"{target} cannot be written: {error.strerror}") from None
