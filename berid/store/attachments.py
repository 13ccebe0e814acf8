"""Files that accounts have handed in: deposit slips, and the papers behind a sender name. Their contents are sealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update

from berid.store import Tx
from berid.store.tables import attachment


@dataclass(frozen=True, slots=True)
class AttachmentRecord:
    """A file without its content. `subject` is the public id of what it belongs to, "" for nothing yet; `digest` its SHA-256."""

    id: int
    account_id: int
    subject: str
    name: str
    type: str
    size_bytes: int
    digest: str
    created_ms: int


_COLUMNS = [attachment.c[name] for name in AttachmentRecord.__slots__]


async def add(tx: Tx, record: AttachmentRecord, sealed: bytes) -> None:
    """Insert a file."""
    values = {name: getattr(record, name) for name in record.__slots__}
    await tx.execute(insert(attachment).values(**values, content=sealed))


async def stored_bytes(tx: Tx, account_id: int) -> int:
    """How much an account's files hold together."""
    found = await tx.execute(
        select(func.coalesce(func.sum(attachment.c.size_bytes), 0)).where(attachment.c.account_id == account_id)
    )
    return int(found.scalar_one())


async def remove_unused(tx: Tx, account_id: int, before_ms: int) -> None:
    """Delete an account's files that were handed in before a moment and never belonged to anything."""
    await tx.execute(
        delete(attachment).where(
            attachment.c.account_id == account_id, attachment.c.subject == "", attachment.c.created_ms < before_ms
        )
    )


async def content(tx: Tx, attachment_id: int) -> tuple[AttachmentRecord, bytes] | None:
    """A file of whichever account, with its sealed content."""
    found = await tx.execute(select(*_COLUMNS, attachment.c.content).where(attachment.c.id == attachment_id))
    row = found.first()
    return (AttachmentRecord(*row[:-1]), row[-1]) if row else None


async def give(tx: Tx, account_id: int, identifiers: Sequence[int], subject: str) -> int:
    """Let files of an account belong to a thing, and return how many there are: those of another thing are not given."""
    given = await tx.execute(
        update(attachment)
        .where(
            attachment.c.account_id == account_id,
            attachment.c.id.in_(identifiers),
            attachment.c.subject.in_(("", subject)),
        )
        .values(subject=subject)
    )
    return given.rowcount


async def of_subjects(tx: Tx, subjects: Sequence[str]) -> dict[str, list[AttachmentRecord]]:
    """The files of some things, oldest first, by subject. Whoever names the subjects may see them."""
    found: dict[str, list[AttachmentRecord]] = {subject: [] for subject in subjects}
    rows = await tx.execute(select(*_COLUMNS).where(attachment.c.subject.in_(subjects)).order_by(attachment.c.id))
    for row in rows:
        record = AttachmentRecord(*row)
        found[record.subject].append(record)
    return found


async def twins(tx: Tx, digests: Sequence[str]) -> list[AttachmentRecord]:
    """The files of all accounts with one of these digests that belong to something."""
    query = select(*_COLUMNS).where(attachment.c.digest.in_(digests), attachment.c.subject != "")
    return [AttachmentRecord(*row) for row in await tx.execute(query.order_by(attachment.c.id))]
