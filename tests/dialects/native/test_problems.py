"""The catalogue of refusals: complete, in order, and told on the page that the answers point to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from berid.dialects.native.problems import FAILURES, PAGE, fail, page, problem_of, refusals, refuse
from berid.domain.errors import Refusal, RefusalKind

ROOT = Path(__file__).resolve().parents[3]
REQUEST: Any = SimpleNamespace(id="req_1")


def test_page_is_up_to_date() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(), "run make docs"


@pytest.mark.parametrize("kind", RefusalKind)
def test_every_refusal_has_words_and_a_place_on_the_page(kind: RefusalKind) -> None:
    answer = refuse(REQUEST, [Refusal(kind, "why")])
    said = msgspec.json.decode(answer.body)
    words = refusals[kind]
    assert answer.status == said["status"] == words.status
    assert 400 <= words.status < 600
    assert (said["code"], said["detail"], said["request_id"]) == (kind.value, "why", "req_1")
    assert said["title"] == words.title
    assert said["fix"] == words.fix
    assert f"## {kind.value}\n" in page()
    assert "errors" not in said


@pytest.mark.parametrize("status", FAILURES)
def test_every_failure_has_words_and_a_place_on_the_page(status: int) -> None:
    answer = fail(REQUEST, status)
    said = msgspec.json.decode(answer.body)
    assert answer.status == said["status"] == status
    assert f"## {said['code']}\n" in page()


def test_titles_and_fixes_are_sentences_of_their_own() -> None:
    titles = [words.title for words in refusals.values()] + [words.title for _, words in FAILURES.values()]
    assert len(titles) == len(set(titles))
    assert not [title for title in titles if title.endswith(".")]
    assert not [words.fix for words in refusals.values() if not words.fix.endswith(".")]


def test_weightiest_reason_stands_in_front_and_all_are_listed() -> None:
    reasons = [
        Refusal(RefusalKind.NO_PRICE, "b"),
        Refusal(RefusalKind.API_OFF, "a"),
        Refusal(RefusalKind.NO_PRICE, "c"),
    ]
    problem = problem_of("r", reasons)
    assert (problem.code, problem.detail) == ("api_off", "a")
    assert [(each.code, each.detail) for each in problem.errors] == [
        ("api_off", "a"),
        ("no_price", "b"),
        ("no_price", "c"),
    ]


@pytest.mark.parametrize(
    ("reasons", "seconds"),
    [
        ([Refusal(RefusalKind.RATE_LIMIT, retry_after_s=0.2)], b"1"),
        ([Refusal(RefusalKind.RATE_LIMIT, retry_after_s=12.1)], b"13"),
        ([Refusal(RefusalKind.OTP_LIMIT, retry_after_s=3), Refusal(RefusalKind.RATE_LIMIT, retry_after_s=9)], b"9"),
        ([Refusal(RefusalKind.STORE_AWAY)], b"1"),
    ],
)
def test_who_should_wait_is_told_how_long(reasons: list[Refusal], seconds: bytes) -> None:
    assert refuse(REQUEST, reasons).headers == ((b"retry-after", seconds),)
