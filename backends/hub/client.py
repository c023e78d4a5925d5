"""The Hugging Face hub's HTTP protocol, as far as it takes to read a repository.

    GET /api/models/ORG/NAME/revision/REVISION          its commit
    GET /api/models/ORG/NAME/tree/COMMIT?recursive=true  its files, in pages (Link: <...>; rel="next")
    GET /ORG/NAME/resolve/COMMIT/PATH                    a file: its bytes, or a redirect: to another path of the hub, or to
                                                         a store at another host by a signed address, which must not see the token

`x-linked-etag` and `x-linked-size` of that last redirect are the file's own digest and size; the `etag` of the store's answer is
something else, and good only for asking the same store for the rest (`If-Range`).
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urljoin

import httpx

from backends.hub.access import Access
from backends.hub.checksum import Checksum
from backends.hub.errors import Corrupt, HubError, Transient, Unreachable
from backends.hub.listing import RemoteFile, RepoInfo, read_info, read_tree
from backends.hub.replies import refusal, retry_after_s
from backends.hub.retry import Backoff

MAX_REDIRECTS = 8
MAX_PAGES = 1000
MAX_FILES = 200_000
MAX_SMALL_BYTES = 64 << 20
"""Of what is held in memory: an answer in JSON, a small file."""
MAX_REQUEST_BYTES = 40_000_000_000
"""Asked for at once: the hub's stores give no more than 50 GB in one answer."""
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
CALLS = Backoff(max_failures=3)
"""For small calls: whether there is a hub at all is soon said."""
_SIZE = re.compile(r"[0-9]{1,19}")
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")
OnRetry = Callable[[str, float], None]
"""Told why a small call is repeated, and after how many seconds."""


class RangeRefused(Transient):
    """The store does not go on from where we are; it may give the whole."""


