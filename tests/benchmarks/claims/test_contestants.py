"""Contestants over HTTP, against the mock: whatever a warm-up or a run ends with, its connections are closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from benchmarks.campaign import Plan, WarmUpError
from benchmarks.claims import contestants
from benchmarks.claims.contestants import Rounds, Served
from benchmarks.claims.figures import OUTPUT_TPS
from benchmarks.client import Client, Target
from benchmarks.loads import ClosedLoad
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from benchmarks.traffic.lengths import Length
from benchmarks.workload import Endpoint, Workload

LOAD = ClosedLoad(4, 8)
KINDS = pytest.mark.parametrize("kind", [Served, Rounds])


class Watched(Client):
    """Knows all that were made, and which of them were closed."""

    made: ClassVar[list[Watched]] = []
    is_closed = False

    def __init__(self, target: Target, *, timeout_s: float) -> None:
        super().__init__(target, timeout_s=timeout_s)
        self.made.append(self)

    def close(self) -> None:
        super().close()
        self.is_closed = True


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Clients that contestants make."""
    monkeypatch.setattr(Watched, "made", [])
    monkeypatch.setattr(contestants, "Client", Watched)
    return Watched.made


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with MockEngine(Behaviour(ttft_ms=1, itl_ms=1, tokens=4)) as engine:
        yield engine.url


def contestant(kind: type[Served] | type[Rounds], url: str) -> Served | Rounds:
    workload = Workload("mock", Endpoint.COMPLETIONS, Length(4, 4), Length(4, 4))
    return kind("somebody", Target.from_url(url), Plan(workload, (4,)))


@KINDS
async def test_a_warm_up_leaves_no_connection(kind: type[Served] | type[Rounds], url: str, made: list[Watched]) -> None:
    await contestant(kind, url).warm_up()
    assert [client.is_closed for client in made] == [True]


@KINDS
async def test_a_run_leaves_no_connection(kind: type[Served] | type[Rounds], url: str, made: list[Watched]) -> None:
    score = await contestant(kind, url).run(LOAD, 0)
    assert score.figures[OUTPUT_TPS] > 0
    assert [client.is_closed for client in made] == [True]


@KINDS
async def test_a_warm_up_that_fails_leaves_none(kind: type[Served] | type[Rounds], made: list[Watched]) -> None:
    with pytest.raises(WarmUpError):
        await contestant(kind, "http://127.0.0.1:9").warm_up()
    assert [client.is_closed for client in made] == [True]


@KINDS
async def test_a_run_that_breaks_off_leaves_none(
    kind: type[Served] | type[Rounds], url: str, made: list[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("broken off")

    monkeypatch.setattr(contestants, "measure_load", broken)
    monkeypatch.setattr(contestants, "closed_loop", broken)
    with pytest.raises(RuntimeError, match="broken off"):
        await contestant(kind, url).run(LOAD, 0)
    assert [client.is_closed for client in made] == [True]
