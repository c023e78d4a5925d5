"""The client of an endpoint, against answers of both kinds of engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from finetune.errors import RecipeUnusable
from finetune.parity.served import Endpoint, EndpointFailed, EndpointRefused

Reply = Callable[[httpx.Request], httpx.Response]


def endpoint(reply: Reply, waits: list[float] | None = None, key: str = "") -> Endpoint:
    waited = waits if waits is not None else []
    return Endpoint("http://gpu:8080/v1/", "support", key, httpx.MockTransport(reply), waited.append)


def told(body: Any, status: int = 200, **headers: str) -> Reply:
    return lambda _: httpx.Response(status, json=body, headers=headers)


def test_a_version_is_described_and_a_candidate_is_for_the_token() -> None:
    body = {"parent": "demo", "root": "support@1", "capabilities": ["chat"], "literal_special_text": True}
    seen: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=body)

    with endpoint(reply, key="secret") as asked:
        model = asked.describe()
    assert (model.parent, model.root, model.is_literal) == ("demo", "support@1", True)
    assert (seen[0].url.path, seen[0].headers["authorization"]) == ("/v1/models/support", "Bearer secret")
    unknown = told({"error": {"message": "the model 'support' does not exist"}}, 404)
    with endpoint(unknown) as asked, pytest.raises(RecipeUnusable, match=r"does not exist; a candidate .* admin token"):
        asked.describe()


def test_scores_are_asked_for_in_calls_and_put_in_order() -> None:
    calls: list[dict[str, Any]] = []

    def reply(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        calls.append(body)
        choices = [
            {"index": place, "logprobs": {"token_logprobs": [None, *[-float(token) for token in text[1:]]]}}
            for place, text in enumerate(body["prompt"])
        ]
        return httpx.Response(200, json={"choices": choices[::-1]})

    texts = [[1, 2, 3], *[[4, 5]] * 40]
    with endpoint(reply) as asked:
        found = asked.scores("support", texts)
    assert found == [[-2.0, -3.0], *[[-5.0]] * 40]
    assert [len(call["prompt"]) for call in calls] == [32, 9]
    assert calls[0] | {"prompt": 0} == {"model": "support", "prompt": 0, "max_tokens": 0, "echo": True, "logprobs": 0}


def test_scores_of_other_lengths_are_no_answer() -> None:
    short = told({"choices": [{"index": 0, "logprobs": {"token_logprobs": [None]}}]})
    with endpoint(short) as asked, pytest.raises(EndpointFailed, match="other numbers of tokens"):
        asked.scores("support", [[1, 2, 3]])


@pytest.mark.parametrize(
    ("message", "reason", "text", "has_ended", "is_plain"),
    [
        ({"content": "hi"}, "stop", "hi", True, True),
        ({"content": None, "tool_calls": [{}]}, "tool_calls", "", True, False),
        ({"content": "hi", "reasoning_content": "so"}, "stop", "hi", True, False),
        ({"content": "hi"}, "length", "hi", False, True),
    ],
)
def test_an_answer_is_read(message: dict[str, Any], reason: str, text: str, has_ended: bool, is_plain: bool) -> None:
    body = {"choices": [{"message": message, "finish_reason": reason}], "usage": {"prompt_tokens": 7}}
    with endpoint(told(body)) as asked:
        answer = asked.answer([{"role": "user", "content": "?"}], 9)
    assert (answer.text, answer.has_ended, answer.is_plain, answer.num_prompt_tokens) == (text, has_ended, is_plain, 7)


def test_it_waits_where_the_endpoint_is_only_busy() -> None:
    replies = [httpx.Response(503, json={}, headers={"retry-after": "2"}), httpx.Response(429, json={}),
               httpx.Response(200, json={"tokens": [1, 2]})]  # fmt: skip
    waits: list[float] = []
    with endpoint(lambda _: replies.pop(0), waits) as asked:
        assert asked.tokenize([]) == [1, 2]
    assert waits == [2.0, 1.0]


def test_refusals_and_strange_answers_are_told_in_words() -> None:
    refused = told({"error": {"message": "echo is not supported"}}, 400)
    with endpoint(refused) as asked, pytest.raises(EndpointRefused, match="echo is not supported") as caught:
        asked.tokenize([])
    assert caught.value.status == 400
    waits: list[float] = []
    with (
        endpoint(told({"error": {"message": "full"}}, 503), waits) as asked,
        pytest.raises(EndpointRefused, match="full"),
    ):
        asked.tokenize([])
    assert len(waits) == 7
    page = endpoint(lambda _: httpx.Response(200, text="<html>"))
    with page as asked, pytest.raises(EndpointFailed, match="does not answer as an OpenAI-compatible endpoint"):
        asked.describe()

    def broken(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with endpoint(broken) as asked, pytest.raises(EndpointFailed, match="http://gpu:8080 cannot be reached: refused"):
        asked.describe()
