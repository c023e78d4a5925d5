"""An OpenAI-compatible endpoint of two models in this process, which answer what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

LIVE, CANDIDATE = "demo", "support@3f2a91c04b7d"
ROOTS = {LIVE: "demo@0123456789ab", CANDIDATE: CANDIDATE}
Answers = Mapping[str, Callable[[str], str]]
"""By model: what it says to the last message."""


class FakeEndpoint:
    """A context manager. `refusals`: status by prompt; `roots`: the version behind each name."""

    def __init__(self, answers: Answers, roots: Mapping[str, str] = ROOTS) -> None:
        self.answers = dict(answers)
        self.roots = dict(roots)
        self.refusals: dict[str, int] = {}
        self.asked: list[tuple[str, str]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler(endpoint: FakeEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            name = unquote(self.path.removeprefix("/v1/models/"))
            if name in endpoint.roots:
                self._send(200, {"id": name, "root": endpoint.roots[name]})
            else:
                self._send(404, {"error": {"message": f"there is no model {name}"}})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            model, said = body["model"], body["messages"][-1]["content"]
            endpoint.asked.append((model, said))
            if status := endpoint.refusals.get(said):
                self._send(status, {"error": {"message": f"refused: {said}"}})
                return
            message = {"role": "assistant", "content": endpoint.answers[model](said)}
            self._send(200, {"model": model, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def _send(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
