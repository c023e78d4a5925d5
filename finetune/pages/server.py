"""A page for one person on this machine: standard library, 127.0.0.1 only, ended by Ctrl-C or by the page.

Who may ask: requests under a path that only the printed address has, with the Host of this server (a foreign name that resolves to
127.0.0.1 is refused), and changes with its Origin and as JSON (which a form of another site cannot send).
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from finetune.dataset.errors import DataUnusable
from finetune.pages.assets import TYPES, text_of

HOST = "127.0.0.1"
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of a row that was edited; the doctor reads none that is larger."""
SILENCE_S = 30.0
_POLL_S = 0.1
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
Json = dict[str, Any]


class Refused(Exception):
    """What the page asked for is not done; the message is shown on it.

    A person's mistake has status 200: any other one stands as an error in the browser's console.
    """

    def __init__(self, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.status = status


class App(Protocol):
    """What is shown. Methods are called one at a time, and raise Refused."""

    files: tuple[str, ...]
    """Of the assets: the first is the page itself."""

    def view(self, query: Mapping[str, str]) -> Json:
        """What the page is to show."""

    def act(self, name: str, body: Json) -> Json:
        """Do it; answers what is to be shown next."""

    @property
    def is_finished(self) -> bool:
        """Whether the server is to end once this is answered."""


class PageServer:
    """Listens from the start; `url` is what the person opens. Raises DataUnusable where the port is taken."""

    def __init__(self, app: App, port: int = 0, token: str = "") -> None:
        self.token = token or secrets.token_urlsafe(24)
        try:
            self._http = _Listener((HOST, port), _handler(app, self))
        except OSError as exc:
            raise DataUnusable(
                f"port {port} cannot be taken ({exc.strerror}): leave --port out for a free one"
            ) from exc
        self.port = int(self._http.server_address[1])
        self.names = (f"{HOST}:{self.port}", f"localhost:{self.port}")

    @property
    def url(self) -> str:
        return f"http://{self.names[0]}/{self.token}/"

    def run(self) -> None:
        """Until the app has finished. KeyboardInterrupt passes through."""
        try:
            self._http.serve_forever(_POLL_S)
        finally:
            self._http.server_close()

    def stop(self) -> None:
        """From another thread than that of `run`."""
        self._http.shutdown()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that left is no error; what else goes wrong is answered where it happens."""
        if not isinstance(problem := sys.exc_info()[1], OSError):
            print(f"error: {type(problem).__name__}: {problem}", file=sys.stderr)


def _handler(app: App, server: PageServer) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"app": app, "page": server, "lock": threading.Lock()})


class _Handler(BaseHTTPRequestHandler):
    """One request of the page. `_handler` says whose."""

    app: App
    page: PageServer
    lock: threading.Lock
    """One request at a time is let to the app."""
    timeout = SILENCE_S
    server_version, sys_version = "forgegate", ""

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def log_message(self, *_: Any) -> None:
        pass

    def _answered(self, work: Callable[[str], tuple[str, bytes]]) -> None:
        try:
            kind, content = work(self._path())
            status = 200
        except Refused as exc:
            kind, content, status = ".json", _json({"error": str(exc)}), exc.status
        except OSError as exc:
            words = f"{exc.filename or 'a file'} cannot be written: {exc.strerror or exc}"
            kind, content, status = ".json", _json({"error": words}), 500
        except Exception as exc:  # noqa: BLE001 - the page is told, and its server goes on
            words = f"{type(exc).__name__}: {exc}"
            print(f"error: {self.path.rpartition('/')[2]}: {words}", file=sys.stderr)
            kind, content, status = ".json", _json({"error": words}), 500
        self._send(status, kind, content)
        if self.app.is_finished:
            self.page.stop()

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        headers = {"content-type": TYPES.get(kind, "application/json"), "content-length": str(len(content))}
        for name, value in {**headers, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _path(self) -> str:
        """What follows the token. Raises Refused."""
        if self.headers.get("host", "").lower() not in self.page.names:
            raise Refused(f"this page is at {self.page.names[0]}, and nowhere else", 421)
        is_ours = self.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        if not is_ours and (self.command != "GET" or self.headers.get("sec-fetch-mode") != "navigate"):
            raise Refused(
                "another site asks", 403
            )  # a link to the page, as in a terminal of a browser, may be followed
        _, _, rest = self.path.partition("/")
        token, slash, name = rest.partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.page.token.encode()):
            raise Refused("there is no such page: open the address that was printed", 404)
        return name

    def _get(self, name: str) -> tuple[str, bytes]:
        asked = urlsplit(name)
        if asked.path == "view":
            with self.lock:
                return ".json", _json(self.app.view(dict(parse_qsl(asked.query))))
        file = asked.path or self.app.files[0]
        if file not in self.app.files:
            raise Refused("there is no such page", 404)
        return file[file.rindex(".") :], text_of(file).encode()

    def _post(self, name: str) -> tuple[str, bytes]:
        if self.headers.get("origin", "").lower() not in {f"http://{each}" for each in self.page.names}:
            raise Refused("another site asks", 403)
        if self.headers.get_content_type() != "application/json":
            raise Refused("it is no JSON", 415)
        body = self._body()
        with self.lock:
            return ".json", _json(self.app.act(name, body))

    def _body(self) -> Json:
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused("its length is not said", 411)
        if int(length) > MAX_BODY_BYTES:
            raise Refused(f"it is longer than {MAX_BODY_BYTES} bytes", 413)
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as exc:
            raise Refused("it is no JSON", 400) from exc
        if not isinstance(body, dict):
            raise Refused("it is no JSON object", 400)
        return body


def _json(value: Json) -> bytes:
    """Half surrogate pairs are escaped, as JSON can and UTF-8 cannot."""
    return json.dumps(value).encode()
