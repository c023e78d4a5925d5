"""An engine's answer on its way to the client: where it ends, and where it may be cut.

    engine bytes --> parse_head --> ResponseHead --> one of LengthBody | ChunkedBody | UntilCloseBody --> client bytes

A body relay writes to the client as it is fed. Its invariant for event streams: what the client holds always ends at a
chunk boundary and at an event boundary, so that an error event can follow at any moment. In the usual case (a read that
is whole chunks and ends with an event) the engine's bytes are written verbatim; else the incomplete tail is held back
until its end arrives, which costs a client nothing, since it cannot use half an event.

An error event of the engine's is not written: it ends the answer, and who owns the answer decides what the client is told.
Engines say more after it (vLLM: `data: [DONE]`, as after a success), which would be a second end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from backends.dialects import Dialect, has_last_event
from gateway.errors import BadAnswer, StreamFailed, status_line

MAX_HEAD_BYTES = 64 * 1024
MAX_HELD_BYTES = 1024 * 1024
"""An event larger than this is passed on in pieces; an engine that dies in one leaves the client a torn body."""

Write = Callable[[bytes], object]

_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
     b"upgrade", b"content-length")
)  # fmt: skip
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?\Z")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_BARE_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}\r\Z").match
_KNOWN_SIZES: dict[bytes, int] = {}
"""Size lines seen before, up to their line feed, as numbers: looking one up takes a third of the time of parsing it."""
_MAX_KNOWN_SIZES = 4096
_OPENAI = Dialect.OPENAI
_ERROR_AT, _NAMED_ERROR_AT = 9, 8
_ERROR_MARKS = {_ERROR_AT: b'data: {"error"', _NAMED_ERROR_AT: b"event: error"}
"""How an API's error events begin."""
_E = ord("e")
_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n").match


class ResponseHead:
    """Status and headers of an engine's answer; read-only once parsed, since like answers share it."""

    __slots__ = ("can_reuse", "content_length", "is_chunked", "is_event_stream", "lines", "status")

    def __init__(self, status: int) -> None:
        self.status = status
        self.lines = b""
        """The status line and the end-to-end headers, for the client."""
        self.content_length = -1
        """-1 where none is announced."""
        self.is_chunked = False
        self.is_event_stream = False
        self.can_reuse = True
        """Whether the connection may serve another request once this answer is complete."""

    def content_type(self) -> str:
        """Return the type of the body as it was announced; empty where it was not."""
        for line in self.lines.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-type":
                return value.strip().decode("latin-1")
        return ""


def parse_head(data: bytes) -> ResponseHead:
    """Parse the head in `data` (without the empty line). Raises BadAnswer on what is not strict HTTP/1.x."""
    first_line, *lines = data.split(b"\r\n")
    matched = _STATUS_LINE.match(first_line)
    if matched is None:
        raise BadAnswer("the engine's answer has no HTTP/1.1 status line")
    head = ResponseHead(int(matched[2]))
    head.can_reuse = matched[1] == b"1"
    kept = [status_line(head.status).rstrip()]
    is_encoded = False
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or _NAME.match(name) is None or b"\r" in value or b"\n" in value or b"\0" in value:
            raise BadAnswer("the engine's answer has a malformed header line")
        if name in _HOP_BY_HOP:
            _note_framing(head, name, value.strip())
        elif name.startswith(b"x-forgegate-") or name in (b"x-request-id", b"request-id"):
            continue  # ours to set
        else:
            kept.append(line)
            if name == b"content-type":
                head.is_event_stream = value.strip().lower().startswith(b"text/event-stream")
            is_encoded |= name == b"content-encoding"
    if head.is_chunked and head.content_length >= 0:
        raise BadAnswer("the engine's answer has both a length and a transfer encoding")
    if is_encoded:
        head.is_event_stream = False  # compressed events have no boundaries that we could see
    head.lines = b"\r\n".join(kept) + b"\r\n"
    return head


def _note_framing(head: ResponseHead, name: bytes, value: bytes) -> None:
    if name == b"content-length":
        if not value.isdigit() or len(value) > 15 or head.content_length not in (-1, int(value)):
            raise BadAnswer("the engine's answer has a malformed content-length")
        head.content_length = int(value)
    elif name == b"transfer-encoding":
        if value.lower() != b"chunked" or head.is_chunked:
            raise BadAnswer("the engine's answer has an unsupported transfer-encoding")
        head.is_chunked = True
    elif name == b"connection" and b"close" in value.lower():
        head.can_reuse = False


