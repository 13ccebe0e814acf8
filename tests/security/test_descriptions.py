"""Every answer is as the OpenAPI documents describe it, whatever is asked: with a token and without, in order and out of it."""

import asyncio
from contextlib import suppress
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from berid import dialects
from tests.security.house import DOCUMENTS, House
from tests.security.knock import KEYS, LIKELY

pytestmark = pytest.mark.scenario

EXAMPLES = 6
"""Requests to each operation with good data and as many with bad: every run sends the same."""

STRANGERS_EXAMPLES = 2
"""The same without credentials, where hardly anything is looked at."""


def settings(examples: int) -> hypothesis.settings:
    """The same requests at every run. Nothing is made smaller: that costs more time than it tells."""
    return hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
"""What every provider promises. That bad data is refused is not among them: V3 of TurkeySMS answers 200 to everything by
contract, and both providers take numbers for texts and pass over what they do not know."""


def ask_everything(house: House, document: Any, loop: asyncio.AbstractEventLoop, is_known: bool) -> list[str]:
    """Ask every operation many things, in a thread beside the loop that answers; what was not as described."""
    schema = schemathesis.openapi.from_dict(document)
    found: dict[str, str] = {}
    with requests.Session() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            asyncio.run_coroutine_threadsafe(house.settle(), loop).result()
            ask_one(house, operation, GenerationMode.POSITIVE, session, is_known, found)
            # What takes nothing can be given nothing wrong.
            with suppress(hypothesis.errors.Unsatisfiable):
                ask_one(house, operation, GenerationMode.NEGATIVE, session, is_known, found)
    return list(found.values())


def ask_one(
    house: House, operation: Any, mode: GenerationMode, session: Any, is_known: bool, found: dict[str, str]
) -> None:
    """Ask one operation many things, in order or out of it. The first that is not as described is put into `found`."""
    headers = {"Authorization": f"Bearer {house.bearer}"} if is_known else {}

    @settings(EXAMPLES if is_known else STRANGERS_EXAMPLES)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        if is_known:
            with_credentials(case, house, data)
        answer = case.call(base_url=house.url, session=session, headers=headers, timeout=30)
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as group:
            found.setdefault(operation.label, f"{operation.label}: {group.exceptions[0]}\n{answer.text[:300]}")

    ask()


def with_credentials(case: Any, house: House, data: st.DataObject) -> None:
    """Put in what nobody guesses: the keys that stand among the parameters, and often ids and words that lead somewhere."""
    is_likely = data.draw(st.booleans())
    for place in (case.query, case.body):
        if isinstance(place, dict):
            for name in place:
                if name in KEYS:
                    place[name] = getattr(house, KEYS[name])
                elif is_likely and (name in house.ids or LIKELY.get(name)):
                    place[name] = house.ids.get(name) or LIKELY[name]
    if is_likely and case.path_parameters:
        for name in case.path_parameters:
            case.path_parameters[name] = house.id_in(case.operation.path)


@pytest.mark.parametrize("is_known", [True, False], ids=["with credentials", "without"])
@pytest.mark.parametrize("dialect", DOCUMENTS)
async def test_every_answer_is_as_described(house: House, dialect: str, is_known: bool) -> None:
    loop = asyncio.get_running_loop()
    found = await asyncio.to_thread(ask_everything, house, house.documents[dialect], loop, is_known)
    assert not found, "\n\n".join(found)


def test_every_dialect_with_doors_has_a_document() -> None:
    assert set(DOCUMENTS) == set(dialects.discover().dialects)
