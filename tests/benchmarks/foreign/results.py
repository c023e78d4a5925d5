"""Documents of other tools as small as they can be, for what the recorded ones in `data` do not have."""

from __future__ import annotations

from typing import Any


def vllm(**changes: Any) -> dict[str, Any]:
    """One run of `vllm bench serve` at 8 streams."""
    return {
        "date": "20261130-180000", "backend": "openai-chat", "model_id": "demo", "num_prompts": 10, "request_rate": "inf",
        "burstiness": 1.0, "max_concurrency": 8, "duration": 2.0, "completed": 10, "failed": 0, "total_input_tokens": 320,
        "total_output_tokens": 640, "request_throughput": 5.0, "output_throughput": 320.0, "mean_ttft_ms": 25.0, "median_ttft_ms": 24.0,
        "p99_ttft_ms": 40.0, "mean_tpot_ms": 10.0, "median_tpot_ms": 10.0, "p99_tpot_ms": 11.0, "mean_itl_ms": 9.9, "median_itl_ms": 9.8,
        "p99_itl_ms": 12.0, **changes,
    }  # fmt: skip


def _summary(mean: float, count: int = 10) -> dict[str, Any]:
    return {"successful": {"mean": mean, "count": count, "percentiles": {"p50": mean, "p99": 2 * mean}}}


def guidellm(*strategies: dict[str, Any], version: int = 2) -> dict[str, Any]:
    """A report with one benchmark for each strategy."""
    metrics = {
        "request_totals": {"successful": 10, "errored": 0, "incomplete": 2, "total": 12},
        "output_tokens_per_second": _summary(320.0),
        "requests_per_second": _summary(5.0),
        "time_to_first_token_ms": _summary(25.0),
        "inter_token_latency_ms": _summary(10.0),
        "time_per_output_token_ms": _summary(10.3),
        "request_latency": _summary(0.66),
        "prompt_token_count": _summary(32.0),
        "output_token_count": _summary(64.0),
    }
    benchmarks = [
        {
            "config": {"strategy": strategy, "backend": {"model": "demo"}},
            "metrics": metrics,
            "requests": {"successful": []},
        }
        for strategy in strategies or ({"type_": "concurrent", "streams": 8},)
    ]
    return {"metadata": {"version": version, "guidellm_version": "0.8.1"}, "benchmarks": benchmarks}
