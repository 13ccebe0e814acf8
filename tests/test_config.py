"""Settings: where they come from, what beats what, and what is said of a wrong one."""

from ipaddress import ip_network
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from berid import config
from berid.config import Config, ConfigError, describe, load

UNIT_SUFFIXES = {
    "": "",
    "seconds": "_s",
    "messages per second": "_per_s",
    "bytes": "_bytes",
    "days": "_days",
    "hours": "_hours",
}


def write(folder: Path, text: str) -> Path:
    file = folder / "berid.toml"
    file.write_text(text, encoding="utf-8")
    return file


def shown(loaded: Config) -> dict[str, tuple[str, str]]:
    """Setting name → (value, source), as `berid config` prints them."""
    return {line.name: (line.value, line.source) for line in describe(loaded)}


def test_nothing_given_means_defaults() -> None:
    assert load(None, {}, {}) == Config()


def test_later_places_beat_earlier_ones(tmp_path: Path) -> None:
    file = write(tmp_path, "[http]\nport = 1\nhost = '10.0.0.1'\nbody_limit_bytes = 7\n[log]\nlevel = 'debug'")
    loaded = load(file, {"BERID_HTTP_PORT": "2", "BERID_HTTP_HOST": "10.0.0.2"}, {"http.port": "3", "log.level": None})
    assert (loaded.http.port, loaded.http.host, loaded.http.body_limit_bytes) == (3, "10.0.0.2", 7)
    sources = {name: source for name, (_value, source) in shown(loaded).items() if source != "default"}
    assert sources == {
        "http.port": "flag --http.port",
        "http.host": "environment variable BERID_HTTP_HOST",
        "http.body_limit_bytes": f"http.body_limit_bytes in {file}",
        "log.level": f"log.level in {file}",
    }


def test_environment_can_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[smpp]\nwindow = 5")
    assert load(None, {"BERID_CONFIG": str(file)}, {}).smpp.window == 5


@pytest.mark.parametrize(
    ("variable", "value", "section", "field", "expected"),
    [
        ("BERID_PORT", "0", "http", "port", 0),
        ("BERID_HTTP_TLS_PORT", "", "http", "tls_port", None),
        ("BERID_HTTP_TRUSTED_PROXIES", "10.0.0.0/8, ::1", "http", "trusted_proxies", ("10.0.0.0/8", "::1/128")),
        ("BERID_HTTP_REQUEST_TIMEOUT_S", "2", "http", "request_timeout_s", 2.0),
        ("BERID_HTTP_ROOT_DIALECT_HOSTS", "a.example,b.example", "http", "root_dialect_hosts", ("a.example", "b.example")),
        ("BERID_NET_CALLBACK_SCHEDULE_S", "1,2", "net", "callback_schedule_s", (1, 2)),
        ("BERID_NET_CALLBACK_SCHEDULE_S", "", "net", "callback_schedule_s", ()),
        ("BERID_METRICS_ENABLED", "true", "metrics", "enabled", True),
        ("BERID_DISPATCH_UNCERTAIN_OTP", "fail", "dispatch", "uncertain_otp", "fail"),
    ],
)  # fmt: skip
def test_environment_text_becomes_the_type_of_the_setting(
    variable: str, value: str, section: str, field: str, expected: object
) -> None:
    found = getattr(getattr(load(None, {variable: value}, {}), section), field)
    if field == "trusted_proxies":
        assert isinstance(expected, tuple)
        expected = tuple(ip_network(text) for text in expected)
    assert found == expected
    assert type(found) is type(expected)


def test_zones_and_sets_are_parsed_once() -> None:
    loaded = load(None, {"BERID_DIALECTS_TAQNYAT_ZONE": "Africa/Cairo", "BERID_ROLES": "web, smpp"}, {})
    assert loaded.dialects.taqnyat_zone == ZoneInfo("Africa/Cairo")
    assert loaded.roles == {"web", "smpp"}


def test_what_follows_from_the_data_folder_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(None, {"BERID_DATA_DIR": "kept"}, {})
    assert loaded.data_dir == tmp_path / "kept"
    assert loaded.key_file == tmp_path / "kept" / "key"
    assert loaded.database_url == f"sqlite:///{tmp_path}/kept/berid.db"
    assert load(None, {"BERID_KEY_FILE": "mine"}, {}).key_file == tmp_path / "mine"


