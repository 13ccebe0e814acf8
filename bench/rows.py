"""The rows of the benchmark. Each takes a store and gives figures by name."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sqlalchemy import text

from bench import far
from bench.floors import Disk, commit_times
from bench.load import Render, Result, fire, get, post
from bench.stage import SENDER, Stage, stage
from berid.store import make_engine

TURNS = 6
"""How often two stores that are compared have their turn."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much each row does."""

    singles: int
    bulk_requests: int
    group: int
    queued: int
    otps: int
    history: int
    limit_s: float


FULL = Size(
    singles=60_000, bulk_requests=100, group=100_000, queued=1_000_000, otps=1_000, history=10_000_000, limit_s=30.0
)
QUICK = Size(singles=10_000, bulk_requests=20, group=20_000, queued=20_000, otps=100, history=200_000, limit_s=10.0)


def number(place: int) -> str:
    """A Saudi mobile number that is in nobody's mood."""
    return f"96650{place % 1_000_000:06d}9"


def native(token: str, recipients: int = 1, keyed: bool = True) -> Render:
    """Native POSTs, each with its own idempotency key."""

    def render(place: int) -> bytes:
        to = [number(place * recipients + each) for each in range(recipients)]
        body = json.dumps(
            {"to": to if recipients > 1 else to[0], "text": f"Order {place} is on its way", "sender": SENDER}
        )
        return post("/api/v1/messages", token, body.encode(), _key(place) if keyed else "")

    return render


def _key(place: int) -> str:
    """An idempotency key as most callers make it: a UUID, in no order."""
    return str(uuid.UUID(int=place * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)))


def taqnyat_post(token: str) -> Render:
    """Taqnyat's documented call."""
    return lambda place: post(
        "/v1/messages",
        token,
        json.dumps(
            {"recipients": [int(number(place))], "body": f"Order {place} is on its way", "sender": SENDER}
        ).encode(),
    )


def taqnyat_get(token: str) -> Render:
    """The same by GET."""
    return lambda place: get(
        f"/v1/messages?recipients={number(place)}&sender={SENDER}&body={quote(f'Order {place} is on its way')}", token
    )


def turkeysms_post(key: str) -> Render:
    """TurkeySMS's documented call."""
    return lambda place: post(
        "/api/v3/gonder/add-content",
        "-",
        json.dumps(
            {
                "api_key": key,
                "title": SENDER,
                "text": f"Order {place} is on its way",
                "sentto": number(place),
                "response_type": "json",
            }
        ).encode(),
    )


def taqnyat_list(token: str) -> Render:
    """Taqnyat's call with as many recipients as it takes."""
    return lambda place: post(
        "/v1/messages",
        token,
        json.dumps(
            {
                "recipients": [int(number(place * 1000 + each)) for each in range(1000)],
                "body": "Hello",
                "sender": SENDER,
            }
        ).encode(),
    )


def turkeysms_group(key: str, recipients: int) -> Render:
    """TurkeySMS's call for groups."""
    return lambda place: post(
        "/api/v3/gruba-gonder/post/tek-metin-gonderimi",
        "-",
        json.dumps(
            {
                "api_key": key,
                "title": SENDER,
                "text": "Hello",
                "sentto": [number(place * recipients + each) for each in range(recipients)],
                "response_type": "json",
            }
        ).encode(),
    )


def turkeysms_get(key: str) -> Render:
    """The same by GET."""
    return lambda place: get(
        f"/api/v3/get/get.php?api_key={key}&title={SENDER}&mobile={number(place)}&response_type=json"
        f"&text={quote(f'Order {place} is on its way')}",
        "-",
    )


def figures_of(result: Result, cpu_s: float) -> Figures:
    """What a run of single requests shows."""
    return {
        "requests/s": round(result.rate),
        "p50 ms": round(result.quantile_ms(0.5), 1),
        "p99 ms": round(result.quantile_ms(0.99), 1),
        "server CPU us/request": round(1e6 * cpu_s / result.count, 1),
        "answers": result.statuses,
    }


async def floor(size: Size) -> Figures:
    """A bare ASGI answer under the same server and the same load: what the web costs before anything is done."""
    process = far.Process(far.bare_asgi, {})
    try:
        before = process.cpu_s()
        result = await fire(process.ready, taqnyat_post("-"), size.singles, 64, size.limit_s)
        return figures_of(result, process.cpu_s() - before)
    finally:
        process.end()


