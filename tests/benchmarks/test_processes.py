import multiprocessing

import pytest

from benchmarks import processes
from benchmarks.client import ClientOptions, Target
from benchmarks.mock_behaviour import Behaviour
from benchmarks.mock_server import MockEngine
from benchmarks.processes import ProcessError, run_load, shares_of
from benchmarks.record import FailureKind
from benchmarks.traffic.lengths import Length
from benchmarks.workload import Workload
from tests.benchmarks.test_open_loop import due

REQUESTS = Workload("mock", output_tokens=Length(3, 3)).requests


def test_every_request_goes_to_one_process_and_sessions_stay_whole():
    requests = Workload("m", turns=Length(1, 3)).requests(50, "s")
    shares = shares_of(requests, 7, 5, 3)
    assert sorted(request.index for share in shares for request in share.requests) == list(range(50))
    assert [share.num_streams for share in shares] == [3, 2, 2]
    assert [share.max_connections for share in shares] == [2, 2, 1]
    sessions = [{request.session for request in share.requests} for share in shares]
    assert not sessions[0] & sessions[1]
    assert not sessions[1] & sessions[2]


def test_no_process_is_left_without_work():
    assert len(shares_of(REQUESTS(2, "s"), 0, None, 4)) == 2
    assert len(shares_of(REQUESTS(20, "s"), 3, None, 4)) == 3
    assert len(shares_of(REQUESTS(20, "s"), 0, 1, 4)) == 1


async def test_two_processes_send_one_list_by_one_clock():
    async with MockEngine(Behaviour(ttft_ms=5, itl_ms=1)) as engine:
        options = ClientOptions(Target.from_url(engine.url), timeout_s=10)
        opened = await run_load(options, due(REQUESTS(40, "s"), 200), 0, 2)
        closed = await run_load(options, REQUESTS(20, "t"), 4, 2)
    for run, num in ((opened, 40), (closed, 20)):
        assert [record.index for record in run.records] == list(range(num))
        assert all(record.is_ok for record in run.records)
        assert run.num_processes == 2
        assert run.num_connects == 0 or run is opened  # a closed loop's were opened before
        assert len(run.lags_s) == num
        assert min(run.lags_s) >= 0
    times_s = [record.intended_s - opened.started_s for record in opened.records]
    assert times_s == sorted(times_s)
    assert closed.concurrency == 4
    assert engine.stats.max_running >= 2


async def test_nobody_there_is_a_failure_of_every_request():
    async with MockEngine() as engine:
        options = ClientOptions(Target.from_url(engine.url))
    run = await run_load(options, REQUESTS(4, "s"), 2, 2)
    assert {record.failure.kind for record in run.records if record.failure} == {FailureKind.CONNECT}


def test_a_process_that_died_or_failed_is_told_in_one_line():
    ours, theirs = multiprocessing.Pipe()
    theirs.send(ValueError("no such thing"))
    theirs.close()
    with pytest.raises(ProcessError, match="failed: ValueError: no such thing"):
        processes._receive(ours)
    with pytest.raises(ProcessError, match="died"):
        processes._receive(ours)
    with pytest.raises(ProcessError, match="died"):
        processes._tell(ours, 0.0)
    ours.close()
