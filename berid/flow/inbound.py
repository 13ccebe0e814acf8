"""A message from a person to us: stored, its opt-out words honoured, its owner told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from berid.flow.ports import Runtime


@dataclass(frozen=True, slots=True)
class InboundSms:
    """One short message, or one part of a long one, as a carrier handed it over.

    `reference` ties the parts of a long message together (-1: not in parts), `number` of `total`.
    """

    connector_id: int
    sender: str
    recipient: str
    text: str
    reference: int
    number: int
    total: int
    received_ms: int


async def receive(rt: Runtime, messages: Sequence[InboundSms]) -> None:
    """Take messages over. On return they are on disk, and the carrier may be answered. Raises `StoreAway`."""
