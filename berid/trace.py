"""Traces for OpenTelemetry, off unless `tracing.enabled`: one span for each request, parcel, batch of reports and callback call.

There is no span per message on the hot path, only per batch, and no attribute holds a number, a text or a secret: ids and counts.
Switched off, a span costs one look at a boolean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from berid.config import Tracing

_NOTHING: AbstractContextManager[None] = nullcontext()


class TracingMissing(Exception):
    """Tracing is switched on, and its packages are not installed."""


class Trace:
    """Makes spans. `Trace(settings)` raises `TracingMissing`; `close` sends what is left."""

    def __init__(self, settings: Tracing | None = None) -> None:
        self.is_on = settings is not None and settings.enabled
        self._provider: Any = None
        self._tracer: Any = None
        if settings is None or not settings.enabled:
            return
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingMissing(
                "tracing.enabled needs the packages of requirements-tracing.txt; install them or switch it off"
            ) from error
        self._provider = TracerProvider(resource=Resource.create({"service.name": "berid"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.endpoint)))
        self._tracer = self._provider.get_tracer("berid")

    def span(self, name: str, **attributes: str | int) -> AbstractContextManager[None]:
        """A span around a block; an exception that leaves the block marks it as failed."""
        if not self.is_on:
            return _NOTHING
        return self._span(name, attributes)

    @contextmanager
    def _span(self, name: str, attributes: dict[str, str | int]) -> Iterator[None]:
        with self._tracer.start_as_current_span(name, attributes={f"berid.{key}": v for key, v in attributes.items()}):
            yield

    def close(self) -> None:
        """Send what waits, within the exporter's own time limit."""
        if self._provider is not None:
            self._provider.shutdown()
