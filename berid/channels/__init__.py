"""Out: how messages leave. Each channel is a folder here, or a package installed beside us.

A folder is a channel when it has an object `channel` in its `__init__`; see `flow.ports.Channel` for what that must be. An
installed package names its object by an entry point in the group ENTRY_POINTS:

    [project.entry-points."berid.channels"]
    telegram = "berid_telegram:channel"
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points

from berid.flow.ports import Channel

ENTRY_POINTS = "berid.channels"

_NEEDED = ("name", "prepare", "connector", "check_settings", "connectors")


class BrokenChannel(Exception):
    """A channel cannot be used. The text names it and says why; the process must not start without it."""


def discover() -> dict[str, Channel]:
    """Every channel by name. Raises `BrokenChannel` for one that cannot be imported, is incomplete, or takes a name twice."""
    found: dict[str, Channel] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            _add(found, _load_folder(module.name), f"the channel in the folder {module.name}", module.name)
    for point in entry_points(group=ENTRY_POINTS):
        try:
            channel = point.load()
        except Exception as error:
            raise BrokenChannel(f"the channel of the entry point {point.name} ({point.value}): {error}") from error
        _add(found, channel, f"the channel of the entry point {point.name} ({point.value})", point.name)
    return found


def _load_folder(name: str) -> object:
    try:
        module = import_module(f"{__name__}.{name}")
    except Exception as error:
        raise BrokenChannel(f"the channel in the folder {name} cannot be imported: {error}") from error
    if not hasattr(module, "channel"):
        raise BrokenChannel(f"the folder {name} has no object `channel`")
    return module.channel


def _add(found: dict[str, Channel], channel: object, which: str, name: str) -> None:
    missing = [needed for needed in _NEEDED if not hasattr(channel, needed)]
    if missing:
        raise BrokenChannel(f"{which} lacks {', '.join(missing)}")
    if channel.name != name:  # type: ignore[attr-defined]
        raise BrokenChannel(f"{which} calls itself {channel.name!r}")  # type: ignore[attr-defined]
    if name in found:
        raise BrokenChannel(f"{which} has a name that is taken")
    found[name] = channel  # type: ignore[assignment]
