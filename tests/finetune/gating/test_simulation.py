"""The gate's error rates in short, and that many pairs at a time are judged as one is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.gating.error_page import as_markdown
from finetune.gating.intervals import Sample
from finetune.gating.paired import Paired
from finetune.gating.settings import BETTER, LIMITS, Setting, all_settings
from finetune.gating.simulation import ALLOWED, Result, as_json, interval, main, outcomes, simulate
from finetune.gating.synthetic import Skill, Stream
from finetune.gating.verdict import LAST, LOOKS, NeedsMore, Verdict, decide

ON_LIMIT = Setting("a", "on its limit", BETTER, (Skill(0.9, -3, 0.5),))
KEPT = Setting("b", "kept", BETTER, (Skill(0.95, 0, 0.8), Skill(0.9, 0, 0.9)))
LOST = Setting("c", "lost", BETTER, (Skill(0.9, -12, 0.5),))
CLUSTERED = Setting("d", "few clusters", Skill(0.3, 30, 0.3, "fixed", 25, 0.1), (Skill(0.95, -1, 0.5, "new", 5, 0.3),))
RETRAIN = Setting("e", "retrain", Skill(0.9, -1, 0.6), (Skill(0.9, -1, 0.9),), "non-inferior")


def as_paired(name: str, sample: Sample, row: int) -> Paired:
    """Items that have a sample's clusters, sizes and differences."""
    clusters: list[str] = []
    candidate: list[float] = []
    for kind in range(sample.counts.shape[1]):
        for each in range(int(sample.counts[row, kind])):
            size, total = int(sample.sizes[row, kind]), int(sample.differences[row, kind])
            clusters += [f"{kind}-{each}"] * size
            candidate += [float(np.sign(total))] * abs(total) + [0.0] * (size - abs(total))
    live = tuple(float(score < 0) for score in candidate)
    return Paired(name, tuple(clusters), live, tuple(max(score, 0.0) for score in candidate))


def one_by_one(setting: Setting, num_pairs: int) -> list[str]:
    """By `decide`, each time with the items that it asked for."""
    rng = np.random.default_rng(11)
    streams = [Stream(skill, num_pairs, rng) for skill in (setting.task, *setting.general)]
    samples = [[stream.grow(num) for stream in streams] for num in LOOKS]
    found = []
    for row in range(num_pairs):
        looks = [0] * len(streams)
        for look in range(LAST + 1):
            scores = [as_paired(f"s{n}", samples[at][n], row) for n, at in enumerate(looks)]
            decided = decide(scores[0], scores[1:], setting.rule, LIMITS, look)
            if isinstance(decided, Verdict):
                found.append(decided.outcome)
                break
            assert isinstance(decided, NeedsMore)
            looks = [look + 1 if f"s{n}" in decided.undecided else at for n, at in enumerate(looks)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("setting", [ON_LIMIT, KEPT, LOST, CLUSTERED, RETRAIN], ids=lambda one: one.name)
def test_many_pairs_at_a_time_are_judged_as_one_is(setting: Setting) -> None:
    num_pairs = 10
    many = outcomes(setting, num_pairs, np.random.default_rng(11))
    words = [
        "GO" if go else "NO-GO" if no_go else "INCONCLUSIVE" for go, no_go in zip(many.go, many.no_go, strict=True)
    ]
    assert words == one_by_one(setting, num_pairs)


@pytest.mark.slow
def test_a_false_go_is_rare_and_a_good_candidate_passes() -> None:
    for setting in (ON_LIMIT, replace(ON_LIMIT, task=Skill(0.5, 0, 0.3), name="task no better", general=KEPT.general)):
        result = simulate(setting, 2000, seed=1)
        low, _ = interval(result.num_false_go, 2000)
        assert low <= ALLOWED
        assert result.num_no_go / 2000 <= 2 * ALLOWED
    fine, lost = simulate(KEPT, 500, seed=1), simulate(LOST, 500, seed=1)
    assert fine.num_go > 0.99 * 500
    assert fine.num_false_go == 0
    assert lost.num_no_go > 0.99 * 500
    assert lost.mean_items < 1500


def test_clusters_that_are_lost_whole_are_not_taken_for_many_items() -> None:
    skill = Skill(1.0, -3, 0.0, "fixed", 10, 0.95)
    result = simulate(Setting("f", "ten clusters", BETTER, (skill,)), 1000, seed=2)
    assert result.num_go <= ALLOWED * 1000


def test_a_result_is_the_same_for_the_same_seed() -> None:
    first, again, other = (simulate(ON_LIMIT, 300, seed) for seed in (1, 1, 2))
    assert (first.num_go, first.num_no_go, first.mean_items) == (again.num_go, again.num_no_go, again.mean_items)
    assert first.mean_items != other.mean_items


def test_too_many_false_go_are_said() -> None:
    fine, wrong = Result(ON_LIMIT, 100, 5, 3, 900.0, 0.1), Result(ON_LIMIT, 100, 6, 3, 900.0, 0.1)
    good = Result(KEPT, 100, 97, 1, 500.0, 0.1)
    assert as_json([fine, good], 0)["is_met"] is True
    content = as_json([wrong, good], 0)
    assert (content["is_met"], content["worst_false_go"]) == (False, 0.06)
    assert [one["power"] for one in content["settings"]] == [None, 0.97]
    assert [one["false_no_go"] for one in content["settings"]] == [None, 0.01]
    assert "**NOT met**. Worst of 1 settings in which a GO is false: 6.00%." in as_markdown(content)
    assert "| kept | improve | 97.0% | 1.0% | 2.0% | 500 |" in as_markdown(content)


def test_intervals_of_shares() -> None:
    assert interval(0, 100) == pytest.approx((0, 0.037), abs=1e-3)
    assert interval(50, 1000) == pytest.approx((0.0381, 0.0653), abs=2e-4)


def test_the_command_writes_json_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gate.json"
    assert main(["--out", str(out), "--pairs", "50", "--only", "every answer the same"]) == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    assert [one["name"] for one in content["settings"]] == ["3 skills, every answer the same"]
    assert content["settings"][0]["power"] == 1.0
    assert content["settings"][0]["mean_items"] == 500
    assert "## A GO is right" in out.with_suffix(".md").read_text(encoding="utf-8")
    assert "GO 100.00%" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--pairs", "0"], ["--only", "no such setting"], ["--seed", "-1"]])
def test_a_wrong_option_is_named(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--out", str(tmp_path / "gate.json"), *wrong])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert wrong[0] in said or wrong[1] in said


def test_committed_results_are_of_these_settings() -> None:
    path = Path(__file__).parents[3] / "benchmarks" / "results" / "gate-errors.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [(one["group"], one["name"]) for one in content["settings"]] == [
        (one.group, one.name) for one in all_settings()
    ]
    assert content["pairs"] >= 5000
    assert content["is_met"] is True
    assert path.with_suffix(".md").read_text(encoding="utf-8") == as_markdown(content)
