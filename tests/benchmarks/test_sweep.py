import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks import campaign, report, sweep
from benchmarks.beyond import Cause, beyond_of
from benchmarks.campaign import MeasuredRun, Plan
from benchmarks.client import Client, Target
from benchmarks.loads import Load
from benchmarks.record import Failure, FailureKind
from benchmarks.statistics.saturation import MIN_DURATION_S, Saturation, Slope
from benchmarks.sweep import Sweep, run_sweep
from benchmarks.validity import Verdict
from benchmarks.workload import Length, Workload
from tests.benchmarks.virtual import run

CAPACITY = 20.0
PLAN = Plan(Workload("m", output_tokens=Length(1, 1)), (1,), 40, num_warmup=0)
RISING = Slope(1.0, 0.1, 0.5)


def test_rates_lie_strictly_between_both_ends():
    assert Sweep(num_rates=3).rates(10, 50) == (20, 30, 40)
    assert Sweep(num_rates=3).rates(0, 0) == ()


def test_a_server_that_answers_one_at_a_time_is_asked_from_half_of_its_throughput_on():
    assert Sweep(num_rates=3).rates(10, 10) == (6.25, 7.5, 8.75)
    assert Sweep(num_rates=1).rates(10, 4) == (3,)


def test_a_rate_shows_over_saturation():
    """From the first request to the last it must be half a minute."""
    times_s = sweep.steady_load(1.0, Sweep().spacing, Sweep().duration_s).arrivals.until(
        Sweep().duration_s, random.Random(1)
    )
    assert times_s[-1] - times_s[0] > MIN_DURATION_S


