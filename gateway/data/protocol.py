"""The public port: HTTP/1.1 connections, parsed by httptools, answered in order.

    bytes --parser--> Request --+-- POST to a relayed path --> Exchange      (hot: relayed at this level)
                                `-- anything else -----------> ColdExchange  (FastAPI on uvicorn)

Requests of one connection, hot or cold, pipelined or not, are handled one after the other; while one is in flight
reading goes on, so that a client that leaves is noticed, until a further request has arrived. A body is read whole
before its request counts: a retry needs it, and so does finding the model.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import Protocol, cast

import httptools

from gateway import errors
from gateway.data.auth import authenticate
from gateway.data.cold import ColdExchange, ColdStage
from gateway.data.exchange import Exchange
from gateway.data.framing import Write
from gateway.data.heads import split_length
from gateway.data.relay import Relay
from gateway.data.request import Refusal, Request, RequestHead
from gateway.errors import GatewayError

MAX_HEAD_BYTES = 64 * 1024
STRANGERS_BODY_BYTES = 64 * 1024
"""Of a body, before the key is looked at; a shorter one is answered 401 on a connection that can go on."""
HEAD_S = 10.0
"""For a request's head, from its first byte."""
BODY_IDLE_S = 30.0
"""Between two pieces of a request's body."""
KEEP_ALIVE_S = 75.0
"""Between two requests; above the 60 s of common load balancers, so that they close first."""
LINGER_S = 2.0
"""How long a refused client may go on sending before the connection is closed: a close with unread bytes would be a
reset, which can destroy the answer on its way."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class InFlight(Protocol):
    """The request that is being answered: an Exchange or a ColdExchange."""

    def start(self) -> None:
        """Begin; may end at once."""
        ...

    def client_gone(self) -> None:
        """The client left."""
        ...

    def pause(self) -> None:
        """The client's transport is above its high-water mark."""
        ...

    def resume(self) -> None:
        """It is below its low-water mark again."""
        ...


