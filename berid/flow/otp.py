"""One-time passwords: make, send, check. A code goes out through `accept` like every message, ahead of all others.

Only a keyed hash of a code is stored; the queued text is sealed and erased when the delivery is final. Five sends
and five checks for one number and purpose in ten minutes, counted in the database, so that they hold over all
processes and against any number of guesses at once.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from berid.base.ids import show
from berid.base.phone import country_of
from berid.domain.account import Caller, Scope
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.domain.message import Accepted, Category, Content, Submission
from berid.domain.otp import DIGITS, WINDOW_MS, Check, Code, Verdict, new_code, why_limited, wording
from berid.domain.report import VERIFIED_EVENT, VERIFIED_KINDS
from berid.flow.accept import accept, explain
from berid.flow.ports import Runtime
from berid.store import Tx, callbacks
from berid.store import otp as codes

PLACEHOLDER = "{code}"
"""Where the code stands in a caller's own wording, unless his dialect has another word for it."""

PREFIX_DIGITS = 7
"""Numbers that share this many first digits are taken for one block: fraud walks through a block number by number."""

PER_PREFIX_A_MINUTE = 30
"""Codes that one application may send into one block in a minute, unless its rules say otherwise."""


@dataclass(frozen=True, slots=True)
class SentCode:
    """A code on its way. `code` is for the caller's contract only; it is kept nowhere."""

    id: int
    code: str
    accepted: Accepted
    expires_ms: int


async def send_code(
    rt: Runtime,
    caller: Caller,
    number: str,
    *,
    purpose: str = "",
    language: str = "en",
    digits: int = 6,
    sender: str = "",
    text: str = "",
    placeholders: Sequence[str] = (PLACEHOLDER,),
    policy: str = "auto",
    billing: str = "",
    scope: Scope = Scope.SEND,
    faults: Sequence[Refusal] = (),
    options: dict[str, str] | None = None,
) -> SentCode:
    """Make a code and send it to `number` (international digits; "" stands for what could not be read as one).

    `text` is the caller's own wording, in which each of `placeholders` stands for the code; without it the text of
    `language`. Without `sender` the platform's own is used, and needs no approval. A code sent before to this number
    for this `purpose` stops working. `faults` are what the dialect has found wrong itself: then nothing is sent.

    Raises `Refused`, with everything that can be seen: OTP_LIMIT with the time to wait, CONTENT_INVALID without a
    place for the code, `faults`, and all that `accept` refuses. Then nothing is kept. Raises `StoreAway`.
    """
    if digits not in DIGITS:
        raise refused(RefusalKind.MALFORMED, f"a code has {DIGITS[0]} to {DIGITS[-1]} digits", "digits")
    code = new_code(digits)
    body = _fill(text, placeholders, code) if text else wording(language, caller.account.name, code)
    if body == text:
        faults = [*faults, Refusal(RefusalKind.CONTENT_INVALID, "the text has no place for the code", "text")]
    now_ms = rt.clock.now_ms()
    identifier = rt.ids.next()
    expires_ms = now_ms + rt.config.validity.otp_s * 1000
    submission = Submission(
        channel="sms",
        sender=sender or rt.config.dispatch.otp_sender,
        recipients=[number] if number else [],
        content=Content(body, policy, is_secret=True),
        category=Category.OTP,
        rejected=[] if number else [number],
        needs_sender=bool(sender),
        billing=billing,
        faults=faults,
        options=options or {},
        code=Code(identifier, number, purpose, _digest(rt, identifier, number, purpose, code), expires_ms),
    )
    if faults or not number:
        raise Refused(*await explain(rt, caller, submission, scope))
    try:
        _check_blocks(rt, caller, number)
        accepted = await accept(rt, caller, submission, scope)
    except Refused as error:
        limited = _limits_among(error) or await _why_limited(rt, caller, number, purpose, now_ms)
        if not limited:
            raise
        # Waiting does not help against what else may be wrong, and some dialects tell that first.
        raise Refused(*limited, *await explain(rt, caller, submission, scope)) from None
    return SentCode(identifier, code, accepted, expires_ms)


def _limits_among(error: Refused) -> list[Refusal]:
    return [refusal for refusal in error.refusals if refusal.kind is RefusalKind.OTP_LIMIT]


