"""Management: who may change what, that a secret is shown once, and that every change is written down."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from berid.base.ids import read, show
from berid.base.secret import is_token
from berid.dialects.native.endpoint import Endpoint
from berid.dialects.native.manage import ENDPOINTS
from berid.domain.account import Scope
from berid.flow import manage
from berid.flow.manage import Office
from berid.flow.manage.people import digest_phrase
from berid.store import directory
from berid.store.incidents import open_incidents
from tests.dialects.asgi import Answer
from tests.dialects.asgi import call as request
from tests.dialects.native.conftest import Api
from tests.support.database import ask

DAY_MS = 86_400_000
HOURS = {"zone": "Asia/Riyadh", "open": "10:00:00", "close": "11:00:00"}


@dataclass
class Owner:
    """An account with an application, and its tokens by what they can do. `actor` is the manager in the audit trail."""

    account_id: int
    application_id: int
    manager: str
    sender: str
    tester: str
    actor: str


@dataclass
class Desk:
    """The API with two accounts of which neither may see the other, and an operator with a token of the second one.

    `clerk` is that operator in the audit trail.
    """

    api: Api
    mine: Owner
    theirs: Owner
    operator: str
    clerk: str

    async def __call__(self, method: str, path: str, body: Any = None, *, token: str) -> Answer:
        """One request, with everything that was changed before in the directory."""
        await self.reload()
        return await self.api(method, path, body, token=token)

    async def yes(self, method: str, path: str, body: Any = None, *, token: str = "") -> Any:
        """A request that must succeed, by the operator unless a token is given; the decoded answer, None if it is empty."""
        answer = await self(method, path, body, token=token or self.operator)
        assert 200 <= answer.status < 300, answer.body
        return answer.json if answer.body else None

    async def hand_in(self, name: str = "slip.pdf", content: bytes = b"", token: str = "") -> Any:
        """A file of the first account, unless another's token is given; every one has a content of its own."""
        content = content or b"%PDF-1.7 " + name.encode()
        body = {"name": name, "content": b64encode(content).decode()}
        return await self.yes("POST", "/attachments", body, token=token or self.mine.manager)

    async def reload(self) -> None:
        async with self.api.rt.store.read() as tx:
            self.api.rt.directory = await directory.load(tx)

    async def trail(self) -> list[tuple[str, str]]:
        """(actor, action) of every line of the audit trail, the oldest first."""
        return [(row[0], row[1]) for row in await ask(self.api.url, "SELECT actor, action FROM audit ORDER BY id")]


async def _owner(office: Office, name: str) -> Owner:
    account_id = await manage.create_account(office, "t", name=name, home="SA", currencies=["SAR"])
    application_id = await manage.create_application(office, "t", account_id, name, ["sms", "otp"])

    async def token(mode: str, *scopes: str) -> manage.NewToken:
        return await manage.create_bearer(office, "t", account_id, application_id, mode=mode, scopes=scopes)

    manager = await token("live", "manage", "send", "status")
    return Owner(
        account_id,
        application_id,
        manager=manager.secret,
        sender=(await token("live", "send")).secret,
        tester=(await token("test", "*")).secret,
        actor=f"token:{manager.id}",
    )


@pytest.fixture
async def desk(api: Api) -> Desk:
    office = Office.of(api.rt)
    mine, theirs = await _owner(office, "Mine"), await _owner(office, "Theirs")
    made = await manage.create_bearer(
        office, "t", theirs.account_id, theirs.application_id, mode="live", scopes=["operator"]
    )
    return Desk(api, mine, theirs, made.secret, f"token:{made.id}")


# ── Who may ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _path(endpoint: Endpoint) -> str:
    return endpoint.path.replace("{id}", "1")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: f"{each.method} {each.path}")
def test_every_line_names_its_scope_by_its_path(endpoint: Endpoint) -> None:
    expected = Scope.OPERATOR if endpoint.path.startswith("/operator/") else Scope.MANAGE
    assert endpoint.scope is expected
    assert not endpoint.accepts


async def test_nobody_without_the_right_gets_through_any_line(desk: Desk) -> None:
    await desk.reload()
    for endpoint in ENDPOINTS:
        refused = [desk.mine.sender]
        refused += [desk.mine.manager, desk.mine.tester] if endpoint.scope is Scope.OPERATOR else [desk.operator]
        for token in refused:
            answer = await desk.api(endpoint.method, _path(endpoint), {}, token=token)
            assert (answer.status, answer.json["code"]) == (403, "scope_missing"), endpoint.path
        for nobody, status in (("", 401), ("bl_unknown", 401)):
            assert (await desk.api(endpoint.method, _path(endpoint), {}, token=nobody)).status == status
    assert {actor for actor, _ in await desk.trail()} == {"t"}


async def test_every_line_is_in_the_description(desk: Desk) -> None:
    document = (await request(desk.api.app, "GET", "/openapi.json")).json
    for endpoint in ENDPOINTS:
        operation = document["paths"]["/api/v1" + endpoint.path][endpoint.method.lower()]
        assert f"`{endpoint.scope}`" in operation["description"]
    assert not [name for name in document["components"]["schemas"] if "." in name]


async def test_what_another_account_has_is_not_there(desk: Desk) -> None:
    office, theirs = Office.of(desk.api.rt), desk.theirs
    sender_id = await manage.request_sender(office, "t", theirs.account_id, "sms", "Theirs")
    token_id = (await ask(desk.api.url, "SELECT max(id) FROM token WHERE account_id = $1", theirs.account_id))[0][0]
    wallet = "SELECT id FROM wallet WHERE account_id = $1 AND mode = 'live'"
    wallet_id = (await ask(desk.api.url, wallet, theirs.account_id))[0][0]
    application = show("app", theirs.application_id)
    topup_id, _ = await manage.request_topup(office, "t", theirs.account_id, "live", "SAR", 1, method="cash")
    before = await desk.trail()
    for method, path, body in (
        ("PATCH", f"/applications/{application}", {"state": "suspended"}),
        ("PATCH", f"/applications/{application}", {"services": []}),
        ("POST", "/tokens", {"application": application, "scopes": ["send"]}),
        ("POST", f"/tokens/tok_{token_id}/rotate", {}),
        ("DELETE", f"/tokens/tok_{token_id}", None),
        ("GET", f"/senders/snd_{sender_id}", None),
        ("POST", f"/senders/snd_{sender_id}/withdraw", None),
        ("GET", f"/ledger?wallet=wal_{wallet_id}", None),
        ("GET", f"/topup-requests/top_{topup_id}", None),
        ("POST", f"/topup-requests/top_{topup_id}/submit", {"note": "mine"}),
        ("POST", f"/topup-requests/top_{topup_id}/withdraw", None),
        ("POST", "/rules/dry-run", {"to": "966501234567", "text": "x", "application": application}),
    ):
        answer = await desk(method, path, body, token=desk.mine.manager)
        assert (answer.status, answer.json["code"]) == (404, "not_found"), path
    assert await desk.trail() == before


