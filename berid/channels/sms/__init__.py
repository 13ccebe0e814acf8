"""SMS: what may be said in how many parts, and the connectors that carry it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from berid.channels.sms import content
from berid.channels.sms.settings import read_settings
from berid.channels.sms.smpp import SmppConnector
from berid.domain.message import Submission
from berid.domain.routing import ConnectorSettings
from berid.flow.ports import Connector, Prepared, Runtime


class SmsChannel:
    """See `Channel`."""

    name: ClassVar[str] = "sms"
    max_parts: ClassVar[int] = content.MAX_PARTS
    """Parts of the longest text that is taken."""
    connectors: ClassVar[Mapping[str, Callable[[Runtime, ConnectorSettings], Connector]]] = {"smpp": SmppConnector}
    """What makes a connector, by kind."""

    def prepare(self, submission: Submission) -> Prepared:
        """See `Channel.prepare`, and `content.prepare` for the rules of this one."""
        return content.prepare(submission)

    def connector(self, rt: Runtime, settings: ConnectorSettings) -> Connector:
        """See `Channel.connector`."""
        _check_kind(self, settings.kind)
        return self.connectors[settings.kind](rt, settings)

    def check_settings(self, kind: str, settings: dict[str, Any]) -> None:
        """See `Channel.check_settings`."""
        _check_kind(self, kind)
        read_settings(settings)


def _check_kind(channel: SmsChannel, kind: str) -> None:
    if kind not in channel.connectors:
        raise ValueError(f"there is no connector kind {kind!r}; there is {', '.join(channel.connectors)}")


channel = SmsChannel()
