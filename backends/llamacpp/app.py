"""The engine's ASGI application: routes, the launch's secret, errors, streams, and clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

import orjson

from backends import protocol
from backends.llamacpp.answer import Answer, AnswerFailed
from backends.llamacpp.api.chat import ChatRequest, ChatWire
from backends.llamacpp.api.completions import CompletionRequest, CompletionWire
from backends.llamacpp.api.fields import RequestError, parse
from backends.llamacpp.api.tokens import DetokenizeRequest, TokenizeRequest
from backends.llamacpp.serving import Overloaded, Serving, Unavailable

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024 * 1024
_JSON = b"application/json"


class ClientGone(Exception):
    """The client closed its connection before it had its answer."""


class EngineApp:
    """ASGI callable. `serving` is None while the model loads: everything but its health is 503 then."""

    def __init__(self, *, secret: str) -> None:
        self.serving: Serving | None = None
        self._secret = hashlib.sha256(secret.encode()).digest() if secret else None
        self._routes: dict[tuple[str, str], Callable[[Serving, Receive, Send], Coroutine[Any, Any, None]]] = {
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("GET", "/metrics"): self._metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        started = _Started(send)
        try:
            await self._handle(scope, receive, started.send)
        except RequestError as error:
            await _error(started.send, error.status, error.message, param=error.param, code=error.code)
        except Overloaded as error:
            headers = [(b"retry-after", b"%d" % error.retry_after_s)]
            await _error(started.send, 429, str(error), code="engine_overloaded", headers=headers)
        except Unavailable as error:
            await _error(started.send, 503, str(error), code="engine_unavailable", headers=[(b"retry-after", b"1")])
        except AnswerFailed as error:
            await _error(started.send, 500, str(error), code="engine_error")
        except ClientGone:
            log.debug("client went away")
        except Exception:
            log.exception("request failed: %s %s", scope["method"], scope["path"])
            if not started.is_started:
                await _error(send, 500, "internal error; the engine's log has the details", code="internal_error")

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if path == "/health" and method == "GET":
            await self._health(send)
            return
        self._authorise(scope)
        route = self._routes.get((method, path))
        if route is None:
            raise _no_route(method, path, [known for known, at in self._routes if at == path])
        if self.serving is None:
            raise Unavailable("the model is still loading")
        await route(self.serving, receive, send)

    def _authorise(self, scope: Scope) -> None:
        if self._secret is None:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        token = hashlib.sha256(given.removeprefix(b"Bearer ")).digest()
        if not hmac.compare_digest(token, self._secret):
            raise RequestError("wrong or missing API key", code="invalid_api_key", status=401)

    async def _health(self, send: Send) -> None:
        serving = self.serving
        if serving is None:
            await _json(send, 503, {"status": "loading"})
        elif not serving.engine.is_alive:
            await _json(send, 503, {"status": "failed", "reason": serving.engine.failure})
        else:
            await _json(send, 200, serving.health())

    async def _models(self, serving: Serving, receive: Receive, send: Send) -> None:
        await _json(send, 200, {"object": "list", "data": [serving.describe()]})

    async def _metrics(self, serving: Serving, receive: Receive, send: Send) -> None:
        page = serving.engine.metrics.page()
        await _respond(send, 200, page, content_type=b"text/plain; version=0.0.4; charset=utf-8")

    async def _tokenize(self, serving: Serving, receive: Receive, send: Send) -> None:
        await _json(send, 200, await serving.tokenize(parse(await _body(receive), TokenizeRequest)))

    async def _detokenize(self, serving: Serving, receive: Receive, send: Send) -> None:
        await _json(send, 200, await serving.detokenize(parse(await _body(receive), DetokenizeRequest)))

    async def _chat(self, serving: Serving, receive: Receive, send: Send) -> None:
        request = parse(await _body(receive), ChatRequest)
        wire = ChatWire(serving.name, serving.token_text, includes_usage=request.includes_usage)
        await _reply(await serving.chat(request, wire), receive, send)

    async def _complete(self, serving: Serving, receive: Receive, send: Send) -> None:
        request = parse(await _body(receive), CompletionRequest)
        wire = CompletionWire(serving.name, serving.token_text, includes_usage=request.includes_usage)
        await _reply(await serving.complete(request, wire), receive, send)


class _Started:
    """Remembers whether the response began: after that no error can be answered with a status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False

    async def send(self, message: Message) -> None:
        self.is_started = True
        await self._send(message)


async def _reply(answer: Answer, receive: Receive, send: Send) -> None:
    """Send an answer, watching for the client to go away the whole time, also before the first byte."""
    sending = asyncio.ensure_future(_stream(answer, send) if answer.is_streamed else _whole(answer, send))
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            raise ClientGone
        await sending
    finally:
        answer.close()
        for task in (sending, watching):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _stream(answer: Answer, send: Send) -> None:
    await answer.first()
    headers = [(b"content-type", protocol.EVENT_STREAM.encode()), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in answer.read():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _whole(answer: Answer, send: Send) -> None:
    await _respond(send, 200, await answer.body(), content_type=_JSON)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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


async def _error(
    send: Send,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    body = protocol.error_object(status, message, param=param, code=code)
    await _respond(send, status, orjson.dumps(body), content_type=_JSON, headers=headers)


async def _json(send: Send, status: int, value: Any) -> None:
    await _respond(send, status, orjson.dumps(value), content_type=_JSON)


async def _respond(
    send: Send, status: int, body: bytes, *, content_type: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    fields = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
