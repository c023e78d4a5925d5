"""Prompts of text completions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.llamacpp.api.completions import CompletionRequest, prompts
from backends.llamacpp.api.fields import RequestError, parse

MAX_LENGTH = 50


def read(prompt: Any) -> list[str | list[int]]:
    return prompts(parse(json.dumps({"prompt": prompt}).encode(), CompletionRequest), MAX_LENGTH)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["a", [1]], ["a", [1]]),
    ],
)
def test_prompts(prompt: Any, found: list[Any]) -> None:
    assert read(prompt) == found


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], [True], [1, [2]], ["a", 1], {}, None, [-1], [2**31], [1.5]])
def test_what_is_no_prompt(prompt: Any) -> None:
    with pytest.raises(RequestError, match="must be a text, token ids"):
        read(prompt)


@pytest.mark.parametrize("prompt", [[5] * 60 + ["x"], ["a", [5] * 60 + ["x"]]])
def test_too_many_tokens_are_not_looked_at(prompt: Any) -> None:
    with pytest.raises(RequestError) as caught:
        read(prompt)
    assert caught.value.code == "context_length_exceeded"
