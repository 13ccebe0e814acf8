"""Parameters in every shape that the provider's clients are seen to use, made into our words.

Names differ from path to path at the provider (`sentto` or `mobile`, `sms_lang` or `lang`, `text` or `sms_text`), so each is
understood everywhere; the path's own name is looked at first. Numbers may come as numbers or as their digits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from berid.base.phone import normalise_tr
from berid.domain.errors import Refusal, RefusalKind, Refused, refused

Fields = Mapping[str, Any]

TO = ("sentto", "mobile")
MOBILE = ("mobile", "sentto")
TEXT = ("text", "sms_text")
SMS_TEXT = ("sms_text", "text")
LANG = ("sms_lang", "lang")
"""Every parameter with two names: the one that the path documents, then its twin."""

NUMBER_CHARACTERS = 64
"""What is longer is no telephone number, however generously it is punctuated."""

_SLICE = 5_000
"""Numbers read in one go, some five milliseconds; then others get their turn."""

_is_ready = re.compile("905[0-9]{9}").fullmatch
_is_date = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII).fullmatch
_is_time = re.compile(r"\d{1,2}:\d{2}(:\d{2})?", re.ASCII).fullmatch


def text_of(fields: Fields, *names: str) -> str:
    """The first of some parameters that is not blank, "" if none is there. A number is its digits.

    Raises `Refused` with MALFORMED for anything that is neither text nor number.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            if value and not value.isspace():
                return value
        elif isinstance(value, bool | list | dict):
            raise refused(RefusalKind.MALFORMED, f"{name} must be text", name)
        elif value is not None:
            return str(value)
    return ""


def choice_of(fields: Fields, allowed: Sequence[int], default: int, *names: str) -> int:
    """A parameter with few values, written as number or digits. Raises `Refused` with MALFORMED for any other value."""
    value = text_of(fields, *names).strip()
    if not value:
        return default
    if len(value) == 1 and value in "0123456789" and int(value) in allowed:
        return int(value)
    raise refused(RefusalKind.MALFORMED, f"{names[0]} must be one of {', '.join(map(str, allowed))}", names[0])


def id_of(fields: Fields, *names: str) -> int:
    """A message's id, 0 if it was not given. Raises `Refused` with MALFORMED for what is no id."""
    value = text_of(fields, *names).strip() or "0"
    if not (value.isascii() and value.isdigit() and len(value) <= 16):
        raise refused(RefusalKind.MALFORMED, f"{names[0]} must be a number", names[0])
    return int(value)


def items_of(fields: Fields, *names: str) -> list[Any]:
    """The recipients as written: the items of a list, or of a text with commas between them. Blank ones are left out.

    A form may carry a JSON list as one text. Raises `Refused` with MALFORMED for what is neither list, text nor number.
    """
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            text = value.strip()
            if text[:1] == "[":
                items: list[Any] = [item.strip(" \t\r\n\"'") for item in text.strip("[]").split(",")]
            else:
                items = text.split(",") if "," in text else [text]
        elif isinstance(value, list):
            items = value
        elif isinstance(value, bool | dict):
            raise refused(RefusalKind.MALFORMED, f"{name} must be a number or a list of numbers", name)
        else:
            items = [] if value is None else [value]
        items = [item for item in items if item is not None and not (isinstance(item, str) and not item.strip())]
        if items:
            return items
    return []


async def numbers_of(items: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Recipients as telephone numbers: (those that can be sent to, those that are none, as written). Duplicates stay.

    Long lists give way to other requests in between.
    """
    usable: list[str] = []
    rejected: list[str] = []
    for start in range(0, len(items), _SLICE):
        if start:
            await asyncio.sleep(0)
        for item in items[start : start + _SLICE]:
            if isinstance(item, str):
                if _is_ready(item):
                    usable.append(item)
                    continue
                written = item
            else:
                written = _digits(item)
            number = normalise_tr(written) if len(written) <= NUMBER_CHARACTERS else None
            if number is not None:
                usable.append(number)
            else:
                rejected.append(written[:NUMBER_CHARACTERS])
    return usable, rejected


def _digits(item: Any) -> str:
    """A number as it would be written; PHP on 32 bits writes long ones with an exponent. "" for what is no number."""
    if isinstance(item, bool | list | dict):
        return ""
    if isinstance(item, float):
        return str(int(item)) if item.is_integer() else ""
    return str(item)


def due_of(fields: Fields, zone: ZoneInfo) -> tuple[int | None, list[Refusal]]:
    """When the message shall go, in milliseconds; None for now. With it, what is wrong with the planned date or time.

    `scheduled_sms` 1, `scheduled_date` YYYY-MM-DD, `scheduled_time` HH:MM, in `zone`. A date without the switch is
    a plan as well: better kept or refused than sent at once. Raises `Refused` with MALFORMED for another switch.
    """
    if "scheduled_sms" not in fields and "scheduled_date" not in fields and "scheduled_time" not in fields:
        return None, []
    written: list[str] = []
    for name, kind in (
        ("scheduled_date", RefusalKind.SCHEDULE_DATE_INVALID),
        ("scheduled_time", RefusalKind.SCHEDULE_TIME_INVALID),
    ):
        try:
            written.append(text_of(fields, name).strip())
        except Refused:
            return None, [Refusal(kind, f"{name} must be text", name)]
    if not choice_of(fields, (0, 1), int(any(written)), "scheduled_sms"):
        return None, []
    try:
        day = date.fromisoformat(written[0] if _is_date(written[0]) else "")
    except ValueError:
        how = "write scheduled_date as YYYY-MM-DD"
        return None, [Refusal(RefusalKind.SCHEDULE_DATE_INVALID, how, "scheduled_date")]
    try:
        moment = time.fromisoformat(written[1].zfill(5) if _is_time(written[1]) else "")
        return int(datetime.combine(day, moment, zone).timestamp() * 1000), []
    except (ValueError, OverflowError):
        how = "write scheduled_time as HH:MM"
        return None, [Refusal(RefusalKind.SCHEDULE_TIME_INVALID, how, "scheduled_time")]