async def _why_limited(rt: Runtime, caller: Caller, number: str, purpose: str, now_ms: int) -> list[Refusal]:
    """Whether a code that was refused for another reason would have been one too many as well."""
    async with rt.store.read() as tx:
        seen = await codes.recent(tx, caller.application.id, number, purpose, now_ms - WINDOW_MS)
    limited = why_limited(seen, now_ms)
    return [limited] if limited is not None else []


def _fill(text: str, placeholders: Sequence[str], code: str) -> str:
    for placeholder in placeholders:
        text = text.replace(placeholder, code)
    return text


async def check_code(
    rt: Runtime, caller: Caller, code: str, *, otp_id: int | None = None, number: str = "", purpose: str = ""
) -> Check:
    """Judge a guess, by the code's id or by number and purpose. Each call uses up one check before the code is
    looked at. A right one is told, in the same transaction, to endpoints whose contract has an event for it.

    The right code is verified once: of any number of equal guesses at the same time one hears VERIFIED.
    """
    application_id = caller.application.id
    now_ms = rt.clock.now_ms()
    async with rt.store.transaction() as tx:
        if otp_id is not None:
            row = await codes.find(tx, application_id, otp_id)
        else:
            row = await codes.newest(tx, application_id, number, purpose)
        if row is None:
            return Check(Verdict.UNKNOWN, 0)
        spent = await codes.spend_check(tx, application_id, row.id, now_ms)
        if spent is None:
            row = await codes.find(tx, application_id, row.id)
            assert row is not None
            return Check(_why_not(row.state, row.checks_left), row.checks_left, row.id)
        guess = _digest(rt, row.id, row.recipient, row.purpose, code)
        if not hmac.compare_digest(guess, spent.digest):
            verdict = Verdict.WRONG if spent.checks_left else Verdict.EXHAUSTED
            return Check(verdict, spent.checks_left, row.id)
        await codes.verify(tx, application_id, row.id, now_ms)
        await _tell_verified(tx, rt, row, now_ms)
    return Check(Verdict.VERIFIED, spent.checks_left, row.id)


async def _tell_verified(tx: Tx, rt: Runtime, row: Any, now_ms: int) -> None:
    """Write the event for every endpoint whose contract has it. The notifier finds it within a quarter of a second."""
    payload = msgspec.json.encode(
        {
            "type": VERIFIED_EVENT,
            "delivery_id": show("dlv", row.delivery_id),
            "message_id": show("msg", row.message_id),
            "otp_id": show("otp", row.id),
            "state": "verified",
            "to": row.recipient,
            "mode": row.mode,
        }
    ).decode()
    for endpoint in rt.directory.endpoints.get(row.account_id, ()):
        if endpoint.kind in VERIFIED_KINDS and endpoint.hears(row.application_id):
            callback_id = rt.ids.next()
            told = (row.account_id, callback_id, endpoint.id, VERIFIED_EVENT, payload, now_ms, row.delivery_id)
            await callbacks.add_callback(tx, *told)
            await callbacks.tell_again(tx, row.account_id, endpoint.lane, [callback_id], now_ms)


def _why_not(state: str, checks_left: int) -> Verdict:
    if state == "verified":
        return Verdict.ALREADY_VERIFIED
    if checks_left <= 0:
        return Verdict.EXHAUSTED
    return Verdict.EXPIRED


def _check_blocks(rt: Runtime, caller: Caller, number: str) -> None:
    """Limits against pumping: by block of numbers, by country, by the caller's address. Counted per process, in
    memory."""
    rules, application_id, now_s = caller.application.rules, caller.application.id, rt.clock.ticks_s()
    country = country_of(number) or ""
    for key, per_minute in (
        (("otp", application_id, number[:PREFIX_DIGITS]), rules.otp_prefix_per_minute or PER_PREFIX_A_MINUTE),
        (("otp", application_id, country), rules.otp_country_per_minute),
        (("otp", application_id, caller.address), rules.otp_address_per_minute),
    ):
        if not per_minute:
            continue
        wait_s = rt.limits.take(key, now_s, 1, 0, per_minute)
        if wait_s:
            raise refused(RefusalKind.OTP_LIMIT, "too many codes at once", "to", retry_after_s=wait_s)


def _digest(rt: Runtime, identifier: int, number: str, purpose: str, code: str) -> str:
    return rt.vault.digest("otp", str(identifier), number, purpose, code)