class ChunkDecoder:
    """Incremental decoder of chunked bodies. Trailers are dropped: they are hop-by-hop unless announced."""

    __slots__ = ("_is_in_trailers", "_left", "_needs_line_end", "_pending", "has_extra", "is_done")

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0
        self._needs_line_end = False
        self._is_in_trailers = False
        self.is_done = False
        self.has_extra = False
        """Bytes followed the end of the body: the connection is out of step."""

    @property
    def is_at_boundary(self) -> bool:
        """Whether the next byte would be the first of a chunk's size line."""
        return not (self._pending or self._left or self._needs_line_end or self._is_in_trailers)

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes in `data`. Raises BadAnswer on broken framing."""
        if self._pending:
            data = self._pending + data
        pieces: list[bytes] = []
        pos, size = 0, len(data)
        while pos < size and not self.is_done:
            if self._left:
                pieces.append(data[pos : pos + self._left])
                pos += len(pieces[-1])
                self._left -= len(pieces[-1])
                self._needs_line_end = not self._left
                continue
            line_end = self._line_end(data, pos)
            if line_end < 0:
                break
            pos = line_end
        self._pending = b"" if self.is_done else data[pos:]
        self.has_extra = self.is_done and pos < size
        return b"".join(pieces)

    def _line_end(self, data: bytes, pos: int) -> int:
        """Consume one line that is no body; returns where it ended, or -1 while it is incomplete."""
        eol = data.find(b"\n", pos)
        if eol < 0:
            if len(data) - pos > MAX_HEAD_BYTES:
                raise BadAnswer("the engine's answer has an endless chunk header")
            return -1
        if self._needs_line_end:
            if data[pos : eol + 1] != b"\r\n":
                raise BadAnswer("the engine's answer has a chunk longer than announced")
            self._needs_line_end = False
        elif self._is_in_trailers:
            self.is_done = data[pos : eol + 1] == b"\r\n"
        else:
            matched = _SIZE_LINE(data, pos)
            if matched is None or matched.end() != eol + 1:
                raise BadAnswer("the engine's answer has a malformed chunk size")
            self._left = int(matched[1], 16)
            self._is_in_trailers = not self._left
        return eol + 1


class BodyRelay(Protocol):
    """What an upstream connection feeds. `is_done` turns true with the answer's last byte."""

    write: Write
    is_done: bool
    has_extra: bool
    num_bytes: int
    """Received from the engine, framing included; it also tells the idle check that something moved."""

    def feed(self, data: bytes) -> None:
        """Pass on what may be passed on. Raises BadAnswer, and StreamFailed at an error event."""
        ...

    def end(self) -> None:
        """The engine closed its side: sets `is_done` where that is how this body ends. Raises StreamFailed."""
        ...

    def is_answered(self, dialect: Dialect) -> bool:
        """Whether the client already holds the event that ends a streamed answer."""
        ...

    def fail(self, event: bytes) -> bool:
        """End a begun answer with an error event (an empty one: just end it); returns False where the body cannot carry one."""
        ...


class LengthBody:
    """A body of announced length: passed on as it comes."""

    __slots__ = ("_left", "has_extra", "is_done", "num_bytes", "write")

    def __init__(self, write: Write, length: int) -> None:
        self.write = write
        self.num_bytes = 0
        self.is_done = length == 0
        self.has_extra = False
        self._left = length

    def feed(self, data: bytes) -> None:
        self.num_bytes += len(data)
        left = self._left - len(data)
        if left < 0:
            self.has_extra = True
            data, left = data[:left], 0
        self._left = left
        self.is_done = left == 0
        if data:
            self.write(data)

    def end(self) -> None:
        """Nothing to do: a length that was not reached is not an end."""

    def is_answered(self, dialect: Dialect) -> bool:
        """Only its length ends it."""
        return False

    def fail(self, event: bytes) -> bool:
        """A fixed length has no room for more."""
        return False


class EventBody:
    """Writes body bytes in the client's framing; of an event stream only whole events."""

    __slots__ = (
        "_error_at", "_held", "_is_client_chunked", "_is_event_stream", "_is_torn", "has_extra", "is_done", "last_piece",
        "num_bytes", "write",
    )  # fmt: skip

    def __init__(
        self, write: Write, is_event_stream: bool, is_client_chunked: bool, dialect: Dialect = Dialect.OPENAI
    ) -> None:
        self.write = write
        self.num_bytes = 0
        self.is_done = False
        self.has_extra = False
        self.last_piece = b""
        """What was written last: whole events, perhaps with chunk framing."""
        self._is_event_stream = is_event_stream
        self._is_client_chunked = is_client_chunked
        self._held = bytearray()
        self._is_torn = False
        """The client holds part of an event (only one above MAX_HELD_BYTES is passed on so)."""
        self._error_at = _ERROR_AT if dialect is _OPENAI else _NAMED_ERROR_AT
        """How far after the line feed before it an error event has an `e` that no other event has there."""

    def emit(self, body: bytes) -> None:
        """Write what is complete, and everything once `is_done` is set; hold the rest. Raises StreamFailed."""
        self._write_piece(self._whole_events(body) if self._is_event_stream else body)
        if self.is_done and self._is_client_chunked:
            self.write(b"0\r\n\r\n")

    def _whole_events(self, body: bytes) -> bytes:
        """Add `body` to what is held; returns what may be written of that."""
        held, was_torn = self._held, self._is_torn
        searched = len(held)
        held += body
        cut = len(held) if self.is_done else event_end(held, max(0, searched - 3))
        if cut:
            self._is_torn = False
        elif len(held) > MAX_HELD_BYTES:
            cut, self._is_torn = len(held), True
        piece = bytes(held[:cut])
        del held[:cut]
        mark = _ERROR_MARKS[self._error_at]
        if mark in piece and not was_torn and not self._is_torn:
            self._stop_at_error(piece, mark)
        return piece

    def _stop_at_error(self, piece: bytes, mark: bytes) -> None:
        """Write what comes before the first error event, and raise StreamFailed with that; return where there is none after all."""
        found = re.search(rb"(?:\A|\n\r?\n)(%b.*?(?:\n\r?\n|\Z))" % re.escape(mark), piece, re.DOTALL)
        if found is not None:
            self._write_piece(piece[: found.start(1)])
            failure = StreamFailed("the engine ended its answer with an error")
            failure.event = found[1]
            raise failure

    def is_answered(self, dialect: Dialect) -> bool:
        """Looked for only once something went wrong: a chunk costs no search."""
        return self._is_event_stream and not self._is_torn and has_last_event(dialect, self.last_piece)

    def fail(self, event: bytes) -> bool:
        """End with `event`; what was held back of an unfinished one is dropped."""
        if not self._is_event_stream or self._is_torn:
            return False
        self._write_piece(event)
        if self._is_client_chunked:
            self.write(b"0\r\n\r\n")
        return True

    def _write_piece(self, body: bytes) -> None:
        if body:
            self.last_piece = body
            self.write(b"%x\r\n%b\r\n" % (len(body), body) if self._is_client_chunked else body)


