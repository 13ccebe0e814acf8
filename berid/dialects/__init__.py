"""In: the languages that customers already speak to us.

Every folder here is a dialect and offers an object named `dialect`; an installed package may offer more, as entry points of the
group `berid.dialects`. `discover` finds them all, so nothing lists them. A dialect for HTTP is a `web.HttpDialect`; its
routes, its words for every refusal and its callbacks are all that the rest of the product asks of it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from berid.base.secret import hash_token
from berid.domain.account import Caller
from berid.domain.errors import RefusalKind, refused
from berid.flow.ports import Dialect, Runtime

if TYPE_CHECKING:
    from berid.dialects.web import Request

ENTRY_POINTS = "berid.dialects"

_KINDS = ("bearer", "api_key")


class BrokenDialect(Exception):
    """A dialect cannot be used. The text names it and says why; the process must not start without it."""


def discover() -> dict[str, Dialect]:
    """Every dialect by its name: the folders here, then what installed packages offer. Raises `BrokenDialect`."""
    found: dict[str, Dialect] = {}
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


def _add(found: dict[str, Dialect], source: str, dialect: Dialect) -> None:
    missing = [name for name in ("name", "refusals", "routes", "render", "is_told") if not hasattr(dialect, name)]
    if missing:
        raise BrokenDialect(f"the dialect {source} has no {', '.join(missing)}")
    if dialect.name in found:
        raise BrokenDialect(f"two dialects are named {dialect.name}")
    found[dialect.name] = dialect


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
