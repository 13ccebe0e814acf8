"""The figures, and that the alarms and the pages about them speak of figures that exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from berid.metrics import WATCHED, Metrics, Values
from tests.support.figures import figures

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs/operations.md").read_text()
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"] for rule in group["rules"]
]


def labels_by_name() -> dict[str, set[str]]:
    """Every metric of ours with its labels, by the names under which its series appear."""
    metrics = Metrics()
    for feed in FEEDS:
        feed(metrics)
    for name, (_, labels) in WATCHED.items():
        key = tuple("x" for _ in labels)
        metrics.watch(name, lambda key=key: {key: 1.0})  # type: ignore[misc]
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


FEEDS: list[Callable[[Metrics], None]] = [
    lambda metrics: metrics.accepted("sms", "native", "live", 3),
    lambda metrics: metrics.refused("balance_short", "taqnyat"),
    lambda metrics: metrics.submitted(7, 2),
    lambda metrics: metrics.outcome(7, "sent"),
    lambda metrics: metrics.receipt(7, "delivered"),
    lambda metrics: metrics.settled("sms", "delivered"),
    lambda metrics: metrics.callback("told", 5),
    lambda metrics: metrics.uncertain(7),
    lambda metrics: metrics.parked(7),
    lambda metrics: metrics.dropped("log_lines", 4),
    lambda metrics: metrics.accept_took(0.004),
    lambda metrics: metrics.response_took(7, 0.2),
    lambda metrics: metrics.commit(100, 0.003),
]


@pytest.mark.parametrize(
    ("feed", "series", "figure"),
    [
        (FEEDS[0], "berid_accepted_total{channel=sms,dialect=native,mode=live}", 3),
        (FEEDS[1], "berid_refusals_total{dialect=taqnyat,kind=balance_short}", 1),
        (FEEDS[2], "berid_parts_submitted_total{connector=7}", 2),
        (FEEDS[3], "berid_outcomes_total{connector=7,result=sent}", 1),
        (FEEDS[4], "berid_receipts_total{connector=7,state=delivered}", 1),
        (FEEDS[5], "berid_settled_total{channel=sms,state=delivered}", 1),
        (FEEDS[6], "berid_callbacks_total{result=told}", 5),
        (FEEDS[7], "berid_uncertain_total{connector=7}", 1),
        (FEEDS[8], "berid_parked_receipts_total{connector=7}", 1),
        (FEEDS[9], "berid_dropped_total{what=log_lines}", 4),
        (FEEDS[10], "berid_accept_seconds_sum", 0.004),
        (FEEDS[11], "berid_response_seconds_sum{connector=7}", 0.2),
        (FEEDS[12], "berid_commit_operations_sum", 100),
        (FEEDS[12], "berid_commit_seconds_sum", 0.003),
    ],
)
def test_what_happens_twice_is_counted_twice(feed: Callable[[Metrics], None], series: str, figure: float) -> None:
    metrics = Metrics()
    assert figures(metrics).get(series, 0) == 0
    feed(metrics)
    assert figures(metrics)[series] == figure
    feed(metrics)
    assert figures(metrics)[series] == 2 * figure


def test_other_labels_are_counted_apart() -> None:
    metrics = Metrics()
    metrics.outcome(7, "sent", 2)
    metrics.outcome(7, "uncertain")
    metrics.outcome(8, "sent")
    found = figures(metrics)
    assert found["berid_outcomes_total{connector=7,result=sent}"] == 2
    assert found["berid_outcomes_total{connector=7,result=uncertain}"] == 1
    assert found["berid_outcomes_total{connector=8,result=sent}"] == 1


def test_a_histogram_counts_each_figure_in_its_bound_and_all_above() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.001, 0.0011, 4, 60):
        metrics.accept_took(seconds)
    found = figures(metrics)
    bounds = ("0.001", "0.0025", "2.5", "5.0", "+Inf")
    assert [found[f"berid_accept_seconds_bucket{{le={bound}}}"] for bound in bounds] == [2, 3, 3, 4, 5]
    assert found["berid_accept_seconds_count"] == 5
    assert found["berid_accept_seconds_sum"] == pytest.approx(64.0026)


def test_two_processes_in_one_interpreter_do_not_share_figures() -> None:
    first, second = Metrics(), Metrics()
    first.callback("told")
    assert "berid_callbacks_total{result=told}" not in figures(second)


def test_a_watched_gauge_is_asked_at_each_scrape() -> None:
    metrics = Metrics()
    lags = iter([0.5, 0.25])
    metrics.watch("berid_loop_lag_seconds", lambda: next(lags))
    assert figures(metrics)["berid_loop_lag_seconds"] == 0.5
    assert figures(metrics)["berid_loop_lag_seconds"] == 0.25


def test_a_watched_gauge_may_have_one_figure_for_each_label_and_fewer_the_next_time() -> None:
    metrics = Metrics()
    depths = {("connector:7", 0): 3, ("connector:7", 2): 40_000}
    metrics.watch("berid_queue_depth", lambda: depths)
    assert figures(metrics)["berid_queue_depth{lane=connector:7,priority=2}"] == 40_000
    del depths["connector:7", 2]
    assert "berid_queue_depth{lane=connector:7,priority=2}" not in figures(metrics)
    assert figures(metrics)["berid_queue_depth{lane=connector:7,priority=0}"] == 3


def broken() -> Values:
    raise RuntimeError("the database is away")


@pytest.mark.parametrize("read", [broken, lambda: {(1, 2): 1.0}, lambda: 1.0, lambda: {("7",): "up"}])
def test_a_gauge_that_cannot_be_had_is_left_out_and_counted_and_the_others_stay(read: Callable[[], Values]) -> None:
    metrics = Metrics()
    metrics.watch("berid_bind_up", read)
    metrics.watch("berid_money_balanced", lambda: 1)
    failures = "berid_watch_failures_total{name=berid_bind_up}"
    first, second = figures(metrics), figures(metrics)
    assert (first["berid_money_balanced"], second["berid_money_balanced"]) == (1, 1)
    assert not any(name.startswith("berid_bind_up") for name in first)
    assert (first[failures], second[failures]) == (1, 2)
    assert first["berid_watch_failures_total{name=berid_money_balanced}"] == 0


def test_a_gauge_nobody_knows_or_somebody_watches_already_is_refused() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="not a gauge"):
        metrics.watch("berid_moods", lambda: 1)
    metrics.watch("berid_money_balanced", lambda: 1)
    with pytest.raises(ValueError, match="already"):
        metrics.watch("berid_money_balanced", lambda: 0)


def test_a_label_value_may_hold_anything() -> None:
    metrics = Metrics()
    metrics.dropped('a "quoted\\" line\nbreak مرحبا')
    assert figures(metrics)['berid_dropped_total{what=a "quoted\\" line\nbreak مرحبا}'] == 1


def test_the_process_itself_is_measured() -> None:
    found = figures(Metrics())
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert found["process_cpu_seconds_total"] > 0


# ---- alarms and their pages ----


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alarm_reads_figures_and_labels_that_exist(rule: dict[str, Any]) -> None:
    known = labels_by_name()
    names = set(re.findall(r"\bberid_\w+", rule["expr"]))
    assert names
    assert names <= known.keys()
    labels = {"instance", "job", "le"}.union(*(known[name] for name in names))
    matched = set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~|!~)\"", rule["expr"]))
    grouped = {name for group in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for name in re.split(r",\s*", group)}
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert matched | grouped | shown <= labels
    assert not grouped or shown <= grouped


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alarm_says_how_urgent_it_is_and_leads_to_a_section_that_names_it(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    page, anchor = rule["annotations"]["runbook"].split("#")
    assert page == "docs/operations.md"
    section = sections()[anchor]
    assert f"`{rule['alert']}`" in section


def test_every_section_about_alarms_belongs_to_one() -> None:
    used = {rule["annotations"]["runbook"].split("#")[1] for rule in RULES}
    alarms = OPERATIONS.split("\n# Alarms\n")[1].split("\n# By day\n")[0]
    assert {slug(heading) for heading in re.findall(r"(?m)^## (.+)$", alarms)} == used


@pytest.mark.parametrize("name", sorted({re.sub(r"_(bucket|count|sum)$", "", name) for name in labels_by_name()}))
def test_every_figure_is_listed_for_the_person_on_call(name: str) -> None:
    if name.startswith("berid_"):
        known = labels_by_name()
        [labels] = re.findall(rf"(?m)^\| `{name}` \|([^|]*)\| [^|]+ \|$", OPERATIONS)
        assert set(filter(None, labels.strip().split(", "))) == known.get(name, known.get(f"{name}_sum"))


def test_links_inside_the_page_lead_somewhere() -> None:
    anchors = re.findall(r"\]\(#([\w-]+)\)", OPERATIONS)
    assert anchors
    assert set(anchors) <= sections().keys()


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections() -> dict[str, str]:
    """The page's sections by anchor."""
    parts = re.split(r"(?m)^#+ (.+)$", OPERATIONS)
    return {slug(heading): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}
