"""`/verify.php`: one-time passwords. One path sends a code, and with `activeKey` judges a guess.

Every answer is HTTP 200 and calls itself a success; what happened is told by a number, `Data.result`. Older clients read the flat
`code` and `message`, so both are written; without `returnJson` the answer is the bare number.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from berid.dialects import caller_of
from berid.dialects.reading import Unreadable
from berid.dialects.taqnyat import answers
from berid.dialects.taqnyat.calls import NAME, bearer_of
from berid.dialects.taqnyat.reading import Fields, key_of, numbers_of, text_of
from berid.dialects.web import Group, Request, Response
from berid.domain.account import Caller, Scope, check_caller
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.domain.otp import Verdict
from berid.flow.otp import check_code, send_code
from berid.flow.ports import Runtime
from berid.store import otp as codes

PATH = "/verify.php"

DIGITS = 4
"""The provider's codes have four digits, and its clients' forms have room for as many."""

REPEAT_MS = 60_000
"""A second request to send within this time is taken for a repetition of the first: result 7, and nothing is sent."""

SENT = 5
ALREADY_SENT = 7

RESULTS: dict[int, tuple[str, str]] = {
    0: ("connection failed", "فشل الاتصال"),
    1: ("invalid apiKey", "مفتاح الارسال غير صحيح"),
    3: ("Mobile number is not specified or incorrect", "رقم الجوال غير صحيح أو فارغ"),
    4: ("Your balance is not enough", "الرصيد غير كافي"),
    SENT: ("Activation code sent successfully.", "تم ارسال رمز التفعيل بنجاح"),
    6: ("unknown error", "خطأ غير معروف"),
    ALREADY_SENT: ("Activation code has been sent already.", "تم ارسال رمز التفعيل مسبقا"),
    8: ("Send attempts exceeded, use a new requestId.", "تم تجاوز عدد محاولات الارسال"),
    10: ("Activation process completed successfully.", "تمت عملية التفعيل بنجاح"),
    11: ("Activation code is incorrect.", "رمز التفعيل غير صحيح"),
    12: ("Activation attempts exhausted.", "تم استنفاد محاولات التفعيل"),
    13: ("The number is activated already.", "الرقم مفعل مسبقا"),
}
"""The provider's result codes with their texts in English and Arabic. Its 19, which forbids to verify a number again, is not
used: a person may log in twice."""

_RESULT_OF_VERDICT: dict[Verdict, int] = {
    Verdict.VERIFIED: 10,
    Verdict.WRONG: 11,
    Verdict.EXPIRED: 11,
    Verdict.UNKNOWN: 11,
    Verdict.EXHAUSTED: 12,
    Verdict.ALREADY_VERIFIED: 13,
}

_BROKEN = 6
"""What came of a request that never reached its handler, or broke in it."""

_encode = msgspec.json.Encoder().encode


async def verify(rt: Runtime, request: Request) -> Response:
    """Send a code to a number or, if there is an `activeKey`, judge that guess.

    Codes with different values of `requestId` have nothing to do with one another.
    """
    caller, fields = await _read_call(rt, request)
    service = "otp" if "otp" in caller.application.services else "sms"
    refusals = check_caller(caller, Scope.SEND, service)
    if refusals:
        raise Refused(*refusals)
    if text_of(fields, "method").lower() not in ("", "sms"):
        raise refused(RefusalKind.MALFORMED, "the method must be sms", "method")
    usable, rejected = numbers_of(fields, "numbers", caller.application.rules.lenient_numbers)
    if len(usable) != 1 or rejected:
        raise refused(RefusalKind.RECIPIENT_INVALID, "give one number", "numbers")
    purpose = key_of(fields, "requestId")
    guess = text_of(fields, "activeKey").strip()
    if guess:
        judged = await check_code(rt, caller, guess, number=usable[0], purpose=purpose)
        return _answer(request, _RESULT_OF_VERDICT[judged.verdict], judged.id)
    return await _send(rt, request, caller, fields, usable[0], purpose)


async def _read_call(rt: Runtime, request: Request) -> tuple[Caller, Fields]:
    """As `calls.read_call`, but the token is looked for in `apiKey` as well, and the fields are read in any case: they say in
    which form the answer must be."""
    unreadable: Unreadable | None = None
    fields: Fields = {}
    try:
        fields = await request.fields()
    except Unreadable as error:
        unreadable = error
    token = bearer_of(request) or fields.get("apiKey") or fields.get("bearerTokens")
    caller = caller_of(rt, token if isinstance(token, str) else "", request, NAME)
    if unreadable is not None:
        raise unreadable
    return caller, fields


async def _send(rt: Runtime, request: Request, caller: Caller, fields: Fields, number: str, purpose: str) -> Response:
    now_ms = rt.clock.now_ms()
    async with rt.store.read() as tx:
        last = await codes.newest(tx, caller.application.id, number, purpose)
    if last is not None and last.state == "open" and now_ms - last.created_ms < REPEAT_MS:
        return _answer(request, ALREADY_SENT, last.id)
    sent = await send_code(
        rt,
        caller,
        number,
        purpose=purpose,
        language=text_of(fields, "lang") or "ar",
        digits=DIGITS,
        sender=text_of(fields, "sender").strip(),
    )
    request.message_id = sent.accepted.message_id
    return _answer(request, SENT, sent.id)


def _answer(
    request: Request, result: int, code_id: int = 0, headers: Sequence[tuple[bytes, bytes]] = (), status: int = 200
) -> Response:
    """The answer in the form that was asked for. `code_id` 0: there is no code that this is about."""
    if request.seen.get("returnJson") in (None, "", 0, "0", False):
        return Response(status, b"%d" % result, b"text/plain; charset=utf-8", headers)
    english, arabic = RESULTS[result]
    data = {"id": str(code_id or ""), "result": result, "MessageAr": arabic, "MessageEn": english}
    body = {**answers.envelope(data), "code": result, "message": english}
    return Response(status, _encode(body), headers=headers)


def _refuse(request: Request, refusals: Sequence[Refusal]) -> Response:
    refusal = answers.first_of(refusals)
    return _answer(request, answers.REFUSALS[refusal.kind].result, headers=answers.marks_of(refusal))


def _fail(request: Request, status: int) -> Response:
    return answers.fail(request, status) if status == 405 else _answer(request, _BROKEN, status=status)


GROUP = Group("taqnyat verify", (PATH,), _refuse, _fail)
