"""The vendors' own SDKs as clients: every API that is relayed, and what they raise when something fails on the way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import orjson
import pytest

from backends.base import ENDPOINTS
from gateway.snapshot import Key
from tests.gateway.data.rig import DONE, Call, Rig, Script, StubEngine, chunk
from tests.gateway.data.vllm_wire import DEATH_EVENT, DONE_EVENT, MESSAGES_DEATH_EVENT

MESSAGES = [{"role": "user", "content": "hi"}]
TOKEN = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": []}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}}


def named(**fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(fields["type"]).encode(), orjson.dumps(fields))


DELTAS = {
    "/v1/chat/completions": TOKEN,
    "/v1/responses": named(type="response.output_text.delta", delta="a", sequence_number=1, item_id="i"),
    "/v1/messages": named(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "a"}),
}
LAST_EVENTS = {
    "/v1/chat/completions": b"data: [DONE]\n\n",
    "/v1/responses": named(type="response.completed", response=RESPONSE, sequence_number=2),
    "/v1/messages": named(type="message_stop"),
}


class Sdks:
    """Clients of one data plane; they do not retry, so that a test sees the first outcome."""

    def __init__(self, rig: Rig, key: str = "sk-1") -> None:
        self.url = f"http://127.0.0.1:{rig.port}"
        self.openai = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)
        self.anthropic = anthropic.AsyncAnthropic(base_url=self.url, api_key=key, max_retries=0)

    async def stream(self, path: str) -> AsyncIterator[Any]:
        """Events of a streamed answer."""
        match path:
            case "/v1/chat/completions":
                return await self.openai.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            case "/v1/responses":
                return await self.openai.responses.create(model="m", input="hi", stream=True)
            case _:
                return await self.anthropic.messages.create(model="m", messages=MESSAGES, max_tokens=9, stream=True)

    async def read(self, path: str, seen: list[object]) -> None:
        """Append a streamed answer's events to `seen`, up to its end or its error."""
        async for event in await self.stream(path):
            seen.append(event)  # noqa: PERF401 - what came before an error counts

    async def close(self) -> None:
        await self.openai.close()
        await self.anthropic.close()


@pytest.fixture
async def sdks(rig: Rig) -> AsyncIterator[Sdks]:
    rig.capabilities = ENDPOINTS
    await rig.start(StubEngine(answer({})))
    sdks = Sdks(rig)
    yield sdks
    await sdks.close()


def answer(body: dict[str, object], status: int = 200) -> Script:
    async def script(call: Call) -> None:
        await call.send_json(status, body)

    return script


def events(*pieces: bytes, is_whole: bool) -> Script:
    """A stream of these, in a chunk each; unless it is whole the engine dies after them."""

    async def script(call: Call) -> None:
        await call.begin_stream()
        for piece in pieces:
            await call.send(chunk(piece))
        if is_whole:
            await call.send(b"0\r\n\r\n")
        else:
            await asyncio.sleep(0.03)
            call.kill()

    return script


@pytest.mark.parametrize("path", DELTAS)
async def test_whole_streams(rig: Rig, sdks: Sdks, path: str) -> None:
    rig.engines[0].scripts = [events(DELTAS[path], DELTAS[path], LAST_EVENTS[path], is_whole=True)]
    seen = [event async for event in await sdks.stream(path)]
    assert len(seen) == (2 if path == "/v1/chat/completions" else 3)
    assert rig.engines[0].calls[0].head.startswith(b"POST %b HTTP/1.1\r\n" % path.encode())


@pytest.mark.parametrize("path", DELTAS)
async def test_an_engine_that_dies_in_a_stream_raises_in_the_sdk(rig: Rig, sdks: Sdks, path: str) -> None:
    rig.engines[0].scripts = [events(DELTAS[path], DELTAS[path], is_whole=False)]
    seen: list[object] = []
    with pytest.raises((openai.APIError, anthropic.APIStatusError)) as caught:
        await sdks.read(path, seen)
    assert len(seen) == 2
    error = caught.value
    if isinstance(error, anthropic.APIStatusError):
        assert (error.type, error.api_message) == ("api_error", "the engine m-0 closed the connection")
        assert error.request_id == rig.lines[-1].request_id == error.body["request_id"]  # type: ignore[index]
    else:
        assert (error.code, error.type) == ("engine_reset", "engine_error")
        assert error.message == "the engine m-0 closed the connection"
    await rig.settle()
    assert rig.lines[-1].error == "engine_reset"


@pytest.mark.parametrize(
    ("path", "last"),
    [("/v1/chat/completions", (DEATH_EVENT, DONE_EVENT)), ("/v1/messages", (MESSAGES_DEATH_EVENT,))],
)
async def test_a_vllm_whose_core_dies_in_a_stream_raises_in_the_sdk(
    rig: Rig, sdks: Sdks, path: str, last: tuple[bytes, ...]
) -> None:
    rig.engines[0].scripts = [events(DELTAS[path], *last, is_whole=True)]
    seen: list[object] = []
    with pytest.raises((openai.APIError, anthropic.APIStatusError)) as caught:
        await sdks.read(path, seen)
    assert len(seen) == 1
    assert "the engine m-0 died before its answer was complete" in str(caught.value)
    await rig.settle()
    assert (rig.lines[-1].status, rig.lines[-1].error) == (502, "engine_died")


@pytest.mark.parametrize("path", DELTAS)
async def test_an_engine_that_dies_after_its_last_event_has_answered(rig: Rig, sdks: Sdks, path: str) -> None:
    rig.engines[0].scripts = [events(DELTAS[path], LAST_EVENTS[path], is_whole=False)]
    async with asyncio.timeout(5):
        seen = [event async for event in await sdks.stream(path)]
    assert len(seen) == (1 if path == "/v1/chat/completions" else 2)
    await rig.settle()
    assert (rig.lines[-1].status, rig.lines[-1].error) == (200, "")
    assert [trouble.reason for trouble in rig.troubles] == ["engine_reset"]  # control hears of it all the same


