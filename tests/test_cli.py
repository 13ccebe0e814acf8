"""The command line: what it does, how it says so, and how it fails."""

import fcntl
import http.server
import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from berid import __version__
from berid.cli import app, main, reference
from berid.cli import process as process_commands


class Shell:
    """Runs commands in this process, each on a loop of its own, with an environment that holds only what is given."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.env = {"BERID_DATA_DIR": str(folder)}
        self.folder = folder
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def run(self, *argv: str, stdin: str = "") -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        self._monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        self._capsys.readouterr()
        code = main(argv, self.env)
        told = self._capsys.readouterr()
        return code, told.out, told.err

    def ask(self, *argv: str, stdin: str = "") -> Any:
        """What a command says in JSON; it must not fail."""
        code, out, err = self.run("--json", *argv, stdin=stdin)
        assert (code, err) in ((0, ""), (0, "Keep the secret: it cannot be shown again.\n")), err
        return json.loads(out)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell without a database."""
    return Shell(tmp_path, capsys, monkeypatch)


@pytest.fixture
def store(shell: Shell, empty_store_url: str) -> Shell:
    """A shell with a database, once on SQLite and once on PostgreSQL."""
    shell.env["BERID_DATABASE_URL"] = empty_store_url
    assert shell.ask("migrate") == {"applied": ["0001"]}
    return shell


@pytest.fixture
def small(shell: Shell) -> Shell:
    """A shell with a SQLite database, for what does not depend on the database."""
    shell.ask("migrate")
    return shell


def test_office_can_set_up_a_whole_business(store: Shell, tmp_path: Path) -> None:
    ask = store.ask
    account = ask("account", "create", "Acme", "--home", "SA", "--currency", "SAR", "TRY")["id"]
    assert ask("topup", "Acme", "100", "SAR", "--mode", "test", "--note", "first")["available"] == "100"
    assert ask("topup", "Acme", "5", "SAR", "--mode", "test", "--bonus")["available"] == "105"
    ask("ledger", "adjust", "Acme", "-4.5", "SAR", "--mode", "test", "--note", "typed twice")
    ask("ledger", "credit", account, "10", "SAR", "--mode", "test")
    statement = ask("ledger", "statement", "Acme", "SAR", "--mode", "test")
    assert [(each["kind"], each["amount"], each["note"]) for each in statement] == [
        ("adjust", "-4.5", "typed twice"),
        ("bonus", "5", ""),
        ("topup", "100", "first"),
    ]

    application = ask("application", "create", "Acme", "shop", "--service", "sms", "otp")["id"]
    ask("application", "services", "Acme", application, "sms", "voice")
    assert ask("application", "rules", "Acme", application, "networks=192.0.2.0/24")["networks"] == ["192.0.2.0/24"]
    assert ask("account", "rules", "Acme", "countries=SA,TR", "per_second=2.5")["countries"] == ["SA", "TR"]
    assert ask("account", "rules", "Acme")["per_second"] == 2.5

    assert ask("sender", "request", "Acme", "Acme")["id"].startswith("snd_")
    sender = ask("sender", "list", "Acme")[0]
    ask("sender", "move", "Acme", sender["id"], "approved", "--expires", "2099-01-01")
    assert ask("sender", "list", "Acme")[0] | {"updated_at": ""} == sender | {
        "state": "approved",
        "expires_at": "2099-01-01T00:00:00Z",
        "updated_at": "",
    }

    ask("price", "create", "Retail", "SAR", "--charge-on", "delivered")
    rows = "prefix,price\n966,0.03\n"
    dry = ask("price", "import", "Retail", "-", "--dry-run", stdin=rows)
    assert [(each["change"], each["prefix"], each["price"]) for each in dry] == [("added", "966", "0.03")]
    assert ask("price", "show", "Retail") == []
    file = tmp_path / "prices.csv"
    file.write_text(rows)
    assert ask("price", "import", "Retail", str(file)) == dry
    ask("price", "use", "Retail", "Acme", "--rank", "3")
    assert ask("price", "list")[0]["used_by"] == [f"{account} (rank 3)"]

    settings = tmp_path / "carrier.toml"
    settings.write_text('password = "hush"\nsystem_id = "us"\n')
    connector = ask("connector", "add", "sim", "--mode", "test", "--settings", str(settings), "--set", "host=localhost")
    ask("connector", "set", "sim", "port=2776")
    shown = ask("connector", "list")[0]
    assert shown["settings"] == {"password": "***", "system_id": "us", "host": "localhost", "port": 2776}
    for command, state in (("pause", "paused"), ("drain", "draining"), ("off", "off"), ("resume", "on")):
        ask("connector", command, connector["id"])
        assert ask("connector", "list")[0]["state"] == state
    ask("route", "add", "test", "--connector", "sim", "--mode", "test", "--country", "SA")
    explained = ask("route", "explain", "966501234567", "Acme", "--mode", "test")
    assert (explained["route"], explained["connectors"], explained["price_of_a_unit"], explained["pays"]) == (
        "test",
        ["sim (on)"],
        "0.03 SAR",
        "SAR",
    )
    ask("route", "state", "test", "off")
    assert [(each["name"], each["state"]) for each in ask("route", "list")] == [("test", "off")]
    ask("number", "assign", "966800", "Acme", "--application", application)
    ask("number", "release", "966800", "Acme")

    assert ask("ledger", "verify") == {"discrepancies": []}
    actions = {each["action"] for each in ask("account", "audit", "Acme")}
    assert {"account.create", "wallet.topup", "application.rules", "sender.move", "number.release"} <= actions
    assert {each["action"] for each in ask("account", "audit")} >= {"price.import", "connector.state", "route.create"}
    assert ask("account", "show", "Acme")["wallets"] == [
        "live: 0 SAR (held 0, credit 0)",
        "live: 0 TRY (held 0, credit 0)",
        "test: 100.5 SAR (held 0, credit 10)",
        "test: 0 TRY (held 0, credit 0)",
    ]
    ask("account", "state", "Acme", "suspended")
    assert [(each["name"], each["state"]) for each in ask("account", "list")] == [("Acme", "suspended")]


