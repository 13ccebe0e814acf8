"""What a path of this dialect is, and who calls it: the beginning of every handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from berid.dialects import caller_of
from berid.dialects.turkeysms.answers import Body
from berid.dialects.turkeysms.reading import Fields, text_of
from berid.dialects.web import Request
from berid.domain.account import Caller, Scope, check_caller
from berid.domain.errors import Refused
from berid.flow.ports import Runtime

NAME = "turkeysms"
CHANNEL = "sms"


@dataclass(slots=True)
class Call:
    """One request with its parameters: the query string under the body.

    `is_v4` where the two generations differ. Who works sets `is_repeated` if the answer is that of an earlier request.
    """

    rt: Runtime
    request: Request
    fields: Fields
    is_v4: bool = False
    is_repeated: bool = False

    def caller(self) -> Caller:
        """Who calls. Raises `Refused` for a key that is missing, wrong, or no text at all."""
        return caller_of(self.rt, text_of(self.fields, "api_key").strip(), self.request, NAME)

    def permitted(self, *scopes: Scope) -> Caller:
        """As `caller`, for paths that end neither in `accept` nor in `send_code`: raises as well for what forbids the call.

        One of `scopes` is enough; none are needed if none are given.
        """
        caller = self.caller()
        scope = next((each for each in scopes if caller.token.has(each)), scopes[0] if scopes else None)
        refusals = check_caller(caller, scope, None)
        if refusals:
            raise Refused(*refusals)
        return caller

    @property
    def sending(self) -> Scope:
        """The right that sending needs: this provider's keys tell POST from GET."""
        return Scope.SEND_POST if self.request.method == "POST" else Scope.SEND_GET


Work = Callable[[Call], Awaitable[Body]]
"""What a path does. Raises `Refused`."""
