"""What a cold request is held against, and which file an engine is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import cold_adapters
from benchmarks.cold_adapters import Times


def test_ratios_are_of_one_round_each() -> None:
    times = Times(
        cold=[0.3, 0.6], wait=[0.2, 0.4], warm=[0.1, 0.1], load_call=[0.2, 0.2], direct_first=[0.2, 0.2],
        direct_warm=[0.1, 0.1],
    )  # fmt: skip
    assert times.ratios == pytest.approx([1.0, 2.0])
    assert times.load_ratios == pytest.approx([1.0, 2.0])
    found = cold_adapters.as_dict(times)
    assert found["rounds"] == 2
    assert found["ratio"] == pytest.approx({"median": 1.5, "min": 1.0, "max": 2.0})
    assert found["samples_s"]["cold"] == [0.3, 0.6]
    assert any("450.0 | 300.0 | 600.0" in row for row in cold_adapters.table("x", found))


@pytest.mark.parametrize("is_converted", [True, False])
def test_an_engine_gets_the_file_that_it_loads(tmp_path: Path, is_converted: bool) -> None:
    folder = tmp_path / "adapters" / "ab12"
    folder.mkdir(parents=True)
    if is_converted:
        (folder / "adapter.gguf").touch()
    gateway: Any = SimpleNamespace(home=tmp_path)
    subject = cold_adapters.stored(cast(Any, gateway), {"digest": "sha256:ab12", "version": "voice@ab12"})
    assert subject.version == "voice@ab12"
    assert subject.path == (folder / "adapter.gguf" if is_converted else folder)