def test_what_accounts_ask_for_is_decided(store: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = store.ask
    ask("account", "create", "Acme", "--home", "TR", "--currency", "TRY")
    slip = tmp_path / "slip.pdf"
    slip.write_bytes(b"%PDF-1.7 paid")
    monkeypatch.setattr("getpass.getuser", lambda: "asker")
    make = ("topup-request", "make", "Acme", "250", "TRY", "--method", "bank transfer", "--slip", str(slip))
    first, second = ask(*make)["id"], ask(*make)["id"]
    code, _, err = store.run("topup-request", "approve", first)
    assert (code, err) == (1, "berid: this request is the approver's own\n")
    monkeypatch.setattr("getpass.getuser", lambda: "desk")
    listed = ask("topup-request", "list")
    assert [(each["id"], each["state"], each["amount"]) for each in listed] == [
        (first, "submitted", "250"),
        (second, "submitted", "250"),
    ]
    ask("topup-request", "check", first)
    ask("topup-request", "ask", first, "which bank?")
    shown = ask("topup-request", "show", first)
    assert (shown["state"], shown["reason"], shown["same_files"]) == ("needs_info", "which bank?", [second])
    ask("attachment", shown["slips"][0].split()[0], str(tmp_path / "copy.pdf"))
    copy = tmp_path / "copy.pdf"
    assert copy.read_bytes() == slip.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert store.run("attachment", shown["slips"][0].split()[0], str(copy))[0] == 1
    done = ask("topup-request", "approve", first, "--amount", "249", "--reason", "fee")
    assert ask("topup-request", "approve", first, "--amount", "249") == done
    ask("topup-request", "reject", second, "the same slip")
    assert ask("topup-request", "list") == []
    statement = ask("ledger", "statement", "Acme", "TRY")
    assert [(each["id"], each["kind"], each["amount"], each["actor"]) for each in statement] == [
        (done["entry"], "topup", "249", "cli:desk")
    ]
    third = ask(*make[:-2])["id"]
    ask("topup-request", "withdraw", "Acme", third)
    assert [each["id"] for each in ask("topup-request", "list", "--state", "withdrawn")] == [third]

    ask("trial", "offer", "turkeysms", "10", "CREDIT")
    assert [(each["product"], each["amount"]) for each in ask("trial", "list")] == [("turkeysms", "10")]
    assert ask("trial", "claim", "Acme", "turkeysms")["available"] == "10"
    assert store.run("trial", "claim", "Acme", "turkeysms")[0] == 1
    ask("trial", "end", "turkeysms")
    assert ask("trial", "list") == []

    ask("account", "rules", "Acme", "international_on=false")
    wish = ("international", "ask", "Acme", "--purpose", "a branch", "--country", "DE", "AT")
    ask("international", "reject", ask(*wish)["id"], "which branch?")
    ask("international", "withdraw", "Acme", ask(*wish)["id"])
    made = ask(*wish)["id"]
    assert [(each["id"], each["countries"]) for each in ask("international", "list")] == [(made, "AT DE")]
    ask("international", "approve", made)
    rules = ask("account", "rules", "Acme")
    assert (rules["international_on"], rules["countries"]) == (True, ["AT", "DE", "TR"])
    assert ask("ledger", "verify") == {"discrepancies": []}


def test_people_are_entered_listed_and_lifted(store: Shell, tmp_path: Path) -> None:
    ask = store.ask
    ask("account", "create", "Acme", "--home", "TR")
    assert ask("suppression", "add", "Acme", "+905551112230", "--reason", "complaint") == {"added": True}
    rows = "recipient,channel\n905551112231,sms\n905551112232,\n"
    assert ask("suppression", "import", "Acme", "-", "--source", "old", stdin=rows)["changed"] == 2
    code, out, _ = store.run("suppression", "import", "Acme", "-", stdin="recipient\nnobody\n")
    assert (code, out.splitlines()[0]) == (1, "0 changed, 0 said so before, 1 left out.")
    ask("suppression", "lift", "Acme", "905551112230")
    listed = ask("suppression", "list", "Acme")
    assert [(each["recipient"], each["channel"], each["source"]) for each in listed] == [
        ("905551112231", "sms", "old"),
        ("905551112232", "all", "old"),
    ]
    assert [each["recipient"] for each in ask("suppression", "list", "Acme", "--after", "905551112231")] == [
        "905551112232"
    ]

    names = "brandCode,type,recipient,recipientType,status,source,consentDate"
    told = f"{names}\r\n7,MESAJ,+905551112230,BIREYSEL,ONAY,HS_WEB,2020-01-02 10:00:00\r\n"
    assert ask("consent", "import", "Acme", "-", "--from-registry", stdin=told)["changed"] == 1
    assert store.run("consent", "export", "Acme")[1].splitlines() == told.splitlines()
    file = tmp_path / "consents.csv"
    store.run("consent", "export", "Acme", str(file))
    assert file.read_text(encoding="utf-8").splitlines() == told.splitlines()
    (line,) = ask("consent", "list", "Acme", "--recipient", "905551112230")
    assert (line["brand"], line["status"], line["consent_at"], line["is_current"]) == (
        "7",
        "ONAY",
        "2020-01-02T07:00:00Z",
        True,
    )
    assert ask("consent", "rules", "Acme", "SA=yes", "TR=no") == [
        {"country": "SA", "is_required": True},
        {"country": "TR", "is_required": False},
    ]
    assert ask("consent", "rules", "Acme", "TR=pack") == ask("consent", "rules", "Acme")
    assert store.run("consent", "rules", "Acme", "SA=maybe")[0] == 1


def test_papers_go_with_a_sender_name(small: Shell, tmp_path: Path) -> None:
    small.ask("account", "create", "Acme", "--home", "SA")
    paper = tmp_path / "register.png"
    paper.write_bytes(b"\x89PNG\r\n\x1a\n")
    small.ask("sender", "request", "Acme", "Acme", "--document", str(paper))
    code, _, err = small.run("sender", "request", "Acme", "Other", "--document", str(tmp_path / "none.pdf"))
    assert code == 1
    assert "none.pdf cannot be read" in err
    assert [each["name"] for each in small.ask("sender", "list", "Acme")] == ["Acme"]


def test_secret_of_a_token_is_shown_once(store: Shell) -> None:
    store.ask("account", "create", "Acme", "--home", "SA")
    store.ask("application", "create", "Acme", "shop")
    bearer = store.ask("token", "create", "Acme", "--mode", "live", "--scope", "send", "status", "--label", "till")
    key = store.ask("token", "create", "Acme", "--kind", "api-key")
    login = store.ask("token", "create", "Acme", "--kind", "smpp", "--system-id", "acme")
    assert bearer["secret"].startswith("bl_")
    assert len(key["secret"]) == 32
    assert (login["system_id"], len(login["secret"])) == ("acme", 8)
    fresh = store.ask("token", "rotate", "Acme", bearer["id"], "--overlap-hours", "1")
    store.ask("token", "revoke", "Acme", key["id"])
    listed = store.ask("token", "list", "Acme")
    assert {each["id"] for each in listed} == {bearer["id"], key["id"], login["id"], fresh["id"]}
    by_id = {each["id"]: each for each in listed}
    assert by_id[bearer["id"]]["expires_at"] != ""
    assert by_id[fresh["id"]]["expires_at"] == ""
    assert by_id[fresh["id"]]["scopes"] == "send status"
    assert by_id[key["id"]]["revoked_at"] != ""
    for secret in (each["secret"] for each in (bearer, key, login, fresh)):
        assert secret not in json.dumps(listed)
        assert secret not in json.dumps(store.ask("account", "audit", "Acme"))


def test_application_must_be_named_when_there_are_two(small: Shell) -> None:
    small.ask("account", "create", "Acme", "--home", "SA")
    assert "make one" in small.run("token", "create", "Acme")[2]
    first = small.ask("application", "create", "Acme", "one")["id"]
    small.ask("application", "create", "Acme", "two")
    code, _, err = small.run("token", "create", "Acme")
    assert (code, "2 applications" in err) == (1, True)
    assert small.ask("token", "create", "Acme", "--application", first)["id"]


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--version"], 0, ""),
        (["--help"], 0, ""),
        (["account"], 0, ""),
        (["account", "create", "--help"], 0, ""),
        (["nonsense"], 2, "nonsense"),
        (["account", "create"], 2, "NAME"),
        (["account", "create", "A", "--home", "SA", "--colour", "red"], 2, "--colour"),
        (["account", "state", "A", "asleep"], 2, "asleep"),
        (["--http.prot", "1", "config"], 2, "http.port"),
        (["config", "--http.port"], 2, "needs a value"),
        (["config", "--http.port", "many"], 2, "many"),
        (["config", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["account", "show", "Nobody"], 1, "Nobody"),
        (["account", "create", "A", "--home", "Saudi"], 1, "two letters"),
        (["account", "rules", "A", "per_second"], 1, "no account"),
        (["topup", "A", "much", "SAR"], 1, "no account"),
        (["price", "import", "Retail", "nowhere.csv"], 1, "nowhere.csv"),
        (["connector", "add", "x", "--set", "host"], 1, "NAME=VALUE"),
        (["connector", "add", "x", "--set", "host=a"], 1, "system_id"),
        (["connector", "add", "x", "--channel", "fax"], 1, "fax"),
        (["connector", "pause", "x"], 1, "connector list"),
        (["route", "state", "x", "on"], 1, "route list"),
        (["route", "explain", "966501234567", "A"], 1, "no account"),
        (["job", "revive", "7"], 1, "no such job"),
        (["restore", "nowhere"], 1, "nowhere"),
        (["config", "key", "words"], 2, "nothing is known to do with: key words"),
        (["message", "list"], 1, "set it to a token"),
        (["send", "hi", "--to", "1", "--sender", "B"], 1, "BERID_TOKEN"),
        (["message", "show", "x"], 1, "not the id"),
    ],
)
def test_failure_is_a_sentence_and_an_exit_code(small: Shell, argv: list[str], code: int, said: str) -> None:
    found, out, err = small.run(*argv)
    assert (found, said in err) == (code, True), err
    assert "Traceback" not in err
    assert err == "" if code == 0 else out == ""
    if code:
        found, out, err = small.run("--json", *argv)
        assert (found, out) == (code, "")
        told = json.loads(err)
        assert set(told) == {"error", "fix"}
        assert said in told["error"] + told["fix"]


