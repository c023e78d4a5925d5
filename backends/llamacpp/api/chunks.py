"""What OpenAI's chat and text completions have in common on the wire: an envelope with choices, and chunks of it."""

from __future__ import annotations

from typing import Any, ClassVar

import orjson

from backends import protocol
from backends.llamacpp.answer import TokenBytes, Usage, Wire


class ChunkWire(Wire):
    """Chunks that end with `[DONE]`."""

    kind: ClassVar[str]
    """The `object` of a whole answer."""
    chunk_kind: ClassVar[str]
    """The `object` of its chunks."""

    def __init__(self, model: str, token_text: TokenBytes, *, includes_usage: bool = False) -> None:
        super().__init__(model, token_text)
        self.head = protocol.event_head(self.identity, self.chunk_kind, self.created, model)
        self._includes_usage = includes_usage

    def failure(self, message: str) -> bytes:
        return protocol.sse(protocol.error_object(500, message, code="engine_error"))

    def envelope(self) -> dict[str, Any]:
        """What every whole answer begins with."""
        return {"id": self.identity, "object": self.kind, "created": self.created, "model": self.model}

    def last_chunks(self, usage: Usage) -> bytes:
        """The chunk that `stream_options.include_usage` asks for, and the end."""
        if not self._includes_usage:
            return protocol.DONE
        return b'%b"choices":[],"usage":%b}\n\n%b' % (self.head, orjson.dumps(shown_usage(usage)), protocol.DONE)


def shown_usage(usage: Usage) -> dict[str, Any]:
    """The `usage` object."""
    return protocol.usage(usage.num_prompt, usage.num_answer, usage.num_cached, usage.num_reasoning)
