"""The runner of golden pairs: it must read what people write, and fail where bytes differ."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.golden import read_pairs, replay

FILE = """### First
// about this pair
POST /echo?x={{word}}
X-Word: {{word}}

{"a":1,
"b":"{{word}}"}

HTTP/1.1 200
Content-Type: application/json

{"id":{{int:id}},"name":"{{text}}","word":"{{word}}"}

### Second
GET /item/{{id}}

HTTP/1.1 204
"""


class App:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, status: int = 200, body: bytes = b"", content_type: bytes = b"application/json") -> None:
        self.asked: list[tuple[str, str, str, bytes, dict[bytes, bytes]]] = []
        self._answer = (status, body, content_type)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        headers = dict(scope["headers"])
        self.asked.append((scope["method"], scope["path"], scope["query_string"].decode(), message["body"], headers))
        status, body, content_type = self._answer
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]})
        await send({"type": "http.response.body", "body": body})


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.http"
    path.write_text(text, encoding="utf-8")
    return path


async def test_request_is_sent_as_written_and_values_are_kept(tmp_path: Path) -> None:
    first, second = read_pairs(written(tmp_path, FILE))
    assert (first.title, first.where, second.title, second.where) == ("First", "x.http:1", "Second", "x.http:14")
    values = {"word": "w"}
    app = App(200, b'{"id":17,"name":"","word":"w"}')
    await replay(app, first, values)
    method, path, query, body, headers = app.asked[0]
    assert (method, path, query, body) == ("POST", "/echo", "x=w", b'{"a":1,\n"b":"w"}')
    assert headers[b"x-word"] == b"w"
    assert values == {"word": "w", "id": "17"}
    app = App(204)
    await replay(app, second, values)
    assert app.asked[0][:2] == ("GET", "/item/17")


@pytest.mark.parametrize(
    "answer",
    [
        (201, b'{"id":17,"name":"","word":"w"}'),
        (200, b'{"id":"17","name":"","word":"w"}'),
        (200, b'{"id":17, "name":"","word":"w"}'),
        (200, b'{"id":17,"name":"","word":"v"}'),
        (200, b'{"id":17,"name":"a"b","word":"w"}'),
        (200, b'{"id":17,"name":"","word":"w"}\n'),
        (200, b""),
        (200, b'{"id":17,"name":"","word":"w"}', b"text/html"),
    ],
)
async def test_any_difference_fails_and_names_the_pair(tmp_path: Path, answer: Any) -> None:
    pair = read_pairs(written(tmp_path, FILE))[0]
    with pytest.raises(AssertionError, match=r"x\.http:1 First"):
        await replay(App(*answer), pair, {"word": "w"})


async def test_answer_without_a_body_must_have_none(tmp_path: Path) -> None:
    pair = read_pairs(written(tmp_path, FILE))[1]
    with pytest.raises(AssertionError, match="Second"):
        await replay(App(204, b"x"), pair, {"id": "1"})


async def test_header_that_is_missing_fails(tmp_path: Path) -> None:
    pair = read_pairs(written(tmp_path, FILE.replace("Content-Type", "X-Other")))[0]
    with pytest.raises(AssertionError, match="no header x-other"):
        await replay(App(200, b'{"id":17,"name":"","word":"w"}'), pair, {"word": "w"})


async def test_value_that_nobody_gave_is_an_error(tmp_path: Path) -> None:
    pair = read_pairs(written(tmp_path, FILE))[0]
    with pytest.raises(KeyError, match="word"):
        await replay(App(), pair, {})


async def test_multipart_form_has_the_line_ends_of_its_standard(tmp_path: Path) -> None:
    text = "### M\nPOST /\nContent-Type: multipart/form-data; boundary=b\n\n--b\n\nx\n--b--\n\nHTTP/1.1 200\n"
    app = App()
    await replay(app, read_pairs(written(tmp_path, text))[0], {})
    assert app.asked[0][3] == b"--b\r\n\r\nx\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("", "no pair"),
        ("POST /\n\nHTTP/1.1 200\n", "no pair"),
        ("### A\nPOST /\n", "has 0"),
        ("### A\nPOST /\n\nHTTP/1.1 200\n\nHTTP/1.1 200\n", "has 2"),
        ("### A\n\nHTTP/1.1 200\n", "request line"),
        ("### A\nPOST /\nnonsense\n\nHTTP/1.1 200\n", "not a header"),
    ],
)
def test_file_that_is_not_pairs_is_an_error(tmp_path: Path, text: str, trouble: str) -> None:
    with pytest.raises(ValueError, match=trouble):
        read_pairs(written(tmp_path, text))
