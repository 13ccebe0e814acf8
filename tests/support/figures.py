"""The figures of a process, as whoever scrapes them reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from berid.metrics import Metrics


def figures(metrics: Metrics) -> dict[str, float]:
    """Every series of ours as Prometheus would read it: `name{label=value,…}` → figure."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found
