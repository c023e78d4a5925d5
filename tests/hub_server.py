"""A model hub on two ports of 127.0.0.1: the hub, and the store at "another host" that it redirects to for large files.

It speaks the Hugging Face hub's protocol as far as it takes to read repositories (`test_hub_server.py` has the official client as a
witness), and misbehaves on demand: `faults` are applied to the bodies of files one after the other, `api_faults` to the other answers.
"""

from __future__ import annotations

import hashlib
import json
import re
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = (".gguf", ".safetensors", ".bin")
CHUNK_BYTES = 16384


@dataclass
class Fault:
    """What goes wrong with one answer; offsets count from the file's beginning."""

    status: int = 0
    """Instead of the answer."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of that; an empty one is left out."""
    body: bytes = b""
    """Of that."""
    reset_at: int | None = None
    """The connection is reset when this byte should be sent."""
    end_at: int | None = None
    """The same, by an orderly end that comes too soon."""
    flip_at: int | None = None
    """This byte is another one."""
    ignores_range: bool = False
    etag: str = ""
    """Instead of the right one."""


@dataclass
class Pause:
    """After so many more bytes of files, nothing comes until `resumes` is set, or the client is gone."""

    left_bytes: int
    has_begun: threading.Event = field(default_factory=threading.Event)
    resumes: threading.Event = field(default_factory=threading.Event)


@dataclass
class Seen:
    """A request."""

    where: str
    """`hub` or `store`."""
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Repo:
    name: str
    is_gated: bool = False
    is_private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return next(
            (known for known in self.commits if known == commit or (len(commit) >= 7 and known.startswith(commit))),
            None,
        )


