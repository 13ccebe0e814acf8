"""Signing and verifying, against the published package as the independent witness."""

from __future__ import annotations

import time
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from berid.base.webhook import BadSecret, BadSignature, new_secret, sign, verify

SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + b64encode(bytes(range(100, 132))).decode()
NOW_S = 1_750_000_000
BODY = '{"type":"delivery.updated","text":"مرحبا"}'.encode()


@given(
    key=st.binary(min_size=24, max_size=64),
    message_id=st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True),
    timestamp_s=st.integers(min_value=1, max_value=4_000_000_000),
    body=st.text(),
)
def test_our_signature_is_the_published_packages_signature(
    key: bytes, message_id: str, timestamp_s: int, body: str
) -> None:
    headers = sign(["whsec_" + b64encode(key).decode()], message_id, timestamp_s, body.encode("utf-8", "replace"))
    text = body.encode("utf-8", "replace").decode()
    theirs = Webhook(key).sign(message_id, datetime.fromtimestamp(timestamp_s, UTC), text)
    assert headers["webhook-signature"] == theirs


def test_the_published_package_accepts_what_we_sign_with_either_secret_of_a_rotation() -> None:
    headers = sign([SECRET, OTHER], "evt_1", int(time.time()), BODY)
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(BODY, headers)


def test_we_accept_what_the_published_package_signs() -> None:
    signature = Webhook(SECRET).sign("evt_1", datetime.fromtimestamp(NOW_S, UTC), BODY.decode())
    headers = {"Webhook-Id": "evt_1", "Webhook-Timestamp": str(NOW_S), "Webhook-Signature": signature}
    assert verify([SECRET], headers, BODY, NOW_S) == "evt_1"


def test_new_secrets_differ_and_can_sign() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert verify([first], sign([first], "evt_1", NOW_S, b""), b"", NOW_S) == "evt_1"


@pytest.mark.parametrize("of_ours", [[OTHER, SECRET], [SECRET, OTHER]])
def test_one_match_between_several_secrets_and_several_signatures_is_enough(of_ours: list[str]) -> None:
    headers = sign([new_secret(), SECRET], "evt_1", NOW_S, BODY)
    assert verify(of_ours, headers, BODY, NOW_S) == "evt_1"


@pytest.mark.parametrize(
    ("change", "body", "now_s"),
    [
        pytest.param({}, BODY + b" ", NOW_S, id="another body"),
        pytest.param({"webhook-id": "evt_2"}, BODY, NOW_S, id="another id"),
        pytest.param({"webhook-timestamp": str(NOW_S + 1)}, BODY, NOW_S, id="another time"),
        pytest.param({"webhook-timestamp": f" {NOW_S}"}, BODY, NOW_S, id="time with a space"),
        pytest.param({"webhook-timestamp": f"{NOW_S}.0"}, BODY, NOW_S, id="time with a fraction"),
        pytest.param({"webhook-timestamp": "٣"}, BODY, NOW_S, id="time in Arabic digits"),
        pytest.param({"webhook-timestamp": "9" * 5000}, BODY, NOW_S, id="endless time"),
        pytest.param({}, BODY, NOW_S + 301, id="too old"),
        pytest.param({}, BODY, NOW_S - 301, id="from the future"),
        pytest.param({"webhook-signature": ""}, BODY, NOW_S, id="no signature"),
        pytest.param({"webhook-id": ""}, BODY, NOW_S, id="no id"),
        pytest.param({"webhook-signature": "v1,"}, BODY, NOW_S, id="empty signature"),
        pytest.param({"webhook-signature": "v1,é"}, BODY, NOW_S, id="signature that is not ASCII"),
        pytest.param({"webhook-signature": "nonsense " * 400}, BODY, NOW_S, id="many signatures"),
    ],
)
def test_a_changed_call_is_refused(change: dict[str, str], body: bytes, now_s: int) -> None:
    headers = sign([SECRET], "evt_1", NOW_S, BODY) | change
    with pytest.raises(BadSignature):
        verify([SECRET], headers, body, now_s)


@pytest.mark.parametrize("now_s", [NOW_S - 300, NOW_S + 300])
def test_a_clock_five_minutes_apart_is_tolerated(now_s: int) -> None:
    assert verify([SECRET], sign([SECRET], "evt_1", NOW_S, BODY), BODY, now_s) == "evt_1"


def test_a_signature_of_another_version_alone_is_refused() -> None:
    headers = sign([SECRET], "evt_1", NOW_S, BODY)
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1a,")
    with pytest.raises(BadSignature, match="no signature matches"):
        verify([SECRET], headers, BODY, NOW_S)


def test_a_missing_header_is_refused() -> None:
    headers = sign([SECRET], "evt_1", NOW_S, BODY)
    for name in list(headers):
        with pytest.raises(BadSignature, match="missing"):
            verify([SECRET], {key: value for key, value in headers.items() if key != name}, BODY, NOW_S)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsec_" + b64encode(bytes(23)).decode(),
        "whsec_" + b64encode(bytes(65)).decode(),
        "whsec_" + "*" * 40,
        SECRET.replace("A", " "),
        SECRET + "\n",
    ],
)
def test_a_malformed_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(BadSecret) as caught:
        sign([secret], "evt_1", NOW_S, BODY)
    assert secret.removeprefix("whsec_") == "" or secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_secret_without_its_padding_is_the_same_secret() -> None:
    assert sign([SECRET.rstrip("=")], "evt_1", NOW_S, BODY) == sign([SECRET], "evt_1", NOW_S, BODY)


def test_signing_with_no_secret_at_all_is_an_error() -> None:
    with pytest.raises(BadSecret):
        sign([], "evt_1", NOW_S, BODY)


@pytest.mark.parametrize("message_id", ["", "evt.1", "evt 1\r\nx: y", "حدث"])
def test_an_id_that_could_be_misread_is_not_signed(message_id: str) -> None:
    with pytest.raises(ValueError, match="full stop"):
        sign([SECRET], message_id, NOW_S, BODY)
