"""Whether the world is as the platform needs it: database, key, clock, disk, certificates, ports, carriers' names.

Each `Finding` has a stable id, a sentence about what was seen, and a hint when something should be done. Nothing is changed by
looking, except that a port is listened on for a moment.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import text

from berid import tls
from berid.base.clock import Clock
from berid.base.ids import EPOCH_MS
from berid.base.secret import Unreadable, Vault, load_key
from berid.config import Config
from berid.flow.manage.carriers import SEAL_PURPOSE, SEALED
from berid.store import Tx, accounts, open_store, processes, schema, sqlite_path
from berid.store.hot import StoreAway

DATABASE_S = 10.0
"""How long the database may take to answer; a firewall that drops packets answers never."""

RESOLVE_S = 5.0
"""How long the look-up of a carrier's name may take: what a resolver with two servers needs when one is dead."""

CLOCK_OFF_MS = 2_000
"""How far our clock may be from the database's: leases of 12 seconds are compared between processes."""

DISK_LOW_BYTES = 1 << 30
DISK_FULL_BYTES = 100 << 20
"""Below a gigabyte there is time to act, below a hundred megabytes the next burst may fill it."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. `hint` says what to do; empty when all is well."""

    id: str
    level: Level
    sentence: str
    hint: str = ""


async def examine(config: Config, clock: Clock) -> list[Finding]:
    """Every finding, in the order in which one would put things right."""
    found = [_data_folder(config), _key_file(config), _clock(clock)]
    found += [finding async for finding in _database(config, clock)]
    found.append(_disk(config))
    found += _ready_file(config)
    found += _certificates(config)
    found += _ports(config)
    return found


def obstacle(config: Config) -> Finding | None:
    """The first thing around the process that would end a start half-way, when carriers have been bound to already; None if all
    is clear."""
    found = [*_ready_file(config), *_certificates(config), *_ports(config)]
    if (
        config.database_url.startswith("sqlite") or not config.data_dir.is_dir()
    ):  # with PostgreSQL nothing need be written there
        found.insert(0, _data_folder(config))
    return next((each for each in found if each.level is Level.ERROR), None)


def _data_folder(config: Config) -> Finding:
    folder = config.data_dir
    if folder.exists() and not folder.is_dir():
        return _error("data_dir", f"{folder} is not a folder", "set data_dir (BERID_DATA_DIR) to a folder")
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        sentence = f"{folder} cannot be written" if there == folder else f"{folder} cannot be made in {there}"
        return _error("data_dir", sentence, f"let Berid's user write {there}, or set data_dir (BERID_DATA_DIR)")
    if there != folder:
        return _warning("data_dir", f"{folder} is not there yet", "it is made at the first start")
    return _ok("data_dir", f"{folder} can be written")


def _ready_file(config: Config) -> list[Finding]:
    file = config.ready_file
    if file is None:
        return []
    if file.is_dir():
        return [_error("ready_file", f"{file} is a folder", "set ready_file (BERID_READY_FILE) to a file")]
    if not file.parent.is_dir():
        return [
            _error("ready_file", f"there is no folder {file.parent}", "make it, or set ready_file (BERID_READY_FILE)")
        ]
    if not os.access(file.parent, os.W_OK | os.X_OK):
        sentence = f"{file} cannot be written"
        return [_error("ready_file", sentence, f"let Berid's user write {file.parent}, or set ready_file")]
    return [_ok("ready_file", f"{file} can be written")]


def _certificates(config: Config) -> list[Finding]:
    """Whether the certificates of the listeners with TLS can be used. How long they hold is for whoever renews them."""
    found = []
    for role, section, listener in (("web", "http", config.http), ("smpp", "smpp", config.smpp)):
        if role not in config.roles or listener.tls_port is None or not listener.tls_cert or not listener.tls_key:
            continue
        name = f"{section}.tls_cert"
        try:
            tls.load(listener.tls_cert, listener.tls_key)
        except ssl.SSLError as error:
            sentence = f"{listener.tls_cert} and {listener.tls_key} are not a certificate with its key ({error.reason})"
            found.append(_error(name, sentence, f"both must be PEM and belong together: {name}, {section}.tls_key"))
        except OSError as error:
            sentence = f"{error.filename} cannot be read: {error.strerror}"
            found.append(_error(name, sentence, f"let Berid's user read it, or set {name} and {section}.tls_key"))
        else:
            found.append(_ok(name, f"{listener.tls_cert} can be used"))
    return found