async def test_an_account_in_the_body_is_not_heeded_but_refused(desk: Desk) -> None:
    theirs = show("acc", desk.theirs.account_id)
    for path, body in (
        ("/applications", {"name": "x"}),
        ("/suppressions", {"recipient": "966501234567"}),
        ("/senders", {"name": "Mine"}),
    ):
        answer = await desk("POST", path, body | {"account": theirs}, token=desk.mine.manager)
        assert (answer.status, answer.json["field"]) == (400, "account")


async def test_lists_show_the_tokens_account_only(desk: Desk) -> None:
    await desk.yes("POST", "/suppressions", {"recipient": "966501234567"}, token=desk.theirs.tester)
    assert (await desk.yes("GET", "/suppressions", token=desk.mine.manager))["data"] == []
    me = await desk.yes("GET", "/account", token=desk.mine.manager)
    assert (me["id"], me["name"]) == (show("acc", desk.mine.account_id), "Mine")
    applications = await desk.yes("GET", "/applications", token=desk.mine.manager)
    assert [each["id"] for each in applications["data"]] == [show("app", desk.mine.application_id)]
    tokens = await desk.yes("GET", "/tokens", token=desk.mine.manager)
    assert {each["application"] for each in tokens["data"]} == {show("app", desk.mine.application_id)}
    assert len(tokens["data"]) == 3


# ── Tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("maker", "wish", "status", "field"),
    [
        ("manager", {"scopes": ["send"], "mode": "live"}, 201, ""),
        ("manager", {"scopes": ["manage", "status"]}, 201, ""),
        ("manager", {"scopes": ["balance"]}, 403, "scopes"),
        ("manager", {"scopes": ["*"]}, 403, "scopes"),
        ("manager", {"scopes": ["operator"]}, 403, "scopes"),
        ("manager", {"scopes": ["send", "operator"]}, 403, "scopes"),
        ("manager", {"scopes": ["everything"]}, 400, "scopes"),
        ("manager", {"scopes": []}, 400, "scopes"),
        ("manager", {"kind": "api_key"}, 403, "scopes"),
        ("manager", {"kind": "smpp", "system_id": "mine"}, 201, ""),
        ("manager", {"kind": "smpp", "system_id": "mine", "scopes": ["manage"]}, 400, "scopes"),
        ("tester", {"scopes": ["*"]}, 201, ""),
        ("tester", {"scopes": ["operator"]}, 403, "scopes"),
        ("tester", {"kind": "api_key"}, 201, ""),
        ("tester", {"scopes": ["send"], "mode": "live"}, 403, "mode"),
    ],
)
async def test_a_token_gives_no_more_than_it_has(
    desk: Desk, maker: str, wish: dict[str, Any], status: int, field: str
) -> None:
    body = {"application": show("app", desk.mine.application_id)} | wish
    answer = await desk("POST", "/tokens", body, token=getattr(desk.mine, maker))
    assert (answer.status, answer.json.get("field", "")) == (status, field)
    made = await ask(desk.api.url, "SELECT count(*) FROM token WHERE account_id = $1", desk.mine.account_id)
    assert made[0][0] == 3 + (status == 201)


async def test_a_secret_is_shown_once(desk: Desk) -> None:
    wish = {"application": show("app", desk.mine.application_id), "scopes": ["manage"], "mode": "live", "label": "ci"}
    made = await desk.yes("POST", "/tokens", wish, token=desk.mine.manager)
    assert is_token(made["secret"])
    assert (await desk("GET", "/account", token=made["secret"])).status == 200
    listed = await desk("GET", "/tokens", token=desk.mine.manager)
    assert made["secret"].encode() not in listed.body
    assert b"hash" not in listed.body
    shown = next(each for each in listed.json["data"] if each["id"] == made["id"])
    assert (shown["label"], shown["scopes"], shown["mode"]) == ("ci", ["manage"], "live")
    assert made["secret"] not in str(await ask(desk.api.url, "SELECT detail FROM audit"))


async def test_rotating_gives_another_secret_and_ends_the_old_one(desk: Desk) -> None:
    wish = {"application": show("app", desk.mine.application_id), "scopes": ["manage"], "mode": "live"}
    old = await desk.yes("POST", "/tokens", wish, token=desk.mine.manager)
    path = f"/tokens/{old['id']}/rotate"
    new = await desk.yes("POST", path, {"overlap_hours": 0}, token=desk.mine.manager)
    assert (await desk("GET", "/account", token=new["secret"])).status == 200
    assert (await desk("GET", "/account", token=old["secret"])).status == 401


async def test_rotating_is_no_way_to_rights_one_lacks(desk: Desk) -> None:
    office = Office.of(desk.api.rt)
    for mode, scopes, maker in (
        ("live", ["*"], desk.mine.manager),
        ("live", ["operator"], desk.mine.manager),
        ("live", ["send"], desk.mine.tester),
    ):
        made = await manage.create_bearer(
            office, "t", desk.mine.account_id, desk.mine.application_id, mode=mode, scopes=scopes
        )
        answer = await desk("POST", f"/tokens/{made.id}/rotate", {}, token=maker)
        assert (answer.status, answer.json["code"]) == (403, "scope_missing")
        assert b"secret" not in answer.body


async def test_a_revoked_token_is_known_no_more(desk: Desk) -> None:
    wish = {"application": show("app", desk.mine.application_id), "scopes": ["manage"], "mode": "live"}
    made = await desk.yes("POST", "/tokens", wish, token=desk.mine.manager)
    await desk.yes("DELETE", f"/tokens/{made['id']}", token=desk.mine.manager)
    assert (await desk("GET", "/account", token=made["secret"])).status == 401
    assert (await desk("DELETE", f"/tokens/{made['id']}", token=desk.mine.manager)).status == 404


async def test_smpp_login_rotates_without_overlap_and_keeps_its_id(desk: Desk) -> None:
    wish = {"application": show("app", desk.mine.application_id), "kind": "smpp", "system_id": "shop", "mode": "live"}
    made = await desk.yes("POST", "/tokens", wish, token=desk.mine.manager)
    again = await desk.yes("POST", f"/tokens/{made['id']}/rotate", token=desk.mine.manager)
    assert (again["id"], again["login"]) == (made["id"], "shop")
    assert again["secret"] != made["secret"]


