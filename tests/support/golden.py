"""Golden pairs: a request, and the answer to it byte for byte, kept in `.http` files that people can read.

    ### The provider's own example
    POST /v1/messages
    Authorization: Bearer {{token}}

    {"recipients":[966500000000],"body":"Hi","sender":"Acme"}

    HTTP/1.1 201
    Content-Type: application/json

    {"statusCode":201,"messageId":{{int:first}},"rejected":"[]"}

A line that begins with `###` starts a pair and names it; one that begins with `//` is a comment, where no body is. The
answer begins with `HTTP/1.1`. Lines of a body are joined by newlines (in a multipart form by CR LF, as RFC 2046 wants), blank
lines around it are dropped. Of the answer's headers only those that are written must be there, and an answer without a body must
have none.

`{{name}}` stands for a value that the test gives. In an answer `{{int}}` stands for digits and `{{text}}` for any characters but
a double quote; `{{int:first}}` also keeps what it stood for, so that a later pair of the same file may say `{{first}}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.dialects.asgi import Answer, call

_PLACEHOLDER = re.compile(r"\{\{(\w+)(?::(\w+))?\}\}")
_PATTERNS = {"int": r"-?\d+", "text": r'[^"]*'}


@dataclass(frozen=True)
class Pair:
    """One request and the answer that is expected, as written, with the placeholders in them. `where` is file and line."""

    title: str
    where: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: str
    status: int
    answer_headers: Mapping[str, str]
    answer_body: str


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a file, in order. Raises ValueError, with the line, for what is not a pair."""
    pairs: list[Pair] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("###")]
    if not starts:
        raise ValueError(f"{path.name}: no pair begins with ###")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        where = f"{path.name}:{start + 1}"
        block = lines[start + 1 : end]
        answers = [number for number, line in enumerate(block) if line.startswith("HTTP/1.1 ")]
        if len(answers) != 1:
            raise ValueError(f"{where}: a pair has one answer, this one has {len(answers)}")
        first, headers, body = _read_message(block[: answers[0]], where)
        answer, answer_headers, answer_body = _read_message(block[answers[0] :], where)
        method, _, target = first.partition(" ")
        title = lines[start].removeprefix("###").strip()
        pairs.append(
            Pair(title, where, method, target, headers, body, int(answer.split()[1]), answer_headers, answer_body)
        )
    return pairs


def _read_message(lines: list[str], where: str) -> tuple[str, dict[str, str], str]:
    """The first line, the headers and the body of a request or an answer."""
    rest = iter(lines)
    first = next((line for line in rest if line.strip() and not line.startswith("//")), "")
    if not first:
        raise ValueError(f"{where}: a request line is missing")
    headers: dict[str, str] = {}
    for line in rest:
        if not line.strip():
            break
        if line.startswith("//"):
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"{where}: {line!r} is not a header")
        headers[name.strip().lower()] = value.strip()
    return first.strip(), headers, "\n".join(rest).strip()


async def replay(app: Any, pair: Pair, values: MutableMapping[str, str], **options: Any) -> Answer:
    """Send the request of a pair to an ASGI application and compare the answer; the values it keeps are added to `values`.

    `options` are `asgi.call`'s. Raises AssertionError that names the pair, KeyError for a placeholder without a value.
    """
    body = _fill(pair.body, values)
    if pair.headers.get("content-type", "").startswith("multipart/"):
        body = body.replace("\n", "\r\n") + "\r\n"
    answer = await call(
        app,
        pair.method,
        _fill(pair.target, values),
        body.encode(),
        {name: _fill(value, values) for name, value in pair.headers.items()},
        **options,
    )
    what = f"{pair.where} {pair.title}"
    got = answer.body.decode()
    assert answer.status == pair.status, f"{what}: {answer.status} {got}"
    for name, expected in pair.answer_headers.items():
        found = answer.headers.get(name)
        assert found is not None, f"{what}: no header {name}"
        _compare(expected, found, values, f"{what}, header {name}")
    _compare(pair.answer_body, got, values, what)
    return answer


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _compare(expected: str, got: str, values: MutableMapping[str, str], what: str) -> None:
    pattern, names, place = "", [], 0
    for found in _PLACEHOLDER.finditer(expected):
        pattern += re.escape(expected[place : found.start()])
        kind, name = found.groups()
        if kind not in _PATTERNS:
            pattern += re.escape(values[kind])
        else:
            pattern += f"({_PATTERNS[kind]})"
            names.append(name)
        place = found.end()
    pattern += re.escape(expected[place:])
    matched = re.fullmatch(pattern, got)
    assert matched is not None, f"{what}\nexpected {expected}\ngot      {got}"
    values.update({name: value for name, value in zip(names, matched.groups(), strict=True) if name})
