"""Copies of the database while it is in use, and bringing one back.

A backup is a folder with two files: the copy, and `manifest.json`, which is written last, so that a folder with a manifest holds
a finished backup. **The master key is not in it.** Keep that key elsewhere: without it the sealed things in the copy (carriers'
passwords, callback secrets, texts that were still queued) stay sealed for good; whoever has both can read everything.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sqlite3
from pathlib import Path

import msgspec
from sqlalchemy import URL, delete, insert, text
from sqlalchemy.engine import make_url

from berid import __version__
from berid.base.clock import Clock
from berid.store import sqlite_path
from berid.store.schema import connected, current_step, known_steps, migrate
from berid.store.tables import meta

MANIFEST = "manifest.json"

DEBIAN_PROGRAMS = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs of every PostgreSQL release that is installed: `15/bin/pg_dump`."""

COPY_BYTES = 1 << 20

_NOT_INCLUDED = "The master key is not in this backup. Without it, what is sealed in the database cannot be read."


class BackupError(Exception):
    """No backup was made, or none was brought back; the text says why. Nothing that was there before was changed."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is. `made_ms` is a moment before its first byte: later changes may be missing from it."""

    berid: str
    """The release that made it."""
    database: str
    """`sqlite` or `postgresql`: a backup is brought back into a database of the same kind."""
    database_version: str
    """Of the program that wrote the copy; PostgreSQL's can be read by the same or a newer one only."""
    step: str
    """The schema step that the database was at."""
    made_ms: int
    file: str
    file_bytes: int
    sha256: str
    not_included: str = _NOT_INCLUDED


async def backup(url: str, target: Path, clock: Clock) -> Manifest:
    """Copy the database, as it is at one moment, into the folder `target`, which must be empty or absent.

    Everybody may go on writing meanwhile. PostgreSQL's copy is made by `pg_dump`, which must be at least of the server's
    release. Raises `BackupError`, and `StoreAway` when the database cannot be reached.
    """
    is_sqlite = url.startswith("sqlite")
    if is_sqlite and not sqlite_path(url).exists():
        raise BackupError(f"there is no database at {sqlite_path(url)}")
    async with connected(url) as connection:
        step = await connection.run_sync(current_step)
        number = "0" if is_sqlite else await connection.scalar(text("SELECT current_setting('server_version_num')"))
    if not step:
        raise BackupError("the database has no tables")
    release = int(number or 0) // 10_000
    program = None if is_sqlite else await _program("pg_dump", release)
    file = target / ("berid.db" if is_sqlite else "berid.dump")
    _make_file(file)
    made_ms = clock.now_ms()
    try:
        if program is None:
            await asyncio.to_thread(_copy_sqlite, sqlite_path(url), file)
        else:
            await _run(program[0], url, "--format=custom", "--no-owner", "--no-privileges", f"--file={file}")
        size, digest = await asyncio.to_thread(_make_durable, file)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    manifest = Manifest(
        berid=__version__,
        database="sqlite" if is_sqlite else "postgresql",
        database_version=sqlite3.sqlite_version if program is None else str(program[1]),
        step=step,
        made_ms=made_ms,
        file=file.name,
        file_bytes=size,
        sha256=digest,
    )
    await asyncio.to_thread(_write_manifest, target, manifest)
    return manifest


async def restore(source: Path, url: str, clock: Clock) -> Manifest:
    """Bring the backup in the folder `source` back into the database at `url`, which must be empty or absent.

    The copy is checked against its manifest, brought to this program's schema step, and marked: `meta` has `backup_ms` (the
    age of what is in it) and `restored_ms` (now). What was due by then has most likely been done once already: the first start
    holds it (`flow.sweep.hold_restored`) and takes the marks away.

    Raises `BackupError`; `StoreAway` when the database cannot be reached. If PostgreSQL breaks off in the middle, the target
    is left empty; SQLite's file appears only when everything is done.
    """
    manifest = await asyncio.to_thread(_read_manifest, source)
    is_sqlite = url.startswith("sqlite")
    if manifest.database != ("sqlite" if is_sqlite else "postgresql"):
        raise BackupError(f"this is a backup of a {manifest.database} database")
    if manifest.step not in known_steps():
        raise BackupError(f"the backup is at step {manifest.step}, which only a newer release than this one knows")
    if is_sqlite:
        await _restore_sqlite(source / manifest.file, sqlite_path(url), manifest, clock)
    else:
        await _restore_postgres(source / manifest.file, url, manifest, clock)
    return manifest


