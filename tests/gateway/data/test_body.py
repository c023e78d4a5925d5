"""Reading and rewriting request bodies."""

from __future__ import annotations

import json
import time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.data.body import Fields, estimate_tokens, read_fields, replace_model
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


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (Fields(max_tokens=10), 110),
        (Fields(max_completion_tokens=20, max_tokens=10), 120),
        (Fields(), 356),
        (Fields(max_tokens="many"), 356),
        (Fields(max_tokens=-1), 356),
        (Fields(max_tokens=True), 356),
        (Fields(max_tokens=10**30), 356),
    ],
)
def test_estimate_survives_any_value(fields: Fields, expected: int) -> None:
    assert estimate_tokens(fields, 400) == expected
