"""Certificates: a renewed one is taken, and a half-renewed one harms nobody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from pathlib import Path

import aiohttp
import pytest

from berid import tls
from berid.app import App
from berid.config import Config, Http
from berid.store import schema
from tests.support.builders import FakeClock
from tests.support.certificate import make_certificate


def _greet(server: ssl.SSLContext) -> bytes:
    """The certificate that a client is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server)
    listening = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (client, listening):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def _in_file(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


async def test_renewed_certificate_is_taken_once_its_key_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    old, old_key = _in_file(cert_file), key_file.read_bytes()
    context, clock = tls.load(cert_file, key_file), FakeClock()
    following = asyncio.ensure_future(tls.follow(context, cert_file, key_file, clock, "web"))
    await asyncio.sleep(0)
    try:
        make_certificate(tmp_path)
        new_key = key_file.read_bytes()
        key_file.write_bytes(old_key)
        await clock.advance(tls.LOOK_S)
        assert _greet(context) == old
        assert "cannot be used" in caplog.text
        cert_file.rename(tmp_path / "away")
        await clock.advance(tls.LOOK_S)
        assert _greet(context) == old
        (tmp_path / "away").rename(cert_file)
        key_file.write_bytes(new_key)
        await clock.advance(tls.LOOK_S)
        assert _greet(context) == _in_file(cert_file) != old
    finally:
        following.cancel()


async def test_key_that_is_locked_is_an_error_and_not_a_question(tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path, password=b"hush")
    with pytest.raises(ssl.SSLError):
        tls.load(cert_file, key_file)


async def test_web_listener_speaks_tls_beside_plain_http(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cert_file, key_file = make_certificate(tmp_path)
    http = Http(port=0, tls_port=0, tls_cert=cert_file, tls_key=key_file)
    config = Config(data_dir=tmp_path, http=http, roles=frozenset({"web"}))
    await schema.migrate(config.database_url)
    clock = FakeClock()
    app = await App.start(config, clock)
    try:
        trust = ssl.create_default_context(cafile=str(cert_file))
        async with aiohttp.ClientSession() as client:
            for url in (f"http://127.0.0.1:{app.ports.http}", f"https://localhost:{app.ports.https}"):
                async with client.get(f"{url}/health/live", ssl=trust) as answer:
                    assert answer.status == 200
        make_certificate(tmp_path)
        os.utime(cert_file, ns=(1, 1))
        await clock.advance(tls.LOOK_S)
        assert "a renewed certificate is in use" in caplog.text
        trust = ssl.create_default_context(cafile=str(cert_file))
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"https://localhost:{app.ports.https}/health/live", ssl=trust) as answer,
        ):
            assert answer.status == 200
    finally:
        await app.stop()
