"""An OpenAI-compatible endpoint that answers as a test scripts it, over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Said:
    """What is answered to one request; `status` other than 200: an error with `text`."""

    text: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    is_cut: bool = False
    """The stream ends before the answer does."""
    error: str = ""
    """An error event in mid-stream."""


@dataclass
class Script:
    """`answer` is asked for chats and completions; tokens are characters, and each has the log-probability that `logprob` gives it."""

    answer: Callable[[Body], Said]
    versions: dict[str, str] = field(
        default_factory=lambda: {"demo": "demo@0123456789ab", "tuned": "tuned@ba9876543210"}
    )
    parents: dict[str, str] = field(default_factory=lambda: {"tuned": "demo"})
    tells_version: bool = True
    streams: bool = True
    scores: bool = True
    whole: Body | None = None
    """In place of every answer."""
    logprob: Callable[[str, str], float] = lambda model, token: -1.0
    seen: list[tuple[str, Body]] = field(default_factory=list)

    def asked(self, path: str = "/v1/chat/completions") -> list[Body]:
        """Bodies that came, without the probe for the version."""
        return [body for where, body in self.seen if where == path and body.get("max_tokens") != 1]


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """Its address, while the block runs."""
    server = _Server(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self._lock = threading.Lock()

    def note(self, path: str, body: Body) -> None:
        with self._lock:
            self.script.seen.append((path, body))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else each answer waits for an acknowledgement
    server: _Server

    @property
    def script(self) -> Script:
        return self.server.script

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.removeprefix("/v1/models/")
        if name not in self.script.versions:
            self._json(404, {"error": {"message": f"the model {name!r} does not exist"}})
            return
        root = self.script.versions[name] if self.script.tells_version else ""
        self._json(200, {"id": name, "root": root, "parent": self.script.parents.get(name)})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.note(self.path, body)
        if self.path == "/tokenize":
            self._json(200, {"tokens": _tokens(body)})
        elif not body.get("echo"):
            self._say(body, self.script.answer(body) if body.get("max_tokens") != 1 else Said("x"))
        elif self.script.scores:
            self._json(200, {"choices": _scores(body, self.script.logprob)})
        else:
            self._json(400, {"error": {"message": "echo is not supported"}})

    def _say(self, body: Body, said: Said) -> None:
        is_chat = self.path.endswith("/chat/completions")
        if self.script.whole is not None:
            self._json(200, self.script.whole)
        elif said.status != 200:
            self._json(said.status, {"error": {"message": said.text}}, said.headers)
        elif self.script.streams:
            self._reply(200, _stream(said, is_chat), "text/event-stream", said.headers, str(body["model"]))
        else:
            self._json(200, _whole(said, is_chat), said.headers)

    def _json(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        self._reply(status, json.dumps(content).encode(), "application/json", headers or {}, "")

    def _reply(self, status: int, content: bytes, kind: str, headers: Mapping[str, str], model: str) -> None:
        told = {"content-type": kind, "content-length": str(len(content)), **headers}
        if model and self.script.tells_version:
            told = {"x-forgegate-model": self.script.versions.get(model, model), **told}
        self.send_response(status)
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _tokens(body: Body) -> list[int]:
    """Of a prompt, with a beginning where one is asked for, or of messages."""
    if "prompt" not in body:
        return [*map(ord, "".join(str(one["content"]) for one in body["messages"]) + "\n")]
    return [*([1] if body.get("add_special_tokens", True) else []), *map(ord, body["prompt"])]


def _scores(body: Body, logprob: Callable[[str, str], float]) -> list[Body]:
    """A choice for each prompt; its first token has no log-probability."""
    return [
        {"index": place, "logprobs": {"token_logprobs": [None, *(logprob(body["model"], chr(t)) for t in ids[1:])]}}
        for place, ids in enumerate(body["prompt"])
    ]


def _whole(said: Said, is_chat: bool) -> Body:
    calls = _calls(said)
    message: Body = {"content": said.text, **({"tool_calls": calls} if calls else {})}
    choice = {"message": message} if is_chat else {"text": said.text}
    return {"choices": [{**choice, "finish_reason": said.finish}], "usage": _usage(said)}


def _stream(said: Said, is_chat: bool) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in _events(said, is_chat)]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def _events(said: Said, is_chat: bool) -> list[Any]:
    """The text in two halves, then calls, then the end: of a stream that is cut, or fails, the first one alone."""
    half = len(said.text) // 2
    parts = [said.text[:half], said.text[half:]] if said.text else []
    deltas: list[Body] = [{"delta": {"content": part}} if is_chat else {"text": part} for part in parts]
    deltas += [{"delta": {"tool_calls": [call]}} for call in _calls(said)]
    events: list[Any] = [{"choices": [{"index": 0, **delta, "finish_reason": None}]} for delta in deltas]
    if said.error:
        return [*events[:1], {"error": {"message": said.error}}]
    if said.is_cut:
        return events[:1]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": said.finish}]}
    return [*events, end, {"choices": [], "usage": _usage(said)}]


def _calls(said: Said) -> list[Body]:
    return [{"index": at, "function": {"name": name, "arguments": args}} for at, (name, args) in enumerate(said.calls)]


def _usage(said: Said) -> Body:
    return {"prompt_tokens": 7, "completion_tokens": max(1, len(said.text))}


def question(body: Body) -> str:
    """The last thing that the user says."""
    return str(body["messages"][-1]["content"])
