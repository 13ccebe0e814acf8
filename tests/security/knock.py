"""Requests to every operation of every dialect, made from the OpenAPI documents, so that a new one is knocked at by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from tests.security.house import NUMBER, V4_HOST, House

V4_PREFIX = "/turkeysms/v4"
"""What host names of their own leave out."""

KEYS = {"api_key": "api_key", "apiKey": "bearer", "bearerTokens": "bearer"}
"""Parameters that are credentials: which of the house's."""

LIKELY: dict[str, Any] = {
    "to": NUMBER,
    "recipients": NUMBER,
    "recipient": NUMBER,
    "sentto": NUMBER,
    "mobile": NUMBER,
    "number": NUMBER,
    "numbers": NUMBER,
    "sender": "Berid",
    "title": "Berid",
    "country": "TR",
    "currency": "TRY",
    "channel": "sms",
    "purpose": "signin",
    "sms_text": "Your code is TS_CODE",
    "returnJson": 1,
    "response_type": "json",
    "amount": "1.5",
    "limit": "10",
    "url": "http://127.0.0.1:1024/hook",
    "valid_from": "2030-01-01",
    "csv": "prefix,price\n90,1\n",
    "state": None,
    "cursor": None,
    "scheduledDatetime": None,
    "scheduled": None,
    "scheduled_sms": None,
    "scheduled_date": None,
    "scheduled_time": None,
    "activeKey": None,
    "report": None,
    "send_at": "2030-01-01T10:00:00Z",
    "expires_at": None,
    "digits": None,
    "lang": None,
    "language": None,
    "sms_lang": None,
    "content_type": None,
    "raporid": "1",
    "sms_id": "1",
    "method": "sms",
    "text": "Your code is {code} TS_CODE",
    "documents": None,
    "slips": None,
    "product": "sms",
    "countries": ["DE"],
    "prefixes": None,
    "rows": "brandCode,recipient,type,source,status\n1,905321234567,MESAJ,HS_WEB,ONAY\n",
    "currencies": ["TRY"],
    "hours": None,
    "jobs": ["job_1"],
    "content": "iVBORw0KGgo=",
    "path": None,
    "dialect": None,
    "status": None,
    "kind": None,
    "wallet": "TRY",
    "services": None,
    "scopes": ["*"],
    "events": None,
    "priority": None,
}
"""What gets far, by the name of the parameter; None: better left out."""


EXACTLY: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/v1/operator/connectors"): {
        "name": "another",
        "kind": "smpp",
        "settings": {"host": "127.0.0.1", "port": 1024, "system_id": "berid", "password": "carrierp"},
        "state": "off",
    },
    ("PATCH", "/api/v1/operator/connectors/{id}"): {"settings": {"password": "carrierp"}, "state": "off"},
}
"""Parameters that fit one operation only."""


@dataclass
class Knock:
    """One request. `fields` stand in the query if `in_query`, else in a JSON body; None: nothing is said."""

    dialect: str
    method: str
    path: str
    fields: dict[str, Any] | None
    in_query: bool
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""
    raw: bytes | None = None
    """A body instead of the fields."""

    @property
    def target(self) -> str:
        """The path with its query."""
        texts = {
            name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in (self.fields or {}).items()
        }
        query = "&".join(filter(None, [self.query, urlencode(texts) if self.in_query else ""]))
        return self.path + (f"?{query}" if query else "")

    @property
    def body(self) -> bytes:
        """What is sent."""
        if self.raw is not None:
            return self.raw
        return b"" if self.in_query or self.fields is None else msgspec.json.encode(self.fields)

    def but(self, **changes: Any) -> Knock:
        """The same with something else."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Heard:
    """An answer."""

    status: int
    kind: str
    headers: Mapping[str, str]
    body: bytes


async def send(house: House, http: aiohttp.ClientSession, knock: Knock) -> Heard:
    """Knock, and hear what is answered."""
    from yarl import URL

    headers = {"Content-Type": "application/json", **knock.headers}
    url = URL(house.url + knock.target, encoded=True)
    async with http.request(knock.method, url, data=knock.body or None, headers=headers) as answer:
        kind = answer.headers.get("content-type", "").partition(";")[0]
        return Heard(answer.status, kind, answer.headers, await answer.read())


def knocks(house: House) -> Iterator[tuple[str, Knock]]:
    """One request to every operation, with all its parameters, as good as they can be made up, and credentials that are right.

    With each its path as the document writes it.
    """
    for dialect, method, path, operation in sorted(house.operations(), key=lambda each: _ends_something(*each[1:3])):
        document = house.documents[dialect]
        in_query = "requestBody" not in operation
        if in_query:
            found = {each["name"]: each["schema"] for each in operation["parameters"] if each["in"] == "query"}
        else:
            (content, *_) = operation["requestBody"]["content"].values()
            found = _resolve(document, content["schema"])["properties"]
        fields = {name: _sample(document, schema, name, house) for name, schema in found.items()}
        if dialect == "native" and {"from", "to"} <= fields.keys():
            fields |= {"from": "2026-01-01T00:00:00Z", "to": "2040-01-01T00:00:00Z"}
        fields = {name: value for name, value in fields.items() if value is not None}
        fields |= {name: value for name, value in EXACTLY.get((method, path), {}).items() if name in found}
        if "connectors" in found:
            fields["connectors"] = [house.ids["connector"]]
        target = re.sub(r"\{\w+\}", "{}", path).replace("{}", quote(house.id_in(path)))
        headers = {"Authorization": f"Bearer {house.bearer}"}
        knock = Knock(dialect, method, target, fields or None, in_query, headers)
        yield path, knock
        if path.startswith(V4_PREFIX):
            at_root = {**headers, "host": V4_HOST}
            yield path, knock.but(path=target.removeprefix(V4_PREFIX), headers=at_root)


def _ends_something(method: str, path: str) -> bool:
    return method == "DELETE" or path.endswith(
        ("/withdraw", "/reject", "/suspend", "/cancel", "/delete", "/needs-info")
    )


def _resolve(document: Any, schema: Any) -> Any:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _sample(document: Any, schema: Any, name: str, house: House) -> Any:
    """A value for a parameter: by its name, else the simplest that its schema allows."""
    if name in KEYS:
        return getattr(house, KEYS[name])
    if name in LIKELY:
        return LIKELY[name]
    if name in house.ids:
        return house.ids[name]
    schema = _resolve(document, schema)
    if "anyOf" in schema:
        return _sample(document, schema["anyOf"][0], "", house)
    for key in ("const", "default"):
        if schema.get(key):
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        wanted = schema.get("required", ())
        return {each: _sample(document, schema["properties"][each], each, house) for each in wanted}
    if kind == "array":
        return [_sample(document, schema.get("items", {}), "", house)]
    if kind == "boolean":
        return False
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return "some text"
