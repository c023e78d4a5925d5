"""How the answer to POST /v1/responses looks: the response object, and the events that make it up.

    created, in_progress, (item added, part added, deltas, text done, part done, item done)..., completed | incomplete | failed

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from backends import protocol
from backends.llamacpp.answer import Choice, TokenBytes, Usage, Wire
from backends.llamacpp.api.params import Defaults
from backends.llamacpp.api.parts import Begin, End, Kind, More, Part, Parts, Step
from backends.llamacpp.api.responses import NamedFunction, ResponsesRequest
from backends.llamacpp.message import Content, Piece
from backends.llamacpp.sampling import TokenLogprobs

_ITEM_PREFIX = {Kind.TEXT: "msg", Kind.REASONING: "rs", Kind.CALL: "fc"}
_TEXT_EVENT = {Kind.TEXT: "response.output_text", Kind.REASONING: "response.reasoning_text"}


class ResponsesWire(Wire):
    """`response`, whole or as events."""

    prefix = "resp_"

    def __init__(self, model: str, token_text: TokenBytes, request: ResponsesRequest, defaults: Defaults) -> None:
        super().__init__(model, token_text)
        self._echo = _echo(request, defaults)
        self._parts = Parts()
        self._logprobs: dict[Part, list[dict[str, Any]]] = {}
        self._waiting: list[dict[str, Any]] = []
        """Log-probabilities whose text is not out yet."""
        self._num_events = 0

    def opening(self, choice: Choice) -> bytes:
        begun = self._response("in_progress")
        created = self._event("response.created", response=begun)
        return created + self._event("response.in_progress", response=begun)

    def delta(self, choice: Choice, pieces: Sequence[Piece], infos: Sequence[TokenLogprobs | None]) -> bytes:
        self._waiting += [self.logprob_entry(info) for info in infos if info is not None]
        return self._events(step for piece in pieces for step in self._parts.take(piece))

    def closing(self, choice: Choice) -> bytes:
        # An answer without any text is an empty text: clients look into the first item.
        nothing = b"" if self._parts.all else self.delta(choice, [Content("")], [])
        return nothing + self._events(self._parts.end(is_cut=choice.finish_reason == "length"))

    def ending(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        response = self._finished(choices[0], usage)
        return self._event(f"response.{response['status']}", response=response)

    def body(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        (choice,) = choices
        self.delta(choice, choice.pieces, choice.infos)
        self.closing(choice)
        return self._finished(choice, usage)

    def failure(self, message: str) -> bytes:
        closed = self._events(self._parts.end(is_cut=True))
        response = self._response("failed") | {"error": {"code": "server_error", "message": message}}
        return closed + self._event("response.failed", response=response)

    # ------------------------------------------------------------------ events

    def _event(self, kind: str, **fields: Any) -> bytes:
        number = self._num_events
        self._num_events += 1
        return protocol.named_sse({"type": kind, "sequence_number": number, **fields})

    def _events(self, steps: Iterable[Step]) -> bytes:
        return b"".join([self._step(step) for step in steps])

    def _step(self, step: Step) -> bytes:
        match step:
            case Begin(part):
                return self._begin(part)
            case More(part, text):
                return self._more(part, text)
            case End(part):
                return self._end(part)

    def _begin(self, part: Part) -> bytes:
        if part.kind is Kind.TEXT:
            self._logprobs[part] = []
        item = self._item(part, is_new=True)
        added = self._event("response.output_item.added", output_index=part.index, item=item)
        if part.kind is Kind.CALL:
            return added
        return added + self._event("response.content_part.added", **self._place(part), part=self._content(part))

    def _more(self, part: Part, text: str) -> bytes:
        if part.kind is Kind.CALL:
            place = {"item_id": self._item_id(part), "output_index": part.index}
            return self._event("response.function_call_arguments.delta", **place, delta=text)
        more: dict[str, Any] = {"delta": text}
        if part.kind is Kind.TEXT:
            more["logprobs"], self._waiting = self._waiting, []
            self._logprobs[part] += more["logprobs"]
        return self._event(f"{_TEXT_EVENT[part.kind]}.delta", **self._place(part), **more)

    def _end(self, part: Part) -> bytes:
        item = self._item(part)
        if part.kind is Kind.CALL:
            place = {"item_id": item["id"], "output_index": part.index}
            done = self._event("response.function_call_arguments.done", **place, arguments=part.text)
        else:
            content = item["content"][0]
            shown = {key: content[key] for key in ("text", "logprobs") if key in content}
            done = self._event(f"{_TEXT_EVENT[part.kind]}.done", **self._place(part), **shown)
            done += self._event("response.content_part.done", **self._place(part), part=content)
        return done + self._event("response.output_item.done", output_index=part.index, item=item)

    # ------------------------------------------------------------------ objects

    def _place(self, part: Part) -> dict[str, Any]:
        return {"item_id": self._item_id(part), "output_index": part.index, "content_index": 0}

    def _item_id(self, part: Part) -> str:
        return f"{_ITEM_PREFIX[part.kind]}_{self.number}{part.index:02x}"

    def _item(self, part: Part, *, is_new: bool = False) -> dict[str, Any]:
        """An output item; a new one has no content yet."""
        status = "in_progress" if is_new else "incomplete" if part.is_cut else "completed"
        item: dict[str, Any] = {"id": self._item_id(part), "status": status}
        match part.kind:
            case Kind.CALL:
                call = {"call_id": self.call_id(part.call), "name": part.name, "arguments": part.text}
                return item | {"type": "function_call", **call}
            case Kind.REASONING:
                item |= {"type": "reasoning", "summary": [], "encrypted_content": None}
            case Kind.TEXT:
                item |= {"type": "message", "role": "assistant"}
        return item | {"content": [] if is_new else [self._content(part)]}

    def _content(self, part: Part) -> dict[str, Any]:
        if part.kind is Kind.REASONING:
            return {"type": "reasoning_text", "text": part.text}
        return {"type": "output_text", "annotations": [], "logprobs": self._logprobs[part], "text": part.text}

    def _finished(self, choice: Choice, usage: Usage) -> dict[str, Any]:
        is_cut = choice.finish_reason == "length"
        response = self._response("incomplete" if is_cut else "completed")
        response["usage"] = _usage(usage)
        if is_cut:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            response["completed_at"] = int(time.time())
        return response

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self.identity,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [self._item(part) for part in self._parts.all],
            "usage": None,
            **self._echo,
        }


def _echo(request: ResponsesRequest, defaults: Defaults) -> dict[str, Any]:
    """What of the request comes back with the answer: as it was taken, with the defaults filled in."""
    choice, text, reasoning = request.tool_choice, request.text, request.reasoning
    text_format = msgspec.to_builtins(text.format) if text and text.format else {"type": "text"}
    return {
        "background": False,
        "conversation": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": False,
        "temperature": defaults.temperature if request.temperature is None else request.temperature,
        "text": {"format": {key: value for key, value in text_format.items() if value is not None}},
        "tool_choice": msgspec.to_builtins(choice) if isinstance(choice, NamedFunction) else choice or "auto",
        "tools": [msgspec.to_builtins(tool) for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": defaults.top_p if request.top_p is None else request.top_p,
        "truncation": "disabled",
        "user": request.user,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.num_prompt,
        # Prompts are cached without being asked, and nothing is charged for it.
        "input_tokens_details": {"cached_tokens": usage.num_cached, "cache_write_tokens": 0},
        "output_tokens": usage.num_answer,
        "output_tokens_details": {"reasoning_tokens": usage.num_reasoning},
        "total_tokens": usage.num_prompt + usage.num_answer,
    }
