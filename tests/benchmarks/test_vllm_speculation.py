"""Which of the two is the better, what acceptance is, and that questions make every run alike."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from backends.vllm.launch import option_problems
from benchmarks import vllm_speculation
from benchmarks.vllm_speculation import OFF, ON, PROMPTS, TUNED, Drafted, best_of, ratios_to_best, read_drafted
from benchmarks.workload import Length, Workload

PAGE = b"""# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="demo"} 40.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="demo"} 120.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="demo"} 90.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="demo",position="0"} 38.0
"""


def test_acceptance_is_the_share_of_drafted_tokens_since_the_first_look() -> None:
    drafted = read_drafted(PAGE)
    assert drafted == Drafted(40, 120, 90)
    assert drafted.acceptance == 0.75
    assert drafted.since(Drafted(20, 60, 60)).acceptance == 0.5


def test_an_engine_without_speculation_has_none() -> None:
    assert read_drafted(b"vllm:num_requests_running 0\n").acceptance is None


def test_tuned_is_held_against_the_better_of_the_two_turn_by_turn() -> None:
    tps = {OFF: [100.0, 102.0, 98.0], ON: [80.0, 130.0, 81.0], TUNED: [99.0, 102.0, 98.0]}
    assert best_of(tps) == OFF
    assert ratios_to_best(tps) == [0.99, 1.0, 1.0]


def test_every_run_asks_the_same_questions() -> None:
    workload = Workload("on", output_tokens=Length(96, 96), prompts=PROMPTS, ignore_eos=False)
    first, second = (workload.requests(len(PROMPTS), seed) for seed in ("a", "b"))
    assert [request.body for request in first] != [request.body for request in second]
    assert sorted(request.body for request in first) == sorted(request.body for request in second)
    assert len(set(PROMPTS)) == len(PROMPTS)


def test_a_wrong_mode_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert vllm_speculation.PROGRAM.main(["--modes", "on,of"]) == 2
    assert "there is no 'of'" in capsys.readouterr().err


def test_off_on_and_tuned_differ_in_speculation_alone(tmp_path: Path) -> None:
    options = argparse.Namespace(draft=Path("demo"), python=None, concurrency=(1, 8), depth=3, modes=(OFF, ON, TUNED))
    vllm_speculation._gateway(tmp_path, options)
    config = json.loads((tmp_path / "forgegate.yaml").read_text())
    pools = {model["name"]: model["pools"][0] for model in config["models"]}
    speculative = {mode: pool["options"].pop("speculative", None) for mode, pool in pools.items()}
    assert pools[OFF] == pools[ON] == pools[TUNED]
    assert speculative[OFF] is None
    assert speculative[ON] == speculative[TUNED] | {"schedule": "always"}
    assert option_problems({"speculative": speculative[ON]}) == []