def _key_file(config: Config) -> Finding:
    if config.key:
        try:
            load_key(config.key, config.key_file)
        except ValueError as error:
            return _error("key", str(error), "put 64 hexadecimal digits into key")
        return _ok("key", "the master key is given by a setting")
    path = config.key_file
    try:
        mode = path.stat().st_mode
        load_key("", path)
    except FileNotFoundError:
        hint = "it is made at the first start; if this installation has run before, bring its key back"
        return _warning("key", f"there is no master key at {path}", hint)
    except OSError as error:
        return _error("key", f"the master key {path} cannot be read: {error.strerror}", "let Berid's user read it")
    except ValueError:
        return _error(
            "key", f"{path} does not hold a key", "it must hold 64 hexadecimal digits; bring the right file back"
        )
    if stat.S_IMODE(mode) & 0o077:
        return _error("key", f"others may read the master key {path}", f"chmod 600 {path}")
    return _ok("key", f"the master key {path} is its owner's alone")


def _clock(clock: Clock) -> Finding:
    if clock.now_ms() < EPOCH_MS:
        return _error("clock", "the clock is before 2026", "set the machine's clock and keep it by NTP")
    return _ok("clock", "the clock is in our time")


async def _database(config: Config, clock: Clock) -> AsyncIterator[Finding]:
    url = config.database_url
    try:
        async with asyncio.timeout(DATABASE_S):
            await schema.check(url)
    except schema.SchemaOutdated as error:
        yield _error(
            "database", str(error), "berid migrate" if "migrate" in str(error) else "install the newer release"
        )
        return
    except (StoreAway, TimeoutError, OSError) as error:
        why = str(error) or f"no answer within {DATABASE_S:.0f} seconds"
        yield _error("database", why, "is it running, and is database_url right?")
        return
    yield _ok("database", f"the database is at step {schema.newest_step()}")
    store = await open_store(url, clock)
    try:
        async with store.read() as tx:
            yield await _database_clock(tx, clock)
            async for finding in _connectors(tx, config):
                yield finding
    finally:
        await store.close()


async def _database_clock(tx: Tx, clock: Clock) -> Finding:
    """On PostgreSQL the server's clock is compared, on SQLite the time of the last beat: neither may be ahead."""
    if tx.dialect.name == "postgresql":
        theirs = await tx.scalar(text("SELECT extract(epoch FROM clock_timestamp()) * 1000"))
        off_ms = int(theirs or 0) - clock.now_ms()
        if abs(off_ms) > CLOCK_OFF_MS:
            sentence = f"the database's clock is {off_ms / 1000:+.1f} s from ours"
            return _error("database_clock", sentence, "keep both machines by NTP")
        return _ok("database_clock", f"the database's clock is {off_ms / 1000:+.1f} s from ours")
    ahead_ms = await processes.last_alive_ms(tx) - clock.now_ms()
    if ahead_ms > CLOCK_OFF_MS:
        sentence = f"the platform last ran {ahead_ms / 1000:.0f} s in the future"
        return _error("database_clock", sentence, "the machine's clock was set back; set it right before starting")
    return _ok("database_clock", "the clock has not gone back since the platform last ran")


async def _connectors(tx: Tx, config: Config) -> AsyncIterator[Finding]:
    """Whether the key opens the carriers' secrets, and whether their names lead anywhere."""
    known = [each for each in (await accounts.connectors(tx)).values() if each.state != "off"]
    sealed = [
        (each.name, value)
        for each in known
        for value in each.settings.values()
        if isinstance(value, str) and value.startswith(SEALED)
    ]
    if sealed:
        yield _opens(config, sealed)
    for each in known:
        host, port = each.settings.get("host"), each.settings.get("port")
        if isinstance(host, str):
            yield await _resolves(each.name, host, port if isinstance(port, int) else 0)