@pytest.mark.parametrize(
    ("env", "said", "fix"),
    [
        ({"BERID_PORT": "TAKEN"}, "127.0.0.1:TAKEN is taken by another program", "http.port"),
        ({"BERID_METRICS_ENABLED": "true", "BERID_METRICS_PORT": "TAKEN"}, "TAKEN is taken", "metrics.port"),
        ({"BERID_HTTP_HOST": "192.0.2.1"}, "192.0.2.1:0 cannot be listened on", "http.host"),
        ({"BERID_DATA_DIR": "file"}, "file is not a folder", "BERID_DATA_DIR"),
        ({"BERID_READY_FILE": "none/ready.json"}, "there is no folder FOLDER/none", "BERID_READY_FILE"),
        ({"BERID_READY_FILE": "folder"}, "folder is a folder", "BERID_READY_FILE"),
        (
            {"BERID_HTTP_TLS_PORT": "0", "BERID_HTTP_TLS_CERT": "none.pem", "BERID_HTTP_TLS_KEY": "file"},
            "none.pem cannot be read: No such file",
            "http.tls_cert",
        ),
        (
            {"BERID_SMPP_TLS_PORT": "0", "BERID_SMPP_TLS_CERT": "file", "BERID_SMPP_TLS_KEY": "file"},
            "are not a certificate with its key",
            "smpp.tls_cert",
        ),
        ({"BERID_KEY": "zz"}, "the setting key (BERID_KEY) does not hold a master key", ""),
        ({"BERID_KEY_FILE": "file"}, "file does not hold a master key", ""),
    ],
)
@pytest.mark.parametrize("command", ["serve", "demo"])
def test_what_keeps_a_process_from_starting_is_named_before_a_carrier_is_called(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: str, env: dict[str, str], said: str, fix: str
) -> None:
    monkeypatch.chdir(shell.folder)
    Path("file").write_text("nothing of use")
    Path("folder").mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        shell.env |= {"BERID_PORT": "0", "BERID_SMPP_PORT": "0", "BERID_DATA_DIR": "data"}
        shell.env["BERID_DATABASE_URL"] = f"sqlite:///{shell.folder}/berid.db"
        shell.ask("migrate")
        shell.env |= {name: value.replace("TAKEN", taken) for name, value in env.items()}
        code, out, err = shell.run(command)
    assert (code, out) == (1, "")
    assert said.replace("TAKEN", taken).replace("FOLDER", str(shell.folder)) in err
    assert fix in err
    assert "bound" not in err
    assert "fault of Berid" not in err


