"""SMPP 3.4 for customers: they bind to us, submit, and get their receipts and their customers' messages.

`codes` has the numbers, `submit` and `told` translate, `bind` is one connection, `outlet` the way out to one
application, `server` all of them. docs/smpp.md is the page for customers.
"""

from __future__ import annotations

from collections.abc import Mapping

from berid.dialects.smpp.codes import REFUSALS
from berid.dialects.smpp.server import DIALECT, Server
from berid.domain.errors import RefusalKind
from berid.flow.ports import Runtime
from berid.wire.smpp.codes import CommandStatus


class SmppDialect:
    """The dialect. See `ports.Listener`."""

    name = DIALECT
    refusals: Mapping[RefusalKind, CommandStatus] = REFUSALS

    async def listen(self, rt: Runtime) -> tuple[int | None, int | None]:
        """See `Listener.listen`."""
        server = Server(rt)
        rt.binds = server
        return await server.open()

    async def shut(self, rt: Runtime) -> None:
        """See `Listener.shut`: unbind everybody."""
        server, rt.binds = rt.binds, None
        if isinstance(server, Server):
            await server.shut()


dialect = SmppDialect()
