"""The least time of a step, by what it reads and what it computes."""

from __future__ import annotations

import pytest

from benchmarks.roofline import Device, Shape, Work, floor, of_cpu

DEVICE = Device("a device", bytes_per_s=100.0, flops=1000.0)
SHAPE = Shape(weight_bytes=200, num_params=100, kv_bytes=10, attention_width=5)


def test_one_token_is_bound_by_its_weights() -> None:
    found = floor(SHAPE, Work(1, 0), DEVICE)
    assert (found.memory_s, found.compute_s, found.bound) == (2.0, 0.2, "memory")
    assert found.seconds == 2.0


def test_many_tokens_are_bound_by_arithmetic() -> None:
    found = floor(SHAPE, Work(100, 0), DEVICE)
    assert (found.seconds, found.bound) == (20.0, "compute")


def test_seen_tokens_are_read_and_computed() -> None:
    found = floor(SHAPE, Work(1, 30), DEVICE)
    assert found.memory_s == 5.0
    assert found.compute_s == pytest.approx(0.8)


def test_a_cpu_has_both_peaks() -> None:
    pytest.importorskip("numpy")
    found = of_cpu(1, 1 << 20, "here")
    assert found.name == "here"
    assert found.bytes_per_s > 0
    assert found.flops > 0