class _TooLong(ValueError):
    """More bytes came than this can have."""


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of one answer, from `start` up to `end` of the file."""

    start: int
    end: int
    etag: str
    chunks: Iterator[bytes]
    """Raises Transient when the connection breaks."""


class HubClient:
    """Blocking. Small calls are repeated by `backoff`; a file's bytes are the caller's to ask for again."""

    def __init__(
        self, access: Access, on_retry: OnRetry = lambda reason, delay_s: None, backoff: Backoff = CALLS,
        sleep: Callable[[float], None] = time.sleep, max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:  # fmt: skip
        self.access = access
        self._on_retry = on_retry
        self._backoff = backoff
        self.sleep = sleep
        self._max_request_bytes = max_request_bytes
        try:
            self._http = httpx.Client(
                timeout=TIMEOUT, headers={"user-agent": "forgegate", "accept-encoding": "identity"}
            )
        except (ImportError, ValueError, OSError, httpx.InvalidURL) as exc:  # of the environment: proxies, certificates
            raise HubError(
                f"the settings of the network cannot be used (HTTPS_PROXY, SSL_CERT_FILE ...): {exc}"
            ) from exc
        self._origin = _origin(httpx.URL(access.endpoint))

    def info(self, repo: str, revision: str) -> RepoInfo:
        """Raises HubError."""
        path = f"/api/models/{repo}/revision/{quote(revision, safe='')}"
        return read_info(self._json(repo, self.access.endpoint + path, f"revision {revision}")[0], repo)

    def tree(self, repo: str, commit: str) -> tuple[RemoteFile, ...]:
        """All files of all folders. Raises HubError."""
        url = f"{self.access.endpoint}/api/models/{repo}/tree/{commit}?recursive=true"
        files: list[RemoteFile] = []
        for _ in range(MAX_PAGES):
            content, following = self._json(repo, url, "list of files")
            files += read_tree(content)
            if len(files) > MAX_FILES:
                break
            if following is None:
                return tuple(files)
            url = urljoin(url, following)
        raise Unreachable(f"the list of files of {repo} does not end")

    def read(self, repo: str, commit: str, file: RemoteFile) -> bytes:
        """A small file as a whole. Raises HubError; Corrupt when it is another one than listed."""
        if file.size_bytes > MAX_SMALL_BYTES:
            raise HubError(f"{file.path} of {repo} has {file.size_bytes:,} bytes: too many for what it should be")

        def attempt() -> bytes:
            with self.open(repo, commit, file, 0, "") as body:
                try:
                    content = _within(body.chunks, file.size_bytes)
                except _TooLong as exc:
                    raise Corrupt(
                        f"{file.path}: the server sends more than the {file.size_bytes:,} bytes that the hub lists"
                    ) from exc
            if len(content) < file.size_bytes:
                raise Transient(f"{file.path}: {len(content):,} of {file.size_bytes:,} bytes came")
            return content

        content = self._repeat(attempt)
        checksum = Checksum(file.digest, file.size_bytes)
        checksum.update(content)
        if not checksum.is_right:
            raise Corrupt(f"{file.path} came whole, but {checksum.words}")
        return content

    @contextmanager
    def open(self, repo: str, commit: str, file: RemoteFile, offset: int, etag: str) -> Iterator[Body]:
        """The file's bytes from `offset`, if the store still has what `etag` named, else from the beginning.

        Raises Transient; RangeRefused; Corrupt where the hub offers another file than it listed; other HubErrors.
        """
        url = f"{self.access.endpoint}/{repo}/resolve/{commit}/{quote(file.path)}"
        headers = self._range_headers(file, offset, etag)
        with self._follow(url, headers, lambda reply: _check_offer(reply, file)) as reply:
            if reply.status_code == 416 or (reply.status_code == 206 and _is_encoded(reply)):
                raise RangeRefused(f"{file.path}: the server does not go on from byte {offset}")
            if reply.is_error or reply.is_redirect:
                raise self._refusal(reply, repo, file.path)
            start, end = _extent(reply, file, offset)
            yield Body(start, end, reply.headers.get("etag", ""), _chunks(reply))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _range_headers(self, file: RemoteFile, offset: int, etag: str) -> dict[str, str]:
        last = min(file.size_bytes, offset + self._max_request_bytes) - 1
        if offset == 0 and last == file.size_bytes - 1:
            return {}
        # A weak etag does not promise equal bytes: `If-Range` must not have one.
        condition = {"if-range": etag} if etag.startswith('"') and etag.isascii() else {}
        return {"range": f"bytes={offset}-{last}", **condition}

    def _json(self, repo: str, url: str, what: str) -> tuple[Any, str | None]:
        """The content, and the address of the next page."""

        def attempt() -> tuple[Any, str | None]:
            with self._follow(url, {"accept": "application/json"}, lambda _: None) as reply:
                if reply.is_error or reply.is_redirect:
                    raise refusal(reply, self.access, repo, what)
                content = json.loads(_within(_chunks(reply), MAX_SMALL_BYTES))
                return content, reply.links.get("next", {}).get("url")

        try:
            return self._repeat(attempt)
        except (ValueError, RecursionError) as exc:
            raise Unreachable(f"{self.access.endpoint} does not answer as a model hub: HF_ENDPOINT, a proxy?") from exc

    def _repeat(self, attempt: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return attempt()
            except Transient as exc:
                failures += 1
                delay_s = self._backoff.delay_s(failures, exc.retry_after_s, random.random)
                if delay_s is None:
                    raise Unreachable(f"{exc}{f'; gave up after {failures} attempts' if failures > 1 else ''}") from exc
                self._on_retry(str(exc), delay_s)
                self.sleep(delay_s)

    @contextmanager
    def _follow(
        self, url: str, headers: dict[str, str], look: Callable[[httpx.Response], None]
    ) -> Iterator[httpx.Response]:
        """The answer at the end of all redirects, each shown to `look`; the token goes to the hub only."""
        for _ in range(MAX_REDIRECTS):
            request = self._request(url, headers)
            with self._send(request) as reply:
                look(reply)
                if not reply.has_redirect_location:
                    yield reply
                    return
                target = urljoin(url, reply.headers["location"])
            if url.startswith("https:") and not target.startswith("https:"):
                raise HubError(f"{request.url.host} sends us to an address without encryption: {target}")
            url = target
        raise Unreachable(f"{self.access.endpoint} sends us in circles")

    def _request(self, url: str, headers: dict[str, str]) -> httpx.Request:
        try:
            request = self._http.build_request("GET", url, headers=headers)
        except httpx.InvalidURL as exc:
            raise Unreachable(f"{self.access.endpoint} sends us to {url!r}: {exc}") from exc
        if self.access.token and _origin(request.url) == self._origin:
            request.headers["authorization"] = f"Bearer {self.access.token}"
        return request

    @contextmanager
    def _send(self, request: httpx.Request) -> Iterator[httpx.Response]:
        try:
            reply = self._http.send(request, stream=True, follow_redirects=False)
        except httpx.UnsupportedProtocol as exc:
            raise Unreachable(f"{request.url}: {exc}") from exc
        except httpx.TransportError as exc:
            raise _broken(exc, f"{request.url.netloc.decode()} cannot be reached") from exc
        try:
            yield reply
        finally:
            reply.close()

    def _refusal(self, reply: httpx.Response, repo: str, what: str) -> HubError:
        if _origin(reply.url) == self._origin:
            return refusal(reply, self.access, repo, what)
        # A store refuses a signed address that has expired: the next attempt gets a new one from the hub.
        return Transient(f"{reply.url.host} answers {reply.status_code} for {what}", retry_after_s(reply))


def _check_offer(reply: httpx.Response, file: RemoteFile) -> None:
    """Raises Corrupt when the hub's redirect names another content than its list of files did."""
    etag = reply.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
    kind, _, digest = file.digest.partition(":")
    if kind == "sha256" and _SHA256.fullmatch(etag) and etag != digest:
        raise Corrupt(
            f"{file.path}: the hub now offers sha256 {etag}, its list of files says {digest}: pull again later"
        )
    size = reply.headers.get("x-linked-size", "")
    if _SIZE.fullmatch(size) and int(size) != file.size_bytes:
        raise Corrupt(
            f"{file.path}: the hub now offers {int(size):,} bytes, its list of files says {file.size_bytes:,}: pull again later"
        )


