"""How this process runs: listeners, folders, limits and time budgets, as one frozen tree.

What the business is (accounts, connectors, routes, prices) is rows in the database, not settings.

`load` reads four places, each beating the one before: the defaults below, a TOML file, environment
variables, flags. The setting `http.port` is `port = 8080` under `[http]` in the file, `BERID_HTTP_PORT` in the
environment and the flag `http.port`. A name that is not known anywhere is an error, never ignored.

Adding a setting is one line in a class below: name with its unit at the end, type, help, default. Reading it
from every place, checking it, printing it and documenting it follow from that line; `make docs` writes
docs/config.md again.
"""

import difflib
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from berid.base import failpoint

CONFIG_FILE_ENV = "BERID_CONFIG"
"""The environment variable that names the TOML file when no flag does."""
TEST_ENV_PREFIX = "BERID_TEST_"
"""Variables that only our tests read; these and the failpoint's are the BERID_ names that are not settings."""
SHORT_ENV = {"BERID_PORT": "http.port"}
"""Environment variables that are shorter than the rule gives."""

DEFAULT_KEY_FILE = Path("key")
"""In data_dir. Anything else has been given by somebody."""

Network = IPv4Network | IPv6Network
Role = Literal["web", "worker", "links", "smpp"]
UncertainPolicy = Literal["resend", "wait", "fail"]


class ConfigError(Exception):
    """The settings cannot be used. The text says for each trouble what, where and how to put it right."""


def setting(
    about: str, unit: str = "", *, ge: int | None = None, le: int | None = None, secret: bool = False
) -> msgspec.Meta:
    """What the reference says of a setting, and the bounds of its value or, in a list, of each item.

    The value of a `secret` setting is never printed, and it may be given by the name of a file that holds
    it: `key` for a field of that name is read from the file named by `key_file`.
    """
    return msgspec.Meta(description=about, extra={"unit": unit, "secret": secret}, ge=ge, le=le)


