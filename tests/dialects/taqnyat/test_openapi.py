"""The description: whole, and true of every golden answer."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec
import pytest

from berid.dialects.taqnyat import openapi
from tests.dialects.asgi import call
from tests.dialects.taqnyat.conftest import World
from tests.support.golden import read_pairs

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.document())
FILES = sorted((Path(__file__).parent / "golden").glob("*.http"))


async def test_it_is_served_to_anyone(world: World) -> None:
    answer = await world.call("GET", openapi.PATH, token="")
    assert (answer.status, answer.body) == (200, openapi.document())
    assert (await call(world.app, "POST", openapi.PATH)).status == 405


def test_every_path_and_method_is_described(world: World) -> None:
    routes = {
        (route.path, method.lower())
        for route in world.rt.dialects["taqnyat"].routes(world.rt)  # type: ignore[attr-defined]
        for method in route.methods
        if method != "HEAD" and route.path != openapi.PATH
    }
    assert routes == {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_golden_answer_is_as_described(path: Path) -> None:
    checked = 0
    for pair in read_pairs(path):
        target = urlsplit(pair.target).path.rstrip("/")
        described = DOCUMENT["paths"].get(target, {}).get(pair.method.lower())
        if described is None:
            assert pair.status in (404, 405), pair.where
            continue
        response = described["responses"][str(pair.status)]
        kind = pair.answer_headers.get("content-type", "application/json").partition(";")[0]
        schema = {**response["content"][kind]["schema"], "components": DOCUMENT["components"]}
        filled = pair.answer_body.replace("{{int}}", "1").replace("{{int:id}}", "1")
        value = filled if kind == "text/plain" or len(filled) < 3 else msgspec.json.decode(filled)
        if not isinstance(value, str):
            jsonschema_rs.validate(schema, value)
        checked += 1
    assert checked
