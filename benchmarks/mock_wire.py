"""The bytes that the mock engine sends. Pure, and made so that a chunk costs one format operation."""

from dataclasses import dataclass
from typing import Any

import orjson

_WORDS = (
    " the| model| answers| in| words| that| never| stay| as| they| were| so| a| client| which| stops| at| repeats"
    "| sees| none| 하나| 둘| 셋| 🙂| tokens| may| hold| umlauts| like| ä| or| accents| é| and| some| are| long|,|."
    "| but| most| here| we| go| on| with| more| of| them| until| there| very| ends"
)
# A prime number of them, all different: with a stride of 1 to 7 no two neighbours are equal, whatever the request.
TOKENS = tuple(word.encode() for word in _WORDS.split("|"))

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n%b\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def token(request_number: int, index: int) -> bytes:
    """Text of a request's token, varied in both."""
    return TOKENS[(request_number * 31 + index * (1 + request_number % 7)) % len(TOKENS)]


def response(
    status: int, body: bytes, *, is_last: bool, content_type: str = "application/json", extra: str = ""
) -> bytes:
    """A whole answer; `is_last` closes the connection."""
    connection = "connection: close\r\n" if is_last else ""
    head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\ncontent-type: {content_type}\r\n"
    return f"{head}content-length: {len(body)}\r\n{connection}{extra}\r\n".encode() + body


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    """OpenAI's error object."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def http_chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % data


@dataclass(frozen=True, slots=True)
class Pen:
    """Writes one request's messages."""

    is_chat: bool
    identity: str
    model: str
    created: int
    prompt_tokens: int

    def chunk_template(self) -> bytes:
        """For `%` with (text, sent_s, index of the chunk); text must need no JSON escape, as TOKENS does not."""
        delta = b'"delta":{"content":"%b"}' if self.is_chat else b'"text":"%b"'
        choice = b'{"index":0,' + delta + b',"logprobs":null,"finish_reason":null}'
        tail = b',"choices":[' + choice + b'],"mock":{"sent_s":%.6f,"chunk":%d}}'
        return b"data: " + self._opening().replace(b"%", b"%%") + tail + b"\n\n"

    def role(self) -> bytes:
        """Chat streams begin with a chunk that holds no token."""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return event(self._closed({"choices": [choice]})) if self.is_chat else b""

    def finish(self, finish_reason: str) -> bytes:
        """The chunk that says why the answer ends."""
        piece: dict[str, Any] = {"delta": {}} if self.is_chat else {"text": ""}
        return event(self._closed({"choices": [{"index": 0, **piece, "finish_reason": finish_reason}]}))

    def usage_chunk(self, completion_tokens: int) -> bytes:
        """For `stream_options.include_usage`."""
        return event(self._closed({"choices": [], "usage": self.usage(completion_tokens)}))

    def whole(self, text: str, finish_reason: str, completion_tokens: int, sent_s: float) -> bytes:
        """The body of an answer that is not streamed."""
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        usage = self.usage(completion_tokens)
        return orjson.dumps(
            {**self._frame(streamed=False), "choices": [choice], "usage": usage, "mock": {"sent_s": sent_s}}
        )

    def usage(self, completion_tokens: int) -> dict[str, int]:
        """OpenAI's usage object."""
        total = self.prompt_tokens + completion_tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}

    def _frame(self, *, streamed: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if streamed else "chat.completion") if self.is_chat else "text_completion"
        return {"id": self.identity, "object": kind, "created": self.created, "model": self.model}

    def _opening(self) -> bytes:
        return orjson.dumps(self._frame(streamed=True))[:-1]

    def _closed(self, content: dict[str, Any]) -> bytes:
        return orjson.dumps({**self._frame(streamed=True), **content})


@dataclass(frozen=True, slots=True)
class EmbeddingPen(Pen):
    """Writes the answer to a request for embeddings."""

    num_inputs: int = 1

    def whole(self, text: str, finish_reason: str, completion_tokens: int, sent_s: float) -> bytes:
        """One short vector for each input, all different."""
        data = [
            {"object": "embedding", "index": index, "embedding": [1.0, (index + 1) / 8, -0.5]}
            for index in range(self.num_inputs)
        ]
        usage = {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}
        return orjson.dumps(
            {"object": "list", "data": data, "model": self.model, "usage": usage, "mock": {"sent_s": sent_s}}
        )