# ── The account's own ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_application_changes_by_what_is_named_only(desk: Desk) -> None:
    body = {"name": "shop", "services": ["sms"], "rules": {"countries": ["SA"], "per_minute": 5, "pass_phrase": "open"}}
    made = await desk.yes("POST", "/applications", body, token=desk.mine.manager)
    assert made["rules"]["per_minute"] == 5
    assert "pass_phrase" not in made["rules"]
    path = f"/applications/{made['id']}"
    changed = await desk.yes("PATCH", path, {"rules": {"api_on": False}}, token=desk.mine.manager)
    assert changed == made | {"rules": made["rules"] | {"api_on": False}}
    rules = await ask(desk.api.url, "SELECT rules FROM application WHERE name = 'shop'")
    assert msgspec.json.decode(rules[0][0])["pass_phrase"] == digest_phrase(desk.api.rt.vault, "open")
    both = {"services": ["otp"], "state": "suspended"}
    assert await desk.yes("PATCH", path, both, token=desk.mine.manager) == changed | both


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rules": {"speed": 1}, "state": "suspended"}, "speed"),
        ({"rules": {"networks": ["here"]}, "services": []}, "networks"),
        ({"state": "closed"}, "state"),
        ({"services": ["fax"]}, "services"),
    ],
)
async def test_an_application_that_cannot_change_so_does_not_change_at_all(
    desk: Desk, body: dict[str, Any], field: str
) -> None:
    before = await desk.trail()
    answer = await desk("PATCH", f"/applications/{desk.mine.application_id}", body, token=desk.mine.manager)
    assert answer.status == 400
    assert answer.json["field"].startswith(field)
    assert await desk.trail() == before


async def test_a_sender_name_goes_from_wish_to_yes(desk: Desk) -> None:
    papers = [await desk.hand_in(name) for name in ("register.pdf", "letter.pdf")]
    body = {"name": "Acme", "documents": [papers[0]["id"]]}
    asked = await desk.yes("POST", "/senders", body, token=desk.mine.manager)
    assert (asked["state"], asked["documents"]) == ("submitted", papers[:1])
    listed = await desk.yes("GET", "/operator/senders?state=submitted")
    assert [(each["id"], each["documents"]) for each in listed["data"]] == [(asked["id"], papers[:1])]
    path = f"/operator/senders/{asked['id']}"
    told = await desk.yes("POST", f"{path}/needs-info", {"reason": "which company?"})
    assert (told["state"], told["account"]) == ("needs_info", show("acc", desk.mine.account_id))
    seen = await desk.yes("GET", f"/senders/{asked['id']}", token=desk.mine.manager)
    assert seen["reason"] == "which company?"
    more = {"documents": [papers[1]["id"]]}
    again = await desk.yes("POST", f"/senders/{asked['id']}/submit", more, token=desk.mine.manager)
    assert (again["state"], again["documents"]) == ("submitted", papers)
    ends_ms = desk.api.clock.now_ms() + DAY_MS
    approved = await desk.yes("POST", f"{path}/approve", {"expires_at": ends_ms})
    assert (approved["state"], approved["expires_at"] is None) == ("approved", False)
    assert (await desk.yes("POST", f"{path}/suspend", {"reason": "complaints"}))["state"] == "suspended"
    late = await desk("POST", f"{path}/reject", {"reason": "no"}, token=desk.operator)
    assert (late.status, late.json["code"]) == (409, "wrong_state")
    gone = await desk.yes("POST", f"/senders/{asked['id']}/withdraw", token=desk.mine.manager)
    assert gone["state"] == "withdrawn"
    other = await desk.yes("POST", "/senders", {"name": "Other", "draft": True}, token=desk.mine.manager)
    assert other["state"] == "draft"


async def test_the_book_is_read_page_by_page_and_lifted_by_its_key(desk: Desk) -> None:
    token = desk.mine.manager
    numbers = ["966500000001", "966500000002", "966500000003"]
    for number in numbers:
        assert (await desk.yes("POST", "/suppressions", {"recipient": number}, token=token))["added"]
    assert not (await desk.yes("POST", "/suppressions", {"recipient": "+966500000001"}, token=token))["added"]
    first = await desk.yes("GET", "/suppressions?limit=2", token=token)
    rest = await desk.yes("GET", f"/suppressions?limit=2&cursor={first['next']}", token=token)
    assert [each["recipient"] for each in first["data"] + rest["data"]] == numbers
    assert rest["next"] is None
    await desk.yes("DELETE", "/suppressions?recipient=966500000002&channel=all", token=token)
    assert (await desk("DELETE", "/suppressions?recipient=966500000002", token=token)).status == 404
    left = await desk.yes("GET", "/suppressions", token=token)
    assert [each["recipient"] for each in left["data"]] == [numbers[0], numbers[2]]
    assert (await desk("GET", "/suppressions?cursor=x", token=token)).json["field"] == "cursor"


async def test_consent_goes_in_and_comes_out_as_the_registry_writes_it(desk: Desk) -> None:
    row = "000001,MESAJ,+905551112233,BIREYSEL,ONAY,HS_WEB,2026-09-20 10:00:00"
    names = "brandCode,type,recipient,recipientType,status,source,consentDate"
    listed = f"{names}\r\n{row}\r\n000001,MESAJ,+905551112234,BIREYSEL,RET,HS_WEB,2026-09-20 10:00:00\r\n"
    done = await desk.yes("POST", "/consents/import", {"rows": listed}, token=desk.mine.manager)
    assert (done["changed"], done["refused"], done["faults"][0]["row"], done["faults"][0]["field"]) == (
        1,
        1,
        2,
        "status",
    )
    out = await desk("GET", "/consents/export", token=desk.mine.manager)
    assert (out.headers["content-type"], out.body.decode()) == (
        "text/csv; charset=utf-8",
        f"{names}\r\n{row}\r\n",
    )
    as_json = await desk("GET", "/consents/export?format=json", token=desk.mine.manager)
    assert [each["recipient"] for each in as_json.json] == ["+905551112233"]
    assert (await desk("GET", "/consents/export?format=json", token=desk.theirs.tester)).json == []


async def test_a_list_of_people_goes_into_the_book(desk: Desk) -> None:
    body = {
        "rows": "recipient,channel\n966500000001,\n+966500000002,sms\nnobody,\n",
        "reason": "registry",
        "source": "national",
    }
    done = await desk.yes("POST", "/suppressions/import", body, token=desk.mine.manager)
    assert (done["changed"], done["unchanged"], done["refused"]) == (2, 0, 1)
    assert (done["faults"][0]["row"], done["faults"][0]["field"]) == (3, "recipient")
    listed = (await desk.yes("GET", "/suppressions", token=desk.mine.manager))["data"]
    assert [(each["recipient"], each["channel"], each["reason"], each["source"]) for each in listed] == [
        ("966500000001", "all", "registry", "national"),
        ("966500000002", "sms", "registry", "national"),
    ]
    assert (await desk.yes("GET", "/suppressions", token=desk.theirs.tester))["data"] == []
    unread = await desk("POST", "/suppressions/import", {"rows": "number\n1\n"}, token=desk.mine.manager)
    assert (unread.status, unread.json["code"]) == (400, "malformed")