async def _restore_sqlite(file: Path, path: Path, manifest: Manifest, clock: Clock) -> None:
    beside = [path.with_name(path.name + ending) for ending in ("-wal", "-journal")]
    if any(one.exists() and one.stat().st_size for one in (path, *beside)):
        raise BackupError(f"there is a database at {path} already")
    unfinished = path.with_name(path.name + ".restoring")
    try:
        await asyncio.to_thread(_copy_file, file, unfinished)
        await _finish(f"sqlite:///{unfinished}", manifest, clock)
        await asyncio.to_thread(_make_durable, unfinished)
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        for ending in ("", "-wal", "-shm"):
            unfinished.with_name(unfinished.name + ending).unlink(missing_ok=True)


async def _restore_postgres(file: Path, url: str, manifest: Manifest, clock: Clock) -> None:
    program, _ = await _program("pg_restore", int(manifest.database_version))
    async with connected(url) as connection:
        taken = await connection.scalar(
            text(
                "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%')"
            )
        )
    if taken:
        raise BackupError("the database is not empty")
    await _run(program, url, "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", str(file))
    await _finish(url, manifest, clock)


async def _finish(url: str, manifest: Manifest, clock: Clock) -> None:
    """Bring a restored database up to date and mark it."""
    await migrate(url)
    marks = {"backup_ms": str(manifest.made_ms), "restored_ms": str(clock.now_ms())}
    async with connected(url) as connection:
        await connection.execute(delete(meta).where(meta.c.key.in_(marks)))
        await connection.execute(insert(meta), [{"key": key, "value": value} for key, value in marks.items()])
        await connection.commit()


def _make_file(file: Path) -> None:
    """Make the file and its folder, which must not hold anything yet."""
    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if next(folder.iterdir(), None) is not None:
            raise BackupError(f"{folder} is not empty")
        # Whoever may read it may read every message, so it is the owner's alone before its first byte.
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise BackupError(f"{folder} cannot be written: {error.strerror}") from error


def _copy_sqlite(path: Path, target: Path) -> None:
    """One reader's view of the database, written out without its gaps; writers go on beside it."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=30)
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise BackupError(f"SQLite could not write the copy: {error}") from error
    finally:
        connection.close()


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    handle = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as out, source.open("rb") as data:
        shutil.copyfileobj(data, out, COPY_BYTES)


def _make_durable(file: Path) -> tuple[int, str]:
    """Wait until the disk has the file; its length in bytes and its SHA-256."""
    with file.open("rb") as data:
        os.fsync(data.fileno())
        return os.fstat(data.fileno()).st_size, hashlib.file_digest(data, "sha256").hexdigest()


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    unfinished = folder / (MANIFEST + ".part")
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    _make_durable(unfinished)
    os.replace(unfinished, folder / MANIFEST)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder whose copy is whole."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        with (folder / manifest.file).open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise BackupError(f"there is no finished backup in {folder}: {Path(error.filename).name} is missing") from error
    except msgspec.DecodeError as error:
        raise BackupError(f"{folder / MANIFEST} cannot be read: {error}") from error
    if digest != manifest.sha256:
        raise BackupError(f"{folder / manifest.file} is damaged: its checksum is not the manifest's")
    return manifest


async def _program(name: str, release: int) -> tuple[str, int]:
    """The path and the release of a PostgreSQL program that is of `release` or newer."""
    seen = []
    for place in _places(name):
        process = await asyncio.create_subprocess_exec(place, "--version", stdout=asyncio.subprocess.PIPE)
        told, _ = await process.communicate()
        found = re.search(rb"\) (\d+)", told)
        if found is not None and int(found[1]) >= release:
            return place, int(found[1])
        seen.append(f"{place} is {told.decode(errors='replace').strip() or 'not one'}")
    raise BackupError(
        f"{name} of PostgreSQL {release} or newer is needed and was not found; on Debian: apt install "
        f"postgresql-client-{release}" + "".join(f"; {one}" for one in seen)
    )


def _places(name: str) -> list[str]:
    """Where a program may be: first what the operator's PATH says, then Debian's, newest first."""
    in_path = shutil.which(name)
    debian = sorted(DEBIAN_PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]), reverse=True)
    return [*([in_path] if in_path else []), *map(str, debian)]


async def _run(program: str, url: str, *arguments: str) -> None:
    """Run a PostgreSQL program on a database. The password goes through its environment, where nobody else sees it."""
    parsed = make_url(url)
    query = dict(parsed.query)
    password = parsed.password or query.pop("password", None)
    shown = URL.create("postgresql", parsed.username, None, parsed.host, parsed.port, parsed.database, query)
    process = await asyncio.create_subprocess_exec(
        program,
        f"--dbname={shown.render_as_string(hide_password=False)}",
        "--no-password",
        *arguments,
        env=os.environ | ({"PGPASSWORD": str(password)} if password else {}),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, told = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode != 0:
        # Its first line names the cause; later ones may quote rows.
        cause = told.decode(errors="replace").partition("\n")[0]
        raise BackupError(f"{Path(program).name} failed: {cause}")
