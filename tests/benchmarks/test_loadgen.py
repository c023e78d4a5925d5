import asyncio

import orjson
import pytest

from benchmarks import driver, metrics, transcript
from benchmarks.client import Client, Target
from benchmarks.loadgen import closed_loop, interleave
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from benchmarks.record import FailureKind
from benchmarks.workload import Length, Request, Workload

PATH = "/v1/chat/completions"
REQUESTS = Workload("mock", output_tokens=Length(8, 8)).requests


def test_interleaving_is_round_robin_and_turns_round():
    assert interleave("abc", 3) == [
        (0, "a"),
        (0, "b"),
        (0, "c"),
        (1, "c"),
        (1, "b"),
        (1, "a"),
        (2, "a"),
        (2, "b"),
        (2, "c"),
    ]


async def test_every_request_once_and_never_more_than_c_at_a_time(engine: MockEngine, client: Client):
    run = await closed_loop(client, REQUESTS(30, "s"), 4)
    assert [record.index for record in run.records] == list(range(30))
    assert all(record.is_ok for record in run.records)
    assert engine.stats.max_running == 4
    assert run.num_connects == 4
    assert run.started_s <= min(record.intended_s for record in run.records)
    assert run.ended_s >= max(record.end_s for record in run.records)


async def test_the_next_request_is_due_when_the_last_one_ended(client: Client):
    run = await closed_loop(client, REQUESTS(5, "s"), 1)
    for before, after in zip(run.records, run.records[1:], strict=False):
        assert 0 <= after.intended_s - before.end_s < 0.05


async def test_answers_are_read_as_they_come_when_too_many_are_kept(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(driver, "RAW_BYTES_KEPT", 1000)
    run = await closed_loop(client, REQUESTS(10, "s"), 3)
    assert [record.index for record in run.records] == list(range(10))


async def test_failures_do_not_stop_the_others():
    behaviour = Behaviour(ttft_ms=1, itl_ms=1, error_rate=0.3, disconnect_rate=0.3, disconnect_after=2)
    async with MockEngine(behaviour, seed=1) as engine:
        client = Client(Target.from_url(engine.url))
        run = await closed_loop(client, REQUESTS(40, "s"), 8)
        summary = metrics.summarise(run.records, run.duration_s)
        client.close()
    assert summary.num_requests == 40
    assert set(summary.failures) == {FailureKind.HTTP_STATUS, FailureKind.TRUNCATED}
    assert summary.num_ok + sum(summary.failures.values()) == 40


async def test_arrivals_follow_the_send_times_that_the_server_stamped():
    """Against the truth on the same clock: every token's arrival, and ttft and tpot as computed."""
    async with MockEngine(Behaviour(ttft_ms=20, itl_ms=10)) as engine:
        client = Client(Target.from_url(engine.url))
        request: Request = REQUESTS(1, "s")[0]
        lags, errors = [], []
        for _ in range(5):
            due_s = client.clock()
            exchange = await client.post(PATH, request.body)
            record = transcript.read(exchange, request, due_s)
            messages = [orjson.loads(data) for _, data in transcript.stamped_events(exchange) if data != b"[DONE]"]
            sent = [message["mock"]["sent_s"] for message in messages if "mock" in message]
            lags += [arrival - stamp for arrival, stamp in zip(record.chunk_times_s, sent, strict=True)]
            true_tpot_s = (sent[-1] - sent[0]) / (len(sent) - 1)
            errors.append(abs((metrics.tpot_s(record) or 0) - true_tpot_s))
        client.close()
        await asyncio.sleep(0)
    assert min(lags) >= 0
    assert sorted(lags)[len(lags) // 2] < 0.002
    assert sorted(errors)[len(errors) // 2] < 0.001
