"""The provider's answers: the bytes of every yes and of every no, in the two styles that its clients know.

REST paths (`/v1`, `/account`, `/system`) answer `{"statusCode": …, "message": …}` with the HTTP status of that code. The `.php`
paths answer an envelope in which `status` is always 1 and `ResponseStatus` tells success from failure; failures are HTTP 400
with a code and a text in two languages. Source: the provider's API reference and what its public clients are written against.
Some texts are misspelt there; clients compare them, so they stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from berid.base.money import format_micros
from berid.dialects.web import Group, Request, Response
from berid.domain.errors import Refusal, RefusalKind
from berid.domain.message import Accepted

CURRENCY = "SAR"
"""What an answer without a price names, so that no client finds a null."""

_encode = msgspec.json.Encoder().encode

_CREDENTIALS = "invalid credentials information"
_AGAIN = "SMS-API not responding , please try again"
_STOPPED = "Sending SMS stopped from support"
_COUNTRY = "this country Not authorized to using the API"
_NUMBERS = "Mobile(s) number(s) is not specified or incorrect"


@dataclass(frozen=True, slots=True)
class Words:
    """What the caller hears for one kind of refusal.

    On REST paths `status` and `text`; a text of "" means the refusal's own sentence, which only we can give. On `/voiceSend.php`
    and `/mailSend.php` the error with this `code`, on `/verify.php` this `result`.
    """

    status: int
    text: str
    code: int
    result: int


REFUSALS: dict[RefusalKind, Words] = {
    RefusalKind.TOKEN_MISSING: Words(401, _CREDENTIALS, 104, 1),
    RefusalKind.TOKEN_INVALID: Words(401, _CREDENTIALS, 104, 1),
    RefusalKind.SERVICE_MISSING: Words(401, _CREDENTIALS, 104, 1),
    RefusalKind.SCOPE_MISSING: Words(401, _CREDENTIALS, 104, 1),
    RefusalKind.ACCOUNT_INACTIVE: Words(400, _STOPPED, 101, 6),
    RefusalKind.API_OFF: Words(400, "sending by API is disabled", 101, 6),
    RefusalKind.ADDRESS_NOT_ALLOWED: Words(400, "this ip Not authorized to using the API", 102, 6),
    RefusalKind.COUNTRY_NOT_ALLOWED: Words(400, _COUNTRY, 103, 6),
    RefusalKind.INTERNATIONAL_OFF: Words(400, _COUNTRY, 103, 6),
    RefusalKind.MALFORMED: Words(400, "", 17, 6),
    RefusalKind.NOT_FOUND: Words(422, "deleteId is not valid", 101, 6),
    RefusalKind.NOT_CANCELLABLE: Words(422, "deleteId is not valid", 101, 6),
    RefusalKind.SENDER_MISSING: Words(400, "Sender Name is not specified", 14, 6),
    RefusalKind.SENDER_UNKNOWN: Words(400, "Sender Name is not accepted", 14, 6),
    RefusalKind.SENDER_INACTIVE: Words(400, "Sender Name not active .", 14, 6),
    RefusalKind.SENDER_EXPIRED: Words(400, "Sender Name is expierd", 14, 6),
    RefusalKind.RECIPIENTS_TOO_MANY: Words(400, "The number of recipients is greater than 1000", 15, 3),
    RefusalKind.RECIPIENT_MISSING: Words(400, _NUMBERS, 15, 3),
    RefusalKind.RECIPIENT_INVALID: Words(400, _NUMBERS, 15, 3),
    RefusalKind.CONTENT_MISSING: Words(400, "Message text is not specified", 17, 6),
    RefusalKind.CONTENT_INVALID: Words(400, "", 17, 6),
    RefusalKind.SCHEDULE_DATE_INVALID: Words(400, "scheduledDatetime is not valid", 17, 6),
    RefusalKind.SCHEDULE_TIME_INVALID: Words(400, "scheduledDatetime is not valid", 17, 6),
    RefusalKind.SCHEDULE_PAST: Words(400, "scheduledDatetime is in the past", 17, 6),
    RefusalKind.SUPPRESSED: Words(400, _STOPPED, 101, 6),
    RefusalKind.NO_OPT_IN: Words(400, _STOPPED, 101, 6),
    RefusalKind.QUIET_HOURS: Words(400, _STOPPED, 101, 6),
    RefusalKind.NO_ROUTE: Words(400, _STOPPED, 101, 6),
    RefusalKind.NO_PRICE: Words(400, _STOPPED, 101, 6),
    RefusalKind.IDEMPOTENCY_CONFLICT: Words(400, "smsId was used before with another message", 101, 6),
    RefusalKind.OTP_LIMIT: Words(400, _STOPPED, 101, 8),
    RefusalKind.RATE_LIMIT: Words(400, _AGAIN, 101, 0),
    RefusalKind.BALANCE_ZERO: Words(400, "Your balance is 0", 2, 4),
    RefusalKind.BALANCE_SHORT: Words(400, "Your balance is not enough", 3, 4),
    RefusalKind.SPEND_CAP: Words(400, _STOPPED, 101, 6),
    RefusalKind.WRONG_STATE: Words(400, _STOPPED, 101, 6),
    RefusalKind.SELF_APPROVAL: Words(400, _STOPPED, 101, 6),
    RefusalKind.STORE_AWAY: Words(400, _AGAIN, 101, 0),
}
"""The words for every kind, and by their order which of several refusals the caller hears: gates before content before money.

