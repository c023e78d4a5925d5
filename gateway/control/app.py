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
from backends.status import Drain, State
from gateway import errors
from gateway.control.adapterapi import AdapterApi, add_routes
from gateway.control.benchmarkapi import BenchmarkApi, add_benchmark_routes
from gateway.control.fleet import Fleet, Member
from gateway.control.gateapi import GateApi, add_gate_routes
from gateway.control.ondemand import next_words
from gateway.control.supervisor import Supervisor
from gateway.control.tuneapi import TuneApi, add_tune_routes
from gateway.control.workers import ACK_TIMEOUT_S, WorkerPool
from gateway.counters import Counters

MAX_LOG_LINES = 500
RESTART_S = 2 * ACK_TIMEOUT_S
RECENT_LINES = 5
SENT_TO_SLEEP = "by command: `forgegate engines wake {}` wakes it"
DRAINED = "drained by command: `forgegate engines wake {}` starts it"


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
    is_on_demand: bool
    """The first request starts it, idleness or another's need for memory sends it away."""
    is_held: bool
    """Drained by command: no request starts it."""
    advice: str
    """What its user should change; empty where nothing."""
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
class Commanded:
    id: str
    state: str
    warning: str
    """What follows from it that may not be meant; empty where nothing."""
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

    async def restart(self, engine_id: str) -> Commanded:
        """Drain an engine and start it anew; one that has failed starts at once. Returns when no worker sends it requests any more."""
        life = self._life(engine_id)
        return await self._commanded(engine_id, life.restart)

    async def drain(self, engine_id: str) -> Commanded:
        """Stop it once its running requests have ended; no request starts it again. Returns when no worker sends it requests any more."""
        life = self._life(engine_id)
        warning = self._last_one(engine_id)
        return await self._commanded(
            engine_id, lambda: life.drain(Drain(DRAINED.format(engine_id), is_command=True)), warning
        )

    async def sleep(self, engine_id: str, level: int = Query(1, ge=1, le=2)) -> Commanded:
        """Let it sleep once its running requests have ended. 1: its weights go to RAM; 2: they are dropped, and read again when it wakes.

        One that runs on demand is woken by the next request, others by command.
        """
        life = self._life(engine_id)
        _require_sleep(engine_id, life, level)
        is_on_demand = self._fleet.members[engine_id].is_on_demand
        warning = "" if is_on_demand else self._last_one(engine_id)
        why = f"by command; {next_words(level)}" if is_on_demand else SENT_TO_SLEEP.format(engine_id)
        return await self._commanded(engine_id, lambda: life.drain(Drain(why, level, is_command=True)), warning)

    async def wake(self, engine_id: str) -> Commanded:
        """Wake it, or start it where it is stopped or has failed; one that runs goes on."""
        life = self._life(engine_id)
        if life.status.state is State.READY:
            return Commanded(engine_id, str(life.status.state), "", ())
        return await self._commanded(engine_id, life.start)

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

    async def _commanded(self, engine_id: str, command: Callable[[], None], warning: str = "") -> Commanded:
        reported = self._fleet.next_report(engine_id)
        command()
        # One that is just being stopped has nothing to report for a while.
        await asyncio.wait({reported}, timeout=RESTART_S)
        replaced = reported.result() if reported.done() else ()
        return Commanded(engine_id, str(self._life(engine_id).status.state), warning, replaced)

    def _last_one(self, engine_id: str) -> str:
        """The warning where no other engine answers for its model."""
        model = self._fleet.members[engine_id].model
        ready = [member.id for member in self._fleet.of_model(model) if member.status.state is State.READY]
        if ready != [engine_id]:
            return ""
        return f"{engine_id} was the only ready engine of {model}: its requests are refused until one is ready again"

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
            is_on_demand=member.is_on_demand,
            is_held=status.is_held,
            advice=self._supervisor.advice(member.id),
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


def _require_sleep(engine_id: str, life: EngineLife, level: int) -> None:
    """Raises Conflict, BadRequest."""
    title, sleeps = life.backend.title, life.backend.sleeps
    instead = f"`forgegate engines drain {engine_id}` stops it, which frees its memory, too"
    if sleeps is None:
        raise errors.Conflict(f"{engine_id} cannot sleep: {title} engines do not; {instead}")
    if not sleeps.levels:
        raise errors.Conflict(
            f"{engine_id} cannot sleep: {title} does so on a GPU, with its sleep mode switched on; {instead}"
        )
    if level not in sleeps.levels:
        known = ", ".join(map(str, sleeps.levels))
        raise errors.BadRequest(f"{engine_id} does not sleep at level {level}, but at {known}", param="level")
    if life.status.state is not State.READY:
        raise errors.Conflict(f"{engine_id} is {life.status.state}: only a ready engine can fall asleep")


def create_app(
    api: AdminApi,
    token: str,
    version: str,
    adapters: AdapterApi,
    tune: TuneApi | None = None,
    gate: GateApi | None = None,
    benchmarks: BenchmarkApi | None = None,
) -> FastAPI:
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
    for name, command in (("restart", api.restart), ("drain", api.drain), ("sleep", api.sleep), ("wake", api.wake)):
        app.add_api_route(
            f"/admin/v1/engines/{{engine_id:path}}/{name}", command, methods=["POST"], dependencies=guarded
        )
    app.add_api_route("/admin/v1/workers", api.workers, methods=["GET"], dependencies=guarded)
    app.add_api_route("/admin/v1/models", api.models, methods=["GET"], dependencies=guarded)
    if gate is not None:
        add_gate_routes(app, gate, guarded)
    add_routes(app, adapters, guarded)
    if tune is not None:
        add_tune_routes(app, tune, guarded)
    if benchmarks is not None:
        add_benchmark_routes(app, benchmarks, guarded)
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
