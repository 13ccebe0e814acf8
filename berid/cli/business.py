"""Commands about customers: accounts, applications, tokens, sender names, prices, money, numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from berid.base.ids import show
from berid.base.money import format_micros
from berid.cli.desk import hand_in
from berid.cli.here import At, Failed, account_id, amount_of, facts_of, moment, pairs, read_id, read_moment, text_of
from berid.domain.account import Rules, SenderState
from berid.domain.pricing import PriceRow
from berid.flow import manage
from berid.store import Tx, accounts, directory, ledger
from berid.store import business as stored

Mode = Literal["test", "live"]
Many = Parameter(consume_multiple=True, negative=())
ALL = 1_000_000
"""As many rows as a list on a terminal may ever have."""

account = App(name="account", help="Who pays: accounts and their rules.")
application = App(name="application", help="The clients of an account, and what each may use.")
token = App(name="token", help="Secrets by which applications are known.")
sender = App(name="sender", help="Sender names: ask for one, decide about one.")
price = App(name="price", help="Price lists, from CSV files, and who buys by them.")
books = App(name="ledger", help="Money: statements, corrections, credit, and the proof of every coin.")
number = App(name="number", help="Numbers that people write to, and whose they are.")


@account.command(name="create")
async def create_account(
    name: str,
    /,
    *,
    home: str,
    zone: str = "UTC",
    language: str = "en",
    currency: Annotated[list[str], Many] = [],  # noqa: B006 - never changed
    at: At,
) -> None:
    """Make an account with empty wallets, one for test and one for live messages in each currency.

    Parameters
    ----------
    name
        What people call it.
    home
        Its own country, two letters: what is elsewhere is international.
    zone
        Its time zone, such as Asia/Riyadh.
    language
        en, ar or tr.
    currency
        Currencies such as SAR or TRY; CREDIT counts messages.
    """
    async with at.office() as office:
        made = await manage.create_account(
            office, at.actor, name=name, home=home, zone=zone, language=language, currencies=currency
        )
    at.say(f"Account {name} is {show('acc', made)}.", id=show("acc", made))


@account.command(name="list")
async def list_accounts(*, at: At) -> None:
    """List all accounts."""
    async with at.read() as tx:
        found = await stored.accounts(tx, 0, ALL)
    empty = "There are no accounts. Make one: berid account create NAME --home SA --currency SAR"
    at.show_records(found, "acc", empty, without=["rules"])


@account.command(name="show")
async def show_account(name: str, /, *, at: At) -> None:
    """Show an account with its rules, wallets, applications and price lists.

    Parameters
    ----------
    name
        Its id or its name.
    """
    async with at.read() as tx:
        identifier = await account_id(tx, name)
        business = await directory.load(tx, with_books=False)
        wallets = await ledger.wallets(tx, identifier)
    facts = facts_of(business.accounts[identifier], "acc")
    facts["rules"] = _rules(business.accounts[identifier].rules)
    facts["wallets"] = [
        f"{each.mode}: {format_micros(each.available_micros)} {each.currency}"
        f" (held {format_micros(each.held_micros)}, credit {format_micros(each.credit_limit_micros)})"
        for each in wallets
    ]
    facts["applications"] = [
        f"{show('app', each.id)} {each.name} ({each.state}: {' '.join(sorted(each.services))})"
        for each in business.applications.values()
        if each.account_id == identifier
    ]
    facts["price_lists"] = [each.name for each in business.price_lists(identifier, "sms")]
    if not at.is_json:
        facts = {key: ", ".join(value) if isinstance(value, list) else value for key, value in facts.items()}
    at.show_one(facts)


@account.command(name="state")
async def set_account_state(name: str, state: Literal["active", "suspended", "closed"], /, *, at: At) -> None:
    """Let an account send, or keep it from sending.

    Parameters
    ----------
    name
        Its id or its name.
    state
        active, suspended or closed.
    """
    async with at.office_of(name) as (office, identifier):
        await manage.set_account_state(office, at.actor, identifier, state)
    at.say(f"{name} is {state}.", id=show("acc", identifier), state=state)


@account.command(name="rules")
async def set_account_rules(name: str, /, *rules: str, at: At) -> None:
    """Change the rules of an account; without RULES show them.

    Parameters
    ----------
    name
        Its id or its name.
    rules
        NAME=VALUE, such as countries=SA,TR or per_second=20. Lists are separated by commas.
    """
    async with at.office_of(name) as (office, identifier):
        if rules:
            await manage.set_account_rules(office, at.actor, identifier, pairs(rules))
        async with office.store.read() as tx:
            found = await stored.account(tx, identifier)
    assert found is not None
    at.show_one(_rules(found.rules))


@account.command(name="wallet")
async def open_wallets(name: str, /, currency: Annotated[list[str], Many], *, at: At) -> None:
    """Give an account wallets in more currencies.

    Parameters
    ----------
    name
        Its id or its name.
    currency
        Currencies such as SAR, TRY or CREDIT.
    """
    async with at.office_of(name) as (office, identifier):
        await manage.open_wallets(office, at.actor, identifier, currency)
    at.say(f"{name} has wallets in {', '.join(currency)}.", id=show("acc", identifier), currencies=currency)


@account.command(name="audit")
async def show_audit(name: str = "0", /, *, limit: int = 50, at: At) -> None:
    """Show who changed what, newest first.

    Parameters
    ----------
    name
        An account's id or name; without it what belongs to no account: prices, routes, connectors.
    limit
        How many lines.
    """
    async with at.read() as tx:
        identifier = 0 if name == "0" else await account_id(tx, name)
        found = await accounts.audit(tx, identifier, 0, limit)
    at.show_records(found, "aud", "Nothing has been changed.")


@application.command(name="create")
async def create_application(
    account: str,
    name: str,
    /,
    *,
    service: Annotated[list[Literal["sms", "voice", "email", "whatsapp", "otp"]], Many] = ["sms", "otp"],  # noqa: B006
    at: At,
) -> None:
    """Make an application of an account.

    Parameters
    ----------
    account
        The account's id or name.
    name
        What people call the application.
    service
        What it may use.
    """
    async with at.office_of(account) as (office, owner):
        made = await manage.create_application(office, at.actor, owner, name, service)
    at.say(f"Application {name} is {show('app', made)}.", id=show("app", made))


@application.command(name="services")
async def set_services(
    account: str,
    application: str,
    /,
    service: Annotated[list[Literal["sms", "voice", "email", "whatsapp", "otp"]], Many],
    *,
    at: At,
) -> None:
    """Say what an application may use.

    Parameters
    ----------
    account
        The account's id or name.
    application
        The application's id.
    service
        All that it may use from now on.
    """
    identifier = read_id("app", application)
    async with at.office_of(account) as (office, owner):
        await manage.set_services(office, at.actor, owner, identifier, service)
    at.say(f"{application} may use {', '.join(service)}.", id=show("app", identifier), services=service)


@application.command(name="rules")
async def set_application_rules(account: str, application: str, /, *rules: str, at: At) -> None:
    """Change the rules of an application, which narrow its account's; without RULES show them.

    Parameters
    ----------
    account
        The account's id or name.
    application
        The application's id.
    rules
        NAME=VALUE, such as networks=203.0.113.0/24 or api_on=false.
    """
    identifier = read_id("app", application)
    async with at.office_of(account) as (office, owner):
        if rules:
            await manage.set_application_rules(office, at.actor, owner, identifier, pairs(rules))
        async with office.store.read() as tx:
            found = await stored.application(tx, owner, identifier)
    if found is None:
        raise Failed(f"{account} has no application {application}", f"berid account show {account} lists them")
    at.show_one(_rules(found.rules))


@application.command(name="state")
async def set_application_state(
    account: str, application: str, state: Literal["active", "suspended"], /, *, at: At
) -> None:
    """Let an application send, or keep it from sending.

    Parameters
    ----------
    account
        The account's id or name.
    application
        The application's id.
    state
        active or suspended.
    """
    identifier = read_id("app", application)
    async with at.office_of(account) as (office, owner):
        await manage.set_application_state(office, at.actor, owner, identifier, state)
    at.say(f"{application} is {state}.", id=show("app", identifier), state=state)


@token.command(name="create")
async def create_token(
    account: str,
    /,
    *,
    kind: Literal["bearer", "api-key", "smpp"] = "bearer",
    mode: Mode = "test",
    application: str = "",
    scope: Annotated[list[str], Many] = [],  # noqa: B006
    label: str = "",
    expires: str = "",
    system_id: str = "",
    at: At,
) -> None:
    """Make a token and show its secret, once: it is not kept.

    Parameters
    ----------
    account
        The account's id or name.
    kind
        bearer for our API and Taqnyat's, api-key for TurkeySMS's, smpp for binds.
    mode
        test tokens reach only simulators and pay with test money.
    application
        The application's id; may be left out when the account has only one.
    scope
        Its rights; all of the account's unless some are named.
    label
        What people call it.
    expires
        A date or time at which it ends.
    system_id
        The login for SMPP, up to 15 characters.
    """
    async with at.office_of(account) as (office, owner):
        async with office.store.read() as tx:
            client = await _application(tx, owner, application)
        ends_ms = read_moment(expires) if expires else 0
        rights = {"scopes": scope} if scope else {}
        if kind == "smpp":
            if scope or expires:
                raise Failed("an SMPP login has no scopes and no end", "leave out --scope and --expires")
            made = await manage.create_smpp_login(
                office, at.actor, owner, client, mode=mode, system_id=system_id, label=label
            )
        elif system_id:
            raise Failed("only an SMPP login has a system_id", "add --kind smpp")
        elif kind == "api-key":
            made = await manage.create_api_key(
                office, at.actor, owner, client, mode=mode, label=label, expires_ms=ends_ms, **rights
            )
        else:
            made = await manage.create_bearer(
                office, at.actor, owner, client, mode=mode, label=label, expires_ms=ends_ms, **rights
            )
    _show_secret(at, made)


@token.command(name="list")
async def list_tokens(account: str, /, *, at: At) -> None:
    """List the tokens of an account, by their first and last characters.

    Parameters
    ----------
    account
        The account's id or name.
    """
    async with at.read() as tx:
        found = await accounts.tokens(tx, await account_id(tx, account))
    empty = f"{account} has no tokens. Make one: berid token create {account}"
    at.show_records(found, "tok", empty, without=["account"])


@token.command(name="rotate")
async def rotate_token(account: str, token: str, /, *, overlap_hours: float = 24, at: At) -> None:
    """Replace a token by a new one with the same rights, and show the new secret.

    Parameters
    ----------
    account
        The account's id or name.
    token
        The token's id.
    overlap_hours
        How long the old one still works; 0 ends it now. An SMPP login has one password, so 0 is all it can have.
    """
    async with at.office_of(account) as (office, owner):
        made = await manage.rotate_token(office, at.actor, owner, read_id("tok", token), overlap_hours)
    _show_secret(at, made)


@token.command(name="revoke")
async def revoke_token(account: str, token: str, /, *, at: At) -> None:
    """End a token now.

    Parameters
    ----------
    account
        The account's id or name.
    token
        The token's id.
    """
    identifier = read_id("tok", token)
    async with at.office_of(account) as (office, owner):
        await manage.revoke_token(office, at.actor, owner, identifier)
    at.say(f"{token} has ended.", id=show("tok", identifier))


@sender.command(name="request")
async def request_sender(
    account: str,
    name: str,
    /,
    *,
    channel: Literal["sms", "voice", "email", "whatsapp"] = "sms",
    country: str = "",
    category: Literal["any", "transactional", "promotional"] = "any",
    document: Annotated[list[Path], Many] = [],  # noqa: B006
    draft: bool = False,
    at: At,
) -> None:
    """Ask for a sender name. It may be used once it is approved.

    Parameters
    ----------
    account
        The account's id or name.
    name
        The name or number that recipients see. Promotional names for Saudi Arabia end in -AD.
    channel
        Where it is used.
    country
        The country that it is for, two letters; all if left out.
    category
        What it is for.
    document
        Files with the papers that go with the request: PDF, JPEG or PNG.
    draft
        Only note it down; it is not submitted yet.
    """
    async with at.office_of(account) as (office, owner):
        made = await manage.request_sender(
            office,
            at.actor,
            owner,
            channel,
            name,
            country=country,
            category=category,
            documents=[await hand_in(office, at, owner, file) for file in document],
            is_draft=draft,
        )
    state = "a draft" if draft else "submitted"
    at.say(f"{name} is {show('snd', made)}, {state}.", id=show("snd", made))


@sender.command(name="list")
async def list_senders(account: str, /, *, at: At) -> None:
    """List the sender names of an account.

    Parameters
    ----------
    account
        The account's id or name.
    """
    async with at.read() as tx:
        found = await accounts.senders(tx, await account_id(tx, account))
    empty = f"{account} has no sender names. Ask for one: berid sender request {account} NAME"
    at.show_records(found, "snd", empty, without=["account"])


@sender.command(name="move")
async def move_sender(
    account: str,
    name: str,
    state: Literal["draft", "submitted", "needs_info", "approved", "rejected", "expired", "suspended", "withdrawn"],
    /,
    *,
    reason: str = "",
    expires: str = "",
    at: At,
) -> None:
    """Decide about a sender name.

    Parameters
    ----------
    account
        The account's id or name.
    name
        The sender name's id.
    state
        What it becomes.
    reason
        Why; needed for needs_info, rejected and suspended.
    expires
        The date or time at which an approved name ends.
    """
    identifier = read_id("snd", name)
    async with at.office_of(account) as (office, owner):
        ends_ms = read_moment(expires) if expires else 0
        await manage.move_sender(
            office, at.actor, owner, identifier, SenderState(state), reason=reason, expires_ms=ends_ms
        )
    at.say(f"{name} is {state}.", id=show("snd", identifier), state=state)


@price.command(name="create")
async def create_price_list(
    name: str,
    currency: str,
    /,
    *,
    channel: Literal["sms", "voice", "email", "whatsapp"] = "sms",
    charge_on: Literal["sent", "delivered"] = "sent",
    at: At,
) -> None:
    """Make an empty price list.

    Parameters
    ----------
    name
        What people call it.
    currency
        What is paid with: SAR, TRY, or CREDIT for message credits.
    channel
        What it is for.
    charge_on
        When held money is spent; delivered gives it back for what does not arrive.
    """
    async with at.office() as office:
        made = await manage.create_price_list(office, at.actor, name, channel, currency, charge_on)
    at.say(f"Price list {name} is {show('prl', made)}.", id=show("prl", made))


@price.command(name="import")
async def import_prices(
    price_list: str, file: Annotated[Path, Parameter(allow_leading_hyphen=True)], /, *, dry_run: bool = False, at: At
) -> None:
    """Make a price list say what a CSV file says, and show the difference.

    The first line names the columns: prefix,price and, if wanted, category,operator,from,until.

    Parameters
    ----------
    price_list
        The list's id or name.
    file
        The CSV file; - for standard input.
    dry_run
        Show the difference and change nothing.
    """
    text = text_of(file)
    async with at.office() as office:
        async with office.store.read() as tx:
            found = await _price_list(tx, price_list)
        diff = await manage.import_prices(office, at.actor, found.id, text, is_dry_run=dry_run)
    rows = [
        *({"change": "added", **_price(row), "before": ""} for row in diff.added),
        *({"change": "changed", **_price(after), "before": _price(before)["price"]} for before, after in diff.changed),
        *({"change": "removed", **_price(row), "before": ""} for row in diff.removed),
    ]
    at.show(rows, f"Nothing changes; {diff.unchanged} rows are as they were.")


@price.command(name="list")
async def list_price_lists(*, at: At) -> None:
    """List all price lists and who buys by them."""
    async with at.read() as tx:
        rows = []
        for each in await accounts.price_lists(tx):
            uses = await accounts.price_uses(tx, each.id)
            used_by = [f"{show('acc', user) if user else 'default'} (rank {rank})" for user, rank in uses]
            rows.append({**facts_of(each, "prl"), "used_by": used_by})
    at.show(rows, "There are no price lists. Make one: berid price create NAME CURRENCY")


@price.command(name="show")
async def show_price_list(price_list: str, /, *, at: At) -> None:
    """Show the rows of a price list.

    Parameters
    ----------
    price_list
        The list's id or name.
    """
    async with at.read() as tx:
        found = await _price_list(tx, price_list)
        rows = sorted((await accounts.price_rows(tx, found.id)).values(), key=lambda row: (row.prefix, row.from_ms))
    at.show((_price(row) for row in rows), f"{found.name} has no rows. Fill it: berid price import {price_list} FILE")


@price.command(name="use")
async def use_price_list(price_list: str, account: str = "", /, *, rank: int = 100, at: At) -> None:
    """Let an account buy by a price list. The list of the lowest rank that covers a number decides, and pays.

    Parameters
    ----------
    price_list
        The list's id or name.
    account
        The account's id or name; without it all accounts that have no list of their own.
    rank
        Its place in the order.
    """
    async with at.office() as office:
        async with office.store.read() as tx:
            found = await _price_list(tx, price_list)
            owner = await account_id(tx, account) if account else 0
        await manage.use_price_list(office, at.actor, owner, found.id, rank)
    at.say(f"{account or 'Whoever has no list'} buys by {found.name}.", id=show("prl", found.id), rank=rank)


@price.command(name="drop")
async def drop_price_list(price_list: str, account: str = "", /, *, at: At) -> None:
    """Let an account no longer buy by a price list.

    Parameters
    ----------
    price_list
        The list's id or name.
    account
        The account's id or name; without it all accounts that have no list of their own.
    """
    async with at.office() as office:
        async with office.store.read() as tx:
            found = await _price_list(tx, price_list)
            owner = await account_id(tx, account) if account else 0
        await manage.drop_price_list(office, at.actor, owner, found.id)
    at.say(f"{account or 'Nobody by default'} no longer buys by {found.name}.", id=show("prl", found.id))


async def top_up(
    account: str,
    amount: str,
    currency: str,
    /,
    *,
    mode: Mode = "live",
    bonus: bool = False,
    note: str = "",
    at: At,
) -> None:
    """Enter money that an account has paid.

    Parameters
    ----------
    account
        The account's id or name.
    amount
        How much, such as 250 or 99.90.
    currency
        SAR, TRY, CREDIT …
    mode
        live, or test for money to try things with.
    bonus
        It is a present, not a payment.
    note
        What it is for; shown in the statement.
    """
    async with at.office_of(account) as (office, owner):
        enter = manage.add_bonus if bonus else manage.top_up
        done = await enter(office, at.actor, owner, mode, currency, amount_of(amount), note)
    _say_entered(at, account, mode, currency, done)


@books.command(name="statement")
async def show_statement(account: str, currency: str, /, *, mode: Mode = "live", limit: int = 50, at: At) -> None:
    """Show the entries of a wallet, newest first.

    Parameters
    ----------
    account
        The account's id or name.
    currency
        SAR, TRY, CREDIT …
    mode
        live or test.
    limit
        How many entries.
    """
    async with at.read() as tx:
        found = await manage.statement(tx, await account_id(tx, account), mode, currency, limit=limit)
    at.show_records(found, "ent", "There are no entries.", without=["account", "wallet"])


@books.command(name="adjust")
async def adjust(account: str, amount: str, currency: str, /, *, note: str, mode: Mode = "live", at: At) -> None:
    """Correct what is available.

    Parameters
    ----------
    account
        The account's id or name.
    amount
        What is added; begins with a minus if something is taken away (write it behind --).
    currency
        SAR, TRY, CREDIT …
    note
        Why; kept for ever.
    mode
        live or test.
    """
    async with at.office_of(account) as (office, owner):
        done = await manage.adjust(office, at.actor, owner, mode, currency, amount_of(amount), note)
    _say_entered(at, account, mode, currency, done)


@books.command(name="credit")
async def set_credit_limit(account: str, amount: str, currency: str, /, *, mode: Mode = "live", at: At) -> None:
    """Let an account owe up to an amount.

    Parameters
    ----------
    account
        The account's id or name.
    amount
        How far below zero it may go; 0 for not at all.
    currency
        SAR, TRY, CREDIT …
    mode
        live or test.
    """
    async with at.office_of(account) as (office, owner):
        await manage.set_credit_limit(office, at.actor, owner, mode, currency, amount_of(amount))
    at.say(f"{account} may owe {amount} {currency} ({mode}).", id=show("acc", owner), credit_limit=amount)


@books.command(name="verify")
async def verify_ledger(*, at: At) -> int:
    """Prove every balance from the entries, and the entries from the messages. Traffic may go on meanwhile.

    Ends with 1 and names what is wrong if anything is.
    """
    async with at.read() as tx:
        found = await manage.verify_ledger(tx)
    if not found:
        at.say("Every coin is accounted for.", discrepancies=[])
        return 0
    rows = [
        {
            "kind": each.kind,
            "account": show("acc", each.account_id),
            "wallet": show("wal", each.wallet_id),
            "message": show("msg", each.message_id) if each.message_id else "",
            "expected": format_micros(each.expected_micros),
            "found": format_micros(each.found_micros),
            "sentence": str(each),
        }
        for each in found
    ]
    if at.is_json:
        at.say("", discrepancies=rows)
    else:
        at.show(rows, "")
    return 1


@number.command(name="assign")
async def assign_number(number: str, account: str, /, *, application: str = "", at: At) -> None:
    """Let what people write to a number go to an account.

    Parameters
    ----------
    number
        The number or short code.
    account
        The account's id or name.
    application
        Only this application of it is told.
    """
    async with at.office_of(account) as (office, owner):
        client = read_id("app", application) if application else 0
        await manage.assign_number(office, at.actor, number, owner, client)
    at.say(f"{number} belongs to {account}.", number=number, account=show("acc", owner))


@number.command(name="release")
async def release_number(number: str, account: str, /, *, at: At) -> None:
    """Take a number from an account.

    Parameters
    ----------
    number
        The number or short code.
    account
        The account's id or name.
    """
    async with at.office_of(account) as (office, owner):
        await manage.release_number(office, at.actor, owner, number)
    at.say(f"{number} belongs to nobody.", number=number)


async def _application(tx: Tx, owner: int, text: str) -> int:
    """The application that is meant: the one named, or the only one. Raises `Failed`."""
    if text:
        return read_id("app", text)
    own = [each.id for each in await stored.applications(tx, owner)]
    if len(own) != 1:
        raise Failed(
            f"the account has {len(own) or 'no'} applications",
            "name one with --application" if own else "make one: berid application create ACCOUNT NAME",
        )
    return own[0]


def _show_secret(at: At, made: manage.NewToken) -> None:
    facts: dict[str, object] = {"id": show("tok", made.id)}
    if made.login:
        facts["system_id"] = made.login
    facts["secret"] = made.secret
    at.show_one(facts)
    if not at.is_json:
        sys.stderr.write("Keep the secret: it cannot be shown again.\n")


def _say_entered(at: At, account: str, mode: str, currency: str, done: manage.Entered) -> None:
    left = format_micros(done.available_micros)
    sentence = f"{account} has {left} {currency} to spend ({mode})."
    at.say(sentence, entry=show("ent", done.entry_id), available=left, currency=currency)


async def _price_list(tx: Tx, text: str) -> accounts.PriceListRecord:
    for each in await accounts.price_lists(tx):
        if text in (each.name, show("prl", each.id), str(each.id)):
            return each
    raise Failed(f"there is no price list {text!r}", "berid price list shows all")


def _price(row: PriceRow) -> dict[str, object]:
    return {
        "prefix": row.prefix,
        "price": format_micros(row.amount_micros),
        "category": row.category,
        "operator": row.operator,
        "from": moment(row.from_ms),
        "until": moment(row.until_ms),
    }


def _rules(rules: Rules) -> dict[str, object]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in msgspec.structs.asdict(rules).items()
    }
