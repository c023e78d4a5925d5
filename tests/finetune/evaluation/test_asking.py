"""The client of an endpoint: streams, calls, refusals, patience, log-probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from finetune.evaluation.asking import NUM_TRIES, Asker, Reply, Strange
from finetune.evaluation.items import Kind
from finetune.parity.served import EndpointFailed, EndpointRefused
from tests.finetune.evaluation.server import Said, Script, serving

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "temperature": 0}


def ask(script: Script, request: dict[str, Any], kind: Kind = "chat", waits: list[float] | None = None) -> Reply:
    waited = waits if waits is not None else []

    async def sleep(wait_s: float) -> None:
        waited.append(wait_s)

    async def once(url: str) -> Reply:
        async with Asker(url + "/v1/", "secret", sleep=sleep) as asker:
            return await asker.ask("tuned", kind, request)

    with serving(script) as url:
        return asyncio.run(once(url))


def saying(*several: Said) -> Callable[[dict[str, Any]], Said]:
    left = list(several)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("streams", [True, False])
def test_an_answer_with_its_tokens_times_and_version(streams: bool) -> None:
    script = Script(saying(Said("Hello there", finish="length")), streams=streams)
    reply = ask(script, CHAT)
    answer = reply.answer
    assert (answer.text, answer.finish, answer.num_prompt_tokens, answer.num_tokens) == ("Hello there", "length", 7, 11)
    assert reply.resolved == ("tuned@ba9876543210" if streams else "")
    assert answer.latency_s is not None
    assert answer.latency_s > 0
    assert (answer.ttft_s is not None) == streams
    assert script.asked()[0] == {"model": "tuned", **CHAT, "stream": True, "stream_options": {"include_usage": True}}


def test_calls_become_the_text_that_the_demo_scores() -> None:
    script = Script(saying(Said("", calls=(("f", '{"a": 1}'), ("g", "{}")))))
    assert ask(script, CHAT).answer.text == (
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    )


def test_a_text_is_continued_by_the_other_api() -> None:
    script = Script(saying(Said(" world")))
    request = {"prompt": "Hello", "max_tokens": 4, "temperature": 0, "stop": ["\n"]}
    assert ask(script, request, "generate").answer.text == " world"
    assert script.asked("/v1/completions")[0]["stop"] == ["\n"]


@pytest.mark.parametrize("status", [429, 503])
def test_who_is_busy_is_asked_again_after_as_long_as_it_says(status: int) -> None:
    waits: list[float] = []
    script = Script(saying(Said("busy", status, {"retry-after": "3"}), Said("busy", status), Said("Hello")))
    assert ask(script, CHAT, waits=waits).answer.text == "Hello"
    assert waits == [3.0, 1.0]


def test_who_stays_busy_is_given_up() -> None:
    waits: list[float] = []
    with pytest.raises(EndpointFailed, match=rf"overloaded \({NUM_TRIES} tries\)"):
        ask(Script(saying(Said("overloaded", 503, {"retry-after": "9999"}))), CHAT, waits=waits)
    assert waits == [30.0] * (NUM_TRIES - 1)


@pytest.mark.parametrize("broken", [Said("Hello", is_cut=True), Said("Hello", error="the engine died")])
def test_an_answer_that_breaks_off_is_asked_for_again(broken: Said) -> None:
    script = Script(saying(broken, Said("Hello there")))
    assert ask(script, CHAT).answer.text == "Hello there"
    assert len(script.asked()) == 2


def test_a_refusal_is_not_repeated() -> None:
    script = Script(saying(Said("max_tokens is too large", 400)))
    with pytest.raises(EndpointRefused, match="max_tokens is too large") as caught:
        ask(script, CHAT)
    assert (caught.value.status, len(script.asked())) == (400, 1)


def test_nobody_there_is_said() -> None:
    async def once() -> None:
        async with Asker("http://127.0.0.1:9") as asker:
            await asker.ask("demo", "chat", CHAT)

    with pytest.raises(EndpointFailed, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        asyncio.run(once())


def test_choices_are_scored_by_the_tokens_that_come_after_the_prompt() -> None:
    script = Script(saying(Said()), logprob=lambda model, token: -float(ord(token)) / 100)
    reply = ask(script, {"prompt": "Q:", "choices": [" a", " bb"]}, "choose")
    assert reply.answer.scores == pytest.approx((-(32 + 97) / 100, -(32 + 98 + 98) / 100))
    scored = script.asked("/v1/completions")[0]
    assert [len(ids) for ids in scored["prompt"]] == [4, 5]
    assert (scored["max_tokens"], scored["echo"], scored["logprobs"]) == (0, True, 0)
    assert all(body["add_special_tokens"] is False for body in script.asked("/tokenize"))


def test_a_choice_without_a_prompt_begins_with_the_token_that_begins_texts() -> None:
    script = Script(saying(Said()))
    reply = ask(script, {"prompt": "", "choices": ["ab", "c"]}, "choose")
    assert reply.answer.scores == (-2.0, -1.0)
    assert script.asked("/v1/completions")[0]["prompt"] == [[1, 97, 98], [1, 99]]


def test_the_log_probability_of_a_given_answer() -> None:
    script = Script(saying(Said()), logprob=lambda model, token: -0.5)
    reply = ask(script, {"messages": CHAT["messages"], "answer": "yes"}, "given")
    assert (reply.answer.scores, reply.answer.num_prompt_tokens, reply.answer.num_tokens) == ((-1.5,), 3, 3)


def test_what_is_no_finite_number_is_a_fault_of_the_endpoint() -> None:
    script = Script(saying(Said()), logprob=lambda model, token: float("-inf"))
    with pytest.raises(EndpointFailed, match="no finite number"):
        ask(script, {"prompt": "Q", "choices": ["a", "b"]}, "choose")


@pytest.mark.parametrize("scored", [{"choices": []}, {"choices": [3]}, {"object": "list"}])
def test_what_is_no_answer_is_strange(scored: dict[str, Any]) -> None:
    script = Script(saying(Said("x")), whole=scored)
    with pytest.raises(Strange, match="OpenAI-compatible endpoint"):
        ask(script, CHAT)
    assert len(script.asked()) == 1
