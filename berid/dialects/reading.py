"""What strangers wrote, read as tolerantly as the providers' servers do, and never with a crash.

Official and home-made clients label JSON as a form, send forms by GET, repeat keys, begin with a byte order mark. Everything that
has one sensible meaning is taken; everything else is `Unreadable`, and so is what no database or carrier could take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header

FIELDS_MAX = 200_000
"""Fields of one form: room for the largest list of recipients written as repeated keys."""

_BOM = b"\xef\xbb\xbf"
_BEGINS_JSON = re.compile(rb"[ \t\r\n]*[\[{]").match
_NUL_IN_JSON = b"\\u0000"


class Unreadable(Exception):
    """The request's body or query is not what it claims to be. The text is a sentence for the caller; it quotes nothing."""


def read_fields(body: bytes, content_type: str) -> dict[str, Any]:
    """The parameters in a body: JSON if its first character says so, whatever its label says; else a form.

    Values of JSON keep their types, those of forms are text; a name that is repeated, or written `name[]`, holds a list. Of a
    key that JSON repeats the last value stands. A JSON list counts as the one object in it, or as nothing. Raises `Unreadable`.
    """
    body = body.removeprefix(_BOM)
    if _BEGINS_JSON(body):
        return _one_object(read_json(body))
    if content_type.lower().startswith("multipart/form-data"):
        return _read_multipart(body, content_type)
    return read_form(body.strip())


def read_json(body: bytes) -> Any:
    """Decode JSON that strangers wrote. Raises `Unreadable` for whatever no database or carrier could take as well.

    That is, besides broken JSON: text that is not UTF-8, halves of surrogate pairs, NUL characters, numbers beyond all bounds,
    nesting without end. Of a key that is repeated the last value stands. A byte order mark is skipped.
    """
    value = decode_json(body, msgspec.json.decode)
    refuse_nul(body, lambda: value)
    return value


def decode_json(body: bytes, decode: Callable[[bytes], Any]) -> Any:
    """`decode(body)`, with every way to fail told as `Unreadable`, but for a `msgspec.ValidationError` of the shape."""
    try:
        return decode(body.removeprefix(_BOM))
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            raise Unreadable("a number in the body is too large") from None
        raise
    except UnicodeDecodeError:
        raise Unreadable("the body is not UTF-8") from None
    except RecursionError:
        raise Unreadable("the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise Unreadable(f"the body is not JSON: {str(error).removeprefix('JSON is malformed: ')}") from None


def refuse_nul(body: bytes, value_of: Callable[[], Any]) -> None:
    """Raise `Unreadable` if a decoded body holds the character NUL. `value_of` gives it as plain lists, dicts and texts.

    Only a body that could hold one is looked through.
    """
    if _NUL_IN_JSON not in body:
        return
    waiting = [value_of()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and "\x00" in value:
            raise Unreadable("the body holds the character NUL")
        if isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _one_object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if not value:
        return {}
    if len(value) == 1 and isinstance(value[0], dict):
        return value[0]
    raise Unreadable("the body is a list; one object is expected")


def read_form(text: bytes) -> dict[str, Any]:
    """The fields of a query string or of an urlencoded form: texts, and lists of texts. Raises `Unreadable`."""
    if not text:
        return {}
    if b"%00" in text or b"\x00" in text:
        raise Unreadable("a field holds the character NUL")
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except UnicodeDecodeError:
        raise Unreadable("the fields are not UTF-8") from None
    except ValueError:
        raise Unreadable("there are too many fields") from None
    return _gather(pairs)


def _read_multipart(body: bytes, content_type: str) -> dict[str, Any]:
    """The text fields of a multipart form; files in it are passed over."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Unreadable("the multipart form names no boundary")
    found: list[tuple[str, str]] = []

    def keep(field: Any) -> None:
        found.append(((field.field_name or b"").decode(), (field.value or b"").decode()))

    try:
        in_memory = {"MAX_MEMORY_FILE_SIZE": len(body)}
        parser = FormParser("multipart/form-data", keep, lambda _: None, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except UnicodeDecodeError:
        raise Unreadable("the fields are not UTF-8") from None
    except (FormParserError, ValueError):
        raise Unreadable("the multipart form is broken") from None
    if any("\x00" in name or "\x00" in value for name, value in found):
        raise Unreadable("a field holds the character NUL")
    return _gather(found)


def _gather(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Pairs by name: `name[]` and `name[0]` are written by PHP and axios for the items of a list."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        base, bracket, index = name.partition("[")
        is_item = bool(bracket) and bool(base) and (index == "]" or index[:-1].isdigit())
        key = base if is_item else name
        if key not in fields:
            fields[key] = [value] if is_item else value
        elif isinstance(fields[key], list):
            fields[key].append(value)
        else:
            fields[key] = [fields[key], value]
    return fields
