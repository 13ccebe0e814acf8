"""Parameters in every shape that the provider's clients are seen to use, made into our words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from berid.base.phone import international, is_possible, lenient
from berid.domain.errors import Refusal, RefusalKind, Refused, refused

RECIPIENTS_MAX = 1_000
"""Recipients of one request, by the provider's rule."""

KEY_MAX = 255
"""Characters of the names that callers give to their messages and requests: they are looked up by an index."""

Fields = Mapping[str, Any]

Value = TypeVar("Value")


def attempt(faults: list[Refusal], read: Callable[..., Value], *arguments: object) -> Value | None:
    """What `read(*arguments)` makes of a parameter; None, with the reasons added to `faults`, if it raises `Refused`.

    So that `accept` can be asked with whatever could be read, and the caller hears what the provider would say first.
    """
    try:
        return read(*arguments)
    except Refused as error:
        faults += error.refusals
        return None


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


def key_of(fields: Fields, name: str) -> str:
    """A parameter by which something is found again. As `text_of`; raises `Refused` also for more than KEY_MAX characters."""
    text = text_of(fields, name)
    if len(text) > KEY_MAX:
        raise refused(RefusalKind.MALFORMED, f"{name} must have {KEY_MAX} characters at most", name)
    return text


def texts_of(fields: Fields, name: str) -> list[str]:
    """The items of a parameter that is a list, as written, without what is empty.

    A list may also come as texts with commas between the items, as one item, and as the object that PHP makes of a list with
    gaps. Raises `Refused` for items that are neither text nor number, and for more than RECIPIENTS_MAX.
    """
    value = fields.get(name)
    items: list[Any]
    if isinstance(value, list):
        items = value
    elif isinstance(value, dict):
        items = list(value.values())
    else:
        items = [value]
    texts: list[str] = []
    for item in items:
        if isinstance(item, str):
            if "," in item:
                texts += [text for part in item.split(",") if (text := part.strip())]
            elif text := item.strip():
                texts.append(text)
        elif item is not None:
            texts.append(_digits_of(item, name))
    if len(texts) > RECIPIENTS_MAX:
        raise refused(RefusalKind.RECIPIENTS_TOO_MANY, f"one request takes {RECIPIENTS_MAX} at most", name)
    return texts


def _digits_of(item: Any, name: str) -> str:
    """A number as it would be written. PHP on 32 bits writes long ones with an exponent."""
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, bool | list | dict):
        raise refused(RefusalKind.MALFORMED, f"{name} must hold texts or numbers", name)
    return str(item)


def numbers_of(fields: Fields, name: str, is_lenient: bool) -> tuple[list[str], list[str]]:
    """The telephone numbers in a parameter: (those that can be sent to, those that are none, as written).

    A number is its international digits without 00 or +, and must have a length that exists in its country; `is_lenient`
    forgives 00, + and marks between the digits. Duplicates stay. Raises as `texts_of` does.
    """
    read = lenient if is_lenient else international
    usable: list[str] = []
    rejected: list[str] = []
    for text in texts_of(fields, name):
        number = read(text)
        if number is not None and is_possible(number):
            usable.append(number)
        else:
            rejected.append(text)
    return usable, rejected


def due_of(fields: Fields, zone: ZoneInfo) -> int | None:
    """When the message shall go, in milliseconds; None for now. `scheduledDatetime` and `scheduled` are the same thing.

    `YYYY-MM-DDTHH:MM`, also with seconds, with a space for the T, with Z or an offset; without those it is a time of `zone`.
    Raises `Refused` for anything else: a date that cannot be read must never mean "now".
    """
    given = fields.get("scheduledDatetime")
    if given is None or given == "":
        given = fields.get("scheduled")
    if given is None or given == "":
        return None
    try:
        text = given.strip()
        if text[4] + text[7] != "--" or text[10] not in "T ":
            raise ValueError
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return int(moment.timestamp() * 1000)
    except (AttributeError, IndexError, ValueError, OverflowError):
        raise refused(
            RefusalKind.SCHEDULE_DATE_INVALID, "write the planned time as YYYY-MM-DDTHH:MM", "scheduledDatetime"
        ) from None