def _opens(config: Config, sealed: list[tuple[str, str]]) -> Finding:
    if not config.key and not config.key_file.exists():
        hint = "bring the key file of this installation back; a new one opens nothing"
        return _error("sealed", "there are carriers' passwords in the database and no key to open them", hint)
    try:
        vault = Vault(load_key(config.key, config.key_file))
    except (ValueError, OSError):
        return _error("sealed", "carriers' passwords cannot be opened without the key", "put the key right first")
    for name, value in sealed:
        try:
            vault.open(value.removeprefix(SEALED), SEAL_PURPOSE)
        except Unreadable:
            hint = f"bring the old key back, or give the password again: berid connector set {name} --settings FILE"
            return _error("sealed", f"the password of {name} was sealed with another key", hint)
    return _ok("sealed", "the key opens the carriers' passwords")


async def _resolves(name: str, host: str, port: int) -> Finding:
    identifier = f"connector:{name}"
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return _error(identifier, f"no name server answers for {host}", "look at /etc/resolv.conf and the network")
    except OSError as error:
        return _error(
            identifier, f"{host} leads nowhere: {error.strerror or error}", f"berid connector set {name} host=…"
        )
    return _ok(identifier, f"{host} is {found[0][4][0]}")


def _disk(config: Config) -> Finding:
    folder = config.data_dir
    if config.database_url.startswith("sqlite"):
        folder = sqlite_path(config.database_url).parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    sentence = f"{free / (1 << 30):.1f} GiB are free in {folder}"
    if free < DISK_FULL_BYTES:
        return _error("disk", sentence, "make room now: a full disk stops accepting messages")
    if free < DISK_LOW_BYTES:
        return _warning("disk", sentence, "make room, or shorten the retention settings")
    return _ok("disk", sentence)


def _ports(config: Config) -> list[Finding]:
    wanted: list[tuple[str, str, int | None]] = []
    if "web" in config.roles:
        wanted += [
            ("http.port", config.http.host, config.http.port),
            ("http.tls_port", config.http.host, config.http.tls_port),
        ]
    if "smpp" in config.roles:
        wanted += [
            ("smpp.port", config.smpp.host, config.smpp.port),
            ("smpp.tls_port", config.smpp.host, config.smpp.tls_port),
        ]
    if config.metrics.enabled:
        wanted.append(("metrics.port", config.metrics.host, config.metrics.port))
    is_serving = _is_serving(config)
    return [_port(name, host, port, is_serving) for name, host, port in wanted if port is not None]


def _port(name: str, host: str, port: int, is_serving: bool) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and is_serving:
                return _ok(name, f"{host}:{port} is in use by the Berid that serves this data folder")
            if error.errno == errno.EADDRINUSE:
                return _error(name, f"{host}:{port} is taken by another program", f"stop that, or set {name}")
            why = error.strerror or str(error)
            hint = f"set {name.partition('.')[0]}.host to an address of this machine"
            if error.errno == errno.EACCES:
                hint = f"ports below 1024 need a right of their own (CAP_NET_BIND_SERVICE), or set {name}"
            return _error(name, f"{host}:{port} cannot be listened on: {why}", hint)
    return _ok(name, f"{host}:{port} is free" if port else f"{host} has free ports")


def _is_serving(config: Config) -> bool:
    """Whether a process holds this data folder; see `app`."""
    lock: Path = config.data_dir / "lock"
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _ok(identifier: str, sentence: str) -> Finding:
    return Finding(identifier, Level.OK, sentence)


def _warning(identifier: str, sentence: str, hint: str) -> Finding:
    return Finding(identifier, Level.WARNING, sentence, hint)


def _error(identifier: str, sentence: str, hint: str) -> Finding:
    return Finding(identifier, Level.ERROR, sentence, hint)
