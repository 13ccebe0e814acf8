"""The table of refusals: nothing left out, and every word is one that the paths can say."""

import msgspec

from berid.config import Dialects
from berid.dialects.taqnyat import answers, verify
from berid.dialects.web import make_app
from berid.domain.errors import Refusal, RefusalKind
from tests.dialects.asgi import call
from tests.dialects.taqnyat.conftest import World

CONTRACT_ORDER = (104, 101, 102, 103, 14, 15, 17, 2, 3)
"""The order in which the codes win: gates, then content, then money."""

GATES = (
    RefusalKind.TOKEN_MISSING,
    RefusalKind.API_OFF,
    RefusalKind.ADDRESS_NOT_ALLOWED,
    RefusalKind.COUNTRY_NOT_ALLOWED,
    RefusalKind.SENDER_UNKNOWN,
    RefusalKind.RECIPIENT_INVALID,
    RefusalKind.CONTENT_MISSING,
    RefusalKind.BALANCE_ZERO,
    RefusalKind.BALANCE_SHORT,
)


def test_every_kind_has_words() -> None:
    assert set(answers.REFUSALS) == set(RefusalKind)


def test_order_is_that_of_the_contract() -> None:
    assert tuple(answers.REFUSALS[kind].code for kind in GATES) == CONTRACT_ORDER
    for place, kind in enumerate(GATES):
        assert answers.first_of([Refusal(other) for other in reversed(GATES[place:])]).kind is kind


def test_only_wrong_tokens_are_401_and_only_unknown_keys_422() -> None:
    by_status: dict[int, set[str]] = {}
    for words in answers.REFUSALS.values():
        by_status.setdefault(words.status, set()).add(words.text)
    assert by_status[401] == {"invalid credentials information"}
    assert by_status[422] == {"deleteId is not valid"}
    assert set(by_status) == {400, 401, 422}


def test_clients_are_told_to_try_again_only_where_that_helps() -> None:
    again = {kind for kind, words in answers.REFUSALS.items() if words.text.startswith("SMS-API not responding")}
    assert again == {RefusalKind.RATE_LIMIT, RefusalKind.STORE_AWAY}


def test_every_code_has_a_text_in_every_service() -> None:
    codes = {words.code for words in answers.REFUSALS.values()}
    assert codes <= set(answers.VOICE_TEXTS)
    assert codes | {16} == set(answers.MAIL_TEXTS)


def test_every_result_has_a_text() -> None:
    assert {words.result for words in answers.REFUSALS.values()} <= set(verify.RESULTS)


async def test_statuses_on_which_clients_disagree_can_be_set(world: World) -> None:
    settings = Dialects(taqnyat_senders_answer_200=True, taqnyat_php_answers_401=True)
    world.rt.config = msgspec.structs.replace(world.rt.config, dialects=settings)
    app = make_app(world.rt, lambda: True)
    senders = await call(app, "GET", f"/v1/messages/senders?bearerTokens={world.values['shop']}")
    assert (senders.status, senders.json["statusCode"]) == (200, 200)
    for path in ("/voiceSend.php", "/mailSend.php/"):
        wrong = await call(app, "POST", path, b'{"bearerTokens":"x"}')
        assert (wrong.status, wrong.json["Error"]["ErrorCode"]) == (401, 104)
        other = await call(app, "POST", path, b'{"bearerTokens":"%s"}' % world.values["everything"].encode())
        assert (other.status, other.json["Error"]["ErrorCode"]) == (400, 14)
