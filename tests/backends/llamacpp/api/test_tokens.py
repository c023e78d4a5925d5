"""Requests to tokenize and detokenize."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.llamacpp.api.fields import RequestError, parse
from backends.llamacpp.api.tokens import MAX_LENGTH, DetokenizeRequest, TokenizeRequest, read

ASKED = {"messages": [{"role": "user", "content": "x", "thoughts": None}]}


def given(**fields: Any) -> TokenizeRequest:
    return read(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x"},
        {"prompt": "x", "add_special_tokens": False, "tools": None},
        ASKED,
        ASKED | {"chat_template_kwargs": {"a": 1}, "add_special_tokens": None},
    ],
)
def test_taken(fields: dict[str, Any]) -> None:
    request = given(**fields)
    assert (request.prompt is None) == ("messages" in fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        (ASKED | {"prompt": "x"}, "prompt"),
        ({"prompt": "x", "tools": []}, "tools"),
        ({"prompt": "x", "chat_template_kwargs": {}}, "chat_template_kwargs"),
        (ASKED | {"add_special_tokens": False}, "add_special_tokens"),
        (ASKED | {"add_special_tokens": True}, "add_special_tokens"),
        ({"prompt": "x" * (MAX_LENGTH + 1)}, "prompt"),
    ],
)
def test_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        given(**fields)
    assert caught.value.param == param


def test_too_many_tokens_to_show() -> None:
    with pytest.raises(RequestError) as caught:
        parse(b'{"tokens": [5%b]}' % (b",5" * MAX_LENGTH), DetokenizeRequest)
    assert caught.value.param == "tokens"
