"""capacity@SLO, against a queue whose truth is known."""

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks import campaign, sweep
from benchmarks.beyond import Cause
from benchmarks.campaign import LoadRun, MeasuredRun, Plan, level_of
from benchmarks.capacity import (
    LOOKS,
    Capacity,
    Search,
    Trial,
    capacity_of,
    find_capacity,
    missed_alone,
    next_rate,
    trial_of,
)
from benchmarks.client import Client, Target
from benchmarks.commands.measure import _expected
from benchmarks.commands.profile_options import Profile
from benchmarks.loads import ClosedLoad, Load, OpenLoad
from benchmarks.record import Failure, FailureKind, Record
from benchmarks.statistics.binomial import Answer
from benchmarks.statistics.slo import SloError, parse_slo
from benchmarks.sweep import Surveyor
from benchmarks.workload import Workload
from tests.benchmarks.records import record

SERVICE_S = 0.05
SLO = parse_slo("ttft_p90<200ms")
SEARCH = Search(SLO, duration_s=60.0, num_rates=12)
PLAN = Plan(Workload("m"), (1,), num_warmup=0)


def share_within(limit_s: float, rate: float) -> float:
    """Of an M/D/1 queue's customers, those whose wait and service take at most so long (Erlang's formula)."""
    wait_s = limit_s - SERVICE_S
    terms = (
        (-rate * (wait_s - k * SERVICE_S)) ** k / math.factorial(k) * math.exp(rate * (wait_s - k * SERVICE_S))
        for k in range(int(wait_s / SERVICE_S) + 1)
    )
    return (1 - rate * SERVICE_S) * math.fsum(terms)


def true_capacity(limit_s: float, share: float) -> float:
    low, high = 0.0, 1 / SERVICE_S
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if share_within(limit_s, middle) > share else (low, middle)
    return low


def one_server(times_s: Sequence[float]) -> list[Record]:
    """Answers of one token, one after the other."""
    free_s, found = 0.0, []
    for index, at_s in enumerate(times_s):
        free_s = max(at_s, free_s) + SERVICE_S
        found.append(
            record(
                index=index, intended_s=at_s, sent_s=at_s, first_byte_s=free_s, end_s=free_s, chunk_times_s=(free_s,),
                chunk_chars=(3,), num_reads=1, completion_tokens=1, is_exact=False,
            )
        )  # fmt: skip
    return found


def measured_run(records: Sequence[Record], load: Load, repeat: int = 0, order: int = 0) -> MeasuredRun:
    ended_s = max(each.end_s for each in records)
    summary = campaign.summarise(records, ended_s)
    run = LoadRun(load.concurrency, tuple(records), 0.0, ended_s, 0.0, 0, array("d"), 0.0)
    saturation = None if load.concurrency else campaign.saturation_of(records)
    return MeasuredRun(repeat, order, run, summary, campaign.judge(summary, 0.0), load, saturation)


@pytest.fixture
def lengths_s(monkeypatch: pytest.MonkeyPatch) -> dict[float, list[float]]:
    """By rate, the lengths of the looks at it, against one server on a made-up clock."""
    found: dict[float, list[float]] = {}

    async def measure(_client: Client, plan: Plan, load: Load, repeat: int, order: int) -> MeasuredRun:
        assert isinstance(load, OpenLoad)
        assert load.duration_s is not None
        found.setdefault(load.rate, []).append(load.duration_s)
        times_s = load.arrivals.until(load.duration_s, random.Random(plan.seed_of(load.key, repeat)))
        return measured_run(one_server(times_s), load, repeat, order)

    monkeypatch.setattr(sweep, "measure_load", measure)
    return found


def surveyor(plan: Plan = PLAN) -> Surveyor:
    return Surveyor(Client(Target.from_url("127.0.0.1:9")), plan, lambda _run: None)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_capacity_of_a_queue_is_found(lengths_s: dict[float, list[float]], seed: int):
    truth = true_capacity(0.2, 0.9)
    assert 13 < truth < 16, "of a server that answers 20 requests per second"
    found = capacity_of(await find_capacity(surveyor(replace(PLAN, seed=seed)), SEARCH, (), 15.0))
    assert found.rate is not None
    assert found.above is not None
    assert 0.85 * truth < found.rate < 1.05 * truth
    assert found.above.rate <= found.rate * 1.05


