"""The journal of a delivery: what happened to it, line by line.

Two lines are not written as long as the delivery itself tells them, as it does of nearly all: that a carrier has taken it
(*sent*), and that the receipt which followed found it delivered. A `Story` is what their details are read from. Of a
delivery with carrier's ids the line *sent* is written or told; one with `report_ms` tells the line *delivered*.
"""

from __future__ import annotations

from typing import Any, Protocol


class Story(Protocol):
    """What a delivery tells of its ordinary course."""

    @property
    def connector_id(self) -> int:
        """The connector that sent it."""

    @property
    def carrier_ids(self) -> str:
        """The carrier's ids of its parts, with commas between; "" before it is sent."""

    @property
    def attempt(self) -> int:
        """Which try it was that the carrier took."""

    @property
    def report_ms(self) -> int:
        """When the receipt came that found it delivered, if no line says so; else 0."""

    @property
    def report_code(self) -> str:
        """The carrier's code in that receipt."""


def sent_detail(story: Story) -> dict[str, Any]:
    """The details of the line *sent*."""
    return {"connector": story.connector_id, "carrier_ids": story.carrier_ids, "attempt": story.attempt}


def delivered_detail(story: Story) -> dict[str, Any]:
    """The details of the line *delivered*."""
    return {"connector": story.connector_id, "code": story.report_code, "at_ms": story.report_ms}
