"""The SQL of one-time passwords. Every function names the application that sent the code.

Codes are kept by the commit that accepts their message: `HotTx.codes`, `HotTx.replace_codes`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update

from berid.domain.otp import Recent
from berid.store import Tx
from berid.store.tables import delivery, otp


async def recent(tx: Tx, application_id: int, number: str, purpose: str, since_ms: int) -> Recent:
    """Sends and checks of a number and purpose since a moment."""
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
            )
        )
    ).one()
    return Recent(row[0], int(row[1]), row[2])


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
        )
        .group_by(otp.c.country)
        .order_by(otp.c.country)
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]
