"""Strict readers of the streams of /v1/responses and /v1/messages: every rule that a client may rely on is asserted."""

from __future__ import annotations

from typing import Any

import orjson

Event = dict[str, Any]


def read_events(stream: bytes) -> list[Event]:
    """The events of a whole stream; each one's name is its type."""
    *blocks, rest = stream.split(b"\n\n")
    assert rest == b"", "the stream ends inside an event"
    events = []
    for block in blocks:
        name, data = block.split(b"\n")
        assert name.startswith(b"event: ")
        assert data.startswith(b"data: ")
        event = orjson.loads(data[6:])
        assert event["type"] == name[7:].decode()
        events.append(event)
    return events


class Reader:
    """Takes events one by one, in the order in which they may come."""

    def __init__(self, events: list[Event]) -> None:
        self._events = list(events)

    def next(self, kind: str) -> Event:
        assert self._events, f"the stream ends where {kind} must come"
        assert self._events[0]["type"] == kind
        return self._events.pop(0)

    def all(self, kind: str) -> list[Event]:
        """As many of a kind as come next."""
        found = []
        while self.has(kind):
            found.append(self.next(kind))
        return found

    def has(self, kind: str) -> bool:
        return bool(self._events) and self._events[0]["type"] == kind

    @property
    def is_over(self) -> bool:
        return not self._events


# ---------------------------------------------------------------------- responses

ENDS = ("completed", "incomplete", "failed")
TEXTS = {
    "message": ("response.output_text", {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}),
    "reasoning": ("response.reasoning_text", {"type": "reasoning_text", "text": ""}),
}


def check_responses(stream: bytes) -> dict[str, Any]:
    """The response with which the stream ends."""
    events = read_events(stream)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    reader = Reader(events)
    begun = reader.next("response.created")["response"]
    assert reader.next("response.in_progress")["response"] == begun
    assert (begun["status"], begun["output"], begun["usage"], begun["error"]) == ("in_progress", [], None, None)
    items: list[Event] = []
    while reader.has("response.output_item.added"):
        items.append(_check_item(reader, len(items)))
    end = next(end for end in ENDS if reader.has(f"response.{end}"))
    last: dict[str, Any] = reader.next(f"response.{end}")["response"]
    assert reader.is_over
    assert last["status"] == end
    assert last["output"] == items
    assert len({item["id"] for item in items}) == len(items)
    for key in begun.keys() - {"status", "output", "usage", "error", "incomplete_details", "completed_at"}:
        assert last[key] == begun[key], key
    assert (last["incomplete_details"] is not None) == (end == "incomplete")
    assert (last["error"] is not None) == (end == "failed")
    assert (last["completed_at"] is not None) == (end == "completed")
    assert (last["usage"] is None) == (end == "failed")
    assert all(item["status"] == "completed" for item in items[:-1]), "only the last item can be cut off"
    assert end != "completed" or all(item["status"] == "completed" for item in items)
    return last


def _check_item(reader: Reader, index: int) -> Event:
    added = reader.next("response.output_item.added")
    item = added["item"]
    assert (added["output_index"], item["status"]) == (index, "in_progress")
    place = {"item_id": item["id"], "output_index": index}
    if item["type"] == "function_call":
        assert item["arguments"] == ""
        deltas = reader.all("response.function_call_arguments.delta")
        whole = reader.next("response.function_call_arguments.done")
        assert all(event.items() >= place.items() and event["delta"] for event in [*deltas])
        assert whole.items() >= place.items()
        assert whole["arguments"] == "".join(event["delta"] for event in deltas)
        changed = {"arguments": whole["arguments"]}
    else:
        assert item["content"] == []
        changed = {"content": [_check_part(reader, item["type"], place | {"content_index": 0})]}
    done = reader.next("response.output_item.done")
    assert done["output_index"] == index
    if item["type"] == "function_call":
        assert _is_json(changed["arguments"]) == (done["item"]["status"] == "completed")
    assert done["item"]["status"] in ("completed", "incomplete")
    assert done["item"] == item | changed | {"status": done["item"]["status"]}
    return done["item"]  # type: ignore[no-any-return]


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _check_part(reader: Reader, item_type: str, place: Event) -> Event:
    kind, empty = TEXTS[item_type]
    added = reader.next("response.content_part.added")
    deltas = reader.all(f"{kind}.delta")
    whole = reader.next(f"{kind}.done")
    done = reader.next("response.content_part.done")
    assert added["part"] == empty
    for event in (added, *deltas, whole, done):
        assert event.items() >= place.items()
    assert all(event["delta"] for event in deltas)
    assert whole["text"] == "".join(event["delta"] for event in deltas)
    filled = {"text": whole["text"]}
    if "logprobs" in empty:
        assert whole["logprobs"] == [entry for event in deltas for entry in event["logprobs"]]
        filled["logprobs"] = whole["logprobs"]
    assert done["part"] == empty | filled
    return done["part"]  # type: ignore[no-any-return]


# ---------------------------------------------------------------------- messages

EMPTY_BLOCKS = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "tool_use": {"type": "tool_use", "input": {}},
}
DELTAS = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


def check_messages(stream: bytes) -> dict[str, Any]:
    """The message that the stream makes up; tool inputs are the JSON texts that were sent. `error` has what ended it early."""
    reader = Reader(read_events(stream))
    message: dict[str, Any] = reader.next("message_start")["message"]
    assert (message["content"], message["stop_reason"], message["stop_sequence"]) == ([], None, None)
    while reader.has("content_block_start"):
        block = _check_block(reader, len(message["content"]))
        message["content"].append(block)
    if reader.has("error"):
        error = reader.next("error")
        assert reader.is_over
        assert error["error"]["message"]
        return message | {"error": error["error"]}
    end = reader.next("message_delta")
    assert reader.next("message_stop") == {"type": "message_stop"}
    assert reader.is_over
    for key in ("input_tokens", "cache_read_input_tokens"):
        assert end["usage"][key] == message["usage"][key]
    assert end["usage"]["output_tokens"] >= message["usage"]["output_tokens"]
    assert end["delta"]["stop_reason"] is not None
    assert (end["delta"]["stop_sequence"] is not None) == (end["delta"]["stop_reason"] == "stop_sequence")
    return message | end["delta"] | {"usage": end["usage"]}


def _check_block(reader: Reader, index: int) -> Event:
    start = reader.next("content_block_start")
    block: Event = start["content_block"]
    assert start["index"] == index
    assert block.items() >= EMPTY_BLOCKS[block["type"]].items()
    texts = []
    while reader.has("content_block_delta"):
        event = reader.next("content_block_delta")
        assert event["index"] == index
        kind, (key, text) = event["delta"].pop("type"), next(iter(event["delta"].items()))
        assert text
        assert "signature" not in block or not block["signature"], "the signature comes last"
        if kind == "signature_delta":
            block["signature"] = text
        else:
            assert kind == DELTAS[block["type"]]
            assert key == {"tool_use": "partial_json"}.get(block["type"], block["type"])
            texts.append(text)
    if reader.has("error"):
        return block | {"is_open": True}
    assert reader.next("content_block_stop")["index"] == index
    assert block.get("signature") != "", "a thought is signed"
    return block | {"input" if block["type"] == "tool_use" else block["type"]: "".join(texts)}
