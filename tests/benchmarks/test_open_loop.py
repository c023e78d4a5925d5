"""Over sockets. Truth is what the mock stamps into its chunks, on the same clock."""

import asyncio
import itertools
import random
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
import pytest

from benchmarks import metrics, transcript
from benchmarks.client import Client, Target
from benchmarks.http1 import Exchange
from benchmarks.loadgen import LoadRun, closed_loop, open_loop
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from benchmarks.record import Record
from benchmarks.traffic.arrivals import Arrivals, Spacing, Steady
from benchmarks.traffic.cancellations import Cancel
from benchmarks.traffic.lengths import Length
from benchmarks.traffic.request import Request
from benchmarks.workload import Endpoint, Workload

REQUESTS = Workload("mock", output_tokens=Length(8, 8)).requests


def due(requests: list[Request], rate: float, spacing: str = "poisson") -> list[Request]:
    times_s = Arrivals(Steady(rate), Spacing.parse(spacing)).first(len(requests), random.Random(4))
    return [replace(request, due_s=due_s) for request, due_s in zip(requests, times_s, strict=True)]


@asynccontextmanager
async def client_of(engine: MockEngine, **options: object) -> AsyncIterator[Client]:
    client = Client(Target.from_url(engine.url), **{"timeout_s": 10, **options})  # type: ignore[arg-type]
    try:
        yield client
    finally:
        client.close()
        await asyncio.sleep(0)


def stamps(exchange: Exchange) -> list[float]:
    messages = [orjson.loads(data) for _, data in transcript.stamped_events(exchange) if data != b"[DONE]"]
    return [message["mock"]["sent_s"] for message in messages if "mock" in message]


async def measured(monkeypatch: pytest.MonkeyPatch, num_streams: int) -> tuple[LoadRun, dict[int, list[float]]]:
    """A run against the mock, open for 0 streams, and the send times of every answer's chunks."""
    truth: dict[int, list[float]] = {}
    read = transcript.read

    def spy(exchange: Exchange, request: Request, intended_s: float) -> Record:
        truth[request.index] = stamps(exchange)
        return read(exchange, request, intended_s)

    monkeypatch.setattr(transcript, "read", spy)
    async with MockEngine(Behaviour(ttft_ms=50, itl_ms=20)) as engine, client_of(engine) as client:
        requests = REQUESTS(60, "s")
        if num_streams:
            return await closed_loop(client, requests, num_streams), truth
        return await open_loop(client, due(requests, 60)), truth


@pytest.mark.parametrize("num_streams", [0, 6])
async def test_known_truth(monkeypatch: pytest.MonkeyPatch, num_streams: int):
    """Medians over all requests, so that a moment in which this machine does something else does not decide."""
    run, truth = await measured(monkeypatch, num_streams)
    pairs = [(record, truth[record.index]) for record in run.records]
    assert all(record.is_ok and len(sent) == 8 for record, sent in pairs)
    for found, true in (
        ([metrics.ttft_user_s(record) for record, _ in pairs], [sent[0] - record.intended_s for record, sent in pairs]),
        ([metrics.e2e_user_s(record) for record, _ in pairs], [sent[-1] - record.intended_s for record, sent in pairs]),
        ([metrics.tpot_s(record) for record, _ in pairs], [(sent[-1] - sent[0]) / 7 for _, sent in pairs]),
    ):
        errors = [(one or 0) - other for one, other in zip(found, true, strict=True)]
        assert abs(statistics.median(errors)) <= max(0.001, 0.02 * statistics.median(true))


async def test_an_open_loop_does_not_wait_for_answers():
    """All requests are under way at once, as each answer takes longer than all arrivals together."""
    async with MockEngine(Behaviour(ttft_ms=1500, itl_ms=0)) as engine, client_of(engine) as client:
        run = await open_loop(client, due(REQUESTS(40, "s"), 400))
    assert engine.stats.max_running == 40
    assert all(record.is_ok for record in run.records)
    assert all((record.sent_s or 0) >= record.intended_s for record in run.records)
    assert run.concurrency == 0
    assert run.pacing_s is not None
    assert run.pacing_s.num == 40
    assert run.pacing_s.min >= 0


