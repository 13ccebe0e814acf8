"""`/system/status`, the balance and the sender names."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from berid.base.money import format_micros
from berid.dialects.taqnyat import answers
from berid.dialects.taqnyat.calls import read_permitted
from berid.dialects.taqnyat.sms import CHANNEL
from berid.dialects.web import Request, Response
from berid.domain.account import Account, Scope, SenderName, SenderState
from berid.domain.errors import RefusalKind, refused
from berid.flow.ports import Runtime
from berid.store import incidents, ledger
from berid.store.hot import StoreAway

NEVER = "31-12-2099"
"""The last day of an account whose token does not end: clients want a date."""

_SENDER_STATUS: dict[SenderState, str] = {
    SenderState.DRAFT: "pending",
    SenderState.SUBMITTED: "pending",
    SenderState.NEEDS_INFO: "pending",
    SenderState.APPROVED: "active",
    SenderState.REJECTED: "rejected",
    SenderState.EXPIRED: "expired",
    SenderState.SUSPENDED: "inactive",
    SenderState.WITHDRAWN: "inactive",
}
"""The word for every state of a sender name."""

_STEP_MICROS = 1_000
"""The balance has three decimals; what is less is left out, so that nobody sees more than he has."""

_encode = msgspec.json.Encoder().encode


async def status(rt: Runtime, request: Request) -> Response:
    """`GET /system/status`, for anyone: the services that an open incident names, `none` if there is none."""
    try:
        async with rt.store.read() as tx:
            found = await incidents.open_incidents(tx)
    except StoreAway:
        found = [("API", "Messages cannot be taken at the moment")]
    service, description = "none", "All Services are Operational"
    if found:
        service = ",".join(dict.fromkeys(name for name, _ in found))
        description = ", ".join(title for _, title in found)
    return Response(200, _encode({"statusCode": 200, "status": {"service": service, "description": description}}))


async def balance(rt: Runtime, request: Request) -> Response:
    """`GET /account/balance`: what is left to spend by tokens of this kind, live or test.

    An account may have wallets in several currencies; the one that this API speaks of is SAR if there is one.
    """
    caller, _ = await read_permitted(rt, request, Scope.BALANCE, None)
    async with rt.store.read() as tx:
        wallets = [each for each in await ledger.wallets(tx, caller.account.id) if each.mode == caller.mode]
    if not wallets:
        raise refused(RefusalKind.BALANCE_ZERO, "the account has no wallet")
    wallet = next((each for each in wallets if each.currency == answers.CURRENCY), wallets[0])
    ends_ms = caller.token.expires_ms
    zone = rt.config.dialects.taqnyat_zone
    ends = datetime.fromtimestamp(ends_ms / 1000, UTC).astimezone(zone).strftime("%d-%m-%Y") if ends_ms else NEVER
    available_micros = wallet.available_micros // _STEP_MICROS * _STEP_MICROS
    return Response(
        200,
        _encode(
            {
                "statusCode": 200,
                "accountStatus": caller.account.state,
                "accountExpiryDate": ends,
                "balance": format_micros(available_micros, 3),
                "currency": wallet.currency,
            }
        ),
    )


async def senders(rt: Runtime, request: Request) -> Response:
    """`GET /v1/messages/senders`: the account's names for SMS, with HTTP status 201 as the provider has it, unless it is set
    otherwise."""
    caller, _ = await read_permitted(rt, request, Scope.SENDERS, CHANNEL)
    now_ms = rt.clock.now_ms()
    names = rt.directory.senders_of(caller.account.id, CHANNEL)
    shown = [
        {
            "senderName": name.name,
            "status": _status_of(name, now_ms),
            "destination": _destination_of(name, caller.account),
        }
        for name in names
    ]
    code = 200 if rt.config.dialects.taqnyat_senders_answer_200 else 201
    return Response(code, _encode({"statusCode": code, "senders": shown}))


def _status_of(name: SenderName, now_ms: int) -> str:
    if name.state is SenderState.APPROVED and name.expires_ms and name.expires_ms <= now_ms:
        return _SENDER_STATUS[SenderState.EXPIRED]
    return _SENDER_STATUS[name.state]


def _destination_of(name: SenderName, account: Account) -> str:
    """`KSA` or `international`, the provider's two words; a name for every country is listed under the account's own."""
    return "KSA" if (name.country or account.home) == "SA" else "international"
