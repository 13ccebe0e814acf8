"""SMPP 3.4 for customers: they bind to us, submit, and get their receipts and their customers' messages.

`codes` has the numbers, `submit` and `told` translate, `bind` is one connection, `outlet` the way out to one
application, `server` all of them. docs/smpp.md is the page for customers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from berid.dialects.smpp.codes import REFUSALS
from berid.dialects.smpp.server import DIALECT, Server
from berid.domain.errors import RefusalKind
from berid.domain.report import Endpoint
from berid.flow.ports import Runtime, Tell
from berid.wire.smpp.codes import CommandStatus


class SmppDialect:
    """The dialect as the product knows it. It has no web addresses, and tells its customers over their binds."""

    name = DIALECT
    refusals: Mapping[RefusalKind, CommandStatus] = REFUSALS

    def routes(self, rt: Runtime) -> Sequence[object]:
        """Nothing is answered over HTTP."""
        return ()

    async def listen(self, rt: Runtime) -> tuple[int | None, int | None]:
        """Take binds, and return the plain port and the TLS port, None where there is none. Raises OSError."""
        server = Server(rt)
        rt.binds = server
        return await server.open()

    async def shut(self, rt: Runtime) -> None:
        """Unbind everybody in good order. Does nothing if `listen` was not called."""
        server, rt.binds = rt.binds, None
        if server is not None:
            await server.shut()

    def render(self, rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[bytes, dict[str, str]]:
        """Never asked: endpoints of this kind are told by `Server.deliver`."""
        raise NotImplementedError("SMPP customers are told over their binds")

    def is_told(self, rt: Runtime, endpoint: Endpoint, status: int, body: bytes) -> bool:
        """Never asked, like `render`."""
        raise NotImplementedError("SMPP customers are told over their binds")


dialect = SmppDialect()
