"""Words of consent: exact, in three languages, however they are typed."""

import pytest

from berid.domain.consent import keyword_of


@pytest.mark.parametrize(
    "text",
    [
        "STOP", "stop", " Stop. ", "«STOP»", "\"stop\"!", "Stop all", "STOPALL", "unsubscribe", "opt-out", "QUIT\n",
        "DUR", "dur", "RET", "Ret.", "İPTAL", "iptal", "IPTAL", "ıptal", "İptal", "i̇ptal", "ÇIKIŞ", "cikis", "çıkış",
        "إيقاف", "ايقاف", "أيقاف", "إيقـــاف", "إِيقَاف", "الغاء", "إلغاء", "قف", "قِف", "توقف", "الغاء الإشتراك", "«إيقاف»",
    ],
)  # fmt: skip
def test_word_of_leaving_is_stop(text: str) -> None:
    assert keyword_of(text) == "stop"


@pytest.mark.parametrize(
    "text", ["START", "unstop", "Başla", "BASLA", "başlat", "abone ol", "ابدأ", "ابدا", "اشترك", "تفعيل"]
)
def test_word_of_coming_back_is_start(text: str) -> None:
    assert keyword_of(text) == "start"


@pytest.mark.parametrize("text", ["HELP", "help?", "Yardım", "YARDIM", "bilgi", "BİLGİ", "مساعدة", "مساعده"])
def test_word_of_asking_is_help(text: str) -> None:
    assert keyword_of(text) == "help"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "...", "STOPP", "please stop", "STOP sending at night", "don't stop", "stop 1", "nonstop", "yes", "evet",
        "durum", "iptal etmeyin", "لا تتوقف", "قفل", "STOP " * 50, "s t o p",
    ],
)  # fmt: skip
def test_any_other_text_is_none(text: str) -> None:
    assert keyword_of(text) is None
