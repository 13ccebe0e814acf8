"""No secret that comes in by any door is in anything that is written: logs, traces, figures, tables, files.

Marked secrets are sent to every operation of every dialect, in order, refused, broken and into a crash, with debug logs and
traces on and every request logged. Then everything that was written is looked through, to the last byte.
"""

import asyncio
import base64
import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from berid.base import log
from berid.dialects import requests
from berid.store import tables
from berid.store.hot import HotStore
from tests.security.house import House, open_house
from tests.security.knock import KEYS, Knock, knocks, send

pytestmark = pytest.mark.scenario

SECRETS = {
    "a bearer token of nobody": "bt_zqNobodysTokenzqNobodysTokenzq01abcdef",
    "a key of nobody": "0123456789abcdefzqkeyofnobody000",
    "credentials of another scheme": base64.b64encode(b"zquser:zqBasicPassword").decode(),
    "a guessed code": "zqguess735190468",
    "the text of a one-time password": "zqOtpTextOfTheCustomer",
    "a carrier's password": "zqCarrPw",
    "a pass phrase": "zqPassPhraseOfTheReceiver",
    "a password for SMPP": "zqSmppPw",
    "a password in a query": "zqPasswordInTheQuery",
}
TEXT = "zqTextOfAnOrdinaryMessage"
"""Is stored, as it must be, and is nowhere else."""

GUESSES = ("code", "otp_code", "activeKey")
TEXTS = ("text", "sms_text", "body", "msg")


@contextmanager
def all_logs() -> Iterator[io.StringIO]:
    """Everything that is logged, down to debug, in both forms."""
    written = io.StringIO()
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    log.setup("debug", "json")
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for formatter in (log.JsonFormatter(), log.TextFormatter()):
        handler = logging.StreamHandler(written)
        handler.setFormatter(formatter)
        root.addHandler(handler)
    try:
        yield written
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        logging.captureWarnings(False)


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes traces in a thread of its own: the process sends its last ones while it ends. Its address, and what came."""
    came: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", came
        finally:
            server.shutdown()
            thread.join()


def marked(knock: Knock) -> Iterator[Knock]:
    """One request with secrets in all places where clients have put them."""
    fields = dict(knock.fields or {})
    is_otp = "otp" in knock.path or "verify" in knock.path
    for name in fields:
        if name in GUESSES and knock.path.rpartition("/")[2] in ("check", "verify", "verify.php"):
            fields[name] = SECRETS["a guessed code"]
        elif name in TEXTS and isinstance(fields[name], str):
            fields[name] += " " + (SECRETS["the text of a one-time password"] if is_otp else TEXT)
        elif name == "settings":
            fields[name] = {**fields[name], "password": SECRETS["a carrier's password"]}
        elif name == "rules":
            fields[name] = {"pass_phrase": SECRETS["a pass phrase"]}
    if "activeKey" not in fields and knock.path == "/verify.php":
        yield knock.but(fields={**fields, "activeKey": SECRETS["a guessed code"]})
    good = knock.but(fields=fields or None)
    yield good
    stranger = f"Bearer {SECRETS['a bearer token of nobody']}"
    yield good.but(headers={"Authorization": stranger})
    yield good.but(headers={"Authorization": f"Basic {SECRETS['credentials of another scheme']}"})
    keys = {"api_key": SECRETS["a key of nobody"], "bearerTokens": SECRETS["a bearer token of nobody"]}
    lost = {**fields, **{name: keys.get(name, keys["bearerTokens"]) for name in fields if name in KEYS}}
    yield good.but(fields=lost or None, headers={})
    secret_query = f"api_key={keys['api_key']}&password={SECRETS['a password in a query']}&{keys['api_key']}"
    yield good.but(query=secret_query)
    whole = good.body.decode()
    yield good.but(raw=(whole[:-1] + f', "password": "{SECRETS["a password in a query"]}", broken').encode())
    yield good.but(path=f"{knock.path.rpartition('/')[0]}/{keys['api_key']}")
    yield good.but(path=f"{knock.path}/{keys['bearerTokens']}")
    yield good.but(method="PUT" if knock.method != "PUT" else "POST", query=secret_query)


async def bind_by_smpp(house: House) -> None:
    """Try to bind with a wrong password."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.app.ports.smpp)
    writer.write(_bind(SECRETS["a password for SMPP"]))
    await reader.read(16)
    writer.close()


