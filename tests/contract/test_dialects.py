"""/v1/responses by OpenAI's SDK and /v1/messages by Anthropic's: the same answers as from chat."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.contract.engines import MODEL, Running

QUESTION = "What is the capital of France?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def expected(model: Running) -> str:
    """The answer from chat."""
    model.needs("chat")
    with model.openai() as client:
        answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=60, temperature=0)
    return answer.choices[0].message.content or ""


class TestResponses:
    @pytest.fixture(autouse=True)
    def responds(self, model: Running) -> None:
        model.needs("responses")

    def options(self, **more: Any) -> dict[str, Any]:
        return {"model": MODEL, "input": QUESTION, "max_output_tokens": 60, "temperature": 0, "store": False, **more}

    def test_an_answer(self, model: Running, expected: str) -> None:
        with model.openai() as client:
            answer = client.responses.create(**self.options())
        assert (answer.status, answer.output_text) == ("completed", expected)
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens

    def test_a_stream_ends_once(self, model: Running, expected: str) -> None:
        with model.openai() as client:
            events = list(client.responses.create(**self.options(stream=True)))
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == expected
        assert events[0].type == "response.created"
        ends = ("response.completed", "response.incomplete", "response.failed")
        assert [event.type for event in events if event.type in ends] == ["response.completed"]
        assert events[-1].type == "response.completed"

    def test_an_answer_that_is_cut(self, model: Running) -> None:
        with model.openai() as client:
            answer = client.responses.create(**self.options(max_output_tokens=2))
        assert answer.status == "incomplete"

    def test_errors(self, model: Running) -> None:
        with model.openai() as client:
            with pytest.raises(openai.NotFoundError):
                client.responses.create(**self.options(model="gpt-9"))
            with pytest.raises(openai.BadRequestError):
                client.responses.create(**self.options(temperature=-3))


class TestMessages:
    @pytest.fixture(autouse=True)
    def speaks(self, model: Running) -> None:
        model.needs("messages")

    def options(self, **more: Any) -> dict[str, Any]:
        """Sampling is no longer among the SDK's own arguments."""
        return {"model": MODEL, "messages": MESSAGES, "max_tokens": 60, "extra_body": {"temperature": 0}, **more}

    def test_an_answer(self, model: Running, expected: str) -> None:
        with model.anthropic() as client:
            answer = client.messages.create(**self.options())
            cut = client.messages.create(**self.options(max_tokens=2))
        assert (answer.role, answer.stop_reason) == ("assistant", "end_turn")
        assert "".join(block.text for block in answer.content if block.type == "text") == expected
        assert cut.stop_reason == "max_tokens"
        assert cut.usage.output_tokens == 2

    def test_a_stream_is_the_same_answer(self, model: Running, expected: str) -> None:
        with model.anthropic() as client, client.messages.stream(**self.options()) as stream:
            pieces = list(stream.text_stream)
            final = stream.get_final_message()
        assert "".join(pieces) == expected
        assert sum(bool(piece) for piece in pieces) > 1
        assert final.stop_reason == "end_turn"

    def test_tokens_are_counted(self, model: Running) -> None:
        with model.anthropic() as client:
            counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens
            usage = client.messages.create(**self.options(max_tokens=1)).usage
        assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)

    def test_errors(self, model: Running) -> None:
        with model.anthropic() as client:
            with pytest.raises(anthropic.NotFoundError):
                client.messages.create(**self.options(model="claude-9"))
            with pytest.raises(anthropic.BadRequestError):
                client.messages.create(**self.options(messages=[{"role": "boss", "content": "hi"}]))
