"""Who calls, what he may spend and as whom he may send."""

from __future__ import annotations

import msgspec

from berid.base.ids import show
from berid.base.money import format_micros
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import or_none
from berid.domain.account import Scope
from berid.store import ledger


class Wallet(msgspec.Struct):
    """What there is to spend in one currency. `held` is set aside for messages on their way; `credit_limit` is how far
    `available` may go below zero."""

    currency: str
    available: str
    held: str
    spent_total: str
    credit_limit: str


class Balance(msgspec.Struct):
    """The wallets of the token's mode."""

    mode: str
    wallets: list[Wallet]


class SenderQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which sender names to list; all channels unless one is named."""

    channel: str = ""


class Sender(msgspec.Struct):
    """A name that messages may come from, once it is approved; an empty country means every country.

    `state` is draft, submitted, needs_info, approved, rejected, expired, suspended or withdrawn.
    """

    id: str
    name: str
    channel: str
    country: str
    category: str
    state: str
    expires_at: str | None


class SenderList(msgspec.Struct):
    """All sender names of the account."""

    data: list[Sender]


class MyAccount(msgspec.Struct):
    """Who pays."""

    id: str
    name: str
    state: str
    country: str
    zone: str
    language: str


class MyApplication(msgspec.Struct):
    """The client that the token belongs to."""

    id: str
    name: str
    state: str
    services: list[str]


class MyToken(msgspec.Struct):
    """The token itself, without its secret."""

    id: str
    label: str
    mode: str
    scopes: list[str]
    expires_at: str | None


class Me(msgspec.Struct):
    """Who the token is, and the address that the call came from."""

    account: MyAccount
    application: MyApplication
    token: MyToken
    address: str


async def balance(call: Call[None, None]) -> Balance:
    """GET /balance."""
    caller = call.caller
    async with call.rt.store.read() as tx:
        wallets = await ledger.wallets(tx, caller.account.id)
    return Balance(
        caller.mode,
        [
            Wallet(
                each.currency,
                format_micros(each.available_micros),
                format_micros(each.held_micros),
                format_micros(each.spent_micros),
                format_micros(each.credit_limit_micros),
            )
            for each in wallets
            if each.mode == caller.mode
        ],
    )


async def senders(call: Call[None, SenderQuery]) -> SenderList:
    """GET /senders."""
    channels = [call.query.channel] if call.query.channel else sorted(call.rt.channels)
    account_id, directory = call.caller.account.id, call.rt.directory
    return SenderList(
        [
            Sender(
                show("snd", each.id),
                each.name,
                each.channel,
                each.country,
                each.category,
                each.state.value,
                or_none(each.expires_ms),
            )
            for channel in channels
            for each in directory.senders_of(account_id, channel)
        ]
    )


async def me(call: Call[None, None]) -> Me:
    """GET /me."""
    account, application, token = call.caller.account, call.caller.application, call.caller.token
    return Me(
        MyAccount(show("acc", account.id), account.name, account.state, account.home, account.zone, account.language),
        MyApplication(show("app", application.id), application.name, application.state, sorted(application.services)),
        MyToken(show("tok", token.id), token.label, token.mode, sorted(token.scopes), or_none(token.expires_ms)),
        call.caller.address,
    )


ENDPOINTS = (
    Endpoint("GET", "/balance", balance, "What there is to spend", Balance, Scope.BALANCE),
    Endpoint("GET", "/senders", senders, "The account's sender names", SenderList, Scope.SENDERS, query=SenderQuery),
    Endpoint("GET", "/me", me, "Who the token is", Me),
)