async def test_the_record_of_consent_is_read_page_by_page(desk: Desk) -> None:
    token, names = desk.mine.manager, "brandCode,type,recipient,recipientType,status,source,consentDate"
    day = "HS_WEB,2026-09-20 10:00:00"
    rows = [f"1,MESAJ,+90555111223{digit},BIREYSEL,ONAY,{day}" for digit in range(3)]
    rows.append(f"1,MESAJ,+905551112230,BIREYSEL,RET,{day}")
    await desk.yes("POST", "/consents/import", {"rows": "\n".join([names, *rows])}, token=token)
    first = await desk.yes("GET", "/consents?limit=3", token=token)
    rest = await desk.yes("GET", f"/consents?limit=3&cursor={first['next']}", token=token)
    said = [(each["recipient"][-1], each["status"], each["current"]) for each in first["data"] + rest["data"]]
    assert said == [("0", "RET", True), ("2", "ONAY", True), ("1", "ONAY", True), ("0", "ONAY", False)]
    assert (rest["next"], first["data"][0]["said_at"]) == (None, "2026-09-20T07:00:00.000Z")
    of_one = await desk.yes("GET", "/consents?recipient=%2B905551112230", token=token)
    assert [each["status"] for each in of_one["data"]] == ["RET", "ONAY"]
    current = await desk.yes("GET", "/consents?current=true&recipient=905551112230", token=token)
    assert [each["status"] for each in current["data"]] == ["RET"]
    assert (await desk.yes("GET", "/consents", token=desk.theirs.tester))["data"] == []


async def test_an_account_says_where_it_asks_for_consent(desk: Desk) -> None:
    token = desk.mine.manager
    changed = await desk.yes("PATCH", "/consent-rules", {"countries": {"SA": True, "TR": False}}, token=token)
    assert changed == {"countries": {"SA": True, "TR": False}}
    assert await desk.yes("PATCH", "/consent-rules", {"countries": {"TR": None}}, token=token) == {
        "countries": {"SA": True}
    }
    assert await desk.yes("GET", "/consent-rules", token=token) == {"countries": {"SA": True}}
    assert await desk.yes("GET", "/consent-rules", token=desk.theirs.tester) == {"countries": {}}
    refused = await desk("PATCH", "/consent-rules", {"countries": {"DE": True, "XX": True}}, token=token)
    assert refused.status == 400
    assert await desk.yes("GET", "/consent-rules", token=token) == {"countries": {"SA": True}}


# ── What accounts ask for ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_top_up_is_asked_for_by_one_and_entered_by_another(desk: Desk) -> None:
    slip = await desk.hand_in()
    wish = {"currency": "SAR", "amount": "250", "method": "bank transfer", "reference": "PO 7", "slips": [slip["id"]]}
    asked = await desk.yes("POST", "/topup-requests", wish, token=desk.mine.manager)
    assert (asked["state"], asked["amount"], asked["mode"], asked["slips"]) == ("submitted", "250", "live", [slip])
    own = f"/topup-requests/{asked['id']}"
    case = f"/operator{own}"
    assert [each["id"] for each in (await desk.yes("GET", "/operator/topup-requests"))["data"]] == [asked["id"]]
    assert (await desk.yes("POST", f"{case}/check"))["state"] == "checking"
    await desk.api.clock.advance(3600)
    seen = await desk.yes("GET", case)
    assert (seen["waited_s"], seen["is_late"], seen["due_at"]) == (3600, False, "2026-09-21T16:13:20.000Z")
    assert (seen["asked_by"], seen["handled_by"], seen["same_files"]) == (desk.mine.actor, desk.clerk, [])
    await desk.yes("POST", f"{case}/needs-info", {"reason": "which bank?"})
    told = await desk.yes("GET", own, token=desk.mine.manager)
    assert (told["state"], told["reason"], told["due_at"], "asked_by" in told) == (
        "needs_info",
        "which bank?",
        None,
        False,
    )
    again = await desk.yes("POST", f"{own}/submit", {"note": "the blue one"}, token=desk.mine.manager)
    assert (again["state"], again["note"], again["waited_s"]) == ("submitted", "the blue one", 0)
    yes = {"amount": "249.5", "reason": "the bank kept the rest"}
    approved = await desk.yes("POST", f"{case}/approve", yes)
    assert (approved["state"], approved["approved"], approved["reason"]) == ("approved", "249.5", yes["reason"])
    assert (await desk.yes("POST", f"{case}/approve", yes))["entry"] == approved["entry"]
    wallet = (await desk.yes("GET", "/account", token=desk.mine.manager))["wallets"][0]
    assert (wallet["mode"], wallet["available"], wallet["id"]) == ("live", "249.5", asked["wallet"])
    ledger = await desk.yes("GET", f"/ledger?wallet={wallet['id']}", token=desk.mine.manager)
    assert [(each["id"], each["kind"], each["amount"]) for each in ledger["data"]] == [
        (approved["entry"], "topup", "249.5")
    ]
    assert (await desk.yes("GET", "/operator/topup-requests"))["data"] == []
    assert len((await desk.yes("GET", "/operator/topup-requests?state=approved"))["data"]) == 1


async def test_who_asks_for_money_cannot_approve_it(desk: Desk) -> None:
    wish = {"currency": "SAR", "amount": "250", "method": "cash"}
    asked = await desk.yes("POST", "/topup-requests", wish, token=desk.theirs.manager)
    answer = await desk("POST", f"/operator/topup-requests/{asked['id']}/approve", {}, token=desk.operator)
    assert (answer.status, answer.json["code"]) == (403, "self_approval")
    assert await desk.api.count("ledger_entry") == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": "1e999999999"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "0.0000001"}, "amount"),
        ({"amount": "9999999999999"}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"amount": "-5"}, "amount"),
        ({"amount": 5}, "amount"),
        ({"method": " "}, "method"),
        ({"note": "\0"}, ""),
        ({"slips": ["att_99999999999999999999"]}, "slips"),
        ({"slips": ["slip.pdf"]}, "slips"),
        ({"slips": ["att_1"]}, "slips"),
    ],
)
async def test_an_unfit_top_up_request_is_refused_with_its_field(desk: Desk, changes: Any, field: str) -> None:
    wish = {"currency": "SAR", "amount": "250", "method": "cash"}
    answer = await desk("POST", "/topup-requests", wish | changes, token=desk.mine.manager)
    assert (answer.status, answer.json["code"], answer.json.get("field", "")) == (400, "malformed", field)
    assert await desk.api.count("topup_request") == 0


async def test_a_request_sent_twice_under_one_key_is_one_request(desk: Desk) -> None:
    wish = {"currency": "SAR", "amount": "250", "method": "cash"}
    await desk.reload()
    for path, body, token in (
        ("/topup-requests", wish, desk.mine.manager),
        (
            "/operator/topups",
            {"account": show("acc", desk.mine.account_id), "mode": "live", "currency": "SAR", "amount": "5"},
            desk.operator,
        ),
    ):
        first = await desk.api("POST", path, body, token=token, key="k1")
        again = await desk.api("POST", path, body, token=token, key="k1")
        assert (first.status, again.status, again.json) == (201, 201, first.json)
        assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
        other = await desk.api("POST", path, body | {"amount": "6"}, token=token, key="k1")
        assert (other.status, other.json["code"]) == (409, "idempotency_conflict")
    assert await desk.api.count("topup_request") == 1
    assert await desk.api.count("ledger_entry") == 2


