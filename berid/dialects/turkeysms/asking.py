"""Asking: is the key good, what became of a message, what is left, which names are there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import func, select

from berid.base.money import CREDIT, MICROS, format_micros
from berid.base.phone import place_of
from berid.dialects.turkeysms import codes
from berid.dialects.turkeysms.answers import Body
from berid.dialects.turkeysms.calls import CHANNEL, Call
from berid.dialects.turkeysms.reading import id_of, text_of
from berid.dialects.turkeysms.sending import INVALID_OPTION
from berid.domain.account import Caller, Scope, SenderName, SenderState
from berid.domain.errors import RefusalKind, refused
from berid.domain.message import State
from berid.flow.cancel import RESEND_OPTION
from berid.flow.ports import Runtime
from berid.store import Tx, ledger, messages
from berid.store.messages import MessageRecord
from berid.store.tables import delivery

LIRA = "TRY"
"""The currency of the wallet that pays for numbers abroad."""

OPERATORS = {"Turkcell": "turkcell_numbers", "Vodafone": "vodafone_numbers", "Turk Telekom": "turktelekom_numbers"}
"""The operators that the report counts, with the names of the counts."""

_PREFIX_DIGITS = 6
"""What a number's operator is told by: 90, the operator's three digits, and one more where Vodafone shares them."""

_BLOCKED = {kind.value for kind in (RefusalKind.SUPPRESSED, RefusalKind.NO_OPT_IN, RefusalKind.QUIET_HOURS)}
"""Why numbers are blocked: refused when the message was accepted, or later, when it was about to leave."""

_CENT_MICROS = MICROS // 100

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
"""The word for every state of a sender name. Ours: no sample of the provider's list is known."""

_decode_refused = msgspec.json.Decoder(list[tuple[str, str]]).decode
_decode_options = msgspec.json.Decoder(dict[str, str]).decode


async def login(call: Call) -> Body:
    """`/authenticate/login`: whose key this is."""
    account = call.permitted().account
    return {
        "result": True,
        "result_code": codes.LOGIN_DONE,
        "result_message": codes.SUCCESS,
        "user_id": str(account.id),
        "account_name": account.name,
    }


# ── Messages ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Summary:
    """What became of the deliveries of a message: how many are at each code, what they cost, who carries them."""

    by_code: Counter[str]
    blocked: int
    units: int
    by_operator: Counter[str]


async def status(call: Call) -> Body:
    """`/sms-durumu/sms_durumu.php`: what became of one message. `sms_id` is what a sending answered, or a list's `rapor_id`.

    A list counts as received when everybody has received it, as not yet received while that may still change.
    """
    identifier = id_of(call.fields, "sms_id", "rapor_id", "raporid")
    caller, rt = call.permitted(Scope.STATUS), call.rt
    _check_given(identifier)
    account_id, mode = caller.account.id, caller.mode
    async with rt.store.read() as tx:
        found = await messages.find_delivery(tx, account_id, mode, identifier)
        if found is None:
            owner = _known(await messages.find(tx, account_id, mode, identifier))
            first = (await messages.first_deliveries(tx, account_id, [owner]))[owner.id][:1]
            if len(first) != owner.total:
                sent_ms = first[0].sent_ms if first else 0
                return _list_status(rt, owner, await _summary(tx, account_id, owner), sent_ms)
            found = first[0], owner
    one, owner = found
    place = place_of(one.recipient)
    code = codes.STATUS[State(one.state)]
    balance = _price(owner.currency, one.units, one.price_micros)
    operator = (place.operator if place else None) or ""
    return _status_body(rt, owner, one.sent_ms, code, balance, operator)


def _list_status(rt: Runtime, owner: MessageRecord, summary: _Summary, sent_ms: int) -> Body:
    code = codes.NOT_YET
    if not summary.by_code[codes.NOT_YET]:
        code = codes.NOT_RECEIVED if summary.by_code[codes.NOT_RECEIVED] else codes.SENT
    return _status_body(rt, owner, sent_ms, code, _price(owner.currency, summary.units, owner.cost_micros), "")


def _status_body(rt: Runtime, owner: MessageRecord, sent_ms: int, code: str, balance: str, operator: str) -> Body:
    """The answer about one message; one that has not left shows when it is planned for, or when it was taken."""
    at_ms = sent_ms or owner.due_ms or owner.created_ms
    at = datetime.fromtimestamp(at_ms / 1000, rt.config.dialects.turkeysms_zone)
    return {
        "result": True,
        "sender_id": owner.sender,
        "date_of_sending": at.strftime("%Y-%m-%d"),
        "time_of_sending": at.strftime("%H:%M:%S"),
        "sms_status": codes.status_text(code),
        "sms_status_code": code,
        "sms_balance": balance,
        "operator": operator,
        "result_code": codes.STATUS_DONE,
    }


def _price(currency: str, units: int, micros: int) -> str:
    if currency == LIRA:
        return f"{format_micros(micros, 2)} TL"
    return f"{units} SMS"


