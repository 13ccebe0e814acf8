"""The description of the native API (OpenAPI 3.1), made from the endpoints that answer it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from inspect import cleandoc
from typing import Any

import msgspec

from berid import __version__
from berid.dialects.native.endpoint import KEY_MAX, PREFIX, Endpoint
from berid.dialects.native.problems import FAILURES, Problem, refusals
from berid.domain.errors import RefusalKind

COMMON = (
    RefusalKind.MALFORMED,
    RefusalKind.TOKEN_MISSING,
    RefusalKind.TOKEN_INVALID,
    RefusalKind.ACCOUNT_INACTIVE,
    RefusalKind.ADDRESS_NOT_ALLOWED,
    RefusalKind.SCOPE_MISSING,
    RefusalKind.STORE_AWAY,
)
"""What every endpoint may refuse a request for."""

_REF = "#/components/schemas/{name}"


def document(endpoints: Sequence[Endpoint]) -> bytes:
    """The document as JSON."""
    types = [kind for each in endpoints for kind in (each.body, each.answer, each.query) if kind is not None]
    unique = [*dict.fromkeys(types), Problem]
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
    for schema in components.values():
        if "description" in schema:
            schema["description"] = cleandoc(schema["description"])
    named = dict(zip(unique, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(PREFIX + each.path, {})[each.method.lower()] = _operation(each, named, components)
    for kind in {each.query for each in endpoints if each.query is not None}:
        components.pop(kind.__name__, None)
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Berid",
            "version": __version__,
            "description": "Send messages, see what became of them, and be told of it. Every refusal is a problem document; "
            "its `code` is explained on the page that `docs` names.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of an application: `bt_…` or `bl_…`.",
                }
            },
        },
    }
    return msgspec.json.encode(made)


def _operation(endpoint: Endpoint, named: dict[Any, dict[str, Any]], components: dict[str, Any]) -> dict[str, Any]:
    about = [endpoint.about] if endpoint.about else []
    if endpoint.scope is not None:
        about.append(f"Needs the right `{endpoint.scope.value}`.")
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}{re.sub(r'[^a-z]+', '_', endpoint.path)}".rstrip("_"),
        "summary": endpoint.summary,
        "description": " ".join(about),
        "parameters": _parameters(endpoint, components),
        "responses": _responses(endpoint, named),
    }
    if endpoint.body is not None:
        is_required = any(field.required for field in msgspec.structs.fields(endpoint.body))
        operation["requestBody"] = {
            "required": is_required,
            "content": {"application/json": {"schema": named[endpoint.body]}},
        }
    return operation


def _parameters(endpoint: Endpoint, components: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    if endpoint.query is not None:
        schema = components[endpoint.query.__name__]
        found += [
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": each}
            for name, each in schema["properties"].items()
        ]
    if endpoint.is_keyed:
        key = {"type": "string", "maxLength": KEY_MAX}
        found.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": key})
    return found


def _responses(endpoint: Endpoint, named: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done."}
    if endpoint.answer is not None:
        answer["content"] = {"application/json": {"schema": named[endpoint.answer]}}
    elif endpoint.types:
        answer["content"] = {kind: {} for kind in endpoint.types}
    codes: dict[int, list[str]] = {}
    for kind in (*COMMON, *endpoint.refusals):
        codes.setdefault(refusals[kind].status, []).append(kind.value)
    for status, (code, _) in FAILURES.items():
        if status != 404:
            codes.setdefault(status, []).append(code)
    problem = {"application/problem+json": {"schema": named[Problem]}}
    told = {
        str(status): {"description": "One of: " + ", ".join(f"`{code}`" for code in found) + ".", "content": problem}
        for status, found in sorted(codes.items())
    }
    return {str(endpoint.status): answer, **told}