async def test_wallets_tell_how_long_their_top_ups_wait(desk: Desk) -> None:
    wish = {"currency": "SAR", "amount": "250", "method": "cash"}
    asked = await desk.yes("POST", "/topup-requests", wish, token=desk.mine.manager)
    await desk.api.clock.advance(2 * 3600)
    path = f"/operator/accounts/{desk.mine.account_id}"

    async def waiting() -> Any:
        return (await desk.yes("GET", path))["wallets"][0]["open_topups"]

    assert await waiting() == {
        "count": 1,
        "oldest_at": asked["submitted_at"],
        "due_at": asked["due_at"],
        "is_late": False,
    }
    await desk.api.clock.advance(1)
    assert (await waiting())["is_late"]
    late = (await desk.yes("GET", f"/operator/topup-requests?wallet={asked['wallet']}"))["data"][0]
    assert (late["waited_s"], late["is_late"]) == (7201, True)
    await desk.yes("POST", f"/topup-requests/{asked['id']}/withdraw", token=desk.mine.manager)
    assert await waiting() == {"count": 0, "oldest_at": None, "due_at": None, "is_late": False}
    assert (await desk.yes("GET", "/topup-requests", token=desk.mine.manager))["data"][0]["state"] == "withdrawn"


async def test_test_money_is_asked_for_by_test_tokens(desk: Desk) -> None:
    wish = {"currency": "SAR", "amount": "1", "method": "cash"}
    asked = await desk.yes("POST", "/topup-requests", wish, token=desk.mine.tester)
    assert asked["mode"] == "test"
    assert (await desk("GET", f"/topup-requests/{asked['id']}", token=desk.mine.manager)).status == 404
    assert (await desk.yes("GET", "/topup-requests", token=desk.mine.manager))["data"] == []
    assert len((await desk.yes("GET", "/topup-requests", token=desk.mine.tester))["data"]) == 1


async def test_top_ups_are_read_page_by_page(desk: Desk) -> None:
    wish = {"currency": "SAR", "amount": "1", "method": "cash"}
    made = [(await desk.yes("POST", "/topup-requests", wish, token=desk.mine.manager))["id"] for _ in range(3)]
    for path, token, expected in (
        ("/topup-requests", desk.mine.manager, made[::-1]),
        ("/operator/topup-requests", desk.operator, made),
    ):
        first = await desk.yes("GET", f"{path}?limit=2", token=token)
        rest = await desk.yes("GET", f"{path}?limit=2&cursor={first['next']}", token=token)
        assert [each["id"] for each in first["data"] + rest["data"]] == expected
        assert rest["next"] is None


async def test_the_same_slip_of_another_account_is_shown_to_the_operator_alone(desk: Desk) -> None:
    wish = {"currency": "SAR", "amount": "1", "method": "cash"}
    slips = [await desk.hand_in(), await desk.hand_in(token=desk.theirs.manager)]
    first = await desk.yes("POST", "/topup-requests", wish | {"slips": [slips[0]["id"]]}, token=desk.mine.manager)
    second = await desk.yes("POST", "/topup-requests", wish | {"slips": [slips[1]["id"]]}, token=desk.theirs.manager)
    assert (await desk.yes("GET", f"/operator/topup-requests/{second['id']}"))["same_files"] == [first["id"]]
    assert "same_files" not in second


async def test_a_file_comes_back_as_it_was_and_is_not_shown_in_a_browser(desk: Desk) -> None:
    content = b"\x89PNG\r\n\x1a\n\x00\xff"
    made = await desk.hand_in('slip "\u0645".png', content)
    assert (made["type"], made["bytes"]) == ("image/png", len(content))
    for path, token in ((f"/attachments/{made['id']}", desk.mine.manager), (f"/operator/attachments/{made['id']}", "")):
        answer = await desk("GET", path, token=token or desk.operator)
        assert (answer.body, answer.headers["content-type"]) == (content, "image/png")
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''slip%20%22%D9%85%22.png"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await desk("GET", f"/attachments/{made['id']}", token=desk.theirs.manager)).status == 404
    refused = await desk("POST", "/attachments", {"name": "x.svg", "content": "PHN2Zz4="}, token=desk.mine.manager)
    assert (refused.status, refused.json["field"]) == (400, "content")
    broken = await desk("POST", "/attachments", {"name": "x.pdf", "content": "%%%"}, token=desk.mine.manager)
    assert (broken.status, broken.json["field"]) == (400, "content")


async def test_trial_credit_is_offered_and_had_once(desk: Desk) -> None:
    await desk.yes("PUT", "/operator/trial-offers", {"product": "taqnyat", "currency": "SAR", "amount": "1"})
    offer = {"product": "taqnyat", "currency": "SAR", "amount": "1"}
    assert (await desk.yes("GET", "/operator/trial-offers"))["data"] == [offer]
    seen = await desk.yes("GET", "/trial-credit", token=desk.mine.manager)
    assert seen == {"offers": [offer], "claimed": None}
    had = await desk.yes("POST", "/trial-credit", {"product": "taqnyat"}, token=desk.mine.manager)
    assert (had["available"], had["currency"]) == ("1", "SAR")
    claimed = (await desk.yes("GET", "/trial-credit", token=desk.mine.manager))["claimed"]
    assert (claimed["product"], claimed["entry"]) == ("taqnyat", had["entry"])
    again = await desk("POST", "/trial-credit", {"product": "taqnyat"}, token=desk.mine.manager)
    assert (again.status, again.json["code"]) == (409, "wrong_state")
    await desk.yes("DELETE", "/operator/trial-offers?product=taqnyat")
    assert (await desk("POST", "/trial-credit", {"product": "taqnyat"}, token=desk.theirs.tester)).status == 404


