"""TurkeySMS's API, V3 and V4: its customers change the host name and nothing else.

The paths, parameters, answers and mistakes are the provider's (its documentation, and what its public clients put on the
wire); what happens behind them is the flow's. `codes` holds every word that goes out, `reading` every shape that comes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from berid.dialects.turkeysms import answers, asking, codes, openapi, otp, sending, v4, webhook
from berid.dialects.turkeysms.calls import NAME, Call, Work
from berid.dialects.web import Group, Request, Response, Route
from berid.domain.errors import RefusalKind
from berid.domain.report import Endpoint
from berid.flow.ports import Runtime, Tell

PREFIX = "/api/v3"


@dataclass(frozen=True, slots=True)
class Door:
    """One path of V3 under PREFIX. All take GET and POST. `is_bulk` allows bodies up to `http.bulk_body_limit_bytes`."""

    path: str
    work: Work
    right: answers.Right
    about: str
    parameters: tuple[str, ...]
    is_bulk: bool = False

    def routes(self, rt: Runtime, group: Group) -> list[Route]:
        """The route that reads, works and answers; and HEAD, which must change nothing, so it does not stand for GET."""
        work, limit = self.work, rt.config.http.bulk_body_limit_bytes if self.is_bulk else None

        async def handle(request: Request) -> Response:
            return answers.show_success(request, await work(Call(rt, request, await request.fields())))

        path = PREFIX + self.path
        return [
            Route(("POST", "GET"), path, handle, group, limit),
            Route(("HEAD",), path, _refuse_head, group),
        ]

    def described(self) -> openapi.Described:
        """For the description of the dialect."""
        return openapi.Described(PREFIX + self.path, ("POST", "GET"), self.about, self.parameters)


DOORS = (
    Door("/authenticate/login", asking.login, "login", "Whose key this is.", ()),
    Door("/gonder/add-content", sending.send, "sending", "Send to one number.", openapi.SENDING, is_bulk=True),
    Door("/get/get.php", sending.send_by_get, "sending", "Send to one number.", openapi.SENDING_BY_GET),
    Door("/otp/otp_get.php", otp.send, "sending", "Send a code in our words.", openapi.CODE),
    Door("/otp_post/add-content", otp.send, "sending", "Send a code in our words.", openapi.CODE),
    Door(
        "/otp_post_detailed/add-content",
        otp.send_detailed,
        "sending",
        "Send a code in your words.",
        openapi.DETAILED_CODE,
    ),
    Door(
        "/gonder_coklu_gsm/add-content",
        sending.send_multi,
        "sending",
        "Send to several numbers.",
        openapi.SENDING,
        is_bulk=True,
    ),
    Door(
        "/gruba-gonder/post/tek-metin-gonderimi",
        sending.send_group,
        "sending",
        "Send to a group of up to 100,000 numbers.",
        openapi.SENDING,
        is_bulk=True,
    ),
    Door(
        "/rapor/temel",
        asking.report,
        "status",
        "What became of a message to many numbers, counted.",
        ("raporid",),
    ),
    Door("/rapor/get/{id}", asking.report, "status", "What became of a message to many numbers, counted.", ()),
    Door("/sms-durumu/sms_durumu.php", asking.status, "status", "What became of a message.", ("sms_id",)),
    Door("/bakiye_sorgulama/add-content", asking.balance, "balance", "What is left.", ()),
    Door("/senderid_sorgulama/add-content", asking.senders, "balance", "The sender names.", ()),
)
"""V3. `/user_login/login.php`, which takes a password in the address, is left out."""


class TurkeySms:
    """The dialect. See `web.HttpDialect`."""

    name = NAME
    refusals: Mapping[RefusalKind, codes.Words] = codes.REFUSALS

    def routes(self, rt: Runtime) -> Sequence[Route]:
        """Every path of the provider, and their description. See `HttpDialect.routes`."""
        newer = v4.doors_of(rt)
        described = openapi.document([*(door.described() for door in DOORS), *(door.described() for door in newer)])

        async def describe(_: Request) -> Response:
            return Response(200, described)

        groups = answers.v3_groups(rt.config.dialects.turkeysms_hides_errors)
        doors = [route for door in DOORS for route in door.routes(rt, groups[door.right])]
        return [*doors, *v4.routes(rt, newer), Route(("GET",), openapi.PATH, describe, v4.GROUP)]

    def render(self, rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[bytes, dict[str, str]]:
        """See `Dialect.render` and `webhook`."""
        return webhook.render(rt, endpoint, tells)

    def is_told(self, rt: Runtime, endpoint: Endpoint, status: int, body: bytes) -> bool:
        """See `Dialect.is_told`."""
        return 200 <= status < 300


async def _refuse_head(request: Request) -> Response:
    return answers.fail_v3(request, 405)


dialect = TurkeySms()
