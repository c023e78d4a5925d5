"""Two results against each other."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.compare import CompareError, compared
from benchmarks.report import FORMAT, FORMAT_VERSION


def interval(estimate: float, margin: float = 0.02) -> dict[str, Any]:
    return {
        "estimate": estimate, "low": estimate * (1 - margin), "high": estimate * (1 + margin), "level": 0.95, "num_samples": 100,
        "num_repeats": 3, "num_blocks": 50.0, "is_between_repeats": False, "settling": "settled: +-2.0%",
    }  # fmt: skip


def a_result(tps: float = 100.0, ttft_s: float = 0.05, margin: float = 0.02) -> dict[str, Any]:
    figures = {"output_tps": interval(tps, margin), "ttft_user_s.p50": interval(ttft_s, margin)}
    level = {"concurrency": 8, "steady": {"kept": [], "figures": figures}}
    return {
        "format": FORMAT, "format_version": FORMAT_VERSION, "kind": "run", "is_valid": True, "faults": [], "levels": [level],
        "plan": {"workload": {"model": "demo"}}, "environment": {"cpu": "a", "cores": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("b", "verdicts"),
    [
        (a_result(120.0, 0.05), ["better", "no difference shown"]),
        (a_result(80.0, 0.03), ["worse", "better"]),
        (a_result(101.0, 0.0505), ["no difference shown", "no difference shown"]),
        (a_result(120.0, 0.03, margin=0.9), ["no difference shown", "no difference shown"]),
    ],
)
def test_what_is_shown_and_what_is_not(b: dict[str, Any], verdicts: list[str]) -> None:
    found = compared(a_result(), b)
    assert [row.difference and row.difference.verdict.value for row in found.rows] == verdicts
    assert found.is_worse == ("worse" in verdicts)
    assert not found.remarks


def test_a_figure_without_an_interval_is_not_judged() -> None:
    b = a_result()
    del b["levels"][0]["steady"]["figures"]["ttft_user_s.p50"]
    row = compared(a_result(), b).rows[1]
    assert (row.difference, row.sentence) == (None, "too few samples in B")


def test_an_open_interval_shows_nothing() -> None:
    b = a_result(500.0)
    b["levels"][0]["steady"]["figures"]["output_tps"]["low"] = None
    assert compared(a_result(), b).rows[0].sentence.endswith("no difference shown")


def test_what_else_differs_is_said() -> None:
    b = a_result()
    b["environment"]["cores"] = 16
    b["plan"]["workload"]["seed"] = 3
    b["levels"].append(copy.deepcopy(b["levels"][0]) | {"concurrency": 32})
    assert compared(a_result(), b).remarks == (
        "measured in one of them only: 32 streams",
        "on different machines: cores 2 and 16",
        "different requests: seed None and 3",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "peers"}, "B is no result of `forgegate bench run`"),
        ({"format_version": 99}, "B has format version 99"),
        ({"is_valid": False, "faults": ["the client was slow"]}, "B is void: the client was slow"),
        ({"levels": None}, "B is not as its tool writes it"),
        ({"levels": [1, 2]}, "B is not as its tool writes it"),
        ({"levels": [{"concurrency": 8, "steady": None}]}, "B is not as its tool writes it"),
        ({"levels": [{"concurrency": 8, "steady": {"figures": {"output_tps": {"estimate": 1}}}}]}, "B is not as its tool"),
        ({"levels": [{"concurrency": 8, "steady": {"figures": {"output_tps": interval(1) | {"low": "x"}}}}]}, "B is not as"),
        ({"environment": None}, "B is not as its tool writes it"),
        ({"plan": {}}, "B is not as its tool writes it"),
        ({"is_valid": False, "faults": None}, "B is not as its tool writes it"),
        ({"levels": [{"concurrency": 8}]}, "B has no intervals"),
        ({"levels": [{"concurrency": 1, "steady": {"figures": {}}}]}, "no load in common: A has 8 streams, B has 1 stream"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CompareError, match=message):
        compared(a_result(), a_result() | change)


@pytest.mark.parametrize("more", [{}, {"levels": [1, 2]}])
def test_a_file_that_only_says_it_is_ours_is_one_line(
    more: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({"format": FORMAT, "kind": "run", "format_version": FORMAT_VERSION, "is_valid": True, **more})
    )
    assert main(["compare", str(path), str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path} is not as its tool writes it")
    assert len(said.splitlines()) == 1
