"""Files that an account hands in: slips for its top-up requests, papers for its sender names."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta

from berid.base.ids import show
from berid.dialects.native.endpoint import Call, Endpoint
from berid.dialects.native.shapes import read_id, rfc3339
from berid.dialects.web import Response
from berid.domain.account import Scope
from berid.domain.errors import RefusalKind
from berid.flow import manage
from berid.flow.manage import Office
from berid.store.attachments import AttachmentRecord

AttachmentIds = Annotated[list[Annotated[str, Meta(max_length=40)]], Meta(max_length=20)]


class NewAttachment(msgspec.Struct, forbid_unknown_fields=True):
    """A file to hand in: PDF, JPEG or PNG of up to 5 MiB, its `content` in base64."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    content: bytes


class Attachment(msgspec.Struct):
    """A file without its content. `sha256` is that of the content."""

    id: str
    name: str
    type: str
    bytes: int
    sha256: str
    created_at: str


async def add_attachment(call: Call[NewAttachment, None]) -> Attachment:
    """POST /attachments."""
    body = call.body
    return attachment(
        await manage.add_attachment(Office.of(call.rt), call.actor, call.caller.account.id, body.name, body.content)
    )


async def get_attachment(call: Call[None, None]) -> Response:
    """GET /attachments/{id}."""
    return await _content(call, call.caller.account.id)


async def get_any_attachment(call: Call[None, None]) -> Response:
    """GET /operator/attachments/{id}."""
    return await _content(call, None)


async def _content(call: Call[None, None], account_id: int | None) -> Response:
    """The file as it was handed in, to be kept and not to be shown: a browser runs nothing of it."""
    record, content = await manage.read_attachment(Office.of(call.rt), call.path_id("att"), account_id)
    headers = (
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(record.name, safe='')}".encode()),
        (b"x-content-type-options", b"nosniff"),
    )
    return Response(200, content, record.type.encode(), headers)


def attachment(each: AttachmentRecord) -> Attachment:
    """A file as it is shown."""
    return Attachment(
        show("att", each.id), each.name, each.type, each.size_bytes, each.digest, rfc3339(each.created_ms)
    )


def attachment_ids(texts: list[str], field: str) -> list[int]:
    """The ids of files that a body names. Raises `Refused` with MALFORMED."""
    return [read_id("att", each, field) for each in texts]


_NOT_FOUND = (RefusalKind.NOT_FOUND,)

_TYPES = ("application/pdf", "image/jpeg", "image/png")

ENDPOINTS = (
    Endpoint(
        "POST",
        "/attachments",
        add_attachment,
        "Hand a file in",
        Attachment,
        Scope.MANAGE,
        body=NewAttachment,
        status=201,
        about="Name it in a request within a day; a file that belongs to nothing goes then.",
        is_bulk=True,
    ),
    Endpoint(
        "GET",
        "/attachments/{id}",
        get_attachment,
        "A file",
        None,
        Scope.MANAGE,
        refusals=_NOT_FOUND,
        types=_TYPES,
    ),
    Endpoint(
        "GET",
        "/operator/attachments/{id}",
        get_any_attachment,
        "A file of any account",
        None,
        Scope.OPERATOR,
        refusals=_NOT_FOUND,
        types=_TYPES,
    ),
)