async def test_a_rate_is_looked_at_until_its_answer_is_clear(lengths_s: dict[float, list[float]]):
    await find_capacity(surveyor(), SEARCH, (), 15.0)
    assert all(looks == [60.0 * times for times in LOOKS[: len(looks)]] for looks in lengths_s.values())
    assert {len(looks) for looks in lengths_s.values()} > {1}


async def test_what_the_server_does_not_carry_does_not_pass(lengths_s: dict[float, list[float]]):
    """All are answered within the limit, but later and later."""
    lenient = replace(SEARCH, slo=parse_slo("ttft_p90<1000s"), num_rates=1)
    (trial,) = await find_capacity(surveyor(), lenient, (), 40.0)
    assert trial.goodput.answer is Answer.PASSED
    assert trial.beyond is not None
    assert trial.beyond.cause is Cause.QUEUE
    assert trial.answer is Answer.FAILED


async def test_no_more_rates_are_tried_than_allowed(lengths_s: dict[float, list[float]]):
    trials = await find_capacity(surveyor(), replace(SEARCH, num_rates=2), (), 5.0)
    assert [trial.rate for trial in trials] == [5.0, 7.5]
    assert "7.5 requests/s passes with 99% confidence; no higher rate was tried" in capacity_of(trials).sentence()


def trial(rate: float, answer: Answer) -> Trial:
    level = level_of(0, [measured_run(one_server([0.0, 1.0]), ClosedLoad(1, 2))])
    return Trial(rate, level, campaign.goodput_of(level, SLO), answer, None)


def test_what_passed_above_what_did_not_is_not_believed():
    answers = {5.0: Answer.PASSED, 8.0: Answer.PASSED, 9.0: Answer.UNDECIDED, 10.0: Answer.PASSED, 12.0: Answer.FAILED}
    found = capacity_of([trial(rate, answer) for rate, answer in answers.items()])
    assert found.rate == 8.0
    assert found.above is not None
    assert found.above.rate == 9.0
    assert found.sentence() == (
        "capacity@SLO: 8 requests/s passes with 99% confidence; 9 requests/s is undecided: 42 more requests without a miss would "
        "pass, about 22 s"
    )
    assert (
        Capacity(None, trial(2.0, Answer.FAILED)).sentence() == "capacity@SLO: none shown; 2 requests/s does not pass"
    )
    assert Capacity(None, None, why_none="never").sentence() == "capacity@SLO: none; never"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(None, None, 7.0), (None, 8.0, 4.0), (8.0, None, 12.0), (8.0, 12.0, 10.0), (10.0, 10.5, None), (10.0, 10.6, 10.3)],
)
def test_bisection(low: float | None, high: float | None, expected: float | None):
    found = Capacity(low, None if high is None else trial(high, Answer.FAILED))
    assert next_rate(found, SEARCH, 7.0) == (None if expected is None else pytest.approx(expected))


async def test_slow_servers_are_looked_at_until_enough_requests_have_come(lengths_s: dict[float, list[float]]):
    """Of a p99 it takes 597 requests without a miss: at 1.5 per second that is seven minutes."""
    search = replace(SEARCH, slo=parse_slo("ttft_p99<500ms"), duration_s=40.0, num_rates=1)
    assert search.num_needed == 597
    (trial,) = await find_capacity(surveyor(), search, (), 1.5)
    assert trial.answer is Answer.PASSED
    assert lengths_s[1.5][0] == pytest.approx(597 / 2 / 1.5)
    assert sum(lengths_s[1.5]) <= search.longest_s(1.5)
    assert search.look_s(100.0) == 40.0


