"""What nvidia-smi prints is read, and a machine without it has no GPU."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from benchmarks import gpu_memory
from benchmarks.chaos_gateway import GatewayError
from benchmarks.gpu_memory import MIB, Gpu, Samples

PROGRAM = """#!/bin/sh
case "$1" in
  *driver_version*) echo "NVIDIA H200, 580.159.04, 143771" ;;
  *compute-apps*) printf '101, 40000\\n102, [N/A]\\n' ;;
  *) echo 49123 ;;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("nvidia_smi")
def test_the_first_gpu_and_who_holds_it() -> None:
    assert gpu_memory.gpu() == Gpu("NVIDIA H200", "580.159.04", 143771 * MIB)
    assert gpu_memory.used_bytes() == 49123 * MIB
    assert gpu_memory.holders() == {101: 40000 * MIB}


def test_a_driver_that_does_not_tell_is_an_error(nvidia_smi: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "_query", lambda _: [["[N/A]"]])
    with pytest.raises(GatewayError, match="does not tell"):
        gpu_memory.used_bytes()
    assert gpu_memory.holders() == {}


def test_without_nvidia_smi_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu_memory.gpu() is None


def test_a_process_that_cannot_hold_the_memory_is_an_error() -> None:
    with pytest.raises(GatewayError, match="could not take it"), gpu_memory.held(1, python="/bin/false"):
        pytest.fail("it holds nothing")


@pytest.mark.usefixtures("nvidia_smi")
async def test_samples_are_taken_until_cancelled() -> None:
    samples = Samples()
    task = asyncio.create_task(gpu_memory.sample(samples, asyncio.get_running_loop().time()))
    while not samples.used:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    assert set(samples.used) == {49123 * MIB}


def test_a_moments_use_is_the_last_sample_before_it() -> None:
    samples = Samples([0.0, 1.0, 2.0], [5 * MIB, 3 * MIB, 1 * MIB])
    assert [samples.at(when) for when in (-1.0, 0.5, 1.0, 9.0)] == [5 * MIB, 5 * MIB, 3 * MIB, 1 * MIB]
    assert samples.thinned() == [(0.0, 5), (1.0, 3), (2.0, 1)]
