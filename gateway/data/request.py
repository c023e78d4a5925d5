"""A request of the public port: its head, which repeats from one request of a client to the next, and the rest."""

from __future__ import annotations

import re
from typing import Protocol

from backends.dialects import Dialect, dialect_of
from gateway.data.auth import agreed, key_digest, token_digest
from gateway.data.framing import Write
from gateway.data.snapshot import ENDPOINTS
from gateway.errors import GatewayError

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z").match

_WITHHELD = frozenset(
    (
        # hop-by-hop, or rewritten for the next hop
        b"host", b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect",
        b"content-length", b"proxy-connection", b"x-request-id", b"accept-encoding",
        # credentials for the gateway: an engine gets its own
        b"authorization", b"proxy-authorization", b"cookie", b"x-api-key", b"api-key",
    )
)  # fmt: skip
"""`accept-encoding` is withheld because an error event cannot follow compressed bytes."""


class RequestHead:
    """Filled by the parser's callbacks; read-only, and shared by like requests, once it is sealed."""

    __slots__ = (
        "_hop_names", "content_length", "dialect", "engine_lines", "expects_continue", "forwarded", "has_odd_encoding",
        "http_version", "is_hot", "is_keep_alive", "method", "path", "request_id", "target", "token_digest", "withheld",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        """As it came, query included."""
        self.path = ""
        """The target without its query, undecoded."""
        self.dialect = Dialect.OPENAI
        self.is_hot = False
        """Relayed at protocol level."""
        self.http_version = "1.1"
        self.forwarded: list[bytes] = []
        """Header lines that go on to an engine, names in lower case."""
        self.withheld: list[bytes] = []
        """Those that do not."""
        self.engine_lines = b""
        """What is sent to an engine, from the query's end to the headers that each request adds."""
        self.token_digest = b""
        """See `gateway.data.auth`."""
        self.content_length = 0
        """As announced; 0 where the body is chunked."""
        self.expects_continue = False
        self.has_odd_encoding = False
        """A transfer-encoding other than plain `chunked`, which the parser lets through."""
        self.request_id = ""
        """The client's own `x-request-id`, when it is sane."""
        self.is_keep_alive = True
        self._hop_names: list[bytes] = []

    def add_header(self, name: bytes, value: bytes) -> None:
        """Sort one header into `forwarded` or `withheld`, and note what the gateway itself heeds."""
        name = name.lower()
        if name not in _WITHHELD:
            self.forwarded.append(b"%b: %b\r\n" % (name, value))
            return
        self.withheld.append(b"%b: %b\r\n" % (name, value))
        if name == b"authorization":
            self.token_digest = agreed(self.token_digest, token_digest(value))
        elif name == b"x-api-key":
            self.token_digest = agreed(self.token_digest, key_digest(value))
        elif name == b"x-request-id":
            if _SANE_ID(value):
                self.request_id = value.decode()
        elif name == b"content-length":
            self.content_length = int(value)  # the parser has checked that it is one number
        elif name == b"expect":
            self.expects_continue = value.lower() == b"100-continue"
        elif name == b"transfer-encoding":
            self.has_odd_encoding = value.lower() != b"chunked"
        elif name == b"connection":
            self._hop_names += [token.strip().lower() + b":" for token in value.split(b",")]

    def seal(self) -> bool:
        """Derive the rest, once all headers are in. Returns False for a target that is no path of ours."""
        if not self.target.startswith(b"/"):  # an absolute target loses its host
            _, scheme, rest = self.target.partition(b"://")
            host, slash, path = rest.partition(b"/")
            if not (scheme and host):
                return False
            self.target = slash + path if slash else b"/"
        self.path = self.target.partition(b"?")[0].decode("latin-1")
        self.dialect = dialect_of(self.path)
        self.is_hot = self.method == b"POST" and self.path in ENDPOINTS
        hop_names = tuple(self._hop_names)
        self.engine_lines = b"".join(line for line in self.forwarded if not line.startswith(hop_names))
        return True


class Request:
    """One request, whole."""

    __slots__ = ("body", "head", "id", "started_s")

    def __init__(self, head: RequestHead, request_id: str, body: bytes, started_s: float) -> None:
        self.head = head
        self.id = request_id
        self.body = body
        self.started_s = started_s
        """When it was complete, on the relay's clock."""


class Client(Protocol):
    """The connection that the request came on."""

    write: Write
    address: str

    def exchange_done(self, can_continue: bool, /) -> None:
        """The answer is complete; the connection takes its next request, or is closed once flushed."""
        ...

    def cut(self, must_reset: bool, /) -> None:
        """End the connection such that the client cannot take what it has for a whole answer."""
        ...


class Refusal:
    """What is answered in place of a request that did not become whole."""

    __slots__ = ("dialect", "error", "method", "path")

    def __init__(self, error: GatewayError, head: RequestHead | None) -> None:
        self.error = error
        self.method = head.method.decode("latin-1") if head is not None else ""
        # A head that was refused early is not sealed: its target may still tell the dialect.
        self.path = head.target.partition(b"?")[0].decode("latin-1") if head is not None else ""
        self.dialect = dialect_of(self.path)
