"""Secrets: tokens that scanners can find, their hashes, passwords, and encryption at rest.

A token is `bt_` (test) or `bl_` (live), 32 random characters, and 6 characters of checksum. The prefix and the checksum
are public so that secret scanners find leaked tokens without false alarms; only the SHA-256 of the whole is stored.
A random token needs no slow hash: 190 bits cannot be guessed. Passwords chosen to fit SMPP's eight characters do need
one, hence `hash_password`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import zlib
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARACTERS = 32
_CHECK_CHARACTERS = 6
_NONCE_BYTES = 12
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1
"""16 MiB and about 40 ms a check: binds are rare, guesses should be dear."""


def new_token(mode: str) -> str:
    """A new token for `mode` ("test" or "live"). Shown once; keep only `hash_token` of it."""
    body = ("bt_" if mode == "test" else "bl_") + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
    return body + _checksum(body)


def is_token(text: str) -> bool:
    """Whether `text` has the published shape with a right checksum: what a secret scanner asks."""
    body, check = text[:-_CHECK_CHARACTERS], text[-_CHECK_CHARACTERS:]
    return (
        text[:3] in ("bt_", "bl_")
        and len(body) == 3 + _RANDOM_CHARACTERS
        and hmac.compare_digest(_checksum(body).encode(), check.encode())
    )


def new_api_key() -> str:
    """A key in the shape TurkeySMS clients expect: 32 lower-case hexadecimal characters."""
    return secrets.token_hex(16)


def hash_token(token: str) -> str:
    """SHA-256 of a token or api key, in hexadecimal: what the store keeps and looks up by."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def hash_password(password: str) -> str:
    """A salted scrypt hash of a short password, with its parameters in front."""
    salt = os.urandom(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
    return f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${salt.hex()}${digest.hex()}"


def check_password(password: str, stored: str) -> bool:
    """Whether `password` is the one behind `stored`, in constant time. Blocks about 40 ms: call it in a thread."""
    _, n, r, p, salt, digest = stored.split("$")
    found = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p))
    return hmac.compare_digest(found, bytes.fromhex(digest))


class Unreadable(Exception):
    """A sealed value does not open: the key is not the one it was sealed with, or the value was changed."""


class BadKey(ValueError):
    """What stands where the master key should is none. The text says where, and not what."""


class Vault:
    """Seals and opens small secrets with AES-256-GCM under one master key.

    What is sealed: carriers' passwords, callback secrets, texts of queued one-time passwords, replayed codes.
    `purpose` is bound into the seal, so that a value sealed for one use does not open as another.
    """

    __slots__ = ("_aead", "_key")

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError("the master key must be 32 bytes (64 hexadecimal characters)")
        self._key = key
        self._aead = AESGCM(key)

    def seal(self, plain: str, purpose: str) -> str:
        """Encrypt `plain`; the answer is hexadecimal text, 28 bytes longer than the input."""
        nonce = os.urandom(_NONCE_BYTES)
        return (nonce + self._aead.encrypt(nonce, plain.encode("utf-8", "surrogatepass"), purpose.encode())).hex()

    def open(self, sealed: str, purpose: str) -> str:
        """Decrypt what `seal` gave. Raises `Unreadable`."""
        try:
            raw = bytes.fromhex(sealed)
            plain = self._aead.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode())
        except (ValueError, InvalidTag) as error:
            raise Unreadable(
                f"a sealed {purpose} does not open with this master key; was the key file replaced?"
            ) from error
        return plain.decode("utf-8", "surrogatepass")

    def digest(self, *parts: str) -> str:
        """A keyed hash of `parts` (HMAC-SHA-256), for values that are compared but never read back, such as codes."""
        message = b"\x00".join(part.encode("utf-8", "surrogatepass") for part in parts)
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def load_key(given: str, path: Path) -> bytes:
    """The master key: `given` in hexadecimal if it is not empty, else the content of `path`.

    A missing file is made with a new key, readable by its owner only. Raises `BadKey`.
    """
    where = "the setting key (BERID_KEY)" if given else str(path)
    if not given:
        try:
            given = path.read_text().strip()
        except FileNotFoundError:
            given = os.urandom(32).hex()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(given + "\n")
    try:
        key = bytes.fromhex(given)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise BadKey(f"{where} does not hold a master key; it must be 64 hexadecimal digits")
    return key


def _checksum(body: str) -> str:
    """CRC-32 of the body in base 62: guards against typing errors and false finds, not against forgery."""
    value = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECK_CHARACTERS):
        value, digit = divmod(value, 62)
        digits = _ALPHABET[digit] + digits
    return digits
