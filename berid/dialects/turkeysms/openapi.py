"""The description of this dialect (OpenAPI 3.1), at PATH.

It says what is taken, which is more than the provider documents: numbers for texts, twins of names, queries and forms for JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from berid import __version__
from berid.dialects.turkeysms import codes

PATH = "/api/v1/openapi/turkeysms.json"

_WORD = {"type": ["string", "number", "null"]}
_NUMBERS = {
    "type": ["string", "number", "array", "null"],
    "items": {},
    "description": "A number, numbers with commas between them, or a list of numbers.",
}
_LANG = {**_WORD, "description": "0 English (plain letters), 1 Turkish letters, 2 whatever the text needs. Default 2."}

PARAMETERS: dict[str, dict[str, Any]] = {
    "api_key": {**_WORD, "description": "The key. It is in no log."},
    "response_type": {**_WORD, "description": "`json` or `php`; without it print_r, or JSON if Accept names it."},
    "report": {**_WORD, "description": "0 or 2: an empty answer if all went well."},
    "title": {**_WORD, "description": "A sender name of the account, letter for letter."},
    "text": {**_WORD, "description": "What is sent."},
    "texts": {"type": ["array", "string", "null"], "items": {}, "description": "A text for each number."},
    "sms_text": {**_WORD, "description": "What is sent, with TS_CODE for the code and TS-L for a new line."},
    "sentto": _NUMBERS,
    "mobile": _NUMBERS,
    "number": _NUMBERS,
    "sms_lang": _LANG,
    "lang": _LANG,
    "content_type": {**_WORD, "description": "0 transactional, 1 high quality, 2 advertising. Default 0."},
    "digits": {**_WORD, "description": "4, 5 or 6. Default 4 in V3, 6 in V4."},
    "scheduled_sms": {**_WORD, "description": "1: send at the planned time."},
    "scheduled_date": {**_WORD, "description": "YYYY-MM-DD"},
    "scheduled_time": {**_WORD, "description": "HH:MM, by the clock of Istanbul unless the operator says otherwise."},
    "sms_id": {**_WORD, "description": "The id that a sending answered."},
    "raporid": {**_WORD, "description": "The `rapor_id` that sending to a list answered."},
    "otp_code": {**_WORD, "description": "What the person typed."},
}
"""Every parameter by name. `texts` is sent as `text`."""

_SCHEDULE = ("scheduled_sms", "scheduled_date", "scheduled_time")
SENDING = ("title", "text", "sentto", "sms_lang", "content_type", *_SCHEDULE)
SENDING_BY_GET = ("title", "text", "mobile", "lang", "content_type", *_SCHEDULE)
MIXED = ("title", "texts", "sentto", "sms_lang", "content_type", *_SCHEDULE)
CODE = ("mobile", "digits", "lang")
DETAILED_CODE = ("title", "sms_text", "mobile", "digits", "lang")
"""The parameters of the kinds of paths, besides those that all have."""

_EVERY_V3 = ("api_key", "response_type", "report")
_EVERY_V4 = ("api_key",)

_SAID = {"schema": {"$ref": "#/components/schemas/Said"}}
_JSON = {"application/json": _SAID}
_PRINT_R = {"text/plain": {"schema": {"type": "string"}}}


@dataclass(frozen=True, slots=True)
class Described:
    """One path: its methods, what it is for, its parameters besides those that all of its generation have."""

    path: str
    methods: tuple[str, ...]
    about: str
    parameters: tuple[str, ...]
    is_v4: bool = False


def document(paths: Iterable[Described]) -> bytes:
    """The document as JSON."""
    texts = "".join(f"\n- `{code}` {text}" for code, text in sorted(codes.TEXTS.items()))
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Berid for TurkeySMS clients",
            "version": __version__,
            "description": f"V3 answers HTTP 200 whatever happens; V4 the status of its code. Codes:\n{texts}",
        },
        "servers": [{"url": "/"}],
        "paths": {each.path: {method.lower(): _operation(each, method) for method in each.methods} for each in paths},
        "components": {
            "schemas": {
                "Said": {
                    "type": "object",
                    "required": ["result"],
                    "properties": {
                        "result": {"type": "boolean"},
                        "result_code": {"type": "string", "pattern": "^TS-1[0-9]{3}$"},
                        "result_message": {"type": "string"},
                    },
                }
            }
        },
    }
    return msgspec.json.encode(made)


def _operation(each: Described, method: str) -> dict[str, Any]:
    names = ((_EVERY_V4 if each.is_v4 else _EVERY_V3), each.parameters)
    properties = {("text" if name == "texts" else name): PARAMETERS[name] for part in names for name in part}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", each.path)
    ]
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{each.path}").strip("_"),
        "summary": each.about,
        "parameters": parameters,
        "responses": _responses(each.is_v4),
    }
    if method == "GET":
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": schema.get("description", ""),
            }
            for name, schema in properties.items()
        ]
        return operation
    body = {"schema": {"type": "object", "properties": properties}}
    operation["requestBody"] = {
        "required": False,
        "content": {"application/json": body, "application/x-www-form-urlencoded": body},
    }
    return operation


def _responses(is_v4: bool) -> dict[str, Any]:
    if not is_v4:
        said = {"description": "Done, or why not.", "content": {**_JSON, **_PRINT_R}}
        return {"200": said, "405": {"description": "Another method.", "content": {**_JSON, **_PRINT_R}}}
    found: dict[str, list[str]] = {
        "200": [codes.SENT],
        "405": [codes.INCORRECT],
        "408": [codes.WAIT],
        "413": [codes.INCORRECT],
    }
    for words in codes.REFUSALS.values():
        found.setdefault(str(words.status), []).append(words.code or "TS-1061 or TS-1065")
    return {
        status: {"description": ", ".join(dict.fromkeys(told)), "content": _JSON}
        for status, told in sorted(found.items())
    }
