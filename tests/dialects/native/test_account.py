"""Who calls, what there is to spend, and the names that messages may come from."""

from dataclasses import replace
from typing import Any

import pytest

from berid.base.secret import hash_token
from berid.domain.account import Rules, SenderState
from tests.dialects.native.conftest import Api, with_directory
from tests.support.builders import ACCOUNT_ID, SECRET, START_MS
from tests.support.database import ask


async def test_me_says_who_the_token_is_without_its_secret(api: Api) -> None:
    answer = await api("GET", "/me")
    assert answer.json == {
        "account": {
            "id": "acc_1",
            "name": "Test",
            "state": "active",
            "country": "SA",
            "zone": "Asia/Riyadh",
            "language": "en",
        },
        "application": {
            "id": "app_2",
            "name": "Test",
            "state": "active",
            "services": ["email", "otp", "sms", "voice", "whatsapp"],
        },
        "token": {"id": "tok_3", "label": "", "mode": "test", "scopes": ["*"], "expires_at": None},
        "address": "198.51.100.7",
    }
    assert SECRET.encode() not in answer.body


async def test_balance_shows_the_wallets_of_the_tokens_mode(api: Api) -> None:
    await ask(
        api.url,
        "INSERT INTO wallet (id, account_id, mode, currency, available_micros, held_micros, spent_micros, "
        "credit_limit_micros) VALUES (90, 1, 'test', 'CREDIT', -2500000, 1, 2000000, 5000000), "
        "(91, 1, 'live', 'SAR', 9, 0, 0, 0), (92, 7, 'test', 'SAR', 9, 0, 0, 0) RETURNING id",
    )
    assert (await api("GET", "/balance")).json == {
        "mode": "test",
        "wallets": [
            {
                "currency": "CREDIT",
                "available": "-2.5",
                "held": "0.000001",
                "spent_total": "2",
                "credit_limit": "5",
            },
            {"currency": "SAR", "available": "1000", "held": "0", "spent_total": "0", "credit_limit": "0"},
        ],
    }


async def test_senders_are_listed_with_their_states(api: Api) -> None:
    senders = api.rt.directory.senders
    name = senders[ACCOUNT_ID, "sms", "Berid"][0]
    waiting = replace(name, id=40, name="Acme", country="TR", state=SenderState.SUBMITTED, expires_ms=START_MS)
    theirs = replace(name, name="Theirs", account_id=9)
    more = {(ACCOUNT_ID, "sms", "Acme"): (waiting,), (9, "sms", "Theirs"): (theirs,)}
    with_directory(api.rt, senders={**senders, **more})
    acme = {
        "id": "snd_40",
        "name": "Acme",
        "channel": "sms",
        "country": "TR",
        "category": "any",
        "state": "submitted",
        "expires_at": "2026-09-21T14:13:20.000Z",
    }
    berid = acme | {"id": "snd_4", "name": "Berid", "country": "", "state": "approved", "expires_at": None}
    assert (await api("GET", "/senders")).json == {"data": [acme, berid]}
    assert (await api("GET", "/senders?channel=sms")).json == {"data": [acme, berid]}
    assert (await api("GET", "/senders?channel=voice")).json == {"data": []}


@pytest.mark.parametrize(
    ("path", "scope"), [("/balance", "balance"), ("/senders", "senders"), ("/callbacks", "callbacks")]
)
async def test_every_reading_has_its_right(api: Api, path: str, scope: str) -> None:
    token = api.rt.directory.tokens[hash_token(SECRET)]
    for scopes, status in ((frozenset({scope}), 200), (frozenset({"send"}), 403)):
        with_directory(api.rt, tokens={token.hash: replace(token, scopes=scopes)})
        assert (await api("GET", path)).status == status
    assert (await api("GET", "/me")).status == 200


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"state": "suspended"}, "account_inactive"), ({"rules": Rules(networks=("10.0.0.0/8",))}, "address_not_allowed")],
)
async def test_rules_of_the_account_hold_for_reading_too(api: Api, changes: Any, code: str) -> None:
    with_directory(api.rt, accounts={ACCOUNT_ID: replace(api.rt.directory.accounts[ACCOUNT_ID], **changes)})
    for path in ("/me", "/balance", "/messages", "/callbacks"):
        answer = await api("GET", path)
        assert (answer.status, answer.json["code"]) == (403, code)


async def test_reading_stays_possible_while_sending_is_switched_off(api: Api) -> None:
    off = Rules(api_on=False)
    with_directory(api.rt, accounts={ACCOUNT_ID: replace(api.rt.directory.accounts[ACCOUNT_ID], rules=off)})
    assert (await api("GET", "/messages")).status == 200
