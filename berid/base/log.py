"""Logging: one line per event, with fields, and nothing secret in it.

    _log = logging.getLogger(__name__)
    _log.info("bind refused", extra={"account_id": account_id, "reason": "window"})

The event is a constant sentence; what varies goes into fields. `setup` is called once by the process.

Everything that is written passes one redaction: fields whose names say secret, name=value pairs and
passwords in addresses within any text, and whatever looks like a token of ours, in tracebacks too. It is a
safety net: whoever logs still leaves message texts, codes and secrets out.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

HIDDEN = "***"

_SECRET_NAMES = {"body", "code", "content", "cookie", "key", "otp", "pin", "setcookie", "text"}
_SECRET_ENDINGS = ("apikey", "authorization", "otp", "passphrase", "password", "secret", "token", "tokens")
"""Of field names without case and punctuation: access_token, x-api-key and bearerTokens are secret."""

_TOKEN = re.compile(r"(?<![0-9A-Za-z])(b[tl]_)[0-9A-Za-z_-]{20,}")
# name=value, name: value, "name": "value". Only names that are not also plain words: an exit code is no secret.
_PAIR = re.compile(
    r"""((?:api[_-]?key|authorization|passphrase|password|secret|tokens?)["']?\s*[=:]\s*)"""
    r"""(?:b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'|(?:(?:bearer|basic)\s+)?[^\s"',;&})]+)""",
    re.IGNORECASE,
)
_QUERY = re.compile(r"([?&](?:body|code|content|message|msg|otp|pin|text)=)[^\s&\"']+", re.IGNORECASE)
_USERINFO = re.compile(r"(://)[^\s/@]+@")

# What every record has of itself; the rest came by extra=. uvicorn repeats its message with colours in one.
_OWN_ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
# A line break or an escape sequence in a value must not look like a line or a colour of ours.
_CONTROLS = {number: f"\\x{number:02x}" for number in [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]}


def setup(level: str, log_format: str) -> None:
    """Send all logging of the process to standard error: `level` and above, as "json" or "text".

    Replaces what an earlier call has set up. Python's warnings are logged as well.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # At debug level this one writes every statement with its values: texts, numbers, hashes.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    # The web server tells its own life line by line; the process tells it already.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, event, the fields, and error with its traceback.

    A field that has the name of one of the first four gets a trailing underscore.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line for `record`."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redact_text(record.getMessage()),
        }
        for name, value in _fields(record).items():
            line[f"{name}_" if name in line else name] = value
        if trace := _trace(self, record):
            line["error"] = trace
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """For a person: time, level, logger, event, then name=value; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for `record`."""
        event = redact_text(record.getMessage())
        pairs = [f"{name}={_as_text(value)}" for name, value in _fields(record).items()]
        words = [_time(record), f"{record.levelname.lower():7}", record.name, event, *pairs]
        line = " ".join(words).translate(_CONTROLS)
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


def redact(name: str, value: object) -> object:
    """`value` as it may be logged under `name`: hidden if the name says secret, else cleaned, however deep.

    Numbers and truth values stay as they are; anything that JSON does not know becomes its text.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if value is None or isinstance(value, bool):
        return value
    if plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDINGS):
        return HIDDEN
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {redact_text(str(key)): redact(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact("", item) for item in value]
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """`text` without tokens of ours, values of secret names, and users and passwords in addresses."""
    text = _TOKEN.sub(rf"\1{HIDDEN}", text)
    text = _PAIR.sub(rf"\1{HIDDEN}", text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    return _USERINFO.sub(rf"\1{HIDDEN}@", text)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What the caller gave by extra=, redacted."""
    return {name: redact(name, value) for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback and the stack that belong to a record, or nothing."""
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return redact_text("\n".join(parts))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_text(value: object) -> str:
    """A field's value on one line; quoted where a space would end it."""
    if isinstance(value, str) and value and not re.search(r'[\s"=]', value):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