Kinds for which the provider has no words: "please try again" only where the same request may soon be accepted, since it
is the one text that clients retry by themselves.
"""

_RANK = {kind: rank for rank, kind in enumerate(REFUSALS)}

_FAILURES = {
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "The request is too large",
    500: _AGAIN,
}


def first_of(refusals: Sequence[Refusal]) -> Refusal:
    """The one of several refusals that the caller hears."""
    return min(refusals, key=lambda refusal: _RANK[refusal.kind])


def marks_of(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """Headers that tell the true kind, where the provider's words are coarser."""
    marks = [(b"x-berid-code", refusal.kind.value.encode())]
    if refusal.retry_after_s:
        marks.append((b"retry-after", b"%d" % -(-refusal.retry_after_s // 1)))
    return marks


def listed(numbers: Sequence[str]) -> str:
    """A list as the provider writes it: a text in brackets, with a comma after every item."""
    return f"[{','.join(numbers)},]" if numbers else "[]"


def say(status: int, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> Response:
    """The REST paths' answer in words: `{"statusCode": …, "message": …}`."""
    return Response(status, _encode({"statusCode": status, "message": message}), headers=headers)


def sent(accepted: Accepted, rejected: Sequence[str]) -> Response:
    """The answer to an accepted SMS; `rejected` are those recipients that are no number, as the caller wrote them.

    The two lists are texts in which a comma follows every number. `cost` is a number, `msgLength` the parts of the text. Numbers
    that `accept` has turned away are listed as rejected too; a header tells why the first one was.
    """
    numbers = ",".join([delivery.recipient for delivery in accepted.deliveries])
    headers: Sequence[tuple[bytes, bytes]] = ()
    if accepted.refused:
        rejected = [*rejected, *(number for number, _ in accepted.refused)]
        headers = marks_of(accepted.refused[0][1])
    return Response(
        201,
        b'{"statusCode":201,"messageId":%d,"cost":%b,"currency":"%b","totalCount":%d,"msgLength":%d,'
        b'"accepted":"[%b]","rejected":%b}'
        % (
            accepted.message_id,
            format_micros(accepted.cost_micros).encode(),
            (accepted.currency or CURRENCY).encode(),
            accepted.total,
            accepted.parts,
            f"{numbers},".encode() if numbers else b"",
            _encode(listed(rejected)) if rejected else b'"[]"',
        ),
        headers=headers,
    )


def _refuse(request: Request, refusals: Sequence[Refusal]) -> Response:
    refusal = first_of(refusals)
    words = REFUSALS[refusal.kind]
    return say(words.status, words.text or refusal.detail, marks_of(refusal))


def fail(request: Request, status: int) -> Response:
    """What never came to a handler, or broke in it."""
    return say(status, _FAILURES[status])


REST = Group("taqnyat", ("/v1", "/account", "/system"), _refuse, fail)
"""The provider's REST paths."""


# ── The .php paths ────────────────────────────────────────────────────────────────────────────────────────────────────

Texts = dict[int, tuple[str, str]]
"""A service's codes, each with its text in English and Arabic."""

_COMMON: Texts = {
    2: ("Your balance is 0", "الرصيد = 0"),
    3: ("Your balance is not enough", "الرصيد غير كافي"),
    101: ("sending by API is disabled", "الارسال باستخدام بوابات الارسال معطل"),
    102: ("this ip {address} Not authorized to using the API", "هذا الاي بي {address} غير مصرح له"),
    103: ("this country Not authorized to using the API", "هذه الدولة غير مصرح لها"),
    104: ("Invalid Bearer Tokens", "مفتاح الارسال غير صحيح"),
}

VOICE_TEXTS: Texts = {
    **_COMMON,
    14: ("Invalid CallerId", "هوية المتصل غير صحيحة"),
    15: (_NUMBERS, "الأرقام المرسل لها غير صحيحة أو فارغة"),
    17: ("error msg or error audio file", "يوجد خطأ في الارسال او الملف الصوتي"),
}

MAIL_TEXTS: Texts = {
    **_COMMON,
    14: ("error From", "خطأ في المرسل"),
    15: ("Email is not specified or incorrect", "البريد الالكتروني غير صحيح أو فارغ"),
    16: ("error subject", "خطأ في عنوان الرسالة"),
    17: ("error msg", "خطأ في نص الرسالة"),
}

WRONG_TOKEN = 104

SENT_TEXT = ("sent successfully", "تم الارسال")

_CODE_OF_FIELD = {"callerId": 14, "from": 14, "recipients": 15, "to": 15, "subject": 16}
"""The codes of parameters that are missing or no text, where that of the kind would name another one."""

_BY_FIELD = frozenset({RefusalKind.MALFORMED, RefusalKind.CONTENT_MISSING})

_KIND_OF_CODE = {14: RefusalKind.SENDER_MISSING, 15: RefusalKind.RECIPIENT_MISSING}
"""Among which kinds a parameter that is no text ranks; the others rank with the content."""

_CODE_OF_FAILURE = {404: 101, 408: 101, 413: 17, 500: 101}


def php_group(name: str, path: str, texts: Texts, answers_401: bool) -> Group:
    """The group of one `.php` path, whose codes have these texts; with `answers_401` a wrong token is no 400."""

    def refuse(request: Request, refusals: Sequence[Refusal]) -> Response:
        refusal = min(refusals, key=_rank_of)
        code = _code_of(refusal)
        error = _error(code, texts, request.address)
        status = 401 if answers_401 and code == WRONG_TOKEN else 400
        return Response(status, _encode(envelope(None, error)), headers=marks_of(refusal))

    def fail_php(request: Request, status: int) -> Response:
        """The envelope, and beside it the message that readers of every failure look for."""
        if status == 405:
            return fail(request, status)
        error = _error(_CODE_OF_FAILURE[status], texts, request.address)
        return Response(status, _encode({**envelope(None, error), "message": _FAILURES[status]}))

    return Group(name, (path,), refuse, fail_php)


def _code_of(refusal: Refusal) -> int:
    code = REFUSALS[refusal.kind].code
    return _CODE_OF_FIELD.get(refusal.field, code) if refusal.kind in _BY_FIELD else code


def _rank_of(refusal: Refusal) -> tuple[int, int]:
    code = _code_of(refusal)
    is_malformed = refusal.kind is RefusalKind.MALFORMED
    kind = _KIND_OF_CODE.get(code, RefusalKind.CONTENT_MISSING) if is_malformed else refusal.kind
    return _RANK[kind], code


def envelope(data: object, error: object = None) -> dict[str, object]:
    """The envelope of the `.php` paths. `error` is None for a success."""
    return {
        "status": 1,
        "ResponseStatus": "success" if error is None else "fail",
        "Data": data,
        "Error": error,
    }


def _error(code: int, texts: Texts, address: str) -> dict[str, object]:
    english, arabic = (text.replace("{address}", address) for text in texts[code])
    return {"ErrorCode": code, "MessageAr": arabic, "MessageEn": english}