class Http(msgspec.Struct, frozen=True, kw_only=True):
    """The web listener: APIs, portal, health."""

    host: Annotated[str, setting("The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1"
    port: Annotated[int, setting("The port; 0 takes any free one.", ge=0, le=65535)] = 8080
    tls_port: Annotated[int | None, setting("A second port, with TLS. Needs tls_cert and tls_key.", ge=0, le=65535)] = (
        None
    )
    tls_cert: Annotated[Path | None, setting("The certificate and its chain, PEM.")] = None
    tls_key: Annotated[Path | None, setting("The certificate's private key, PEM.")] = None
    trusted_proxies: Annotated[
        tuple[Network, ...], setting("Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.")
    ] = ()
    body_limit_bytes: Annotated[int, setting("The largest request body.", "bytes", ge=1)] = 1_048_576
    bulk_body_limit_bytes: Annotated[
        int, setting("The largest request body where many recipients are taken.", "bytes", ge=1)
    ] = 16_777_216
    request_timeout_s: Annotated[
        float, setting("How long a request may take to arrive, and then to be answered.", "seconds", ge=1)
    ] = 30.0
    root_dialect_hosts: Annotated[
        tuple[str, ...], setting("Host names at which TurkeySMS V4 is served at the root, for old clients.")
    ] = ()


class Smpp(msgspec.Struct, frozen=True, kw_only=True):
    """The listener to which customers bind by SMPP 3.4."""

    host: Annotated[str, setting("The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1"
    port: Annotated[int, setting("The port; 0 takes any free one.", ge=0, le=65535)] = 2775
    tls_port: Annotated[int | None, setting("A second port, with TLS. Needs tls_cert and tls_key.", ge=0, le=65535)] = (
        None
    )
    tls_cert: Annotated[Path | None, setting("The certificate and its chain, PEM.")] = None
    tls_key: Annotated[Path | None, setting("The certificate's private key, PEM.")] = None
    max_binds_per_account: Annotated[int, setting("Binds one account may hold at once.", ge=1)] = 10
    window: Annotated[int, setting("Requests on one bind that may wait for their response.", ge=1)] = 100


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], setting("The least important level written.")] = (
        "info"
    )
    format: Annotated[
        Literal["text", "json"], setting("text for a person, json (one object a line) for a collector.")
    ] = "text"


class Net(msgspec.Struct, frozen=True, kw_only=True):
    """Calls to the outside: callbacks, fetches, carriers with an HTTP interface."""

    allowed_networks: Annotated[
        tuple[Network, ...], setting("Networks that may be called although they are private.")
    ] = ()
    connect_timeout_s: Annotated[float, setting("How long making a connection may take.", "seconds", ge=0)] = 5.0
    read_timeout_s: Annotated[float, setting("How long an answer may take.", "seconds", ge=0)] = 15.0
    callback_schedule_s: Annotated[
        tuple[int, ...],
        setting("The pauses after each failed try of a callback; after the last it is given up.", "seconds", ge=0),
    ] = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)


class Dispatch(msgspec.Struct, frozen=True, kw_only=True):
    """Sending, where the right thing depends on what the sender would rather have."""

    late_schedule_limit_s: Annotated[
        int,
        setting(
            "A scheduled message that came due while the platform was down is sent if it is late by no more "
            "than this, and held for a person to decide otherwise.",
            "seconds",
            ge=0,
        ),
    ] = 3_600
    uncertain_otp: Annotated[
        UncertainPolicy,
        setting("A one-time password left us and no answer came: resend, wait for the receipt, or fail."),
    ] = "resend"
    uncertain_transactional: Annotated[UncertainPolicy, setting("The same for transactional messages.")] = "wait"
    uncertain_bulk: Annotated[UncertainPolicy, setting("The same for bulk messages.")] = "wait"
    otp_sender: Annotated[str, setting("The sender of one-time passwords whose caller names none.")] = "Berid"


class Validity(msgspec.Struct, frozen=True, kw_only=True):
    """How long a message is worth delivering, if its sender does not say."""

    otp_s: Annotated[int, setting("One-time passwords.", "seconds", ge=1)] = 300
    transactional_s: Annotated[int, setting("Transactional messages.", "seconds", ge=1)] = 86_400
    bulk_s: Annotated[int, setting("Bulk messages.", "seconds", ge=1)] = 172_800
    no_receipt_s: Annotated[
        int, setting("A sent message without a receipt counts as expired after this.", "seconds", ge=1)
    ] = 259_200


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller may ask for."""

    default_rate_per_s: Annotated[
        float,
        setting(
            "Messages an application may send if its own row sets no rate; 0: any number.", "messages per second", ge=0
        ),
    ] = 0.0
    recipients_per_request: Annotated[int, setting("Recipients of one request.", ge=1)] = 100_000


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long things are kept after they are final. Money is kept for good."""

    content_days: Annotated[int, setting("Texts of messages.", "days", ge=0)] = 90
    deliveries_days: Annotated[
        int, setting("Deliveries with their history, codes, and what people wrote.", "days", ge=1)
    ] = 400
    callbacks_days: Annotated[int, setting("Callbacks and their tries.", "days", ge=1)] = 30
    events_days: Annotated[int, setting("The audit trail.", "days", ge=1)] = 400
    requests_days: Annotated[int, setting("The request log.", "days", ge=1)] = 14
    parked_receipts_days: Annotated[int, setting("Receipts that no delivery has claimed.", "days", ge=1)] = 7
    idempotency_hours: Annotated[
        int, setting("Answers that are repeated for the same Idempotency-Key.", "hours", ge=1)
    ] = 24


class Dialects(msgspec.Struct, frozen=True, kw_only=True):
    """The compatible APIs."""

    taqnyat_zone: Annotated[ZoneInfo, setting("The time zone of times in Taqnyat's API that name none.")] = ZoneInfo(
        "Asia/Riyadh"
    )
    taqnyat_senders_answer_200: Annotated[
        bool, setting("Whether Taqnyat's list of sender names answers 200; its clients expect 201, but for a few.")
    ] = False
    taqnyat_php_answers_401: Annotated[
        bool,
        setting("Whether Taqnyat's .php paths answer 401, and not 400, to a wrong token; the body stays the same."),
    ] = False
    turkeysms_zone: Annotated[ZoneInfo, setting("The time zone of times in TurkeySMS's API that name none.")] = (
        ZoneInfo("Europe/Istanbul")
    )
    turkeysms_footer_len: Annotated[
        int,
        setting(
            "How many characters operators in Turkey append to each message sent by TurkeySMS's API: they are counted when "
            "it is billed. Their B-code with its space is 5.",
            ge=0,
            le=70,
        ),
    ] = 0
    turkeysms_hides_errors: Annotated[
        bool, setting("Whether TurkeySMS's V3 answers nothing to `report` 0 or 2 even when something went wrong.")
    ] = False


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Figures for Prometheus, on a listener of their own at /metrics."""

    enabled: Annotated[bool, setting("Whether to serve them.")] = False
    host: Annotated[str, setting("The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, setting("The port; 0 takes any free one.", ge=0, le=65535)] = 9464


class Tracing(msgspec.Struct, frozen=True, kw_only=True):
    """Traces for OpenTelemetry. Needs the packages of requirements-tracing.txt."""

    enabled: Annotated[bool, setting("Whether to send them.")] = False
    endpoint: Annotated[str, setting("The collector's address for traces over HTTP.")] = (
        "http://127.0.0.1:4318/v1/traces"
    )


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What concerns the whole process."""

    data_dir: Annotated[Path, setting("The folder for everything the platform keeps in files.")] = Path(".data")
    ready_file: Annotated[
        Path | None, setting("A file written when the platform serves, and removed when it stops.")
    ] = None
    database_url: Annotated[
        str,
        setting(
            "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME; if empty, SQLite in berid.db in data_dir.",
            secret=True,
        ),
    ] = ""
    roles: Annotated[
        frozenset[Role],
        setting(
            "The parts that this process runs: web (APIs, portal), worker (the queue), links (to carriers), "
            "smpp (customers' binds)."
        ),
    ] = frozenset(get_args(Role))
    key: Annotated[
        str,
        setting(
            "The master key that encrypts secrets in the database: 64 hexadecimal digits. If empty, key_file holds it.",
            secret=True,
        ),
    ] = ""
    key_file: Annotated[
        Path, setting("The file with the master key, made if it is missing; by default in data_dir.")
    ] = DEFAULT_KEY_FILE
    request_log: Annotated[
        Literal["refused", "all", "off"],
        setting(
            "Which requests at the web doors are written down, without what is secret in them: those that were refused "
            "(what was accepted is found among the messages), all, or none."
        ),
    ] = "refused"
    http: Http = Http()
    smpp: Smpp = Smpp()
    log: Log = Log()
    net: Net = Net()
    dispatch: Dispatch = Dispatch()
    validity: Validity = Validity()
    limits: Limits = Limits()
    retention: Retention = Retention()
    dialects: Dialects = Dialects()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()
    sources: Mapping[str, str] = {}  # setting name → where `load` found it; not a setting itself

    def __post_init__(self) -> None:
        """Settle what follows from other settings, so that no reader has to."""
        data_dir = self.data_dir.absolute()
        if self.key and self.key_file != DEFAULT_KEY_FILE:
            raise ConfigError("key and key_file are both set; keep one")
        msgspec.structs.force_setattr(self, "data_dir", data_dir)
        msgspec.structs.force_setattr(self, "key_file", data_dir / self.key_file)
        if not self.database_url:
            msgspec.structs.force_setattr(self, "database_url", f"sqlite:///{data_dir / 'berid.db'}")
        if urlsplit(self.database_url).scheme not in ("sqlite", "postgresql"):
            raise ConfigError("database_url must begin with sqlite:/// or postgresql://")
        if not self.roles:
            raise ConfigError(f"roles must name at least one of {', '.join(get_args(Role))}")
        for name, listener in (("http", self.http), ("smpp", self.smpp)):
            if listener.tls_port is not None and (listener.tls_cert is None or listener.tls_key is None):
                raise ConfigError(f"{name}.tls_port is set; give {name}.tls_cert and {name}.tls_key as well")


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the tree, as its class declares it."""

    name: str
    kind: Any  # the type without its Annotated
    meta: msgspec.Meta
    default: object

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return _env_name(self.name)

    @property
    def about(self) -> str:
        """The help sentence."""
        return self.meta.description or ""

    @property
    def unit(self) -> str:
        """What a number counts, or nothing."""
        return str((self.meta.extra or {})["unit"])

    @property
    def is_secret(self) -> bool:
        """Whether its value must not be printed."""
        return bool((self.meta.extra or {})["secret"])

    @property
    def expected(self) -> str:
        """What a value must look like: "a whole number from 0 to 65535, in seconds"."""
        return _expected(self.kind, self.meta) + (f", in {self.unit}" if self.unit else "")


@dataclass(frozen=True, slots=True)
class Described:
    """One line of `berid config`: a setting, its value fit to be shown, where that comes from, the help."""

    name: str
    value: str
    source: str
    about: str


@dataclass(frozen=True, slots=True)
class _Given:
    """A value somebody wrote, and the words that tell him where."""

    name: str
    value: object
    where: str


def load(file: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """The settings from defaults, `file`, `env` and `flags`, each beating the one before.

    `file` is TOML; None means the one that BERID_CONFIG names in `env`, if it does. Of `env` only names that
    begin with BERID_ are looked at. `flags` have dotted names and text or typed values; a value of None counts as not
    given. Relative paths are taken from the working directory.

    Raises ConfigError, with every trouble found, if a name is unknown, a value is unfit, a file cannot be
    read, or values contradict one another.
    """
    if file is None and env.get(CONFIG_FILE_ENV):
        file = Path(env[CONFIG_FILE_ENV])
    troubles: list[str] = []
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for layer in (_read_file(file), _read_env(env), _read_flags(flags)):
        taken: dict[str, str] = {}
        for given in layer:
            try:
                found, value = _evaluate(given)
                if found.name in taken:
                    raise ConfigError(f"{given.where} and {taken[found.name]} both set {found.name}; keep one")
            except ConfigError as trouble:
                troubles.append(str(trouble))
                continue
            taken[found.name] = sources[found.name] = given.where
            values[found.name] = value
    if troubles:
        raise ConfigError("\n".join(troubles))
    built: Config = _build(Config, "", values, {"sources": sources})
    return built


def describe(config: Config) -> list[Described]:
    """Every setting with its effective value, secrets hidden, in the order of the reference."""
    lines = []
    for each in SETTINGS.values():
        value: object = config
        for part in each.name.split("."):
            value = getattr(value, part)
        shown = _hidden(str(value)) if each.is_secret else _text(value)
        lines.append(Described(each.name, shown, config.sources.get(each.name, "default"), each.about))
    return lines


def reference() -> str:
    """The page docs/config.md: every setting, its environment variable, its default and what it does."""
    short = ", ".join(f"`{env}` for `{name}`" for env, name in SHORT_ENV.items())
    secrets = ", ".join(f"`{name}`" for name, each in _FROM_FILES.items())
    page = [
        "# Settings",
        "",
        "<!-- Written by `make docs` from berid/config.py; change that file, not this one. -->",
        "",
        "How a process of Berid runs. Four places are read, each beating the one before: the defaults, a TOML",
        f"file (`--config FILE` or `{CONFIG_FILE_ENV}`), environment variables, flags. A name that is not in this",
        "list is an error. `berid config` prints the values in force and where each comes from.",
        "",
        "`http.port`, for example, is `port = 8080` under `[http]` in the file, `BERID_HTTP_PORT` in the",
        f"environment and `--http.port` as a flag. Short for the environment: {short}. Lists are separated by",
        f"commas outside the file. Secrets can be kept in files of their own, named by {secrets} and `key_file`.",
    ]
    section = None
    for each in SETTINGS.values():
        owner, _, _leaf = each.name.rpartition(".")
        if owner != section:
            section = owner
            about = (_SECTIONS[owner].__doc__ or "").strip()
            page += ["", f"## {owner or 'General'}", "", about, ""]
            page += ["| setting | environment | default | what it does |", "|---|---|---|---|"]
        default = f"`{_text(each.default)}`" if _text(each.default) else ""
        page.append(f"| `{each.name}` | `{each.env}` | {default} | {each.about} {_sentence(each.expected)} |")
    return "\n".join(page) + "\n"


def _read_file(file: Path | None) -> Iterator[_Given]:
    """The leaves of a TOML file under their dotted names."""
    if file is None:
        return
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings in {file}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error

    def leaves(table: Mapping[str, object], prefix: str) -> Iterator[_Given]:
        for key, value in table.items():
            if isinstance(value, dict) and prefix + key in _SECTIONS:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield _Given(prefix + key, value, f"{prefix}{key} in {file}")

    yield from leaves(tree, "")


def _read_env(env: Mapping[str, str]) -> Iterator[_Given]:
    """The variables that begin with BERID_, under the names of the settings they mean."""
    names = {_env_name(name): name for name in [*SETTINGS, *_FROM_FILES]} | SHORT_ENV
    for variable, value in env.items():
        if not variable.startswith("BERID_") or variable.startswith(TEST_ENV_PREFIX) or variable == failpoint.ENV:
            continue
        if variable != CONFIG_FILE_ENV:
            yield _Given(names.get(variable, variable), value, f"environment variable {variable}")


def _read_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        if value is not None:
            yield _Given(name, value, f"flag --{name}")


def _evaluate(given: _Given) -> tuple[Setting, object]:
    """The setting that a given name means, and the value in that setting's type."""
    if given.name in _FROM_FILES:
        found = _FROM_FILES[given.name]
        try:
            return found, _convert(found.kind, found.meta, Path(str(given.value)).read_text().strip())
        except OSError as error:
            raise ConfigError(f"{given.where}: cannot read {given.value}: {error.strerror}") from error
    if given.name not in SETTINGS:
        raise ConfigError(_unknown(given))
    found = SETTINGS[given.name]
    try:
        return found, _convert(found.kind, found.meta, given.value)
    except (ValueError, TypeError, msgspec.ValidationError):
        value = "its value" if found.is_secret else repr(given.value)
        # The parsers' own words are left out: they do not say what would be right, and might quote a secret.
        raise ConfigError(f"{given.where}: {value} is not {found.expected}") from None


def _unknown(given: _Given) -> str:
    """The sentence about a name that is no setting, with the nearest one that is."""
    is_env = given.name.startswith("BERID_")
    known = [*SETTINGS, *_FROM_FILES]
    candidates = [*map(_env_name, known), *SHORT_ENV, CONFIG_FILE_ENV] if is_env else known
    if given.name in _SECTIONS:
        return f"{given.where}: {given.name} is a section; set what is in it, as in [{given.name}]"
    nearest = difflib.get_close_matches(given.name, candidates, n=1, cutoff=0.0)[0]
    return f"{given.where}: there is no such setting; the nearest is {nearest}. All are listed in docs/config.md"


def _convert(kind: Any, meta: msgspec.Meta, value: object) -> object:
    """`value` in the type `kind`. Text stands for any type; a list's text is separated by commas.

    Raises ValueError, TypeError or msgspec.ValidationError if it does not fit.
    """
    if kind in _PARSERS:
        if not isinstance(value, str | Path):
            raise TypeError
        return _PARSERS[kind](str(value))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        inner = next(each for each in arguments if each is not NoneType)
        return None if value in (None, "") else _convert(inner, meta, value)
    if origin in (tuple, frozenset):
        if isinstance(value, str):
            value = [item.strip() for item in value.split(",") if item.strip()]
        if not isinstance(value, list | tuple | set | frozenset):
            raise TypeError
        items = [_convert(arguments[0], meta, item) for item in value]
        return tuple(items) if origin is tuple else frozenset(items)
    bounds = msgspec.Meta(ge=meta.ge, le=meta.le)
    bounded = Annotated[kind, bounds] if kind in (int, float) else kind
    converted: object = msgspec.convert(value, bounded, strict=not isinstance(value, str))
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError
    return converted


def _path(text: str) -> Path:
    if not text:
        raise ValueError
    return Path(text).expanduser().absolute()


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (KeyError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError; a folder's name an OSError
        raise ValueError from error


_PARSERS: dict[Any, Callable[[str], object]] = {Path: _path, ZoneInfo: _zone, Network: ip_network}
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    ZoneInfo: "the name of a time zone such as Asia/Riyadh",
    Network: "an address range such as 10.0.0.0/8",
}


def _expected(kind: Any, meta: msgspec.Meta) -> str:
    """What a value of `kind` looks like, in words."""
    if kind in _WORDS:
        words = _WORDS[kind]
        if meta.ge is not None:
            words += f" from {meta.ge} to {meta.le}" if meta.le is not None else f", {meta.ge} or more"
        return words
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin in (tuple, frozenset):
        return f"a list; each item is {_expected(arguments[0], meta)}"
    return f"{_expected(arguments[0], meta)}, or empty for none"


def _text(value: object) -> str:
    """A value as one would write it in the environment."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | frozenset):
        items = [str(item) for item in value]
        return ",".join(items if isinstance(value, tuple) else sorted(items))
    return str(value)


def _hidden(value: str) -> str:
    """A secret as far as it may be shown: of a URL the place, without user, password and parameters."""
    if "://" not in value:
        return "(set)" if value else ""
    parts = urlsplit(value)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _env_name(name: str) -> str:
    return "BERID_" + name.replace(".", "_").upper()


def _build(kind: Any, prefix: str, values: Mapping[str, object], extra: Mapping[str, object]) -> Any:
    """A section with the values given for it, and the sections within."""
    arguments = dict(extra)
    for field in msgspec.structs.fields(kind):
        name = prefix + field.name
        if name in values:
            arguments[field.name] = values[name]
        elif name in _SECTIONS:
            arguments[field.name] = _build(_SECTIONS[name], f"{name}.", values, {})
    return kind(**arguments)


def _walk(kind: Any, prefix: str) -> Iterator[Setting]:
    """The settings of a section, those of its own before those of the sections within."""
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            bare, meta = get_args(hint)
            yield Setting(prefix + field.name, bare, meta, field.default)


_SECTIONS: dict[str, Any] = {"": Config} | {
    field.name: field.type for field in msgspec.structs.fields(Config) if hasattr(field.type, "__struct_fields__")
}
SETTINGS: dict[str, Setting] = {
    each.name: each for name, kind in _SECTIONS.items() for each in _walk(kind, f"{name}." if name else "")
}
"""Every setting by its dotted name, in the order of the reference."""
_FROM_FILES: dict[str, Setting] = {
    f"{each.name}_file": each for each in SETTINGS.values() if each.is_secret and f"{each.name}_file" not in SETTINGS
}
