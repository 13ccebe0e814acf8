"""Imports go one way: each layer may import those below it, never above, and never a neighbour."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    {"__main__"},
    {"cli"},
    {"demo"},
    {"app"},
    {"portal", "dialects", "channels", "listener"},
    {"flow"},
    {"queue"},
    {"store", "net", "tls"},
    {"domain"},
    {"trace"},
    {"config", "wire", "metrics"},
    {"base"},
]
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FOLDERS = {
    rim: [path.parent.name for path in ROOT.glob(f"berid/{rim}/*/__init__.py")] for rim in ("channels", "dialects")
}
NO_IO = {
    "aiohttp", "aiosqlite", "asyncio", "asyncpg", "http", "httptools", "multiprocessing", "select", "selectors", "smtplib",
    "socket", "sqlalchemy", "sqlite3", "ssl", "starlette", "subprocess", "threading", "time", "urllib.request", "uvicorn",
}  # fmt: skip
FORBIDDEN = {"wire": {"asyncio", "socket", "time"}, "domain": NO_IO, "base": NO_IO}
EXEMPT = {"berid.base.clock"}  # the one place that reads the time and waits


def modules() -> Iterator[tuple[str, list[str]]]:
    """Every module of the package by its dotted name, with the dotted names that it imports."""
    for path in sorted(ROOT.glob("berid/**/*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = list(parts[:-1])
        imports = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imports += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = package[: len(package) - node.level + 1] if node.level else []
                source = ".".join([*start, *([node.module] if node.module else [])])
                imports += [f"{source}.{alias.name}" for alias in node.names]
        yield ".".join(parts).removesuffix(".__init__"), imports


def trouble(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`, or None if it may."""
    here, there = [*module.split("."), ""], [*imported.split("."), ""]
    layer = here[1]
    if there[0] != "berid":
        is_kept_out = any(f"{imported}.".startswith(f"{name}.") for name in FORBIDDEN.get(layer, ()))
        return f"{layer} does without it" if is_kept_out and module not in EXEMPT else None
    target = there[1]
    if target not in RANKS:  # a name of the package's own file, such as __version__
        return None
    if not layer:
        return "the package's own file imports nothing"
    if target == layer:
        is_neighbour = here[2] not in ("", there[2]) and there[2] in FOLDERS.get(layer, ())
        return "folders here are independent" if is_neighbour else None
    if layer == "wire":
        return "wire imports nothing of ours"
    return None if RANKS[layer] < RANKS[target] else f"{target} is not below {layer}"


def test_imports_point_downwards() -> None:
    found = [
        f"{module} imports {imported}: {reason}"
        for module, imports in modules()
        for imported in imports
        if (reason := trouble(module, imported))
    ]
    assert found == []


def test_every_part_has_its_layer() -> None:
    parts = {module.split(".")[1] for module, _ in modules() if "." in module}
    assert parts - set(RANKS) == set(), "give the new part its place in LAYERS"


def test_rules_notice_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FOLDERS, "channels", ["sms", "voice"])
    allowed = [
        ("berid.flow.accept", "berid.store.open"),
        ("berid.cli", "berid.app"),
        ("berid.channels.sms.smpp", "berid.wire.smpp.pdu"),
        ("berid.channels.sms.smpp", "berid.channels.Settings"),
        ("berid.channels", "berid.channels.voice"),
        ("berid.domain.message", "berid.config.Config"),
        ("berid.base.clock", "time"),
        ("berid.net", "berid.__version__"),
    ]
    refused = [
        ("berid.flow.accept", "berid.channels.sms"),
        ("berid.store.hot", "berid.net.get"),
        ("berid.wire.smpp.pdu", "berid.base.text"),
        ("berid.wire.smpp.session", "asyncio.Queue"),
        ("berid.channels.sms.smpp", "berid.channels.voice.sip"),
        ("berid.config", "berid.wire.smpp"),
        ("berid.domain.message", "urllib.request.urlopen"),
        ("berid.base.ids", "time.time"),
        ("berid.portal", "berid.dialects.native"),
        ("berid.dialects.native", "berid.app"),
    ]
    assert [pair for pair in allowed if trouble(*pair)] == []
    assert [pair for pair in refused if not trouble(*pair)] == []
