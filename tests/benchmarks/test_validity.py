from dataclasses import replace

import pytest

from benchmarks.metrics import Offered, Summary, summarise
from benchmarks.record import Record
from benchmarks.statistics.little import little
from benchmarks.statistics.saturation import saturation
from benchmarks.statistics.steady import Window
from benchmarks.validity import Ceiling, Evidence, judge
from tests.benchmarks.records import failed, record

ON_TIME = Offered(10.0, 10.0)
REPEATED = "and over again " * 60


def run_of(records: list[Record], duration_s: float = 100.0) -> Summary:
    return summarise(records, duration_s)


def only_fault(summary: Summary, evidence: Evidence, client_busy: float = 0.1) -> str:
    """The fault, where nothing else is wrong: each rule speaks for itself."""
    verdict = judge(summary, client_busy, evidence)
    assert not verdict.is_valid
    [fault] = verdict.faults
    return fault


def test_a_clean_run_is_valid():
    verdict = judge(summarise([record()], 1.0), 0.1)
    assert verdict.is_valid
    assert verdict.remarks == ()


def test_a_clean_open_loop_with_all_evidence_is_valid():
    times = [(i / 10, 2.0) for i in range(1000)]
    honest = little(times, [(float(i), i + 2.0) for i in range(-5, 105)], Window(0.0, 99.9))
    flat = saturation(
        [(float(i), 3.0 + i % 2) for i in range(100)], [(float(i), 0.1 + 0.01 * (i % 2)) for i in range(100)]
    )
    evidence = Evidence(Ceiling(1000.0, 100_000.0), ON_TIME, honest, flat)
    assert judge(run_of([record(sent_s=10.001)]), 0.1, evidence).faults == ()


def test_each_fault_is_named():
    records = [record(completion_tokens=3), record(completion_tokens=64, max_tokens=64, text=""), failed()]
    faults = " / ".join(judge(summarise(records, 1.0), 0.9).faults)
    for words in ("1 of 3 requests failed (1 truncated)", "shorter than demanded", "next to no text", "90% of a core"):
        assert words in faults


def test_a_busy_client():
    fault = only_fault(run_of([record()]), Evidence(), client_busy=0.71)
    assert "71% of a core (limit 70%)" in fault
    assert "more client processes" in fault


@pytest.mark.parametrize(
    ("ceiling", "words"),
    [
        (Ceiling(10.0, 1e9), "8 requests/s are 80% of the client's ceiling of 10/s"),
        (Ceiling(1e9, 40.0), "32 chunks/s are 80% of the client's ceiling of 40/s"),
        (Ceiling(0.0, 1e9), "8 requests/s are above the client's ceiling of 0/s"),
    ],
)
def test_near_the_clients_ceiling(ceiling: Ceiling, words: str):
    fault = only_fault(run_of([record()] * 8, 1.0), Evidence(ceiling))
    assert words in fault
    assert "limit 70%" in fault
    assert "another machine" in fault


def test_below_the_clients_ceiling():
    assert judge(run_of([record()] * 7, 1.0), 0.1, Evidence(Ceiling(10.0, 40.0))).is_valid


def test_a_client_that_sends_late():
    late = [record(sent_s=10.0 + 0.08)] * 2 + [record(sent_s=10.0)] * 98
    fault = only_fault(run_of(late), Evidence(offered=ON_TIME))
    assert "p99 80.0 ms (limit 75.0 ms" in fault
    assert "a lower rate" in fault
    assert judge(run_of(late), 0.1).is_valid, "in a closed loop it only makes the load smaller"


def test_ten_milliseconds_late_are_allowed_for_any_ttft():
    def quick(lag_s: float) -> Record:
        return record(sent_s=10.0 + lag_s, chunk_times_s=(10.05, 10.1, 10.15, 10.2))

    assert judge(run_of([quick(0.009)] * 100), 0.1, Evidence(offered=ON_TIME)).is_valid
    assert "limit 10.0 ms" in only_fault(run_of([quick(0.011)] * 100), Evidence(offered=ON_TIME))


