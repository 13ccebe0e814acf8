"""What machines ask of the process: is it alive, does it take work, its figures, the description of the API and its errors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from berid import __version__
from berid.dialects.native import problems
from berid.dialects.native.endpoint import GROUP, PREFIX, Endpoint, encode
from berid.dialects.native.openapi import document
from berid.dialects.web import Request, Response, Route
from berid.flow.ports import Runtime
from berid.metrics import CONTENT_TYPE
from berid.store.hot import HotTx, StoreAway, Verb

STORE_S = 2.0
"""How long the store may take to commit next to nothing before it counts as away. Load balancers ask every few seconds."""


class Readiness(msgspec.Struct, omit_defaults=True):
    """Whether new work is taken, and what is not as it should be.

    `store` is ok or away; connectors are counted by state (a platform whose carriers are down still takes messages, and
    keeps them); `waiting` is how much lies in memory to be sent or told. `details` are for callers on this machine only.
    """

    status: str
    store: str
    connectors: dict[str, int]
    waiting: int
    why: list[str] = []
    details: dict[str, str] = {}


_INDEX = encode(
    {
        "name": "Berid",
        "version": __version__,
        "api": PREFIX,
        "openapi": f"{PREFIX}/openapi.json",
        "errors": f"/{problems.PAGE}",
        "ready": "/health/ready",
    }
)


async def _probe(tx: HotTx, items: list[int]) -> Sequence[Exception | None]:
    for now_ms in items:
        await tx.insert("parked_report", [(now_ms, 0, _PROBE, "", "", now_ms)])
        await tx.take_parked(0, [_PROBE])
    return [None for _ in items]


_PROBE = "probe"
PROBE: Verb[int, None] = Verb("probe", 0, _probe)
"""A report of no connector is parked and taken again: nothing stays, and it goes well only if the hot path's store can write. A
full disk can be read, and would go unseen."""


def routes(rt: Runtime, endpoints: Sequence[Endpoint]) -> list[Route]:
    """The routes of this module; `endpoints` are what the API's description tells of."""
    described = document(endpoints)

    async def live(_: Request) -> Response:
        """The loop runs: nothing else is claimed."""
        return Response(200, b'{"status":"live"}')

    async def ready(request: Request) -> Response:
        """200 while new work is taken, else 503."""
        found = await _readiness(rt, request)
        return Response(200 if found.status == "ready" else 503, encode(found))

    async def metrics(request: Request) -> Response:
        """Only for callers on this machine: `metrics.enabled` opens a listener of its own for others."""
        if not request.is_local:
            return problems.fail(request, 404)
        return Response(200, rt.metrics.render(), CONTENT_TYPE.encode())

    async def openapi(_: Request) -> Response:
        """The description of the API."""
        return Response(200, described)

    catalogue = problems.page().encode()

    async def errors(_: Request) -> Response:
        """What `docs` of a refusal points at."""
        return Response(200, catalogue, b"text/markdown; charset=utf-8")

    async def index(_: Request) -> Response:
        """Where things are, for whoever opens the bare address."""
        return Response(200, _INDEX)

    handlers = {
        "/": index,
        f"/{problems.PAGE}": errors,
        "/health/live": live,
        "/health/ready": ready,
        "/metrics": metrics,
        "/openapi.json": openapi,
        PREFIX + "/openapi.json": openapi,
    }
    return [Route(("GET",), path, handler, GROUP, is_logged=False) for path, handler in handlers.items()]


async def _readiness(rt: Runtime, request: Request) -> Readiness:
    why = [] if request.is_ready else ["the process is starting or stopping"]
    try:
        async with asyncio.timeout(STORE_S):
            await rt.store.hot.do(PROBE, [rt.clock.now_ms()])
        store = "ok"
    except (StoreAway, TimeoutError):
        store = "away"
        why.append("the store takes nothing that is to be kept")
    connectors: dict[str, int] = {}
    details: dict[str, str] = {}
    for identifier, connector in rt.connectors.items():
        health = connector.health()
        state = health.partition(":")[0]
        connectors[state] = connectors.get(state, 0) + 1
        if request.is_local:
            settings = rt.directory.connectors.get(identifier)
            details[settings.name if settings is not None else str(identifier)] = health
    waiting = sum(len(lane) for lane in rt.lanes.values())
    return Readiness("not ready" if why else "ready", store, connectors, waiting, why, details)
