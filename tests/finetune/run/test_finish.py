"""What follows training: what would keep a gateway from taking the adapter is said before it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from finetune import train
from finetune.run.finish import Target, warn_of_gateway
from gateway import config
from tests.finetune.run.rig import Remembering


class _Gateway(BaseHTTPRequestHandler):
    """Two models, one token."""

    def do_GET(self) -> None:
        is_known = self.headers["authorization"] == "Bearer right"
        content = (
            {"data": [{"name": "demo"}, {"name": "other"}]} if is_known else {"error": {"message": "no such token"}}
        )
        self.send_response(200 if is_known else 401)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("FORGEGATE_URL", "http://127.0.0.1:9")
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "token", "model", "said"),
    [
        ("support", "right", "", ""),
        ("support", "right", "other", ""),
        ("support", "wrong", "", "no such token"),
        ("support", "right", "othr", "no model 'othr', it has demo, other"),
        ("demo", "right", "", "'demo' is the name of a model"),
    ],
)
def test_what_is_wrong_with_a_publication_is_foretold(url: str, name: str, token: str, model: str, said: str) -> None:
    view = Remembering()
    warn_of_gateway(Target(name, url, token, model), view)
    assert bool(view.said) == bool(said)
    assert said in "".join(view.said)


def test_an_address_where_nobody_answers_is_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGEGATE_URL", "http://127.0.0.1:9")
    view = Remembering()
    warn_of_gateway(Target("support", "http://127.0.0.1:9", "t"), view)
    assert "cannot be reached" in view.said[0]


def test_names_are_those_that_a_gateway_takes() -> None:
    assert train.ALIAS.pattern == config.NAME.pattern
