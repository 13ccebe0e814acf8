"""Runs the connectors whose lease this process holds: recovers, starts, watches for changed settings, stops.

On one process that is all of them. With several on PostgreSQL each connector runs where its lease is held and moves
within seconds when that process dies; a process that cannot renew its leases closes its binds before another may
open them. One that was frozen meanwhile can close nothing: when it wakes, `Runtime.holds` keeps it from sending until
it has looked whose its connectors are.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from berid.domain.routing import ConnectorSettings
from berid.flow.dispatch import Dispatcher
from berid.flow.ports import Runtime
from berid.flow.sweep import recover_connector
from berid.store import processes
from berid.store.hot import StoreAway

log = logging.getLogger("berid.links")

WATCH_S = 0.5


@dataclass(slots=True)
class _Running:
    settings: ConnectorSettings
    dispatcher: Dispatcher
    task: asyncio.Task[None]
    held_s: float
    """The monotonic second at which the lease was ours."""


class Links:
    """All connectors of this process. `run` until cancelled, then `stop`."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._running: dict[int, _Running] = {}
        self._refused: dict[int, ConnectorSettings] = {}
        self._watch = processes.Watch(rt.clock)
        self._is_fenced = False
        """The leases could not be renewed in time: nothing runs until they could."""
        self._lost: set[int] = set()
        """Connectors that another process has taken while we still ran them."""

    def fence(self) -> None:
        """Leases could not be renewed: close all binds before others may open them."""
        if not self._is_fenced:
            log.error("leases could not be renewed in time; closing the binds until they can")
        self._is_fenced = True

    def renewed(self, held: set[int], asked_s: float) -> None:
        """The leases of `held` were renewed, which was asked for at the monotonic second `asked_s`; others are lost."""
        self._is_fenced = False
        for connector_id, running in self._running.items():
            if connector_id in held:
                self._rt.leases[connector_id] = asked_s + processes.HOLD_S
            elif running.held_s < asked_s and connector_id not in self._lost:
                log.error("another process has taken a connector", extra={"connector": running.settings.name})
                self._lost.add(connector_id)
                self._rt.leases[connector_id] = asked_s

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        while True:
            try:
                await self.once()
            except StoreAway as error:
                log.warning("the store is away; connectors stay as they are", extra={"why": str(error)})
            await self._rt.clock.sleep(WATCH_S)

    async def once(self) -> None:
        """Bring what runs into step with what is configured."""
        rt = self._rt
        wanted = (
            {}
            if self._is_fenced
            else {
                identifier: settings
                for identifier, settings in rt.directory.connectors.items()
                if settings.state != "off" and settings.channel in rt.channels
            }
        )
        for connector_id, running in list(self._running.items()):
            settings = wanted.get(connector_id)
            if settings is None or connector_id in self._lost or _differs(settings, running.settings):
                await self._end(connector_id, gives_lease=not self._is_fenced and connector_id not in self._lost)
                self._lost.discard(connector_id)
        for connector_id, settings in wanted.items():
            if connector_id not in self._running and self._refused.get(connector_id) != settings:
                await self._begin(connector_id, settings)

    async def _begin(self, connector_id: int, settings: ConnectorSettings) -> None:
        rt = self._rt
        async with rt.store.read() as tx:
            found = await processes.lease_of(tx, connector_id)
        if found is not None and found.slot != rt.slot and not self._watch.is_dead(connector_id, found, found.until_ms):
            return
        asked_s = rt.clock.ticks_s()
        async with rt.store.transaction() as tx:
            if not await processes.take_connector(tx, connector_id, rt.slot, rt.clock.now_ms(), found):
                return
        held_s = rt.clock.ticks_s()
        doubtful = await recover_connector(rt, connector_id)
        if doubtful:
            log.warning(
                "deliveries of an ended process are uncertain", extra={"connector": settings.name, "count": doubtful}
            )
        try:
            connector = rt.channels[settings.channel].connector(rt, settings)
        except ValueError as error:
            self._refused[connector_id] = settings
            log.error("a connector has settings it cannot use", extra={"connector": settings.name, "why": str(error)})
            return
        if not rt.store.is_sqlite:
            rt.leases[connector_id] = asked_s + processes.HOLD_S
        await connector.start()
        rt.connectors[connector_id] = connector
        dispatcher = Dispatcher(rt, connector)
        task = asyncio.get_running_loop().create_task(dispatcher.run(), name=f"dispatch-{settings.name}")
        task.add_done_callback(_say_why)
        self._running[connector_id] = _Running(settings, dispatcher, task, held_s)
        log.info("connector started", extra={"connector": settings.name})

    async def _end(self, connector_id: int, gives_lease: bool) -> None:
        rt = self._rt
        running = self._running.pop(connector_id)
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)
        await running.dispatcher.drain()
        rt.connectors.pop(connector_id, None)
        rt.leases.pop(connector_id, None)
        if gives_lease:
            async with rt.store.transaction() as tx:
                await processes.give_connector(tx, connector_id, rt.slot)
        log.info("connector stopped", extra={"connector": running.settings.name})

    async def stop(self) -> None:
        """Finish what is on the wire, then close everything."""
        await asyncio.gather(
            *(self._end(connector_id, gives_lease=True) for connector_id in list(self._running)), return_exceptions=True
        )


def _differs(settings: ConnectorSettings, running: ConnectorSettings) -> bool:
    """Whether the link must be made anew; a pause or drain is seen by its dispatcher without that."""
    return settings.settings != running.settings or settings.kind != running.kind


def _say_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a dispatcher ended", exc_info=task.exception())
