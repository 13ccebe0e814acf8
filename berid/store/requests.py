"""The request log: what was asked at the web doors, and how it ended. Written in batches, read newest first.

A list walks the log from its newest line and looks at no more than a *window* of lines in one call, so that a rare find in a
long log costs several short calls instead of one long one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, insert, select

from berid.store import Tx
from berid.store.tables import request_log

WINDOW = 5_000
"""Lines that one call looks at, at most."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request. `path` is that of the route, with `{names}` for its parameters; `kinds` the reasons of a refusal,
    with spaces between; `message_id` the message that it made (of a batch the last one); `parameters` a JSON object,
    redacted. 0 and "" stand for nothing and nobody.
    """

    id: int
    at_ms: int
    account_id: int
    application_id: int
    mode: str
    request_id: str
    method: str
    path: str
    dialect: str
    status: int
    kinds: str
    elapsed_us: int
    address: str
    agent: str
    message_id: int
    parameters: str


@dataclass(frozen=True, slots=True)
class WantedRequests:
    """Which requests a list is asked for; what is empty or 0 wants all. `kind` is any of the reasons.

    `since_id` and `until_id` are ids (`base.ids.first_id_at`), the second one exclusive.
    """

    mode: str = ""
    application_id: int = 0
    message_id: int = 0
    request_id: str = ""
    method: str = ""
    path: str = ""
    dialect: str = ""
    status: int = 0
    kind: str = ""
    since_id: int = 0
    until_id: int = 0


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Some requests, newest first. `next_id` is what `before_id` must be to go on, 0 at the end of the list.

    A page may hold fewer than asked for, none even, and yet not be the last: its window was full of others.
    """

    requests: Sequence[RequestRecord]
    next_id: int


_RECORD = [request_log.c[name] for name in RequestRecord.__slots__]
_EQUAL = ("mode", "application_id", "message_id", "request_id", "method", "path", "dialect", "status")


async def add(tx: Tx, records: Sequence[RequestRecord]) -> None:
    """Append lines, one at least."""
    names = RequestRecord.__slots__
    rows = [{name: getattr(record, name) for name in names} for record in records]
    await tx.execute(insert(request_log), rows)


async def page(tx: Tx, account_id: int | None, wanted: WantedRequests, before_id: int, limit: int) -> RequestPage:
    """Up to `limit` requests older than `before_id` (0: from the newest) that fit: an account's, or with None everyone's.

    Requests of nobody who is known are account 0's.
    """
    until_id = min([bound for bound in (before_id, wanted.until_id) if bound], default=1 << 53)
    last = (
        await tx.execute(
            _between(select(request_log.c.id), account_id, wanted.since_id, until_id)
            .order_by(request_log.c.id.desc())
            .offset(WINDOW)
            .limit(1)
        )
    ).scalar()
    low_id = last + 1 if last else 0
    query = _between(select(*_RECORD), account_id, max(low_id, wanted.since_id), until_id)
    for name in _EQUAL:
        if value := getattr(wanted, name):
            query = query.where(request_log.c[name] == value)
    if wanted.kind:
        query = query.where((" " + request_log.c.kinds + " ").contains(f" {wanted.kind} ", autoescape=True))
    rows = await tx.execute(query.order_by(request_log.c.id.desc()).limit(limit + 1))
    found = [RequestRecord(*row) for row in rows]
    if len(found) > limit:
        return RequestPage(found[:limit], found[limit - 1].id)
    return RequestPage(found, low_id)


def _between(query: Select[Any], account_id: int | None, since_id: int, until_id: int) -> Select[Any]:
    query = query.where(request_log.c.id >= since_id, request_log.c.id < until_id)
    return query if account_id is None else query.where(request_log.c.account_id == account_id)
