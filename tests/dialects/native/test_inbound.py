"""Messages from people as the operator sees them: those of nobody, and those of an account."""

from dataclasses import replace

from berid.domain.directory import Directory
from berid.flow.inbound import InboundSms, receive
from tests.dialects.native.conftest import Api
from tests.support.builders import ACCOUNT_ID, APPLICATION_ID, CONNECTOR_ID

PERSON = "905321234567"


def as_operator(directory: Directory) -> Directory:
    """The business, with one number, and with the one token an operator's."""
    tokens = {each.hash: replace(each, scopes=frozenset(("operator",))) for each in directory.tokens.values()}
    return replace(directory, tokens=tokens, numbers={"5050": (ACCOUNT_ID, APPLICATION_ID)})


async def test_what_is_written_to_nobody_is_shown_to_the_operator(api: Api) -> None:
    api.rt.directory = as_operator(api.rt.directory)
    now_ms = api.rt.clock.now_ms()
    words = [
        ("7777", "hello"),
        ("Acme", "إيقاف"),
        ("5050", "STOP"),
        ("", "to no number at all"),
        ("966500000000000000", "x"),
    ]
    for to, text in words:
        await receive(api.rt, [InboundSms(CONNECTOR_ID, PERSON, to, text, -1, 1, 1, now_ms)])
    first = (await api("GET", "/operator/inbound?limit=3")).json
    second = (await api("GET", f"/operator/inbound?limit=3&cursor={first['next']}")).json
    assert [(each["to"], each["text"]) for each in [*first["data"], *second["data"]]] == [
        words[place] for place in (4, 3, 1, 0)
    ]
    assert second["next"] is None
    assert {(each["account"], each["from"]) for each in first["data"]} == {("", PERSON)}
    (own,) = (await api("GET", f"/operator/inbound?account=acc_{ACCOUNT_ID}")).json["data"]
    assert (own["text"], own["keyword"], own["account"]) == ("STOP", "stop", f"acc_{ACCOUNT_ID}")


async def test_only_the_operator_sees_them(api: Api) -> None:
    assert (await api("GET", "/operator/inbound")).status == 403
