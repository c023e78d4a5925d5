"""One answer of the mock engine in progress: paced chunks, then the ending that was drawn for it."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

from benchmarks import mock_wire
from benchmarks.mock_behaviour import Ending, Fate
from benchmarks.mock_request import Completion
from benchmarks.mock_wire import Pen


class Outlet(Protocol):
    """The connection, as an answer sees it."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def finished(self, *, is_closing: bool) -> None:
        """The answer is over; `is_closing` ends the connection too."""

    @property
    def closing_header(self) -> bytes:
        """`connection: close` and its line end, where the client asked for it; else nothing."""


class Answer:
    """Writes itself to the outlet from `start` on; `cancel` stops it. Never raises."""

    __slots__ = (
        "_chunk",
        "_completion",
        "_due_s",
        "_fate",
        "_is_blocked",
        "_is_over",
        "_left",
        "_number",
        "_on_chunk",
        "_outlet",
        "_pen",
        "_rng",
        "_template",
        "_timer",
        "is_started",
    )

    def __init__(
        self,
        completion: Completion,
        fate: Fate,
        pen: Pen,
        number: int,
        outlet: Outlet,
        rng: random.Random,
        on_chunk: Callable[[int], None],
    ) -> None:
        self._completion = completion
        self._fate = fate
        self._pen = pen
        self._number = number
        self._outlet = outlet
        self._rng = rng
        self._on_chunk = on_chunk
        self._left = fate.num_tokens
        self._chunk = 0
        self._due_s = 0.0
        self._template = b""
        self._timer: asyncio.Handle | None = None
        self._is_blocked = False
        self._is_over = False
        self.is_started = False

    def start(self) -> None:
        """The answer's slot is free: from now on ttft counts."""
        self.is_started = True
        self._due_s = time.monotonic()
        if self._fate.ending is Ending.HANG and self._fate.after == 0:
            return
        behaviour = self._completion.behaviour
        if self._completion.is_streamed:
            self._later(behaviour.ttft_ms, self._first_step)
        else:
            num_chunks = -(-self._fate.num_tokens // behaviour.tokens_per_chunk)
            self._later(behaviour.ttft_ms + behaviour.itl_ms * max(0, num_chunks - 1), self._answer_whole)

    def cancel(self) -> None:
        """Stop; nothing more is written."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def block(self) -> None:
        """The client reads too slowly."""
        self._is_blocked = True

    def unblock(self) -> None:
        """It reads again: what is overdue is sent now."""
        self._is_blocked = False
        if self._timer is None and not self._is_over and self._chunk:
            self._timer = asyncio.get_running_loop().call_soon(self._step)

    def _later(self, delay_ms: float, step: Callable[[], None]) -> None:
        behaviour = self._completion.behaviour
        if behaviour.jitter and delay_ms:
            delay_ms *= self._rng.uniform(1 - behaviour.jitter, 1 + behaviour.jitter)
        self._due_s += delay_ms / 1e3
        loop = asyncio.get_running_loop()
        wait_s = self._due_s - time.monotonic() if delay_ms else 0.0
        if behaviour.stall_ms:
            now_s = time.monotonic()
            self._due_s = behaviour.after_stall_s(max(self._due_s, now_s))
            wait_s = self._due_s - now_s
        self._timer = loop.call_later(wait_s, step) if wait_s > 0 else loop.call_soon(step)

    def _schedule(self) -> None:
        self._later(self._completion.behaviour.itl_ms, self._step)

    def _first_step(self) -> None:
        if self._is_ending():  # with 0 chunks: before the headers
            self._end_early(is_started=False)
            return
        self._template = self._pen.chunk_template()
        opening = mock_wire.STREAM_HEAD % self._outlet.closing_header
        if role := self._pen.role():
            opening += mock_wire.http_chunk(role)
        if self._left:
            self._step(opening)
        else:
            self._end_whole(opening)

    def _step(self, opening: bytes = b"") -> None:
        """One chunk, and the ending with the last one."""
        self._timer = None
        if self._is_blocked:
            return
        num = min(self._left, self._completion.behaviour.tokens_per_chunk)
        done = self._fate.num_tokens - self._left
        text = mock_wire.token(self._number, done)
        if num > 1:
            text = b"".join(mock_wire.token(self._number, done + offset) for offset in range(num))
        data = opening + mock_wire.http_chunk(self._template % (text, time.monotonic(), self._chunk))
        self._left -= num
        self._chunk += 1
        self._on_chunk(num)
        if self._is_ending():
            self._outlet.write(data)
            self._end_early(is_started=True)
        elif self._left:
            self._outlet.write(data)
            self._schedule()
        else:
            self._end_whole(data)

    def _is_ending(self) -> bool:
        return self._fate.ending is not Ending.WHOLE and self._chunk >= self._fate.after

    def _end_whole(self, data: bytes) -> None:
        last = self._pen.finish(self._fate.finish_reason)
        if self._completion.includes_usage:
            last += self._pen.usage_chunk(self._fate.num_tokens)
        last += mock_wire.event(b"[DONE]")
        self._outlet.write(data + mock_wire.http_chunk(last) + mock_wire.LAST_CHUNK)
        self._finish(is_closing=False)

    def _end_early(self, *, is_started: bool) -> None:
        ending = self._fate.ending
        if ending is Ending.HANG:
            return
        if ending is Ending.DISCONNECT:
            self._finish(is_closing=True)
            return
        opening = b"" if is_started else mock_wire.STREAM_HEAD % self._outlet.closing_header
        if ending is Ending.ERROR_EVENT:
            error = mock_wire.error_body("the mock was told to fail here", "server_error", code="mock_error")
            self._outlet.write(opening + mock_wire.http_chunk(mock_wire.event(error)))
            self._finish(is_closing=True)
        else:
            self._outlet.write(opening + mock_wire.http_chunk(mock_wire.event(b"[DONE]")) + mock_wire.LAST_CHUNK)
            self._finish(is_closing=False)

    def _answer_whole(self) -> None:
        """Not streamed: everything that would happen between chunks happens before the headers."""
        if self._fate.ending in (Ending.DISCONNECT, Ending.HANG):
            self._chunk = self._fate.after
            self._end_early(is_started=False)
            return
        if self._fate.ending is Ending.ERROR_EVENT:
            body = mock_wire.error_body("the mock was told to fail here", "server_error", code="mock_error")
            self._outlet.write(mock_wire.response(500, body, is_last=True))
            self._finish(is_closing=True)
            return
        num = self._fate.num_tokens
        text = b"".join(mock_wire.token(self._number, index) for index in range(num)).decode()
        self._on_chunk(num)
        body = self._pen.whole(text, self._fate.finish_reason, num, time.monotonic())
        is_last = bool(self._outlet.closing_header)
        self._outlet.write(mock_wire.response(200, body, is_last=is_last))
        self._finish(is_closing=False)

    def _finish(self, *, is_closing: bool) -> None:
        self._is_over = True
        self._timer = None
        self._outlet.finished(is_closing=is_closing)
