"""The benchmark of training, tried on the CPU with the demo model; and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from backends.demo import TARGET_DIR
from benchmarks import train_speed, train_speed_report, train_speed_turns
from benchmarks.train_speed_plan import PLAIN, Plan, numbered, ratios, recipe, recipe_text, with_variants
from benchmarks.train_speed_turns import TurnError, Watched, figures

PLAN = Plan(Path("model"), Path("rows.jsonl"), warm_up=1, counted=2)


def step(number: int, seconds: float, tokens: int, **more: int) -> dict[str, object]:
    return {"event": "step", "step": number, "seconds": seconds, "num_tokens": tokens, "loss": 2.0, **more}


def told(*steps: dict[str, object], **data: int) -> Watched:
    events = [{"event": "data", **data}] if data else []
    return Watched([*events, *steps, {"event": "done", "peak_bytes": 7}])


def test_updates_before_the_warm_up_ends_do_not_count() -> None:
    found = figures(told(step(1, 90.0, 10), step(2, 1.0, 1000), step(3, 3.0, 1000)), warm_up=1)
    assert (found["tok_s"], found["median_tok_s"], found["ms_per_update"]) == (500.0, 666.7, 2000.0)
    assert found["num_updates"] == 2
    assert found["peak_bytes"] == 7


def test_padding_is_that_of_the_updates_where_they_tell_it_else_of_an_epoch() -> None:
    own = figures(told(step(1, 1.0, 75, num_padding=25), num_tokens=1, num_padding=9), warm_up=0)
    assert own["padding_share"] == 0.25
    assert figures(told(step(1, 1.0, 75), num_tokens=90, num_padding=10), warm_up=0)["padding_share"] == 0.1
    assert figures(told(step(1, 1.0, 75)), warm_up=0)["padding_share"] is None


def test_a_turn_without_a_counted_update_is_none() -> None:
    with pytest.raises(TurnError, match="no update that counts"):
        figures(told(step(1, 1.0, 75)), warm_up=1)


def test_a_variant_changes_what_it_names_and_nothing_else() -> None:
    usual, changed = recipe(PLAN, "ours", False), recipe(PLAN, "micro-4", False)
    assert {name for name in usual if usual[name] != changed[name]} == {
        "micro_batch_size",
        "gradient_accumulation_steps",
    }
    assert "micro_batch_size: 4\n" in recipe_text(PLAN, "micro-4", False)
    assert recipe(PLAN, "ours", True)["hooks"] == {"callbacks": ["benchmarks.train_speed_profile:Profile"]}


def test_every_known_variant_is_a_recipe(tmp_path: Path) -> None:
    from finetune.recipe.reading import read

    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    plan = Plan(TARGET_DIR, rows)
    for name in plan.variants:
        path = tmp_path / f"{name}.yaml"
        path.write_text(recipe_text(plan, name, is_profiled=True))
        made = read(path).recipe
        assert made.steps.max_steps == plan.steps
        assert made.steps.effective_batch_size == 4
        assert not made.data.assistant_only


def test_variants_of_the_command_line_may_hold_commas_and_equals_signs() -> None:
    found = with_variants([["fused", "keep=[down_proj, o_proj]", "note=a=b"]])["fused"]
    assert found == {"keep": "[down_proj, o_proj]", "note": "a=b"}


def test_a_ratio_is_to_the_plain_turn_nearest_in_time() -> None:
    turns = [{"variant": name, "tok_s": speed} for name, speed in (
        (PLAIN, 100.0), ("ours", 300.0), ("ours", 310.0), (PLAIN, 200.0), ("sdpa", 100.0))]  # fmt: skip
    assert ratios(turns) == [1.0, 3.0, 1.55, 1.0, 0.5]
    assert ratios([{"variant": "ours", "tok_s": 300.0}]) == [None]
    assert ratios([{"variant": PLAIN, "error": "it died"}, {"variant": "ours", "tok_s": 300.0}]) == [None, None]


def test_turns_of_one_name_have_files_of_their_own() -> None:
    assert [file for _, file in numbered(["plain", "ours", "ours", "profile:ours"])] == [
        "plain-1", "ours-1", "ours-2", "profile-ours-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "nowhere", "--out", "x.json"], "holds no config.json"),
        (["--model", str(TARGET_DIR), "--out", "x.txt"], "must end in .json"),
        (["--model", str(TARGET_DIR), "--out", "x.json", "--turns", "plain,fast"], "there is no variant 'fast'"),
        (["--model", str(TARGET_DIR), "--out", "x.json", "--profile", "fast"], "there is no variant 'fast'"),
        (["--model", str(TARGET_DIR), "--out", "x.json", "--variant", "fast", "compile"], "'compile' is no KEY=VALUE"),
        (["--model", str(TARGET_DIR), "--out", "x.json", "--variant", "plain", "a=b"], "compared with"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_speed.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_turns_of_other_settings_are_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"asked": {"rank": 8}, "data": {}}))
    words = ["--model", str(TARGET_DIR), "--out", str(tmp_path / "x.json"), "--workdir", str(tmp_path)]
    assert train_speed.main(words) == 2
    assert "name another --workdir" in capsys.readouterr().err


def script(lines: str) -> list[str]:
    return [sys.executable, "-c", lines]


def test_a_turn_ends_when_it_has_trained_whatever_would_follow(tmp_path: Path) -> None:
    lines = """
