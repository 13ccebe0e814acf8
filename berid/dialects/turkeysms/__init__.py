"""TurkeySMS's API, V3 and V4: its customers change the host name and nothing else.

The paths, parameters, answers and mistakes are the provider's (its documentation, and what its public clients put on the
wire); what happens behind them is the flow's. `codes` holds every word that goes out, `reading` every shape that comes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from berid.dialects.turkeysms import answers, asking, codes, otp, sending, v4, webhook
from berid.dialects.turkeysms.calls import NAME, Call, Work
from berid.dialects.web import Group, Request, Response, Route
from berid.domain.errors import RefusalKind
from berid.domain.report import Endpoint
from berid.flow.ports import Runtime, Tell


@dataclass(frozen=True, slots=True)
class Door:
    """One path of V3 under `/api/v3`. All take GET and POST. `is_bulk` allows bodies up to `http.bulk_body_limit_bytes`."""

    path: str
    work: Work
    group: Group
    is_bulk: bool = False

    def routes(self, rt: Runtime) -> list[Route]:
        """The route that reads, works and answers; and HEAD, which must change nothing, so it does not stand for GET."""
        work, limit = self.work, rt.config.http.bulk_body_limit_bytes if self.is_bulk else None

        async def handle(request: Request) -> Response:
            return answers.show_success(request, await work(Call(rt, request, await request.fields())))

        path = "/api/v3" + self.path
        return [
            Route(("POST", "GET"), path, handle, self.group, limit),
            Route(("HEAD",), path, _refuse_head, self.group),
        ]


DOORS = (
    Door("/authenticate/login", asking.login, answers.LOGIN),
    Door("/gonder/add-content", sending.send, answers.SENDING, is_bulk=True),
    Door("/get/get.php", sending.send_by_get, answers.SENDING),
    Door("/otp/otp_get.php", otp.send, answers.SENDING),
    Door("/otp_post/add-content", otp.send, answers.SENDING),
    Door("/otp_post_detailed/add-content", otp.send_detailed, answers.SENDING),
    Door("/gonder_coklu_gsm/add-content", sending.send_multi, answers.SENDING, is_bulk=True),
    Door("/gruba-gonder/post/tek-metin-gonderimi", sending.send_group, answers.SENDING, is_bulk=True),
    Door("/rapor/temel", asking.report, answers.STATUS),
    Door("/rapor/get/{id}", asking.report, answers.STATUS),
    Door("/sms-durumu/sms_durumu.php", asking.status, answers.STATUS),
    Door("/bakiye_sorgulama/add-content", asking.balance, answers.BALANCE),
    Door("/senderid_sorgulama/add-content", asking.senders, answers.BALANCE),
)
"""V3. `/user_login/login.php`, which takes a password in the address, is left out."""


class TurkeySms:
    """The dialect. See `web.HttpDialect`."""

    name = NAME
    refusals: Mapping[RefusalKind, codes.Words] = codes.REFUSALS

    def routes(self, rt: Runtime) -> Sequence[Route]:
        """Every path of the provider. See `HttpDialect.routes`."""
        return [*(route for door in DOORS for route in door.routes(rt)), *v4.routes(rt)]

    def render(self, rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[bytes, dict[str, str]]:
        """See `Dialect.render` and `webhook`."""
        return webhook.render(rt, endpoint, tells)

    def is_told(self, rt: Runtime, endpoint: Endpoint, status: int, body: bytes) -> bool:
        """See `Dialect.is_told`."""
        return 200 <= status < 300


async def _refuse_head(request: Request) -> Response:
    return answers.fail_v3(request, 405)


dialect = TurkeySms()
