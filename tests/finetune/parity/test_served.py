"""The client of an endpoint, against answers of both kinds of engines."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from finetune.errors import RecipeUnusable
from finetune.parity.served import Endpoint, EndpointFailed, EndpointRefused
from gateway.control import app

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
    assert seen[0].headers["x-forgegate-no-log"] == "1"


def ours(admin_status: int) -> Reply:
    """A forgegate that knows no such model; `admin_status` of a call that is the admin's."""

    def reply(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/unload_lora_adapter":
            return httpx.Response(admin_status, json={"error": {"message": "the admin alone"}})
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "demo", "owned_by": "forgegate"}]})
        return httpx.Response(404, json={"error": {"message": "the model does not exist; there are: demo"}})

    return reply


CANDIDATE = "support@0123456789ab"


@pytest.mark.parametrize(
    ("status", "key", "words"),
    [
        (401, "stale", r"the token that was sent is not the admin token of http://gpu:8080"),
        (403, "a-client", r"the token that was sent is not the admin token of http://gpu:8080"),
        (401, "", r"no token was sent"),
    ],
)
def test_a_candidate_that_is_hidden_from_a_wrong_token_is_not_said_to_be_absent(
    status: int, key: str, words: str
) -> None:
    with endpoint(ours(status), key=key) as asked, pytest.raises(RecipeUnusable, match=words) as caught:
        asked.describe(CANDIDATE)
    assert "FORGEGATE_ADMIN_TOKEN" in str(caught.value)


@pytest.mark.parametrize(("name", "status"), [(CANDIDATE, 400), (CANDIDATE, 422), ("nobody", 401)])
def test_what_no_token_would_show_does_not_exist(name: str, status: int) -> None:
    with endpoint(ours(status), key="admin") as asked, pytest.raises(RecipeUnusable) as caught:
        asked.describe(name)
    assert str(caught.value) == "the model does not exist; there are: demo"


def test_the_address_of_the_admin_api_is_said_to_be_that() -> None:
    assert 'title="forgegate admin API"' in inspect.getsource(app.create_app)

    def reply(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/openapi.json":
            return httpx.Response(200, json={"openapi": "3.1.0", "info": {"title": "forgegate admin API"}, "paths": {}})
        return httpx.Response(404, json={"error": {"message": f"no such path: {request.url.path}; see /docs"}})

    for name in ("support", CANDIDATE):
        with endpoint(reply, key="admin") as asked, pytest.raises(RecipeUnusable) as caught:
            asked.describe(name)
        assert str(caught.value) == (
            "http://gpu:8080 is the admin API of a gateway: name its endpoint, where clients ask (`forgegate serve` prints both)"
        )


@pytest.mark.parametrize("page", [{"info": {"title": "FastAPI"}}, {"info": None}, {}])
def test_another_page_of_that_name_means_nothing(page: dict[str, Any]) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        body = page if request.url.path == "/openapi.json" else {"error": {"message": "unknown"}}
        return httpx.Response(200 if request.url.path == "/openapi.json" else 404, json=body)

    with endpoint(reply) as asked, pytest.raises(RecipeUnusable, match=r"^unknown$"):
        asked.describe()


def test_a_key_that_is_refused_is_said_with_where_it_is_set() -> None:
    refused = told({"error": {"message": "the API key is not known here"}}, 401)
    with endpoint(refused) as asked, pytest.raises(RecipeUnusable) as caught:
        asked.describe()
    assert str(caught.value) == (
        "http://gpu:8080: the API key is not known here (set FORGEGATE_ADMIN_TOKEN or FORGEGATE_API_KEY)"
    )


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


def listing(*models: dict[str, Any]) -> Reply:
    """vLLM: a list, and nothing below it."""

    def reply(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"object": "list", "data": list(models)})
        return httpx.Response(404, json={"detail": "Not Found"})

    return reply


VLLM = (
    {"id": "base", "owned_by": "vllm", "root": "/models/base", "parent": None, "max_model_len": 4096},
    {"id": "support", "owned_by": "vllm", "root": "/adapters/a@0123456789ab", "parent": "base", "max_model_len": None},
)


def test_a_model_is_found_in_a_list_where_there_is_but_that() -> None:
    with endpoint(listing(*VLLM)) as asked:
        model, base = asked.describe(), asked.describe("base")
        with pytest.raises(RecipeUnusable) as caught:
            asked.describe("nobody")
    assert (model.name, model.parent, model.root, model.max_context) == ("support", "base", "", 4096)
    assert (base.parent, base.root, base.is_literal, base.capabilities) == ("", "", False, ())
    assert str(caught.value) == "http://gpu:8080 serves no model 'nobody'; it has base, support"


@pytest.mark.parametrize("name", ["context_length", "max_model_len"])
def test_how_long_a_context_is_served_is_read(name: str) -> None:
    with endpoint(told({name: 2048})) as asked:
        assert asked.describe().max_context == 2048
    with endpoint(told({name: None})) as asked:
        assert asked.describe().max_context is None


@pytest.mark.parametrize("url", ["http://gpu:port", "http://[::1"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(EndpointFailed, match="is no address"):
        Endpoint(url, "support")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"index": 0, "logprobs": None}]},
        {"choices": [{"index": 0, "logprobs": {"token_logprobs": None}}]},
        {"choices": [{"index": 0, "logprobs": {"token_logprobs": [None, None, -1.0]}}]},
        {"choices": [{"index": 0, "logprobs": {"token_logprobs": [None, "much", -1.0]}}]},
    ],
)
def test_a_200_that_says_nothing_is_a_failure_of_the_endpoint(body: dict[str, Any]) -> None:
    with endpoint(told(body)) as asked:
        with pytest.raises(EndpointFailed):
            asked.scores("support", [[1, 2, 3]])
        if "logprobs" not in str(body):
            with pytest.raises(EndpointFailed, match="answers /v1/chat/completions otherwise"):
                asked.answer([], 9)
        with pytest.raises(EndpointFailed, match="answers /tokenize otherwise"):
            asked.tokenize([])


@pytest.mark.parametrize("body", [{"data": None}, {"data": [{}]}, {}])
def test_a_list_of_another_form_is_said(body: dict[str, Any]) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if request.url.path == "/v1/models" else 404, json=body)

    with endpoint(reply) as asked, pytest.raises(EndpointFailed, match="answers /v1/models otherwise"):
        asked.describe()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_scores_that_are_no_numbers_pass_nothing(value: str) -> None:
    text = f'{{"choices": [{{"index": 0, "logprobs": {{"token_logprobs": [null, -1.0, {value}]}}}}]}}'
    reply = httpx.Response(200, text=text)
    with endpoint(lambda _: reply) as asked, pytest.raises(EndpointFailed, match="no finite number"):
        asked.scores("support", [[1, 2, 3]])


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