class ClientConnection(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = (
        "_body", "_cold", "_current", "_deadline_s", "_head", "_is_deaf", "_is_dispatching", "_is_in_body", "_is_over",
        "_is_reading_paused", "_is_slow", "_known_key", "_num_body_bytes", "_num_head_bytes", "_num_known_left",
        "_parser", "_relay", "_transport", "_waiting", "address", "write",
    )  # fmt: skip

    def __init__(self, relay: Relay, cold: ColdStage) -> None:
        self._relay = relay
        self._cold = cold
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._head: RequestHead | None = None
        """Of the request being received."""
        self._known_key = b""
        """Under which that head is to be remembered."""
        self._num_known_left = 0
        """Body bytes still to come of a request whose head was known, so that the parser has not seen it."""
        self._waiting: deque[Request | Refusal] = deque()
        """Parsed (or refused) and not begun; more than one only when a client pipelines."""
        self._current: InFlight | None = None
        self._body: list[bytes] = []
        self._num_head_bytes = 0
        self._num_body_bytes = 0
        self._deadline_s = 0.0
        self._is_in_body = False
        self._is_deaf = False
        """A request was refused such that the next one cannot be found: further bytes are dropped."""
        self._is_over = False
        """Closed, or closing: nothing more is written."""
        self._is_dispatching = False
        self._is_reading_paused = False
        self._is_slow = False
        self.write: Write
        self.address = ""

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self._deadline_s = self._relay.clock() + KEEP_ALIVE_S
        self._relay.connections.add(self)
        self._relay.counters.add_connections(1)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._num_known_left:
            self._deadline_s = self._relay.clock() + BODY_IDLE_S
            data = self._take_known_body(data)
        elif self._head is None:
            data = self._take_known_head(data)
        if data:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._is_in_body:
            self._deadline_s = self._relay.clock() + BODY_IDLE_S
        else:
            self._num_head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused in on_headers_complete
        except httptools.HttpParserCallbackError as exc:
            self._refuse(self._relay.internal_error(exc))
        except httptools.HttpParserError as exc:
            self._refuse(errors.MalformedHttp(f"malformed HTTP request: {exc}"))
        if self._num_head_bytes > MAX_HEAD_BYTES and self._head is not None and not self._is_in_body:
            self._refuse(errors.HeadTooLarge(f"the request's head is larger than {MAX_HEAD_BYTES} bytes"))

    def _take_known_head(self, data: bytes) -> bytes:
        """Begin a request whose head has been parsed before; returns the bytes that are left for the parser."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return data
        key, length = split_length(data[:end])
        head = self._relay.heads.get(key)
        if head is None or length < 0 or length > self._relay.index.snapshot.max_body_bytes:
            self._known_key = key if length >= 0 else b""
            return data
        self._known_key = b""
        self._head = head
        self._is_in_body = True
        body, size = data[end + 4 :], len(data) - end - 4
        if size == length:
            self._complete(head, body)
            return b""
        self._num_known_left = length
        self._deadline_s = self._relay.clock() + BODY_IDLE_S
        return self._take_known_body(body)

    def _take_known_body(self, data: bytes) -> bytes:
        """Collect body bytes of such a request; returns what belongs to the next one."""
        size, left = len(data), self._num_known_left
        if size < left:
            self._body.append(data)
            self._num_known_left = left - size
            return b""
        self._body.append(data[:left])
        self._num_known_left = 0
        assert self._head is not None
        self._complete(self._head, b"".join(self._body))
        return data[left:]

    def eof_received(self) -> None:
        """A client that closes its sending side has left; it does not wait for the rest."""
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.connections.discard(self)
        self._relay.counters.add_connections(-1)
        self._leave()

    def pause_writing(self) -> None:
        self._is_slow = True
        if self._current is not None:
            self._current.pause()

    def resume_writing(self) -> None:
        self._is_slow = False
        if self._current is not None:
            self._current.resume()

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._is_deaf:
            return
        self._head = RequestHead()
        self._is_in_body = False
        self._deadline_s = self._relay.clock() + HEAD_S

    def on_url(self, url: bytes) -> None:
        if self._head is not None:
            self._head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        head = self._head
        if head is None:
            return
        if not self._is_in_body:
            head.add_header(name, value)
            return
        self._num_head_bytes += len(name) + len(value)  # trailers: of no use to us, and bounded like a head
        if self._num_head_bytes > MAX_HEAD_BYTES:
            self._refuse(errors.HeadTooLarge("the request's trailers are too large"))

    def on_headers_complete(self) -> None:
        head, parser = self._head, self._parser
        if head is None:
            return
        head.method = parser.get_method()
        head.http_version = parser.get_http_version()
        head.is_keep_alive = parser.should_keep_alive()
        refusal = self._check_head(head)
        if refusal is not None:
            self._refuse(refusal)
            return
        self._is_in_body = True
        self._num_head_bytes = 0
        if head.expects_continue and self._current is None and not self._waiting:
            self.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        if self._head is None:
            return
        self._body.append(body)
        self._num_body_bytes += len(body)
        limit = self._relay.index.snapshot.max_body_bytes
        if self._num_body_bytes > limit:
            self._refuse(errors.BodyTooLarge(f"the request's body is larger than {limit} bytes"))
        elif self._num_body_bytes > STRANGERS_BODY_BYTES and (refusal := self._check_stranger(self._head)):
            self._refuse(refusal)

    def on_message_complete(self) -> None:
        head, body = self._head, self._body
        if head is None:
            return
        if self._known_key:
            if head.is_hot and not head.expects_continue and not head.request_id:
                self._relay.heads.add(self._known_key, head)
            self._known_key = b""
        self._complete(head, body[0] if len(body) == 1 else b"".join(body))

    # The exchange's side.

    def exchange_done(self, can_continue: bool) -> None:
        """The answer in flight is complete."""
        self._current = None
        if self._is_over:
            return
        if not can_continue or (self._relay.is_draining and not self._waiting):
            self._close()
            return
        self._deadline_s = 0.0  # idle from now on: the next look at the clock sets it
        if self._waiting:
            self._dispatch()

    def cut(self, must_reset: bool) -> None:
        """Close such that the client cannot mistake what it has for a whole answer."""
        self._is_over = True
        self._deadline_s = self._relay.clock() + LINGER_S
        sock = self._transport.get_extra_info("socket")
        if must_reset and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
        else:
            self._transport.close()

    def check(self, now_s: float) -> None:
        """Close what is idle for too long, refuse what sends too slowly."""
        if self._current is not None:
            return
        is_idle = self._head is None and not self._waiting
        if not self._deadline_s:
            self._deadline_s = now_s + KEEP_ALIVE_S
        if self._is_over:
            if now_s >= self._deadline_s:
                self._transport.abort()
        elif is_idle and (self._relay.is_draining or now_s >= self._deadline_s):
            self._close()
        elif now_s >= self._deadline_s:
            part = "body" if self._is_in_body else "head"
            self._refuse(errors.RequestTimeout(f"the request's {part} came too slowly"))

    # Inner workings.

    def _check_head(self, head: RequestHead) -> GatewayError | None:
        if self._num_head_bytes > MAX_HEAD_BYTES:  # these bytes may include some of the body: measure exactly
            exact = len(head.target) + sum(map(len, head.forwarded)) + sum(map(len, head.withheld))
            if exact > MAX_HEAD_BYTES:
                return errors.HeadTooLarge(f"the request's head is larger than {MAX_HEAD_BYTES} bytes")
        if head.http_version not in ("1.1", "1.0"):
            return errors.MalformedHttp(f"HTTP/{head.http_version} is not spoken here")
        if self._parser.should_upgrade():
            return errors.MalformedHttp("protocol upgrades are not supported")
        if head.has_odd_encoding:
            return errors.MalformedHttp("the only transfer-encoding supported is `chunked`")
        if not head.seal():
            return errors.MalformedHttp("the request's target is no path")
        limit = self._relay.index.snapshot.max_body_bytes
        if head.content_length > limit:
            return errors.BodyTooLarge(f"the request's body has {head.content_length} bytes, the limit is {limit}")
        return None

    def _check_stranger(self, head: RequestHead) -> GatewayError | None:
        """A long body is only taken from who has a key; others could fill the memory."""
        try:
            authenticate(self._relay.index, head.token_digest)
        except GatewayError as error:
            return error
        return None

    def _complete(self, head: RequestHead, body: bytes) -> None:
        """A request is whole: begin it, or let it wait for its turn."""
        relay = self._relay
        request = Request(head, head.request_id or relay.next_id(), body, relay.clock())
        self._reset_parsing()
        if self._current is None and not self._waiting and not self._is_dispatching:
            self._begin(request)
        else:
            self._waiting.append(request)
            self._dispatch()

    def _reset_parsing(self) -> None:
        self._head = None
        self._is_in_body = False
        if self._body:
            self._body = []
        self._num_head_bytes = 0
        self._num_body_bytes = 0
        self._num_known_left = 0

    def _refuse(self, error: GatewayError) -> None:
        """Answer with `error` after whatever is in flight, then close: where the next request starts is unknown."""
        if self._is_deaf:
            return
        self._is_deaf = True
        refusal = Refusal(error, self._head)
        self._reset_parsing()
        self._waiting.append(refusal)
        self._dispatch()

    def _dispatch(self) -> None:
        """Begin what waits, one at a time. A loop, not a recursion: pipelined requests may all end at once."""
        if self._is_dispatching:
            return
        self._is_dispatching = True
        while self._waiting and self._current is None and not self._is_over:
            self._begin(self._waiting.popleft())
        self._is_dispatching = False
        self._balance_reading()

    def _begin(self, request: Request | Refusal) -> None:
        if isinstance(request, Refusal):
            self._answer_refusal(request)
            return
        if request.head.is_hot:
            current: InFlight = Exchange(self._relay, self, request)
        else:
            current = ColdExchange(self._relay, self, request, self._cold, self._transport)
        self._current = current
        if self._is_slow:
            current.pause()
        current.start()

    def _answer_refusal(self, refusal: Refusal) -> None:
        request_id = self._relay.next_id()
        self._relay.account_refusal(refusal, self.address, request_id)
        self.write(errors.render(refusal.error, refusal.dialect, request_id, is_keep_alive=False))
        self._is_over = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._deadline_s = self._relay.clock() + LINGER_S
        else:
            self._transport.close()

    def _balance_reading(self) -> None:
        """Read on unless requests pile up behind the one in flight."""
        must_pause = bool(self._waiting) and not self._is_over
        if must_pause == self._is_reading_paused:
            return
        self._is_reading_paused = must_pause
        if must_pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _leave(self) -> None:
        self._is_over = True
        self._is_deaf = True
        self._waiting.clear()
        if self._current is not None:
            self._current.client_gone()

    def _close(self) -> None:
        self._is_over = True
        self._is_deaf = True
        self._deadline_s = self._relay.clock() + KEEP_ALIVE_S
        self._transport.close()