async def accepted(kind: str, preload: str, size: Size) -> Figures:
    """Single requests accepted on disk, with keys, validation, rating, ledger and idempotency; nothing leaves yet."""
    figures: Figures = {}
    async with stage(kind, preload, links=False, callbacks=False) as ground:
        doors = {
            "native POST": native(ground.token),
            "taqnyat POST": taqnyat_post(ground.token),
            "taqnyat GET": taqnyat_get(ground.token),
            "turkeysms POST": turkeysms_post(ground.api_key),
            "turkeysms GET": turkeysms_get(ground.api_key),
        }
        for name, render in doors.items():
            commits, cpu = ground.server.ask("commits"), ground.server.cpu_s()
            result = await fire(ground.port, render, size.singles, 64, size.limit_s)
            figures[name] = figures_of(result, ground.server.cpu_s() - cpu)
            made = ground.server.ask("commits")[0] - commits[0]
            figures[name]["messages/commit"] = round(result.count / max(1, made), 1)
    return figures


async def groups(kind: str, preload: str, size: Size) -> Figures:
    """Recipients accepted on disk by the calls for many, door by door; nothing leaves yet. What is counted is in the database."""
    figures: Figures = {}
    async with stage(kind, preload, links=False, callbacks=False) as ground:
        doors = {
            "native, 1,000 a call": (native(ground.token, 1000), size.bulk_requests, 4),
            "taqnyat, 1,000 a call": (taqnyat_list(ground.token), size.bulk_requests, 4),
            "turkeysms, 1,000 a call": (turkeysms_group(ground.api_key, 1000), size.bulk_requests, 4),
            f"turkeysms, {size.group:,} a call": (turkeysms_group(ground.api_key, size.group), 1, 1),
        }
        held = 0
        for name, (render, requests, connections) in doors.items():
            cpu = ground.server.cpu_s()
            result = await fire(ground.port, render, requests, connections, size.limit_s)
            cpu = ground.server.cpu_s() - cpu
            total = sum((await _states(ground))["states"].values())
            count, held = total - held, total
            figures[name] = {
                "recipients/s": round(count / result.elapsed_s),
                "slowest call ms": round(result.quantile_ms(1.0)),
                "server CPU us/recipient": round(1e6 * cpu / count, 1),
                "recipients": count,
                "answers": result.statuses,
            }
    return figures


async def through(kind: str, preload: str, size: Size) -> Figures:
    """Single requests accepted, submitted, receipt settled, called back: the whole path, measured to its end."""
    async with stage(kind, preload) as ground:
        commits, cpu, started = ground.server.ask("commits"), ground.server.cpu_s(), time.perf_counter()
        result = await fire(ground.port, taqnyat_post(ground.token), size.singles, 64, size.limit_s)
        await _drained(ground, result.count)
        elapsed = time.perf_counter() - started
        made = ground.server.ask("commits")[0] - commits[0]
        return {
            "accepted/s": round(result.rate),
            "p99 ms": round(result.quantile_ms(0.99), 1),
            "end to end/s": round(result.count / elapsed),
            "server CPU us/message": round(1e6 * (ground.server.cpu_s() - cpu) / result.count, 1),
            "commits/message": round(made / result.count, 3),
            **await _states(ground),
        }


async def bulk(kind: str, preload: str, size: Size) -> Figures:
    """Requests with 1,000 recipients each: accepted, then delivered with receipts, callbacks in batches."""
    async with stage(kind, preload) as ground:
        cpu, started = ground.server.cpu_s(), time.perf_counter()
        result = await fire(ground.port, native(ground.token, 1000), size.bulk_requests, 4, size.limit_s)
        count = result.count * 1000
        told, accepted = ground.receiver.ask("counts")["events"], time.perf_counter()
        await _drained(ground, count)
        drained = time.perf_counter()
        return {
            "recipients accepted/s": round(count / result.elapsed_s),
            "accepted and delivered/s": round(count / (drained - started)),
            "delivered/s once all accepted": round((count - told) / (drained - accepted)),
            "server CPU us/recipient": round(1e6 * (ground.server.cpu_s() - cpu) / count, 1),
            **await _states(ground),
        }


