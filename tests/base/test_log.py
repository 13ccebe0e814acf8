"""Log lines: their shape, and what never gets into them."""

import json
import logging
import sys
import time
from collections.abc import Iterator

import pytest

from berid.base.log import JsonFormatter, TextFormatter, redact, redact_text, setup

TOKEN = "bl_" + "Ab3" * 12


def record(event: str, /, *arguments: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("berid.flow", logging.INFO, __file__, 1, event, arguments, None)
    made.created = 1_800_000_000.0625
    vars(made).update(fields)
    return made


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    """Give back the root logger as it was: setup changes it for the whole process."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def test_json_line_holds_time_level_logger_event_and_fields() -> None:
    line = JsonFormatter().format(record("%d delivered", 2, account_id="acc_1", took_s=0.5, to=["a", 1], ok=None))
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.062Z",
        "level": "info",
        "logger": "berid.flow",
        "event": "2 delivered",
        "account_id": "acc_1",
        "took_s": 0.5,
        "to": ["a", 1],
        "ok": None,
    }


def test_text_line_is_one_line() -> None:
    line = TextFormatter().format(record("مرحبا\nINFO forged", peer="a b", ids=[1], plain="x", escape="\x1b[31m"))
    assert line == (
        '2027-01-15T08:00:00.062Z info    berid.flow مرحبا\\x0aINFO forged peer="a b" ids=[1] plain=x escape=\\x1b[31m'
    )


def test_field_named_like_a_part_of_the_line_keeps_both() -> None:
    line = json.loads(JsonFormatter().format(record("done", time=5, event="own")))
    assert (line["event"], line["event_"], line["time_"]) == ("done", "own", 5)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_traceback_is_written_without_secrets(formatter: logging.Formatter) -> None:
    made = record("it broke")
    try:
        raise ValueError(f"token {TOKEN} is bad")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = formatter.format(made)
    assert "Traceback" in line
    assert "ValueError: token bl_*** is bad" in line


def test_value_that_json_does_not_know_is_written_as_text() -> None:
    line = json.loads(JsonFormatter().format(record("done", kind=ValueError, raw=b"\x00", many={1: {2: {3}}})))
    assert (line["kind"], line["raw"], line["many"]) == ("<class 'ValueError'>", "b'\\x00'", {"1": {"2": [3]}})


@pytest.mark.parametrize(
    "name",
    [
        "api_key", "apiKey", "X-Api-Key", "token", "access_token", "bearerTokens", "Authorization", "password",
        "smpp_password", "secret", "webhook_secret", "code", "otp", "text", "body", "content", "key", "pin", "Set-Cookie",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["s3cret", 123456, b"s3cret", ["s3cret"], {"a": "s3cret"}])
def test_field_with_a_secret_name_is_hidden(name: str, value: object) -> None:
    assert redact(name, value) == "***"
    assert redact("outer", [{name: value}]) == [{name: "***"}]


@pytest.mark.parametrize("name", ["token_id", "status_code", "carrier_code", "text_length", "message_id", "key_file"])
def test_field_that_only_sounds_secret_is_shown(name: str) -> None:
    assert redact(name, "shown") == "shown"


@pytest.mark.parametrize("value", [True, False, None])
def test_whether_a_secret_is_set_is_no_secret(value: object) -> None:
    assert redact("password", value) is value


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (TOKEN, "bl_***"),
        (f"'{TOKEN}', bt_{'a' * 20}.", "'bl_***', bt_***."),
        (f"bt_{'a' * 19}", f"bt_{'a' * 19}"),
        (f"x_bt_{'a' * 20}", "x_bt_***"),
        ("GET /sms?api_key=abc&to=1", "GET /sms?api_key=***&to=1"),
        ("/verify.php?bearerTokens=abc&verify=1", "/verify.php?bearerTokens=***&verify=1"),
        ("/send?to=1&text=hello%20you&x=1", "/send?to=1&text=***&x=1"),
        ("/verify?code=1234 HTTP/1.1", "/verify?code=*** HTTP/1.1"),
        ("Authorization: Bearer abc.def, next", "Authorization: ***, next"),
        ("authorization=Basic YWJj", "authorization=***"),
        ('{"password": "p w", "a": 1}', '{"password": ***, "a": 1}'),
        ("{'smpp_password': 'pw'}", "{'smpp_password': ***}"),
        ('token="a \\" b" c', "token=*** c"),
        ("postgresql://u:p@db/berid", "postgresql://***@db/berid"),
        ("exit code: 1, text: none", "exit code: 1, text: none"),
        ("mail to a@b.example", "mail to a@b.example"),
        ("رمز الدخول", "رمز الدخول"),
    ],
)
def test_text_is_cleaned(text: str, written: str) -> None:
    assert redact_text(text) == written
    assert json.loads(JsonFormatter().format(record("%s", text, note=text)))["event"] == written


@pytest.mark.usefixtures("untouched_logging")
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_setup_writes_the_level_and_above_to_standard_error_once(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setup("debug", log_format)
    setup("warning", log_format)
    logging.getLogger("berid.somewhere").info("not written")
    logging.getLogger("berid.somewhere").warning("written", extra={"password": "s3cret"})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "written" in lines[0]
    assert "s3cret" not in lines[0]
    assert lines[0].startswith("{") == (log_format == "json")


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "-_" * 100_000, "://a" * 50_000, "token " * 40_000, 'password="' + "\\" * 200_000, "bl_" * 70_000]
)  # fmt: skip
def test_long_text_is_cleaned_in_time_that_grows_with_its_length(text: str) -> None:
    began = time.perf_counter()
    redact_text(text)
    assert time.perf_counter() - began < 5  # takes hundredths of a second; a backtracking pattern takes minutes
