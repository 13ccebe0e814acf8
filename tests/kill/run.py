"""One run of the kill test on one store: kill, start again, and at the end look whether all is as promised."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import berid.flow
from berid import demo
from berid.channels.sms.simulator import CarrierSettings
from berid.domain.message import FINAL, State
from berid.domain.report import EVENT_OF_STATE
from berid.store.hot import Verb
from berid.store.hot_sqlite import WRITER_ENDED
from tests.kill.load import Load
from tests.support.site import Site, make_site

WINDOW = 50
"""The connector's window: the most that may be uncertain after one kill."""

RESPONSE_DELAY_S = 0.04
"""How long the carrier thinks about a submit: at full speed the window is half used."""

RATE = 600
"""Parts per second: less than the load at its peaks, so that lanes hold something when the process dies."""

WIRE = (
    "web.before_answer",
    "web.after_answer",
    "smpp.submit.before_write",
    "smpp.submit.after_write",
    "smpp.deliver.before_response",
    "smpp.deliver.after_response",
    "notify.before_post",
    "notify.after_post",
)
"""The failpoints at the wire: around the bytes of an HTTP answer, a submit, a deliver_sm_resp, a callback."""

WRITER = ("writer.before_commit", "writer.after_commit")
"""The failpoints of the process that writes SQLite's file."""

WRITER_DEATHS = 3
"""How often that process dies at one of them, at least, before the platform does."""

BY_THE_OPERATOR = frozenset({"cancel_jobs"})
"""Verbs of the operator's commands, which run in processes of their own."""

RULED = frozenset({"rules"})
"""Verbs that only a change of consent between yes and leaving brings about; tests/flow proves them."""

SETTLED = frozenset({*(state.value for state in FINAL), State.UNCERTAIN.value, State.SCHEDULED.value})
"""Where a delivery may be when the load is over."""

PASSES = dict.fromkeys(("accept", "start", "record", "settle", "tries", "web", "smpp", "notify"), (20, 120)) | {
    "lease": (1, 3),
    "receive": (2, 8),
    "cancel": (2, 8),
}
"""At which of its passes a failpoint kills: late enough that the load is there. What is missing here, at the first."""

VISIT_S = 45.0
"""How long a failpoint may take to be passed."""

DRAIN_S = 200.0
"""How long everything may take to settle after the last start. On PostgreSQL leases of the dead take two minutes to end."""


@dataclass
class Result:
    """What one run saw. `troubles` is empty if all is as promised."""

    store: str
    deaths: list[tuple[str, float, int]] = field(default_factory=list)
    """Where or when it died, how long it lived, and how many deliveries its death left uncertain."""
    accepted: int = 0
    submits: int = 0
    doubled: int = 0
    uncertain: int = 0
    unanswered: int = 0
    callbacks: int = 0
    repeated: int = 0
    doubts_seen: int = 0
    """How many deliveries deaths had left uncertain when we last looked."""
    troubles: list[str] = field(default_factory=list)


def verb_failpoints() -> list[str]:
    """`<verb>.before_commit` and `<verb>.after_commit` of every verb that there is."""
    names: dict[str, int] = {}
    for module in pkgutil.walk_packages(berid.flow.__path__, "berid.flow."):
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, Verb):
                names[found.name] = found.rank
    wanted = sorted(names.keys() - BY_THE_OPERATOR - RULED, key=lambda name: names[name])
    return [f"{name}.{place}" for name in wanted for place in ("before_commit", "after_commit")]


