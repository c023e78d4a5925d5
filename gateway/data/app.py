"""The FastAPI app behind the hot path: models, loading of adapters, health, metrics, and every 404 and 405."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backends.dialects import dialect_of
from gateway import errors, metrics
from gateway.data import adminpass, catalogue
from gateway.data.auth import digest_of, key_of, require_admin
from gateway.data.relay import Relay
from gateway.data.snapshot import ENDPOINTS
from gateway.errors import GatewayError

_READ = ["GET", "HEAD"]
_NOT_KEPT = {
    "/v1/responses/": "answers are not stored here: send the whole conversation as `input`",
    "/v1/messages/": "only /v1/messages and /v1/messages/count_tokens are answered here",
    "/admin/": "clients ask here; the admin API has an address of its own: `forgegate serve` prints both",
}
"""Below these paths the APIs have more than an engine answers, or another address does; a client that asks is told so."""


def build(relay: Relay) -> FastAPI:
    """Return the app. It has no OpenAPI page: the relayed endpoints are not its own, and half a page misleads."""
    app = FastAPI(title="forgegate", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(_RequestIds)
    app.add_exception_handler(GatewayError, _on_gateway_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Exception, _on_bug)
    _add_models(app, relay)
    _add_adapters(app, relay)
    _add_health(app, relay)
    return app


def _add_models(app: FastAPI, relay: Relay) -> None:
    @app.api_route("/v1/models", methods=_READ)
    async def list_models(request: Request) -> dict[str, Any]:
        return {"object": "list", "data": catalogue.all_models(relay.index, digest_of(request.headers.raw))}

    @app.api_route("/v1/models/{name:path}", methods=_READ)
    async def show_model(name: str, request: Request) -> dict[str, Any]:
        return catalogue.one_model(relay.index, name, digest_of(request.headers.raw))


def _add_adapters(app: FastAPI, relay: Relay) -> None:
    async def load_or_unload(request: Request) -> Response:
        require_admin(relay.index, digest_of(request.headers.raw))
        caller = adminpass.Caller(key_of(request.headers.raw), request.client.host if request.client else "")
        answer = await adminpass.pass_on(
            relay.pool,
            relay.index.snapshot.admin_url,
            request.url.path,
            caller,
            request.headers.get("x-request-id", ""),
            await request.body(),
        )
        return Response(answer.body, status_code=answer.status, headers={"content-type": answer.content_type})

    for path in adminpass.PATHS:
        app.post(path)(load_or_unload)


def _add_health(app: FastAPI, relay: Relay) -> None:
    @app.api_route("/health/live", methods=_READ)
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.api_route("/health/ready", methods=_READ)
    async def ready() -> dict[str, str]:
        reasons = ["draining"] if relay.is_draining else relay.index.unready_reasons()
        if reasons:
            raise errors.NoEngineReady("; ".join(reasons), retry_after_s=1)
        return {"status": "ok"}

    @app.api_route("/metrics", methods=_READ)
    async def read_metrics() -> Response:
        relay.flush()
        # Reading every worker's file takes milliseconds, which no stream should have to wait for.
        page = await asyncio.to_thread(relay.metrics.expose, relay.index.snapshot, relay.counters)
        return Response(page, headers={"content-type": metrics.CONTENT_TYPE})


class _RequestIds:
    """Echoes the request id that the connection put into the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = dict(scope.get("headers", ())).get(b"x-request-id", b"").decode()
        ids = errors.id_headers(dialect_of(scope.get("path", "")), request_id)
        added = [(name.encode(), value.encode()) for name, value in ids.items()]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, send_with_id)


def _answer(request: Request, error: GatewayError, extra: dict[str, str] | None = None) -> Response:
    headers = {**errors.headers(error), **(extra or {})}
    body = errors.envelope(error, dialect_of(request.url.path), request.headers.get("x-request-id", ""))
    return Response(body, status_code=error.status, headers=headers)


async def _on_gateway_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, GatewayError)
    return _answer(request, exc)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    path, method = request.url.path, request.method
    if path in ENDPOINTS:
        return _answer(request, errors.MethodNotAllowed(f"{path} takes POST, not {method}"), {"allow": "POST"})
    if exc.status_code == 405:
        allow = dict(exc.headers or {}).get("Allow", "GET, HEAD")
        return _answer(request, errors.MethodNotAllowed(f"{path} does not take {method}"), {"allow": allow})
    if exc.status_code == 404:
        why = next((f" ({why})" for root, why in _NOT_KEPT.items() if path.startswith(root)), "")
        return _answer(request, errors.NotFound(f"there is nothing at {path}{why}"))
    return _answer(request, errors.BadRequest(str(exc.detail)))


async def _on_validation_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    return _answer(request, errors.BadRequest(str(first["msg"]), param=str(first["loc"][-1])))


async def _on_bug(request: Request, exc: Exception) -> Response:
    error = errors.InternalError("the gateway failed while handling this request; its log has the details")
    return _answer(request, error)
