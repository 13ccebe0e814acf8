"""Finding the dialects: what is here, what packages offer, and that a broken one is named."""

from types import SimpleNamespace
from typing import Any

import pytest

from berid import dialects


class Entry:
    """An entry point of an installed package."""

    def __init__(self, name: str, offer: Any) -> None:
        self.name = name
        self._offer = offer

    def load(self) -> Any:
        """Give the object, or fail as importing it would."""
        if isinstance(self._offer, Exception):
            raise self._offer
        return self._offer


def whole(name: str, **changes: Any) -> SimpleNamespace:
    """Something that looks like a dialect."""
    members = {"name": name, "refusals": {}, "routes": None, "render": None, "is_told": None} | changes
    return SimpleNamespace(**{key: value for key, value in members.items() if value is not ...})


def offer(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    """Let installed packages offer these."""
    monkeypatch.setattr(dialects, "entry_points", lambda group: entries if group == "berid.dialects" else ())


def test_every_folder_here_is_found() -> None:
    spoken = dialects.discover()
    assert {"native", "taqnyat", "turkeysms"} <= spoken.dialects.keys()
    assert spoken.listeners.keys() == {"smpp"}


def test_dialect_of_an_installed_package_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = whole("acme")
    offer(monkeypatch, Entry("acme", acme))
    assert dialects.discover().dialects["acme"] is acme


def test_dialect_that_listens_is_apart_from_those_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = SimpleNamespace(name="acme", refusals={}, listen=None, shut=None)
    offer(monkeypatch, Entry("acme", acme))
    spoken = dialects.discover()
    assert spoken.listeners["acme"] is acme
    assert "acme" not in spoken.dialects


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (
            Entry("acme", ImportError("no module named acme")),
            "acme cannot be loaded: ImportError: no module named acme",
        ),
        (Entry("acme", whole("acme", routes=..., render=...)), "acme has no routes, render"),
        (Entry("acme", SimpleNamespace(name="acme", listen=None)), "acme has no refusals, shut"),
        (Entry("acme", whole("native")), "two dialects are named native"),
        (Entry("acme", whole("smpp")), "two dialects are named smpp"),
    ],
)
def test_broken_dialect_is_named(monkeypatch: pytest.MonkeyPatch, entry: Entry, why: str) -> None:
    offer(monkeypatch, entry)
    with pytest.raises(dialects.BrokenDialect, match=why):
        dialects.discover()


def test_folder_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise SyntaxError(name)

    monkeypatch.setattr(dialects, "import_module", fail)
    with pytest.raises(dialects.BrokenDialect, match="cannot be loaded: SyntaxError"):
        dialects.discover()
