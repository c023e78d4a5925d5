"""Asks an OpenAI-compatible endpoint, many requests at once: answers as streams, for the times, and log-probabilities of given texts."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from backends.demo.chat import call_text
from finetune.evaluation.items import Answer, Kind
from finetune.parity.served import NO_LOG, EndpointFailed, EndpointRefused

TIMEOUT = httpx.Timeout(10.0, read=600.0)
T = TypeVar("T")
NUM_TRIES = 8
MAX_WAIT_S = 30.0
RESOLVED = "x-forgegate-model"
_BUSY = (429, 503)
_CHAT, _COMPLETIONS, _TOKENIZE = "/v1/chat/completions", "/v1/completions", "/tokenize"


@dataclass(frozen=True, slots=True)
class Reply:
    answer: Answer
    resolved: str
    """The version that answered; empty where the endpoint does not say."""


class Strange(EndpointFailed):
    """It answers otherwise than an OpenAI-compatible endpoint does."""


class _Busy(Exception):
    """It may be asked again after `wait_s`; `words` says why it did not answer."""

    def __init__(self, words: str, wait_s: float) -> None:
        super().__init__(words)
        self.wait_s = wait_s


class Asker:
    """An async context manager. Methods raise EndpointFailed; what is only busy is asked again."""

    def __init__(
        self,
        url: str,
        key: str = "",
        at_a_time: int = 8,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._sleep = sleep
        self._clock = clock
        headers = {NO_LOG: "1", **({"authorization": f"Bearer {key}"} if key else {})}
        limits = httpx.Limits(max_connections=at_a_time, max_keepalive_connections=at_a_time)
        try:
            self._client = httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=TIMEOUT, transport=transport, limits=limits, trust_env=False
            )
        except httpx.InvalidURL as exc:
            raise EndpointFailed(f"{self.url} is no address: {exc}") from exc

    async def ask(self, model: str, kind: Kind, request: Mapping[str, Any]) -> Reply:
        """`request` as `Item.request` makes it."""
        if kind == "choose":
            return await self._choose(model, str(request["prompt"]), request["choices"])
        if kind == "given":
            return await self._given(model, request)
        path = _CHAT if kind == "chat" else _COMPLETIONS
        body = {"model": model, **request, "stream": True, "stream_options": {"include_usage": True}}
        return await self._patiently(lambda: self._stream(path, body))

    async def _choose(self, model: str, prompt: str, choices: Sequence[str]) -> Reply:
        """A choice's tokens are those of prompt and choice after as many as the prompt alone has: what lm-eval does."""
        before = await self._tokens(model, prompt) if prompt else []
        first = before or (await self._tokens(model, "", with_special=True))[:1]
        if not first:
            raise EndpointFailed(f"{self.url} has no token that a text without a prompt could begin with")
        wholes = [await self._tokens(model, prompt + choice) for choice in choices]
        texts = [whole if before else [*first, *whole] for whole in wholes]
        rows, resolved = await self._scores(model, texts)
        sums = tuple(sum(row[len(first) - 1 :]) for row in rows)
        return Reply(Answer("", "scored", scores=sums), resolved)

    async def _given(self, model: str, request: Mapping[str, Any]) -> Reply:
        """The log-probability of a text as the answer to messages, without its end token."""
        told = {name: request[name] for name in ("messages", "tools") if name in request}
        before = await self._token_ids({"model": model, **told})
        answer = await self._tokens(model, str(request["answer"]))
        (row,), resolved = await self._scores(model, [[*before, *answer]])
        return Reply(Answer("", "scored", len(before), len(answer), scores=(sum(row[len(before) - 1 :]),)), resolved)

    async def _tokens(self, model: str, text: str, with_special: bool = False) -> list[int]:
        return await self._token_ids({"model": model, "prompt": text, "add_special_tokens": with_special})

    async def _token_ids(self, body: Mapping[str, Any]) -> list[int]:
        told, _ = await self._patiently(lambda: self._whole(_TOKENIZE, body))
        try:
            return [int(token) for token in told["tokens"]]
        except (KeyError, TypeError, ValueError) as exc:
            raise self._strange(_TOKENIZE, exc) from exc

    async def _scores(self, model: str, texts: Sequence[Sequence[int]]) -> tuple[list[list[float]], str]:
        """For each text the log-probability of each token but the first."""
        body = {"model": model, "prompt": [list(text) for text in texts], "max_tokens": 0, "echo": True, "logprobs": 0}
        told, resolved = await self._patiently(lambda: self._whole(_COMPLETIONS, body))
        try:
            choices = sorted(told["choices"], key=lambda choice: int(choice["index"]))
            rows = [[float(value) for value in choice["logprobs"]["token_logprobs"][1:]] for choice in choices]
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise self._strange(f"{_COMPLETIONS} with echo and logprobs", exc) from exc
        if [len(row) for row in rows] != [len(text) - 1 for text in texts]:
            raise Strange(f"{self.url} scored other numbers of tokens than the texts have")
        if not all(math.isfinite(value) for row in rows for value in row):
            raise EndpointFailed(f"{self.url} scored tokens with what is no finite number: its model computes wrongly")
        return rows, resolved

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Again where it is only busy, or broke off: others are served meanwhile, an engine may start again."""
        for number in range(NUM_TRIES):
            try:
                return await call()
            except _Busy as exc:
                if number == NUM_TRIES - 1:
                    raise EndpointFailed(f"{self.url}: {exc} ({NUM_TRIES} tries)") from exc
                await self._sleep(exc.wait_s)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                if number == NUM_TRIES - 1 or isinstance(exc, httpx.ConnectError | httpx.InvalidURL):
                    raise EndpointFailed(f"{self.url} cannot be reached: {str(exc) or type(exc).__name__}") from exc
                await self._sleep(1.0)
        raise AssertionError("every try returns or raises")

    async def _whole(self, path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        reply = await self._client.post(path, json=body)
        if reply.is_error:
            raise self._refusal(reply)
        return self._object(reply.content, path), reply.headers.get(RESOLVED, "")

    async def _stream(self, path: str, body: Mapping[str, Any]) -> Reply:
        start = self._clock()
        async with self._client.stream("POST", path, json=body) as reply:
            if reply.is_error:
                await reply.aread()
                raise self._refusal(reply)
            heard = _Heard()
            if "event-stream" not in reply.headers.get("content-type", ""):  # a server that does not stream
                self._take(heard, self._object(await reply.aread(), path), path)
                if not heard.finish:
                    raise Strange(
                        f"{self.url} answers {path} without a finished choice: it is no OpenAI-compatible endpoint"
                    )
            else:
                async for line in reply.aiter_lines():
                    if self._hear(heard, line, path) and heard.ttft_s is None:
                        heard.ttft_s = self._clock() - start
        if not heard.finish:
            raise _Busy("the answer broke off", 1.0)
        return Reply(heard.answer(self._clock() - start), reply.headers.get(RESOLVED, ""))

    def _hear(self, heard: _Heard, line: str, path: str) -> bool:
        """Whether a line of the stream brought something of the answer."""
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            return False
        event = self._object(data.encode(), path)
        if "error" in event:
            raise _Busy(f"the answer ended in an error: {_message(event)}", 1.0)
        return self._take(heard, event, path)

    def _take(self, heard: _Heard, event: Mapping[str, Any], path: str) -> bool:
        try:
            return heard.take(event)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
            raise self._strange(path, exc) from exc

    def _object(self, content: bytes, path: str) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError as exc:
            raise self._strange(path, exc) from exc
        if not isinstance(found, dict):
            raise EndpointFailed(f"{self.url} answers {path} with what is no JSON object")
        return found

    def _refusal(self, reply: httpx.Response) -> Exception:
        try:
            words = _message(reply.json())
        except ValueError:
            words = ""
        words = words or f"status {reply.status_code}"
        if reply.status_code in _BUSY:
            return _Busy(words, _wait_s(reply))
        return EndpointRefused(words, reply.status_code)

    def _strange(self, path: str, exc: Exception) -> Strange:
        return Strange(
            f"{self.url} answers {path} otherwise than an OpenAI-compatible endpoint ({type(exc).__name__}: {exc})"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()


@dataclass(slots=True)
class _Heard:
    """What has come of an answer."""

    text: str = ""
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    finish: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    ttft_s: float | None = None

    def take(self, event: Mapping[str, Any]) -> bool:
        """A chunk, or an answer that came whole. Whether it has text, reasoning or a call."""
        self.usage = event.get("usage") or self.usage
        if not event.get("choices"):
            return False
        choice = event["choices"][0]
        said = choice.get("delta") or choice.get("message") or {}
        text = str(said.get("content") or choice.get("text") or "")
        self.text += text
        for place, call in enumerate(said.get("tool_calls") or ()):
            self._take_call(int(call.get("index", place)), call.get("function") or {})
        self.finish = str(choice.get("finish_reason") or self.finish)
        return bool(text or said.get("tool_calls") or said.get("reasoning_content") or said.get("reasoning"))

    def _take_call(self, index: int, function: Mapping[str, Any]) -> None:
        call = self.calls.setdefault(index, {"name": "", "arguments": ""})
        for name in call:
            call[name] += str(function.get(name) or "")

    def answer(self, latency_s: float) -> Answer:
        calls = "".join(f"<tool_call>\n{call_text(call)}\n</tool_call>" for _, call in sorted(self.calls.items()))
        # Halves of a character that came apart are joined; what stays a half could not be written.
        text = (self.text + calls).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return Answer(
            text, self.finish, self.usage.get("prompt_tokens"), self.usage.get("completion_tokens"), self.ttft_s, latency_s
        )  # fmt: skip


def _message(content: Any) -> str:
    error = content.get("error", content) if isinstance(content, dict) else {}
    return str((error.get("message") if isinstance(error, dict) else error) or "")


def _wait_s(reply: httpx.Response) -> float:
    text = reply.headers.get("retry-after", "")
    return min(MAX_WAIT_S, float(text)) if text.isascii() and text.isdigit() else 1.0
