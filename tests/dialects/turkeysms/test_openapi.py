"""The description of the dialect tells of every path, and of nothing else."""

from typing import Any

import pytest

from tests.dialects.turkeysms.conftest import World
from tests.dialects.turkeysms.test_input import PATHS, V4_PATHS


@pytest.fixture
async def described(world: World) -> Any:
    """The document."""
    answer = await world.call("GET", "/api/v1/openapi/turkeysms.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json


def test_every_path_is_told(described: Any) -> None:
    plain = {path.replace("{id}", "1") for path in described["paths"]}
    assert plain == {f"/api/v3{path}" for path in PATHS} | {f"/turkeysms/v4{path}" for path in V4_PATHS}


def test_methods_are_those_that_are_answered(described: Any) -> None:
    for path, operations in described["paths"].items():
        assert set(operations) == ({"post", "get"} if path.startswith("/api/v3") else {"post"})


def test_names_of_operations_are_used_once(described: Any) -> None:
    names = [each["operationId"] for operations in described["paths"].values() for each in operations.values()]
    assert len(set(names)) == len(names)


async def test_answers_are_of_the_statuses_that_are_told(world: World, described: Any) -> None:
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            answer = await world.call(method.upper(), path.replace("{id}", "1"))
            assert str(answer.status) in operation["responses"], path
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in operation["responses"][str(answer.status)]["content"]