async def report(call: Call) -> Body:
    """`/rapor/temel` and `/rapor/get/{id}`: what became of a message to many numbers, counted.

    `numbers_not_received` counts those still under way as well, so that received, not received and blocked are everybody
    whom the message was for; `invalid_numbers` are beside them. `rapor_id` of a list, or the `sms_id` of a single message.
    """
    fields = {"raporid": call.request.params["id"]} if "id" in call.request.params else call.fields
    identifier = id_of(fields, "raporid", "rapor_id", "sms_id")
    caller = call.permitted(Scope.STATUS)
    _check_given(identifier)
    account_id, mode = caller.account.id, caller.mode
    async with call.rt.store.read() as tx:
        owner = await messages.find(tx, account_id, mode, identifier)
        if owner is None:
            found = await messages.find_delivery(tx, account_id, mode, identifier)
            owner = _known(found[1] if found else None)
        summary = await _summary(tx, account_id, owner)
    turned_away = len(_decode_refused(owner.refused)) if owner.refused else 0
    options = _decode_options(owner.options) if owner.options else {}
    invalid = "0" if RESEND_OPTION in options else options.get(INVALID_OPTION, "0")
    return {
        "result": True,
        "numbers_received": summary.by_code[codes.SENT],
        "numbers_not_received": owner.total - summary.by_code[codes.SENT] - summary.blocked,
        "invalid_numbers": int(invalid),
        "blocked_numbers": turned_away + summary.blocked,
        **{name: summary.by_operator[operator] for operator, name in OPERATORS.items()},
        "result_code": codes.STATUS_DONE,
    }


async def _summary(tx: Tx, account_id: int, owner: MessageRecord) -> _Summary:
    """Counted by the database: what comes here is a row for each prefix and state, however long the list."""
    prefix = func.substr(delivery.c.recipient, 1, _PREFIX_DIGITS)
    rows = await tx.execute(
        select(prefix, delivery.c.state, delivery.c.reason, func.count(), func.sum(delivery.c.units))
        .where(
            delivery.c.id.between(owner.first_id, owner.last_id),
            delivery.c.message_id == owner.id,
            delivery.c.account_id == account_id,
        )
        .group_by(prefix, delivery.c.state, delivery.c.reason)
    )
    summary = _Summary(Counter(), 0, 0, Counter())
    for digits, state, reason, count, units in rows:
        summary.by_code[codes.STATUS[State(state)]] += count
        summary.units += int(units)
        if reason in _BLOCKED and state == State.FAILED.value:
            summary.blocked += count
        place = place_of(digits)
        if place is not None and place.country_iso2 == "TR" and place.operator:
            summary.by_operator[place.operator] += count
    return summary


def _check_given(identifier: int) -> None:
    if not identifier:
        raise refused(RefusalKind.NOT_FOUND, codes.TEXTS["TS-1052"], "sms_id")


def _known(owner: MessageRecord | None) -> MessageRecord:
    if owner is None:
        raise refused(RefusalKind.NOT_FOUND, "There is no message with this ID", "sms_id")
    return owner


# ── The account ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def balance(call: Call) -> Body:
    """`/bakiye_sorgulama/add-content`: what is left. The key is echoed, as the provider does; it is in no log of ours."""
    caller = call.permitted(Scope.BALANCE)
    count, lira = await left(call.rt, caller)
    return {
        "result": True,
        "result_code": codes.QUERY_DONE,
        "result_message": codes.SUCCESS,
        "api_key": text_of(call.fields, "api_key").strip(),
        "local_balance_sms": count,
        "international_balance_tl": lira,
    }


async def left(rt: Runtime, caller: Caller) -> tuple[int, str]:
    """(messages left inside Turkey, lira left for other countries) for keys of this kind, live or test.

    What is less than a message, or than a hundredth of a lira, is left out: nobody sees more than he has.
    """
    async with rt.store.read() as tx:
        found = await ledger.wallets(tx, caller.account.id)
    micros = {wallet.currency: wallet.available_micros for wallet in found if wallet.mode == caller.mode}
    lira_micros = micros.get(LIRA, 0) // _CENT_MICROS * _CENT_MICROS
    return micros.get(CREDIT, 0) // MICROS, format_micros(lira_micros, 2)


async def senders(call: Call) -> Body:
    """`/senderid_sorgulama/add-content`: the account's names for SMS.

    The provider has one right for balance and names; a key of ours may have either.
    """
    caller = call.permitted(Scope.BALANCE, Scope.SENDERS)
    now_ms = call.rt.clock.now_ms()
    names = call.rt.directory.senders_of(caller.account.id, CHANNEL)
    return {
        "result": True,
        "result_code": codes.QUERY_DONE,
        "result_message": codes.SUCCESS,
        "sender_ids": [{"sender_id": name.name, "status": _status_of(name, now_ms)} for name in names],
    }


def _status_of(name: SenderName, now_ms: int) -> str:
    if name.state is SenderState.APPROVED and name.expires_ms and name.expires_ms <= now_ms:
        return _SENDER_STATUS[SenderState.EXPIRED]
    return _SENDER_STATUS[name.state]
