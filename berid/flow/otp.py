"""One-time passwords: make, send, check. A code goes out through `accept` like every message, ahead of all others.

Only a keyed hash of a code is stored; the queued text is sealed and erased when the delivery is final. Five sends
and five checks for one number and purpose in ten minutes, counted in the database, so that they hold over all
processes and against any number of guesses at once.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from berid.base.phone import country_of
from berid.domain.account import Caller, Scope
from berid.domain.errors import RefusalKind, Refused, refused
from berid.domain.message import Accepted, Category, Content, Submission
from berid.domain.otp import CHECKS_MAX, DIGITS, SENDS_MAX, WINDOW_MS, Check, Verdict, new_code, wording
from berid.flow.accept import accept
from berid.flow.ports import Runtime
from berid.store import otp as codes
from berid.store.hot import StoreAway

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
    policy: str = "auto",
    billing: str = "",
    scope: Scope = Scope.SEND,
    options: dict[str, str] | None = None,
) -> SentCode:
    """Make a code and send it to `number` (international digits).

    `text` is the caller's own wording with `{code}` in it; without it the text of `language`. Without `sender` the
    platform's own is used, and needs no approval. A code sent before to this number for this `purpose` stops working.

    Raises `Refused`: OTP_LIMIT with the time to wait, CONTENT_INVALID without a place for the code, and all that
    `accept` refuses.
    Then nothing is kept. Raises `StoreAway`.
    """
    if digits not in DIGITS:
        raise refused(RefusalKind.MALFORMED, f"a code has {DIGITS[0]} to {DIGITS[-1]} digits", "digits")
    if text and "{code}" not in text:
        raise refused(RefusalKind.CONTENT_INVALID, "the text has no place for the code", "text")
    now_ms = rt.clock.now_ms()
    _check_blocks(rt, caller, number)
    code = new_code(digits)
    identifier = rt.ids.next()
    expires_ms = now_ms + rt.config.validity.otp_s * 1000
    application = caller.application
    async with rt.store.transaction() as tx:
        await codes.lock_number(tx, application.id, number, purpose)
        seen = await codes.recent(tx, application.id, number, purpose, now_ms - WINDOW_MS)
        if seen.sends >= SENDS_MAX or seen.checks_used >= CHECKS_MAX:
            wait_s = max(1.0, (seen.oldest_ms + WINDOW_MS - now_ms) / 1000)
            raise refused(RefusalKind.OTP_LIMIT, "too many codes for this number", "to", retry_after_s=wait_s)
        await codes.add(
            tx,
            {
                "id": identifier,
                "account_id": caller.account.id,
                "application_id": application.id,
                "mode": caller.mode,
                "recipient": number,
                "country": country_of(number) or "",
                "purpose": purpose,
                "digest": _digest(rt, identifier, number, purpose, code),
                "state": "open",
                "checks_left": CHECKS_MAX - seen.checks_used,
                "checks_used": 0,
                "created_ms": now_ms,
                "expires_ms": expires_ms,
            },
        )
    body = text.replace("{code}", code) if text else wording(language, caller.account.name, code)
    submission = Submission(
        channel="sms",
        sender=sender or rt.config.dispatch.otp_sender,
        recipients=[number],
        content=Content(body, policy, is_secret=True),
        category=Category.OTP,
        needs_sender=bool(sender),
        billing=billing,
        options=options or {},
    )
    try:
        accepted = await accept(rt, caller, submission, scope)
    except (Refused, StoreAway):
        async with rt.store.transaction() as tx:
            await codes.unsent(tx, application.id, identifier)
        raise
    async with rt.store.transaction() as tx:
        await codes.sent(tx, application.id, identifier, accepted.message_id, accepted.deliveries[0].id)
    return SentCode(identifier, code, accepted, expires_ms)


async def check_code(
    rt: Runtime, caller: Caller, code: str, *, otp_id: int | None = None, number: str = "", purpose: str = ""
) -> Check:
    """Judge a guess, by the code's id or by number and purpose. Each call uses up one check before the code is
    looked at.

    The right code is verified once: of any number of equal guesses at the same time one hears VERIFIED.
    """
    application_id = caller.application.id
    now_ms = rt.clock.now_ms()
    async with rt.store.transaction() as tx:
        if otp_id is not None:
            row = await codes.find(tx, application_id, otp_id)
        else:
            row = await codes.newest(tx, application_id, number, purpose)
        if row is None or row.state == "unsent":
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
    return Check(Verdict.VERIFIED, spent.checks_left, row.id)


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
