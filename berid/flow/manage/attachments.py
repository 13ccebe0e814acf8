"""Files that accounts hand in: deposit slips, and the papers behind a sender name.

A file is handed in first and then belongs to one thing, for good; what belongs to nothing after a day goes. Its content is sealed
with the master key, so a copy of the database alone shows nobody's papers.
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence

from berid.base.ids import show
from berid.flow.manage.office import Office, missing, unfit, write_down
from berid.store import Tx, accounts, attachments
from berid.store.attachments import AttachmentRecord

LARGEST_BYTES = 5 * 1024 * 1024
"""Of one file: a page from a scanner or a telephone has one to four megabytes."""

ACCOUNT_BYTES = 200 * 1024 * 1024
"""Of all files of an account."""

KEPT_MS = 86_400_000
"""How long a file that belongs to nothing is kept."""

PER_THING = 20
"""Files of one request."""

_BEGINNINGS = {b"%PDF-": "application/pdf", b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
"""The types that are taken, by the bytes that they begin with: a name or a header can say anything."""


async def add_attachment(office: Office, actor: str, account_id: int, name: str, content: bytes) -> AttachmentRecord:
    """Take a file over: PDF, JPEG or PNG, up to LARGEST_BYTES. Raises `Refused`."""
    kind = next((kind for beginning, kind in _BEGINNINGS.items() if content.startswith(beginning)), None)
    if kind is None:
        raise unfit("content", "the file is no PDF, JPEG or PNG")
    if len(content) > LARGEST_BYTES:
        raise unfit("content", f"the file has {len(content)} bytes; up to {LARGEST_BYTES} are taken")
    now_ms = office.clock.now_ms()
    record = AttachmentRecord(
        id=office.ids.next(),
        account_id=account_id,
        subject="",
        name=_plain(name),
        type=kind,
        size_bytes=len(content),
        digest=await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest()),
        created_ms=now_ms,
    )
    sealed = await asyncio.to_thread(_seal, office, record.id, content)
    async with office.store.transaction() as tx:
        if await accounts.locked_account(tx, account_id) is None:
            raise missing("account")
        await attachments.remove_unused(tx, account_id, now_ms - KEPT_MS)
        if await attachments.stored_bytes(tx, account_id) + len(content) > ACCOUNT_BYTES:
            raise unfit("content", f"the files of an account have up to {ACCOUNT_BYTES} bytes together")
        await attachments.add(tx, record, sealed)
        detail = {"type": kind, "size_bytes": len(content), "sha256": record.digest}
        await write_down(office, tx, actor, account_id, "attachment.add", show("att", record.id), **detail)
    return record


async def read_attachment(office: Office, attachment_id: int, account_id: int | None) -> tuple[AttachmentRecord, bytes]:
    """A file of an account with its content; `account_id` None for the operator, who may see all.

    Raises `Refused` with NOT_FOUND, and `secret.Unreadable` if the master key was replaced.
    """
    async with office.store.read() as tx:
        found = await attachments.content(tx, attachment_id)
    if found is None or account_id not in (None, found[0].account_id):
        raise missing("file")
    return found[0], await asyncio.to_thread(_open, office, attachment_id, found[1])


async def attach(tx: Tx, account_id: int, identifiers: Sequence[int], subject: str, field: str) -> None:
    """Within a transaction: let files of an account belong to `subject`.

    Raises `Refused` naming `field` if one of them is not the account's, or belongs to something else.
    """
    wanted = set(identifiers)
    if not wanted:
        return
    if await attachments.give(tx, account_id, sorted(wanted), subject) != len(wanted):
        raise unfit(field, "one of these files is unknown, or belongs to another request; hand it in anew")
    if len((await attachments.of_subjects(tx, [subject]))[subject]) > PER_THING:
        raise unfit(field, f"up to {PER_THING} files belong to one request")


def _seal(office: Office, attachment_id: int, content: bytes) -> bytes:
    return bytes.fromhex(office.vault.seal(b64encode(content).decode(), _purpose(attachment_id)))


def _open(office: Office, attachment_id: int, sealed: bytes) -> bytes:
    return b64decode(office.vault.open(sealed.hex(), _purpose(attachment_id)))


def _purpose(attachment_id: int) -> str:
    """Bound to its row: no file opens in the place of another."""
    return f"file {attachment_id}"


def _plain(name: str) -> str:
    """A name without folders and without what cannot be shown, at most 100 characters; its end says the type, so that stays."""
    bare = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in bare if letter.isprintable()).strip()[-100:] or "file"
