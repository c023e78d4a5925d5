"""One request, ready to be sent."""

from dataclasses import dataclass

from benchmarks.traffic.cancellations import Cancel

CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and when. A later turn of a session holds its own messages only: what was said before, the server's
    answers included, is put in when it is sent.
    """

    index: int
    body: bytes
    max_tokens: int
    is_exact: bool
    """True when it forbids an earlier end."""
    path: str = CHAT_PATH
    due_s: float | None = None
    """In an open loop, seconds after the start; None in a closed loop and for later turns."""
    pause_s: float = 0.0
    """Think time before it: in a closed loop and for later turns, seconds after the answer before."""
    adapter: str | None = None
    """Name of the model that it asks for, where several are mixed."""
    session: int | None = None
    turn: int = 0
    cancel: Cancel | None = None
