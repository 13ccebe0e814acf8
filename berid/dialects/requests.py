"""The request log: what is asked at the web doors and how it ends, written beside the path and never in it.

The door hands a line over and goes on; twice a second what has come is redacted and written in small transactions. There is room
for WAITING_MAX lines, and of callers who are nobody's for STRANGERS_MAX at a time, so that whoever knocks at every door fills
neither the memory nor the disk; what finds no room is counted (`berid_dropped_total{what="request_log"}`) and lost.

Nothing secret is written. Of a path only what our own paths say is kept; of parameters the values of a short list of harmless
names (PLAIN), of others that we know (SHAPED) only what shape they have, and of all the rest how many there are: what is kept is
listed, so that a parameter nobody has thought of is not kept.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from berid.base.log import redact_text
from berid.dialects import caller_of
from berid.dialects.reading import Unreadable, read_fields, read_form
from berid.dialects.web import Request, Response
from berid.domain.account import Caller
from berid.domain.errors import Refused
from berid.flow.ports import Runtime
from berid.store import requests
from berid.store.hot import StoreAway
from berid.store.requests import RequestRecord

log = logging.getLogger("berid.requests")

WRITE_S = 0.5
"""How often what waits is written."""

WAITING_MAX = 2_000
"""Lines that may wait in memory; some 10 MB at the worst."""

BATCH_MAX = 100
"""Lines in one transaction: some two milliseconds, for which others wait on SQLite."""

STRANGERS_MAX = 50
"""Lines that may be of nobody who is known, each time that what waits is written: at most some eight million in a day."""

READ_MAX = 4_096
"""Bytes of query and body up to which parameters are kept."""

VALUE_MAX = 30
"""Characters of a value that is kept: fewer than any key of ours has."""

AGENT_MAX = 200
"""Characters of a User-Agent."""

PLAIN = {
    "category", "channel", "content_type", "country", "currency", "digits", "dryrun", "encoding", "kind", "lang",
    "language", "limit", "method", "mode", "priority", "report", "response_type", "returnJson", "scheduled",
    "scheduledDatetime", "scheduled_date", "scheduled_sms", "scheduled_time", "send_at", "sender", "sms_lang",
    "state", "status", "title", "type", "valid_for_s",
}  # fmt: skip
"""Parameters whose values are choices, times and sender names, in the words of every dialect."""

SHAPED = {
    "activeKey", "apiKey", "api_key", "audioUrl", "bearerTokens", "body", "callerId", "campaignName", "code",
    "cursor", "deleteId", "deleteKey", "id", "metadata", "mobile", "msg", "number", "numbers", "otp_code",
    "purpose", "raporid", "recipients", "reference", "requestId", "secret", "sentto", "smsId", "sms_id", "sms_text",
    "subject", "text", "texts", "to", "url",
}  # fmt: skip
"""Parameters of which it helps to know that they were there, and how long they were."""

OTHERS = "others"
"""The name under which all other parameters are counted."""


class _Line(msgspec.Struct):
    """A request as the door hands it over: raw, and not for storing."""

    at_ms: int
    elapsed_s: float
    caller: Caller | None
    request_id: str
    method: str
    path: str
    dialect: str
    status: int
    kinds: str
    address: str
    agent: str
    message_id: int
    query: bytes
    body: bytes | None
    content_type: str


class RequestLog:
    """The log of one process. `add` is called by the door, `run` by the process; `write` once more at its end."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._takes_all = rt.config.request_log == "all"
        self._waiting: deque[_Line] = deque()
        self._strangers = 0
        """Lines of nobody in this round of writing."""
        self.now_s = rt.clock.ticks_s
        """The clock by which `begun_s` of `add` is meant."""

    def wants(self, request: Request, status: int) -> bool:
        """Whether a request that ended so is written down. An answer may be a refusal whatever its status says."""
        return self._takes_all or status >= 400 or bool(request.refusals)

    def add(self, request: Request, response: Response, path: str, dialect: str, begun_s: float) -> None:
        """Take a line for what was answered. `path` is fit to be stored; so is nothing else until it is written."""
        if len(self._waiting) >= WAITING_MAX:
            self._rt.metrics.dropped("request_log")
            return
        if request.caller is None and not request.refusals:
            # A path or a method that nobody answers: whose mistake it is has not been asked.
            with suppress(Refused):
                caller_of(self._rt, request.bearer, request, dialect)
        query, body, content_type = request.raw
        if len(query) + len(body or b"") > READ_MAX:
            query, body = b"", None
        self._waiting.append(
            _Line(
                self._rt.clock.now_ms(),
                self.now_s() - begun_s,
                request.caller,
                request.id,
                request.method,
                path,
                dialect,
                response.status,
                " ".join(dict.fromkeys(refusal.kind.value for refusal in request.refusals)),
                request.address,
                request.header(b"user-agent"),
                request.message_id,
                query,
                body,
                content_type,
            )
        )

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._rt.clock.sleep(WRITE_S)
            await self.write()

    async def write(self) -> None:
        """Write what waits. While the store is away it stays, as long as there is room."""
        self._strangers = 0
        while self._waiting:
            batch = [self._waiting[place] for place in range(min(BATCH_MAX, len(self._waiting)))]
            written = 0
            try:
                records = self._records(batch)
                if records:
                    async with self._rt.store.transaction() as tx:
                        await requests.add(tx, records)
                written = len(records)
            except StoreAway:
                log.warning("the store is away; the request log waits", extra={"lines": len(self._waiting)})
                return
            except Exception:
                # A line that cannot be written is a fault of ours, and must not end the process that it is about.
                log.exception("some of the request log is lost", extra={"lines": len(batch)})
            for _ in batch:
                self._waiting.popleft()
            if len(batch) > written:
                self._rt.metrics.dropped("request_log", len(batch) - written)

    def _records(self, lines: list[_Line]) -> list[RequestRecord]:
        records = []
        for line in lines:
            self._strangers += line.caller is None
            if line.caller is not None or self._strangers <= STRANGERS_MAX:
                records.append(_record(self._rt.ids.next(), line))
        return records