class HubServer:
    """`with HubServer() as hub: hub.add("org/name", {...})`; `hub.url` is what HF_ENDPOINT should be."""

    def __init__(self, page_size: int = 1000) -> None:
        self.page_size = page_size
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.granted: set[str] = set()
        """Tokens that may read what is gated or private."""
        self.known_tokens: set[str] = set()
        self.faults: deque[Fault] = deque()
        self.api_faults: deque[Fault] = deque()
        self.pause: Pause | None = None
        self.rate_bytes_s: float | None = None
        self.linked_etag = ""
        """Instead of the digest that the redirect should name."""
        self.seen: list[Seen] = []
        self.sent_bytes = 0
        """Of files, by hub and store."""
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self._servers = [_Server(("127.0.0.1", 0), handler, self) for handler in (_HubHandler, _StoreHandler)]
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in self._servers
        ]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def store_url(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def add(self, name: str, files: Mapping[str, bytes], branch: str = "main", **options: Any) -> str:
        """A commit on `branch`, in a repository made at first use; its id."""
        repo = self.repos.setdefault(name, Repo(name, **options))
        seed = json.dumps([name, len(repo.commits), {path: digest_of(path, body) for path, body in files.items()}])
        commit = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
        repo.commits[commit] = dict(files)
        repo.branches[branch] = commit
        self.blobs |= {digest_of(path, body)[1]: body for path, body in files.items() if is_large(path)}
        return commit

    def requests(self, where: str, containing: str = "") -> list[Seen]:
        return [seen for seen in self.seen if seen.where == where and containing in seen.path]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.end_connections()
            server.server_close()
        for thread in self._threads:
            thread.join(5.0)


def is_large(path: str) -> bool:
    return path.endswith(LARGE)


def digest_of(path: str, body: bytes) -> tuple[str, str]:
    """Kind and hex digest, as the hub lists them."""
    if is_large(path):
        return "sha256", hashlib.sha256(body).hexdigest()
    return "sha1", hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], hub: HubServer) -> None:
        super().__init__(address, handler)
        self.hub = hub
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        self._open.add(sock)
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for sock in list(self._open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in the middle are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    where = ""
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def do_GET(self) -> None:
        with self.hub.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.hub.seen.append(Seen(self.where, self.command, self.path, headers))
        self.answer(unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query))

    do_HEAD = do_GET

    def answer(self, path: str, query: dict[str, list[str]]) -> None:
        raise NotImplementedError

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        named = {"x-error-code": code, "x-error-message": message}
        body = json.dumps({"error": message}).encode()
        self.reply(status, body, {name: value for name, value in named.items() if value})

    def take(self, faults: deque[Fault]) -> Fault:
        with self.hub.lock:
            return faults.popleft() if faults else Fault()

    def send_file(self, body: bytes, etag: str, headers: Mapping[str, str], fault: Fault) -> None:
        """With Range and If-Range."""
        etag = fault.etag or etag
        part = None if fault.ignores_range else self._range(body, etag)
        is_part, (start, end) = part is not None, part or (0, len(body))
        if is_part and start >= end:
            self.reply(416, headers={"content-range": f"bytes */{len(body)}"})
            return
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("content-range", f"bytes {start}-{end - 1}/{len(body)}")
        for name, value in {
            "etag": etag,
            "accept-ranges": "bytes",
            "content-length": str(end - start),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send(body, start, end, fault)

    def _range(self, body: bytes, etag: str) -> tuple[int, int] | None:
        """None: the whole."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        condition = self.headers.get("if-range")
        if match is None or (condition is not None and condition != etag):
            return None
        return int(match[1]), min(int(match[2]) + 1, len(body)) if match[2] else len(body)

    def _send(self, body: bytes, start: int, end: int, fault: Fault) -> None:
        stops = [at for at in (fault.reset_at, fault.end_at) if at is not None and start <= at < end]
        stop = min(stops, default=end)
        while start < stop:
            chunk = bytearray(body[start : min(stop, start + self._allowed())])
            if fault.flip_at is not None and start <= fault.flip_at < start + len(chunk):
                chunk[fault.flip_at - start] ^= 0xFF
            self.wfile.write(chunk)
            start += len(chunk)
            self._account(len(chunk))
        if stops:
            self._break_off(fault, stop)

    def _allowed(self) -> int:
        """How many bytes may be sent now. Raises ConnectionError when the client went during a pause."""
        pause = self.hub.pause
        if pause is None or pause.left_bytes > 0:
            return min(CHUNK_BYTES, pause.left_bytes) if pause else CHUNK_BYTES
        pause.has_begun.set()
        while not pause.resumes.wait(0.002):
            if select.select([self.connection], [], [], 0)[0]:  # readable, and nothing is due: it is gone
                raise ConnectionError
        self.hub.pause = None
        return CHUNK_BYTES

    def _account(self, num_bytes: int) -> None:
        with self.hub.lock:
            self.hub.sent_bytes += num_bytes
            if self.hub.pause is not None:
                self.hub.pause.left_bytes -= num_bytes
        if self.hub.rate_bytes_s:
            time.sleep(num_bytes / self.hub.rate_bytes_s)

    def _break_off(self, fault: Fault, stop: int) -> None:
        self.close_connection = True
        if stop == fault.reset_at:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())


class _HubHandler(_Handler):
    where = "hub"

    def answer(self, path: str, query: dict[str, list[str]]) -> None:
        fault = self.take(self.hub.api_faults) if "/resolve" not in path else Fault()
        if fault.status:
            self.reply(fault.status, fault.body, fault.headers)
            return
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                self._routed(match, method, query)
                return
        self.refuse(404, "", "Sorry, we can't find the page you are looking for.")

    def _routed(self, match: re.Match[str], method: Callable[..., None], query: dict[str, list[str]]) -> None:
        name = match["repo"]
        if name in self.hub.renamed:
            self.reply(307, headers={"location": self.path.replace(name, self.hub.renamed[name])})
            return
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        known = self.hub.known_tokens | self.hub.granted
        if token and token not in known:
            self.refuse(401, "", "Invalid credentials in Authorization header")
            return
        repo = self.hub.repos.get(name)
        if repo is None or (repo.is_private and token not in self.hub.granted):
            self.refuse(
                404 if token else 401,
                "RepoNotFound",
                "Repository not found" if token else "Invalid username or password.",
            )
            return
        commit = repo.commit_of(unquote(match.groupdict().get("revision") or "main"))
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {match['revision']}")
            return
        method(self, repo, commit, match.groupdict().get("path") or "", query, token)

    def info(self, repo: Repo, commit: str, path: str, query: dict[str, list[str]], token: str) -> None:
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        content = {
            "_id": "0", "id": repo.name, "modelId": repo.name, "sha": commit, "private": repo.is_private,
            "gated": "auto" if repo.is_gated else False, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
            "siblings": siblings,
        }  # fmt: skip
        self.reply(200, json.dumps(content).encode(), {"content-type": "application/json; charset=utf-8"})

    def tree(self, repo: Repo, commit: str, path: str, query: dict[str, list[str]], token: str) -> None:
        files = repo.commits[commit]
        folders = {name.rpartition("/")[0] for name in files if "/" in name}
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": name} for name in sorted(folders)]
        entries += [_entry(name, body) for name, body in sorted(files.items())]
        start = int(query.get("cursor", ["0"])[0])
        page = entries[start : start + self.hub.page_size]
        headers = {"content-type": "application/json; charset=utf-8"}
        if start + self.hub.page_size < len(entries):
            following = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + self.hub.page_size}"
            headers["link"] = f'<{following}>; rel="next"'
        self.reply(200, json.dumps(page).encode(), headers)

    def resolve(self, repo: Repo, commit: str, path: str, query: dict[str, list[str]], token: str) -> None:
        if repo.is_gated and token not in self.hub.granted:
            message = f"Access to model {repo.name} is restricted" + (
                " and you are not in the authorized list." if token else "."
            )
            self.refuse(403 if token else 401, "GatedRepo", message)
            return
        body = repo.commits[commit].get(path)
        if body is None:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        digest = digest_of(path, body)[1]
        headers = {"x-repo-commit": commit, "accept-ranges": "bytes"}
        if not is_large(path):
            target = f"/api/resolve-cache/models/{repo.name}/{commit}/{quote(path)}?etag=%22{digest}%22"
            self.reply(307, headers={**headers, "location": target, "x-linked-size": str(len(body))})
            return
        linked = {
            "x-linked-size": str(len(body)),
            "x-linked-etag": f'"{self.hub.linked_etag or digest}"',
            "etag": f'"{digest}"',
        }
        target = f"{self.hub.store_url}/store/{digest}?Expires={int(time.time()) + 3600}&Signature=s&Key-Pair-Id=k"
        self.reply(302, b"Found. Redirecting", {**headers, **linked, "location": target})

    def cached(self, repo: Repo, commit: str, path: str, query: dict[str, list[str]], token: str) -> None:
        body = repo.commits[commit][path]
        fault = self.take(self.hub.faults) if self.command == "GET" else Fault()
        if fault.status:
            self.reply(fault.status, fault.body, fault.headers)
            return
        self.send_file(body, f'"{digest_of(path, body)[1]}"', {"x-repo-commit": commit}, fault)


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (rf"/api/models/{_REPO}", _HubHandler.info),
    (rf"/api/models/{_REPO}/revision/(?P<revision>.+)", _HubHandler.info),
    (rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)", _HubHandler.tree),
    (rf"/api/resolve-cache/models/{_REPO}/(?P<revision>[0-9a-f]+)/(?P<path>.+)", _HubHandler.cached),
    (rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _HubHandler.resolve),
)


def _entry(path: str, body: bytes) -> dict[str, Any]:
    kind, digest = digest_of(path, body)
    if kind == "sha1":
        return {"type": "file", "oid": digest, "size": len(body), "path": path}
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n" % (digest.encode(), len(body))
    return {
        "type": "file", "oid": digest_of("pointer", pointer)[1], "size": len(body), "path": path,
        "lfs": {"oid": digest, "size": len(body), "pointerSize": len(pointer)},
    }  # fmt: skip


class _StoreHandler(_Handler):
    where = "store"

    def answer(self, path: str, query: dict[str, list[str]]) -> None:
        body = self.hub.blobs.get(path.removeprefix("/store/"))
        fault = self.take(self.hub.faults) if self.command == "GET" else Fault()
        if fault.status:
            self.reply(fault.status, fault.body, fault.headers)
        elif body is None or "Signature" not in query:
            self.reply(403, b"<Error><Code>AccessDenied</Code></Error>")
        else:
            # As there: 64 hex digits that are not the content's sha256.
            self.send_file(
                body, f'"{hashlib.sha256(body[::-1]).hexdigest()}"', {"content-type": "application/octet-stream"}, fault
            )