async def test_other_countries_are_asked_for_and_opened(desk: Desk) -> None:
    account = f"/operator/accounts/{desk.mine.account_id}"
    await desk.yes("PATCH", account, {"rules": {"international_on": False}})
    wish = {"countries": ["DE"], "purpose": "a branch in Bonn", "monthly_volume": 500}
    first = await desk.yes("POST", "/international-requests", wish, token=desk.mine.manager)
    assert (first["state"], first["countries"], first["monthly_volume"]) == ("submitted", ["DE"], 500)
    twice = await desk("POST", "/international-requests", wish, token=desk.mine.manager)
    assert (twice.status, twice.json["code"]) == (409, "wrong_state")
    assert [each["id"] for each in (await desk.yes("GET", "/operator/international-requests"))["data"]] == [first["id"]]
    case = f"/operator/international-requests/{first['id']}"
    assert (await desk.yes("POST", f"{case}/reject", {"reason": "which?"}))["reason"] == "which?"
    assert (await desk("POST", f"{case}/approve", token=desk.operator)).status == 409
    second = await desk.yes("POST", "/international-requests", wish, token=desk.mine.manager)
    approved = await desk.yes("POST", f"/operator/international-requests/{second['id']}/approve")
    assert approved["state"] == "approved"
    rules = (await desk.yes("GET", "/account", token=desk.mine.manager))["rules"]
    assert (rules["international_on"], rules["countries"]) == (True, ["DE", "SA"])
    third = await desk.yes("POST", "/international-requests", wish | {"countries": []}, token=desk.mine.manager)
    assert (
        await desk("POST", f"/international-requests/{third['id']}/withdraw", token=desk.theirs.manager)
    ).status == 404
    await desk.yes("POST", f"/international-requests/{third['id']}/withdraw", token=desk.mine.manager)
    states = [
        each["state"] for each in (await desk.yes("GET", "/international-requests", token=desk.mine.manager))["data"]
    ]
    assert states == ["withdrawn", "approved", "rejected"]


async def test_credit_and_price_lists_are_given_and_taken(desk: Desk) -> None:
    account = f"/operator/accounts/{desk.mine.account_id}"
    limit = {"mode": "live", "currency": "SAR", "limit": "12.5"}
    detail = await desk.yes("PUT", f"{account}/credit-limit", limit)
    assert [(each["mode"], each["credit_limit"]) for each in detail["wallets"]] == [("live", "12.5"), ("test", "0")]
    for wrong, status in (({"limit": "-1"}, 400), ({"limit": "much"}, 400), ({"currency": "TRY"}, 404)):
        assert (await desk("PUT", f"{account}/credit-limit", limit | wrong, token=desk.operator)).status == status
    prices = await desk.yes("POST", "/operator/price-lists", {"name": "std", "currency": "SAR"})
    use = f"/operator/price-lists/{prices['id']}/use"
    owner = show("acc", desk.mine.account_id)
    await desk.yes("POST", use, {"account": owner})
    await desk.yes("POST", use)
    await desk.yes("DELETE", f"{use}?account={owner}")
    assert await ask(desk.api.url, "SELECT account_id FROM price_use") == [(0,)]
    assert (await desk("DELETE", f"{use}?account={owner}", token=desk.operator)).status == 404
    await desk.yes("DELETE", use)
    assert await desk.api.count("price_use") == 0


# ── The dry run ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def _business(desk: Desk, micros: int) -> None:
    """A way out, a price, money and a sender for my account."""
    office = Office.of(desk.api.rt)
    settings = {"host": "127.0.0.1", "port": 2775, "system_id": "berid", "password": "sesame"}
    connector = {"name": "carrier", "kind": "smpp", "settings": settings}
    made = await desk.yes("POST", "/operator/connectors", connector)
    await desk.yes("POST", "/operator/routes", {"name": "all", "connectors": [made["id"]]})
    prices = await desk.yes("POST", "/operator/price-lists", {"name": "std", "currency": "SAR"})
    await desk.yes("POST", f"/operator/price-lists/{prices['id']}/import", {"csv": "prefix,price\n966,0.05\n"})
    await desk.yes("POST", f"/operator/price-lists/{prices['id']}/use", {})
    sender_id = await manage.request_sender(office, "t", desk.mine.account_id, "sms", "Acme")
    await desk.yes("POST", f"/operator/senders/{sender_id}/approve")
    if micros:
        await manage.top_up(office, "t", desk.mine.account_id, "live", "SAR", micros)


DRY = {"to": "966501234567", "sender": "Acme", "text": "hello"}


@pytest.mark.parametrize(
    ("changes", "rules", "micros", "codes"),
    [
        ({}, {}, 1_000_000, []),
        ({}, {}, 0, ["balance_zero"]),
        ({}, {}, 10_000, ["balance_short"]),
        ({"sender": "Other"}, {}, 1_000_000, ["sender_unknown"]),
        ({"sender": "", "to": "abc"}, {}, 1_000_000, ["sender_missing", "recipient_invalid"]),
        ({"to": "905551112233"}, {}, 1_000_000, ["no_price"]),
        ({"text": ""}, {}, 1_000_000, ["content_missing"]),
        ({}, {"countries": ["TR"]}, 1_000_000, ["country_not_allowed"]),
        ({"address": "203.0.113.9"}, {"networks": ["198.51.100.0/24"]}, 1_000_000, ["address_not_allowed"]),
        ({}, {"api_on": False}, 1_000_000, ["api_off"]),
        ({"to": 966500000009, "category": "promotional", "sender": "Acme"}, {}, 1_000_000, ["suppressed"]),
    ],
)
async def test_the_dry_run_says_what_accept_would(
    desk: Desk, changes: dict[str, Any], rules: dict[str, Any], micros: int, codes: list[str]
) -> None:
    await _business(desk, micros)
    await desk.yes("POST", "/suppressions", {"recipient": "966500000009"}, token=desk.mine.manager)
    await desk.yes("PATCH", f"/applications/{desk.mine.application_id}", {"rules": rules}, token=desk.mine.manager)
    before = await desk.trail()
    answer = await desk.yes("POST", "/rules/dry-run", DRY | changes, token=desk.mine.manager)
    assert ([each["code"] for each in answer["reasons"]], answer["would_pass"]) == (codes, not codes)
    assert await desk.api.count("message") == 0
    assert await desk.trail() == before
    if "address" not in changes:
        fields = {name: value for name, value in (DRY | changes).items() if name != "channel"}
        sent = await desk("POST", "/messages", fields, token=desk.mine.manager)
        assert (sent.status == 201) == (not codes), sent.body


async def test_the_dry_run_shows_the_verdict_of_each_rule(desk: Desk) -> None:
    await _business(desk, 1_000_000)
    promotional = DRY | {"category": "promotional"}
    answer = await desk.yes("POST", "/rules/dry-run", promotional, token=desk.mine.manager)
    verdicts = {each["rule"]: each["outcome"] for each in answer["rules"]}
    assert verdicts["suppression"] == "pass"
    assert {"sender", "hours"} <= verdicts.keys()


