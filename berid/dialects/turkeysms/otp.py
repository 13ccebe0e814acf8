"""One-time passwords: the three forms of V3, their two of V4, and V4's check.

V3 has no path to check a code: it gives the code to the caller, who compares it himself. Where the rules of the account or the
application forbid that (`returns_code` off), `otp_code` is left out of the answer, and the code is checked here: by
`/otp/verify` of V4 or by the native API, with the number and no purpose.
"""

from __future__ import annotations

from berid.dialects.turkeysms import codes
from berid.dialects.turkeysms.answers import Body
from berid.dialects.turkeysms.calls import Call
from berid.dialects.turkeysms.reading import LANG, MOBILE, SMS_TEXT, choice_of, items_of, numbers_of, text_of
from berid.dialects.turkeysms.sending import DEFAULT_LANGUAGE, LANGUAGES, POLICIES, billing_of, country_word
from berid.domain.account import Caller, Scope
from berid.domain.errors import Refusal, RefusalKind, refused
from berid.domain.otp import Verdict
from berid.flow.otp import SentCode, check_code, send_code

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
    number = await _number(items)
    if not number:
        kind = RefusalKind.RECIPIENT_INVALID if items else RefusalKind.RECIPIENT_MISSING
        raise refused(kind, "give one number", "mobile")
    if not guess:
        raise refused(RefusalKind.MALFORMED, "otp_code was not given", "otp_code")
    judged = await check_code(call.rt, caller, guess, number=number)
    if judged.verdict is not Verdict.VERIFIED:
        message = _VERDICTS[judged.verdict]
        return {"result": False, "result_code": codes.INCORRECT, "result_message": message, "verified": False}
    return {"result": True, "result_code": codes.QUERY_DONE, "result_message": codes.SUCCESS, "verified": True}


async def _send(call: Call, *, is_detailed: bool) -> Body:
    fields = call.fields
    default_digits = DEFAULT_DIGITS_V4 if call.is_v4 else DEFAULT_DIGITS_V3
    title = text_of(fields, "title").strip() if is_detailed else ""
    text = text_of(fields, *SMS_TEXT) if is_detailed else ""
    items = items_of(fields, *MOBILE)
    language = choice_of(fields, (0, 1, 2), DEFAULT_LANGUAGE, *LANG[::-1])
    digits = choice_of(fields, DIGITS, default_digits, "digits")
    caller = call.caller()
    faults: list[Refusal] = []
    if not items:
        faults.append(Refusal(RefusalKind.RECIPIENT_MISSING, "no number was given", "mobile"))
    if is_detailed and not title:
        faults.append(Refusal(RefusalKind.SENDER_MISSING, "no sender was given", "title"))
    if is_detailed and not text:
        faults.append(Refusal(RefusalKind.CONTENT_MISSING, "no text was given", "text"))
    sent = await send_code(
        call.rt,
        caller,
        await _number(items),
        language=_WORDINGS[language],
        digits=digits,
        sender=title,
        text=text.replace(NEW_LINE, "\n"),
        placeholders=PLACEHOLDERS,
        policy=POLICIES[language],
        billing=billing_of(call.rt),
        scope=call.sending,
        faults=faults,
    )
    call.request.message_id = sent.accepted.message_id
    return _body(caller, sent, language)


async def _number(items: list[object]) -> str:
    """The one recipient, "" for none, and for more or less than one."""
    usable, _ = await numbers_of(items)
    return usable[0] if len(usable) == 1 and len(items) == 1 else ""


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
