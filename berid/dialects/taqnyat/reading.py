"""What callers send, in every shape that the provider's clients are seen to use, made into our words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from berid.base.phone import international, is_possible, lenient
from berid.dialects import caller_of
from berid.dialects.reading import Unreadable
from berid.dialects.web import Request
from berid.domain.account import Caller, Scope, check_caller
from berid.domain.errors import Refusal, RefusalKind, Refused, refused
from berid.flow.ports import Runtime

NAME = "taqnyat"

RECIPIENTS_MAX = 1_000
"""Recipients of one request, by the provider's rule."""

Fields = Mapping[str, Any]


async def read_call(rt: Runtime, request: Request, scope: Scope | None, service: str | None) -> tuple[Caller, Fields]:
    """Who calls, and all parameters: the query under the body.

    The token of the Authorization header is looked at before the body; without one, the parameter `bearerTokens` is it. Raises
    `Refused` for a missing or wrong token, and for parameters that cannot be read, together with what forbids such a
    call in the first place: `scope` and `service` are what `check_caller` is asked. Forbids nothing by itself.
    """
    token = bearer_of(request)
    if token:
        caller = caller_of(rt, token, request.address, NAME)
        try:
            return caller, await request.fields()
        except Unreadable as error:
            malformed = Refusal(RefusalKind.MALFORMED, str(error))
            raise Refused(*check_caller(caller, scope, service), malformed) from None
    try:
        fields = await request.fields()
    except Unreadable:
        raise refused(RefusalKind.TOKEN_MISSING, "no token was given") from None
    given = fields.get("bearerTokens")
    return caller_of(rt, given if isinstance(given, str) else "", request.address, NAME), fields


def bearer_of(request: Request) -> str:
    """The token in the Authorization header, or ""."""
    given = request.headers.get(b"authorization", b"")
    return given[7:].strip().decode("latin-1") if given[:7].lower() == b"bearer " else ""


def text_of(fields: Fields, name: str) -> str:
    """A parameter's text. Absent, null and empty are the same; a number is its digits. Raises `Refused` for anything else."""
    value = fields.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise refused(RefusalKind.MALFORMED, f"{name} must be text", name)


def numbers_of(value: Any, is_lenient: bool) -> tuple[list[str], list[str]]:
    """The telephone numbers in a parameter: (those that can be sent to, those that are none, as written).

    `value` is a list of numbers or texts, one number, or texts with commas between numbers; what PHP encodes as an object
    counts as a list. Duplicates stay. A number is its international digits without 00 or +, and must have a length that
    exists in its country; `is_lenient` forgives 00, + and marks between the digits.
    """
    if isinstance(value, str):
        items: list[Any] = value.split(",") if "," in value else [value]
    elif isinstance(value, list):
        items = value
    elif isinstance(value, dict):
        items = list(value.values())
    elif value is None:
        items = []
    else:
        items = [value]
    usable: list[str] = []
    rejected: list[str] = []
    read = lenient if is_lenient else international
    for item in items:
        for text in _texts_of(item):
            number = read(text)
            if number is not None and is_possible(number):
                usable.append(number)
            else:
                rejected.append(text)
    return usable, rejected


def _texts_of(item: Any) -> list[str]:
    """The written numbers in one item of a list; what is empty is none."""
    if isinstance(item, str):
        if "," not in item:
            text = item.strip()
            return [text] if text else []
        return [text for part in item.split(",") if (text := part.strip())]
    if item is None:
        return []
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, bool | list | dict):
        raise refused(RefusalKind.MALFORMED, "recipients must be numbers", "recipients")
    return [str(item)]


def due_of(fields: Fields, zone: ZoneInfo) -> int | None:
    """When the message shall go, in milliseconds; None for now. `scheduledDatetime` and `scheduled` are the same thing.

    `YYYY-MM-DDTHH:MM`, also with seconds, with a space for the T, with Z or an offset; without those it is a time of `zone`.
    Raises `Refused` for anything else: a date that cannot be read must never mean "now".
    """
    given = fields.get("scheduledDatetime") or fields.get("scheduled")
    if not given:
        return None
    try:
        text = given.strip()
        if text[4] != "-" or text[10] not in "T ":
            raise ValueError
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return int(moment.timestamp() * 1000)
    except (AttributeError, IndexError, ValueError, OverflowError):
        raise refused(
            RefusalKind.SCHEDULE_DATE_INVALID, "write the planned time as YYYY-MM-DDTHH:MM", "scheduledDatetime"
        ) from None