def _bind(password: str) -> bytes:
    body = b"demo\x00" + password.encode() + b"\x00" + b"\x00" + bytes([0x34, 0, 0]) + b"\x00"
    return b"".join(number.to_bytes(4, "big") for number in (16 + len(body), 9, 0, 1)) + body


def secrets_in(value: Any) -> Iterator[str]:
    """What an answer gives out once: tokens, callback secrets, passwords, codes."""
    if isinstance(value, dict):
        for name, each in value.items():
            if isinstance(each, str) and name in ("secret", "token", "password"):
                yield each
            if isinstance(each, str) and name in ("otp_code", "code") and each.isdigit() and len(each) >= 6:
                yield each
            yield from secrets_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from secrets_in(each)


async def knock_everywhere(house: House, given_out: set[str]) -> int:
    """Send every request with its secrets; what the answers give out is added to `given_out`. How many requests that were."""
    count = 0
    async with aiohttp.ClientSession() as http:
        for _, knock in knocks(house):
            for each in marked(knock):
                heard = await send(house, http, each)
                count += 1
                if heard.kind == "application/json" and heard.status < 300:
                    given_out.update(secrets_in(json.loads(heard.body or b"null")))
            given_out |= {house.bearer, house.api_key}
            await house.settle()
    return count


async def tables_of(house: House) -> dict[str, str]:
    """Every row of every table, as text."""
    return {
        name: "\n".join(str(row) for row in await house.ask(f'SELECT * FROM "{name}"'))
        for name in tables.metadata.tables
    }


def finds(secret: str, written: str) -> str:
    """Where a secret stands in a text, with what is around it; "" if it does not. A code must not be part of a longer number."""
    pattern = rf"(?<!\d){secret}(?!\d)" if secret.isdigit() else re.escape(secret)
    found = re.search(pattern, written)
    return written[max(0, found.start() - 150) : found.end() + 50] if found else ""


@pytest.mark.parametrize("is_crashing", [False, True], ids=["serving", "crashing"])
async def test_no_secret_is_in_anything_that_is_written(
    empty_store_url: str, tmp_path: Path, is_crashing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_out: set[str] = set()
    written: dict[str, str] = {}
    monkeypatch.setattr(requests, "STRANGERS_MAX", requests.WAITING_MAX)
    with all_logs() as logged, collector() as (endpoint, traces):
        settings = {
            "request_log": "all",
            "log__level": "debug",
            "tracing__enabled": "true",
            "tracing__endpoint": endpoint,
        }
        async with open_house(tmp_path, empty_store_url, **settings) as house:
            if is_crashing:

                async def crash(*_: Any, **__: Any) -> Any:
                    raise ZeroDivisionError("a fault of ours")

                async def nothing(_: House) -> None:
                    pass

                monkeypatch.setattr(HotStore, "do", crash)
                monkeypatch.setattr(House, "settle", nothing)
            count = await knock_everywhere(house, given_out)
            await bind_by_smpp(house)
            async with aiohttp.ClientSession() as http, http.get(house.url + "/metrics") as answer:
                written["figures"] = await answer.text()
            assert house.app._requests is not None
            await house.app._requests.write()
            monkeypatch.undo()
            written |= {f"table {name}": rows for name, rows in (await tables_of(house)).items()}
            for path in tmp_path.glob("berid.db*"):
                written[f"file {path.name}"] = path.read_bytes().decode("latin-1")
    written["log"] = logged.getvalue()
    written["traces"] = b"".join(traces).decode("latin-1")

    assert written["table request_log"].count("\n") >= count, "requests were not logged"
    assert written["traces"].count("request") > count / 2, "spans were not sent"
    assert len(given_out) > 10 or is_crashing
    assert TEXT in written["table message"] or is_crashing
    found = [
        f"{what} is in {place}: {context!r}"
        for what, secret in [*SECRETS.items(), *(("what was given out", each) for each in sorted(given_out))]
        for place, text in written.items()
        if (context := finds(secret, text))
    ]
    quiet = ("log", "traces", "figures", "table request_log", "table audit")
    found += [f"a text is in {place}" for place in quiet if TEXT in written[place]]
    assert not found, "\n".join(found)
