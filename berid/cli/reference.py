"""The page docs/cli.md, written from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from cyclopts import App

_HEAD = """# Command line

<!-- Written by `make docs` from berid/cli; change that, not this page. -->

`berid` runs the platform and manages it. Commands that change the business work on the database itself, so they
need no running platform and may be used beside one, which follows within a second. `send` and `message` speak to
a running platform by its API, at `BERID_URL`, with the token in `BERID_TOKEN`.

Ids may be written with their prefix or without; accounts, price lists, connectors and routes also by their name.
With `--json` a command prints one JSON value on standard output, and errors as an object on standard error.

| exit code | means |
|---|---|
| 0 | done |
| 1 | not done: a sentence on standard error says why, and often what to do |
| 2 | the command line or the settings were not understood |
| 130 | interrupted |

## Options of every command

Every setting of [config.md](config.md) with a dot in its name is an option as well: `berid serve --http.port 8081`;
so are `--roles` and `--key-file`.
"""


def page(app: App) -> str:
    """The text of the page."""
    lines = [_HEAD, *_table(_arguments(app.meta))]
    for name, command in _commands(app):
        lines += ["", f"## berid {name}", "", _about(command)]
        inner = list(_commands(command))
        if not inner:
            lines += _described(f"berid {name}", command)
        for each, leaf in inner:
            lines += ["", f"### berid {name} {each}", "", _about(leaf), *_described(f"berid {name} {each}", leaf)]
    return "\n".join(lines) + "\n"


def _commands(app: App) -> Iterator[tuple[str, App]]:
    """The commands of a group in the order in which they were made."""
    for name in app:
        if not name.startswith("-"):
            yield name, app[name]


def _about(command: App) -> str:
    """The help of a command without its parameters."""
    return inspect.cleandoc(command.help).partition("\nParameters\n")[0].strip()


def _described(name: str, command: App) -> list[str]:
    arguments = _arguments(command)
    words = [_word(each) for each in arguments if _is_positional(each)]
    words += [f"{each.names[0]} {_value(each)}" for each in arguments if not _is_positional(each) and each.required]
    if any(not _is_positional(each) and not each.required for each in arguments):
        words.append("[options]")
    return ["", "```", " ".join([name, *words]), "```", *([""] if arguments else []), *_table(arguments)]


def _table(arguments: list[Any]) -> list[str]:
    if not arguments:
        return []
    lines = ["| option | default | what it says |", "|---|---|---|"]
    for each in arguments:
        name = each.names[0] if _is_positional(each) else f"{each.names[0]} {_value(each)}".strip()
        lines.append(f"| `{name}` | {_default(each)} | {' '.join((each.parameter.help or '').split())} |")
    return lines


def _arguments(command: App) -> list[Any]:
    found = command.assemble_argument_collection(parse_docstring=True)
    return [each for each in found if each.parameter.parse is not False and each.show]


def _is_positional(argument: Any) -> bool:
    return not argument.names[0].startswith("--")


def _word(argument: Any) -> str:
    name = argument.names[0]
    if argument.field_info.kind is argument.field_info.VAR_POSITIONAL or _is_many(argument):
        name += "..."
    return name if argument.required else f"[{name}]"


def _value(argument: Any) -> str:
    """What stands behind an option; nothing behind one that is only there or not."""
    if argument.hint is bool:
        return ""
    choices = argument.get_choices()
    word = "\\|".join(choices) if choices else argument.names[0].removeprefix("--").replace("-", "_").upper()
    return word + ("..." if _is_many(argument) else "")


def _is_many(argument: Any) -> bool:
    return str(argument.hint).startswith("list[")


def _default(argument: Any) -> str:
    default = argument.field_info.default
    if default is inspect.Parameter.empty:
        return "" if argument.field_info.kind is argument.field_info.VAR_POSITIONAL else "required"
    if default in (None, "", [], False):
        return ""
    return f"`{' '.join(default) if isinstance(default, list) else default}`"