@pytest.mark.parametrize(
    ("text", "env", "flags", "said"),
    [
        ("[htp]\nport = 1", {}, {}, "htp in {file}: there is no such setting; the nearest is http.port"),
        ("[http]\nprot = 1", {}, {}, "http.prot in {file}: there is no such setting; the nearest is http.port"),
        ("http = 1", {}, {}, "http in {file}: http is a section; set what is in it, as in [http]"),
        ("[http]\nport = '1.5'", {}, {}, "http.port in {file}: '1.5' is not a whole number from 0 to 65535"),
        ("[http]\nport = true", {}, {}, "http.port in {file}: True is not a whole number from 0 to 65535"),
        ("roles = ['web', 'wrker']", {}, {}, "roles in {file}: ['web', 'wrker'] is not a list; each item is one of web"),
        ("port", {}, {}, "{file} is not TOML: "),
        ("", {"BERID_HTTP_PROT": "1"}, {}, "variable BERID_HTTP_PROT: there is no such setting; the nearest is BERID_HTTP_PORT"),
        ("", {"BERID_DATADIR": "x"}, {}, "the nearest is BERID_DATA_DIR"),
        ("", {"BERID_PORT": "65536"}, {}, "environment variable BERID_PORT: '65536' is not a whole number from 0 to 65535"),
        ("", {"BERID_PORT": "1", "BERID_HTTP_PORT": "2"}, {}, "both set http.port; keep one"),
        ("", {"BERID_VALIDITY_OTP_S": "0"}, {}, "is not a whole number, 1 or more, in seconds"),
        ("", {"BERID_NET_READ_TIMEOUT_S": "nan"}, {}, "is not a number, 0 or more, in seconds"),
        ("", {"BERID_DIALECTS_TAQNYAT_ZONE": "Asia/Riyad"}, {}, "is not the name of a time zone such as Asia/Riyadh"),
        ("", {"BERID_NET_ALLOWED_NETWORKS": "10.0.0.1/8"}, {}, "each item is an address range such as 10.0.0.0/8"),
        ("", {"BERID_DATA_DIR": ""}, {}, "'' is not a path"),
        ("", {"BERID_DATABASE_URL": "mysql://h/d"}, {}, "database_url must begin with sqlite:/// or postgresql://"),
        ("", {"BERID_ROLES": ""}, {}, "roles must name at least one of web, worker, links, smpp"),
        ("", {"BERID_KEY": "1", "BERID_KEY_FILE": "/x"}, {}, "key and key_file are both set; keep one"),
        ("", {}, {"http.prt": "1"}, "flag --http.prt: there is no such setting; the nearest is http.port"),
        ("", {}, {"http.tls_port": "1"}, "http.tls_port is set; give http.tls_cert and http.tls_key as well"),
    ],
)  # fmt: skip
def test_trouble_is_told_with_its_place_and_cure(
    tmp_path: Path, text: str, env: dict[str, str], flags: dict[str, str], said: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file, env, flags)
    assert said.format(file=file) in str(caught.value)


def test_every_trouble_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, "colour = 'red'"), {"BERID_PORT": "x"}, {"log.level": "loud"})
    assert len(str(caught.value).splitlines()) == 3


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the settings in .*absent\.toml: No such file"):
        load(tmp_path / "absent.toml", {}, {})


def test_variables_of_tests_and_of_others_are_left_alone() -> None:
    others = {"BERID_TEST_POSTGRES_URL": "x", "BERID_FAILPOINT": "start.after_commit:3", "PORT": "1", "BERIDX": "2"}
    assert load(None, others, {}) == Config()


def test_secret_can_be_kept_in_a_file(tmp_path: Path) -> None:
    kept = tmp_path / "url"
    kept.write_text("postgresql://u:p@db/berid\n")
    assert load(None, {"BERID_DATABASE_URL_FILE": str(kept)}, {}).database_url == "postgresql://u:p@db/berid"
    with pytest.raises(ConfigError, match=r"BERID_DATABASE_URL_FILE: cannot read .*: No such file"):
        load(None, {"BERID_DATABASE_URL_FILE": str(tmp_path / "absent")}, {})
    with pytest.raises(ConfigError, match="both set database_url; keep one"):
        load(None, {}, {"database_url_file": str(kept), "database_url": "sqlite:///x"})


def test_secrets_are_never_shown() -> None:
    secret = "ab" * 32
    loaded = load(None, {"BERID_KEY": secret}, {"database_url": f"postgresql://u:{secret}@db/berid?password={secret}"})
    lines = shown(loaded)
    assert lines["key"] == ("(set)", "environment variable BERID_KEY")
    assert lines["database_url"][0] == "postgresql://db/berid"
    assert secret not in str(lines)
    assert shown(Config())["key"][0] == ""
    with pytest.raises(ConfigError) as caught:
        load(None, {}, {"key": [secret]})
    assert str(caught.value) == "flag --key: its value is not text"


def test_shown_value_read_back_gives_the_same_config() -> None:
    env = {each.env: shown(Config())[name][0] for name, each in config.SETTINGS.items() if not each.is_secret}
    assert load(None, env, {}).net == Config().net
    assert load(None, env, {}).http == Config().http
    assert load(None, env, {}).dialects == Config().dialects
    assert load(None, env, {}).roles == Config().roles


def test_no_two_settings_share_a_variable() -> None:
    variables = [each.env for each in config.SETTINGS.values()]
    assert len({*variables, *config.SHORT_ENV}) == len(variables) + len(config.SHORT_ENV)


@pytest.mark.parametrize("name", list(config.SETTINGS))
def test_setting_has_help_in_a_sentence_and_its_unit_in_its_name(name: str) -> None:
    each = config.SETTINGS[name]
    assert each.about.endswith(".")
    assert name.endswith(UNIT_SUFFIXES[each.unit])
    assert each.unit or not name.endswith(tuple(filter(None, UNIT_SUFFIXES.values())))
