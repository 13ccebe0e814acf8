"""The figures of one process, for Prometheus: what GET /metrics shows and what `deploy/alerts.yml` watches.

Counters and histograms are fed by the flow as things happen, by batches where there are batches. Gauges are asked for at each
scrape: whoever knows a figure registers a function with `watch`. `docs/operations.md` lists every name for the person on call.

The library's own counters take a lock and cost a microsecond, its histograms two; a message would pay that six times. So the
cells here are plain numbers, written by the event loop's thread alone, and the library only collects and words them.

Labels come from closed or short lists (channels, dialects, states, connectors); never an account, a number or the id of
a message, which would make a new series each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The Content-Type of what `Metrics.render` gives."""

WATCHED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "berid_queue_depth": (
        "Deliveries and events that wait in a lane, in memory and in the table.",
        ("lane", "priority"),
    ),
    "berid_queue_oldest_age_seconds": ("How long the oldest due job of a lane has waited.", ("lane", "priority")),
    "berid_bind_up": ("1 if a connector can send, 0.5 if some of its binds are down, 0 if all are.", ("connector",)),
    "berid_money_balanced": ("1 if every balance equals the sum of its ledger entries, 0 if one does not.", ()),
    "berid_loop_lag_seconds": ("How late the event loop ran a timer, the worst since the last scrape.", ()),
    "berid_disk_free_bytes": ("Free space of the volume that holds the data folder or the database.", ("volume",)),
}
"""The gauges that `watch` knows: what each means, and its labels."""

_ACCEPT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_RESPONSE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COMMIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_COMMIT_OPERATIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)

Values = float | Mapping[Any, float]
"""What a watching function gives: one figure, or one for each tuple of label values. (A precise key type would refuse
`dict[tuple[str, int], int]`, since mappings are invariant in their keys.)"""

Key = tuple[object, ...]


