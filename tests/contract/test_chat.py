"""Chat: one answer, streamed or not, by the OpenAI SDK; every stream ends in exactly one way."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.contract.engines import MODEL, Running

FRANCE: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
OPEN: list[Any] = [{"role": "user", "content": "안녕하세요! What is KV cache? 🙂"}]
"""Many answers are as likely."""
KOREA: list[Any] = [{"role": "user", "content": "대한민국의 수도는 어디예요?"}]


@pytest.fixture(autouse=True)
def chats(engine: Running) -> None:
    engine.needs("chat")


def ask(engine: Running, messages: list[Any] = FRANCE, **options: Any) -> openai.types.chat.ChatCompletion:
    with engine.openai() as client:
        answer = client.chat.completions.create(model=MODEL, messages=messages, **{"temperature": 0, **options})
    assert isinstance(answer, openai.types.chat.ChatCompletion)
    return answer


def text_of(engine: Running, messages: list[Any] = FRANCE, **options: Any) -> str:
    return ask(engine, messages, **options).choices[0].message.content or ""


def streamed(engine: Running, messages: list[Any] = FRANCE, **options: Any) -> list[Any]:
    with engine.openai() as client:
        return list(
            client.chat.completions.create(
                model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True},
                **{"temperature": 0, **options},
            )
        )  # fmt: skip


def test_an_answer_says_why_it_ends_and_what_it_took(engine: Running) -> None:
    answer = ask(engine, max_tokens=5, extra_body={"ignore_eos": True})
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "length", "assistant")
    assert choice.message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5
    assert ask(engine, max_tokens=400).choices[0].finish_reason == "stop"


@pytest.mark.parametrize("messages", [FRANCE, KOREA], ids=["english", "korean"])
def test_a_stream_is_the_same_answer_in_pieces(model: Running, messages: list[Any]) -> None:
    whole = ask(model, messages, max_tokens=60)
    chunks = streamed(model, messages, max_tokens=60)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(bool(piece) for piece in pieces) > 1
    assert chunks[-1].usage == whole.usage or chunks[-1].usage.total_tokens == whole.usage.total_tokens  # type: ignore[union-attr]
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_ends_once(engine: Running) -> None:
    body = {"model": MODEL, "messages": FRANCE, "stream": True, "max_tokens": 5}
    with engine.client() as client:
        reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [block.removeprefix("data: ") for block in reply.text.split("\n\n") if block]
    assert events.count("[DONE]") == 1
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert len(reasons) == 1
    assert not any(chunk.get("usage") for chunk in chunks)  # nobody asked for it


def test_many_at_once_get_their_own_answers(model: Running) -> None:
    questions = [[{"role": "user", "content": f"What is {number} plus {number + 1}?"}] for number in range(8)]
    alone = [text_of(model, question, max_tokens=30) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: text_of(model, question, max_tokens=30), questions))
    assert together == alone
    assert len(set(alone)) > 4


def test_greedy_repeats_an_answer(model: Running) -> None:
    assert len({text_of(model, OPEN, max_tokens=24) for _ in range(3)}) == 1


def test_a_seed_repeats_an_answer(model: Running) -> None:
    def drawn(seed: int) -> str:
        return text_of(model, OPEN, max_tokens=8, temperature=1.5, seed=seed)

    drawn(0)  # from now on the prompt is in the cache, so that both times the same is computed
    assert drawn(7) == drawn(7)
    assert len({drawn(seed) for seed in range(6)}) > 1


def test_stop_strings_cut_the_answer(model: Running) -> None:
    whole = text_of(model, max_tokens=40)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    expected = whole[: whole.index(stop)]
    cut = ask(model, max_tokens=40, stop=[stop, "never occurs"])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (expected, "stop")
    pieces = [
        chunk.choices[0].delta.content or "" for chunk in streamed(model, max_tokens=40, stop=stop) if chunk.choices
    ]
    assert "".join(pieces) == expected


def test_log_probabilities(model: Running) -> None:
    answer = ask(model, max_tokens=5, logprobs=True, top_logprobs=3, extra_body={"ignore_eos": True})
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert len(found.content) == 5
    for entry in found.content:
        likeliest = [top.logprob for top in entry.top_logprobs]
        assert likeliest == sorted(likeliest, reverse=True)
        assert len(likeliest) == 3
        assert entry.logprob == pytest.approx(likeliest[0], abs=1e-4)  # greedy
        assert entry.logprob <= 0


def test_several_answers(model: Running) -> None:
    answer = ask(model, OPEN, n=3, max_tokens=12, temperature=1.5, seed=1)
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
