"""Words by which a person says that he no longer wants messages, wants them again, or needs to know who writes.

A text counts only if it is one of these words and nothing else, however it is written: capitals, marks around it,
Arabic vowel signs and spellings of the same letter make no difference. "stop" says no; "don't stop" and "STOP
sending at night" are for a person to read.

The English words of leaving are those of 47 CFR 64.1200(a)(10), which every sender in North America must honour,
and close kin of them; the Turkish and Arabic ones are what senders in Turkey and Arabia tell people to write.
"""

from __future__ import annotations

import re
from typing import Final, Literal

Keyword = Literal["stop", "start", "help"]

LONGEST: Final = 40
"""Characters of the longest text that is looked at: no word here is half as long."""

_WORDS: Final[dict[Keyword, tuple[str, ...]]] = {
    "stop": (
        "STOP", "STOP ALL", "STOPALL", "UNSUBSCRIBE", "UNSUB", "END", "QUIT", "CANCEL", "OPT OUT", "OPTOUT", "REVOKE",
        "DUR", "DURDUR", "RET", "RED", "İPTAL", "ÇIK", "ÇIKIŞ", "ABONELİKTEN ÇIK",
        "إيقاف", "أوقف", "قف", "توقف", "إلغاء", "الغاء الاشتراك", "إلغاء الاشتراك", "إيقاف الرسائل",
    ),
    "start": (
        "START", "UNSTOP", "SUBSCRIBE", "RESUME", "OPT IN", "OPTIN",
        "BAŞLA", "BAŞLAT", "ABONE", "ABONE OL",
        "ابدأ", "اشتراك", "اشترك", "تفعيل", "استئناف",
    ),
    "help": (
        "HELP", "INFO",
        "YARDIM", "BİLGİ",
        "مساعدة", "معلومات",
    ),
}  # fmt: skip


def keyword_of(text: str) -> Keyword | None:
    """What a message from a person asks for, if it is one of the words of consent; None for any other text."""
    if len(text) > LONGEST:
        return None
    return _KEYWORDS.get(_plain(text))


_LETTERS: Final = str.maketrans(
    {
        # All four i become one letter: many a keyboard takes the dot from a Turkish capital, or gives it to an English one.
        "İ": "i", "I": "i", "ı": "i", "ş": "s", "Ş": "s", "ç": "c", "Ç": "c", "ğ": "g", "Ğ": "g", "ö": "o", "Ö": "o",
        "ü": "u", "Ü": "u",
        "أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ی": "ي", "ئ": "ي", "ة": "ه", "ک": "ك",
        "ـ": None, "ٰ": None, "\u0307": None,
        **{chr(sign): None for sign in range(0x064B, 0x0653)},
    }
)  # fmt: skip
_BETWEEN: Final = re.compile(r"[\W_]+")


def _plain(text: str) -> str:
    """The letters and digits of a text in their plainest form, one space between words."""
    return _BETWEEN.sub(" ", text.translate(_LETTERS)).strip().casefold()


_KEYWORDS: Final[dict[str, Keyword]] = {_plain(word): keyword for keyword, words in _WORDS.items() for word in words}
