"""One-time passwords: the three forms of V3, their two of V4, and V4's check.

V3 has no path to check a code: it gives the code to the caller, who compares it himself. Where the rules of the account or the
application forbid that (`returns_code` off), `otp_code` is left out of the answer, and the code is checked here: by
`/otp/verify` of V4 or by the native API, with the number and no purpose.
"""

from __future__ import annotations

import logging

from berid.dialects.turkeysms import codes, webhook
from berid.dialects.turkeysms.answers import Body
from berid.dialects.turkeysms.calls import CHANNEL, Call, sender_fault
from berid.dialects.turkeysms.reading import LANG, MOBILE, SMS_TEXT, choice_of, items_of, numbers_of, text_of
from berid.dialects.turkeysms.sending import BILLING, DEFAULT_LANGUAGE, LANGUAGES, POLICIES, country_word
from berid.domain.account import Caller, Scope, check_caller
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.domain.message import Category
from berid.domain.otp import Verdict
from berid.flow.otp import SentCode, check_code, send_code
from berid.store import otp as stored
from berid.store.hot import StoreAway

log = logging.getLogger("berid.turkeysms")

DIGITS = (4, 5, 6)
DEFAULT_DIGITS_V3 = 4
DEFAULT_DIGITS_V4 = 6

PLACEHOLDERS = ("TS_CODE", "TS-CODE")
"""Where the code stands in the customer's own text: as V3 writes it, and as V4 does."""

NEW_LINE = "TS-L"
"""What customers write for a line break."""

_WORDINGS = ("en", "tr", "ar")
"""The language of our own text, by `lang`."""

_VERDICTS: dict[Verdict, str] = {
    Verdict.VERIFIED: "verified",
    Verdict.WRONG: "The verification code is wrong",
    Verdict.EXPIRED: "The verification code has expired",
    Verdict.EXHAUSTED: "There are no more attempts for this number",
    Verdict.ALREADY_VERIFIED: "The verification code was used before",
    Verdict.UNKNOWN: "No verification code was sent to this number",
}
"""Texts of our own: the provider has none, for it checks no codes."""


async def send(call: Call) -> Body:
    """`/otp/otp_get.php`, `/otp_post/add-content`: a code in our own words, from the platform's own name. `title` is ignored."""
    return await _send(call, is_detailed=False)


async def send_detailed(call: Call) -> Body:
    """`/otp_post_detailed/add-content`: a code in the customer's words and from his own name."""
    return await _send(call, is_detailed=True)


async def verify(call: Call) -> Body:
    """`/otp/verify` of V4, an addition of ours: judge what a person typed. Each call uses up one of five checks."""
    fields = call.fields
    guess = text_of(fields, "otp_code", "code").strip()
    items = items_of(fields, *MOBILE)
    caller = call.permitted(Scope.SEND_POST)
    number = await _number(items, [])
    if not guess:
        raise refused(RefusalKind.MALFORMED, "otp_code was not given", "otp_code")
    judged = await check_code(call.rt, caller, guess, number=number)
    if judged.verdict is not Verdict.VERIFIED:
        message = _VERDICTS[judged.verdict]
        return {"result": False, "result_code": codes.INCORRECT, "result_message": message, "verified": False}
    try:
        async with call.rt.store.read() as tx:
            row = await stored.find(tx, caller.application.id, judged.id)
        if row is not None:
            await webhook.tell_verified(call.rt, caller, judged.id, row.delivery_id, row.message_id, number)
    except StoreAway:
        # The code is used up, so the caller must hear that it was right; only the webhook is lost.
        log.warning("a verified code is not told", extra={"request_id": call.request.id})
    return {"result": True, "result_code": codes.QUERY_DONE, "result_message": codes.SUCCESS, "verified": True}


async def _send(call: Call, *, is_detailed: bool) -> Body:
    rt, fields = call.rt, call.fields
    default_digits = DEFAULT_DIGITS_V4 if call.is_v4 else DEFAULT_DIGITS_V3
    title = text_of(fields, "title").strip() if is_detailed else ""
    text = text_of(fields, *SMS_TEXT) if is_detailed else ""
    items = items_of(fields, *MOBILE)
    language = choice_of(fields, (0, 1, 2), DEFAULT_LANGUAGE, *LANG[::-1])
    digits = choice_of(fields, DIGITS, default_digits, "digits")
    caller = call.caller()
    # `send_code` needs a number and a wording, so what else forbids the call is looked for before it.
    service = "otp" if "otp" in caller.application.services else CHANNEL
    faults = check_caller(caller, call.sending, service)
    if is_detailed:
        fault = sender_fault(rt, caller, title, Category.OTP.value)
        faults += [fault] if fault is not None else []
        if not text:
            faults.append(Refusal(RefusalKind.CONTENT_MISSING, "no text was given", "text"))
        elif not any(placeholder in text for placeholder in PLACEHOLDERS):
            faults.append(Refusal(RefusalKind.CONTENT_INVALID, f"the text has no {PLACEHOLDERS[0]}", "text"))
    number = await _number(items, faults)
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, "{code}")
    sent = await send_code(
        rt,
        caller,
        number,
        language=_WORDINGS[language],
        digits=digits,
        sender=title,
        text=text.replace(NEW_LINE, "\n"),
        policy=POLICIES[language],
        billing=BILLING,
        scope=call.sending,
    )
    call.request.message_id = sent.accepted.message_id
    return _body(caller, sent, language)


async def _number(items: list[object], faults: list[Refusal]) -> str:
    """The one recipient. Raises `Refused` with `faults`, and with what is wrong with it."""
    usable, _ = await numbers_of(items)
    if not items:
        faults.append(Refusal(RefusalKind.RECIPIENT_MISSING, "no number was given", "mobile"))
    elif len(usable) != 1 or len(items) != 1:
        faults.append(Refusal(RefusalKind.RECIPIENT_INVALID, "give one number", "mobile"))
    if faults:
        raise Refused(*faults)
    return usable[0]


def _body(caller: Caller, sent: SentCode, language: int) -> Body:
    delivery = sent.accepted.deliveries[0]
    body: Body = {"result": True}
    if caller.account.rules.returns_code and caller.application.rules.returns_code:
        body["otp_code"] = sent.code
    return {
        **body,
        "sms_id": delivery.id,
        "number_of_sms": sent.accepted.units,
        "result_code": codes.SENT,
        "result_message": codes.TEXTS[codes.SENT],
        "sms_lang": LANGUAGES[language],
        "country": country_word(delivery.recipient),
    }
