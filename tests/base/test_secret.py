"""Tokens can be found by scanners, hashes cannot be turned back, sealed values open only with their key and purpose."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from berid.base.secret import (
    Unreadable,
    Vault,
    check_password,
    hash_password,
    hash_token,
    is_token,
    load_key,
    new_api_key,
    new_token,
)


@pytest.mark.parametrize(("mode", "prefix"), [("test", "bt_"), ("live", "bl_")])
def test_a_token_says_its_mode_and_passes_its_own_check(mode: str, prefix: str) -> None:
    token = new_token(mode)
    assert token.startswith(prefix)
    assert is_token(token)


@pytest.mark.parametrize(
    "damage", [lambda t: t[:-1] + ("x" if t[-1] != "x" else "y"), lambda t: "bz" + t[2:], lambda t: t[1:]]
)
def test_a_damaged_token_is_no_token(damage) -> None:  # type: ignore[no-untyped-def]
    assert not is_token(damage(new_token("test")))


@pytest.mark.parametrize("text", ["", "bt_", "bl_short", "x" * 41])
def test_other_texts_are_no_tokens(text: str) -> None:
    assert not is_token(text)


def test_an_api_key_has_the_shape_that_turkish_clients_know() -> None:
    key = new_api_key()
    assert len(key) == 32
    assert set(key) <= set("0123456789abcdef")


def test_a_hash_is_stable_and_takes_any_text() -> None:
    assert hash_token("bt_x") == hash_token("bt_x") != hash_token("bt_y")
    assert len(hash_token("\ud800")) == 64


def test_a_password_is_checked_against_its_salted_hash() -> None:
    stored = hash_password("secret1")
    assert stored != hash_password("secret1")
    assert check_password("secret1", stored)
    assert not check_password("secret2", stored)


def test_a_sealed_value_opens_only_with_its_key_and_purpose() -> None:
    vault = Vault(b"k" * 32)
    sealed = vault.seal("şifre 123", "connector")
    assert "şifre 123".encode().hex() not in sealed
    assert vault.open(sealed, "connector") == "şifre 123"
    for wrong in (lambda: vault.open(sealed, "body"), lambda: Vault(b"x" * 32).open(sealed, "connector")):
        with pytest.raises(Unreadable, match="master key"):
            wrong()
    with pytest.raises(Unreadable):
        vault.open("not hexadecimal", "connector")


def test_a_digest_depends_on_every_part_and_on_the_key() -> None:
    vault = Vault(b"k" * 32)
    assert vault.digest("a", "bc") != vault.digest("ab", "c")
    assert vault.digest("a") != Vault(b"x" * 32).digest("a")


def test_a_missing_key_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = load_key("", path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key("", path) == key


@pytest.mark.parametrize("given", ["zz", "00" * 31, "00" * 33])
def test_a_malformed_key_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal"):
        load_key(given, tmp_path / "key")
