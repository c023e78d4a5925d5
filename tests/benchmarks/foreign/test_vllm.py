from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.foreign import vllm
from benchmarks.foreign.ours import read as read_ours
from tests.benchmarks.foreign import results


def estimates(load: Any) -> dict[str, float]:
    return {name: round(interval.estimate, 6) for name, interval in load.figures.items()}


def test_one_run_has_figures_in_our_units_and_no_intervals() -> None:
    found = vllm.read([results.vllm()])
    (load,) = found.loads
    assert (found.tool, found.model, load.name, load.num_repeats) == ("vllm bench serve", "demo", "8 streams", 1)
    assert (load.num_requests, load.num_failed, load.input_tokens, load.output_tokens) == (10, 0, 32.0, 64.0)
    assert estimates(load) == {
        "output_tps": 320.0, "request_rate": 5.0, "ttft_s.mean": 0.025, "ttft_s.p50": 0.024, "ttft_s.p99": 0.04, "tpot_s.mean": 0.01,
        "tpot_s.p50": 0.01, "tpot_s.p99": 0.011, "itl_s.mean": 0.0099, "itl_s.p50": 0.0098, "itl_s.p99": 0.012,
    }  # fmt: skip
    assert all(interval.is_unknown for interval in load.figures.values())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"max_concurrency": 1}, "1 stream"),
        ({"max_concurrency": None}, "all at once"),
        ({"max_concurrency": None, "request_rate": 4.0}, "4 requests/s"),
        ({"request_rate": 2.5}, "2.5 requests/s, 8 at once"),
    ],
)
def test_the_load_by_its_name(changes: dict[str, Any], name: str) -> None:
    assert vllm.read([results.vllm(**changes)]).loads[0].name == name


def test_appended_runs_are_repeats_with_an_interval() -> None:
    runs = [results.vllm(output_throughput=tps) for tps in (300.0, 320.0, 340.0)]
    first, other = vllm.read([*runs, results.vllm(max_concurrency=1)]).loads
    interval = first.figures["output_tps"]
    assert (interval.estimate, interval.num_repeats, first.num_repeats, other.num_repeats) == (320.0, 3, 3, 1)
    assert interval.low is not None
    assert interval.high is not None
    assert (interval.low, interval.high) == pytest.approx((320 - 49.68, 320 + 49.68), abs=0.01)


def test_requests_that_are_listed_give_intervals_and_ends() -> None:
    num, gap_s = 40, 0.01
    ttfts = [0.02 + (7 * place % num) * 1e-4 for place in range(num)]
    listed = {
        "ttfts": [*ttfts, 0.0], "itls": [[gap_s] * 9] * num + [[]], "output_lens": [10] * num + [0], "input_lens": [32] * (num + 1),
        "start_times": [float(place) for place in range(num + 1)], "errors": [""] * num + ["reset"], "completed": num,
        "num_prompts": num + 1,
    }  # fmt: skip
    (load,) = vllm.read([results.vllm(**listed)]).loads
    ttft = load.figures["ttft_s.p50"]
    assert ttft.estimate == pytest.approx(0.02195)
    assert ttft.low is not None
    assert ttft.low < ttft.estimate
    assert load.figures["tpot_s.mean"].estimate == pytest.approx(gap_s)
    assert load.figures["e2e_s.mean"].estimate == pytest.approx(0.02195 + 9 * gap_s)
    assert load.num_failed == 1


def test_what_has_no_sample_is_no_figure() -> None:
    (load,) = vllm.read([results.vllm(mean_tpot_ms=0.0, median_tpot_ms=0.0, p99_tpot_ms=0.0)]).loads
    assert not any(name.startswith("tpot_s") for name in load.figures)


@pytest.fixture
def our_run(url: str, tmp_path: Path) -> dict[str, Any]:
    from benchmarks.cli import main

    out = tmp_path / "run.json"
    words = [
        "run",
        "--no-ceiling",
        "--url",
        url,
        "--model",
        "alpha",
        "--concurrency",
        "1,2",
        "--requests",
        "8",
        "--output-tokens",
        "6",
    ]
    assert main([*words, "--repeats", "3", "--out", str(out), "--out", str(tmp_path / "run.vllm.json")]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_ours_in_vllms_form_says_the_same(our_run: dict[str, Any], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (tmp_path / "run.vllm.json").read_text().splitlines()]
    assert len(lines) == 6
    theirs, ours = vllm.read(lines), read_ours(our_run)
    assert [load.name for load in theirs.loads] == [load.name for load in ours.loads] == ["1 stream", "2 streams"]
    for a, b in zip(ours.loads, theirs.loads, strict=True):
        assert (a.num_requests, a.num_failed, a.output_tokens, a.num_repeats) == (
            b.num_requests,
            b.num_failed,
            b.output_tokens,
            b.num_repeats,
        )
        for name in ("output_tps", "request_rate"):
            assert b.figures[name].estimate == pytest.approx(a.figures[name].estimate)
            assert b.figures[name].low == pytest.approx(a.figures[name].low)
        assert b.figures["ttft_s.mean"].estimate == pytest.approx(a.figures["ttft_s.mean"].estimate)
    summary = our_run["levels"][0]["runs"][0]["summary"]
    spread = summary["ttft_s"]["stdev"] * math.sqrt(7 / 8) * 1e3
    assert lines[0]["std_ttft_ms"] == pytest.approx(spread), "vLLM divides by n"
    assert "p99_ttft_ms" not in lines[0], "eight requests have no 99th percentile"


def test_what_a_run_of_vllm_has_ours_has_too(our_run: dict[str, Any], tmp_path: Path) -> None:
    """But for what vLLM lists by request, its peaks, and percentiles that few requests do not have."""
    recorded = json.loads((Path(__file__).parent / "data" / "vllm.json").read_text())
    line = json.loads((tmp_path / "run.vllm.json").read_text().splitlines()[0])
    absent = recorded.keys() - line.keys()
    assert absent <= {
        "max_output_tokens_per_s", "max_concurrent_requests", "rtfx", "input_lens", "output_lens", "ttfts", "itls", "start_times",
        "latencies", "queue_times", "generated_texts", "errors", "p99_ttft_ms", "p99_tpot_ms", "p99_itl_ms", "p99_e2el_ms",
        *(f"{which}_client_queue_time_ms" for which in ("mean", "median", "std", "p50", "p99")),
    }, absent  # fmt: skip
    for name, value in line.items():
        assert name in recorded or name[:3] in ("p90", "p95"), name
        if name in recorded and value is not None and recorded[name] is not None:
            assert isinstance(recorded[name], (int, float)) == isinstance(value, (int, float)), name
