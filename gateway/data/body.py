"""The few fields of a request body that the gateway reads, and the one that it rewrites.

Everything else passes as it came: unknown fields, number spellings, key order and white space are the engine's to
judge. msgspec reads the fields and skips the rest without building objects: 0.3 us for a chat of 400 bytes, 0.5 ms for
one of 1 MB (orjson: 0.6 us and 0.6 ms).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

from gateway.errors import BadRequest

DEFAULT_OUTPUT_TOKENS = 256
"""Reserved for load balancing where the request names no limit."""
BYTES_PER_TOKEN = 4
MAX_OUTPUT_TOKENS = 1 << 31
MAX_ANSWERS = 128
"""Numbers above these are the engine's to refuse, and no reason to believe that it is busy."""
_WITHOUT_OUTPUT = frozenset({"/v1/embeddings", "/v1/messages/count_tokens", "/tokenize", "/detokenize"})
_MANY_PROMPTS = re.compile(rb"\[\s*[\[\"]").match
"""Not a list that begins with a number: that is one prompt in token ids, and may be long."""


NOTHING = msgspec.Raw(b"")
"""For fields that are only taken apart where they must be."""


class Fields(msgspec.Struct, gc=False):
    """Top-level fields; `Any`, because a wrong type is the engine's 400 to give wherever we can do without."""

    model: Any = None
    stream: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    best_of: Any = None
    prompt: msgspec.Raw = NOTHING
    user: Any = None
    safety_identifier: Any = None
    metadata: msgspec.Raw = NOTHING


_decode = msgspec.json.Decoder(Fields).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_fields(body: bytes) -> Fields:
    """Return the fields of `body`. Raises BadRequest when it is no JSON object or names no model."""
    try:
        fields = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(f"the request body must be a JSON object: {exc}") from exc
    if type(fields.model) is not str:
        missing = "missing" if fields.model is None else "not a string"
        raise BadRequest(f"the field `model` is {missing}", param="model")
    return fields


def estimate_tokens(fields: Fields, num_body_bytes: int, path: str) -> int:
    """Return roughly how many tokens the request costs, prompt and answers: for balancing, never for billing."""
    asked = fields.max_completion_tokens
    if asked is None:
        asked = fields.max_tokens
    if type(asked) is not int or not 0 <= asked <= MAX_OUTPUT_TOKENS:
        asked = _other_limit(fields, path)
    prompt = fields.prompt
    if fields.n is not None or fields.best_of is not None or (prompt is not NOTHING and _MANY_PROMPTS(prompt)):
        asked *= _num_answers(fields)
    return num_body_bytes // BYTES_PER_TOKEN + asked


def _other_limit(fields: Fields, path: str) -> int:
    """Output tokens where neither of the usual fields limits them."""
    if path in _WITHOUT_OUTPUT:
        return 0
    asked = fields.max_output_tokens
    return asked if type(asked) is int and 0 <= asked <= MAX_OUTPUT_TOKENS else DEFAULT_OUTPUT_TOKENS


def _num_answers(fields: Fields) -> int:
    """How many sequences are computed: `n` or `best_of` for each prompt."""
    asked = [value for value in (fields.n, fields.best_of) if type(value) is int and 1 <= value <= MAX_ANSWERS]
    num_prompts = len(_decode_list(fields.prompt)) if _MANY_PROMPTS(fields.prompt) else 1
    return max(asked, default=1) * num_prompts


# A string (possessive: no backtracking stack on megabytes of escapes), or one structural character.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]', re.DOTALL)
_SPACE = b" \t\r\n"


def replace_model(body: bytes, name: str) -> bytes:
    """Return `body`, which `read_fields` accepted, with the top-level `model` value replaced and all else untouched.

    With several `model` keys the last one counts, as in every JSON parser at work here; all of them are replaced, so
    that an engine with another opinion cannot be made to serve something else.
    """
    pieces, end = [], 0
    for start, stop in _model_spans(body):
        pieces += [body[end:start], orjson.dumps(name)]
        end = stop
    return b"".join([*pieces, body[end:]])


def _model_spans(body: bytes) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    depth, key, value_start = 0, b"", -1
    for token in _TOKEN.finditer(body):
        char = body[token.start() : token.start() + 1]
        if char == b'"':
            if depth == 1 and value_start < 0:
                key = token[0]
        elif char in b"{[":
            depth += 1
        elif char == b":":
            if depth == 1:
                value_start = token.end()
        else:
            ends_value = depth == 1 and value_start >= 0
            depth -= char in b"}]"
            if ends_value:
                if _is_model(key):
                    spans.append(_trimmed(body, value_start, token.start()))
                value_start = -1
    return spans


def _is_model(key: bytes) -> bool:
    if key == b'"model"':
        return True
    return b"\\" in key and bool(orjson.loads(key) == "model")


def _trimmed(body: bytes, start: int, stop: int) -> tuple[int, int]:
    while body[start] in _SPACE:
        start += 1
    while body[stop - 1] in _SPACE:
        stop -= 1
    return start, stop
