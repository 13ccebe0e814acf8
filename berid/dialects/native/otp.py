"""One-time passwords: send a code, check a guess, see how many codes are used.

The answer never holds the code, except for a test token: then a test can go on without a handset.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from berid.base.ids import read, show
from berid.base.money import format_micros
from berid.base.phone import lenient
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import rfc3339
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind, refused
from berid.flow.otp import check_code, send_code
from berid.store import otp as codes

DAY_MS = 86_400_000


class NewCode(msgspec.Struct, forbid_unknown_fields=True):
    """A code to send. `purpose` keeps codes for different things apart; `text` is your own wording, with `{code}` in it."""

    to: Annotated[str, msgspec.Meta(max_length=40)]
    purpose: Annotated[str, msgspec.Meta(max_length=64)] = ""
    language: Annotated[str, msgspec.Meta(pattern="^(en|tr|ar)$")] = "en"
    digits: Annotated[int, msgspec.Meta(ge=4, le=8)] = 6
    sender: Annotated[str, msgspec.Meta(max_length=16)] = ""
    text: Annotated[str, msgspec.Meta(max_length=600)] = ""


class SentCode(msgspec.Struct, omit_defaults=True):
    """A code on its way. `code` is there for test tokens only."""

    id: str
    message: str
    delivery: str
    to: str
    cost: str
    currency: str
    expires_at: str
    code: str | None = None


class Guess(msgspec.Struct, forbid_unknown_fields=True):
    """What the person typed, for the code of an id or the last code of a number and purpose."""

    code: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    id: str = ""
    to: Annotated[str, msgspec.Meta(max_length=40)] = ""
    purpose: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Judged(msgspec.Struct):
    """What the guess was worth: verified, wrong, expired, exhausted, already_verified or unknown."""

    result: str
    verified: bool
    checks_left: int
    id: str | None


class ConversionQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Over how many days to count."""

    days: Annotated[int, msgspec.Meta(ge=1, le=90)] = 30


class CountryConversion(msgspec.Struct):
    """Codes of one country: sent, delivered, and used. Many sent and few used is what fraud looks like."""

    country: str
    sent: int
    delivered: int
    verified: int


class Conversion(msgspec.Struct):
    """Codes of the token's mode by country."""

    data: list[CountryConversion]


async def send(call: Call[NewCode, None]) -> SentCode:
    """Make a code and send it."""
    body, caller = call.body, call.caller
    number = lenient(body.to, caller.account.home or None)
    if number is None:
        raise refused(RefusalKind.RECIPIENT_INVALID, "this is not a phone number", "to")
    sent = await send_code(
        call.rt,
        caller,
        number,
        purpose=body.purpose,
        language=body.language,
        digits=body.digits,
        sender=body.sender,
        text=body.text,
    )
    accepted = sent.accepted
    call.request.message_id = accepted.message_id
    return SentCode(
        id=show("otp", sent.id),
        message=show("msg", accepted.message_id),
        delivery=show("dlv", accepted.deliveries[0].id),
        to=number,
        cost=format_micros(accepted.cost_micros),
        currency=accepted.currency,
        expires_at=rfc3339(sent.expires_ms),
        code=sent.code if caller.mode == "test" else None,
    )


async def check(call: Call[Guess, None]) -> Judged:
    """Judge a guess; each uses up one of the five checks."""
    body, caller = call.body, call.caller
    identifier, number = None, ""
    if body.id:
        identifier = read("otp", body.id)
        if identifier is None:
            raise refused(RefusalKind.NOT_FOUND, "this is not the id of a code", "id")
    elif body.to:
        found = lenient(body.to, caller.account.home or None)
        if found is None:
            raise refused(RefusalKind.RECIPIENT_INVALID, "this is not a phone number", "to")
        number = found
    else:
        raise refused(RefusalKind.MALFORMED, "say which code: give its id, or the number it went to", "id")
    judged = await check_code(call.rt, caller, body.code, otp_id=identifier, number=number, purpose=body.purpose)
    return Judged(
        judged.verdict.value,
        judged.verdict.value == "verified",
        judged.checks_left,
        show("otp", judged.id) if judged.id else None,
    )


async def conversion(call: Call[None, ConversionQuery]) -> Conversion:
    """How many codes were sent, delivered and used, by country."""
    since_ms = call.rt.clock.now_ms() - call.query.days * DAY_MS
    async with call.rt.store.read() as tx:
        rows = await codes.conversion(tx, call.caller.account.id, call.caller.mode, since_ms)
    return Conversion([CountryConversion(*row) for row in rows])


ENDPOINTS = (
    Endpoint(
        "POST",
        "/otp",
        send,
        "Send a one-time password",
        SentCode,
        Scope.SEND,
        body=NewCode,
        status=201,
        accepts=True,
        refusals=(RefusalKind.OTP_LIMIT, RefusalKind.RECIPIENT_INVALID, RefusalKind.CONTENT_INVALID),
        about="At most five codes for one number and purpose in ten minutes. A newer code ends the older one.",
    ),
    Endpoint(
        "POST",
        "/otp/check",
        check,
        "Check a one-time password",
        Judged,
        Scope.SEND,
        body=Guess,
        refusals=(RefusalKind.NOT_FOUND, RefusalKind.RECIPIENT_INVALID),
        about="At most five checks for one number and purpose in ten minutes, however many come at once.",
    ),
    Endpoint(
        "GET",
        "/otp/conversion",
        conversion,
        "Codes sent, delivered and used",
        Conversion,
        Scope.STATUS,
        query=ConversionQuery,
    ),
)
