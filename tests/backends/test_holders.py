from __future__ import annotations

from pathlib import Path

import pytest

from backends.gpus import Gpus
from backends.holders import gpu_holders, holder_words
from backends.plan import GIB
from tests.backends.test_gpus import Driver


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for pid, name in ((11, "VLLM::EngineCor"), (12, "python3")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "comm").write_text(f"{name}\n")
    return tmp_path


def test_those_that_hold_most_are_named(proc: Path) -> None:
    driver = Driver(
        {12: 3 * GIB, 11: 20 * GIB, 13: GIB // 8, 14: None},
        None,
        {11: 40 * GIB, 15: GIB, 16: GIB, 99: 80 * GIB},
    )
    assert gpu_holders(frozenset({99}), Gpus(driver, ""), proc) == (
        "VLLM::EngineCor (pid 11) 60.0 GiB, python3 (pid 12) 3.0 GiB, a process (pid 15) 1.0 GiB"
    )


def test_nobody_holds_much(proc: Path) -> None:
    assert holder_words({}, proc=proc) == ""
    assert holder_words({11: GIB}, frozenset({11}), proc) == ""
    assert holder_words({11: GIB // 4 - 1}, proc=proc) == ""