def _record(identifier: int, line: _Line) -> RequestRecord:
    """The line as it may be stored."""
    caller = line.caller
    shown = redact_parameters(line.query, line.body, line.content_type)
    return RequestRecord(
        id=identifier,
        at_ms=line.at_ms,
        account_id=caller.account.id if caller is not None else 0,
        application_id=caller.application.id if caller is not None else 0,
        mode=caller.mode if caller is not None else "",
        request_id=redact_text(line.request_id),
        method=line.method[:16],
        path=line.path,
        dialect=line.dialect,
        status=line.status,
        kinds=line.kinds,
        elapsed_us=round(line.elapsed_s * 1_000_000),
        address=line.address,
        agent=redact_text(line.agent[:AGENT_MAX]).replace("\x00", ""),
        message_id=line.message_id,
        parameters=msgspec.json.encode(shown).decode() if shown else "",
    )


def redact_parameters(query: bytes, body: bytes | None, content_type: str) -> dict[str, object]:
    """What may be stored of a request's parameters: see the module's text. Nothing if they cannot be read."""
    try:
        fields: Mapping[str, Any] = {**read_form(query), **read_fields(body or b"", content_type)}
    except (Unreadable, msgspec.ValidationError):
        return {}
    shown: dict[str, object] = {}
    others = 0
    for name, value in fields.items():
        if name in PLAIN and _is_short(value):
            shown[name] = redact_text(value) if isinstance(value, str) else value
        elif name in PLAIN or name in SHAPED:
            shown[name] = _shape(value)
        else:
            others += 1
    return shown | {OTHERS: others} if others else shown


def _is_short(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= VALUE_MAX
    return value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 53)


def _shape(value: object) -> str:
    """What a value is, without what it says."""
    if isinstance(value, str):
        return f"text of {len(value)}"
    if isinstance(value, list):
        return f"list of {len(value)}"
    if isinstance(value, dict):
        return f"object of {len(value)}"
    return "nothing" if value is None else "number"
