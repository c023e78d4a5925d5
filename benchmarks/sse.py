"""Server-sent events out of bytes that arrive in any segmentation (WHATWG HTML, section 9.2.6).

The benchmark's own parser: it shares no code with the servers it measures, so a mistake there cannot hide here.
"""

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event: its type (`message` unless the stream named one) and its data lines joined by newlines."""

    name: str
    data: bytes


class EventParser:
    """Incremental: `feed` returns the events that these bytes completed. Line ends may be LF, CR LF or CR."""

    __slots__ = ("_data", "_ends_in_cr", "_is_begun", "_name", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._name = ""
        self._ends_in_cr = False
        self._is_begun = False

    @property
    def is_inside_event(self) -> bool:
        """True when the bytes so far end within an event: at the end of a stream, a sign that it was cut."""
        return bool(self._rest or self._data or self._name)

    def feed(self, chunk: bytes) -> list[Event]:
        """Events completed by `chunk`, in order; what is left waits for the next call."""
        text = self._normalise(chunk)
        if b"\n" not in text:
            self._rest += text
            return []
        lines = (self._rest + text).split(b"\n")
        self._rest = lines.pop()
        events: list[Event] = []
        for line in lines:
            if line:
                self._take_field(self._without_bom(line))
            elif event := self._dispatch():
                events.append(event)
        return events

    def _normalise(self, chunk: bytes) -> bytes:
        # A CR ends its line at once (waiting for an LF would delay the event); an LF that follows it is then dropped.
        if self._ends_in_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
            self._ends_in_cr = False
            if not chunk:
                return chunk
        if b"\r" not in chunk:
            self._ends_in_cr = self._ends_in_cr and not chunk
            return chunk
        self._ends_in_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_bom(self, line: bytes) -> bytes:
        if self._is_begun:
            return line
        self._is_begun = True
        return line.removeprefix(_BOM)

    def _take_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")

    def _dispatch(self) -> Event | None:
        self._is_begun = True
        data, name = self._data, self._name
        self._data, self._name = [], ""
        return Event(name or "message", b"\n".join(data)) if data else None
