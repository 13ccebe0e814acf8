"""The doctor: each thing that can be wrong is found, named and given a remedy; what is right is left alone."""

import fcntl
import os
import socket
import sqlite3
from collections import namedtuple
from pathlib import Path

import msgspec
import pytest

from berid.base.clock import SystemClock
from berid.config import Config, Http, Smpp
from berid.flow import doctor
from berid.flow.doctor import Finding, Level, examine
from berid.flow.manage import create_connector, open_office
from berid.store import schema
from tests.support.builders import FakeClock
from tests.support.certificate import make_certificate

Usage = namedtuple("Usage", "total used free")


class Sms:
    """A channel that takes any settings."""

    name = "sms"

    def check_settings(self, kind: str, settings: dict[str, object]) -> None:
        pass


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The settings of an installation that does not exist yet, on free ports."""
    return Config(data_dir=tmp_path / "data", http=Http(port=_free_port()), smpp=Smpp(port=_free_port()))


@pytest.fixture
async def installed(config: Config) -> Config:
    """An installation that has run: folder, database, key, and a connector to this machine."""
    await schema.migrate(config.database_url)
    async with open_office(config) as office:
        settings = {"host": "127.0.0.1", "port": 2775, "password": "hush"}
        await create_connector(office, "t", "local", Sms(), "smpp", "live", settings)  # type: ignore[arg-type]
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def found(config: Config, clock: FakeClock | None = None) -> dict[str, Finding]:
    return {each.id: each for each in await examine(config, clock or SystemClock())}


def wrong(findings: dict[str, Finding]) -> dict[str, Level]:
    assert all(bool(each.hint) == (each.level is not Level.OK) for each in findings.values())
    return {each.id: each.level for each in findings.values() if each.level is not Level.OK}


async def test_healthy_installation_has_nothing_wrong(installed: Config) -> None:
    findings = await found(installed)
    assert wrong(findings) == {}
    assert {"data_dir", "key", "database", "sealed", "connector:local", "disk", "http.port", "smpp.port"} <= set(
        findings
    )


async def test_before_the_first_start_only_the_database_must_be_made(config: Config) -> None:
    findings = await found(config)
    assert wrong(findings) == {"data_dir": Level.WARNING, "key": Level.WARNING, "database": Level.ERROR}
    assert findings["database"].hint == "berid migrate"
    assert not config.data_dir.exists()


async def test_both_databases_are_examined(empty_store_url: str, tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, database_url=empty_store_url, http=Http(port=0), smpp=Smpp(port=0))
    await schema.migrate(empty_store_url)
    findings = await found(config)
    assert findings["database"].level is Level.OK
    assert findings["database_clock"].level is Level.OK


async def test_database_that_does_not_answer_is_an_error(config: Config) -> None:
    away = Config(data_dir=config.data_dir, database_url="postgresql://x:hush@127.0.0.1:1/x", http=config.http)
    findings = await found(away)
    assert findings["database"].level is Level.ERROR
    assert "hush" not in findings["database"].sentence


@pytest.mark.parametrize("ahead_s", [-100, 1, 3])
async def test_clock_that_went_back_is_noticed(installed: Config, ahead_s: int) -> None:
    now_ms = SystemClock().now_ms()
    with sqlite3.connect(installed.data_dir / "berid.db") as connection:
        connection.execute("INSERT INTO meta VALUES ('alive_ms', ?)", (str(now_ms + ahead_s * 1000),))
    connection.close()
    findings = await found(installed, FakeClock(now_ms))
    assert ("database_clock" in wrong(findings)) == (ahead_s > 2)


@pytest.mark.postgres
async def test_clock_far_from_the_databases_is_noticed(postgres_url: str, tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, database_url=postgres_url, http=Http(port=0), smpp=Smpp(port=0))
    await schema.migrate(postgres_url)
    findings = await found(config, FakeClock(SystemClock().now_ms() - 60_000))
    assert findings["database_clock"].level is Level.ERROR
    assert "+60" in findings["database_clock"].sentence or "+59" in findings["database_clock"].sentence


async def test_clock_of_a_machine_that_lost_its_time_is_noticed(config: Config) -> None:
    assert wrong(await found(config, FakeClock(1_000)))["clock"] is Level.ERROR


@pytest.mark.parametrize(
    ("mode", "text", "level"),
    [
        (0o600, "ab" * 32, Level.OK),
        (0o400, "ab" * 32, Level.OK),
        (0o640, "ab" * 32, Level.ERROR),
        (0o604, "ab" * 32, Level.ERROR),
        (0o600, "short", Level.ERROR),
        (0o600, "", Level.ERROR),
    ],
)
async def test_key_file_must_be_a_key_and_private(config: Config, mode: int, text: str, level: Level) -> None:
    config.data_dir.mkdir()
    config.key_file.write_text(text)
    config.key_file.chmod(mode)
    findings = await found(config)
    assert findings["key"].level is level
    assert text not in findings["key"].sentence or not text


async def test_key_that_does_not_fit_the_database_is_an_error(installed: Config) -> None:
    installed.key_file.write_text("cd" * 32)
    assert wrong(await found(installed)) == {"sealed": Level.ERROR}
    installed.key_file.unlink()
    assert wrong(await found(installed)) == {"key": Level.WARNING, "sealed": Level.ERROR}


async def test_given_key_is_tried_as_well(installed: Config) -> None:
    key = installed.key_file.read_text().strip()
    assert (
        wrong(await found(Config(data_dir=installed.data_dir, key=key, http=installed.http, smpp=installed.smpp))) == {}
    )
    other = Config(data_dir=installed.data_dir, key="cd" * 32, http=installed.http, smpp=installed.smpp)
    assert wrong(await found(other)) == {"sealed": Level.ERROR}


async def test_carrier_whose_name_leads_nowhere_is_an_error(installed: Config) -> None:
    with sqlite3.connect(installed.data_dir / "berid.db") as connection:
        settings = msgspec.json.encode({"host": "carrier.invalid", "port": 1}).decode()
        connection.execute("UPDATE connector SET settings = ?", (settings,))
        connection.commit()
        assert wrong(await found(installed)) == {"connector:local": Level.ERROR}
        connection.execute("UPDATE connector SET state = 'off'")
        connection.commit()
        assert wrong(await found(installed)) == {}
    connection.close()


@pytest.mark.parametrize(("free", "level"), [(10 << 30, Level.OK), (500 << 20, Level.WARNING), (50 << 20, Level.ERROR)])
async def test_disk_is_watched(config: Config, monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: Usage(1 << 40, 0, free))
    assert (await found(config))["disk"].level is level


async def test_taken_port_is_an_error_unless_it_is_ours(installed: Config) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", installed.http.port))
        other.listen()
        assert wrong(await found(installed)) == {"http.port": Level.ERROR}
        lock = os.open(installed.data_dir / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert wrong(await found(installed)) == {}
        os.close(lock)


async def test_ports_of_other_roles_do_not_matter(installed: Config) -> None:
    config = Config(data_dir=installed.data_dir, roles=frozenset({"worker"}))
    assert [each for each in await found(config) if each.endswith("port")] == []


async def test_address_that_is_not_ours_is_an_error(installed: Config) -> None:
    config = Config(data_dir=installed.data_dir, http=Http(host="192.0.2.1", port=8080), smpp=installed.smpp)
    assert wrong(await found(config)) == {"http.port": Level.ERROR}


async def test_certificate_must_be_there_and_fit_its_key(installed: Config, tmp_path: Path) -> None:
    cert_file, key_file = make_certificate(tmp_path)
    http = Http(port=0, tls_port=0, tls_cert=cert_file, tls_key=key_file)
    config = Config(data_dir=installed.data_dir, http=http, smpp=installed.smpp)
    assert wrong(await found(config)) == {}
    old = key_file.read_bytes()
    make_certificate(tmp_path)
    key_file.write_bytes(old)
    assert wrong(await found(config)) == {"http.tls_cert": Level.ERROR}
    key_file.unlink()
    findings = await found(config)
    assert wrong(findings) == {"http.tls_cert": Level.ERROR}
    assert "key.pem cannot be read" in findings["http.tls_cert"].sentence


async def test_with_postgresql_the_data_folder_need_not_be_written(
    installed: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    stopped = doctor.obstacle(installed)
    assert stopped is not None
    assert "cannot be written" in stopped.sentence
    shared = Config(
        data_dir=installed.data_dir, database_url="postgresql://x/y", http=installed.http, smpp=installed.smpp
    )
    assert doctor.obstacle(shared) is None


async def test_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    config = Config(data_dir=tmp_path / "data", http=Http(port=0), smpp=Smpp(port=0))
    assert wrong(await found(config)) == {"data_dir": Level.ERROR, "key": Level.ERROR, "database": Level.ERROR}
