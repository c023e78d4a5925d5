"""What an embedding engine counts: the gauges of `backends.llamacpp.metrics` that the gateway reads, and its own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from backends.llamacpp.metrics import Histogram, page

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class EmbeddingMetrics:
    """Plain numbers, counted by the engine thread; a Prometheus collector on demand."""

    def __init__(self, num_cells: int) -> None:
        self.num_cells = num_cells
        self.num_running = self.num_waiting = self.num_cells_used = 0
        self.num_prompt_tokens = self.num_texts = self.num_batches = 0
        self.num_cancelled = self.num_failed = 0
        self.seconds = Histogram(_BUCKETS_S)

    def collect(self) -> Iterator[Metric]:
        gauges = {
            "num_requests_running": (self.num_running, "Requests that are being computed"),
            "num_requests_waiting": (self.num_waiting, "Requests that wait for room"),
            "kv_cache_usage_ratio": (self.num_cells_used / max(self.num_cells, 1), "KV cells held between two batches"),
        }
        counters = {
            "prompt_tokens": (self.num_prompt_tokens, "Tokens computed"),
            "embedded_texts": (self.num_texts, "Texts whose vector was computed"),
            "embedding_batches": (self.num_batches, "Batches that they were computed in"),
            "requests_cancelled": (self.num_cancelled, "Requests whose client went away"),
            "requests_failed": (self.num_failed, "Requests that ended in an error"),
        }
        for name, (value, text) in gauges.items():
            yield GaugeMetricFamily(f"forgegate_engine_{name}", text, value=value)
        for name, (value, text) in counters.items():
            yield CounterMetricFamily(f"forgegate_engine_{name}", text, value=value)
        buckets, total = self.seconds.buckets()
        family = HistogramMetricFamily(
            "forgegate_engine_embedding_seconds", "From arrival to the last vector of a request"
        )
        family.add_metric([], buckets, total)
        yield family

    def page(self) -> bytes:
        """The Prometheus text format."""
        return page(self)