async def test_a_bound_on_connections_shows_as_lag_of_the_sending():
    async with MockEngine(Behaviour(ttft_ms=100, itl_ms=0)) as engine, client_of(engine, max_connections=2) as client:
        run = await open_loop(client, due(REQUESTS(8, "s"), 1000))
    assert engine.stats.max_running == 2
    lags = [metrics.send_lag_s(record) or 0 for record in run.records]
    assert max(lags) > 0.25  # the last ones wait for three answers
    assert all(record.is_ok for record in run.records)


async def test_a_stall_meets_every_request_that_was_due_in_it_and_a_closed_loop_only_once():
    """What must be so at any speed of this machine: nothing can come back before a stall's end."""
    behaviour = Behaviour(ttft_ms=1, itl_ms=0, stall_ms=120, stall_every_ms=400)
    async with MockEngine(behaviour) as engine, client_of(engine) as client:
        ours = await open_loop(client, due(REQUESTS(300, "s"), 200, "constant"))
        naive = await closed_loop(client, REQUESTS(300, "t"), 1)
    early_s = 0.004  # by which the mock's timers, of whole milliseconds, may come before their time
    in_stall = [(each, behaviour.after_stall_s(each.intended_s)) for each in ours.records]
    in_stall = [(record, end_s) for record, end_s in in_stall if end_s > record.intended_s]
    assert len(in_stall) >= 60  # 30 % of the time is stalls
    assert all((metrics.ttft_user_s(record) or 0) >= end_s - record.intended_s - early_s for record, end_s in in_stall)
    met = [each for each in naive.records if behaviour.after_stall_s(each.sent_s or 0) - (each.sent_s or 0) > early_s]
    assert (
        len(met) <= naive.duration_s / 0.4 + 2
    )  # one stream is stalled once by each stall, and asks nothing meanwhile


async def test_sessions_over_sockets(engine: MockEngine, client: Client):
    workload = Workload("mock", output_tokens=Length(4, 4), turns=Length(3, 3))
    run = await closed_loop(client, workload.sessions(2, "s"), 2)
    assert [(record.session, record.turn, record.is_ok) for record in run.records] == [
        (number, turn, True) for number in range(2) for turn in range(3)
    ]
    prompts = [record.prompt_tokens or 0 for record in run.records]
    assert prompts[0] == prompts[3] == 32
    assert all(later > earlier + 32 for earlier, later in itertools.pairwise(prompts[:3]))


@pytest.mark.parametrize("cancel", [Cancel(after_events=3), Cancel(after_s=0.08)])
async def test_cancelled_requests_are_neither_answers_nor_failures(cancel: Cancel):
    async with MockEngine(Behaviour(ttft_ms=5, itl_ms=20)) as engine, client_of(engine) as client:
        requests = [replace(request, cancel=cancel) for request in Workload("mock").requests(4, "s")]
        run = await closed_loop(client, requests, 2)
        for _ in range(500):
            if engine.stats.num_disconnects_seen == 4:
                break
            await asyncio.sleep(0.01)
    assert all(record.is_cancelled and record.failure is None and not record.is_ok for record in run.records)
    assert all(len(record.chunk_times_s) < 128 for record in run.records)
    assert engine.stats.num_disconnects_seen == 4
    if cancel.after_events:
        assert all(len(record.chunk_times_s) >= 2 for record in run.records)  # the role has an event, too


async def test_an_answer_that_ends_before_its_client_would_leave_is_whole(client: Client):
    requests = [replace(request, cancel=Cancel(after_events=500)) for request in REQUESTS(3, "s")]
    run = await closed_loop(client, requests, 1)
    assert all(record.is_ok and not record.is_cancelled for record in run.records)
    assert run.num_connects == 1


async def test_embeddings(client: Client):
    run = await closed_loop(client, Workload("mock", Endpoint.EMBEDDINGS, Length(7, 7)).requests(5, "s"), 2)
    assert all(record.is_ok for record in run.records)
    assert [record.prompt_tokens for record in run.records] == [7] * 5
    summary = metrics.summarise(run.records, run.duration_s)
    assert (summary.output_tokens, summary.input_tokens, summary.num_tpot_undefined) == (0, 35, 5)
    assert summary.e2e_s is not None
    assert summary.e2e_s == summary.ttft_s