# ── The operator ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_operator_makes_an_account_that_can_work(desk: Desk) -> None:
    body = {"name": "New", "country": "TR", "currencies": ["TRY"], "rules": {"international_on": False}}
    made = await desk.yes("POST", "/operator/accounts", body)
    assert [(each["mode"], each["currency"]) for each in made["wallets"]] == [("live", "TRY"), ("test", "TRY")]
    path = f"/operator/accounts/{made['id']}"
    application = await desk.yes("POST", f"{path}/applications", {"name": "app", "services": ["sms"]})
    wish = {"application": application["id"], "scopes": ["*"], "mode": "live"}
    token = (await desk.yes("POST", f"{path}/tokens", wish))["secret"]
    assert (await desk.yes("GET", "/account", token=token))["id"] == made["id"]
    changed = await desk.yes("PATCH", path, {"rules": {"per_minute": 9}, "state": "suspended"})
    assert (changed["state"], changed["rules"]["per_minute"], changed["rules"]["international_on"]) == (
        "suspended",
        9,
        False,
    )
    assert (await desk("GET", "/account", token=token)).status == 403
    page = await desk.yes("GET", "/operator/accounts?limit=2")
    rest = await desk.yes("GET", f"/operator/accounts?limit=2&cursor={page['next']}")
    assert [each["name"] for each in page["data"] + rest["data"]] == ["Mine", "Theirs", "New"]
    assert (await desk("PATCH", "/operator/accounts/acc_9", {"state": "active"}, token=desk.operator)).status == 404


async def test_money_is_entered_listed_and_proved(desk: Desk) -> None:
    account = show("acc", desk.mine.account_id)
    base = {"account": account, "mode": "live", "currency": "SAR"}
    for body, available in (
        ({"amount": "12.5"}, "12.5"),
        ({"amount": "2", "kind": "bonus"}, "14.5"),
        ({"amount": "-0.5", "kind": "adjust", "note": "typing error"}, "14"),
    ):
        assert (await desk.yes("POST", "/operator/topups", base | body))["available"] == available
    for body, field in (
        ({"amount": "much"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "1", "kind": "adjust"}, "note"),
    ):
        answer = await desk("POST", "/operator/topups", base | body, token=desk.operator)
        assert (answer.status, answer.json["field"]) == (400, field)
    wallets = (await desk.yes("GET", "/account", token=desk.mine.manager))["wallets"]
    wallet = next(each for each in wallets if each["mode"] == "live")
    assert wallet["available"] == "14"
    first = await desk.yes("GET", f"/ledger?wallet={wallet['id']}&limit=2", token=desk.mine.manager)
    rest = await desk.yes("GET", f"/ledger?wallet={wallet['id']}&cursor={first['next']}", token=desk.mine.manager)
    assert [(each["kind"], each["amount"]) for each in first["data"] + rest["data"]] == [
        ("adjust", "-0.5"),
        ("bonus", "2"),
        ("topup", "12.5"),
    ]
    assert (await desk("GET", f"/ledger?wallet={wallet['id']}", token=desk.mine.tester)).status == 404
    assert await desk.yes("GET", "/operator/ledger/verify") == {"is_right": True, "faults": []}
    await ask(
        desk.api.url, f"UPDATE wallet SET available_micros = 1 WHERE id = {read('wal', wallet['id'])} RETURNING id"
    )
    proof = await desk.yes("GET", "/operator/ledger/verify")
    assert (proof["is_right"], [each["kind"] for each in proof["faults"]]) == (False, ["available"])
    assert (proof["faults"][0]["wallet"], proof["faults"][0]["expected"]) == (wallet["id"], "14")


async def test_a_connectors_secrets_go_in_and_never_come_out(desk: Desk) -> None:
    settings = {"host": "127.0.0.1", "port": 2775, "system_id": "berid", "password": "sesame"}
    answer = await desk(
        "POST", "/operator/connectors", {"name": "c", "kind": "smpp", "settings": settings}, token=desk.operator
    )
    made = answer.json
    assert (answer.status, made["secrets"], made["settings"]["host"]) == (201, ["password"], "127.0.0.1")
    path = f"/operator/connectors/{made['id']}"
    change = {"state": "paused", "settings": {"port": 2776, "password": "other"}}
    changed = await desk("PATCH", path, change, token=desk.operator)
    assert (changed.json["state"], changed.json["settings"]["port"]) == ("paused", 2776)
    listed = await desk("GET", "/operator/connectors", token=desk.operator)
    for body in (answer.body, changed.body, listed.body):
        assert b"sesame" not in body
        assert b"sealed" not in body
    told = await ask(desk.api.url, "SELECT detail FROM audit")
    assert "sesame" not in str(told)
    bad = await desk("PATCH", path, {"settings": {"port": "no"}, "state": "on"}, token=desk.operator)
    assert (bad.status, (await desk.yes("GET", "/operator/connectors"))["data"][0]["state"]) == (400, "paused")


async def test_routes_change_by_what_is_named_and_explain_themselves(desk: Desk) -> None:
    await _business(desk, 0)
    route = (await desk.yes("GET", "/operator/routes"))["data"][0]
    path = f"/operator/routes/{route['id']}"
    changes = {"rank": 5, "countries": ["SA"], "uncertain": {"0": "fail"}}
    assert await desk.yes("PATCH", path, changes) == route | changes
    asked = {"number": "905551112233", "account": show("acc", desk.mine.account_id)}
    answer = await desk.yes("POST", "/operator/routes/explain", asked)
    assert (answer["route"], answer["routes"][0]["why_not"], answer["price"]) == ("", "does not serve TR", None)
    answer = await desk.yes("POST", "/operator/routes/explain", asked | {"number": "966501234567"})
    assert (answer["route"], answer["connectors"], answer["price"], answer["pays"]) == (
        "all",
        [{"name": "carrier", "state": "on"}],
        "0.05",
        "SAR",
    )
    assert (await desk.yes("PATCH", path, {"state": "off"}))["state"] == "off"
    assert [each["state"] for each in (await desk.yes("GET", "/operator/routes"))["data"]] == ["off"]
    bad = await desk("PATCH", path, {"connectors": ["con_1"]}, token=desk.operator)
    assert (bad.status, bad.json["field"]) == (400, "connectors")


async def test_a_dry_run_of_prices_tells_the_difference_and_changes_nothing(desk: Desk) -> None:
    made = await desk.yes("POST", "/operator/price-lists", {"name": "std", "currency": "SAR", "charge_on": "delivered"})
    path = f"/operator/price-lists/{made['id']}/import"
    await desk.yes("POST", path, {"csv": "prefix,price\n966,0.05\n971,0.07\n"})
    wanted = {"csv": "prefix,price\n966,0.06\n90,0.01\n"}
    dry = await desk.yes("POST", path, wanted | {"dry_run": True})
    assert [each["prefix"] for each in dry["added"]] == ["90"]
    assert [(each["before"]["price"], each["after"]["price"]) for each in dry["changed"]] == [("0.05", "0.06")]
    assert [each["prefix"] for each in dry["removed"]] == ["971"]
    done = await desk.yes("POST", path, wanted)
    assert done == dry | {"dry_run": False}
    again = await desk.yes("POST", path, wanted)
    assert (again["added"], again["changed"], again["removed"], again["unchanged"]) == ([], [], [], 2)
    assert [each["charge_on"] for each in (await desk.yes("GET", "/operator/price-lists"))["data"]] == ["delivered"]


