"""Signatures of the HTTP calls we make and get, in the Standard Webhooks scheme (specification 1.0.0,
symmetric part).

Three headers go with the body: `webhook-id` names the event and stays the same over every retry,
`webhook-timestamp` is the time of this attempt in seconds since 1970, `webhook-signature` holds one or more
signatures separated by spaces. A signature is `v1,` and the base64 form of HMAC-SHA256 over
`id.timestamp.body`, keyed with the bytes of the secret.

A secret is written `whsec_` and the base64 form of 24 to 64 bytes. While an endpoint changes its secret both
are used, so that the receiver may switch at any moment between.
"""

from __future__ import annotations

import hmac
import secrets as random
from base64 import b64encode
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Mapping, Sequence

_PREFIX = "whsec_"
_NEW_SECRET_BYTES = 32
_SECRET_BYTES = range(24, 65)
_SIGNATURES_LIMIT = 16
"""Signatures looked at in one header. Nobody rotates through more secrets at once; a stranger might send
thousands."""


class BadSecret(ValueError):
    """Not a signing secret. The message tells what is wrong with its form, never the text."""


class BadSignature(ValueError):
    """The call is not from who knows the secret, or is too old, or lacks a header. The message tells which."""


def new_secret() -> str:
    """A new random secret of 32 bytes in its written form."""
    return _PREFIX + b64encode(random.token_bytes(_NEW_SECRET_BYTES)).decode()


def sign(secrets: Sequence[str], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers for one attempt to deliver `body`, signed with every one of `secrets` in their order.

    `message_id` is the event's id; `timestamp_s` is now, in whole seconds since 1970. Raises `BadSecret`, and
    ValueError for an id that is empty, holds a full stop (it could then be shifted into the timestamp's
    place), or cannot stand in a header.
    """
    if not message_id or "." in message_id or not (message_id.isascii() and message_id.isprintable()):
        raise ValueError("a webhook's id must be printable ASCII without a full stop")
    if not secrets:
        raise BadSecret("there is no secret to sign with")
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join([_signature(secret, signed) for secret in secrets]),
    }


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now_s: int, tolerance_s: int = 300) -> str:
    """Check a call that came in and return its id, by which the receiver drops repeats.

    `headers` may be in any case. One match between any of `secrets` and any signature in the header is
    enough. Raises `BadSignature`, and `BadSecret` for a secret of ours that is malformed. Comparison takes
    the same time whether the first or the last character differs.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    signatures = given.get("webhook-signature", "").split(" ")[:_SIGNATURES_LIMIT]
    if not message_id or not timestamp or not any(signatures):
        raise BadSignature("a webhook header is missing")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise BadSignature("the timestamp is not a number of seconds")
    if abs(now_s - int(timestamp)) > tolerance_s:
        raise BadSignature("the timestamp is too far from now")
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = [_signature(secret, signed).encode() for secret in secrets]
    # Every pair is compared, so that the time taken tells nothing about which one was nearly right.
    matches = [hmac.compare_digest(ours, theirs.encode()) for ours in expected for theirs in signatures]
    if not any(matches):
        raise BadSignature("no signature matches")
    return message_id


def _signature(secret: str, signed: bytes) -> str:
    return "v1," + b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()


def _key(secret: str) -> bytes:
    """The bytes of a written secret. Padding may be left out, as some tools do when they copy one."""
    if not secret.startswith(_PREFIX):
        raise BadSecret(f"a signing secret begins with {_PREFIX}")
    encoded = secret[len(_PREFIX) :].rstrip("=")
    try:
        key = a2b_base64(encoded + "=" * (-len(encoded) % 4), strict_mode=True)
    except (NotBase64, ValueError):
        raise BadSecret(f"what follows {_PREFIX} in a signing secret is base64") from None
    if len(key) not in _SECRET_BYTES:
        raise BadSecret(f"a signing secret has {_SECRET_BYTES[0]} to {_SECRET_BYTES[-1]} bytes")
    return key