class Metrics:
    """The figures of one process and the methods that feed them, to be called on the event loop's thread only.

    `connector` is the connector's id, `count` how many things happened at once, seconds are seconds.
    """

    def __init__(self) -> None:
        self._accepted = _Counter("berid_accepted", "Deliveries accepted.", "channel", "dialect", "mode")
        self._refused = _Counter("berid_refusals", "Reasons for which requests were refused.", "kind", "dialect")
        self._submitted = _Counter("berid_parts_submitted", "Message parts handed to a carrier.", "connector")
        self._outcomes = _Counter("berid_outcomes", "How tries to send ended.", "connector", "result")
        self._receipts = _Counter("berid_receipts", "Delivery reports from carriers.", "connector", "state")
        self._settled = _Counter("berid_settled", "Deliveries that changed to a state.", "channel", "state")
        self._callbacks = _Counter("berid_callbacks", "Events told to customers, by how the call ended.", "result")
        self._uncertain = _Counter("berid_uncertain", "Deliveries sent whose response never came.", "connector")
        self._parked = _Counter("berid_parked_receipts", "Reports kept because no delivery has their id.", "connector")
        self._dropped = _Counter("berid_dropped", "Things given up because there was no room for them.", "what")
        self._blind = _Counter("berid_watch_failures", "Gauges that could not be had at a scrape.", "name")
        self._accept = _Histogram("berid_accept_seconds", "From a request's arrival to its answer.", _ACCEPT_S)
        self._response = _Histogram(
            "berid_response_seconds", "From a submit to the carrier's response.", _RESPONSE_S, "connector"
        )
        self._commit = _Histogram("berid_commit_seconds", "Duration of grouped commits.", _COMMIT_S)
        self._operations = _Histogram(
            "berid_commit_operations", "Operations that shared one grouped commit.", _COMMIT_OPERATIONS
        )
        self._watching: dict[str, Callable[[], Values]] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def accepted(self, channel: str, dialect: str, mode: str, count: int = 1) -> None:
        """Deliveries were accepted; `mode` is test or live."""
        self._accepted.cells[channel, dialect, mode] += count

    def refused(self, kind: str, dialect: str) -> None:
        """A request was refused for this reason."""
        self._refused.cells[kind, dialect] += 1

    def submitted(self, connector: int, parts: int = 1) -> None:
        """Parts were handed to a carrier."""
        self._submitted.cells[connector,] += parts

    def outcome(self, connector: int, result: str, count: int = 1) -> None:
        """Tries to send ended: sent, temporary, throttled, permanent or uncertain."""
        self._outcomes.cells[connector, result] += count

    def receipt(self, connector: int, state: str, count: int = 1) -> None:
        """A carrier reported on deliveries."""
        self._receipts.cells[connector, state] += count

    def settled(self, channel: str, state: str, count: int = 1) -> None:
        """Deliveries changed to `state`."""
        self._settled.cells[channel, state] += count

    def callback(self, result: str, count: int = 1) -> None:
        """A call to a customer ended: told, or failed. `count` is the events it was to tell."""
        self._callbacks.cells[result,] += count

    def uncertain(self, connector: int, count: int = 1) -> None:
        """Deliveries left us and nobody knows whether they arrived."""
        self._uncertain.cells[connector,] += count

    def parked(self, connector: int, count: int = 1) -> None:
        """Reports came that no delivery knows, and were kept for later."""
        self._parked.cells[connector,] += count

    def dropped(self, what: str, count: int = 1) -> None:
        """Something was given up on purpose for want of room, such as log lines."""
        self._dropped.cells[what,] += count

    def accept_took(self, seconds: float) -> None:
        """A request was accepted or refused so long after it arrived."""
        self._accept.observe((), seconds)

    def response_took(self, connector: int, seconds: float) -> None:
        """A carrier answered a submit so long after it left."""
        self._response.observe((connector,), seconds)

    def commit(self, operations: int, seconds: float) -> None:
        """A grouped commit of so many operations took so long."""
        self._operations.observe((), operations)
        self._commit.observe((), seconds)

    def watch(self, name: str, read: Callable[[], Values]) -> None:
        """Let `read` give the gauge `name`, one of `WATCHED`, at each scrape.

        It must not wait for anything: figures from the database are read now and then by their owner and kept. It gives one
        figure, or a mapping from label values, in the order that `WATCHED` names them, to figures. If it raises, the gauge is
        left out of that scrape and berid_watch_failures_total grows. Raises ValueError for a name that is unknown or taken.
        """
        if name not in WATCHED:
            raise ValueError(f"{name} is not a gauge of this product")
        if name in self._watching:
            raise ValueError(f"{name} is watched already")
        self._watching[name] = read
        # Present with 0 from the start, so that Prometheus sees the first failure as a rise.
        self._blind.cells[name,] += 0

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Every metric without figures. The registry asks when this collector joins it."""
        for metric in self._metrics():
            yield metric.family()
        for name, (about, labels) in WATCHED.items():
            yield GaugeMetricFamily(name, about, labels=labels)

    def collect(self) -> Iterator[Metric]:
        """Every metric with the figures of this moment. The registry asks at each scrape."""
        for name, read in self._watching.items():
            about, labels = WATCHED[name]
            gauge = GaugeMetricFamily(name, about, labels=labels)
            try:
                values = read()
                for key, value in values.items() if isinstance(values, Mapping) else [((), values)]:
                    if len(key) != len(labels):
                        raise ValueError(f"{name} has the labels {labels}")
                    gauge.add_metric([str(part) for part in key], float(value))
            except Exception:
                # A figure that cannot be had must not take the others with it; that it is missing is a figure too.
                self._blind.cells[name,] += 1
            else:
                yield gauge
        for metric in self._metrics():
            yield metric.family()

    def _metrics(self) -> Iterator[_Counter | _Histogram]:
        return (value for value in vars(self).values() if isinstance(value, _Counter | _Histogram))


class _Cells(dict[Key, int]):
    """Counts by label values, 0 where nothing was counted yet."""

    def __missing__(self, key: Key) -> int:
        return 0


class _Counter:
    """A count for each combination of label values."""

    __slots__ = ("_about", "_labels", "_name", "cells")

    def __init__(self, name: str, about: str, *labels: str) -> None:
        self._name, self._about, self._labels = name, about, labels
        self.cells = _Cells()

    def family(self) -> Metric:
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for key, count in self.cells.items():
            family.add_metric([str(part) for part in key], count)
        return family


class _Histogram:
    """How often a figure fell below each bound, for each combination of label values."""

    __slots__ = ("_about", "_bounds", "_cells", "_labels", "_name")

    def __init__(self, name: str, about: str, bounds: tuple[float, ...], *labels: str) -> None:
        self._name, self._about, self._bounds, self._labels = name, about, bounds, labels
        self._cells: dict[Key, list[float]] = {}
        """One count per bound, one for all above the last, and the sum of the figures."""
        if not labels:
            self._cells[()] = self._new()

    def observe(self, key: Key, value: float) -> None:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = self._new()
        # A figure equal to a bound belongs below it: Prometheus' bounds are inclusive.
        cell[bisect_left(self._bounds, value)] += 1
        cell[-1] += value

    def family(self) -> Metric:
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        bounds = [*map(str, map(float, self._bounds)), "+Inf"]
        for key, cell in self._cells.items():
            counts = accumulate(cell[:-1])
            family.add_metric([str(part) for part in key], list(zip(bounds, counts, strict=True)), cell[-1])
        return family

    def _new(self) -> list[float]:
        return [0] * (len(self._bounds) + 2)
