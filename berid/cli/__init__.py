"""The command line: `berid COMMAND`. `main` is the entry point; `reference` gives the page docs/cli.md.

Commands that change the business work on the database, whether a platform runs beside them or not; `send` and
`message` speak to a running one by its API. Exit codes: 0 done, 1 not done (a sentence on standard error says why),
2 not understood (the command line or the settings).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import uvloop
from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import UnusedCliTokensError
from sqlalchemy.exc import DBAPIError

from berid import __version__
from berid.base.log import redact_text
from berid.base.secret import BadKey, Unreadable
from berid.channels import BrokenChannel
from berid.cli import business, carriers, desk, messages, people, process, requests
from berid.cli.here import Failed, Here
from berid.cli.reference import page
from berid.config import ConfigError
from berid.domain.errors import Refused
from berid.store.backup import BackupError
from berid.store.hot import StoreAway
from berid.store.schema import SchemaOutdated

DONE, NOT_DONE, NOT_UNDERSTOOD, INTERRUPTED = 0, 1, 2, 130

_HELP = "berid COMMAND --help says what there is"

app = App(
    name="berid",
    help="A messaging platform that a company runs itself.",
    help_epilogue="Every setting of docs/config.md is an option too, as in --http.port 8081. Exit codes: 0 done, 1 not "
    "done, 2 not understood.",
    version=__version__,
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
)
app.meta.group_parameters = Group("Global options", sort_key=1)

for _command, _name in (
    (process.serve_platform, "serve"),
    (process.serve_demo, "demo"),
    (messages.send, "send"),
    (business.top_up, "topup"),
    (desk.save_attachment, "attachment"),
    (requests.show_requests, "requests"),
    (process.migrate, "migrate"),
    (process.backup, "backup"),
    (process.restore, "restore"),
    (process.check, "check"),
    (process.show_config, "config"),
):
    app.command(_command, name=_name)
for _group in (
    messages.message,
    business.account,
    business.application,
    business.token,
    business.sender,
    business.price,
    business.books,
    business.number,
    desk.topup_request,
    desk.trial,
    desk.international,
    people.suppression,
    people.consent,
    carriers.connector,
    carriers.route,
    carriers.job,
):
    app.command(_group)


@dataclass(slots=True)
class _Call:
    """A command line as it was understood."""

    run: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    wants_here: bool
    config_file: Path | None
    flags: dict[str, object]
    is_json: bool


@app.meta.default
def _understand(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
    data_dir: Path | None = None,
    database_url: str | None = None,
    ready_file: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> _Call:
    """Read the options that every command has, and the command.

    Parameters
    ----------
    config
        The TOML file with the settings.
    data_dir
        The folder for everything that is kept in files.
    database_url
        sqlite:///PATH or postgresql://…; a password is safer in the settings file.
    ready_file
        Written when serve or demo is ready, and removed when it stops.
    json
        Say it in JSON.
    """
    command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    flags: dict[str, object] = {"data_dir": data_dir, "database_url": database_url, "ready_file": ready_file}
    return _Call(command, bound.args, bound.kwargs, "at" in ignored, config, flags, json)


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run one command and return the exit code. `argv` is without the program's name."""
    given = list(sys.argv[1:] if argv is None else argv)
    surroundings = os.environ if env is None else env
    is_json = "--json" in given
    try:
        settings, rest = _take_settings(given)
        call = app.meta(rest, exit_on_error=False, print_error=False, result_action="return_value")
        if call is None:  # the help or the version was asked for, and has been printed
            return DONE
        return _run(call, surroundings, settings)
    except UnusedCliTokensError as error:
        unused = " ".join(error.unused_tokens or ())
        return _fail(is_json, NOT_UNDERSTOOD, f"nothing is known to do with: {unused}", _HELP)
    except CycloptsError as error:
        return _fail(is_json, NOT_UNDERSTOOD, str(error), _HELP)
    except ConfigError as error:
        return _fail(is_json, NOT_UNDERSTOOD, str(error))
    except Failed as error:
        return _fail(is_json, NOT_DONE, error.sentence, error.fix)
    except Refused as error:
        return _fail(is_json, NOT_DONE, "; ".join(each.detail for each in error.refusals))
    except (SchemaOutdated, BackupError, StoreAway, BadKey, Unreadable, BrokenChannel) as error:
        return _fail(is_json, NOT_DONE, str(error))
    except DBAPIError as error:
        return _fail(is_json, NOT_DONE, f"the database did not do it: {error.orig}", "berid check looks what is wrong")
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(is_json, NOT_DONE, f"{error.strerror or error}{where}", "berid check looks what is wrong")
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if surroundings.get("BERID_LOG_LEVEL") == "debug":
            sys.stderr.write(redact_text(traceback.format_exc()))
        hint = "this is a fault of Berid; BERID_LOG_LEVEL=debug shows where"
        return _fail(is_json, NOT_DONE, f"{type(error).__name__}: {error}", hint)


def reference() -> str:
    """The page docs/cli.md: every command with its options, from the commands themselves."""
    return page(app)


def _take_settings(given: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """Settings given as options (`--http.port 8081`, `--http.port=8081`), and the command line without them."""
    settings: dict[str, object] = {}
    rest: list[str] = []
    waiting = iter(given)
    for word in waiting:
        if word == "--":
            rest += [word, *waiting]
            break
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--") or not (name in ("roles", "key_file") or "." in name):
            rest.append(word)
            continue
        found = value if equals else next(waiting, None)
        if found is None:
            raise ConfigError(f"--{name} needs a value")
        settings[name] = found
    return settings, rest


def _run(call: _Call, env: Mapping[str, str], settings: Mapping[str, object]) -> int:
    here = Here(env, {**call.flags, **settings}, call.config_file, call.is_json)
    if not call.wants_here:
        call.run(*call.args, **call.kwargs)
        return DONE
    work = call.run(*call.args, **call.kwargs, at=here)
    return uvloop.run(work) or DONE


def _fail(is_json: bool, code: int, sentence: str, fix: str = "") -> int:
    sentence, fix = redact_text(sentence), redact_text(fix)
    if is_json:
        sys.stderr.write(msgspec.json.encode({"error": sentence, "fix": fix}).decode() + "\n")
    else:
        sys.stderr.write(f"berid: {sentence}\n" + (f"  {fix}\n" if fix else ""))
    return code
