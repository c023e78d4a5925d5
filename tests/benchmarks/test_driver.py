"""On a made-up clock, where every figure must come out exactly."""

import random
from dataclasses import replace

import orjson
import pytest

from benchmarks import metrics
from benchmarks.metrics import percentile
from benchmarks.mock_behaviour import Behaviour
from benchmarks.traffic.arrivals import Arrivals, Spacing, Steady
from benchmarks.traffic.lengths import Length
from benchmarks.traffic.request import Request
from benchmarks.workload import Workload
from tests.benchmarks.virtual import run

PLAIN = Workload("m", output_tokens=Length(4, 4))


def due(requests: list[Request], times_s: list[float]) -> list[Request]:
    return [replace(request, due_s=due_s) for request, due_s in zip(requests, times_s, strict=True)]


def test_open_loop_sends_on_time_whatever_the_server_does():
    times_s = Arrivals(Steady(50)).first(200, random.Random(1))
    slow = random.Random(2)
    records, _ = run(
        due(PLAIN.requests(200, "s"), times_s), lambda _request, at_s: [at_s + slow.expovariate(0.5)], start_s=7.0
    )
    assert (
        [record.sent_s for record in records]
        == [record.intended_s for record in records]
        == [7.0 + each for each in times_s]
    )


def test_latencies_are_exactly_the_server_s():
    chunks = {index: (0.1 + index / 1000, 0.25, 0.3 + index / 500) for index in range(100)}
    requests = due(PLAIN.requests(100, "s"), [index / 10 for index in range(100)])
    records, _ = run(requests, lambda request, at_s: [at_s + each for each in chunks[request.index]])
    for record in records:
        first_s, _, last_s = chunks[record.index]
        assert metrics.ttft_user_s(record) == pytest.approx(first_s, abs=1e-9)
        assert metrics.e2e_s(record) == pytest.approx(last_s, abs=1e-9)
        assert metrics.tpot_s(replace(record, completion_tokens=3)) == pytest.approx((last_s - first_s) / 2, abs=1e-9)


def test_what_waits_for_a_connection_waits_between_due_and_first_token():
    requests = due(PLAIN.requests(10, "s"), [0.0] * 10)
    records, _ = run(requests, lambda _request, at_s: [at_s + 1.0], limit=1)
    assert [record.sent_s for record in records] == [float(index) for index in range(10)]
    assert [metrics.ttft_s(record) for record in records] == [1.0] * 10
    assert [metrics.ttft_user_s(record) for record in records] == [float(index + 1) for index in range(10)]


def test_closed_loop_with_think_time():
    requests = [replace(request, pause_s=2.0) for request in PLAIN.requests(6, "s")]
    records, _ = run(requests, lambda _request, at_s: [at_s + 1.0], num_streams=2)
    assert [record.intended_s for record in records] == [0, 0, 3, 3, 6, 6]
    assert [record.sent_s for record in records] == [0, 0, 3, 3, 6, 6]


def test_turns_follow_the_answer_before_and_hold_it():
    workload = replace(PLAIN, turns=Length(3, 3))
    requests = [replace(request, pause_s=0.5) for request in workload.sessions(2, "s")]
    for request, due_s in zip((requests[0], requests[3]), (0.0, 10.0), strict=True):
        requests[request.index] = replace(request, due_s=due_s)
    records, server = run(requests, lambda _request, at_s: [at_s + 0.25, at_s + 1.0])
    assert [record.intended_s for record in records] == [0, 1.5, 3, 10, 11.5, 13]
    assert [(record.session, record.turn) for record in records] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    said = [[message["role"] for message in orjson.loads(body)["messages"]] for body in server.bodies[:3]]
    assert said == [["user"], ["user", "assistant", "user"], ["user", "assistant", "user", "assistant", "user"]]
    assert orjson.loads(server.bodies[1])["messages"][1]["content"] == records[0].text == " 0 1"


def test_coordinated_omission_side_by_side():
    """A server that answers in 10 ms, but stands still for 1 s of every 10 s. Asked 20 times per second for 100 s, one
    request in ten meets a stall. A closed loop that counts from the send meets each stall once, and shows none of it.
    """
    behaviour = Behaviour(stall_ms=1000, stall_every_ms=10_000)

    def serve(_request: Request, at_s: float) -> list[float]:
        return [behaviour.after_stall_s(at_s + 0.010)]

    times_s = Arrivals(Steady(20), Spacing.parse("constant")).first(2000, random.Random())
    ours, _ = run(due(PLAIN.requests(2000, "s"), times_s), serve)
    truth = sorted(behaviour.after_stall_s(due_s + 0.010) - due_s for due_s in times_s)
    found = sorted(metrics.ttft_user_s(record) or 0 for record in ours)
    assert found == pytest.approx(truth, abs=1e-9)

    naive, _ = run(PLAIN.requests(9000, "s"), serve, num_streams=1)
    counted = sorted(metrics.ttft_s(record) or 0 for record in naive)
    assert naive[-1].end_s > 95  # the same time, and ten stalls, too

    assert percentile(counted, 0.99) == pytest.approx(0.010, abs=1e-9)
    assert percentile(found, 0.99) == pytest.approx(0.91, abs=0.02)
    assert percentile(found, 0.99) > 80 * percentile(counted, 0.99)


@pytest.mark.parametrize("num_streams", [None, 3])
def test_an_empty_list_is_done_at_once(num_streams: int | None):
    assert run([], lambda _request, at_s: [at_s], num_streams=num_streams)[0] == []
