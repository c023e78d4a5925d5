"""The least time of a step, by what it reads and what it computes."""

from __future__ import annotations

import os

import pytest

from benchmarks import roofline
from benchmarks.roofline import Device, RooflineError, Shape, Work, floor, of_cpu, threads_env

DEVICE = Device("a device", bytes_per_s=100.0, flops=1000.0)
SHAPE = Shape(weight_bytes=200, body_params=80, head_params=20, kv_bytes=10, attention_width=5)


def test_one_token_is_bound_by_its_weights() -> None:
    found = floor(SHAPE, Work(1, 0, 1), DEVICE)
    assert (found.memory_s, found.compute_s, found.bound) == (2.0, 0.2, "memory")
    assert found.seconds == 2.0


def test_many_tokens_are_bound_by_arithmetic() -> None:
    found = floor(SHAPE, Work(100, 0, 100), DEVICE)
    assert (found.seconds, found.bound) == (20.0, "compute")


def test_seen_tokens_are_read_and_computed() -> None:
    found = floor(SHAPE, Work(1, 30, 1), DEVICE)
    assert found.memory_s == 5.0
    assert found.compute_s == pytest.approx(0.8)


def test_the_output_head_is_computed_for_the_logits_that_are_asked_for() -> None:
    assert floor(SHAPE, Work(100, 0, 1), DEVICE).compute_s == pytest.approx(2 * (80 * 100 + 20) / 1000)


def test_the_products_use_as_many_threads_as_the_engine() -> None:
    env = threads_env(3)
    assert {env[name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {"3"}
    assert env["PATH"] == os.environ["PATH"]


def test_a_child_that_fails_is_an_error_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline.sys, "executable", "/no/python")
    with pytest.raises(RooflineError, match="cannot measure this CPU's peaks"):
        of_cpu(1, 1 << 20, "here")


def test_a_cpu_has_both_peaks() -> None:
    pytest.importorskip("numpy")
    found = of_cpu(1, 1 << 20, "here")
    assert found.name == "here"
    assert found.bytes_per_s > 0
    assert found.flops > 0
