"""The description of this dialect (OpenAPI 3.1), for tools that read one; the provider publishes none.

Parameters have every type in which they are taken. Parameters that are not listed are ignored, on every path.
"""

from __future__ import annotations

from typing import Any

import msgspec

from berid import __version__
from berid.dialects.taqnyat import php, verify
from berid.dialects.taqnyat.reading import RECIPIENTS_MAX

PATH = "/api/v1/openapi/taqnyat.json"

_TEXT = {"type": ["string", "integer", "null"]}
_LIST = {
    "description": f"A list of up to {RECIPIENTS_MAX}, a text with commas, or one item.",
    "anyOf": [
        {"type": "array", "items": {"type": ["string", "integer", "null"]}},
        {"type": ["string", "integer", "null"]},
    ],
}
_TIME = {
    "type": ["string", "null"],
    "description": "YYYY-MM-DDTHH:MM in the provider's time zone, or with Z or an offset. Empty: now.",
}
_BEARER = {"type": ["string", "null"], "description": "The token, for clients that send no Authorization header."}

_SEND = {
    "recipients": _LIST,
    "body": _TEXT,
    "sender": _TEXT,
    "scheduledDatetime": _TIME,
    "scheduled": _TIME,
    "deleteId": _TEXT,
    "smsId": _TEXT,
    "bearerTokens": _BEARER,
}
_DELETE = {"deleteId": _TEXT, "deleteKey": _TEXT, "bearerTokens": _BEARER}
_VOICE = {"audioUrl": _TEXT, "callerId": _TEXT, "recipients": _LIST, "bearerTokens": _BEARER}
_MAIL = {
    "campaignName": _TEXT,
    "subject": _TEXT,
    "from": _TEXT,
    "to": _LIST,
    "msg": _TEXT,
    "bearerTokens": _BEARER,
}
_VERIFY = {
    "apiKey": _BEARER,
    "numbers": _LIST,
    "method": _TEXT,
    "sender": _TEXT,
    "lang": _TEXT,
    "requestId": _TEXT,
    "activeKey": _TEXT,
    "returnJson": {"type": ["string", "integer", "boolean", "null"]},
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_INT: dict[str, Any] = {"type": "integer"}
_STRING: dict[str, Any] = {"type": "string"}
_NULL: dict[str, Any] = {"type": "null"}
_ERROR = _object(ErrorCode=_INT, MessageAr=_STRING, MessageEn=_STRING)
_VOICE_DATA = _object(
    msgId=_STRING,
    result=_STRING,
    MessageAr=_STRING,
    MessageEn=_STRING,
    duration=_INT,
    dtmfTimeout=_STRING,
    connectionFee=_INT,
    price=_STRING,
    rejectedNumber=_STRING,
    Error=_STRING,
)
_MAIL_DATA = _object(msgId=_INT, result=_INT, MessageAr=_STRING, MessageEn=_STRING, price=_STRING)
_VERIFY_DATA = _object(id=_STRING, result=_INT, MessageAr=_STRING, MessageEn=_STRING)
_SUCCESS: dict[str, Any] = {"const": "success"}

_SCHEMAS: dict[str, Any] = {
    "Message": _object(statusCode=_INT, message=_STRING),
    "Sent": _object(
        statusCode=_INT,
        messageId=_INT,
        cost={"type": "number"},
        currency=_STRING,
        totalCount=_INT,
        msgLength=_INT,
        accepted=_STRING,
        rejected=_STRING,
    ),
    "Status": _object(statusCode=_INT, status=_object(service=_STRING, description=_STRING)),
    "Balance": _object(
        statusCode=_INT, accountStatus=_STRING, accountExpiryDate=_STRING, balance=_STRING, currency=_STRING
    ),
    "Senders": _object(
        statusCode=_INT,
        senders={"type": "array", "items": _object(senderName=_STRING, status=_STRING, destination=_STRING)},
    ),
    "Called": _object(status=_INT, ResponseStatus=_SUCCESS, messageId=_INT, Data=_VOICE_DATA, Error=_NULL),
    "Mailed": _object(status=_INT, ResponseStatus=_SUCCESS, Data=_MAIL_DATA, Error=_NULL),
    "Failed": _object(status=_INT, ResponseStatus={"const": "fail"}, Data=_NULL, Error=_ERROR),
    "Verified": {
        "description": "With returnJson an object; without it the bare number, as plain text.",
        **_object(status=_INT, ResponseStatus=_SUCCESS, Data=_VERIFY_DATA, Error=_NULL, code=_INT, message=_STRING),
    },
}


def document() -> bytes:
    """The document as JSON."""
    rest = {400: "Message", 401: "Message", 408: "Message", 413: "Message", 500: "Message"}
    failed = dict.fromkeys((400, 408, 413, 500), "Failed")
    checked = dict.fromkeys((200, 408, 413, 500), "Verified")
    balance = {200: "Balance", **rest}
    paths = {
        "/system/status": {"get": _operation("What is wrong, if anything is", {}, {200: "Status", 500: "Message"})},
        "/account/balance": {"get": _operation("What is left to spend", {"bearerTokens": _BEARER}, balance)},
        "/v1/account/balance": {"get": _operation("The same", {"bearerTokens": _BEARER}, balance)},
        "/v1/messages/senders": {
            "get": _operation("The account's sender names", {"bearerTokens": _BEARER}, {201: "Senders", **rest})
        },
        "/v1/messages": {
            "post": _operation("Send an SMS", _SEND, {201: "Sent", **rest}, has_body=True),
            "get": _operation("Send an SMS, by query", _SEND, {201: "Sent", **rest}),
            "delete": _operation("Delete what is scheduled", _DELETE, {201: "Message", 422: "Message", **rest}),
        },
        "/v1/messages/delete": {
            "delete": _operation("Delete what is scheduled", _DELETE, {201: "Message", 422: "Message", **rest}),
            "get": _operation("Delete what is scheduled, by query", _DELETE, {201: "Message", 422: "Message", **rest}),
        },
        php.VOICE_PATH: _both("Call and play a file", _VOICE, {201: "Called", **failed}),
        php.MAIL_PATH: _both("Send an e-mail", _MAIL, {201: "Mailed", **failed}),
        verify.PATH: _both("Send a one-time password, or judge a guess", _VERIFY, checked, also_text=True),
    }
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Berid, as Taqnyat's API",
            "version": __version__,
            "description": "For clients written against Taqnyat: the same paths, parameters and answers. The header "
            "X-Berid-Code of a refusal names its true reason.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    return msgspec.json.encode(made)


def _both(summary: str, fields: dict[str, Any], answers: dict[int, str], also_text: bool = False) -> dict[str, Any]:
    return {
        "post": _operation(summary, fields, answers, has_body=True, also_text=also_text),
        "get": _operation(f"{summary}, by query", fields, answers, also_text=also_text),
    }


def _operation(
    summary: str, fields: dict[str, Any], answers: dict[int, str], has_body: bool = False, also_text: bool = False
) -> dict[str, Any]:
    """One method of a path. Its parameters stand in the body or in the query; the server takes both from both."""
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {str(status): _response(name, also_text) for status, name in sorted(answers.items())},
    }
    if not has_body:
        # A query is text and knows no lists: its texts hold the commas.
        text = {"schema": {"type": "string"}}
        operation["parameters"] = [{"name": name, "in": "query", "required": False, **text} for name in fields]
        return operation
    schema = {"type": "object", "properties": fields}
    content = {"schema": schema}
    operation["requestBody"] = {
        "required": False,
        "content": {"application/json": content, "application/x-www-form-urlencoded": content},
    }
    return operation


def _response(name: str, also_text: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    if also_text:
        content["text/plain"] = {"schema": {"type": "string"}}
    return {"description": name, "content": content}
