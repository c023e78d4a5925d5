"""Reading and rewriting request bodies."""

from __future__ import annotations

import json
import time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.data.body import estimate_tokens, read_fields, replace_model
from gateway.errors import BadRequest

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.sampled_from(["model", '"', "\\"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "x", '"model":', "a\\"]) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=5) | st.sampled_from(["mode", "models", '"model"']), values, max_size=5)


@given(objects, st.text(max_size=8), st.text(max_size=8), st.integers(0, 5), st.booleans(), st.booleans())
@settings(deadline=None)
def test_only_the_top_level_model_is_replaced(
    rest: dict[str, object], old: str, new: str, place: int, is_ascii: bool, is_wide: bool
) -> None:
    rest.pop("model", None)
    items = list(rest.items())
    items.insert(place, ("model", old))
    body = json.dumps(dict(items), ensure_ascii=is_ascii, indent=2 if is_wide else None).encode(
        "utf-8", "surrogatepass"
    )
    if not _is_utf8(body):
        return
    replaced = replace_model(body, new)
    assert json.loads(replaced) == dict(items) | {"model": new}
    assert read_fields(replaced).model == new


def _is_utf8(body: bytes) -> bool:
    try:
        read_fields(body)
    except BadRequest:
        return False
    return True


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', b'{"model":"N"}'),
        (b' {"x":{"model":"a"},"model" : "a" }\n', b' {"x":{"model":"a"},"model" : "N" }\n'),
        (b'{"model":"a","model":"b"}', b'{"model":"N","model":"N"}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"N"}'),
        (b'{"x":"\\"model\\":\\"a\\"","model":"a"}', b'{"x":"\\"model\\":\\"a\\"","model":"N"}'),
        (b'{"x":["model",":"],"model":"a"}', b'{"x":["model",":"],"model":"N"}'),
        (b'{"n":1.0e5,"model":"a"}', b'{"n":1.0e5,"model":"N"}'),
    ],
)
def test_replacement_leaves_every_other_byte(body: bytes, expected: bytes) -> None:
    assert replace_model(body, "N") == expected


def test_the_last_of_several_models_counts() -> None:
    assert read_fields(b'{"model":"a","model":"b"}').model == "b"


def test_hostile_bodies_take_no_time() -> None:
    escapes = b'{"x":"' + b"\\n" * 500_000 + b'","model":"a"}'
    nested = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"model":"a"}'
    begun = time.perf_counter()
    assert replace_model(escapes, "N").endswith(b'"model":"N"}')
    assert replace_model(nested, "N").endswith(b'"model":"N"}')
    with pytest.raises(BadRequest):
        read_fields(nested)
    assert time.perf_counter() - begun < 2


def test_large_prompt() -> None:
    body = orjson.dumps(
        {"messages": [{"role": "user", "content": "hello \n" * 150_000}], "model": "a", "max_tokens": 7}
    )
    fields = read_fields(body)
    assert (fields.model, fields.max_tokens) == ("a", 7)
    assert orjson.loads(replace_model(body, "b"))["model"] == "b"


CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ({"max_output_tokens": 30}, 30),
        ({}, 256),
        ({"max_tokens": "many"}, 256),
        ({"max_tokens": -1}, 256),
        ({"max_tokens": True}, 256),
        ({"max_tokens": 1 << 62}, 256),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "n": 2, "best_of": 5}, 50),
        ({"max_tokens": 10, "n": 0, "best_of": "x"}, 10),
        ({"max_tokens": 10, "n": 10**6}, 10),
        ({"max_tokens": 10, "prompt": "a"}, 10),
        ({"max_tokens": 10, "prompt": ["a", "b", "c"]}, 30),
        ({"max_tokens": 10, "prompt": [[1, 2], [3]], "n": 2}, 40),
        ({"max_tokens": 10, "prompt": [1, 2, 3]}, 10),
        ({"max_tokens": 10, "prompt": []}, 10),
        ({"max_tokens": 10, "prompt": None}, 10),
        ({"max_tokens": 10, "prompt": {"a": 1}}, 10),
    ],
)
def test_estimate_survives_any_value(fields: dict[str, object], expected: int) -> None:
    read = read_fields(orjson.dumps({"model": "m", **fields}))
    assert estimate_tokens(read, 400, CHAT) == 100 + expected


@pytest.mark.parametrize("path", ["/v1/embeddings", "/tokenize", "/v1/messages/count_tokens"])
def test_what_draws_no_tokens_costs_its_prompt(path: str) -> None:
    assert estimate_tokens(read_fields(b'{"model":"m","input":["a","b"]}'), 400, path) == 100


def test_a_long_prompt_in_token_ids_is_not_taken_apart() -> None:
    fields = read_fields(orjson.dumps({"model": "m", "max_tokens": 1, "prompt": list(range(1_000_000))}))
    begun = time.perf_counter()
    assert estimate_tokens(fields, 0, "/v1/completions") == 1
    assert time.perf_counter() - begun < 0.01
