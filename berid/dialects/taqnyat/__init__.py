"""Taqnyat's API: its customers change the base URL and nothing else.

The paths, parameters, answers and mistakes are the provider's (its API reference for SMS, voice and e-mail, and what its public
clients put on the wire); what happens behind them is the flow's. `answers` holds every word that goes out, `reading`
every shape that comes in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from berid.dialects.taqnyat import answers, openapi, php, sms, system, verify, webhook
from berid.dialects.taqnyat.calls import NAME
from berid.dialects.web import Group, Request, Response, Route
from berid.domain.errors import RefusalKind
from berid.domain.report import Endpoint
from berid.flow.ports import Runtime, Tell


class Taqnyat:
    """The dialect. See `web.HttpDialect`."""

    name = NAME
    refusals: Mapping[RefusalKind, answers.Words] = answers.REFUSALS

    def routes(self, rt: Runtime) -> Sequence[Route]:
        """Every path of the provider. See `HttpDialect.routes`."""
        rest = answers.REST
        answers_401 = rt.config.dialects.taqnyat_php_answers_401
        voice = answers.php_group("taqnyat voice", php.VOICE_PATH, answers.VOICE_TEXTS, answers_401)
        mail = answers.php_group("taqnyat mail", php.MAIL_PATH, answers.MAIL_TEXTS, answers_401)
        described = openapi.document()

        async def describe(_: Request) -> Response:
            return Response(200, described)

        return [
            _route(rt, ("GET",), "/system/status", system.status, rest),
            _route(rt, ("GET",), "/account/balance", system.balance, rest),
            _route(rt, ("GET",), "/v1/account/balance", system.balance, rest),
            _route(rt, ("GET",), "/v1/messages/senders", system.senders, rest),
            _route(rt, ("POST", "GET"), "/v1/messages", sms.send, rest),
            _route(rt, ("DELETE",), "/v1/messages", sms.delete, rest),
            _route(rt, ("DELETE", "GET"), "/v1/messages/delete", sms.delete, rest),
            _route(rt, ("POST", "GET"), php.VOICE_PATH, php.send_voice, voice),
            _route(rt, ("POST", "GET"), php.MAIL_PATH, php.send_mail, mail),
            _route(rt, ("POST", "GET"), verify.PATH, verify.verify, verify.GROUP),
            Route(("GET",), openapi.PATH, describe, rest),
            Route(("HEAD",), "/v1/messages", _refuse_head, rest),
            Route(("HEAD",), "/v1/messages/delete", _refuse_head, rest),
            Route(("HEAD",), php.VOICE_PATH, _refuse_head, voice),
            Route(("HEAD",), php.MAIL_PATH, _refuse_head, mail),
            Route(("HEAD",), verify.PATH, _refuse_head, verify.GROUP),
        ]

    def render(self, rt: Runtime, endpoint: Endpoint, tells: Sequence[Tell]) -> tuple[bytes, dict[str, str]]:
        """See `Dialect.render` and `webhook`."""
        return webhook.render(rt, endpoint, tells)

    def is_told(self, rt: Runtime, endpoint: Endpoint, status: int, body: bytes) -> bool:
        """See `Dialect.is_told` and `webhook`."""
        return webhook.is_told(rt, endpoint, status, body)

    def schedule_s(self, endpoint: Endpoint) -> Sequence[float]:
        """The pauses after each failed try of a callback, in seconds. See `notify.pauses_s`."""
        return webhook.PAUSES_S


def _route(
    rt: Runtime,
    methods: tuple[str, ...],
    path: str,
    handler: Callable[[Runtime, Request], Awaitable[Response]],
    group: Group,
) -> Route:
    return Route(methods, path, partial(handler, rt), group)


async def _refuse_head(request: Request) -> Response:
    """HEAD must change nothing, so it does not stand for a GET that sends."""
    return answers.fail(request, 405)


dialect = Taqnyat()