def _extent(reply: httpx.Response, file: RemoteFile, offset: int) -> tuple[int, int]:
    """Which bytes of the file the answer holds. Raises Corrupt, RangeRefused."""
    if reply.status_code != 206:
        length = reply.headers.get("content-length", "")
        if _SIZE.fullmatch(length) and not _is_encoded(reply) and int(length) != file.size_bytes:
            raise Corrupt(f"{file.path}: the server has {int(length):,} bytes, the hub lists {file.size_bytes:,}")
        return 0, file.size_bytes
    match = _RANGE.fullmatch(reply.headers.get("content-range", "").strip())
    if match is None or int(match[1]) != offset:
        raise RangeRefused(f"{file.path}: the server sends other bytes than were asked for")
    if match[3] not in ("*", str(file.size_bytes)):
        raise Corrupt(f"{file.path}: the server has {int(match[3]):,} bytes, the hub lists {file.size_bytes:,}")
    end = int(match[2]) + 1
    if end > file.size_bytes:
        raise Corrupt(f"{file.path}: the server has {end:,} bytes or more, the hub lists {file.size_bytes:,}")
    if end <= offset:
        raise RangeRefused(f"{file.path}: the server sends nothing from byte {offset}")
    return offset, end


def _within(chunks: Iterator[bytes], limit_bytes: int) -> bytes:
    """All of them. Raises _TooLong when they are more; Transient."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > limit_bytes:
            raise _TooLong
    return bytes(content)


def _chunks(reply: httpx.Response) -> Iterator[bytes]:
    try:
        yield from reply.iter_bytes()
    except httpx.TransportError as exc:
        raise _broken(exc, "the connection broke") from exc
    except httpx.DecodingError as exc:
        raise Transient(f"what came cannot be unpacked: {exc}") from exc


def _broken(exc: httpx.TransportError, what: str) -> HubError:
    reason = str(exc) or type(exc).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return Unreachable(f"{what}: its certificate is not trusted ({reason}); SSL_CERT_FILE names others to trust")
    if isinstance(exc, httpx.TimeoutException):
        reason = "nothing came in time"
    return Transient(f"{what}: {reason}")


def _is_encoded(reply: httpx.Response) -> bool:
    return str(reply.headers.get("content-encoding", "identity")).lower() != "identity"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
