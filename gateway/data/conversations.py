"""The log of conversations: off unless the configuration names a file, and never in the way of a request.

    request --tap--> answered --put--> queue --thread--> put together, masked --> file
                                 `-- full: dropped, and counted

A tap keeps references to bytes that the relay has anyway; nothing is parsed, masked or written before the request has ended, and then
in a thread of its own. What the queue, the disk or the size of a conversation does not allow is dropped and counted.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import orjson

from backends import personal
from gateway.accesslog import AccessLine
from gateway.config import Conversations
from gateway.data.body import Fields
from gateway.data.chatform.message import Unreadable
from gateway.data.framing import Write
from gateway.data.request import Request, RequestHead
from gateway.data.snapshot import ModelRoute
from gateway.data.transcript import transcript
from gateway.logfile import LogFile

PATHS = frozenset({"/v1/chat/completions", "/v1/responses", "/v1/messages"})
"""Of the APIs that have conversations (`gateway.data.chatform`)."""
OPT_OUT = "x-forgegate-no-log"
MAX_CONVERSATION_BYTES = 256 * 1024
"""Request and answer, framing included."""
MAX_QUEUED = 1024
MAX_QUEUED_BYTES = 64 * 1024 * 1024
MAX_BATCH = 8
REST = 3.0
"""Times as long as it worked the thread does nothing: it takes a quarter of the interpreter at most, whatever is sampled."""
CLOSE_S = 2.0
SWITCH_S = 0.0005
"""For so long may the thread hold the interpreter while the event loop waits for it; Python's own default is ten times that."""
WRITTEN, QUEUE_FULL, TOO_LARGE, UNREADABLE, DISK = "written", "queue_full", "too_large", "unreadable", "disk"
OUTCOMES = (WRITTEN, QUEUE_FULL, TOO_LARGE, UNREADABLE, DISK)
_OPT_OUT_LINE = f"{OPT_OUT}: ".encode()

log = logging.getLogger(__name__)


class Tap:
    """Beside one request: what it asked, and what its client is being sent."""

    __slots__ = ("_num_bytes", "_pieces", "_request", "is_too_large")

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._pieces: list[bytes] = []
        self._num_bytes = 0
        self.is_too_large = False
        self._count(len(request))

    def writing(self, write: Write, first: bytes) -> Write:
        """For the rest of the answer in place of `write`; `first` is on its way already."""
        keep = self._keep
        keep(first)

        def write_and_keep(data: bytes) -> None:
            write(data)
            keep(data)

        return write_and_keep

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def content(self) -> tuple[bytes, bytes]:
        """Request and answer, the latter as it was sent."""
        return self._request, b"".join(self._pieces)

    def _keep(self, data: bytes) -> None:
        self._count(len(data))
        if not self.is_too_large:
            self._pieces.append(data)

    def _count(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        if self._num_bytes > MAX_CONVERSATION_BYTES and not self.is_too_large:
            self.is_too_large = True
            self._request = b""
            self._pieces.clear()


class ConversationLog:
    """One worker's. `tap`, `put` and `take_counts` are the event loop's, what stands below is the thread's."""

    def __init__(self, rules: Conversations, draw: Callable[[], float]) -> None:
        self._rules = rules
        self._models = frozenset(rules.models)
        self._draw = draw
        """A number from 0 up to 1, without 1."""
        self._file = LogFile(Path(rules.file).expanduser(), rules.max_bytes, rules.keep)
        self._mask = personal.mask if rules.mask else None
        self._queue: SimpleQueue[tuple[Tap, AccessLine] | None] = SimpleQueue()
        """Without a lock that the loop could have to wait for; bounded by what is counted here."""
        self._num_in = self._num_bytes_in = 0
        """The loop's to count up."""
        self._num_out = self._num_bytes_out = 0
        """The thread's; what lies between is queued."""
        self._dropped: Counter[str] = Counter()
        self._done = Counter(dict.fromkeys(OUTCOMES, 0))
        """The thread's; it gets no further keys, so that it can be copied at any time."""
        self._told: Counter[str] = Counter()
        """Of `_done`, what `take_counts` has given away."""
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conversations", daemon=True)

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def tap(self, request: Request, fields: Fields, route: ModelRoute) -> Tap | None:
        """None for a request that is not sampled, says that it is not to be logged, or tries a candidate out."""
        if request.head.path not in PATHS or not self._is_wanted(str(fields.model)):
            return None
        is_trial = route.adapter is not None and route.adapter.is_candidate
        return None if is_trial or is_opted_out(request.head) else Tap(request.body)

    def put(self, tap: Tap, line: AccessLine) -> None:
        """The request has ended."""
        if tap.is_too_large:
            self._dropped[TOO_LARGE] += 1
        elif not self._has_room(tap.num_bytes):
            self._dropped[QUEUE_FULL] += 1
        else:
            self._num_in += 1
            self._num_bytes_in += tap.num_bytes
            self._queue.put((tap, line))

    def take_counts(self) -> dict[str, int]:
        """What became of conversations since the last call, by OUTCOMES."""
        done = Counter(self._done)
        found = self._dropped + (done - self._told)
        self._dropped, self._told = Counter(), done
        return dict(found)

    def close(self) -> None:
        """Write what is queued, for two seconds at most."""
        self._is_closing.set()
        self._queue.put(None)
        self._thread.join(CLOSE_S)

    def _is_wanted(self, model: str) -> bool:
        if self._models and model not in self._models and model.partition("@")[0] not in self._models:
            return False
        return self._draw() < self._rules.share

    def _has_room(self, num_bytes: int) -> bool:
        is_short = self._num_in - self._num_out < MAX_QUEUED
        return is_short and self._num_bytes_in - self._num_bytes_out + num_bytes <= MAX_QUEUED_BYTES

    # The thread.

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            begun_s = time.monotonic()
            is_open = None not in batch
            self._write([each for each in batch if each is not None])
            self._is_closing.wait(REST * (time.monotonic() - begun_s))
        self._file.close()

    def _write(self, batch: list[tuple[Tap, AccessLine]]) -> None:
        lines = [line for tap, booked in batch if (line := self._line(tap, booked))]
        self._num_out += len(batch)
        self._num_bytes_out += sum(tap.num_bytes for tap, _ in batch)
        if not lines:
            return
        try:
            self._file.append(b"".join(lines))
        except OSError:
            self._done[DISK] += len(lines)
        else:
            self._done[WRITTEN] += len(lines)

    def _line(self, tap: Tap, booked: AccessLine) -> bytes:
        """Empty where there is nothing to write."""
        try:
            record = transcript(*tap.content(), booked, self._mask)
            return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) if record is not None else b""
        except (Unreadable, RecursionError):
            self._done[UNREADABLE] += 1
        except Exception:  # the boundary of the thread: one odd conversation must not end the log of all others
            log.exception("a conversation could not be written")
            self._done[UNREADABLE] += 1
        return b""


def is_opted_out(head: RequestHead) -> bool:
    """`x-forgegate-no-log` with anything but 0 or false."""
    values = (line[len(_OPT_OUT_LINE) :].strip().lower() for line in head.forwarded if line.startswith(_OPT_OUT_LINE))
    return any(value not in (b"", b"0", b"false") for value in values)
