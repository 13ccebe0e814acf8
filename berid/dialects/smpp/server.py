"""The listener to which customers bind: who may, how often, for how long; and the way back to them for receipts."""

from __future__ import annotations

import asyncio
import hmac
import logging
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from berid import tls
from berid.base.secret import check_password
from berid.dialects.smpp.bind import BIND_TIMEOUT_S, Bind
from berid.dialects.smpp.outlet import Outlet
from berid.dialects.smpp.told import render
from berid.domain.account import Caller, Scope, Token, check_caller
from berid.domain.report import Endpoint
from berid.flow.ports import Runtime, Tell
from berid.store import binds as bind_store
from berid.store import directory as directories
from berid.store.hot import StoreAway
from berid.wire.smpp.codes import CommandStatus
from berid.wire.smpp.pdu import BindReceiver, BindTransceiver, BindTransmitter

log = logging.getLogger("berid.smpp")

DIALECT = "smpp"

TICK_S = 0.25
"""How often time-outs and revoked logins are looked at."""

FAILURE_WAIT_S = 1.0
"""How long the answer to a failed bind is held back."""

FAILURES_PER_MINUTE = 10
"""Failed binds from one address in a minute, after which none of its passwords is checked until they are fewer."""

UNBOUND_PER_ADDRESS = 50
"""Connections of one address that may stand without a bind; further ones are closed at once."""

CHECKS_AT_ONCE = 2
"""Passwords that are checked side by side: each check takes a processor for some 40 ms, by design."""

LEAVE_S = 3.0
"""How long each step of a bind's end may take when the process stops: its answers, its unbind, its closing."""

REVOKED_LEAVE_S = 0.25
"""The same for a bind whose login has ended."""

OTHERS_LEARN_S = 1.0
"""After this every process has taken a change into its directory."""

GIVE_UP_S = 600.0
"""How often it is looked for receipts whose customer never came back."""

GIVE_UP_PAGE = 500

_FAILURES = frozenset((CommandStatus.ESME_RINVSYSID, CommandStatus.ESME_RINVPASWD, CommandStatus.ESME_RBINDFAIL))
"""The answers to a bind that count as failures; others are not the customer's fault, or come behind the password."""


