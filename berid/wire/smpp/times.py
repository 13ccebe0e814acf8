"""Times as SMPP writes them: `YYMMDDhhmmsstnnp`, absolute or relative (SMPP 3.4, section 7.1.1).

Used by schedule_delivery_time, validity_period and final_date. An empty string means "not given" and is the
caller's to look at.
"""

import re
from datetime import UTC, datetime, timedelta, timezone

_PATTERN = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d)(\d\d)([+\-R])", re.ASCII)


class TimeError(ValueError):
    """Not a time of SMPP. Answer with ESME_RINVSCHED or ESME_RINVEXPIRY, by the field."""


def parse_time(text: str) -> datetime | timedelta:
    """Return an aware datetime for an absolute time, a timedelta for a relative one. Raises TimeError.

    In a relative time a year counts 365 days and a month 30: the specification leaves their length open, and
    validity periods of carriers end long before that matters.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise TimeError("not of the form YYMMDDhhmmsstnnp")
    year, month, day, hour, minute, second, tenth, quarters = map(int, match.groups()[:8])
    sign = match[9]
    if sign == "R":
        days = year * 365 + month * 30 + day
        return timedelta(days=days, hours=hour, minutes=minute, seconds=second)
    if quarters > 48:
        raise TimeError("the offset from UTC is more than 48 quarters of an hour")
    offset = timedelta(minutes=15 * quarters)
    try:
        return datetime(
            2000 + year,
            month,
            day,
            hour,
            minute,
            second,
            tenth * 100_000,
            tzinfo=timezone(-offset if sign == "-" else offset),
        )
    except ValueError:
        raise TimeError("a date or time of day that does not exist") from None


def format_absolute(moment: datetime) -> str:
    """Return an aware datetime in UTC, to a tenth of a second: "261122143207500+" is half past 14:32:07."""
    moment = moment.astimezone(UTC)
    return f"{moment:%y%m%d%H%M%S}{moment.microsecond // 100_000}00+"


def format_relative(duration: timedelta) -> str:
    """Return a duration from now, in whole seconds rounded down: "000002120000000R" is two and a half days.

    Raises TimeError if it is negative or longer than 99 months of 30 days. Up to 31 days there are no months in it.
    """
    seconds = duration // timedelta(seconds=1)
    days, seconds = divmod(seconds, 86_400)
    if days < 0:
        raise TimeError("a relative time cannot be negative")
    months, days = divmod(days, 30) if days > 31 else (0, days)
    if months > 99:
        raise TimeError("a relative time cannot be longer than 99 months")
    hours, seconds = divmod(seconds, 3_600)
    return f"00{months:02d}{days:02d}{hours:02d}{seconds // 60:02d}{seconds % 60:02d}000R"
