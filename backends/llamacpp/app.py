"""The engine's ASGI application: routes, the launch's secret, errors, streams, and clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from functools import partial
from typing import Any, TypeVar

import orjson

from backends import dialects, protocol
from backends.dialects import Dialect
from backends.llamacpp.answer import Answer, AnswerFailed
from backends.llamacpp.api import adapters as adapters_api
from backends.llamacpp.api import chat as chat_api
from backends.llamacpp.api import messages as messages_api
from backends.llamacpp.api import responses as responses_api
from backends.llamacpp.api import tokens as tokens_api
from backends.llamacpp.api.chat import ChatWire
from backends.llamacpp.api.completions import CompletionRequest, CompletionWire
from backends.llamacpp.api.embeddings import EmbeddingRequest
from backends.llamacpp.api.fields import Renames, RequestError, parse, renaming
from backends.llamacpp.api.messages_wire import MessagesWire
from backends.llamacpp.api.responses_wire import ResponsesWire
from backends.llamacpp.api.tokens import DetokenizeRequest
from backends.llamacpp.embedding_serving import EmbeddingServing
from backends.llamacpp.served import OFF_LOOP_BYTES, Overloaded, ServedModel, Unavailable, off_loop
from backends.llamacpp.serving import Serving

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024 * 1024
_JSON = b"application/json"
_PIECES = 16
"""Vectors that are handed to the connection at once."""
T = TypeVar("T")
Served = TypeVar("Served", bound=ServedModel)
Routes = dict[tuple[str, str], Callable[[Served, Receive, Send], Coroutine[Any, Any, None]]]


class ClientGone(Exception):
    """The client closed its connection before it had its answer."""


class EngineApp:
    """ASGI callable. `serving` is None while the model loads: everything but its health is 503 then."""

    def __init__(self, *, secret: str) -> None:
        self.serving: ServedModel | None = None
        self._secret = hashlib.sha256(secret.encode()).digest() if secret else None
        self._shared: Routes[ServedModel] = {
            ("GET", "/v1/models"): self._models,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("GET", "/metrics"): self._metrics,
        }
        self._generating: Routes[Serving] = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/v1/responses"): self._respond,
            ("POST", "/v1/messages"): self._message,
            ("POST", "/v1/messages/count_tokens"): self._count,
            ("POST", "/v1/load_lora_adapter"): self._load_adapter,
            ("POST", "/v1/unload_lora_adapter"): self._unload_adapter,
        }
        self._embedding: Routes[EmbeddingServing] = {("POST", "/v1/embeddings"): self._embed}

    def hand_out(self, outputs: list[Any]) -> None:
        """What a step of the engine produced, on the event loop."""
        assert self.serving is not None, "an engine without requests produced something"
        self.serving.hand_out(outputs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        started = _Started(send)
        request_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        fail = partial(_error, started.send, dialects.dialect_of(scope["path"]), request_id)
        try:
            await self._handle(scope, receive, started.send)
        except RequestError as error:
            await fail(error.status, error.message, param=error.param, code=error.code)
        except Overloaded as error:
            headers = [(b"retry-after", b"%d" % error.retry_after_s)]
            await fail(429, str(error), code="engine_overloaded", headers=headers)
        except Unavailable as error:
            await fail(503, str(error), code="engine_unavailable", headers=[(b"retry-after", b"1")])
        except AnswerFailed as error:
            await fail(500, str(error), code="engine_error")
        except ClientGone:
            log.debug("client went away")
        except Exception:
            log.exception("request failed: %s %s", scope["method"], scope["path"])
            if not started.is_started:
                await fail(500, "internal error; the engine's log has the details", code="internal_error")

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path == "/health" and method == "GET":
            await self._health(send)
            return
        self._authorise(scope)
        if (method, path) not in (known := {**self._shared, **self._generating, **self._embedding}):
            raise _no_route(method, path, [taken for taken, at in known if at == path])
        if self.serving is None:
            raise Unavailable("the model is still loading")
        await self._route((method, path), self.serving)(receive, send)

    def _route(
        self, key: tuple[str, str], serving: ServedModel
    ) -> Callable[[Receive, Send], Coroutine[Any, Any, None]]:
        """Who answers. Raises RequestError for what this model was not started for."""
        if key in self._shared:
            return partial(self._shared[key], serving)
        if isinstance(serving, Serving) and key in self._generating:
            return partial(self._generating[key], serving)
        if isinstance(serving, EmbeddingServing) and key in self._embedding:
            return partial(self._embedding[key], serving)
        raise _not_started_for(key[1], serving)

    def _authorise(self, scope: Scope) -> None:
        if self._secret is None:
            return
        headers = dict(scope["headers"])
        bearer = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        # Anthropic's clients send the second one.
        digests = [hashlib.sha256(given).digest() for given in (bearer, headers.get(b"x-api-key", b""))]
        if not any(hmac.compare_digest(digest, self._secret) for digest in digests):
            raise RequestError("wrong or missing API key", code="invalid_api_key", status=401)

    async def _health(self, send: Send) -> None:
        serving = self.serving
        if serving is None:
            await _json(send, 503, {"status": "loading"})
        elif not serving.is_alive:
            await _json(send, 503, {"status": "failed", "reason": serving.failure})
        else:
            await _json(send, 200, serving.health())

    async def _models(self, serving: ServedModel, receive: Receive, send: Send) -> None:
        await _json(send, 200, {"object": "list", "data": serving.models()})

    async def _metrics(self, serving: ServedModel, receive: Receive, send: Send) -> None:
        page = serving.metrics_page()
        await _send_whole(send, 200, page, content_type=b"text/plain; version=0.0.4; charset=utf-8")

    async def _tokenize(self, serving: ServedModel, receive: Receive, send: Send) -> None:
        def found(body: bytes) -> dict[str, Any]:
            return serving.tokenize(tokens_api.read(body))

        await _json(send, 200, await _off_loop(await _body(receive), found))

    async def _detokenize(self, serving: ServedModel, receive: Receive, send: Send) -> None:
        def found(body: bytes) -> dict[str, Any]:
            return serving.detokenize(parse(body, DetokenizeRequest))

        await _json(send, 200, await _off_loop(await _body(receive), found))

    async def _chat(self, serving: Serving, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        request = await _off_loop(body, chat_api.read)
        wire = ChatWire(serving.answers_as(request.model), serving.token_text, includes_usage=request.includes_usage)
        await _reply(serving.chat(request, wire, is_long=_is_long(body)), receive, send)

    async def _complete(self, serving: Serving, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        request = await _off_loop(body, partial(parse, kind=CompletionRequest))
        wire = CompletionWire(
            serving.answers_as(request.model), serving.token_text, includes_usage=request.includes_usage
        )
        await _reply(serving.complete(request, wire, is_long=_is_long(body)), receive, send)

    async def _respond(self, serving: Serving, receive: Receive, send: Send) -> None:
        template = serving.chat_template("input")
        body = await _body(receive)
        request, chat = await _off_loop(body, partial(responses_api.read, template=template))
        wire = ResponsesWire(serving.answers_as(chat.model), serving.token_text, request, serving.defaults)
        starting = serving.chat(chat, wire, is_long=_is_long(body))
        await _reply(_renamed(starting, responses_api.RENAMES), receive, send)

    async def _message(self, serving: Serving, receive: Receive, send: Send) -> None:
        template = serving.chat_template()
        body = await _body(receive)
        chat = await _off_loop(body, partial(messages_api.read, template=template))
        wire = MessagesWire(serving.answers_as(chat.model), serving.token_text, chat.at_most)
        starting = serving.chat(chat, wire, is_long=_is_long(body))
        await _reply(_renamed(starting, messages_api.RENAMES), receive, send)

    async def _count(self, serving: Serving, receive: Receive, send: Send) -> None:
        template = serving.chat_template()

        def count(body: bytes) -> int:
            chat = messages_api.read_counted(body, template)
            with renaming(messages_api.RENAMES):
                return serving.count(chat)

        await _json(send, 200, {"input_tokens": await _off_loop(await _body(receive), count)})

    async def _load_adapter(self, serving: Serving, receive: Receive, send: Send) -> None:
        request = adapters_api.read_load(await _body(receive))
        await _unless_gone(serving.load_adapter(request), receive)
        await _text(send, f"Success: LoRA adapter {request.lora_name!r} added successfully.")

    async def _unload_adapter(self, serving: Serving, receive: Receive, send: Send) -> None:
        request = adapters_api.read_unload(await _body(receive))
        await _unless_gone(serving.unload_adapter(request), receive)
        await _text(send, f"Success: LoRA adapter {request.lora_name!r} removed successfully.")

    async def _embed(self, serving: EmbeddingServing, receive: Receive, send: Send) -> None:
        request = await _off_loop(await _body(receive), partial(parse, kind=EmbeddingRequest))
        await _send_pieces(send, await _unless_gone(serving.embed(request), receive))


class _Started:
    """Remembers whether the response began: after that no error can be answered with a status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False

    async def send(self, message: Message) -> None:
        self.is_started = True
        await self._send(message)


