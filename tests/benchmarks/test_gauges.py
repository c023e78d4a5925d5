"""What engines say of themselves, and Little's law by it."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import campaign
from benchmarks.campaign import Plan, measure_load
from benchmarks.client import Client
from benchmarks.gauges import held, watched
from benchmarks.mock_server import MockEngine
from benchmarks.target import Target
from benchmarks.workload import Length, Workload

VLLM = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="demo"} 3.0
vllm:num_requests_running{engine="1",model_name="demo"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="demo"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
"""
GATEWAY = (
    b'forgegate_engine_requests_running{engine="demo-0"} 1\nforgegate_engine_requests_waiting{engine="demo-0"} 2.5e0\n'
)
LIVE = b"""forgegate_requests_running{engine="demo-0"} 4.0
forgegate_requests_running{engine="demo-1"} 1.0
forgegate_adapter_waiting 2.0
forgegate_engine_waiting 0.0
"""
LLAMA_SERVER = b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n"


@pytest.mark.parametrize(
    ("page", "num"), [(VLLM, 9.0), (GATEWAY, 3.5), (LLAMA_SERVER, 3.0), (b"go_threads 5\n", None), (b"<html>", None)]
)
def test_running_and_waiting_of_every_engine(page: bytes, num: float | None) -> None:
    assert held(page) == num


def test_of_a_gateway_its_own_count_of_this_moment() -> None:
    """What its page says of engines was read off them up to two seconds ago."""
    assert held(LIVE + GATEWAY) == held(GATEWAY + LIVE) == 7.0


async def test_a_server_that_is_not_there_gives_nothing() -> None:
    async with watched(Target.from_url("http://127.0.0.1:9")) as gauges:
        await asyncio.sleep(0.05)
    assert gauges == []


async def test_it_is_sampled_while_a_load_runs(client: Client, engine: MockEngine) -> None:
    requests = Workload("mock", output_tokens=Length(5, 5), extra={"mock": {"ttft_ms": 300}}).requests(2, "a seed")
    async with watched(Target.from_url(engine.url)) as gauges:
        await asyncio.gather(*(client.post("/v1/chat/completions", request.body) for request in requests))
    assert max(num for _, num in gauges) == 2
    assert [at_s for at_s, _ in gauges] == sorted(at_s for at_s, _ in gauges)


async def test_a_gauge_that_disagrees_voids_the_run(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's requests: the engine holds more than this client has sent."""

    class Crowded:
        def __init__(self, target: Target | None) -> None:
            self.gauges: list[tuple[float, float]] = []

        async def __aenter__(self) -> list[tuple[float, float]]:
            self.task = asyncio.create_task(self.fill())
            return self.gauges

        async def fill(self) -> None:
            while True:
                self.gauges.append((client.clock(), 12.0))
                await asyncio.sleep(0.005)

        async def __aexit__(self, *_: object) -> None:
            self.task.cancel()

    monkeypatch.setattr(campaign, "watched", Crowded)
    plan = Plan(Workload("mock", output_tokens=Length(5, 5)), (2,), num_requests=120)
    run = await measure_load(client, plan, plan.closed_load(2), 0, 0)
    assert any("Little's law is off" in fault for fault in run.verdict.faults), run.verdict
