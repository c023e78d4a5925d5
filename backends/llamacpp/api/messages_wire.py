"""How the answer to POST /v1/messages looks: the message object, and the events that make it up.

    message_start, (content_block_start, content_block_delta..., content_block_stop)..., message_delta, message_stop

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from backends import dialects, protocol
from backends.llamacpp.answer import Choice, TokenBytes, Usage, Wire
from backends.llamacpp.api.partial import partial_object
from backends.llamacpp.api.parts import Begin, End, Kind, More, Part, Parts, Step
from backends.llamacpp.message import Piece
from backends.llamacpp.sampling import TokenLogprobs

_STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
_DELTAS = {
    Kind.TEXT: ("text_delta", "text"),
    Kind.REASONING: ("thinking_delta", "thinking"),
    Kind.CALL: ("input_json_delta", "partial_json"),
}


class MessagesWire(Wire):
    """`message`, whole or as events."""

    prefix = "msg_"

    def __init__(self, model: str, token_text: TokenBytes, max_tokens: int) -> None:
        super().__init__(model, token_text)
        self._max_tokens = max_tokens
        self._parts = Parts()

    def opening(self, choice: Choice) -> bytes:
        usage = Usage(choice.num_prompt, choice.num_tokens, choice.num_cached, num_reasoning=0)
        return _event("message_start", message=self._message(usage))

    def delta(self, choice: Choice, pieces: Sequence[Piece], infos: Sequence[TokenLogprobs | None]) -> bytes:
        return self._events(step for piece in pieces for step in self._parts.take(piece))

    def closing(self, choice: Choice) -> bytes:
        return self._events(self._parts.end())

    def ending(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        (choice,) = choices
        return _event("message_delta", delta=self._stop(choice), usage=_usage(usage)) + _event("message_stop")

    def body(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        (choice,) = choices
        self.delta(choice, choice.pieces, ())
        content = [self._block(part) for part in self._parts.all]
        return self._message(usage) | {"content": content, **self._stop(choice)}

    def failure(self, message: str) -> bytes:
        return dialects.error_event(dialects.Dialect.MESSAGES, 500, message, code="engine_error")

    def _events(self, steps: Iterable[Step]) -> bytes:
        return b"".join([self._step(step) for step in steps])

    def _step(self, step: Step) -> bytes:
        match step:
            case Begin(part):
                return _event("content_block_start", index=part.index, content_block=self._block(part, is_new=True))
            case More(part, text):
                kind, key = _DELTAS[part.kind]
                return _event("content_block_delta", index=part.index, delta={"type": kind, key: text})
            case End(part):
                stop = _event("content_block_stop", index=part.index)
                if part.kind is not Kind.REASONING:
                    return stop
                delta = {"type": "signature_delta", "signature": _signature(part.text)}
                return _event("content_block_delta", index=part.index, delta=delta) + stop

    def _block(self, part: Part, *, is_new: bool = False) -> dict[str, Any]:
        """A content block; a new one has no content yet."""
        match part.kind:
            case Kind.TEXT:
                return {"type": "text", "text": part.text}
            case Kind.REASONING:
                signature = "" if is_new else _signature(part.text)
                return {"type": "thinking", "thinking": part.text, "signature": signature}
            case Kind.CALL:
                identity = self.call_id(part.call).replace("call_", "toolu_")
                return {"type": "tool_use", "id": identity, "name": part.name, "input": partial_object(part.text)}

    def _message(self, usage: Usage) -> dict[str, Any]:
        return {
            "id": self.identity,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(usage),
        }

    def _stop(self, choice: Choice) -> dict[str, Any]:
        reason = _STOP_REASONS.get(choice.finish_reason or "")
        if choice.stopped_by is not None:
            reason = "stop_sequence"
        elif reason == "max_tokens" and choice.num_tokens < self._max_tokens:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": choice.stopped_by}


def _event(kind: str, **fields: Any) -> bytes:
    return protocol.named_sse({"type": kind, **fields})


def _signature(thought: str) -> str:
    """Clients drop thoughts without one when they send an answer again. It proves nothing, and nothing relies on it."""
    return hashlib.sha256(thought.encode()).hexdigest()


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.num_prompt - usage.num_cached,
        # Prompts are cached without being asked, and nothing is charged for it.
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.num_cached,
        "output_tokens": usage.num_answer,
        "output_tokens_details": {"thinking_tokens": usage.num_reasoning},
    }
