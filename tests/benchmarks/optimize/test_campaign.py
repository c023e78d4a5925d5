"""The comparison of searches, against an engine of known truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.commands.exits import EXIT_DONE, EXIT_NEGATIVE, EXIT_USAGE
from benchmarks.optimize import campaign
from benchmarks.optimize.campaign import main
from benchmarks.optimize.runner import Runner
from tests.benchmarks.optimize.simulated import OBJECTIVE, SimulatedLaunches, Truth

WORDS = ["--slo", OBJECTIVE, "--budget", "20m"]


def truth_of(options: Mapping[str, Any]) -> Truth:
    return Truth(streams=32 if options.get("kv_unified") is False else 16)


Simulate = Callable[[Callable[[Mapping[str, Any]], Truth]], None]


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Simulate:
    def begin(of: Callable[[Mapping[str, Any]], Truth]) -> None:
        launches = SimulatedLaunches(of, noise=0.01)

        async def given(_wish: object) -> SimulatedLaunches:
            return launches

        monkeypatch.setattr(campaign, "_launches", given)
        monkeypatch.setattr(campaign, "Runner", lambda *rest: Runner(*rest, clock=launches.clock))

    return begin


def test_both_searches_are_held_against_the_defaults_in_turns(
    tmp_path: Path, simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(truth_of)
    assert main([*WORDS, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "found.json")]) == EXIT_DONE
    result = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert {name: found["setting"]["kv_unified"] for name, found in result["searches"].items()} == {
        "halving": False,
        "random": False,
    }
    assert all(found["spent_s"] <= 1200 for found in result["searches"].values())
    assert result["searches"]["halving"]["num_tried"] > result["searches"]["random"]["num_tried"]
    assert set(result["ratios"]) == {"halving over defaults", "random over defaults", "halving over random"}
    assert result["ratios"]["halving over defaults"]["verdict"] == "better"
    assert result["ratios"]["halving over random"]["estimate"] == pytest.approx(1.0, abs=0.1)
    shown = capsys.readouterr().out
    assert shown == (tmp_path / "found.md").read_text("utf-8")
    assert "- halving over defaults: " in shown


def test_where_nothing_is_better_the_defaults_are_what_was_found(tmp_path: Path, simulate: Simulate) -> None:
    simulate(lambda options: Truth(streams=4 if options else 16))
    assert main([*WORDS, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "found.json")]) == EXIT_DONE
    result = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert {found["label"] for found in result["searches"].values()} == {"defaults"}
    assert result["ratios"]["halving over defaults"]["estimate"] == 1.0


def test_no_load_within_the_slo_gives_no_ratio(simulate: Simulate, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(lambda _: Truth(streams=0.5))
    assert main(WORDS) == EXIT_NEGATIVE
    assert "no ratios" in capsys.readouterr().out


def test_a_budget_that_is_too_short_is_refused(simulate: Simulate, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(truth_of)
    assert main(["--slo", OBJECTIVE, "--budget", "60s"]) == EXIT_USAGE
    assert "too short" in capsys.readouterr().err
