"""The loop's benchmark: it types what README has, times what the training tells, and says what it found also where it came to no end."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from backends.llamacpp.launch import option_problems as llamacpp_problems
from backends.vllm.launch import option_problems as vllm_problems
from benchmarks import loop_stages
from benchmarks.adapter_answers import Reply
from benchmarks.adapter_program import Findings
from benchmarks.chaos_gateway import GatewayError
from benchmarks.chaos_verdict import Ending
from benchmarks.client import Target
from benchmarks.engine_start import Start
from benchmarks.loop_stages import Loop
from benchmarks.loop_stages_commands import (
    ALIAS,
    ROOT,
    RUNS,
    TRAIN,
    TRAIN_WRONG,
    Step,
    StepError,
    Typed,
    steps,
)
from benchmarks.loop_stages_gateway import Asked, Clients, pools
from benchmarks.loop_stages_phases import PHASES, Phase, Told, phases
from benchmarks.loop_stages_report import markdown
from benchmarks.record import Record

OLD, NEW = "support@aaaaaaaaaaaa", "support@bbbbbbbbbbbb"


def told(at_s: float, event: str, **more: object) -> Told:
    return Told(at_s, {"event": event, **more})


def progress(at_s: float, stage: str) -> Told:
    return told(at_s, "progress", stage=stage, text="", done=0, total=0)


TRAINED = [
    told(0.5, "note", message="a word"), told(2.0, "stage", name="load"), told(5.0, "stage", name="read"),
    told(6.0, "stage", name="train"), told(8.0, "step", step=1, loss=1.0), told(9.0, "stage", name="evaluate"),
    progress(9.2, "evaluate"), told(10.0, "stage", name="train"), told(20.0, "stage", name="save"), told(21.0, "done", num_steps=1),
]  # fmt: skip
PUBLISHED = [
    progress(22.0, "digest"), progress(23.0, "convert"), progress(25.0, "digest"), progress(26.0, "load"), progress(28.0, "reference"),
    progress(30.0, "upload"), progress(31.0, "read"), progress(32.0, "reference"), progress(33.0, "proof"), progress(37.0, "rows"),
    progress(38.0, "load"), progress(39.0, "scores"), progress(41.0, "gate"), progress(42.0, "support"), progress(43.0, "gate"),
    progress(50.0, NEW), progress(52.5, "verdict"), progress(53.0, "alias"), told(53.5, "note", message="support serves it"),
]  # fmt: skip


def reply(engine: str, version: str = NEW, ending: Ending = Ending.ANSWERED) -> Reply:
    record = Record(0, 64, False, 0.0, 0.0, 0.1, 0.2, (0.1,), (2,), 1, "{}", 1, 1, None, "stop", 200, None)
    return Reply(
        "support", version, engine, ending, "503 overloaded" if ending is not Ending.ANSWERED else "", None, record
    )


def result(**changes: Any) -> Mapping[str, Any]:
    judged = {
        "name": "tickets", "num_items": 450, "live": 0.0, "candidate": 0.97, "difference": 97.0, "lower": 95.5, "upper": 98.0,
        "state": "better",
    }  # fmt: skip
    found = {
        "environment": {"cpu": "a CPU", "cores": 16, "date": "today"},
        "gpu": {"name": "NVIDIA H200", "driver": "580.1", "total_bytes": 1},
        "plan": {"tiny": False}, "packages": {"torch": "2.11.0"},
        "engines": [{"engine": "demo-0", "description": "vLLM 0.26 on CUDA", "ready_s": 90.5}],
        "start_s": 91.0, "total_s": 300.0,
        "stages": [{
            "stage": TRAIN, "command": "forgegate train recipe.yaml", "seconds": 60.0, "exit_code": 0,
            "phases": [{"phase": "train", "seconds": 20.5}],
        }],
        "trainings": [{
            "stage": TRAIN,
            "run": {"num_rows": 1000, "num_tokens": 50000, "num_steps": 300, "seconds": 20.0, "loss": 0.1, "eval_loss": 0.2},
            "verdict": {"outcome": "GO", "rule": "improve", "task": judged, "general": [{**judged, "name": "facts", "state": "kept"}]},
        }],
        "answers": {"after the flip": [{"engine": "demo-0", "version": NEW, "text": '{"a|b": 1}'}]},
        "clients": {"num_clients": 4, "num_requests": 1200, "num_failed": 0, "failed": [],
                    "answered": [{"version": OLD, "engine": "demo-1", "num": 1200}]},
        "checks": [{"name": "no request failed", "is_met": True, "found": "1200 requests"}],
    }  # fmt: skip
    return {**found, **changes}


def test_phases_follow_each_other_and_take_all_of_the_time() -> None:
    found = phases([*TRAINED, *PUBLISHED], 55.0)
    assert [one.name for one in found] == list(PHASES)
    assert {one.name: one.seconds for one in found} == {
        "plan": 2.0, "prepare": 4.0, "train": 15.0, "export": 5.0, "references": 4.0, "publish": 3.0, "proof": 4.0, "parity": 4.0,
        "evaluate": 9.0, "gate": 3.0, "flip": 2.0,
    }  # fmt: skip


def test_where_it_is_refused_the_last_phase_lasts_to_the_end() -> None:
    assert phases(TRAINED[:4], 7.5)[-1] == Phase("train", 1.5)
    assert phases([], 1.25) == [Phase("plan", 1.25)]


@pytest.mark.parametrize("is_gpu", [True, False])
def test_the_engines_take_these_options(is_gpu: bool) -> None:
    vllm, llamacpp = pools(is_gpu=is_gpu, vllm_options={"dtype": "float32"})
    assert vllm_problems(vllm["options"]) == []
    assert llamacpp_problems(llamacpp["options"]) == []
    assert vllm["options"]["dtype"] == "float32"
    assert ("gpu_memory_utilization" in vllm["options"]) is is_gpu


def test_each_engine_has_to_answer_and_by_that_version() -> None:
    assert Asked([reply("demo-0"), reply("demo-1"), reply("demo-0")]).fault(NEW) == ""
    assert Asked([reply("demo-0")]).fault(NEW) == "demo-1 was not reached"
    assert Asked([reply("demo-0"), reply("demo-1", OLD)]).fault(NEW) == f"{OLD} answered on demo-1"
    assert "HTTP error" in Asked([reply("demo-0"), reply("demo-1", "", Ending.HTTP_ERROR)]).fault(NEW)


def test_the_tables() -> None:
    lines = markdown(result())
    assert "One NVIDIA H200, driver 580.1, 16 cores; today." in lines
    assert "| gateway and both engines start | 91.0 | `forgegate serve` |" in lines
    assert "| - train | 20.5 | |" in lines
    assert "| facts | 450 | 0.0 | 97.0 | +97.0 (+95.5 to +98.0) | kept |" in lines
    assert f'| after the flip | demo-0 | {NEW} | `{{"a\\|b": 1}}` |' in lines
    assert "4 clients streamed meanwhile: 1,200 requests, 0 failed." in lines
    assert not any("--tiny" in line for line in lines)
    (trained,) = result()["trainings"]
    short = markdown(
        result(
            plan={"tiny": True}, trainings=[{**trained, "run": {**trained["run"], "eval_loss": None}, "verdict": None}]
        )
    )
    assert any("--tiny" in line for line in short)
    assert any(line.endswith("held out none.") for line in short)


def test_the_tables_of_what_came_to_no_end() -> None:
    left = ("trainings", "answers", "total_s", "packages")
    found = {
        name: value for name, value in result(gpu=None, error="`forgegate train` failed").items() if name not in left
    }
    lines = markdown(found)
    assert "a CPU, 16 cores; today." in lines
    assert "`forgegate train` failed" in lines


class FakeGateway:
    """Serves one version after another, as `moves` has them."""

    target = Target("http", "127.0.0.1", 1)

    def __init__(self, moves: Sequence[str]) -> None:
        self._moves = iter(moves)
        self.version = ""

    async def wait_admin(self, timeout_s: float) -> None: ...

    async def wait_ready(self) -> None: ...

    async def engines(self) -> list[dict[str, Any]]:
        return [{"id": "demo-1", "description": "llama.cpp"}, {"id": "demo-0", "description": "vLLM"}]

    async def served(self, alias: str) -> list[str]:
        self.version = next(self._moves)
        return [self.version]


class FakeShell:
    def __init__(self, outcome: str, wrong: str = "NO-GO") -> None:
        """`wrong`: the verdict on what was trained on wrong labels."""
        self._outcome = outcome
        self._wrong = wrong

    async def type(self, step: Step, timeout_s: float) -> Typed:
        done = Typed(step, 1.5, 0)
        if step.name == TRAIN and self._outcome != "GO":
            done.exit_code = 1
            raise StepError("`forgegate train` ended with exit code 1:\nNO-GO", done)
        return done

    def record(self, run: Path) -> Mapping[str, Any]:
        bound = dict.fromkeys(("rule", "candidate", "live", "suite", "task", "general"), "")
        outcome = self._wrong if run == RUNS[TRAIN_WRONG] else self._outcome
        return {"published": {"judged": {"outcome": outcome, "who": "me@here", **bound}}}

    def packages(self) -> dict[str, str]:
        return {"torch": "2.11.0", "numpy": "2"}


async def turn(
    monkeypatch: pytest.MonkeyPatch,
    moves: Sequence[str],
    outcome: str = "GO",
    failed: Sequence[str] = (),
    wrong: str | None = None,
) -> Loop:
    """`wrong`: with retrains; the verdict on what was trained on wrong labels."""

    async def watch(*_: object, **__: object) -> Start:
        return Start(ready_s=2.0)

    gateway = FakeGateway(moves)

    async def read_ticket(_: object) -> Asked:
        return Asked([reply("demo-0", gateway.version), reply("demo-1", gateway.version)])

    monkeypatch.setattr(loop_stages.engine_start, "watch", watch)
    monkeypatch.setattr(loop_stages, "read_ticket", read_ticket)
    clients = Clients(gateway.target, 0, ["demo"], Counter({("demo@1", "demo-0"): 3}), list(failed))
    todo = steps(has_retrains=wrong is not None)
    loop = Loop(cast(Any, gateway), cast(Any, FakeShell(outcome, wrong or "")), clients, todo, 1e9, False)
    await loop.run()
    return loop


def unmet(loop: Loop) -> list[str]:
    return [check.name for check in loop.findings.checks if not check.is_met]


async def test_a_turn_holds_where_the_alias_goes_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = await turn(monkeypatch, [OLD, NEW, OLD])
    assert unmet(loop) == []
    measured = loop.findings.measured
    assert [stage["stage"] for stage in measured["stages"]] == [step.name for step in steps()]
    assert [one["version"] for one in measured["answers"]["after the flip"]] == [NEW, NEW]
    assert measured["engines"][0] == {"engine": "demo-0", "description": "vLLM", "ready_s": 2.0}
    assert measured["packages"] == {"torch": "2.11.0"}
    (training,) = measured["trainings"]
    assert training["stage"] == TRAIN
    assert "who" not in training["verdict"], "a result names nobody"
    assert loop.clients.models == ["demo", ALIAS]


@pytest.mark.parametrize(
    ("moves", "failed", "conditions"),
    [
        (
            [OLD, OLD, OLD],
            [],
            ["the flip: the alias serves the new version alone", "the rollback is back at the version before"],
        ),
        (
            [OLD, NEW, NEW],
            [],
            ["the rollback is back at the version before", "both engines answer by the version before"],
        ),
        ([OLD, NEW, OLD], ["demo: HTTP error: 503"], ["no request failed"]),
    ],
)
async def test_what_does_not_hold_is_named(
    monkeypatch: pytest.MonkeyPatch, moves: Sequence[str], failed: Sequence[str], conditions: Sequence[str]
) -> None:
    assert unmet(await turn(monkeypatch, moves, failed=failed)) == conditions


NEXT = "support@cccccccccccc"
NOT_LIVE, NOT_GO = "what was trained on wrong labels is not served", f"{TRAIN_WRONG}: the verdict is not GO"


@pytest.mark.parametrize(
    ("moves", "wrong", "conditions"),
    [
        ([OLD, NEW, NEXT, NEXT, NEW], "NO-GO", []),
        ([OLD, NEW, NEXT, NEXT, NEW], "INCONCLUSIVE", []),
        ([OLD, NEW, NEXT, NEXT, OLD], "NO-GO", ["the rollback is back at the version before", "both engines answer by the version before"]),
        ([OLD, NEW, NEXT, OLD, NEW], "GO", [NOT_LIVE, NOT_GO]),
        ([OLD, NEW, NEW, NEW, NEW], "NO-GO", ["the retrain's flip: the alias serves the new version alone"]),
    ],
)  # fmt: skip
async def test_a_retrain_goes_live_and_one_on_wrong_labels_does_not(
    monkeypatch: pytest.MonkeyPatch, moves: Sequence[str], wrong: str, conditions: Sequence[str]
) -> None:
    loop = await turn(monkeypatch, moves, wrong=wrong)
    assert set(unmet(loop)) >= set(conditions)
    if not conditions:
        assert unmet(loop) == []
        assert [each["stage"] for each in loop.findings.measured["trainings"]] == list(RUNS)


async def test_engines_that_take_too_long_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(*_: object, **__: object) -> Start:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    monkeypatch.setattr(loop_stages.engine_start, "watch", watch)
    clients = Clients(FakeGateway.target, 0, ["demo"])
    loop = Loop(cast(Any, FakeGateway([])), cast(Any, FakeShell("GO")), clients, (), time.monotonic() + 0.1, False)
    with pytest.raises(GatewayError, match="not ready within the budget"):
        await loop.run()


async def test_a_no_go_ends_the_turn_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = await turn(monkeypatch, [OLD], "NO-GO")
    assert unmet(loop) == ["it comes to its end", f"{TRAIN}: the verdict is GO"]
    measured = loop.findings.measured
    assert (measured["stages"][-1]["stage"], measured["stages"][-1]["exit_code"]) == (TRAIN, 1)
    assert measured["trainings"][0]["verdict"]["outcome"] == "NO-GO"
    assert "NO-GO" in measured["error"]


async def test_a_client_whose_request_fails_is_counted() -> None:
    clients = Clients(Target("http", "127.0.0.1", 1), 2, ["demo"])
    async with clients:
        await asyncio.sleep(0.05)
    assert clients.num_requests == len(clients.failed) >= 2
    assert clients.as_dict()["num_failed"] == len(clients.failed)


def test_what_was_found_is_written_also_where_a_command_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*_: object) -> Findings:
        findings = Findings()
        findings.measured |= {"stages": [], "error": "`forgegate data doctor` ended with exit code 2:\nno such file"}
        findings.check("it comes to its end", False, findings.measured["error"])
        return findings

    monkeypatch.setattr(loop_stages, "_measured", failed)
    out = tmp_path / "loop.json"
    assert loop_stages.main(["--out", str(out), "--budget", "60"]) == 1
    found = json.loads(out.read_bytes())
    assert (found["kind"], found["is_met"], found["plan"]["budget"]) == ("loop-stages", False, 60.0)
    assert "no such file" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.txt"], "must end in .json"),
        (["--out", "x.json", "--workdir", os.fspath(ROOT)], "must be empty"),
        (["--out", "x.json", "--tiny", "--max-items", "9"], "--tiny has its own"),
        (["--out", "x.json", "--tiny", "--rows", "200"], "--tiny has its own"),
        (["--out", "x.json", "--vllm-options", "[1]"], "is no JSON object"),
        (["--out", "x.json", "--train-path", "/nowhere"], "/nowhere is no folder"),
        (["--out", "x.json", "--set", "num_epochs"], "'num_epochs' is no KEY=VALUE"),
        (["--out", "x.json", "--bugdet", "3"], "did you mean '--budget'?"),
    ],
)
def test_bad_usage_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert loop_stages.main(words) == 2
    assert said in capsys.readouterr().err