async def test_whole_answers(rig: Rig, sdks: Sdks) -> None:
    engine = rig.engines[0]
    vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
    engine.scripts = [answer({"object": "list", "data": [vector], "model": "m", "usage": {}})]
    embeddings = await sdks.openai.embeddings.create(model="m", input=["a"], encoding_format="float")
    assert embeddings.data[0].embedding == [0.5]
    engine.scripts = [answer(RESPONSE)]
    assert (await sdks.openai.responses.create(model="m", input="hi")).status == "completed"
    engine.scripts = [answer(MESSAGE)]
    message = await sdks.anthropic.messages.create(model="m", messages=MESSAGES, max_tokens=9)
    assert message.id == "msg_1"
    assert message._request_id == rig.lines[-1].request_id
    engine.scripts = [answer({"input_tokens": 3})]
    counted = await sdks.anthropic.messages.count_tokens(model="m", messages=MESSAGES)
    assert counted.input_tokens == 3
    assert [call.head.split()[1] for call in engine.calls] == [
        b"/v1/embeddings", b"/v1/responses", b"/v1/messages", b"/v1/messages/count_tokens",
    ]  # fmt: skip
    assert rig.lines[-1].path == "/v1/messages/count_tokens"


async def ask_anthropic(sdks: Sdks, model: str = "m", text: str = "hi") -> None:
    messages = [{"role": "user", "content": text}]
    await sdks.anthropic.messages.create(model=model, messages=messages, max_tokens=9)


async def test_refusals_in_the_dialect_of_the_path(rig: Rig, sdks: Sdks) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await ask_anthropic(sdks, model="claude")
    assert (unknown.value.type, unknown.value.body["error"]["param"]) == ("not_found_error", "model")
    assert unknown.value.request_id == rig.lines[-1].request_id
    with pytest.raises(openai.NotFoundError) as unknown_too:
        await sdks.openai.responses.create(model="gpt", input="hi")
    assert (unknown_too.value.code, unknown_too.value.param) == ("model_not_found", "model")
    with pytest.raises(anthropic.RequestTooLargeError) as large:
        await ask_anthropic(sdks, text="x" * (rig.max_body_bytes + 1))
    assert large.value.type == "request_too_large"
    assert (rig.lines[-1].path, rig.lines[-1].status) == ("/v1/messages", 413)
    rig.push("starting")
    with pytest.raises(anthropic.ServiceUnavailableError) as starting:
        await ask_anthropic(sdks)
    assert (starting.value.type, starting.value.response.headers["retry-after"]) == ("overloaded_error", "7")


async def test_an_unreachable_engine_is_an_api_error(rig: Rig, sdks: Sdks) -> None:
    await rig.engines[0].stop()
    with pytest.raises(anthropic.InternalServerError) as failed:
        await ask_anthropic(sdks)
    assert (failed.value.status_code, failed.value.type) == (502, "api_error")


async def test_cold_paths_below_the_apis(rig: Rig, sdks: Sdks) -> None:
    with pytest.raises(openai.NotFoundError, match="answers are not stored here"):
        await sdks.openai.responses.retrieve("resp_1")
    with pytest.raises(openai.NotFoundError, match="answers are not stored here"):
        await sdks.openai.responses.delete("resp_1")
    with pytest.raises(anthropic.NotFoundError, match="only /v1/messages") as batches:
        await sdks.anthropic.messages.batches.list()
    assert batches.value.type == "not_found_error"
    assert batches.value.request_id == rig.lines[-1].request_id
    async with rig.client() as client:
        assert (await client.get("/v1/messages")).json()["type"] == "error"


async def test_keys_of_both_sdks(rig: Rig, sdks: Sdks) -> None:
    rig.keys = tuple(Key(key, hashlib.sha256(key.encode()).hexdigest()) for key in ("sk-1", "sk-2"))
    rig.push()
    rig.engines[0].scripts = [answer(MESSAGE)]
    await ask_anthropic(sdks)
    assert rig.lines[-1].key == "sk-1"
    stranger = Sdks(rig, "sk-3")
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        await ask_anthropic(stranger)
    assert unknown.value.type == "authentication_error"
    with pytest.raises(anthropic.AuthenticationError):
        await stranger.anthropic.messages.batches.list()
    await stranger.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "sk-1"}, 200),
        ({"X-API-KEY": "sk-1"}, 200),
        ({"x-api-key": "sk-3"}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "sk-1", "authorization": "Bearer sk-1"}, 200),
        ({"x-api-key": "sk-1", "authorization": "Basic abc"}, 200),
        ({"x-api-key": "sk-1", "authorization": "Bearer sk-2"}, 401),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
async def test_a_key_in_either_header(rig: Rig, sdks: Sdks, path: str, headers: dict[str, str], status: int) -> None:
    rig.keys = tuple(Key(key, hashlib.sha256(key.encode()).hexdigest()) for key in ("sk-1", "sk-2"))
    rig.push()
    async with rig.client() as client:
        for _ in range(2):  # the second time the head is known
            method = "GET" if path == "/v1/models" else "POST"
            reply = await client.request(method, path, headers=headers, json={"model": "m"})
            assert reply.status_code == status
    if len(headers) == 2 and status == 401:
        assert "different keys" in reply.json()["error"]["message"]


def test_done_is_the_last_event_of_the_rig() -> None:
    assert LAST_EVENTS["/v1/chat/completions"] in DONE
