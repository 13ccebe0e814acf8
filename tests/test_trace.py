"""Traces: nothing when off, one span a step when on, sent to the collector over HTTP."""

from __future__ import annotations

import asyncio

from berid.config import Tracing
from berid.trace import Trace
from tests.support.receiver import Receiver


def test_without_tracing_a_span_is_nothing() -> None:
    trace = Trace()
    with trace.span("accept", recipients=1):
        pass
    trace.close()
    assert not trace.is_on


async def test_spans_reach_the_collector_when_the_process_ends() -> None:
    async with Receiver() as collector:
        trace = Trace(Tracing(enabled=True, endpoint=collector.url("/v1/traces")))
        with trace.span("accept", recipients=3):
            pass
        await asyncio.to_thread(trace.close)
        await collector.wait_for(1, 5.0)
        body = collector.requests[0].body
    assert b"accept" in body
    assert b"berid.recipients" in body
