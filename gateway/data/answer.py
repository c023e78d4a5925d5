"""What a client gets of an engine's answer: the head in the client's framing, and the relay for the body."""

from __future__ import annotations

from backends.dialects import Dialect
from gateway.data.framing import BodyRelay, ChunkedBody, LengthBody, ResponseHead, UntilCloseBody, Write
from gateway.data.request import Request
from gateway.errors import BadAnswer

BODILESS = (204, 304)
MAX_HELD_BYTES = 256 * 1024
_MESSAGES = Dialect.MESSAGES


def make_body(
    head: ResponseHead, length: int, write: Write, is_client_chunked: bool, dialect: Dialect | None
) -> BodyRelay:
    """Return the relay for the body of an answer; `length` is -1 where none was announced. No `dialect`: events are just bytes."""
    if head.status in BODILESS:
        return LengthBody(write, 0)
    if length >= 0:
        return LengthBody(write, length)
    kind = ChunkedBody if head.is_chunked else UntilCloseBody
    if dialect is None:
        return kind(write, False, is_client_chunked)
    return kind(write, head.is_event_stream, is_client_chunked, dialect)


def head_bytes(
    head: ResponseHead, length: int, request: Request, engine_lines: bytes, queue_s: float, is_keep_alive: bool
) -> bytes:
    """Return the head for the client. `engine_lines` end where the milliseconds of `queue_s` belong."""
    is_http_1_1 = request.head.http_version == "1.1"
    framing = b""
    if length >= 0 and head.status not in BODILESS:
        framing = b"content-length: %d\r\n" % length
    elif is_http_1_1 and head.status not in BODILESS:
        framing = b"transfer-encoding: chunked\r\n"
    if not is_keep_alive:
        framing += b"connection: close\r\n"
    elif not is_http_1_1:
        framing += b"connection: keep-alive\r\n"
    request_id = request.id.encode()
    if request.head.dialect is _MESSAGES:
        framing += b"request-id: %b\r\n" % request_id
    return b"%b%b%b%d\r\nx-request-id: %b\r\n\r\n" % (head.lines, framing, engine_lines, queue_s * 1000, request_id)


class HeldAnswer:
    """An answer that is kept until it is whole, because what it says decides whether the client may have it."""

    __slots__ = ("_num_bytes", "_pieces", "body", "head")

    def __init__(self, head: ResponseHead, length: int) -> None:
        self.head = head
        self.body = make_body(head, length, self._keep, False, None)
        self._pieces: list[bytes] = []
        self._num_bytes = 0

    def content(self) -> bytes:
        """Return the body so far, without any framing."""
        return b"".join(self._pieces)

    def _keep(self, data: bytes) -> None:
        self._num_bytes += len(data)
        if self._num_bytes > MAX_HELD_BYTES:
            raise BadAnswer(f"the engine's answer of status {self.head.status} is larger than {MAX_HELD_BYTES} bytes")
        self._pieces.append(data)