async def test_jobs_that_were_set_aside_are_revived_or_given_up(desk: Desk) -> None:
    await _business(desk, 1_000_000)
    sent = await desk.yes("POST", "/messages", DRY, token=desk.mine.manager)
    delivery = sent["deliveries"][0]["id"]
    job = str(read("dlv", delivery))
    assert (await desk.yes("GET", "/operator/jobs"))["data"] == []
    await ask(desk.api.url, f"UPDATE job SET buried_ms = 5, why = 'broken' WHERE id = {job} RETURNING id")
    buried = (await desk.yes("GET", "/operator/jobs"))["data"]
    assert [(each["id"], each["why"], each["account"]) for each in buried] == [
        (job, "broken", show("acc", desk.mine.account_id))
    ]
    await desk.yes("POST", "/operator/jobs/revive", {"jobs": [job]})
    assert (await desk("POST", "/operator/jobs/revive", {"jobs": [job]}, token=desk.operator)).status == 400
    waiting = (await desk.yes("GET", "/operator/jobs?state=waiting"))["data"]
    assert [each["id"] for each in waiting] == [job]
    assert await desk.yes("POST", "/operator/jobs/cancel", {"jobs": [job]}) == {"jobs": 1}
    detail = await desk.yes("GET", f"/messages/{sent['id']}", token=desk.mine.manager)
    assert detail["state"] == "cancelled"
    assert (await desk("POST", "/operator/jobs/cancel", {"jobs": ["7"]}, token=desk.operator)).status == 404
    await desk.api.check_ledger()


async def test_an_incident_is_public_until_it_is_closed(desk: Desk) -> None:
    async def public() -> list[tuple[str, str]]:
        async with desk.api.rt.store.read() as tx:
            return await open_incidents(tx)

    made = await desk.yes("POST", "/operator/incidents", {"service": "SMS", "title": "Slow"})
    assert await public() == [("SMS", "Slow")]
    assert [each["id"] for each in (await desk.yes("GET", "/operator/incidents?state=open"))["data"]] == [made["id"]]
    await desk.yes("POST", f"/operator/incidents/{made['id']}/close")
    assert await public() == []
    assert (await desk("POST", f"/operator/incidents/{made['id']}/close", token=desk.operator)).status == 404
    assert (await desk.yes("GET", "/operator/incidents?state=open"))["data"] == []
    assert [each["state"] for each in (await desk.yes("GET", "/operator/incidents"))["data"]] == ["closed"]
    empty = await desk("POST", "/operator/incidents", {"service": " ", "title": "x"}, token=desk.operator)
    assert (empty.status, empty.json["field"]) == (400, "service")


async def test_a_rule_pack_is_set_and_counts(desk: Desk) -> None:
    pack = {
        "country": "SA",
        "valid_from": "2026-01-01",
        "hours": HOURS,
    }
    assert (await desk.yes("PUT", "/operator/rule-packs", pack))["version"] >= 1
    packs = (await desk.yes("GET", "/operator/rule-packs"))["data"]
    own = [each["pack"] for each in packs if each["is_own"]]
    assert [(each["country"], each["hours"]["open"]) for each in own] == [("SA", "10:00:00")]
    wrong = pack | {"country": "XX"}
    answer = await desk("PUT", "/operator/rule-packs", wrong, token=desk.operator)
    assert (answer.status, answer.json["field"]) == (400, "country")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/operator/routes", {"name": "r", "connectors": ["con_1"], "rank": 10**30}),
        ("/operator/price-lists/1/use", {"rank": -(10**30)}),
        ("/operator/jobs/cancel", {"jobs": ["9" * 40]}),
        ("/operator/jobs/cancel", {"jobs": []}),
        ("/operator/senders/1/approve", {"expires_at": 10**30}),
        ("/operator/topups", {"account": "acc_1", "mode": "test", "currency": "SAR", "amount": "1e400"}),
        ("/operator/accounts", {"name": "x", "country": "SA", "rules": {"per_minute": 10**30}}),
        ("/operator/accounts", {"name": "x", "country": "SA", "rules": {"per_minute": 1.5}}),
        ("/operator/accounts", {"name": "x", "country": "SA", "zone": "../x"}),
    ],
)
async def test_what_no_store_could_keep_is_refused(desk: Desk, path: str, body: dict[str, Any]) -> None:
    method = "PUT" if path.endswith("packs") else "POST"
    answer = await desk(method, path, body, token=desk.operator)
    assert answer.status in (400, 404, 422), answer.body
    assert {actor for actor, _ in await desk.trail()} == {"t"}


# ── The trail ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_write_leaves_its_line_under_the_tokens_name(desk: Desk) -> None:
    before = len(await desk.trail())
    mine, account = desk.mine, show("acc", desk.mine.account_id)
    application = show("app", mine.application_id)
    key = {"application": application, "scopes": ["send"], "mode": "live"}
    token = await desk.yes("POST", "/tokens", key, token=mine.manager)
    await desk.yes("POST", f"/tokens/{token['id']}/rotate", {}, token=mine.manager)
    await desk.yes("DELETE", f"/tokens/{token['id']}", token=mine.manager)
    await desk.yes("PATCH", f"/applications/{application}", {"services": ["sms"]}, token=mine.manager)
    await desk.yes("POST", "/suppressions", {"recipient": "966500000001"}, token=mine.manager)
    await desk.yes("DELETE", "/suppressions?recipient=966500000001", token=mine.manager)
    sender = await desk.yes("POST", "/senders", {"name": "Acme"}, token=mine.manager)
    await desk.yes("POST", f"/operator/senders/{sender['id']}/approve")
    money = {"account": account, "mode": "live", "currency": "SAR", "amount": "1"}
    await desk.yes("POST", "/operator/topups", money)
    incident = await desk.yes("POST", "/operator/incidents", {"service": "SMS", "title": "Slow"})
    await desk.yes("POST", f"/operator/incidents/{incident['id']}/close")
    me = f"token:{read('tok', (await desk.yes('GET', '/me', token=mine.manager))['token']['id'])}"
    them = f"token:{read('tok', (await desk.yes('GET', '/me'))['token']['id'])}"
    assert (await desk.trail())[before:] == [
        (me, "token.create"),
        (me, "token.rotate"),
        (me, "token.revoke"),
        (me, "application.services"),
        (me, "suppression.add"),
        (me, "suppression.remove"),
        (me, "sender.request"),
        (them, "sender.move"),
        (them, "wallet.topup"),
        (them, "incident.open"),
        (them, "incident.close"),
    ]
    page = await desk.yes("GET", f"/operator/audit?account={account}&limit=2")
    assert [each["action"] for each in page["data"]] == ["wallet.topup", "sender.move"]
    rest = await desk.yes("GET", f"/operator/audit?account={account}&limit=1&cursor={page['next']}")
    assert [(each["action"], each["actor"]) for each in rest["data"]] == [("sender.request", me)]
    installation = await desk.yes("GET", "/operator/audit")
    assert [each["action"] for each in installation["data"]] == ["incident.close", "incident.open"]
