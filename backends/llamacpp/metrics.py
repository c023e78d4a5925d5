"""What the engine counts, and its Prometheus page. Counted by the engine thread, read by the HTTP face.

Names carry the prefix `forgegate_engine_`. Latencies are counted here, not by a client library: its `observe`, once per
token, would cost more than the rest of the bookkeeping.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from backends.llamacpp.sequence import Sequence

_TTFT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITL_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5)


class Histogram:
    """Counts by upper bound, seconds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, values: list[float]) -> None:
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += sum(values)

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by `le`, and the sum."""
        labels = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return list(zip(labels, accumulate(map(float, self._counts)), strict=True)), self._sum


class EngineMetrics:
    """Plain numbers; a Prometheus collector on demand."""

    def __init__(self, num_cells: int, adapters: Callable[[], Mapping[str, int]] = dict) -> None:
        """`adapters`: the loaded ones, with the requests of each that have not ended."""
        self.num_cells = num_cells
        self._adapters = adapters
        self.num_adapter_switches = 0
        self.num_running = self.num_waiting = 0
        self.num_cells_used = self.num_cells_cached = 0
        self.num_prompt_tokens = self.num_generated_tokens = self.num_reused_tokens = 0
        self.num_cancelled = self.num_failed = self.num_cache_full = self.num_preempted = 0
        self.ttft = Histogram(_TTFT_BUCKETS_S)
        self.itl = Histogram(_ITL_BUCKETS_S)

    def observe_tokens(self, sequences: list[Sequence], now: float) -> None:
        """One token for each of `sequences`, all at `now` (monotonic seconds)."""
        self.num_generated_tokens += len(sequences)
        first = [sequence for sequence in sequences if not sequence.last_token_s]
        self.ttft.observe([now - sequence.arrived_s for sequence in first])
        self.num_reused_tokens += sum(sequence.num_reused for sequence in first)
        self.itl.observe([now - s.last_token_s for s in sequences if s.last_token_s])

    def collect(self) -> Iterator[Metric]:
        by_adapter = self._adapters()
        gauges = {
            "adapters_loaded": (len(by_adapter), "LoRA adapters that are loaded"),
            "num_requests_running": (self.num_running, "Requests that are being computed"),
            "num_requests_waiting": (self.num_waiting, "Requests that wait for room"),
            "kv_cache_usage_ratio": (self.num_cells_used / max(self.num_cells, 1), "KV cells held by running requests"),
            "kv_cells": (self.num_cells, "KV cells in all"),
            "kv_cells_used": (self.num_cells_used, "KV cells held by running requests"),
            "kv_cells_cached": (self.num_cells_cached, "KV cells kept for prefix reuse, free on demand"),
        }
        counters = {
            "prompt_tokens": (self.num_prompt_tokens, "Prompt tokens computed (cache hits not counted)"),
            "generation_tokens": (self.num_generated_tokens, "Tokens drawn"),
            "prefix_cache_hit_tokens": (self.num_reused_tokens, "Prompt tokens found in the cache"),
            "requests_cancelled": (self.num_cancelled, "Requests whose client went away"),
            "requests_failed": (self.num_failed, "Requests that ended in an error"),
            "preemptions": (self.num_preempted, "Requests that gave their cells back and were computed again"),
            "adapter_switches": (self.num_adapter_switches, "Times that the context was given another adapter"),
            "cache_full": (self.num_cache_full, "Steps for which llama.cpp found no cells"),
        }
        for name, (value, text) in gauges.items():
            yield GaugeMetricFamily(f"forgegate_engine_{name}", text, value=value)
        for name, (value, text) in counters.items():
            yield CounterMetricFamily(f"forgegate_engine_{name}", text, value=value)
        requests = GaugeMetricFamily(
            "forgegate_engine_adapter_requests", "Requests that have not ended, by adapter", labels=["adapter"]
        )
        for name, count in by_adapter.items():
            requests.add_metric([name], count)
        yield requests
        for name, histogram, text in (
            ("time_to_first_token_seconds", self.ttft, "From arrival to the first token"),
            ("inter_token_latency_seconds", self.itl, "Between two tokens of a request"),
        ):
            buckets, total = histogram.buckets()
            family = HistogramMetricFamily(f"forgegate_engine_{name}", text)
            family.add_metric([], buckets, total)
            yield family

    def page(self) -> bytes:
        """The Prometheus text format."""
        return page(self)


def page(collector: Collector) -> bytes:
    """What `collector` counts, in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
