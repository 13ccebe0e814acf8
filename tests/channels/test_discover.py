"""How channels are found, and that a broken one is named before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from berid import channels
from berid.channels import BrokenChannel, discover

WHOLE = """
class Channel:
    name = "{name}"
    connectors = {{}}
    def prepare(self, submission): ...
    def connector(self, rt, settings): ...
    def check_settings(self, kind, settings): ...
channel = Channel()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is looked at as if it were the package's own."""
    monkeypatch.setattr(channels, "__path__", [str(tmp_path)])
    known = set(sys.modules)
    monkeypatch.setattr(channels, "entry_points", lambda group: ())
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("berid.channels."):
            del sys.modules[name]


def add(folder: Path, name: str, source: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)


def test_channels_of_the_package_are_found() -> None:
    found = discover()
    assert found["sms"].name == "sms"


def test_folder_is_a_channel_and_a_plain_module_is_not(folder: Path) -> None:
    add(folder, "pigeon", WHOLE.format(name="pigeon"))
    (folder / "helpers.py").write_text("raise RuntimeError('nobody imports this')")
    assert list(discover()) == ["pigeon"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('no feathers')", "the channel in the folder pigeon cannot be imported: no feathers"),
        ("import no_such_module", "the channel in the folder pigeon cannot be imported: No module named"),
        ("", "the folder pigeon has no object `channel`"),
        ("channel = object()", "the channel in the folder pigeon lacks name, prepare, connector"),
        (WHOLE.format(name="dove"), "the channel in the folder pigeon calls itself 'dove'"),
    ],
)
def test_broken_folder_is_named_with_the_reason(folder: Path, source: str, words: str) -> None:
    add(folder, "pigeon", source)
    with pytest.raises(BrokenChannel, match=words):
        discover()


def test_installed_package_adds_a_channel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(folder, "plugin_for_test", WHOLE.format(name="dove"))
    monkeypatch.syspath_prepend(str(folder))
    point = EntryPoint("dove", "plugin_for_test:channel", channels.ENTRY_POINTS)
    monkeypatch.setattr(channels, "__path__", [])
    monkeypatch.setattr(channels, "entry_points", lambda group: [point] if group == "berid.channels" else [])
    assert list(discover()) == ["dove"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("dove", "no_such_package:channel", r"entry point dove \(no_such_package:channel\): No module named"),
        ("sms", "berid.channels.sms:channel", "the entry point sms .* has a name that is taken"),
    ],
)
def test_broken_package_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setattr(channels, "entry_points", lambda group: [EntryPoint(name, value, group)])
    with pytest.raises(BrokenChannel, match=words):
        discover()