async def _reply(starting: Coroutine[Any, Any, Answer], receive: Receive, send: Send) -> None:
    """Start an answer and send it, watching for the client to go away the whole time."""
    await _unless_gone(_carry_out(starting, send), receive)


async def _carry_out(starting: Coroutine[Any, Any, Answer], send: Send) -> None:
    answer = await starting
    try:
        await (_stream(answer, send) if answer.is_streamed else _whole(answer, send))
    finally:
        answer.close()


async def _renamed(work: Coroutine[Any, Any, T], names: Renames) -> T:
    """What `work` gives; its errors in the words of another API."""
    with renaming(names):
        return await work


async def _stream(answer: Answer, send: Send) -> None:
    await answer.first()
    headers = [(b"content-type", protocol.EVENT_STREAM.encode()), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in answer.read():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _whole(answer: Answer, send: Send) -> None:
    await _send_whole(send, 200, await answer.body(), content_type=_JSON)


async def _unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """What `work` gives. Raises ClientGone, with `work` cancelled, when the client goes away before."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return await working
    finally:
        for task in (working, watching):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _off_loop(body: bytes, work: Callable[[bytes], T]) -> T:
    """What `work` makes of a body."""
    return await off_loop(_is_long(body), partial(work, body))


def _is_long(body: bytes) -> bool:
    return len(body) > OFF_LOOP_BYTES


async def _body(receive: Receive) -> bytes:
    """The request's body. Raises RequestError 413, or ClientGone."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise RequestError(f"the body is larger than {MAX_BODY_BYTES} bytes", code="body_too_large", status=413)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _no_route(method: str, path: str, methods: list[str]) -> RequestError:
    if methods:
        return RequestError(f"{path} takes {', '.join(methods)}, not {method}", code="method_not_allowed", status=405)
    return RequestError(f"no such endpoint: {path}", code="not_found", status=404)


def _not_started_for(path: str, serving: ServedModel) -> RequestError:
    way = (
        ""
        if isinstance(serving, EmbeddingServing)
        else "; the option pooling (mean, cls or last) starts it for embeddings"
    )
    message = f"{path}: {serving.name} was started {serving.purpose()}{way}"
    return RequestError(message, code="endpoint_not_served", status=404)


async def _error(
    send: Send,
    dialect: Dialect,
    request_id: str,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    body = dialects.error_body(dialect, status, message, param=param, code=code, request_id=request_id)
    await _send_whole(send, status, body, content_type=_JSON, headers=headers)


async def _text(send: Send, text: str) -> None:
    await _send_whole(send, 200, text.encode(), content_type=b"text/plain; charset=utf-8")


async def _json(send: Send, status: int, value: Any) -> None:
    await _send_whole(send, status, orjson.dumps(value), content_type=_JSON)


async def _send_whole(
    send: Send, status: int, body: bytes, *, content_type: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    fields = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def _send_pieces(send: Send, pieces: Sequence[bytes]) -> None:
    """A JSON body, sent as fast as the client takes it."""
    fields = [(b"content-type", _JSON), (b"content-length", b"%d" % sum(map(len, pieces)))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for start in range(0, len(pieces), _PIECES):
        part = b"".join(pieces[start : start + _PIECES])
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
