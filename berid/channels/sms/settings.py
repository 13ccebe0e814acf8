"""The settings of an SMPP connector: one table from which they are checked, opened, and drawn as a form."""

from __future__ import annotations

import difflib
import math
import ssl
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from berid.base.secret import Unreadable, Vault
from berid.config import Setting, setting
from berid.flow.manage.carriers import SEAL_PURPOSE, SEALED
from berid.wire.smpp.codes import CommandStatus

ErrorClass = Literal["permanent", "temporary", "throttled", "connector"]
"""What a command status of a submit response means.

permanent: no to this message. temporary: not now; try again, here or elsewhere. throttled: too fast; we slow down and
submit again ourselves. connector: nothing is wrong with the message but with the bind; it is made anew, and the message
goes elsewhere.
"""

IdWriting = Literal["as_is", "hex", "decimal", "either"]

ERROR_CLASSES: Mapping[int, ErrorClass] = {
    CommandStatus.ESME_RTHROTTLED: "throttled",
    CommandStatus.ESME_RMSGQFUL: "throttled",
    CommandStatus.ESME_RSYSERR: "temporary",
    CommandStatus.ESME_RX_T_APPN: "temporary",
    CommandStatus.ESME_RSERTYPUNAVAIL: "temporary",
    CommandStatus.ESME_RINVBNDSTS: "connector",
    CommandStatus.ESME_RINVPASWD: "connector",
    CommandStatus.ESME_RINVSYSID: "connector",
    CommandStatus.ESME_RINVSYSTYP: "connector",
    CommandStatus.ESME_RBINDFAIL: "connector",
}
"""The classes of SMPP 3.4's statuses (section 5.1.3). Every other one, carriers' own included, is permanent."""


class SmppSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One SMPP link to a carrier. Names as SMPP 3.4 has them where it has one."""

    host: Annotated[str, setting("The carrier's host name or address.")]
    port: Annotated[int, setting("The carrier's port.", ge=1, le=65535)] = 2775
    system_id: Annotated[str, setting("Our name at the carrier, up to 15 characters.")]
    password: Annotated[str, setting("Our password, up to 8 characters.", secret=True)] = ""
    system_type: Annotated[str, setting("What some carriers ask for besides, up to 12 characters.")] = ""
    bind_type: Annotated[
        Literal["transceiver", "transmitter", "receiver", "pair"],
        setting("transceiver: both ways in one bind. pair: a transmitter and a receiver for each of `binds`."),
    ] = "transceiver"
    binds: Annotated[int, setting("Binds (or pairs) held at the same time.", ge=1, le=100)] = 1
    window: Annotated[int, setting("Parts on one bind that may wait for their response.", "parts", ge=1, le=10_000)] = (
        100
    )
    rate: Annotated[
        float, setting("The most that the carrier takes, over all binds; 0 for no limit.", "parts per second", ge=0)
    ] = 0.0
    interface_version: Annotated[Literal["3.4", "5.0"], setting("The version named when binding.")] = "3.4"
    addr_ton: Annotated[int, setting("TON named when binding.", ge=0, le=255)] = 0
    addr_npi: Annotated[int, setting("NPI named when binding.", ge=0, le=255)] = 0
    address_range: Annotated[str, setting("Addresses served by this bind, as the carrier writes them.")] = ""
    alphanumeric_ton: Annotated[int, setting("TON of senders that have letters.", ge=0, le=255)] = 5
    alphanumeric_npi: Annotated[int, setting("NPI of senders that have letters.", ge=0, le=255)] = 0
    short_code_ton: Annotated[int, setting("TON of senders of up to 8 digits.", ge=0, le=255)] = 3
    short_code_npi: Annotated[int, setting("NPI of senders of up to 8 digits.", ge=0, le=255)] = 0
    number_ton: Annotated[int, setting("TON of senders that are whole numbers.", ge=0, le=255)] = 1
    number_npi: Annotated[int, setting("NPI of senders that are whole numbers.", ge=0, le=255)] = 1
    dest_ton: Annotated[int, setting("TON of recipients.", ge=0, le=255)] = 1
    dest_npi: Annotated[int, setting("NPI of recipients.", ge=0, le=255)] = 1
    tls: Annotated[bool, setting("Whether to speak TLS.")] = False
    tls_verify: Annotated[bool, setting("Whether the carrier's certificate must be good.")] = True
    tls_ca_file: Annotated[str, setting("Certificate authorities to trust instead of the system's, PEM.")] = ""
    tls_server_name: Annotated[str, setting("The name in the carrier's certificate, if it is not `host`.")] = ""
    enquire_link_s: Annotated[
        float, setting("A link on which nothing came for so long is asked whether it lives.", "seconds", ge=0)
    ] = 30.0
    response_timeout_s: Annotated[
        float, setting("No response for so long: nobody knows whether the carrier took it.", "seconds", ge=0)
    ] = 30.0
    submit_id_form: Annotated[IdWriting, setting("How message ids are written in submit responses.")] = "as_is"
    receipt_id_form: Annotated[IdWriting, setting("How message ids are written in receipts.")] = "as_is"
    long_messages: Annotated[
        Literal["udh", "udh16", "sar", "payload"],
        setting(
            "Parts tied together by a header with an 8-bit or a 16-bit reference, by the sar parameters, or left to "
            "the carrier: the whole text in message_payload, which then counts as one part in window and rate."
        ),
    ] = "udh"
    gsm_packed: Annotated[bool, setting("Whether GSM septets go eight in seven octets, instead of one each.")] = False
    gsm_data_coding: Annotated[int, setting("data_coding of the GSM alphabets.", ge=0, le=255)] = 0
    ucs2_data_coding: Annotated[int, setting("data_coding of UCS-2.", ge=0, le=255)] = 8
    use_data_sm: Annotated[bool, setting("Whether to submit by data_sm instead of submit_sm.")] = False
    error_classes: Annotated[
        dict[str, ErrorClass],
        setting(
            "What statuses of submit responses mean, where it is not the usual: from a name or number such as "
            "ESME_RSUBMITFAIL or 0x0412 to permanent, temporary, throttled or connector."
        ),
    ] = {}

    def class_of(self, status: int) -> ErrorClass:
        """What a command status, other than 0, of a submit response means. Slow: for making a table of."""
        for written, given in self.error_classes.items():
            if _status_of(written) == status:
                return given
        return ERROR_CLASSES.get(status, "permanent")


def _settings() -> dict[str, Setting]:
    hints = get_type_hints(SmppSettings, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(SmppSettings):
        assert get_origin(hints[field.name]) is Annotated
        kind, meta = get_args(hints[field.name])
        default = {} if field.default_factory is dict else field.default
        found[field.name] = Setting(field.name, kind, meta, default)
    return found


SETTINGS: Mapping[str, Setting] = _settings()
"""Every setting by name, in the order of the form: help, unit, kind, default, whether it is a secret. A default of
`msgspec.NODEFAULT` means that it must be given."""


def reference() -> str:
    """The page docs/connectors.md: every setting of a link to a carrier, its default and what it does."""
    page = [
        "# Links to carriers",
        "",
        "<!-- Written by `make docs` from berid/channels/sms/settings.py; change that file, not this one. -->",
        "",
        "A *connector* is one login at one carrier, with all of its binds. A *route* says which messages take it, and which",
        "connectors they try one after the other. A running platform takes over every change within a second.",
        "",
        "    berid connector add north --set host=smpp.north.example --set system_id=us --settings secret.toml",
        "    berid route add everything --connector north",
        "    berid connector set north rate=50 submit_id_form=hex receipt_id_form=decimal",
        "",
        'with `password = "..."` in `secret.toml`, which a command line would show to others. It is kept sealed.',
        "",
        "What most carriers' papers ask for: `system_type`, `rate`, `window` and `binds`, TON and NPI. What few of them say is",
        "whether the ids in receipts are written as those in responses. If receipts find no delivery",
        "(`berid_parked_receipts_total` rises), compare the two and set:",
        "",
        "| the carrier writes | `submit_id_form` | `receipt_id_form` |",
        "|---|---|---|",
        "| both the same | as_is | as_is |",
        "| hexadecimal in responses, decimal in receipts | hex | decimal |",
        "| decimal in responses, hexadecimal in receipts | decimal | hex |",
        "| one form, with zeros in front or letters of another case | hex or decimal | the same |",
        "| now this, now that; its hexadecimal ids always have a letter | either | either |",
        "",
        "| setting | default | what it does |",
        "|---|---|---|",
    ]
    for each in SETTINGS.values():
        if each.default is msgspec.NODEFAULT:
            default = "required"
        else:
            default = f"`{str(each.default).lower() if isinstance(each.default, bool) else each.default}`"
        expected = _expected(each)
        page.append(
            f"| `{each.name}` | {default if each.default not in ('', {}) else ''} | "
            f"{each.about} {expected[:1].upper()}{expected[1:]}. |"
        )
    page += ["", "## What a carrier's no means", "", "Unless `error_classes` says otherwise:", ""]
    page += ["| status of the response | class |", "|---|---|"]
    page += [f"| {CommandStatus(status).name} | {what} |" for status, what in ERROR_CLASSES.items()]
    page += ["| every other, the carrier's own included | permanent |", ""]
    page += [
        "*permanent*: the message is rejected. *temporary*: the next connector of the route, or this one later. *throttled*: the",
        "link slows down and submits again. *connector*: the bind is made anew, and the message goes elsewhere.",
    ]
    return "\n".join(page) + "\n"


def read_settings(given: Mapping[str, object], vault: Vault | None = None) -> SmppSettings:
    """The settings in their types, with secrets opened if there is a `vault`.

    Raises ValueError, with every trouble found, in words for the person who typed them; secrets are not quoted.
    """
    troubles: list[str] = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        found = SETTINGS.get(name)
        if found is None:
            nearest = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.0)[0]
            troubles.append(f"there is no setting {name!r}; the nearest is {nearest}")
            continue
        try:
            values[name] = _convert(found, value)
        except ValueError:
            shown = "its value" if found.is_secret else repr(value)
            troubles.append(f"{name}: {shown} is not {_expected(found)}")
    for name, found in SETTINGS.items():
        if found.default is msgspec.NODEFAULT and name not in given:
            troubles.append(f"{name} is missing: {found.about}")
    if troubles:
        raise ValueError("; ".join(troubles))
    if vault is not None and values.get("password", "").startswith(SEALED):
        try:
            values["password"] = vault.open(values["password"][len(SEALED) :], SEAL_PURPOSE)
        except Unreadable as error:
            raise ValueError(str(error)) from None
    settings = SmppSettings(**values)
    troubles = list(_contradictions(settings))
    if troubles:
        raise ValueError("; ".join(troubles))
    return settings


def make_tls(settings: SmppSettings) -> ssl.SSLContext | None:
    """What TLS is to be spoken by, or None if it is not. Raises ValueError for a file that holds no certificates."""
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror or error
        raise ValueError(f"tls_ca_file: no certificates can be read from {settings.tls_ca_file}: {why}") from None
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _convert(found: Setting, value: object) -> object:
    """A value in the setting's own type. Raises ValueError; msgspec's errors are."""
    kind = found.kind
    if kind in (int, float):
        kind = Annotated[kind, msgspec.Meta(ge=found.meta.ge, le=found.meta.le)]
    converted: object = msgspec.convert(value, kind)
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError
    return converted


def _expected(found: Setting) -> str:
    if found.name == "error_classes":
        return f"a table from statuses to {', '.join(get_args(ErrorClass))}"
    return found.expected


def _contradictions(settings: SmppSettings) -> list[str]:
    """What is wrong although every value has its type."""
    troubles = []
    if not settings.host or settings.host != settings.host.strip():
        troubles.append("host must be a name or an address, without blanks around it")
    if not settings.system_id:
        troubles.append("system_id must not be empty")
    for name, limit in (("system_id", 15), ("password", 8), ("system_type", 12), ("address_range", 40)):
        value = getattr(settings, name)
        if name == "password" and value.startswith(SEALED):
            continue
        if len(value) > limit or not value.isascii() or "\0" in value:
            troubles.append(f"{name} must have at most {limit} characters, all of them ASCII")
    times = ("enquire_link_s", "response_timeout_s")
    troubles += [f"{name} must be more than 0" for name in times if not getattr(settings, name)]
    for written in settings.error_classes:
        try:
            status = _status_of(written)
        except ValueError:
            troubles.append(f"error_classes: {written!r} is no command status, such as ESME_RSUBMITFAIL or 0x0412")
            continue
        if not 0 < status < 1 << 32:
            troubles.append(f"error_classes: {written} is out of range; 0 is success and has no class")
    return troubles


def _status_of(written: str) -> int:
    """The number of a command status, written by name or as a number. Raises ValueError."""
    if written in CommandStatus.__members__:
        return int(CommandStatus[written])
    return int(written, 0)
