"""POST /v1/embeddings: what may be asked, and how vectors are written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from backends.llamacpp.api.embeddings import (  # noqa: E402
    MAX_INPUTS,
    EmbeddingRequest,
    body,
    check_ids,
    inputs,
    unit_vector,
)
from backends.llamacpp.api.fields import RequestError, parse  # noqa: E402


def ask(**fields: Any) -> EmbeddingRequest:
    return parse(json.dumps(fields).encode(), EmbeddingRequest)


def test_every_form_of_input() -> None:
    assert inputs(ask(input="a text")) == {"input": "a text"}
    assert inputs(ask(input=["a", "b"])) == {"input[0]": "a", "input[1]": "b"}
    assert inputs(ask(input=[1, 2, 3])) == {"input": [1, 2, 3]}
    assert inputs(ask(input=[[1, 2], [3]])) == {"input[0]": [1, 2], "input[1]": [3]}
    assert len(inputs(ask(input=["a"] * MAX_INPUTS))) == MAX_INPUTS


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ("", "input", "an empty text"),
        ([], "input", "an empty list"),
        ([""], "input[0]", "an empty text"),
        ([[]], "input[0]", "an empty text"),
        (["a", ""], "input[1]", "an empty text"),
        (["a", [1]], "input[1]", "do not go together"),
        ([[1], "a"], "input[1]", "do not go together"),
        (["a", 1], "input[1]", "do not go together"),
        (["a", None], "input[1]", "do not go together"),
        (5, "input", "must be a text"),
        (None, "input", "must be a text"),
        ({"text": "a"}, "input", "must be a text"),
        (["a"] * (MAX_INPUTS + 1), "input", "at most 2048 texts in one request, got 2049"),
    ],
)
def test_a_bad_input_is_named(given: Any, param: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as error:
        inputs(ask(input=given))
    assert error.value.param == param


@pytest.mark.parametrize("wrong", [-1, 100, 1.5, True, "a", None, [1], 2**80])
def test_what_is_no_token_is_refused(wrong: Any) -> None:
    with pytest.raises(RequestError, match=r"input\[2\]: no such token: .* \(0 to 99\)"):
        check_ids("input[2]", [1, 2, wrong], 100)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "4"}, "dimensions"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate": True}, "truncate"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as error:
        ask(input="a", **fields)
    assert error.value.param == param


def test_fields_that_concern_the_sender_alone_are_harmless() -> None:
    assert ask(input="a", user="me", encoding_format=None) == EmbeddingRequest(input="a")


def test_vectors_are_cut_first_and_scaled_to_length_one_then() -> None:
    vector = np.array([3, 4, 12], np.float32)
    assert unit_vector(vector, None).tolist() == pytest.approx([3 / 13, 4 / 13, 12 / 13])
    assert unit_vector(vector, 2).tolist() == pytest.approx([0.6, 0.8])
    assert unit_vector(np.zeros(3, np.float32), None).tolist() == [0, 0, 0]


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_both_encodings_say_the_same(encoding: str | None) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    answer = json.loads(b"".join(body('a "model"', vectors, encoding, 17)))
    assert answer["object"] == "list"
    assert answer["model"] == 'a "model"'
    assert answer["usage"] == {"prompt_tokens": 17, "total_tokens": 17}
    assert [(item["object"], item["index"]) for item in answer["data"]] == [("embedding", n) for n in range(3)]
    for item, vector in zip(answer["data"], vectors, strict=True):
        value = item["embedding"]
        found = np.frombuffer(base64.b64decode(value), "<f4") if encoding == "base64" else np.array(value, np.float32)
        assert found.tolist() == vector.tolist()