class Server:
    """The binds of one process; `rt.binds` for step *notify*. `open` it, `shut` it."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self._directory = rt.directory
        self._connections: set[Bind] = set()
        self._outlets: dict[int, Outlet] = {}
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._known: dict[int, tuple[str, str]] = {}
        self._is_shut = False

    async def open(self) -> tuple[int | None, int | None]:
        """Listen, and return the plain port and the TLS port, None where there is none. Raises OSError."""
        settings = self.rt.config.smpp
        if "worker" not in self.rt.config.roles:
            log.warning("receipts reach SMPP customers only in a process that has the role worker as well")
        plain = await self._listen(settings.host, settings.port, None)
        secure: int | None = None
        if settings.tls_port is not None and settings.tls_cert is not None and settings.tls_key is not None:
            context = tls.load(settings.tls_cert, settings.tls_key)
            secure = await self._listen(settings.host, settings.tls_port, context)
            self._spawn(tls.follow(context, settings.tls_cert, settings.tls_key, self.rt.clock, "smpp"))
        self._spawn(self._tick())
        self._spawn(self._give_up())
        return plain, secure

    async def shut(self) -> None:
        """Take no more binds, answer what was asked, unbind everybody. What is left to tell stays on disk."""
        self._is_shut = True
        for listener in self._listeners:
            listener.close()
        leaving = [bind for bind in self._connections if not bind.is_leaving]
        for bind in leaving:
            bind.take_no_more(CommandStatus.ESME_RSYSERR)
        await asyncio.gather(*(bind.leave(LEAVE_S) for bind in leaving), *(bind.ended for bind in self._connections))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # For notify

    def serves(self, application_id: int) -> bool:
        """Whether an application has a bind here that can receive."""
        outlet = self._outlets.get(application_id)
        return outlet is not None and outlet.is_open

    async def deliver(self, endpoint: Endpoint, tells: Sequence[Tell]) -> list[str | None]:
        """Tell an application's binds some events, and return what came of each.

        "" when the customer has it, or did not ask for it; words when he did not take it; None when there was no bind
        with room, so that it was not tried.
        """
        outlet = self._outlets.get(endpoint.application_id)
        if outlet is None or not outlet.is_open:
            return [None for _ in tells]
        pdus = [render(tell) for tell in tells]
        outcomes = iter(await outlet.send([pdu for pdu in pdus if pdu is not None]))
        return ["" if pdu is None else next(outcomes) for pdu in pdus]

    # For binds

    def welcome(self, bind: Bind) -> bool:
        """Take a new connection, unless its address has too many that are not bound."""
        self._connections.add(bind)
        unbound = sum(1 for each in self._connections if each.caller is None and each.address == bind.address)
        return not self._is_shut and unbound <= UNBOUND_PER_ADDRESS

    def forget(self, bind: Bind) -> None:
        """A connection is gone."""
        self._connections.discard(bind)

    def open_outlet(self, bind: Bind, caller: Caller) -> Outlet:
        """Use a bind for receipts, and let those that wait for it come."""
        application_id = caller.application.id
        outlet = self._outlets.get(application_id)
        if outlet is None:
            outlet = self._outlets[application_id] = Outlet(self.rt.clock)
        outlet.add(bind)
        self._spawn(self._wake(application_id))
        return outlet

    def follow_directory(self) -> None:
        """Let every bind act on the business as it is now; one whose login may no longer be used ends."""
        if self.rt.directory is self._directory:
            return
        self._directory = self.rt.directory
        for bind in list(self._connections):
            if bind.caller is not None:
                self._renew(bind, bind.caller)

    async def admit(
        self, bind: Bind, pdu: BindReceiver | BindTransmitter | BindTransceiver
    ) -> tuple[CommandStatus, Caller | None]:
        """Whether a connection may be bound, and as whom. A no is answered late, and counted against the address."""
        rt = self.rt
        try:
            status, why, caller = await self._check(bind, pdu)
            if caller is not None:
                await self._ensure_endpoint(caller)
                return CommandStatus.ESME_ROK, caller
        except StoreAway:
            status, why = CommandStatus.ESME_RSYSERR, "the store is away"
        log.warning("bind refused", extra={"login": pdu.system_id, "address": bind.address, "why": why})
        if status in _FAILURES:
            rt.limits.take(_failures_of(bind), rt.clock.ticks_s(), 1, 0, 0)
            await rt.clock.sleep(FAILURE_WAIT_S)
        return status, None

    # Inside

    async def _check(
        self, bind: Bind, pdu: BindReceiver | BindTransmitter | BindTransceiver
    ) -> tuple[CommandStatus, str, Caller | None]:
        rt = self.rt
        token = rt.directory.logins.get(pdu.system_id)
        is_known = token is not None and self._is_known(token, pdu.password)
        failures = rt.limits.last_minute(_failures_of(bind), rt.clock.ticks_s())
        if failures >= FAILURES_PER_MINUTE and not is_known:
            return CommandStatus.ESME_RBINDFAIL, "too many failed binds from this address", None
        if token is None:
            return CommandStatus.ESME_RINVSYSID, "unknown system_id", None
        if not is_known and not await self._is_password(token, pdu.password):
            return CommandStatus.ESME_RINVPASWD, "wrong password", None
        caller = self._caller(token.login, bind.address)
        if caller is None:
            return CommandStatus.ESME_RBINDFAIL, "the login has ended", None
        scope = None if isinstance(pdu, BindReceiver) else Scope.SEND
        refusals = check_caller(caller, scope, "sms")
        if refusals:
            return CommandStatus.ESME_RBINDFAIL, ", ".join(refusal.kind.value for refusal in refusals), None
        # Counted only behind the password, and from here on: two binds that are being checked cannot both be the last.
        held = sum(1 for each in self._connections if each.account_id == caller.account.id)
        if held >= rt.config.smpp.max_binds_per_account:
            return CommandStatus.ESME_RALYBND, "too many binds of this account", None
        bind.account_id = caller.account.id
        return CommandStatus.ESME_ROK, "", caller

    def _is_known(self, token: Token, password: str) -> bool:
        """Whether this password was right before. It is remembered by a keyed hash: a customer who comes back with many
        binds at once need not wait for each check, nor suffer for another's failures behind the same address."""
        known_hash, known_digest = self._known.get(token.id, ("", ""))
        return known_hash == token.hash and hmac.compare_digest(known_digest, self._digest(token, password))

    async def _is_password(self, token: Token, password: str) -> bool:
        async with self._checks:
            is_right = await asyncio.to_thread(check_password, password, token.hash)
        if is_right:
            self._known[token.id] = (token.hash, self._digest(token, password))
        return is_right

    def _digest(self, token: Token, password: str) -> str:
        return self.rt.vault.digest("smpp password", str(token.id), password)

    def _caller(self, login: str, address: str) -> Caller | None:
        """Who a login is now, None if it may not be used."""
        directory = self.rt.directory
        token = directory.logins.get(login)
        if token is None or token.kind != DIALECT or not token.is_live_at(self.rt.clock.now_ms()):
            return None
        account = directory.accounts.get(token.account_id)
        application = directory.applications.get(token.application_id)
        if account is None or application is None:
            return None
        return Caller(account, application, token, address, DIALECT)

    def _renew(self, bind: Bind, before: Caller) -> None:
        caller = self._caller(before.token.login, bind.address)
        if caller is not None and caller.token.id == before.token.id and not check_caller(caller, None, None):
            bind.caller = caller
            return
        if not bind.is_leaving:
            log.warning("a bind's login may no longer be used", extra={"login": before.token.login})
            bind.take_no_more(CommandStatus.ESME_RPROHIBITED)
            self._spawn(bind.leave(REVOKED_LEAVE_S))

    async def _ensure_endpoint(self, caller: Caller) -> None:
        """See that the application's receipts are kept for its binds, before it can submit what they would be about."""
        rt = self.rt
        account_id, application_id = caller.account.id, caller.application.id
        if application_id in rt.directory.endpoint_by_id:
            return
        async with rt.store.transaction() as tx:
            is_new = await bind_store.ensure_endpoint(tx, account_id, application_id, rt.clock.now_ms())
            if is_new:
                await directories.bump(tx)
        endpoint = bind_store.endpoint_of(account_id, application_id)
        # The whole directory follows within a second; receipts must not fall into the time until then.
        if application_id not in rt.directory.endpoint_by_id:
            rt.directory = replace(
                rt.directory,
                endpoints={
                    **rt.directory.endpoints,
                    account_id: (*rt.directory.endpoints.get(account_id, ()), endpoint),
                },
                endpoint_by_id={**rt.directory.endpoint_by_id, application_id: endpoint},
            )
        if not rt.store.is_sqlite:
            await rt.clock.sleep(OTHERS_LEARN_S)

    async def _wake(self, application_id: int) -> None:
        """Let what an application could not be told before come now."""
        rt = self.rt
        try:
            async with rt.store.transaction() as tx:
                await bind_store.wake(tx, application_id, rt.clock.now_ms())
        except StoreAway:
            log.warning("the store is away; receipts come when their next try is due")

    async def _listen(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        loop = asyncio.get_running_loop()
        handshake_s = BIND_TIMEOUT_S if context is not None else None
        listener = await loop.create_server(
            lambda: Bind(self), host, port, ssl=context, ssl_handshake_timeout=handshake_s, backlog=512
        )
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def _tick(self) -> None:
        """Keep every bind's time, until cancelled."""
        rt = self.rt
        while True:
            await rt.clock.sleep(TICK_S)
            self.follow_directory()
            now_s, now_ms = rt.clock.ticks_s(), rt.clock.now_ms()
            for bind in list(self._connections):
                if now_s >= bind.session.next_tick:
                    bind.tick(now_s)
                if bind.caller is not None and not bind.caller.token.is_live_at(now_ms):
                    self._renew(bind, bind.caller)
            for application_id, outlet in list(self._outlets.items()):
                if not outlet.is_open:
                    del self._outlets[application_id]

    async def _give_up(self) -> None:
        """Set aside receipts whose customer has not come back for as long as any callback is tried, until cancelled."""
        rt = self.rt
        while True:
            await rt.clock.sleep(GIVE_UP_S)
            try:
                await give_up(rt)
            except StoreAway:
                log.warning("the store is away; old receipts stay where they are")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a part of the SMPP server ended", exc_info=task.exception())


def _failures_of(bind: Bind) -> tuple[str, str]:
    """The key under which failed binds of an address are counted."""
    return "smpp bind", bind.address


async def give_up(rt: Runtime) -> int:
    """Bury what has waited for binds longer than the callback schedule is long, and return how much that was."""
    applications = [
        endpoint.id for endpoint in rt.directory.endpoint_by_id.values() if endpoint.kind == bind_store.KIND
    ]
    now_ms = rt.clock.now_ms()
    before_ms = now_ms - sum(rt.config.net.callback_schedule_s) * 1000
    total = 0
    while True:
        async with rt.store.read() as tx:
            old = await bind_store.waiting_since(tx, applications, before_ms, GIVE_UP_PAGE)
        if not old:
            return total
        async with rt.store.transaction() as tx:
            await bind_store.give_up(tx, applications, old, now_ms)
        total += len(old)
