"""The admin API, /admin/v1: state and commands. Every call needs the admin token; OpenAPI at /docs."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from backends.lifecycle import EngineLife
from backends.status import State
from gateway import errors
from gateway.control.adapterapi import AdapterApi, add_routes
from gateway.control.fleet import Fleet, Member
from gateway.control.supervisor import Supervisor
from gateway.control.workers import ACK_TIMEOUT_S, WorkerPool
from gateway.counters import Counters

MAX_LOG_LINES = 500
RESTART_S = 2 * ACK_TIMEOUT_S
RECENT_LINES = 5


@dataclass(frozen=True, slots=True)
class LoadView:
    num_running: int
    num_waiting: int
    kv_usage: float


@dataclass(frozen=True, slots=True)
class EngineView:
    id: str
    model: str
    kind: str
    state: str
    detail: str
    description: str
    url: str
    pid: int | None
    num_restarts: int
    uptime_s: float | None
    """Since it became ready."""
    num_requests: int
    """Running through the gateway now, over all workers."""
    load: LoadView | None
    """As the engine says itself; null where it does not."""
    last_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelView:
    name: str
    resolved: str
    context_length: int | None
    capabilities: tuple[str, ...]
    engines: tuple[str, ...]
    num_ready: int


@dataclass(frozen=True, slots=True)
class WorkerView:
    column: int
    """Its place; the successor of one that died has the same."""
    pid: int | None
    state: str
    num_restarts: int
    num_connections: int
    detail: str
    """How its predecessor ended."""


@dataclass(frozen=True, slots=True)
class WorkerList:
    data: tuple[WorkerView, ...]


@dataclass(frozen=True, slots=True)
class EngineList:
    data: tuple[EngineView, ...]


@dataclass(frozen=True, slots=True)
class ModelList:
    data: tuple[ModelView, ...]


@dataclass(frozen=True, slots=True)
class LogView:
    id: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restarted:
    id: str
    state: str
    replaced_workers: tuple[int, ...]
    """Those that did not take note in time, by column: they are killed, and the requests that they had are cut."""


class AdminApi:
    """The routes, and what they read and command."""

    def __init__(
        self,
        fleet: Fleet,
        supervisor: Supervisor,
        workers: WorkerPool,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._supervisor = supervisor
        self._workers = workers
        self._counters = counters
        self._clock = clock

    async def engines(self) -> EngineList:
        """All engines with their state, load and last log lines."""
        return EngineList(tuple(await asyncio.gather(*map(self._engine, self._fleet.members.values()))))

    async def logs(self, engine_id: str, lines: int = Query(100, ge=1, le=MAX_LOG_LINES)) -> LogView:
        """The newest lines of an engine's output."""
        return LogView(engine_id, self._life(engine_id).log.tail(lines))

    async def restart(self, engine_id: str) -> Restarted:
        """Drain an engine and start it anew; one that has failed starts at once. Returns when no worker sends it requests any more."""
        life = self._life(engine_id)
        reported = self._fleet.next_report(engine_id)
        life.restart()
        await asyncio.wait(
            {reported}, timeout=RESTART_S
        )  # one that is just being stopped has nothing to report for a while
        replaced = reported.result() if reported.done() else ()
        return Restarted(engine_id, str(life.status.state), replaced)

    async def workers(self) -> WorkerList:
        """The data workers."""
        connections = self._counters.connections()
        return WorkerList(
            tuple(
                WorkerView(
                    column=worker.column,
                    pid=worker.pid or None,
                    state=str(worker.state),
                    num_restarts=worker.num_restarts,
                    num_connections=connections.get(worker.column, 0),
                    detail=worker.detail,
                )
                for worker in self._workers.statuses
            )
        )

    async def models(self) -> ModelList:
        """What clients may ask for."""
        snapshot = self._fleet.snapshot()
        return ModelList(
            tuple(
                ModelView(
                    name=model.name,
                    resolved=model.resolved,
                    context_length=model.context_length,
                    capabilities=model.capabilities,
                    engines=tuple(engine.id for engine in model.engines),
                    num_ready=sum(engine.state == State.READY for engine in model.engines),
                )
                for model in snapshot.models
            )
        )

    def _life(self, engine_id: str) -> EngineLife:
        if engine_id not in self._supervisor.lives:
            known = ", ".join(self._supervisor.lives)
            raise errors.NotFound(f"no engine {engine_id!r}; there are: {known}")
        return self._supervisor.lives[engine_id]

    async def _engine(self, member: Member) -> EngineView:
        status, life = member.status, self._supervisor.lives[member.id]
        load = await self._supervisor.load(member.id)
        is_ready = status.state is State.READY
        return EngineView(
            id=member.id,
            model=member.model,
            kind=member.kind,
            state=str(status.state),
            detail=status.detail,
            description=status.facts.description if status.facts else "",
            url=status.address.url if status.address.port else "",
            pid=status.pid,
            num_restarts=status.num_restarts,
            uptime_s=round(self._clock() - status.ready_since, 1)
            if is_ready and status.ready_since is not None
            else None,
            num_requests=self._counters.running(member.slot),
            load=LoadView(load.num_running, load.num_waiting, load.kv_usage) if load else None,
            last_lines=life.log.tail(RECENT_LINES),
        )


def create_app(api: AdminApi, token: str, version: str, adapters: AdapterApi) -> FastAPI:
    """The whole application: every route, every error as the envelope."""

    async def authorize(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise errors.Unauthorized("the admin token is needed: `authorization: Bearer <content of admin-token>`")

    app = FastAPI(title="forgegate admin API", version=version, redoc_url=None)
    guarded = [Depends(authorize)]
    # Engine ids hold a model's name, which may hold slashes: hence `:path`.
    app.add_api_route("/admin/v1/engines", api.engines, methods=["GET"], dependencies=guarded)
    app.add_api_route("/admin/v1/engines/{engine_id:path}/logs", api.logs, methods=["GET"], dependencies=guarded)
    app.add_api_route("/admin/v1/engines/{engine_id:path}/restart", api.restart, methods=["POST"], dependencies=guarded)
    app.add_api_route("/admin/v1/workers", api.workers, methods=["GET"], dependencies=guarded)
    app.add_api_route("/admin/v1/models", api.models, methods=["GET"], dependencies=guarded)
    add_routes(app, adapters, guarded)
    app.add_exception_handler(errors.GatewayError, _gateway_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)
    return app


def _answer(error: errors.GatewayError, status: int | None = None) -> Response:
    return Response(errors.envelope(error), status or error.status, errors.headers(error))


async def _gateway_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, errors.GatewayError)
    return _answer(exc)


async def _invalid_request(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    field = str(first["loc"][-1])
    return _answer(errors.BadRequest(f"{field}: {first['msg']}", param=field))


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    if exc.status_code == 404:
        return _answer(errors.NotFound(f"no such path: {request.url.path}; see /docs"))
    if exc.status_code == 405:
        return _answer(errors.MethodNotAllowed(f"{request.method} is not possible on {request.url.path}"))
    return _answer(errors.RequestError(str(exc.detail)), exc.status_code)


async def _internal_error(request: Request, exc: Exception) -> Response:
    return _answer(errors.InternalError("internal error; the traceback is in the log of `forgegate serve`"))
