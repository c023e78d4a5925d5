"""What an engine's own error means, where that decides who answers: read from the body of an answer, or an event of a stream.

vLLM's shapes are those of 0.26 and 0.32. When the process that computes dies under a request, the server in front of it says so:

    not streamed       500 {"error": {"message": "EngineCore encountered an issue. ...", ...}}
    OpenAI's streams   data: {"error": {the same}}, then data: [DONE]
    /v1/messages       event: error, whose message is that its own converter could not read the above
    /v1/responses      the connection is cut, between two events
"""

from __future__ import annotations

import re
from typing import Any

import orjson

_LAST_WORDS = ("EngineCore encountered an issue", "cannot schedule new futures after shutdown")
"""How vLLM's messages begin when its engine core is gone, and when its server is about to be."""
_UNREAD = "validation errors for ChatCompletionStreamResponse"
"""In what its /v1/messages makes of the former."""
_EVENT_END = re.compile(rb"\n\r?\n")
UNKNOWN_STATUS = 500
"""Of an error event without a status of its own."""


def is_denial(answer: bytes, name: str) -> bool:
    """Return whether the body of an engine's 404 says that it does not know the adapter `name`.

    Our engine says so with the code `model_not_found`; vLLM with the type `NotFoundError`, which it also has for other
    things, and a message that names the model. It takes what looks like a path out of its messages, so that only what
    follows a name's `@` can be relied on.
    """
    error = _error(answer)
    if error.get("code") == "model_not_found":
        return True
    version = name.rpartition("@")[2]
    return "notfound" in str(error.get("type")).lower().replace("_", "") and version in str(error.get("message"))


def is_death(answer: bytes) -> bool:
    """Return whether the body of an engine's 500 says that nothing computes behind it any more."""
    return str(_error(answer).get("message")).startswith(_LAST_WORDS)


class ErrorEvent:
    """The event with which an engine ends a stream that it cannot go on with."""

    __slots__ = ("is_death", "message", "status")

    def __init__(self, event: bytes) -> None:
        error = _error(event)
        code = error.get("code")
        self.status = code if type(code) is int and 400 <= code <= 599 else UNKNOWN_STATUS
        """As if it had been an answer of its own."""
        self.message = str(error.get("message", ""))
        self.is_death = self.message.startswith(_LAST_WORDS) or _UNREAD in self.message


def _error(answer: bytes) -> dict[str, Any]:
    try:
        error = orjson.loads(_first_event(answer) if answer.startswith((b"data:", b"event:")) else answer)["error"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _first_event(answer: bytes) -> bytes:
    """Return the data of the first event in `answer`: whole answers too may come as events, with an error's status."""
    event = _EVENT_END.split(answer, 1)[0]
    return b"\n".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
