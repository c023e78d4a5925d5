import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import metrics
from benchmarks.metrics import distribution, percentile, summarise
from benchmarks.record import FailureKind
from tests.benchmarks.records import failed, record

V1 = Path(metrics.__file__).parent / "results" / "h100-demo.json"


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


def test_an_embedding_has_neither_text_nor_output_tokens():
    embedding = record(completion_tokens=0, max_tokens=0, text="", chunk_times_s=(14.5,), chunk_chars=(0,), num_reads=1)
    summary = summarise([embedding], 1.0)
    assert (summary.num_usage_differs, summary.num_vacuous, summary.num_short) == (0, 0, 0)
    assert (summary.chunk_chars, summary.tps_per_user) == ({}, None)
    assert summarise([record(completion_tokens=0)], 1.0).num_usage_differs == 1


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


def test_send_lag_counts_every_request_that_was_sent():
    summary = summarise([record(), failed(), record(sent_s=None, failure=None)], 1.0)
    assert summary.send_lag_s is not None
    assert (summary.send_lag_s.num, summary.send_lag_s.max) == (2, 0.5)


def test_queue_time_is_what_the_server_says():
    assert summarise([record()], 1.0).queue_s is None
    told = summarise([record(queue_s=0.25), record(queue_s=0.75), record()], 1.0).queue_s
    assert told is not None
    assert (told.num, told.mean) == (2, 0.5)


def test_rates_in_all_and_by_gpu():
    summary = summarise([record(), record()], 2.0, num_gpus=2)
    assert (summary.output_tps, summary.input_tps, summary.total_tps) == (4.0, 7.0, 11.0)
    assert (summary.output_tps_per_gpu, summary.total_tps_per_gpu) == (2.0, 5.5)
    assert summary.chunk_rate == 4.0
    alone = summarise([record()], 1.0)
    assert (alone.output_tps_per_gpu, alone.total_tps_per_gpu) == (None, None)


def test_total_rate_is_unknown_without_the_prompts_tokens():
    summary = summarise([record(), record(prompt_tokens=None)], 1.0, num_gpus=1)
    assert (summary.total_tps, summary.total_tps_per_gpu) == (None, None)


def test_pace_of_one_user():
    assert summarise([record(), record(completion_tokens=7)], 1.0).tps_per_user == pytest.approx(1 / 0.75)
    assert summarise([record(completion_tokens=1)], 1.0).tps_per_user is None


def test_prefix_hits_weigh_tokens_of_those_who_tell():
    told = [record(prompt_tokens=100, cached_tokens=90), record(prompt_tokens=300, cached_tokens=0), record()]
    assert summarise(told, 1.0).prefix_hit_rate == 90 / 400
    assert summarise([record()], 1.0).prefix_hit_rate is None


def test_chunk_sizes_by_powers_of_two():
    summary = summarise([record(chunk_chars=(1, 2, 3, 4, 7, 8, 100))], 1.0)
    assert summary.chunk_chars == {"1": 1, "2-3": 2, "4-7": 2, "8-15": 1, "64-127": 1}


def test_what_the_client_cut_off_is_neither_answer_nor_failure():
    cut = [record(is_cancelled=True), replace(failed(), is_cancelled=True)]
    summary = summarise([record(), *cut], 1.0)
    assert (summary.num_requests, summary.num_ok, summary.num_cancelled) == (3, 1, 2)
    assert (summary.success_rate, summary.failures) == (1.0, {})
    assert summary.output_tokens == 4


def test_repetition():
    rng = random.Random(1)
    prose = " ".join("".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(300))
    assert not metrics.is_repetitive(record(text=prose))
    assert metrics.is_repetitive(record(text="!" * 600))
    assert metrics.is_repetitive(record(text="The capital of France is Paris. " * 40))
    assert not metrics.is_repetitive(record(text="!" * 100)), "short ones are not judged"
    assert not metrics.is_repetitive(record(text=prose + "and so on. " * 30))


def test_outcomes_are_those_of_the_user_or_of_the_service():
    user, service = metrics.outcomes([record(queue_s=0.1)])[0], metrics.outcomes([record()], is_user=False)[0]
    assert user.values_s == {"ttft": 1.5, "tpot": 1.0, "itl": 1.5, "e2e": 4.5, "queue": 0.1}
    assert service.values_s == {"ttft": 1.0, "tpot": 1.0, "itl": 1.5, "e2e": 4.0, "queue": None}
    assert (user.is_answered, user.output_tokens, user.is_cancelled) == (True, 4, False)
    assert metrics.outcomes([failed()])[0].is_answered is False
    assert metrics.outcomes([record(is_cancelled=True)])[0].is_cancelled


def test_offered_and_achieved_rate():
    on_time = [record(intended_s=i / 10, sent_s=i / 10 + 0.001) for i in range(101)]
    found = metrics.offered(on_time)
    assert found is not None
    assert found.offered_rate == pytest.approx(10.1)
    assert found.share > 0.999
    late = metrics.offered([record(intended_s=i / 10, sent_s=i / 8) for i in range(101)])
    assert late is not None
    assert late.share == pytest.approx(0.8)
    unsent = metrics.offered([record(intended_s=i / 10, sent_s=i / 10 if i % 2 else None) for i in range(101)])
    assert unsent is not None
    assert unsent.share == pytest.approx(50 / 101)
    assert metrics.offered([record(intended_s=1.0)] * 3) is None
    assert metrics.offered([]) is None


def test_summaries_of_results_can_be_read():
    summary = summarise([record(), record(queue_s=0.5), failed()], 2.0)
    assert metrics.summary_of(asdict(summary)) == summary


def test_summaries_of_version_1_can_be_read():
    [level] = json.loads(V1.read_text())["levels"][:1]
    summary = metrics.summary_of(level["pooled"])
    assert summary.output_tps == level["pooled"]["output_tps"]
    assert isinstance(summary.ttft_s, metrics.Distribution)
    assert (summary.total_tps, summary.queue_s, summary.chunk_chars, summary.num_cancelled) == (None, None, {}, 0)


def test_what_is_no_summary_is_refused():
    with pytest.raises(ValueError, match="not the summary of a run"):
        metrics.summary_of({"ttft_s": None})


def test_a_requests_tokens_are_spread_over_its_chunks_by_their_length():
    one = record(chunk_times_s=(11.0, 12.0), chunk_chars=(3, 1), completion_tokens=8)
    assert list(metrics.token_arrivals([one, record(chunk_times_s=(), chunk_chars=())])) == [(11.0, 6.0), (12.0, 2.0)]
    mute = record(chunk_times_s=(11.0,), chunk_chars=(0,), completion_tokens=1)
    assert list(metrics.token_arrivals([mute])) == [(11.0, 0.0)]
