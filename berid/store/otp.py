"""The SQL of one-time passwords. Every function names the application that sent the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, text, update

from berid.store import Tx
from berid.store.tables import delivery, otp


@dataclass(frozen=True, slots=True)
class Recent:
    """What happened to a number and purpose in the window: sends, checks used, and when the oldest send was."""

    sends: int
    checks_used: int
    oldest_ms: int


async def lock_number(tx: Tx, application_id: int, number: str, purpose: str) -> None:
    """Let one request at a time count for a number. SQLite has one writer anyway."""
    if tx.dialect.name == "postgresql":
        key = f"otp:{application_id}:{number}:{purpose}"
        await tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


async def recent(tx: Tx, application_id: int, number: str, purpose: str, since_ms: int) -> Recent:
    """Sends and checks of a number and purpose since a moment; codes that were never sent do not count."""
    row = (
        await tx.execute(
            select(
                func.count(),
                func.coalesce(func.sum(otp.c.checks_used), 0),
                func.coalesce(func.min(otp.c.created_ms), 0),
            ).where(
                otp.c.application_id == application_id,
                otp.c.recipient == number,
                otp.c.purpose == purpose,
                otp.c.created_ms > since_ms,
                otp.c.state != "unsent",
            )
        )
    ).one()
    return Recent(row[0], int(row[1]), row[2])


async def add(tx: Tx, row: dict[str, Any]) -> None:
    """Store a new code, which counts from now on."""
    await tx.execute(otp.insert().values(**row))


async def unsent(tx: Tx, application_id: int, identifier: int) -> None:
    """The message of a code was not accepted: it never counts."""
    await tx.execute(
        update(otp).where(otp.c.id == identifier, otp.c.application_id == application_id).values(state="unsent")
    )


async def sent(
    tx: Tx, application_id: int, number: str, purpose: str, identifier: int, message_id: int, delivery_id: int
) -> None:
    """Remember which message carries a code; earlier open ones of the same number and purpose are replaced by it.

    To be called under `lock_number`: two that replace the same codes would wait for one another.
    """
    await tx.execute(
        update(otp)
        .where(otp.c.id == identifier, otp.c.application_id == application_id)
        .values(message_id=message_id, delivery_id=delivery_id)
    )
    await tx.execute(
        update(otp)
        .where(
            otp.c.application_id == application_id,
            otp.c.recipient == number,
            otp.c.purpose == purpose,
            otp.c.state == "open",
            otp.c.id < identifier,
        )
        .values(state="replaced")
    )


async def find(tx: Tx, application_id: int, identifier: int) -> Any | None:
    """A code's row by its id."""
    return (await tx.execute(select(otp).where(otp.c.id == identifier, otp.c.application_id == application_id))).first()


async def newest(tx: Tx, application_id: int, number: str, purpose: str) -> Any | None:
    """The last code sent to a number for a purpose."""
    return (
        await tx.execute(
            select(otp)
            .where(
                otp.c.application_id == application_id,
                otp.c.recipient == number,
                otp.c.purpose == purpose,
                otp.c.state != "unsent",
            )
            .order_by(otp.c.id.desc())
            .limit(1)
        )
    ).first()


async def spend_check(tx: Tx, application_id: int, identifier: int, now_ms: int) -> Any | None:
    """Use up one check before the code is looked at. None when none is left, or the code is no longer open."""
    return (
        await tx.execute(
            update(otp)
            .where(
                otp.c.id == identifier,
                otp.c.application_id == application_id,
                otp.c.state == "open",
                otp.c.checks_left > 0,
                otp.c.expires_ms > now_ms,
            )
            .values(checks_left=otp.c.checks_left - 1, checks_used=otp.c.checks_used + 1)
            .returning(otp.c.digest, otp.c.checks_left)
        )
    ).first()


async def verify(tx: Tx, application_id: int, identifier: int, now_ms: int) -> bool:
    """Close a code as verified; True for the one caller who did."""
    closed = await tx.execute(
        update(otp)
        .where(otp.c.id == identifier, otp.c.application_id == application_id, otp.c.state == "open")
        .values(state="verified", verified_ms=now_ms, digest="")
    )
    return bool(closed.rowcount)


async def conversion(tx: Tx, account_id: int, mode: str, since_ms: int) -> list[tuple[str, int, int, int]]:
    """By country since a moment: (country, codes sent, delivered, verified)."""
    rows = await tx.execute(
        select(
            otp.c.country,
            func.count(),
            func.count().filter(delivery.c.state.in_(("delivered", "read"))),
            func.count().filter(otp.c.state == "verified"),
        )
        .join(delivery, delivery.c.id == otp.c.delivery_id, isouter=True)
        .where(
            otp.c.account_id == account_id,
            otp.c.mode == mode,
            otp.c.created_ms > since_ms,
            otp.c.state != "unsent",
        )
        .group_by(otp.c.country)
        .order_by(otp.c.country)
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]
