"""Telling an endpoint: what stays on record of a try."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

from berid.domain.report import Endpoint
from berid.flow.notify import tell_endpoint
from berid.net import Outbound
from tests.support.builders import ACCOUNT_ID, make_runtime
from tests.support.receiver import Hang, Receiver

WAITS_S = 0.2


class Plain:
    """A dialect whose events are empty."""

    def render(self, *_: Any) -> tuple[bytes, dict[str, str]]:
        return b"{}", {}


async def test_try_that_had_no_answer_says_how_long_it_waited(tmp_path: Path) -> None:
    async with Receiver() as receiver, make_runtime(tmp_path) as rt:
        receiver.always(Hang.FOREVER)
        await rt.http.close()
        rt.http = Outbound(
            allowed_networks=[ip_network("127.0.0.0/8")], timeout_s=WAITS_S, connect_timeout_s=WAITS_S / 2
        )
        rt.dialects = {"plain": Plain()}  # type: ignore[dict-item]
        endpoint = Endpoint(50, ACCOUNT_ID, 0, "plain", receiver.url(), "127.0.0.1", "", frozenset(), 1, "on")
        try:
            status, error, elapsed_ms, is_told = await tell_endpoint(rt, endpoint, [])
        finally:
            await rt.http.close()
    assert (status, is_told) == (0, False)
    assert error.startswith("timed_out")
    assert elapsed_ms >= WAITS_S * 900
