"""The far sides of this channel's connectors, for the contract that all connectors share."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from berid.channels.sms.simulator import Carrier, CarrierSettings
from berid.domain.message import Outgoing
from tests.support.builders import make_outgoing


class SimulatedCarrier:
    """The fake carrier; its moods are the last four digits of the number."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._numbers = itertools.count(1)
        self.settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": carrier.port,
            "system_id": "berid",
            "password": "secret",
            "response_timeout_s": 0.4,
        }

    def taken(self) -> Outgoing:
        """See `FarSide.taken`."""
        return self._to("1234")

    def refused(self) -> Outgoing:
        """See `FarSide.refused`."""
        return self._to("0002")

    def unanswered(self) -> Outgoing:
        """See `FarSide.unanswered`."""
        return self._to("0010")

    def count(self, outgoing: Outgoing) -> int:
        """See `FarSide.count`."""
        return len(self._carrier.submits_to(outgoing.recipient))

    async def leave(self) -> None:
        """See `FarSide.leave`."""
        await self._carrier.stop()

    def _to(self, digits: str) -> Outgoing:
        return make_outgoing(f"9665{next(self._numbers):04d}{digits}")


@asynccontextmanager
async def simulated_carrier() -> AsyncIterator[SimulatedCarrier]:
    """A fake carrier that listens as long as the block."""
    carrier = Carrier(CarrierSettings(accounts={"berid": "secret"}))
    await carrier.start()
    try:
        yield SimulatedCarrier(carrier)
    finally:
        await carrier.stop()


FAR_SIDES = {"smpp": simulated_carrier}