async def kill_again_and_again(
    folder: Path,
    database_url: str,
    failpoints: Sequence[str],
    kills: int,
    seed: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Die at each of `failpoints`, then `kills` times at random, under load; then let all settle and check it."""
    chance = random.Random(seed)
    result = Result("sqlite" if database_url.startswith("sqlite") else "postgres")
    settings = {
        "BERID_LOG_LEVEL": "warning",
        "BERID_NET_CALLBACK_SCHEDULE_S": "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
    }
    async with make_site(folder, database_url, settings, CarrierSettings(response_delay_s=RESPONSE_DELAY_S)) as site:
        await site.set_connector(window=WINDOW, rate=RATE, response_timeout_s=5.0)
        await site.add_money(100_000)
        await site.be_called_back(batch_max=20)
        load = Load(site, chance)
        load.start()
        for name in failpoints:
            await _visit(site, load, name, chance, result, say)
        for number in range(kills):
            began_s = time.monotonic()
            load.go_on()
            await site.berid.start()
            left = await _uncertain_after_start(site, result)
            await asyncio.sleep(chance.uniform(0.05, 2.0))
            site.berid.kill()
            _note(result, f"at random, {number + 1}", began_s, left, say)
        await site.berid.start()
        result.deaths.append(("the end", 0.0, await _uncertain_after_start(site, result)))
        await load.stop()
        await _settle(site, result)
        await _check(site, load, result)
        await site.berid.stop()
    return result


async def _visit(
    site: Site, load: Load, name: str, chance: random.Random, result: Result, say: Callable[[str], None]
) -> None:
    """Start armed with a failpoint, bring about what passes it, and wait for the death."""
    verb = name.partition(".")[0]
    began_s = time.monotonic()
    if name in WRITER:
        await _end_the_writer(site, load, f"{name}:{chance.randint(20, 60)}", result)
        _note(result, name, began_s, 0, say)
        return
    load.is_large = verb.startswith("load_")
    load.go_on()
    if verb == "give_up_parts":
        await _leave_a_part_over(site)
    await site.berid.start(f"{name}:{chance.randint(*PASSES.get(verb, (1, 1)))}")
    left = await _uncertain_after_start(site, result) if site.berid.is_running else 0
    while site.berid.is_running and time.monotonic() < began_s + VISIT_S:
        if verb == "give_back":
            for link in list(site.carrier._links):
                link.drop()
        elif verb == "drop":
            await _leave_a_job_over(site)
        await asyncio.sleep(0.1)
    load.is_large = False
    if site.berid.is_running:
        result.troubles.append(f"{name} was never passed")
        site.berid.kill()
    elif site.berid.exit_code != -signal.SIGKILL:
        result.troubles.append(f"{name}: ended by itself with {site.berid.exit_code}")
    _note(result, name, began_s, left, say)


async def _end_the_writer(site: Site, load: Load, failpoint: str, result: Result) -> None:
    """The process that writes the file dies again and again, and the platform goes on; then that dies too."""
    load.go_on()
    said = site.berid.log.count(WRITER_ENDED)
    await site.berid.start(failpoint)
    left = await _uncertain_after_start(site, result)
    if left > WINDOW:
        result.troubles.append(f"before {failpoint}: {left} deliveries became uncertain by one death")
    deaths, until_s = 0, time.monotonic() + VISIT_S
    while deaths < WRITER_DEATHS and site.berid.is_running and time.monotonic() < until_s:
        await asyncio.sleep(0.1)
        deaths = site.berid.log.count(WRITER_ENDED) - said
    if not site.berid.is_running:
        result.troubles.append(f"{failpoint}: the platform ended with {site.berid.exit_code}")
    if deaths < WRITER_DEATHS:
        result.troubles.append(f"{failpoint} was passed {deaths} times in place of {WRITER_DEATHS}")
    site.berid.kill()


async def _leave_a_part_over(site: Site) -> None:
    """The first part of a person's message whose other part never came, from long ago."""
    await site.ask(
        "INSERT INTO inbound_part (connector_id, sender, recipient, reference, number, total, body, received_ms) "
        "SELECT $1, '966500009998', 'Nobody', count(*) + 1, 1, 2, 'half of it', 1 FROM inbound_part",
        site.connector_id,
    )


async def _leave_a_job_over(site: Site) -> None:
    """A job whose delivery has reached its end, as no crash leaves it; a dispatcher must throw it away."""
    await site.ask(
        "INSERT INTO job (id, kind, lane, priority, account_id, due_ms) SELECT id, 'dispatch', $1, 1, account_id, 1 "
        "FROM delivery WHERE state = 'delivered' AND NOT EXISTS (SELECT 1 FROM job WHERE job.id = delivery.id) LIMIT 1",
        f"c{site.connector_id}",
    )


async def _uncertain_after_start(site: Site, result: Result) -> int:
    """Wait until the link is bound again; how many deliveries the last death has left uncertain."""
    await _bound(site)
    ((count,),) = await site.ask(
        "SELECT count(*) FROM event WHERE kind = 'uncertain' AND detail LIKE '%process_ended%'"
    )
    left: int = count - result.doubts_seen
    result.doubts_seen = count
    return left


async def _bound(site: Site) -> None:
    end_s = time.monotonic() + 30
    while site.berid.is_running and time.monotonic() < end_s:
        binds = site.carrier.binds.get(demo.CARRIER_LOGIN)
        if binds is not None and binds.now:
            return
        await asyncio.sleep(0.05)


def _note(result: Result, name: str, began_s: float, left: int, say: Callable[[str], None]) -> None:
    result.deaths.append((name, time.monotonic() - began_s, left))
    if left > WINDOW:
        result.troubles.append(
            f"before {name}: {left} deliveries became uncertain by one death, the window is {WINDOW}"
        )
    say(f"  {name:34} {time.monotonic() - began_s:6.1f} s   {left:3} left uncertain by the death before")


_STATES = (
    "SELECT d.state, count(*) FROM delivery d JOIN message m ON m.id = d.message_id "
    "WHERE m.state <> 'loading' GROUP BY d.state"
)


_WAITING = "SELECT count(*) FROM job WHERE kind = 'callback' AND buried_ms = 0 AND lane NOT LIKE 'hsmpp:%'"
"""Callbacks that somebody could be told now. What is for the customer who binds waits for him, and here he never comes."""


async def _settle(site: Site, result: Result) -> None:
    """Wait until nothing moves any more: every delivery settled, every callback told."""
    end_s = time.monotonic() + DRAIN_S
    while True:
        states = dict(await site.ask(_STATES))
        ((waiting,),) = await site.ask(_WAITING)
        if states.keys() <= SETTLED and not waiting:
            break
        if time.monotonic() > end_s:
            result.troubles.append(f"not settled after {DRAIN_S:g} s: {states}, {waiting} callbacks wait")
            break
        await asyncio.sleep(0.2)
    await asyncio.sleep(1.0)


async def _check(site: Site, load: Load, result: Result) -> None:
    """Hold what customers were told, what we wrote down and what the carrier saw against each other."""
    troubles = result.troubles
    # What a process of another slot was loading when it died is undone after ten minutes; it was never accepted.
    rows = await site.ask(
        "SELECT d.id, d.recipient, d.state FROM delivery d JOIN message m ON m.id = d.message_id WHERE m.state <> 'loading'"
    )
    doubts = Counter(
        {
            row[0]: row[1]
            for row in await site.ask(
                "SELECT delivery_id, count(*) FROM event WHERE kind = 'uncertain' GROUP BY delivery_id"
            )
        }
    )
    taken = Counter(
        submitted.pdu.destination_addr for submitted in site.carrier.submits if submitted.status in (0, None)
    )
    recipients = Counter(row[1] for row in rows)
    result.accepted = len(load.accepted)
    result.submits = taken.total()
    result.unanswered = load.broken
    result.uncertain = len(doubts)

    _say_some(troubles, "answers were not as expected", load.wrong)
    _say_some(troubles, "accepted and not in the database", load.accepted - recipients.keys())
    _say_some(troubles, "several deliveries for one request", [each for each, count in recipients.items() if count > 1])
    _say_some(troubles, "at the carrier and never asked for", taken.keys() - load.asked)
    _say_some(troubles, "at the carrier and not in the database", taken.keys() - recipients.keys())
    lost, silent = [], []
    for identifier, number, state in rows:
        if not taken[number] and not doubts[identifier] and state not in ("cancelled", "scheduled"):
            lost.append(f"{number} ({state})")
        if taken[number] > 1:
            result.doubled += 1
            if taken[number] > 1 + doubts[identifier]:
                silent.append(f"{number}: {taken[number]} times, uncertain {doubts[identifier]} times")
        if taken[number] and state in ("cancelled", "scheduled"):
            silent.append(f"{number} was submitted although {state}")
        if state == "delivered" and not taken[number]:
            troubles.append(f"{number} is delivered, and the carrier never saw it")
    _say_some(troubles, "lost", lost)
    _say_some(troubles, "doubled in silence", silent)
    try:
        await site.check_books()
    except AssertionError as error:
        troubles.append(f"the books: {error}")
    _check_callbacks(site, rows, result)


def _check_callbacks(site: Site, rows: Sequence[tuple[object, ...]], result: Result) -> None:
    """Every end was told, and when it was told more than once, as the same event."""
    told: dict[tuple[str, str], Counter[str]] = {}
    for request in site.receiver.requests:
        body = msgspec.json.decode(request.body)
        for event in body.get("events", [body]):
            if "delivery_id" in event["data"]:
                told.setdefault((event["data"]["delivery_id"], event["type"]), Counter())[event["id"]] += 1
    result.callbacks = sum(ids.total() for ids in told.values())
    result.repeated = sum(ids.total() - 1 for ids in told.values())
    final = {state.value for state in FINAL}
    untold = [
        f"{number} ({state})"
        for identifier, number, state in rows
        if state in final and (f"dlv_{identifier}", EVENT_OF_STATE[State(str(state))]) not in told
    ]
    _say_some(result.troubles, "ends that nobody was told of", untold)
    _say_some(result.troubles, "told as different events", [str(key) for key, ids in told.items() if len(ids) > 1])


def _say_some(troubles: list[str], what: str, found: Sequence[str] | set[str]) -> None:
    if found:
        some = ", ".join(sorted(found)[:5])
        troubles.append(f"{len(found)} {what}: {some}")
