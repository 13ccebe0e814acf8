"""In: the languages that customers already speak to us.

Every folder here is a dialect and offers an object named `dialect`; an installed package may offer more, as entry points of the
group `berid.dialects`. `discover` finds them all, so nothing lists them. A dialect for HTTP is a `web.HttpDialect`: its
routes, its words for every refusal and its callbacks are all that the rest of the product asks of it. One with a `listen` is
a `ports.Listener`: its customers hold connections, and are told over these.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, NamedTuple

from berid.base.secret import hash_token
from berid.domain.account import Caller
from berid.domain.errors import RefusalKind, refused
from berid.flow.ports import Dialect, Listener, Runtime

if TYPE_CHECKING:
    from berid.dialects.web import Request

ENTRY_POINTS = "berid.dialects"

_KINDS = ("bearer", "api_key")

_OF_HTTP = ("name", "refusals", "routes", "render", "is_told")
_OF_LISTENER = ("name", "refusals", "listen", "shut")


class Spoken(NamedTuple):
    """All dialects by their names: those of HTTP, and those with connections of their own."""

    dialects: dict[str, Dialect]
    listeners: dict[str, Listener]


class BrokenDialect(Exception):
    """A dialect cannot be used. The text names it and says why; the process must not start without it."""


def discover() -> Spoken:
    """Every dialect there is: the folders here, then what installed packages offer. Raises `BrokenDialect`."""
    found = Spoken({}, {})
    sources = {f"{__name__}.{module.name}": module.name for module in iter_modules(__path__) if module.ispkg}
    for module, name in sources.items():
        try:
            dialect = import_module(module).dialect
        except Exception as error:
            raise BrokenDialect(f"the dialect {name} cannot be loaded: {type(error).__name__}: {error}") from error
        _add(found, name, dialect)
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            dialect = entry.load()
        except Exception as error:
            raise BrokenDialect(
                f"the dialect {entry.name} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        _add(found, entry.name, dialect)
    return found


def _add(found: Spoken, source: str, dialect: Any) -> None:
    is_listener = hasattr(dialect, "listen")
    missing = [name for name in (_OF_LISTENER if is_listener else _OF_HTTP) if not hasattr(dialect, name)]
    if missing:
        raise BrokenDialect(f"the dialect {source} has no {', '.join(missing)}")
    if dialect.name in found.dialects or dialect.name in found.listeners:
        raise BrokenDialect(f"two dialects are named {dialect.name}")
    kind: dict[str, Any] = found.listeners if is_listener else found.dialects
    kind[dialect.name] = dialect


def caller_of(rt: Runtime, token: str, request: Request, dialect: str) -> Caller:
    """Who makes this request, with this bearer token or API key, in this dialect. The request is told as well.

    Raises `Refused` with TOKEN_MISSING for an empty one, and with TOKEN_INVALID for one that is unknown, revoked or expired: the
    caller is not told which. Says nothing about what the caller may do; `check_caller` and `accept` do. Tokens are found by
    their SHA-256, so the time it takes tells nothing about how much of a guess was right.
    """
    if not token:
        raise refused(RefusalKind.TOKEN_MISSING, "no token was given")
    directory = rt.directory
    found = directory.tokens.get(hash_token(token))
    if found is None or found.kind not in _KINDS or not found.is_live_at(rt.clock.now_ms()):
        raise refused(RefusalKind.TOKEN_INVALID, "the token is not valid")
    account = directory.accounts.get(found.account_id)
    application = directory.applications.get(found.application_id)
    if account is None or application is None:
        raise refused(RefusalKind.TOKEN_INVALID, "the token is not valid")
    request.caller = Caller(account, application, found, request.address, dialect)
    return request.caller
