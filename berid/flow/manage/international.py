"""Activation for other countries: an account asks, the operator decides, and the yes changes the account's rules."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from berid.base.ids import show
from berid.base.phone import country_name
from berid.domain.account import Account, Rules
from berid.flow.manage.office import Office, missing, note, too_late, unfit, write_down
from berid.store import accounts, business
from berid.store.accounts import InternationalRecord

OPEN, APPROVED, REJECTED, WITHDRAWN = "submitted", "approved", "rejected", "withdrawn"
STATES = (OPEN, APPROVED, REJECTED, WITHDRAWN)


async def request_international(
    office: Office,
    actor: str,
    account_id: int,
    countries: Sequence[str],
    *,
    purpose: str,
    monthly_volume: int = 0,
) -> int:
    """Ask that an account may write to other countries (none named: to all), and return the request's id.

    `monthly_volume` is how many messages a month the account expects. Raises `Refused`, with WRONG_STATE if the account may do so
    already, or if another request of it is open.
    """
    for country in countries:
        if country_name(country) is None:
            raise unfit("countries", f"{country!r} is not a country; write its two letters, such as SA or TR")
    if not purpose.strip():
        raise unfit("purpose", "say what the messages are for")
    if not 0 <= monthly_volume < 1 << 31:
        raise unfit("monthly_volume", "the volume is a number of messages a month")
    async with office.store.transaction() as tx:
        account = await accounts.locked_account(tx, account_id)
        if account is None:
            raise missing("account")
        if _opened(account, countries) == account.rules:
            raise too_late("the account may write to these countries already")
        if any(each.state == OPEN for each in await accounts.internationals(tx, account_id)):
            raise too_late("another request of the account is open; withdraw it first")
        record = InternationalRecord(
            id=office.ids.next(),
            account_id=account_id,
            countries=" ".join(sorted(set(countries))),
            purpose=purpose.strip(),
            monthly_volume=monthly_volume,
            state=OPEN,
            reason="",
            asked_by=actor,
            handled_by="",
            created_ms=office.clock.now_ms(),
            decided_ms=0,
        )
        await accounts.add_international(tx, record)
        detail = {"countries": record.countries, "monthly_volume": monthly_volume}
        await write_down(office, tx, actor, account_id, "international.request", show("int", record.id), **detail)
    return record.id


async def decide_international(office: Office, actor: str, request_id: int, state: str, reason: str = "") -> None:
    """Approve or reject an open request. The yes opens the countries that were asked for; a no needs its `reason`.

    An account that could write to its own country alone may then write to that and those; one whose rules name countries gets
    those added. Raises `Refused`.
    """
    if state not in (APPROVED, REJECTED):
        raise unfit("state", "a request is approved or rejected")
    if state == REJECTED and not reason.strip():
        raise unfit("reason", "say why, in words that the account can act upon")
    async with office.store.transaction() as tx:
        found = await business.international(tx, request_id)
        if found is None:
            raise missing("request")
        account = await accounts.locked_account(tx, found.account_id)
        assert account is not None
        now_ms = office.clock.now_ms()
        if not await accounts.decide_international(tx, account.id, request_id, state, reason, actor, now_ms):
            raise too_late("this request has been decided, or was withdrawn")
        detail: dict[str, object] = {"reason": reason}
        if state == APPROVED:
            rules = _opened(account, found.countries.split())
            await accounts.set_account_rules(tx, account.id, rules)
            detail = {"international_on": rules.international_on, "countries": rules.countries, "reason": reason}
        action = "international.approve" if state == APPROVED else "international.reject"
        await note(office, tx, actor, account.id, action, show("int", request_id), **detail)


async def withdraw_international(office: Office, actor: str, account_id: int, request_id: int) -> None:
    """Take an open request back. Raises `Refused`."""
    async with office.store.transaction() as tx:
        if request_id not in [each.id for each in await accounts.internationals(tx, account_id)]:
            raise missing("request")
        now_ms = office.clock.now_ms()
        if not await accounts.decide_international(tx, account_id, request_id, WITHDRAWN, "", "", now_ms):
            raise too_late("this request has been decided, or was withdrawn")
        await write_down(office, tx, actor, account_id, "international.withdraw", show("int", request_id))


def _opened(account: Account, countries: Sequence[str]) -> Rules:
    """An account's rules with some countries opened, all of them if none is named; its own rules if they were open."""
    rules = account.rules
    if not countries:
        open_to: tuple[str, ...] = ()
    elif rules.countries:
        open_to = tuple(sorted({*rules.countries, *countries}))
    elif rules.international_on:
        open_to = ()
    else:
        open_to = tuple(sorted({account.home, *countries}))
    if rules.international_on and set(open_to) == set(rules.countries):
        return rules
    return msgspec.structs.replace(rules, international_on=True, countries=open_to)