async def overtaking(kind: str, preload: str, size: Size) -> Figures:
    """One-time passwords while a large backlog of bulk drains flat out on the same route, 2,000 a second."""
    async with stage(kind, preload, rate=2000, callbacks=False) as ground:
        per_request = 1000
        await fire(ground.port, _bulk(ground.token, per_request), size.queued // per_request, 4, 600.0)
        rss = ground.server.rss_mb()
        if kind == "postgres":
            await _checkpoint(ground)
        await asyncio.sleep(1.0)  # a connector that has just begun sends nothing for a second, to be safe with its rate
        sent: dict[str, float] = {}
        waits: list[asyncio.Future[Any]] = []
        disk = Disk()
        for place in range(size.otps):
            recipient = f"{far.MARKED}{place:06d}9"
            body = json.dumps({"to": recipient}).encode()
            sent[recipient] = time.time()
            waits.append(asyncio.ensure_future(_one(ground.port, post("/api/v1/otp", ground.token, body))))
            waits.append(asyncio.ensure_future(asyncio.to_thread(disk.sync)))
            await asyncio.sleep(0.05)
        answers = (await asyncio.gather(*waits))[::2]
        await asyncio.sleep(1.0)
        arrivals = ground.carrier.ask("arrivals")
        late = sorted(1000 * (arrivals[to] - at) for to, at in sent.items() if to in arrivals)
        return {
            "OTPs": len(sent),
            "accepted": sum(answer.startswith(b"HTTP/1.1 201") for answer in answers),
            "arrived": len(late),
            "request to carrier p50 ms": round(late[len(late) // 2], 1) if late else None,
            "request to carrier p99 ms": round(late[int(len(late) * 0.99)], 1) if late else None,
            "floor: one sync of the disk meanwhile": commit_times(disk.took_s),
            "RSS MB with the backlog": round(rss),
            **await _states(ground),
            "start to ready s": round(ground.restart(), 2),
        }


async def history(kind: str, _preload: str, size: Size) -> Figures:
    """The whole path on a store that holds a long history, beside the same on an empty one."""
    costs: tuple[list[float], list[float]] = ([], [])
    counts = [0, 0]
    async with stage(kind) as empty, stage(kind, history=size.history) as old:
        # In turn, for what the machine gives changes from one half minute to the next.
        for which, ground in [(0, empty), (1, old)] * TURNS:
            cpu = await _cpu_s(ground)
            result = await fire(ground.port, taqnyat_post(ground.token), size.singles // 2 // TURNS, 64, size.limit_s)
            counts[which] += result.count
            await _drained(ground, counts[which])
            costs[which].append(1e6 * (await _cpu_s(ground) - cpu) / result.count)
    fresh, held = map(statistics.median, costs)
    return {
        "deliveries held": size.history,
        "CPU us/message, empty": round(fresh, 1),
        "CPU us/message, with history": round(held, 1),
        "ratio": round(held / fresh, 2),
    }


async def _cpu_s(ground: Stage) -> float:
    """What the platform has used, and the processes of the database server that work for it."""
    theirs = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    backends = await _ask(ground, theirs) if ground.url.startswith("postgresql") else []
    return ground.server.cpu_s() + sum(far.cpu_s(pid) for (pid,) in backends)


def _bulk(token: str, recipients: int) -> Render:
    def render(place: int) -> bytes:
        to = [number(place * recipients + each) for each in range(recipients)]
        body = {"to": to, "text": "Everything must go", "sender": SENDER, "priority": "bulk"}
        return post("/api/v1/messages", token, json.dumps(body).encode())

    return render


async def _one(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


async def _checkpoint(ground: Stage) -> None:
    """Make a young PostgreSQL one that has run for a while: the load is on disk, and the files of its log are used again."""
    await _ask(ground, "CHECKPOINT")


async def _drained(ground: Stage, count: int) -> None:
    """Wait until every message has been called back, or nothing has moved for a while."""
    seen, moved = -1, time.perf_counter()
    while True:
        events = ground.receiver.ask("counts")["events"]
        if events >= count:
            return
        if events != seen:
            seen, moved = events, time.perf_counter()
        elif time.perf_counter() - moved > 15:
            return
        await asyncio.sleep(0.05)


async def _states(ground: Stage) -> Figures:
    """What the database says at the end: nothing may be missing in a figure."""
    states = await _ask(ground, "SELECT state, count(*) FROM delivery GROUP BY state")
    return {"states": dict(states), "events told": ground.receiver.ask("counts")["events"]}


async def _ask(ground: Stage, query: str) -> Sequence[Any]:
    """What the database answers, by a connection of our own; nothing if the statement gives no rows."""
    engine = make_engine(ground.url)
    async with engine.connect() as connection:
        found = await connection.execute(text(query))
        rows = found.all() if found.returns_rows else []
    await engine.dispose()
    return rows
