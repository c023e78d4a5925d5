"""Benchmarks in the admin API: start one, list them, look at one, fetch its result, stop it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from gateway import errors
from gateway.control.adapterapi import who_of
from gateway.control.benchmarkorder import BenchmarkBody
from gateway.control.benchmarks import Benchmarks
from gateway.control.benchmarkshelf import Level, Run

JSON, HTML = "application/json", "text/html"
FORMATS = {"json": JSON, "html": HTML}
REPORT: dict[str, Any] = {
    "responses": {
        "200": {
            "description": "As `forgegate bench run --out` writes it: the whole result, or a page with its plots.",
            "content": {JSON: {"schema": {"type": "object"}}, HTML: {"schema": {"type": "string"}}},
        }
    }
}


@dataclass(frozen=True, slots=True)
class BenchmarkView:
    id: str
    model: str
    resolved: str
    """What answered for the name; empty where the traffic is split."""
    state: str
    """running, done, failed, stopped, or cut (the gateway ended while it ran)."""
    detail: str
    """What it does now, or why it came to nothing."""
    who: str
    at: float
    """Unix seconds, when it began."""
    ended: float | None
    num_done: int
    """Of `num_parts`: each is one load once."""
    num_parts: int
    """0 until the first one has ended."""
    user_share: float
    """Of the busiest engine's capacity that users took when it began."""
    is_valid: bool | None
    """False: its figures are void, for the reasons in `faults`; null without a result."""
    faults: tuple[str, ...]
    is_slo_met: bool | None
    """Whether what was promised is shown to hold at some load; null where nothing was, or without a result."""
    levels: tuple[Level, ...]
    asked: BenchmarkBody


@dataclass(frozen=True, slots=True)
class BenchmarkList:
    data: tuple[BenchmarkView, ...]


class BenchmarkApi:
    """The routes."""

    def __init__(self, benchmarks: Benchmarks) -> None:
        self._benchmarks = benchmarks

    async def start(self, request: Request, body: BenchmarkBody) -> BenchmarkView:
        """Measure one of the gateway's models. One at a time; not beside much traffic of users unless it is forced."""
        return _view(await self._benchmarks.begin(body, who_of(request, body.who)))

    async def runs(self) -> BenchmarkList:
        """Those that are kept, newest first."""
        return BenchmarkList(tuple(map(_view, self._benchmarks.runs())))

    async def show(self, benchmark_id: str) -> BenchmarkView:
        """How far it is, or what came of it."""
        return _view(self._benchmarks.run(benchmark_id))

    async def report(
        self,
        request: Request,
        benchmark_id: str,
        format: Annotated[str, Query(description="json or html, in place of what `accept` says")] = "",
    ) -> Response:
        """The whole result."""
        kind = _kind(format, request.headers.get("accept", ""))
        return Response(await self._benchmarks.document(benchmark_id, is_page=kind == HTML), media_type=kind)

    async def stop(self, request: Request, benchmark_id: str) -> BenchmarkView:
        """End it at once, without a result; one that has ended already stays as it is."""
        return _view(await self._benchmarks.stop(benchmark_id, who_of(request, "")))


def add_benchmark_routes(app: FastAPI, api: BenchmarkApi, dependencies: list[Any]) -> None:
    all_runs = "/admin/v1/benchmarks"
    one = f"{all_runs}/{{benchmark_id}}"
    for method, path, endpoint, extra in (
        ("POST", all_runs, api.start, {"status_code": 202}),
        ("GET", all_runs, api.runs, {}),
        ("GET", f"{one}/report", api.report, {"openapi_extra": REPORT, "response_class": Response}),
        ("GET", one, api.show, {}),
        ("DELETE", one, api.stop, {}),
    ):
        app.add_api_route(path, endpoint, methods=[method], dependencies=dependencies, **extra)


def _kind(wanted: str, accept: str) -> str:
    """The page for browsers, JSON for everybody else. Raises BadRequest."""
    if wanted and wanted not in FORMATS:
        raise errors.BadRequest(f"format: expected {' or '.join(FORMATS)}, got {wanted!r}", param="format")
    return FORMATS[wanted] if wanted else HTML if HTML in accept else JSON


def _view(run: Run) -> BenchmarkView:
    return BenchmarkView(
        id=run.id, model=run.body.model, resolved=run.resolved, state=str(run.state), detail=run.detail, who=run.who, at=run.at,
        ended=run.ended, num_done=run.num_done, num_parts=run.num_parts, user_share=run.user_share, is_valid=run.is_valid,
        faults=run.faults, is_slo_met=run.is_slo_met, levels=run.levels, asked=run.body,
    )  # fmt: skip