def test_less_was_sent_than_offered():
    fault = only_fault(run_of([record(sent_s=10.0)]), Evidence(offered=Offered(100.0, 98.5)))
    assert "98.50 of 100.00 requests/s were sent (98.5%, limit 99%)" in fault
    assert judge(run_of([record(sent_s=10.0)]), 0.1, Evidence(offered=Offered(100.0, 99.0))).is_valid


def test_an_open_loop_too_short_for_its_latencies():
    fault = only_fault(run_of([record(sent_s=10.0)] * 20, 20.0), Evidence(offered=ON_TIME))
    assert "the run took 20.0 s, 4.4 times the 95th percentile of e2e (limit 5)" in fault
    assert "at least 22 s" in fault


def test_littles_law():
    gauges = [(i / 10, 3.0) for i in range(1000)]
    check = little(gauges, [(float(i), i + 2.0) for i in range(-5, 105)], Window(0.0, 99.9))
    fault = only_fault(run_of([record()]), Evidence(little=check))
    assert "off by 33.3% (limit 5%): the engine held 3.00 requests, rate times latency is 2.00" in fault
    assert "measure alone" in fault


def test_littles_law_where_it_was_not_judged_is_told():
    check = little([], [(0.0, 2.0)], Window(0.0, 100.0))
    verdict = judge(run_of([record()]), 0.1, Evidence(little=check))
    assert verdict.is_valid
    assert "gauge was not read often enough" in verdict.remarks[0]


def test_more_than_the_server_carries():
    rising = [(float(i), 1.0 + i) for i in range(60)]
    fault = only_fault(run_of([record(sent_s=10.0)]), Evidence(offered=ON_TIME, saturation=saturation(rising, rising)))
    assert "more than the server carries" in fault
    assert "offer a lower rate" in fault


def test_answers_that_say_the_same_over_and_over():
    fault = only_fault(run_of([record(text=REPEATED)] * 6 + [record()] * 4), Evidence())
    assert "6 of 10 answers say the same over and over (more than 50%)" in fault
    assert "--synthetic-weights" in fault


def test_some_repetitive_answers_are_a_remark():
    verdict = judge(run_of([record(text=REPEATED)] * 5 + [record()] * 5), 0.1)
    assert verdict.is_valid
    assert verdict.remarks == ("5 of 10 answers say the same over and over",)


def test_synthetic_weights_turn_the_output_checks_off_and_say_so():
    vacuous = record(completion_tokens=64, max_tokens=64, text="")
    verdict = judge(
        run_of([record(text=REPEATED)] * 5 + [replace(vacuous, chunk_times_s=tuple(range(11, 75)), num_reads=64)]),
        0.1,
        Evidence(is_synthetic=True),
    )
    assert verdict.is_valid
    assert verdict.remarks == ("the weights are declared synthetic: what the server said was not checked",)


def test_synthetic_weights_excuse_nothing_else():
    faults = judge(run_of([record(completion_tokens=3), failed()]), 0.9, Evidence(is_synthetic=True)).faults
    assert len(faults) == 3


def test_cancelled_requests_are_no_failures():
    verdict = judge(run_of([record(), replace(failed(), is_cancelled=True)]), 0.1)
    assert verdict.is_valid
    assert "1 requests were cut off" in verdict.remarks[0]


def test_missing_usage_and_bundled_chunks_are_remarked():
    guessed = record(completion_tokens=None, finish_reason="stop", is_exact=False)
    assert "counted as tokens" in judge(summarise([guessed], 1.0), 0.0).remarks[0]
    bundled = record(completion_tokens=8, max_tokens=8)
    assert "2.00 tokens per chunk" in judge(summarise([bundled], 1.0), 0.0).remarks[0]


def test_chunks_that_come_together_are_remarked():
    assert "2.00 chunks came per read" in judge(summarise([record(num_reads=2)], 1.0), 0.0).remarks[0]
