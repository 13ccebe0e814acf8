"""Forgets what its class's time is over for: texts, deliveries, callbacks, keys. Once an hour, a page at a time, and never fast
enough to be in anybody's way."""

from __future__ import annotations

import logging

from berid.flow.ports import Runtime
from berid.store import retention, tables
from berid.store.hot import StoreAway

log = logging.getLogger("berid.retention")

EVERY_S = 3600.0
PAUSE_S = 0.05
"""Between two pages, so that requests come first."""

_DAY_MS = 86_400_000


def classes(rt: Runtime) -> list[tuple[str, int, retention.Forgotten]]:
    """What is forgotten: (name, after how many milliseconds, which rows). 0 days keeps nothing longer than it is needed."""
    times = rt.config.retention
    return [
        ("contents", times.content_days * _DAY_MS, retention.CONTENTS),
        ("inbound contents", times.content_days * _DAY_MS, retention.INBOUND_CONTENTS),
        ("messages", times.deliveries_days * _DAY_MS, retention.MESSAGES),
        ("one-time passwords", times.deliveries_days * _DAY_MS, retention.of(tables.otp)),
        ("inbound", times.deliveries_days * _DAY_MS, retention.of(tables.inbound)),
        ("callbacks", times.callbacks_days * _DAY_MS, retention.CALLBACKS),
        ("carrier references", times.callbacks_days * _DAY_MS, retention.CARRIER_REFS),
        ("parked receipts", times.parked_receipts_days * _DAY_MS, retention.of(tables.parked_report)),
        ("request log", times.requests_days * _DAY_MS, retention.of(tables.request_log)),
        ("audit", times.events_days * _DAY_MS, retention.of(tables.audit)),
        ("idempotency keys", times.idempotency_hours * 3_600_000, retention.IDEMPOTENCY),
    ]


async def forget_all(rt: Runtime) -> dict[str, int]:
    """One whole round; returns how many rows went, by class."""
    gone: dict[str, int] = {}
    now_ms = rt.clock.now_ms()
    for name, age_ms, forgotten in classes(rt):
        while True:
            count = await retention.forget_page(rt.store, forgotten, now_ms - age_ms)
            gone[name] = gone.get(name, 0) + count
            if count < retention.PAGE:
                break
            await rt.clock.sleep(PAUSE_S)
    return gone


class Retention:
    """Runs a round every hour. On several processes more than one may: the second finds nothing."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt

    async def run(self) -> None:
        """Forget, until cancelled."""
        while True:
            await self._rt.clock.sleep(EVERY_S)
            try:
                gone = await forget_all(self._rt)
            except StoreAway as error:
                log.warning("the store is away; nothing was forgotten", extra={"why": str(error)})
                continue
            if any(gone.values()):
                log.info("forgotten", extra={"rows": gone})
