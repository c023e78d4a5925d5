from __future__ import annotations

from typing import Any

import pytest

from benchmarks.foreign import guidellm
from benchmarks.foreign.measured import ForeignError
from tests.benchmarks.foreign import results


def test_its_inter_token_latency_is_the_others_tpot() -> None:
    found = guidellm.read(results.guidellm())
    (load,) = found.loads
    assert (found.tool, found.version, found.model, load.name) == ("guidellm", "0.8.1", "demo", "8 streams")
    assert (load.num_requests, load.num_failed, load.input_tokens, load.output_tokens) == (10, 0, 32.0, 64.0)
    figures = {name: interval.estimate for name, interval in load.figures.items()}
    assert figures["tpot_s.p50"] == pytest.approx(0.010)
    assert figures["tpot_with_first_s.p50"] == pytest.approx(0.0103)
    assert figures["e2e_s.mean"] == pytest.approx(0.66)
    assert figures["ttft_s.p99"] == pytest.approx(0.05)
    assert (figures["output_tps"], figures["request_rate"]) == (320.0, 5.0)


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        ({"type_": "synchronous"}, "1 stream"),
        ({"type_": "concurrent", "streams": 1}, "1 stream"),
        ({"type_": "constant", "rate": 4.0, "max_concurrency": None}, "4 requests/s"),
        ({"type_": "poisson", "rate": 2.5}, "2.5 requests/s"),
        ({"type_": "throughput", "max_concurrency": None}, "all at once"),
        ({"type_": "throughput", "max_concurrency": 64}, "throughput, 64 at once"),
        ({"type_": "trace"}, "trace"),
    ],
)
def test_the_load_by_its_name(strategy: dict[str, Any], name: str) -> None:
    assert guidellm.read(results.guidellm(strategy)).loads[0].name == name


def test_what_is_not_read_is_said() -> None:
    with pytest.raises(ForeignError, match="a GuideLLM report of version 3: 2 is read"):
        guidellm.read(results.guidellm(version=3))
    with pytest.raises(ForeignError, match="without a benchmark"):
        guidellm.read(results.guidellm() | {"benchmarks": []})
