"""One-time passwords: how a code is made, worded and judged. Limits are those of the decision for all doors."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

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
