"""What is known about one request after it ended: the only thing that the metrics are computed from."""

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """How a request failed; every failed request has exactly one."""

    CONNECT = "connect"
    """No connection: refused, unreachable, or not within the time allowed."""
    RESET = "reset"
    """The connection was lost before the answer's headers."""
    HTTP_STATUS = "http_status"
    """The answer's status is not 200."""
    TIMEOUT = "timeout"
    """The answer was not complete within the time allowed; the client closed the connection."""
    ERROR_EVENT = "error_event"
    """A started stream carried an error event."""
    TRUNCATED = "truncated"
    """A started stream ended without `finish_reason`, without `[DONE]`, or within an event or an HTTP chunk."""
    BAD_RESPONSE = "bad_response"
    """Not HTTP, not an event stream, or not JSON inside."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request does not count as answered."""

    kind: FailureKind
    detail: str


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are seconds on one monotonic clock; None means that it did not happen."""

    index: int
    max_tokens: int
    """Output tokens asked for."""
    is_exact: bool
    """True when the request forbade an earlier end (ignore_eos or min_tokens), so that fewer tokens are a fault."""
    intended_s: float
    """When the request was due; latency as users feel it counts from here."""
    sent_s: float | None
    """When its bytes were written; latency of the service counts from here."""
    first_byte_s: float | None
    end_s: float
    """When the answer was complete, or the failure was noticed."""
    chunk_times_s: tuple[float, ...]
    """Arrival of each chunk that carried text: the read that brought its last byte."""
    chunk_chars: tuple[int, ...]
    """Length of each of those chunks' text, in characters."""
    num_reads: int
    """Distinct reads among those chunks: fewer than chunks when several arrived together."""
    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    finish_reason: str | None
    status: int | None
    failure: Failure | None
    adapter: str | None = None
    """The model's name in the request."""
    session: int | None = None
    """The conversation that it belongs to; None where there are none."""
    turn: int = 0
    """Its place in the conversation, from 0."""
    is_cancelled: bool = False
    """The client cut it off on purpose: neither an answer nor a failure."""
    reasoning_chars: int = 0
    """How much of the text was reasoning, in characters."""
    queue_s: float | None = None
    """How long the server says that it let the request wait."""

    @property
    def is_ok(self) -> bool:
        """True when it was answered to the end."""
        return self.failure is None and not self.is_cancelled

    @property
    def token_source(self) -> str:
        """Where `num_output_tokens` comes from: `usage`; `limit`, where the server sent no usage but ended for length,
        which says that it made all tokens asked for; or `chunks`, a guess.
        """
        if self.completion_tokens is not None:
            return "usage"
        return "limit" if self.finish_reason == "length" and self.is_ok else "chunks"

    @property
    def num_output_tokens(self) -> int:
        """By the best source there is."""
        if self.completion_tokens is not None:
            return self.completion_tokens
        return self.max_tokens if self.token_source == "limit" else len(self.chunk_times_s)