def test_a_slow_rate_goes_on_until_enough_requests_have_come():
    slow, fast = (sweep.steady_load(rate, Sweep().spacing, 40.0) for rate in (0.1, 10.0))
    assert (slow.num_requests, slow.duration_s) == (20, None)
    assert (fast.num_requests, fast.duration_s) == (None, 40.0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Loads and repeats as they are measured, against a server on a made-up clock that answers two at once."""
    calls: list[tuple[str, int]] = []

    async def measure(_client: Client, plan: Plan, load: Load, repeat: int, order: int) -> MeasuredRun:
        calls.append((load.label, repeat))
        requests = load.requests(plan.workload, plan.seed_of(load.key, repeat))
        records, _ = run(
            requests, lambda _request, at_s: [at_s + 2 / CAPACITY], num_streams=load.concurrency or None, limit=2
        )
        return _judged(load, records, repeat, order)

    monkeypatch.setattr(sweep, "measure_load", measure)
    return calls


def _judged(load: Load, records: Sequence[campaign.Record], repeat: int, order: int) -> MeasuredRun:
    ended_s = max(record.end_s for record in records)
    summary = campaign.summarise(records, ended_s)
    found = None if load.concurrency else campaign.saturation_of(records)
    return MeasuredRun(
        repeat,
        order,
        campaign.LoadRun(load.concurrency, tuple(records), 0.0, ended_s, 0.0, 0, [], 0.0),  # type: ignore[arg-type]
        summary,
        campaign.judge(summary, 0.0),
        load,
        found,
    )


async def swept(num_rates: int, repeats: int = 1, plan: Plan = PLAN) -> sweep.Swept:
    client = Client(Target.from_url("127.0.0.1:9"))
    return await run_sweep(
        client, replace(plan, repeats=repeats), Sweep(num_rates, 60, num_streams=8), lambda _run: None
    )


async def test_one_stream_then_full_throughput_then_rates_in_between(measured: list[tuple[str, int]]):
    found = await swept(
        3, repeats=2, plan=replace(PLAN, seed=1)
    )  # a queue at 0.9 is taken for one that grows in 5 of 100
    assert [label for label, _ in measured[:4]] == ["1 stream", "1 stream", "8 streams", "8 streams"]
    lowest, highest = (level.pooled.request_rate for level in found.levels[:2])
    assert (lowest, highest) == (pytest.approx(CAPACITY / 2), pytest.approx(CAPACITY))
    rates = [level.runs[0].offered.rate for level in found.levels[2:]]
    assert rates == [pytest.approx(rate) for rate in (12.5, 15, 17.5)]
    assert found.stop is None


async def test_slow_answers_make_rates_longer(measured: list[tuple[str, int]]):
    alone = (await swept(1)).levels[0]  # its answers take 0.1 s
    assert Sweep(duration_s=60.0).length_s(alone) == 60.0
    assert Sweep(duration_s=0.5, num_answers=7).length_s(alone) == pytest.approx(0.7)


async def test_rates_of_sessions_are_those_of_sessions(measured: list[tuple[str, int]]):
    found = await swept(1, plan=replace(PLAN, workload=replace(PLAN.workload, turns=Length(4, 4))))
    full = found.levels[1]
    assert sweep.arrival_rate(full) == pytest.approx(full.pooled.request_rate / 4)


async def test_it_stops_at_the_first_rate_that_is_too_much(
    measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
):
    """Full throughput is overstated here, so that rates beyond the server's capacity are tried."""
    monkeypatch.setattr(Sweep, "rates", lambda *_: (10.0, 40.0, 80.0))
    found = await swept(3)
    assert [level.label for level in found.levels] == ["1 stream", "8 streams", "10 req/s"]
    assert found.stop is not None
    assert found.stop.level.label == "40 req/s"
    assert found.stop.cause is Cause.QUEUE
    assert "requests in flight grew by" in found.stop.because
    assert [label for label, _ in measured] == ["1 stream", "8 streams", "10 req/s", "40 req/s"]


async def test_a_rate_that_is_too_much_is_not_repeated(
    measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Sweep, "rates", lambda *_: (5.0, 2 * CAPACITY, 3 * CAPACITY))
    found = await swept(3, repeats=2, plan=replace(PLAN, seed=1))
    assert found.stop is not None
    assert measured[-3:] == [("5 req/s", 0), ("5 req/s", 1), ("40 req/s", 0)]


async def test_it_stops_too_where_requests_fail_and_keeps_the_fault(
    measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
):
    """A server that has died is not one that is too slow: the run is void, and is not measured on."""
    measure = sweep.measure_load

    async def dying(client: Client, plan: Plan, load: Load, repeat: int, order: int) -> MeasuredRun:
        found = await measure(client, plan, load, repeat, order)
        return failing(found, len(found.load.records), FailureKind.CONNECT) if load.rate == 15.0 else found

    monkeypatch.setattr(sweep, "measure_load", dying)
    found = await swept(3)
    assert [level.label for level in found.levels] == ["1 stream", "8 streams", "12.5 req/s", "15 req/s"]
    assert found.stop is not None
    assert (found.stop.level, found.stop.cause) == (found.levels[-1], Cause.FAILED)
    document = report.run_document([], "", PLAN, found.levels, profile="sweep", stop=found.stop)
    assert not document["is_valid"]
    assert "stopped" not in document
    assert document["beyond"] == []
    assert any("15 req/s, repeat 0" in fault and "failed" in fault for fault in document["faults"])
    assert f"the sweep stopped here: {found.stop.because}" in document["levels"][-1]["remarks"]


def failing(found: MeasuredRun, num: int, kind: FailureKind, status: int | None = None) -> MeasuredRun:
    """The run, had its first requests failed."""
    failure = Failure(kind, "as told")
    records = found.load.records
    changed = tuple(
        replace(each, failure=failure, status=status, chunk_times_s=(), chunk_chars=()) for each in records[:num]
    )
    return _judged(found.offered, [*changed, *records[num:]], found.repeat, found.order)


GROWN = Saturation(60, RISING, RISING)
BUSY = ("the client used 90% of a core",)


async def test_a_queue_that_grew_is_too_much_unless_the_run_is_void(measured: list[tuple[str, int]]):
    level = (await swept(1)).levels[-1]
    (run,) = level.runs
    assert beyond_of(level) is None
    grown = replace(run, saturation=GROWN)
    broken = replace(failing(run, 1, FailureKind.RESET), saturation=GROWN)
    busy = replace(grown, verdict=Verdict(BUSY, client=BUSY))
    for changed, cause in (
        (grown, Cause.QUEUE),
        (replace(grown, achieved=0.9), Cause.UNSENT),
        (broken, Cause.FAILED),
        (busy, Cause.CLIENT),
    ):
        found = beyond_of(replace(level, runs=(changed,)))
        assert found is not None
        assert found.cause is cause
    worst = beyond_of(replace(level, runs=(grown, replace(run, achieved=0.9))))
    assert worst is not None
    assert (worst.cause, worst.because) == (Cause.UNSENT, "90.0% of the requests could be sent in time")


@pytest.mark.parametrize(
    ("kind", "status", "cause"),
    [
        (FailureKind.HTTP_STATUS, 429, Cause.REJECTED),
        (FailureKind.HTTP_STATUS, 503, Cause.REJECTED),
        (FailureKind.HTTP_STATUS, 404, Cause.FAILED),
        (FailureKind.HTTP_STATUS, 500, Cause.FAILED),
        (FailureKind.CONNECT, None, Cause.FAILED),
        (FailureKind.RESET, None, Cause.FAILED),
        (FailureKind.TIMEOUT, None, Cause.FAILED),
        (FailureKind.TRUNCATED, 200, Cause.FAILED),
    ],
)
async def test_only_a_server_that_turns_requests_away_says_itself_that_it_is_too_much(
    measured: list[tuple[str, int]], kind: FailureKind, status: int | None, cause: Cause
):
    level = (await swept(1)).levels[-1]
    (run,) = level.runs
    most = int(0.05 * run.summary.num_requests)
    assert beyond_of(replace(level, runs=(failing(run, most, kind, status),))) is None
    found = beyond_of(replace(level, runs=(failing(run, most + 1, kind, status),)))
    assert found is not None
    assert found.cause is cause
    assert f"requests failed ({most + 1} {kind.value}" in found.because
    assert found.cause.is_fault is (cause is Cause.FAILED)


async def test_who_watches_hears_of_every_run(measured: list[tuple[str, int]]):
    started: list[tuple[str, int, int]] = []

    class Watcher(campaign.Observer):
        def started(self, load: Load, repeat: int, order: int) -> None:
            started.append((load.label, repeat, order))

    await run_sweep(
        Client(Target.from_url("127.0.0.1:9")), PLAN, Sweep(1, 60, num_streams=8), lambda _run: None, Watcher()
    )
    assert started == [("1 stream", 0, 0), ("8 streams", 0, 1), ("15 req/s", 0, 2)]