class ChunkedBody(EventBody):
    """A chunked body: whole chunks that end with an event pass verbatim, anything else is decoded and framed anew."""

    __slots__ = ("_can_pass", "_decoder")

    def __init__(
        self, write: Write, is_event_stream: bool, is_client_chunked: bool, dialect: Dialect = Dialect.OPENAI
    ) -> None:
        super().__init__(write, is_event_stream, is_client_chunked, dialect)
        self._can_pass = is_client_chunked
        self._decoder: ChunkDecoder | None = None
        """Made when the first piece needs it: most answers never do."""

    def feed(self, data: bytes) -> None:
        self.num_bytes += len(data)
        if self._can_pass and self._is_whole(data):
            self.last_piece = data
            self.write(data)
            return
        if self._decoder is None:
            self._decoder = ChunkDecoder()
        decoder = self._decoder
        body = decoder.feed(data)
        self.is_done = decoder.is_done
        self.has_extra = decoder.has_extra
        self.emit(body)
        self._can_pass = self._is_client_chunked and decoder.is_at_boundary and not self._held and not self._is_torn

    def end(self) -> None:
        """Nothing to do: only the last chunk ends a chunked body."""

    def _is_whole(self, data: bytes) -> bool:
        """Whether `data` is whole plain chunks, none an error, and ends with an event, or with the last chunk (sets `is_done`).

        Whether a chunk is an error is told by one byte; what only looks like one takes the longer way.
        """
        pos, size, error_at = 0, len(data), self._error_at
        ends_event = False
        while pos < size:
            line_end = data.find(b"\n", pos, pos + 11)
            length = _KNOWN_SIZES.get(data[pos:line_end], -1)
            if length < 0 and (line_end < 0 or (length := _learn_size(data[pos:line_end])) < 0):
                return False
            pos = line_end + length + 3
            if not length:
                self.is_done = pos == size and data.endswith(b"\r\n\r\n")
                return self.is_done
            tail = data[pos - 4 : pos]
            if tail == b"\n\n\r\n" and length > 8:
                if data[line_end + error_at] == _E:
                    return False
                ends_event = True
            elif tail[2:] != b"\r\n" or (length > 8 and data[line_end + error_at] == _E):
                return False
            else:
                # The event's end must lie in the last chunk itself: `1\r\n` + `\n` + `\r\n` only looks like one.
                text = data[pos - 2 - min(length, 4) : pos - 2]
                ends_event = text.endswith(b"\n\n") or text == b"\r\n\r\n"
        return ends_event or not self._is_event_stream


class UntilCloseBody(EventBody):
    """A body that ends when the engine closes the connection, as HTTP/1.0 has it."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        self.num_bytes += len(data)
        self.emit(data)

    def end(self) -> None:
        """The close is the end."""
        self.is_done = True
        self.emit(b"")


def event_end(body: bytearray, start: int) -> int:
    """Return where the last whole event of `body` ends, searching from `start`; 0 when there is none."""
    unix, dos = body.rfind(b"\n\n", start), body.rfind(b"\r\n\r\n", start)
    return max(unix + 2 if unix >= 0 else 0, dos + 4 if dos >= 0 else 0)


def _learn_size(line: bytes) -> int:
    """Return the number in a plain size line, up to its line feed, and remember it; -1 for any other line."""
    if _BARE_SIZE(line) is None:
        return -1
    if len(_KNOWN_SIZES) < _MAX_KNOWN_SIZES:
        _KNOWN_SIZES[line] = int(line, 16)
    return int(line, 16)