import json, time
print("no event")
print(json.dumps({"event": "start"}), flush=True)
print(json.dumps({"event": "done"}), flush=True)
time.sleep(60)
"""
    watched = train_speed_turns.watch(script(lines), tmp_path / "log.txt", PLAN, timeout_s=30)
    assert [event["event"] for event in watched.events] == ["start", "done"]


def test_a_turn_that_fails_says_why_and_one_that_hangs_is_ended(tmp_path: Path) -> None:
    failing = "import json, sys; print(json.dumps({'event': 'oom', 'message': 'no room'})); sys.exit('lost')"
    with pytest.raises(TurnError, match=r"no room(?s:.)*lost"):
        train_speed_turns.watch(script(failing), tmp_path / "log.txt", PLAN, timeout_s=30)
    with pytest.raises(TurnError, match="before its last update"):
        train_speed_turns.watch(script("import time; time.sleep(60)"), tmp_path / "log.txt", PLAN, timeout_s=0.5)


def test_a_turn_that_failed_is_tried_again_and_one_that_is_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []

    def run(plan: Plan, name: str, folder: Path, timeout_s: float) -> dict[str, object]:
        begun.append(folder)
        folder.mkdir()
        if len(begun) == 1:
            raise TurnError("it died")
        return {"variant": name, "tok_s": 5.0, "took_s": 1.0}

    monkeypatch.setattr(train_speed_turns, "run", run)
    folder, late = tmp_path / "ours-1", float("inf")
    assert train_speed._turn(PLAN, "ours", folder, 9, late)["error"] == "it died"
    assert train_speed._turn(PLAN, "ours", folder, 9, late)["tok_s"] == 5.0
    assert train_speed._turn(PLAN, "ours", folder, 9, late)["tok_s"] == 5.0
    assert len(begun) == 2
    assert (tmp_path / "ours-1-failed-1").is_dir()
    assert train_speed._turn(PLAN, "sdpa", tmp_path / "sdpa-1", 9, 0.0)["is_left"]


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.timeout(300)
def test_both_set_ups_train_and_are_profiled_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    words = ["--model", str(TARGET_DIR), "--workdir", str(tmp_path / "work"), "--out", str(out), "--turns", "plain"]
    words += ["--profile", "ours", "--warm-up", "1", "--updates", "2", "--mean", "60", "--sequence-len", "128"]
    words += ["--accumulation", "1"]
    assert train_speed.main(words) == 0, capsys.readouterr().err
    result = json.loads(out.read_text())
    plain, ours = result["turns"]
    assert plain["num_updates"] == ours["num_updates"] == 2
    assert plain["num_trainable"] == ours["num_trainable"] == result["limit"]["adapter_parameters"]
    assert 0 < plain["padding_share"] < 0.6
    assert abs(result["data"]["mean"] - 60) < 3
    assert result["data"]["max"] <= 128
    assert "matrix products of adapters" in out.with_suffix(".profile-ours-1.txt").read_text()
    assert "plain-1" in out.with_suffix(".md").read_text()
    assert train_speed.main(words) == 0
    assert "profile-ours-1 ..." in capsys.readouterr().err.partition("plain-1 ...")[2]
    assert train_speed_report.markdown(result)
