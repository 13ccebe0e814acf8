"""Commands about the people who are written to: who must not be, and who has agreed to be."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from berid.base.ids import show
from berid.cli.here import At, Failed, account_id, facts_of, text_of
from berid.domain.suppression import ALL, Reason
from berid.flow import consent as flow
from berid.store import consent as stored

Form = Literal["csv", "json"]
Channel = Literal["all", "sms", "voice", "email", "whatsapp"]
List = Annotated[Path, Parameter(allow_leading_hyphen=True)]

suppression = App(name="suppression", help="Who must not be written to.")
consent = App(name="consent", help="Who has agreed to be written to, in the words of İYS.")


@suppression.command(name="add")
async def suppress(
    account: str,
    recipient: str,
    /,
    *,
    channel: Channel = ALL,
    reason: Reason = Reason.MANUAL,
    source: str = "",
    all_traffic: bool = False,
    at: At,
) -> None:
    """Enter somebody into an account's book.

    Parameters
    ----------
    account
        The account's id or name.
    recipient
        A number with its country's code, or an e-mail address.
    channel
        Where.
    reason
        Why.
    source
        Who says so.
    all_traffic
        Refuse transactional messages as well, not only promotional ones.
    """
    async with at.office_of(account) as (office, owner):
        added = await flow.suppress(
            office,
            at.actor,
            owner,
            recipient,
            channel=channel,
            reason=reason,
            source=source,
            all_traffic=all_traffic,
        )
    at.say(f"{recipient} is in the book." if added else "The book said as much already.", added=added)


@suppression.command(name="lift")
async def unsuppress(account: str, recipient: str, /, *, channel: Channel = ALL, at: At) -> None:
    """Take an entry out of an account's book.

    Parameters
    ----------
    account
        The account's id or name.
    recipient
        The number or e-mail address.
    channel
        The entry's channel; an entry for all is not lifted for one.
    """
    async with at.office_of(account) as (office, owner):
        await flow.unsuppress(office, at.actor, owner, recipient, channel=channel)
    at.say(f"{recipient} is no longer in the book.", recipient=recipient, channel=channel)


@suppression.command(name="list")
async def list_suppressions(account: str, /, *, after: str = "", limit: int = 100, at: At) -> None:
    """List an account's book, by recipient.

    Parameters
    ----------
    account
        The account's id or name.
    after
        Begin behind this recipient.
    limit
        How many.
    """
    async with at.read() as tx:
        # No channel's name comes behind these letters, in whatever order the database puts letters.
        found = await stored.suppressions(tx, await account_id(tx, account), (after, "zz" if after else ""), limit)
    at.show_records(found, "", "The book is empty.")


@suppression.command(name="import")
async def import_suppressions(
    account: str,
    file: List,
    /,
    *,
    form: Form = "csv",
    channel: Channel = ALL,
    reason: Reason = Reason.MANUAL,
    source: str = "import",
    all_traffic: bool = False,
    at: At,
) -> int:
    """Enter a list into an account's book. Ends with 1 if rows were left out, and says which.

    Parameters
    ----------
    account
        The account's id or name.
    file
        The list, with a column recipient; - for standard input.
    form
        csv or json.
    channel
        Where, for rows that do not say.
    reason
        Why, for rows that do not say.
    source
        Who says so, for rows that do not say.
    all_traffic
        Refuse transactional messages as well.
    """
    text = text_of(file)
    async with at.office_of(account) as (office, owner):
        done = await flow.import_suppressions(
            office,
            at.actor,
            owner,
            text,
            form,
            channel=channel,
            reason=reason,
            source=source,
            all_traffic=all_traffic,
        )
    return _tell(at, done)


@consent.command(name="import")
async def import_consents(
    account: str, file: List, /, *, form: Form = "csv", from_registry: bool = False, at: At
) -> int:
    """Append a list to an account's record of consent. Ends with 1 if rows were left out, and says which.

    Parameters
    ----------
    account
        The account's id or name.
    file
        The list in the columns of İYS; - for standard input.
    form
        csv or json.
    from_registry
        The list is what the registry has already: its rules for new records do not apply.
    """
    text = text_of(file)
    async with at.office_of(account) as (office, owner):
        done = await flow.import_consents(office, at.actor, owner, text, form, is_from_registry=from_registry)
    return _tell(at, done)


@consent.command(name="export")
async def export_consents(account: str, target: Path | None = None, /, *, form: Form = "csv", at: At) -> None:
    """Write what every recipient said last, in the columns of İYS.

    Parameters
    ----------
    account
        The account's id or name.
    target
        Where it goes; standard output if left out.
    form
        csv or json.
    """
    async with at.office_of(account) as (office, owner):
        try:
            file = sys.stdout if target is None else await asyncio.to_thread(open, target, "w", encoding="utf-8")
            try:
                async for piece in flow.export_consents(office, owner, form):
                    await asyncio.to_thread(file.write, piece)
            finally:
                if target is not None:
                    file.close()
        except OSError as error:
            raise Failed(f"{target} cannot be written: {error.strerror}") from None


@consent.command(name="list")
async def list_consents(account: str, /, *, recipient: str = "", limit: int = 100, at: At) -> None:
    """List what recipients have said, newest first, with what later words have replaced.

    Parameters
    ----------
    account
        The account's id or name.
    recipient
        Only this one.
    limit
        How many.
    """
    async with at.office_of(account) as (office, owner):
        found = await flow.list_consents(office, owner, 0, limit, recipient)
    rows = []
    for each in found:
        facts = facts_of(each, "cns")
        rows.append({"id": facts["id"], **facts_of(facts.pop("consent"), ""), **facts})
    at.show(rows, "Nobody has said anything.")


@consent.command(name="rules")
async def set_consent_rules(account: str, /, *rules: str, at: At) -> None:
    """Say in which countries an account asks for recorded consent; without RULES show what it says itself.

    Parameters
    ----------
    account
        The account's id or name.
    rules
        COUNTRY=yes, COUNTRY=no, or COUNTRY=pack for what the country's rule pack says.
    """
    words = {"yes": True, "no": False, "pack": None}
    changes = {}
    for each in rules:
        country, _, word = each.partition("=")
        if word not in words:
            raise Failed(f"{each!r} does not say what to ask for", "write SA=yes, SA=no or SA=pack")
        changes[country] = words[word]
    async with at.office_of(account) as (office, owner):
        if changes:
            found = await flow.set_consent_rules(office, at.actor, owner, changes)
        else:
            async with office.store.read() as tx:
                found = (await stored.consent_rules(tx)).get(owner, {})
    at.show(
        ({"country": country, "is_required": is_required} for country, is_required in sorted(found.items())),
        f"{show('acc', owner)} leaves it to the countries' rule packs.",
    )


def _tell(at: At, done: flow.Imported) -> int:
    """What became of a list; the exit code."""
    faults = [{"row": each.row, "field": each.field, "detail": each.detail} for each in done.faults]
    sentence = f"{done.changed} changed, {done.unchanged} said so before, {done.refused} left out."
    at.say(sentence, changed=done.changed, unchanged=done.unchanged, refused=done.refused, faults=faults)
    if faults and not at.is_json:
        at.show(faults, "")
    return 1 if done.refused else 0