def test_start_that_fails_leaves_the_ready_file_of_the_one_that_runs(small: Shell) -> None:
    small.env |= {"BERID_PORT": "0", "BERID_SMPP_PORT": "0", "BERID_READY_FILE": str(small.folder / "ready.json")}
    (small.folder / "ready.json").write_text("{}")
    with (small.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = small.run("serve")
    assert (code, "another process serves" in err) == (1, True)
    assert (small.folder / "ready.json").read_text() == "{}"


def test_database_that_is_not_ready_says_what_to_do(shell: Shell) -> None:
    code, out, err = shell.run("account", "list")
    assert (code, out) == (1, "")
    assert "berid migrate" in err
    assert list(shell.folder.iterdir()) == []
    shell.env["BERID_DATABASE_URL"] = "postgresql://nobody:hush@127.0.0.1:1/none"
    code, out, err = shell.run("account", "list")
    assert (code, "hush" in err) == (1, False)
    assert "cannot be reached" in err


def test_fault_of_ours_is_told_without_a_traceback_unless_it_is_wanted(
    small: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: object) -> None:
        raise ZeroDivisionError("bt_0123456789012345678901234567890123456789")

    monkeypatch.setattr(process_commands.settings, "describe", broken)
    code, _, err = small.run("config")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
    assert "0123456789" not in err
    small.env["BERID_LOG_LEVEL"] = "debug"
    assert "Traceback" in small.run("config")[2]


def test_settings_are_options_and_secrets_are_not_shown(shell: Shell) -> None:
    shell.env |= {"BERID_TOKEN": "bt_x", "BERID_URL": "http://x", "BERID_KEY": "ab" * 32}
    url = "postgresql://berid:hush@db/berid"
    found = shell.ask("config", "--http.port", "81", "--log.level=debug", "--database-url", url, "--roles", "web")
    shown = {each["setting"]: (each["value"], each["from"]) for each in found}
    assert shown["http.port"] == ("81", "flag --http.port")
    assert shown["roles"] == ("web", "flag --roles")
    assert shown["log.level"] == ("debug", "flag --log.level")
    assert shown["data_dir"] == (str(shell.folder), "environment variable BERID_DATA_DIR")
    assert shown["database_url"][0] == "postgresql://db/berid"
    assert "abab" not in json.dumps(found)
    assert "hush" not in json.dumps(found)


def test_tampering_makes_verify_fail(small: Shell) -> None:
    small.ask("account", "create", "Acme", "--home", "SA", "--currency", "SAR")
    with sqlite3.connect(small.folder / "berid.db") as connection:
        connection.execute("UPDATE wallet SET held_micros = 26000 WHERE mode = 'live'")
    connection.close()
    code, out, _ = small.run("ledger", "verify", "--json")
    found = json.loads(out)["discrepancies"]
    assert (code, [(each["kind"], each["found"]) for each in found]) == (1, [("held", "0.026")])
    code, out, _ = small.run("ledger", "verify")
    assert (code, "held is 0.026" in out) == (1, True)


def test_commands_leave_the_running_platform_its_slot(small: Shell) -> None:
    with sqlite3.connect(small.folder / "berid.db") as connection:
        connection.execute("INSERT INTO process VALUES (0, 'platform', 9000000000000)")
        connection.commit()
        made = [small.ask("account", "create", f"A{place}", "--home", "SA")["id"] for place in range(3)]
        slots = {int(each.removeprefix("acc_")) % 32 for each in made}
        assert connection.execute("SELECT * FROM process").fetchall() == [(0, "platform", 9000000000000)]
    connection.close()
    assert 0 not in slots


def test_backup_comes_back(small: Shell, tmp_path: Path) -> None:
    small.ask("account", "create", "Acme", "--home", "SA")
    target = tmp_path / "backup"
    assert small.ask("backup", str(target))["step"] == "0001"
    assert small.run("backup", str(target))[0] == 1
    assert small.run("restore", str(target))[0] == 1
    url = f"sqlite:///{tmp_path}/other.db"
    small.ask("restore", str(target), "--database-url", url)
    assert [each["name"] for each in small.ask("account", "list", "--database-url", url)] == ["Acme"]


def test_check_names_what_is_wrong(small: Shell) -> None:
    small.run("account", "create", "Acme", "--home", "SA")
    small.env |= {"BERID_HTTP_PORT": "0", "BERID_SMPP_PORT": "0"}
    found = {each["id"]: each for each in small.ask("check")}
    assert {each["level"] for each in found.values()} == {"ok"}
    (small.folder / "key").chmod(0o644)
    code, out, _ = small.run("check", "--json")
    found = {each["id"]: each for each in json.loads(out)}
    assert (code, found["key"]["level"]) == (1, "error")
    assert "chmod 600" in found["key"]["hint"]


def test_person_reads_tables_and_sentences(small: Shell) -> None:
    assert small.run("account", "list")[1].startswith("There are no accounts.")
    assert "Account Acme is acc_" in small.run("account", "create", "Acme", "--home", "SA", "--currency", "SAR")[1]
    out = small.run("account", "list")[1]
    assert out.split()[:6] == ["id", "name", "state", "home", "zone", "language"]
    assert "Acme" in out
    assert "[red]" in small.run("account", "create", "[red]x", "--home", "SA")[1]
    assert "[red]x" in small.run("account", "list")[1]


def test_page_has_every_command() -> None:
    text = reference()
    for name in app:
        if name.startswith("-"):
            continue
        inner = [each for each in app[name] if not each.startswith("-")]
        headings = [f"### berid {name} {each}\n" for each in inner] or [f"## berid {name}\n"]
        assert all(heading in text for heading in headings)
    assert "| `--mode test\\|live` | `live` |" in text


class _Answers(http.server.BaseHTTPRequestHandler):
    """A server that is not Berid, or is one that says no."""

    said: tuple[int, str] = (200, "")
    heard: list[tuple[str, str, str]] = []  # noqa: RUF012

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.heard.append((f"{self.command} {self.path}", self.headers.get("Idempotency-Key", ""), body))
        status, text = self.said
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def far(shell: Shell) -> Iterator[type[_Answers]]:
    """A far side at BERID_URL whose answer the test sets."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    _Answers.heard = []
    shell.env |= {"BERID_URL": f"http://127.0.0.1:{server.server_port}/", "BERID_TOKEN": "bt_x"}
    yield _Answers
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (200, "<html>", "not as Berid does"),
        (502, "bad gateway", "502"),
        (402, '{"title":"No money","detail":"the balance is used up","fix":"top up"}', "the balance is used up"),
        (422, '{"title":"x","errors":[{"detail":"no sender"},{"detail":"no text"}],"fix":"y"}', "no sender; no text"),
    ],
)
def test_no_of_the_platform_is_told_in_its_words(
    shell: Shell, far: type[_Answers], status: int, text: str, said: str
) -> None:
    far.said = (status, text)
    code, out, err = shell.run("message", "list")
    assert (code, out, said in err) == (1, "", True), err


def test_send_says_what_it_was_told(shell: Shell, far: type[_Answers]) -> None:
    accepted = {
        "id": "msg_1",
        "state": "queued",
        "total": 2,
        "units": 2,
        "cost": "0.05",
        "currency": "SAR",
        "balance": "9",
        "refused": [{"to": "x", "code": "c", "detail": "this is no number"}],
    }
    far.said = (201, json.dumps(accepted))
    argv = ["send", "-", "--to", "966500000001", "x", "--sender", "Berid", "--send-at", "2099-01-01T00:00:00Z"]
    code, out, err = shell.run(*argv, "--key", "k1", stdin="merhaba")
    assert (code, err) == (0, "")
    assert "msg_1 is queued" in out
    assert "this is no number" in out
    call, key, body = far.heard[0]
    assert (call, key) == ("POST /api/v1/messages", "k1")
    assert json.loads(body) == {
        "to": ["966500000001", "x"],
        "text": "merhaba",
        "sender": "Berid",
        "category": "transactional",
        "reference": "",
        "send_at": "2099-01-01T00:00:00Z",
    }
    assert shell.ask(*argv) == accepted


def test_platform_that_is_away_is_told_of(shell: Shell) -> None:
    shell.env |= {"BERID_URL": "http://127.0.0.1:1", "BERID_TOKEN": "bt_x"}
    code, _, err = shell.run("message", "list")
    assert (code, "http://127.0.0.1:1 gives no answer" in err) == (1, True)


@pytest.mark.scenario
def test_command_works_as_a_program(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "BERID_DATA_DIR": str(tmp_path)}

    def berid(*argv: str) -> tuple[int, str, str]:
        done = subprocess.run([sys.executable, "-m", "berid", *argv], env=env, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert berid("--version") == (0, f"{__version__}\n", "")
    assert berid("migrate") == (0, "Applied 0001.\n", "")
    assert berid("account", "list", "--json") == (0, "[]\n", "")
    code, out, err = berid("account", "rows")
    assert (code, out, "Traceback" in err) == (2, "", False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, out, err = berid("serve", "--http.port", str(other.getsockname()[1]), "--smpp.port", "0")
    assert (code, out, "Traceback" in err) == (1, "", False)
    assert "is taken by another program" in err


class Running:
    """`berid demo` as a process."""

    def __init__(self, folder: Path) -> None:
        self.ready_file = folder / "ready.json"
        env = {
            "PATH": os.environ["PATH"],
            "BERID_DATA_DIR": str(folder / "data"),
            "BERID_READY_FILE": str(self.ready_file),
            "BERID_PORT": "0",
            "BERID_LOG_LEVEL": "warning",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "berid", "demo"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ready(self) -> dict[str, Any]:
        ends = time.monotonic() + 60
        while not self.ready_file.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < ends
            time.sleep(0.05)
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def stop(self, number: int = signal.SIGTERM) -> tuple[str, str]:
        """Its output and errors, after an orderly end."""
        self.process.send_signal(number)
        told = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, told
        return told

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.scenario
def test_demo_delivers_and_gives_the_same_tokens_again(shell: Shell, tmp_path: Path) -> None:
    running = Running(tmp_path)
    try:
        ready = running.ready()
        assert stat.S_IMODE(running.ready_file.stat().st_mode) == 0o600
        assert list(ready) == [
            "base_url", "portal_url", "bearer_token", "api_key", "sender_name", "email_from", "caller_id", "smpp", "carrier",
        ]  # fmt: skip
        shell.env = {"BERID_URL": ready["base_url"], "BERID_TOKEN": ready["bearer_token"]}
        shell.env |= {"BERID_DATA_DIR": str(tmp_path / "data")}
        body = json.dumps({"recipients": ["966500000001"], "body": "hello", "sender": ready["sender_name"]}).encode()
        headers = {"Authorization": f"Bearer {ready['bearer_token']}", "Content-Type": "application/json"}
        with urlopen(Request(f"{ready['base_url']}/v1/messages", body, headers)) as answer:
            assert answer.status == 201
        sent = shell.ask("send", "hello", "--to", "966500000001", "--sender", "Berid", "--reference", "r1")
        ends = time.monotonic() + 30
        while (shown := shell.ask("message", "show", sent["id"]))["state"] != "delivered":
            assert time.monotonic() < ends, shown
            time.sleep(0.1)
        assert len(shell.ask("message", "list")) == 2
        later = shell.ask(
            "send", "later", "--to", "966500000001", "--sender", "Berid", "--send-at", "2099-01-01T00:00:00Z"
        )
        assert shell.ask("message", "cancel", later["id"])["cancelled"] == 1
        code, _, err = shell.run("message", "cancel", sent["id"])
        assert (code, "left or ended" in err) == (1, True)
        assert "reference" in shell.run("message", "show", sent["id"])[1]
        assert shell.ask("ledger", "verify") == {"discrepancies": []}
        found = {each["id"]: each for each in shell.ask("check", "--http.port", ready["base_url"].rpartition(":")[2])}
        assert found["connector:simulator"]["level"] == "ok"
        assert "in use by the Berid" in found["http.port"]["sentence"]
        out, _ = running.stop()
        assert not running.ready_file.exists()
        assert ready["bearer_token"] in out
        assert f"curl -X POST {ready['base_url']}/v1/messages" in out
    finally:
        running.kill()
    again = Running(tmp_path)
    try:
        second = again.ready()
        assert [second[name] for name in ("bearer_token", "api_key")] == [ready["bearer_token"], ready["api_key"]]
        assert second["smpp"]["password"] == ready["smpp"]["password"]
        third = Running(tmp_path)
        _, err = third.process.communicate(timeout=60)
        assert third.process.returncode == 1
        assert "another process serves" in err
        assert again.ready_file.exists()
        again.stop(signal.SIGINT)
    finally:
        again.kill()