def test_what_is_expected_counts_the_looks_as_they_will_be():
    """A request takes half a second: the first rate of a server that answers one at a time is 1.5 per second."""
    search = replace(SEARCH, slo=parse_slo("ttft_p99<500ms"), duration_s=40.0, num_rates=2)
    expected, num_runs = _expected(PLAN, Profile.CAPACITY, sweep.Sweep(), search)
    least_s, most_s = expected(0.5)
    assert num_runs is None
    assert most_s - least_s == pytest.approx(2 * (search.longest_s(1.5) + len(LOOKS) * 0.5))
    assert search.longest_s(1.5) == pytest.approx(4 * 597 / 1.5)
    least_s, most_s = expected(0.0)
    assert most_s - least_s == 2 * 8 * 40.0


def test_a_look_is_never_shorter_than_the_fewest_requests_of_a_rate():
    search = replace(SEARCH, slo=parse_slo("ttft_p50<500ms"), duration_s=1.0)
    assert search.num_needed < 20
    assert search.look_s(0.1) == 200.0


async def test_too_few_requests_do_not_send_the_search_down(lengths_s: dict[float, list[float]]):
    """A level of two requests shows nothing: what is lower would show less."""
    short = trial(8.0, Answer.UNDECIDED)
    assert short.has_too_few
    assert next_rate(Capacity(None, short), SEARCH, 7.0) is None
    assert next_rate(Capacity(4.0, short), SEARCH, 7.0) is None
    assert await find_capacity(surveyor(), SEARCH, [short], 7.0) == (short,)
    assert lengths_s == {}


async def test_the_search_ends_where_the_server_has_died(
    lengths_s: dict[float, list[float]], monkeypatch: pytest.MonkeyPatch
):
    measure = sweep.measure_load

    async def dying(client: Client, plan: Plan, load: Load, repeat: int, order: int) -> MeasuredRun:
        found = await measure(client, plan, load, repeat, order)
        died = [replace(each, failure=Failure(FailureKind.CONNECT, "refused")) for each in found.load.records]
        return measured_run(died, load, repeat, order) if load.rate == 7.5 else found

    monkeypatch.setattr(sweep, "measure_load", dying)
    trials = await find_capacity(surveyor(), SEARCH, (), 5.0)
    assert [trial.rate for trial in trials] == [5.0, 7.5]
    assert (trials[-1].answer, trials[-1].is_void) == (Answer.UNDECIDED, True)
    assert "7.5 requests/s is undecided: its run is void" in capacity_of(trials).sentence()
    assert lengths_s[7.5] == [60.0]


async def test_looks_have_other_requests_than_the_repeats_of_a_sweep(
    lengths_s: dict[float, list[float]], monkeypatch: pytest.MonkeyPatch
):
    numbers: list[int] = []
    measure = sweep.measure_load

    async def noted(client: Client, plan: Plan, load: Load, repeat: int, order: int) -> MeasuredRun:
        numbers.append(repeat)
        return await measure(client, plan, load, repeat, order)

    monkeypatch.setattr(sweep, "measure_load", noted)
    await find_capacity(surveyor(), replace(SEARCH, num_rates=1, num_sent=3), (), 15.0)
    assert numbers == list(range(3, 3 + len(numbers)))


def test_an_slo_that_is_missed_with_one_request_at_a_time_needs_no_search():
    level = level_of(1, [measured_run(one_server([float(at) for at in range(8)]), ClosedLoad(1, 8))])
    assert missed_alone(level, SLO) is None
    why = missed_alone(level, parse_slo("ttft_p99<20ms"))
    assert why == "missed with one request at a time (ttft_p99<20ms by 8 of 8)"
    with pytest.raises(SloError, match="no answer of this server has a queue"):
        missed_alone(level, parse_slo("ttft_p99<1s,queue_p99<1s"))


def test_rejects_are_misses():
    good = one_server([float(at) for at in range(96)])
    rejected = [
        replace(each, failure=Failure(FailureKind.HTTP_STATUS, "429: full"), chunk_times_s=(), chunk_chars=())
        for each in one_server([100.0 + at for at in range(4)])
    ]
    level = level_of(1, [measured_run([*good, *rejected], ClosedLoad(1, 100))])
    found = trial_of(level, 1.0, parse_slo("ttft_p99<1s"))
    assert found.goodput.attainment == 0.96
    assert found.beyond is None
    assert found.answer is Answer.UNDECIDED
