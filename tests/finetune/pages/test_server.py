"""Who may ask the local server, and what it answers; over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping

import pytest

from finetune.dataset.errors import DataUnusable
from finetune.pages.server import MAX_BODY_BYTES, Json, PageServer, Refused
from tests.processes import eventually


class Counter:
    """An app that counts what it is told."""

    files = ("ab.html", "ab.js")

    def __init__(self) -> None:
        self.done: list[Json] = []
        self.is_finished = False

    def view(self, query: Mapping[str, str]) -> Json:
        return {"query": dict(query), "done": len(self.done)}

    def act(self, name: str, body: Json) -> Json:
        if name == "refuse":
            raise Refused("not that")
        if name == "full":
            raise OSError(28, "No space left on device", "/data/votes.jsonl")
        if name == "break":
            raise ValueError("unforeseen")
        self.is_finished = name == "finish"
        self.done.append(body)
        return {"done": len(self.done)}


@pytest.fixture
def app() -> Counter:
    return Counter()


@pytest.fixture
def server(app: Counter) -> Iterator[PageServer]:
    made = PageServer(app)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    if thread.is_alive():
        made.stop()
    thread.join(5)
    assert not thread.is_alive()


def ask(
    server: PageServer, method: str, path: str, body: str | bytes | None = None, **headers: str
) -> tuple[int, str, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, given)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text, reply


def post(server: PageServer, name: str, body: object, **headers: str) -> tuple[int, str]:
    given = {"origin": f"http://127.0.0.1:{server.port}", "content_type": "application/json", **headers}
    given = {key: value for key, value in given.items() if value}
    return ask(server, "POST", f"/{server.token}/{name}", json.dumps(body), **given)[:2]


def test_the_page_its_files_and_its_view_are_under_the_secret_path(server: PageServer) -> None:
    status, text, reply = ask(server, "GET", f"/{server.token}/")
    assert (status, "Which answer" in text) == (200, True)
    assert reply.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert reply.headers["cache-control"] == "no-store"
    assert ask(server, "GET", f"/{server.token}/ab.js")[2].headers["content-type"] == "text/javascript; charset=utf-8"
    assert json.loads(ask(server, "GET", f"/{server.token}/view?row=3")[1]) == {"query": {"row": "3"}, "done": 0}
    assert ask(server, "GET", f"/{server.token}/view", host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/view", "/wrong/view", "/{token}", "/{token}/review.html", "/{token}/../server.py", "/{token}/%2e%2e/x"]
)  # fmt: skip
def test_nothing_else_is_there(server: PageServer, path: str) -> None:
    status, text, _ = ask(server, "GET", path.format(token=server.token))
    assert (status, "there is no such page" in text) == (404, True)
    assert server.token not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "", "[::1]:80"])
def test_a_name_that_was_made_to_resolve_to_us_is_refused(server: PageServer, host: str) -> None:
    assert ask(server, "GET", f"/{server.token}/view", host=host)[0] == 421
    assert ask(server, "POST", f"/{server.token}/vote", "{}", host=host)[0] == 421


def test_another_site_is_refused(server: PageServer, app: Counter) -> None:
    port = server.port
    for mode in ("cors", "no-cors"):
        assert ask(server, "GET", f"/{server.token}/view", sec_fetch_site="cross-site", sec_fetch_mode=mode)[0] == 403
    assert ask(server, "GET", f"/{server.token}/", sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 200
    assert post(server, "vote", {}, sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 403
    for origin in (
        "",
        "null",
        "http://evil.example",
        f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{port}.evil.example",
    ):
        assert post(server, "vote", {}, origin=origin)[0] == 403
    assert post(server, "vote", {}, content_type="text/plain")[0] == 415
    assert post(server, "vote", {}, content_type="application/x-www-form-urlencoded")[0] == 415
    assert app.done == []
    assert post(server, "vote", {}, origin=f"http://localhost:{port}") == (200, '{"done": 1}')


def test_bodies_that_are_none(server: PageServer, app: Counter) -> None:
    path, headers = (
        f"/{server.token}/vote",
        {"origin": f"http://127.0.0.1:{server.port}", "content_type": "application/json"},
    )
    for body, status in (("{", 400), ("[1]", 400), ("[" * 100_000, 400), (b"\xff\xfe", 400)):
        assert ask(server, "POST", path, body, **headers)[0] == status
    with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
        lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{server.port}", f"origin: {headers['origin']}"]
        lines += ["content-type: application/json", f"content-length: {MAX_BODY_BYTES + 1}", "", ""]
        raw.sendall("\r\n".join(lines).encode())
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]
    assert app.done == []


def test_what_goes_wrong_is_said_to_the_page(server: PageServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert post(server, "refuse", {}) == (200, '{"error": "not that"}')
    status, text = post(server, "full", {})
    assert (status, "/data/votes.jsonl cannot be written: No space left" in text) == (500, True)
    assert "ValueError: unforeseen" in post(server, "break", {})[1]
    assert post(server, "vote", {}) == (200, '{"done": 1}')
    err = capsys.readouterr().err
    assert err == "error: break: ValueError: unforeseen\n"
    assert server.token not in err


def test_it_ends_when_the_app_has_finished_and_that_was_answered(server: PageServer) -> None:
    assert post(server, "finish", {"a": 1}) == (200, '{"done": 1}')
    eventually(lambda: not _is_open(server.port), 5)


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def test_half_surrogate_pairs_reach_the_page(server: PageServer, app: Counter) -> None:
    app.view = lambda _: {"text": "\ud83c half"}  # type: ignore[method-assign]
    assert json.loads(ask(server, "GET", f"/{server.token}/view")[1]) == {"text": "\ud83c half"}


def test_a_port_that_is_taken_is_said(server: PageServer, app: Counter) -> None:
    with pytest.raises(DataUnusable, match=f"port {server.port} cannot be taken"):
        PageServer(app, server.port)
