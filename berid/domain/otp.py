"""One-time passwords: how a code is made, worded and judged. Limits are those of the decision for all doors."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from berid.domain.errors import Refusal, RefusalKind

WINDOW_MS = 600_000
"""The ten minutes in which sends and checks of one number and purpose are counted together."""

SENDS_MAX = 5
CHECKS_MAX = 5

DIGITS = range(4, 9)
"""How many digits a code may have; the compatible doors stop at six."""

LANGUAGES = ("en", "tr", "ar")


class Verdict(StrEnum):
    """What a check found."""

    VERIFIED = "verified"
    WRONG = "wrong"
    EXPIRED = "expired"
    EXHAUSTED = "exhausted"
    """No checks are left for this number and purpose; only time helps."""
    ALREADY_VERIFIED = "already_verified"
    UNKNOWN = "unknown"
    """No code was sent to this number for this purpose."""


@dataclass(frozen=True, slots=True)
class Code:
    """What is kept of a code: a keyed hash, for whom and what it is, and until when it is good."""

    id: int
    recipient: str
    purpose: str
    digest: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Recent:
    """What happened to a number and purpose in the window: sends, checks used, and when the oldest send was."""

    sends: int = 0
    checks_used: int = 0
    oldest_ms: int = 0


def why_limited(seen: Recent, now_ms: int) -> Refusal | None:
    """Why no further code may be sent now: OTP_LIMIT, with the time to wait."""
    if seen.sends < SENDS_MAX and seen.checks_used < CHECKS_MAX:
        return None
    wait_s = max(1.0, (seen.oldest_ms + WINDOW_MS - now_ms) / 1000)
    return Refusal(RefusalKind.OTP_LIMIT, "too many codes for this number", "to", retry_after_s=wait_s)


@dataclass(frozen=True, slots=True)
class Check:
    """The answer to a guess. `checks_left` counts what may still be tried."""

    verdict: Verdict
    checks_left: int
    id: int = 0


def new_code(digits: int) -> str:
    """A random code that never begins with a zero: some callers keep it as a number."""
    return str(10 ** (digits - 1) + secrets.randbelow(9 * 10 ** (digits - 1)))


def wording(language: str, brand: str, code: str) -> str:
    """The text of a code in English, Turkish or Arabic; English for any other language."""
    return _template(language if language in LANGUAGES else "en").format(code=code, brand=brand)


@cache
def _template(language: str) -> str:
    return files("berid.domain").joinpath(f"data/otp/{language}.txt").read_text("utf-8").strip()
