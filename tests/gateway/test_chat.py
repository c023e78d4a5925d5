from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from rich.console import Console

from gateway.chat import Chat, ChatError, first_model, talk


def events(*pieces: str, end: str = "data: [DONE]\n\n") -> bytes:
    lines = [f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n" for piece in pieces]
    return (": a comment\n\n" + "".join(lines) + end).encode()


class Endpoint:
    """Answers each chat request with the next of `answers`; remembers the requests."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.requests: list[dict[str, object]] = []
        self._answers = iter(answers)

    def chat(self) -> Chat:
        return Chat(httpx.Client(base_url="http://gw", transport=httpx.MockTransport(self._answer)), "demo")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(json.loads(request.content))
        return next(self._answers)


def ok(*pieces: str) -> httpx.Response:
    return httpx.Response(200, content=events(*pieces))


def typed(*lines: str | type[BaseException]) -> Callable[[str], str]:
    """What the user types; an exception class is raised in its place; then end of input."""
    items: Iterator[str | type[BaseException]] = iter((*lines, EOFError))

    def read(prompt: str) -> str:
        item = next(items)
        if isinstance(item, str):
            return item
        raise item

    return read


def test_turns_are_remembered_with_the_system_prompt() -> None:
    endpoint = Endpoint(ok("안녕", "!"), ok("b"))
    chat = endpoint.chat()
    chat.system = "short"
    assert "".join(chat.ask("one")) == "안녕!"
    assert "".join(chat.ask("two")) == "b"
    roles = [(message["role"], message["content"]) for message in endpoint.requests[1]["messages"]]  # type: ignore[attr-defined]
    assert roles == [("system", "short"), ("user", "one"), ("assistant", "안녕!"), ("user", "two")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(503, json={"error": {"message": "no engine is ready"}}), "no engine is ready (503)"),
        (
            httpx.Response(200, content=events("a", end='data: {"error": {"message": "engine died"}}\n\n')),
            "engine died",
        ),
        (httpx.Response(200, content=events("a", end="")), "ended before it was complete"),
        (httpx.Response(200, content=b"data: {nonsense\n\n"), "not JSON"),
    ],
)
def test_a_failed_turn_is_an_error_and_forgotten(answer: httpx.Response, words: str) -> None:
    chat = Endpoint(answer).chat()
    with pytest.raises(ChatError) as caught:
        list(chat.ask("one"))
    assert words in str(caught.value)
    assert chat.messages == []


def test_a_stopped_answer_is_kept_as_far_as_it_came() -> None:
    chat = Endpoint(ok("a", "b", "c")).chat()
    pieces = chat.ask("one")
    assert next(pieces) == "a"
    pieces.close()  # type: ignore[attr-defined]
    assert chat.messages[-1] == {"role": "assistant", "content": "a"}


def test_a_dialogue_with_commands_errors_and_interrupts() -> None:
    refused = httpx.Response(429, json={"error": {"message": "busy"}})
    endpoint = Endpoint(ok("hello [b]you[/b]"), refused, ok("fresh"))
    out = io.StringIO()
    lines = ("hi", "again", KeyboardInterrupt, "/system be brief", "/nope", "/reset", "", "x", "/exit", "never read")
    assert talk(endpoint.chat(), Console(file=out, width=80), typed(*lines)) == 0
    shown = out.getvalue()
    assert "hello [b]you[/b]" in shown  # markup in an answer is text
    assert "error: busy (429)" in shown
    assert "unknown command /nope" in shown
    assert [message["role"] for message in endpoint.requests[-1]["messages"]] == ["system", "user"]  # type: ignore[attr-defined]


def test_end_of_input_leaves() -> None:
    assert talk(Endpoint().chat(), Console(file=io.StringIO()), typed()) == 0


def test_the_first_model_and_what_is_no_endpoint() -> None:
    def client(reply: httpx.Response) -> httpx.Client:
        return httpx.Client(base_url="http://gw", transport=httpx.MockTransport(lambda _: reply))

    assert first_model(client(httpx.Response(200, json={"data": [{"id": "demo"}]}))) == "demo"
    for reply in (
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"data": []}),
        httpx.Response(401, json={}),
    ):
        with pytest.raises(ChatError):
            first_model(client(reply))
