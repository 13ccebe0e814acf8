"""Backups are made while others write, are whole or refused, and come back into an empty database only."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from berid import __version__
from berid.base.clock import SystemClock
from berid.store import backup as backup_module
from berid.store import open_store
from berid.store.backup import MANIFEST, BackupError, Manifest, backup, restore
from berid.store.hot import HotTx, StoreAway, Verb
from berid.store.schema import check, migrate, newest_step
from tests.support.database import ask, row
from tools.pg import program_folders


class StandingClock(SystemClock):
    """The wall clock stands at `at_ms`."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return self.at_ms


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs that belong to the server of the tests."""
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, program_folders()), os.environ["PATH"]]))


@pytest.fixture
def store_url(empty_store_url: str) -> str:
    """A database of its own, without tables."""
    return empty_store_url


@pytest.fixture
async def another_url(store_url: str, tmp_path: Path) -> AsyncIterator[Callable[[str], Any]]:
    """Makes the URL of a further, empty database of the same kind."""
    made: list[str] = []

    async def make(name: str) -> str:
        if store_url.startswith("sqlite"):
            return f"sqlite:///{tmp_path}/{name}/berid.db"
        made.append(f"{_database(store_url)}_{name}")
        await ask(store_url, f'CREATE DATABASE "{made[-1]}"')
        return store_url.replace(_database(store_url), made[-1])

    yield make
    for name in made:
        await ask(store_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _database(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


async def _write(tx: HotTx, ids: list[int]) -> list[None]:
    await tx.insert("event", [row("event", delivery_id=identifier, id=1, detail="Merhaba ş") for identifier in ids])
    await tx.insert("job", [row("job", id=identifier) for identifier in ids])
    return [None for _ in ids]


WRITE: Verb[int, None] = Verb("write", 1, _write)


async def filled(url: str) -> None:
    """Migrate a database and write a hundred events and jobs."""
    await migrate(url)
    store = await open_store(url, SystemClock())
    await store.hot.do(WRITE, range(100))
    await store.close()


async def marks(url: str) -> dict[str, str]:
    """What a restore left in `meta`."""
    return dict(await ask(url, "SELECT key, value FROM meta"))


async def test_backup_comes_back_with_every_row_and_marked(
    store_url: str, another_url: Callable[[str], Any], tmp_path: Path
) -> None:
    await filled(store_url)
    manifest = await backup(store_url, tmp_path / "backup", StandingClock(1_000))
    target = await another_url("restored")
    assert await restore(tmp_path / "backup", target, StandingClock(2_000)) == manifest
    query = "SELECT delivery_id, id, kind, at_ms, detail FROM event ORDER BY delivery_id"
    assert await ask(target, query) == await ask(store_url, query)
    assert len(await ask(target, query)) == 100
    assert await marks(target) == {"backup_ms": "1000", "restored_ms": "2000"}
    assert await marks(store_url) == {}
    await check(target)
    store = await open_store(target, SystemClock())
    await store.hot.do(WRITE, [1000])
    await store.close()


async def test_second_restore_replaces_the_marks_of_the_first(
    store_url: str, another_url: Callable[[str], Any], tmp_path: Path
) -> None:
    await filled(store_url)
    await backup(store_url, tmp_path / "first", StandingClock(1_000))
    second = await another_url("second")
    await restore(tmp_path / "first", second, StandingClock(2_000))
    await backup(second, tmp_path / "again", StandingClock(3_000))
    third = await another_url("third")
    await restore(tmp_path / "again", third, StandingClock(4_000))
    assert await marks(third) == {"backup_ms": "3000", "restored_ms": "4000"}


async def test_backup_made_while_others_write_is_of_one_moment(
    store_url: str, another_url: Callable[[str], Any], tmp_path: Path
) -> None:
    await filled(store_url)
    store = await open_store(store_url, SystemClock())
    is_done = asyncio.Event()

    async def write() -> int:
        number = 1_000
        while not is_done.is_set():
            await store.hot.do(WRITE, [number])
            number += 1
        return number

    writing = asyncio.ensure_future(write())
    await backup(store_url, tmp_path / "backup", SystemClock())
    is_done.set()
    assert await writing > 1_001, "nothing was written meanwhile"
    await store.close()
    target = await another_url("restored")
    await restore(tmp_path / "backup", target, SystemClock())
    written = [found[0] for found in await ask(target, "SELECT delivery_id FROM event ORDER BY delivery_id")]
    assert written == [found[0] for found in await ask(target, "SELECT id FROM job ORDER BY id")]
    assert written[100:] == list(range(1_000, 1_000 + len(written) - 100)), "a commit is missing before a later one"


async def test_manifest_says_what_the_backup_is_and_what_is_missing(store_url: str, tmp_path: Path) -> None:
    await filled(store_url)
    folder = tmp_path / "deep" / "backup"
    manifest = await backup(store_url, folder, StandingClock(5_000))
    assert json.loads((folder / MANIFEST).read_bytes()) == msgspec.to_builtins(manifest)
    assert (manifest.berid, manifest.step, manifest.made_ms) == (__version__, newest_step(), 5_000)
    assert manifest.database == store_url.partition(":")[0]
    assert "master key is not in this backup" in manifest.not_included
    assert sorted(path.name for path in folder.iterdir()) == sorted([manifest.file, MANIFEST])
    assert (folder / manifest.file).stat().st_size == manifest.file_bytes
    assert stat.S_IMODE((folder / manifest.file).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_folder_that_holds_something_is_left_alone(store_url: str, tmp_path: Path) -> None:
    await migrate(store_url)
    folder = tmp_path / "backup"
    await backup(store_url, folder, SystemClock())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(BackupError, match="is not empty"):
        await backup(store_url, folder, SystemClock())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


async def test_database_that_is_not_empty_is_left_alone(store_url: str, tmp_path: Path) -> None:
    await filled(store_url)
    await backup(store_url, tmp_path / "backup", SystemClock())
    with pytest.raises(BackupError, match=r"not empty|already"):
        await restore(tmp_path / "backup", store_url, SystemClock())
    assert await ask(store_url, "SELECT count(*) FROM event") == [(100,)]
    assert await marks(store_url) == {}


async def test_empty_database_has_nothing_to_back_up(store_url: str, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"no database|no tables"):
        await backup(store_url, tmp_path / "backup", SystemClock())
    assert list(tmp_path.iterdir()) == []


def _cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _lose_manifest(file: Path) -> None:
    (file.parent / MANIFEST).unlink()


def _spoil_manifest(file: Path) -> None:
    (file.parent / MANIFEST).write_text("{")


def _change_manifest(**values: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        manifest = file.parent / MANIFEST
        manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | values))

    return change


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_cut_off, "damaged"),
        (_flip_a_bit, "damaged"),
        (Path.unlink, "no finished backup"),
        (_lose_manifest, "no finished backup"),
        (_spoil_manifest, "cannot be read"),
        (_change_manifest(step="9999"), "newer release"),
        (_change_manifest(database="mysql"), "backup of a mysql database"),
    ],
)
async def test_backup_that_is_not_as_it_was_made_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], why: str
) -> None:
    await migrate(f"sqlite:///{tmp_path}/berid.db")
    manifest = await backup(f"sqlite:///{tmp_path}/berid.db", tmp_path / "backup", SystemClock())
    spoil(tmp_path / "backup" / manifest.file)
    with pytest.raises(BackupError, match=why):
        await restore(tmp_path / "backup", f"sqlite:///{tmp_path}/new/berid.db", SystemClock())
    assert not (tmp_path / "new").exists()


async def test_restore_that_fails_on_the_way_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(f"sqlite:///{tmp_path}/berid.db")
    await backup(f"sqlite:///{tmp_path}/berid.db", tmp_path / "backup", SystemClock())

    async def fail(_url: str) -> None:
        raise StoreAway("disk full")

    monkeypatch.setattr(backup_module, "migrate", fail)
    with pytest.raises(StoreAway):
        await restore(tmp_path / "backup", f"sqlite:///{tmp_path}/new/berid.db", SystemClock())
    assert list((tmp_path / "new").iterdir()) == []


async def test_restored_file_is_the_owners_alone_and_stands_by_itself(tmp_path: Path) -> None:
    await filled(f"sqlite:///{tmp_path}/berid.db")
    await backup(f"sqlite:///{tmp_path}/berid.db", tmp_path / "backup", SystemClock())
    await restore(tmp_path / "backup", f"sqlite:///{tmp_path}/new/berid.db", SystemClock())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["berid.db"]
    assert stat.S_IMODE((tmp_path / "new" / "berid.db").stat().st_mode) == 0o600


async def test_backup_of_another_kind_of_database_is_refused(tmp_path: Path) -> None:
    await migrate(f"sqlite:///{tmp_path}/berid.db")
    await backup(f"sqlite:///{tmp_path}/berid.db", tmp_path / "backup", SystemClock())
    with pytest.raises(BackupError, match="backup of a sqlite database"):
        await restore(tmp_path / "backup", "postgresql://nobody@/none", SystemClock())


@pytest.mark.postgres
@pytest.mark.parametrize("answer", [None, "pg_dump (PostgreSQL) 9.6.1"])
async def test_missing_or_old_program_is_named_with_the_way_to_get_it(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    await migrate(postgres_url)
    programs = tmp_path / "programs"
    programs.mkdir()
    if answer is not None:
        (programs / "pg_dump").write_text(f"#!/bin/sh\necho '{answer}'\n")
        (programs / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(backup_module, "DEBIAN_PROGRAMS", tmp_path / "none")
    with pytest.raises(
        BackupError, match=r"pg_dump of PostgreSQL \d\d or newer .* apt install postgresql-client"
    ) as caught:
        await backup(postgres_url, tmp_path / "backup", SystemClock())
    assert (answer or "") in str(caught.value)
    assert not (tmp_path / "backup").exists()


@pytest.mark.postgres
async def test_newest_program_of_debian_is_found_when_the_path_has_an_old_one(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(postgres_url)
    old, debian = tmp_path / "old", tmp_path / "debian"
    for folder, release in ((old, "9.6"), (debian / "9.6" / "bin", "9.6"), (debian / "13" / "bin", "13")):
        folder.mkdir(parents=True)
        (folder / "pg_dump").write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {release}'\n")
        (folder / "pg_dump").chmod(0o755)
    newest = debian / "99" / "bin"
    newest.mkdir(parents=True)
    (newest / "pg_dump").symlink_to(program_folders()[0] / "pg_dump")
    monkeypatch.setenv("PATH", str(old))
    monkeypatch.setattr(backup_module, "DEBIAN_PROGRAMS", debian)
    manifest = await backup(postgres_url, tmp_path / "backup", SystemClock())
    assert int(manifest.database_version) > 13


@pytest.mark.postgres
async def test_password_is_not_among_the_arguments_of_the_program(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(postgres_url)
    programs = tmp_path / "programs"
    programs.mkdir()
    told = tmp_path / "told"
    (programs / "pg_dump").write_text(
        f'#!/bin/sh\necho \'pg_dump (PostgreSQL) 99\'\necho "$@" >> {told}\necho "$PGPASSWORD" >> {told}\n'
    )
    (programs / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/bin")
    url = postgres_url.replace("postgres@", "postgres:p%40ss@", 1)
    await backup(url, tmp_path / "backup", SystemClock())
    arguments, password = told.read_text().splitlines()[-2:]
    assert password == "p@ss"
    assert "p@ss" not in arguments
    assert "p%40ss" not in arguments
    assert _database(postgres_url) in arguments


@pytest.mark.postgres
async def test_program_that_fails_leaves_an_empty_folder_and_its_first_words(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(postgres_url)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "pg_dump").write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo 'pg_dump (PostgreSQL) 99' && exit\n"
        "echo 'the cause' >&2\necho 'a row' >&2\nexit 1\n"
    )
    (programs / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/bin")
    with pytest.raises(BackupError, match="the cause") as caught:
        await backup(postgres_url, tmp_path / "backup", SystemClock())
    assert "a row" not in str(caught.value)
    assert list((tmp_path / "backup").iterdir()) == []


def test_manifest_of_an_earlier_release_can_still_be_read() -> None:
    text = (
        '{"berid":"0.1.0","database":"sqlite","database_version":"3.40.1","step":"0001","made_ms":5,"file":"berid.db",'
        '"file_bytes":4096,"sha256":"00","not_included":"x","of_a_later_release":1}'
    )
    assert msgspec.json.decode(text, type=Manifest).made_ms == 5
