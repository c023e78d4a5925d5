import math

import pytest

from benchmarks import metrics
from benchmarks.metrics import distribution, percentile, summarise
from benchmarks.record import FailureKind
from tests.benchmarks.records import failed, record


def test_formulas_on_one_record_are_exact():
    one = record()
    assert metrics.ttft_s(one) == 1.0
    assert metrics.ttft_user_s(one) == 1.5
    assert metrics.tpot_s(one) == 1.0
    assert metrics.itl_s(one) == [0.5, 1.0, 1.5]
    assert metrics.e2e_s(one) == 4.0
    assert metrics.e2e_user_s(one) == 4.5


def test_tpot_divides_by_tokens_not_by_chunks():
    assert metrics.tpot_s(record(completion_tokens=7)) == 0.5


@pytest.mark.parametrize("changes", [{"completion_tokens": 1}, {"chunk_times_s": (11.5,)}, {"chunk_times_s": ()}])
def test_tpot_is_undefined_below_two_tokens_and_never_zero(changes: dict[str, object]):
    assert metrics.tpot_s(record(**changes)) is None
    assert summarise([record(**changes)], 1.0).num_tpot_undefined == 1


def test_percentile_interpolates_between_closest_ranks():
    samples = [1.0, 2.0, 3.0, 4.0]
    assert percentile(samples, 0.0) == 1.0
    assert percentile(samples, 0.5) == 2.5
    assert percentile(samples, 0.9) == pytest.approx(3.7)
    assert percentile(samples, 1.0) == 4.0
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)


def test_percentile_agrees_with_numpy():
    numpy = pytest.importorskip("numpy")
    samples = sorted(math.sin(i) for i in range(137))
    for q in (0.01, 0.5, 0.9, 0.95, 0.99):
        assert percentile(samples, q) == pytest.approx(float(numpy.percentile(samples, q * 100)), rel=1e-12)


def test_percentiles_beyond_the_samples_are_left_out():
    few, many = distribution([1.0] * 20), distribution([1.0] * 100)
    assert few is not None
    assert many is not None
    assert (few.p50, few.p95, few.p99) == (1.0, 1.0, None)
    assert many.p99 == 1.0
    assert distribution([]) is None


def test_failures_stay_in_the_denominator_and_their_tokens_do_not_count():
    records = [record(), record(), failed(FailureKind.TIMEOUT), failed(FailureKind.TRUNCATED)]
    summary = summarise(records, 10.0)
    assert (summary.num_requests, summary.num_ok, summary.success_rate) == (4, 2, 0.5)
    assert summary.failures == {"timeout": 1, "truncated": 1}
    assert summary.output_tps == 0.8
    assert summary.request_rate == 0.2
    assert summary.ttft_s is not None
    assert summary.ttft_s.num == 2


def test_usage_against_chunks():
    honest, bundled = record(), record(completion_tokens=8, max_tokens=8)
    summary = summarise([honest, bundled], 1.0)
    assert summary.num_usage_differs == 1
    assert summary.tokens_per_chunk == 1.5
    assert summary.token_sources == {"usage": 2}


def test_tokens_without_usage():
    full = record(completion_tokens=None, finish_reason="length", max_tokens=6)
    ended = record(completion_tokens=None, finish_reason="stop", max_tokens=6)
    assert (full.num_output_tokens, full.token_source) == (6, "limit")
    assert (ended.num_output_tokens, ended.token_source) == (4, "chunks")
    assert summarise([full, ended], 1.0).num_short == 1


def test_short_and_vacuous_answers_are_counted():
    short = record(completion_tokens=3)
    allowed = record(completion_tokens=3, is_exact=False)
    vacuous = record(completion_tokens=64, max_tokens=64, text="ab")
    summary = summarise([short, allowed, vacuous], 1.0)
    assert (summary.num_short, summary.num_vacuous) == (1, 1)


def test_chunks_that_share_a_read_are_told():
    assert summarise([record(num_reads=2)], 1.0).chunks_per_read == 2.0


def test_nothing_answered_is_no_division_by_zero():
    summary = summarise([failed()], 0.0)
    assert (summary.output_tps, summary.success_rate, summary.ttft_s) == (0.0, 0.0, None)
    assert summarise([], 1.0).success_rate == 0.0
