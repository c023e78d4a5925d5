from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway import snapshot as wire
from gateway.control.benchmarkorder import BenchmarkBody
from gateway.control.benchmarkresult import NoResult, measured, with_result, words
from gateway.control.benchmarks import Target, target_of
from gateway.control.benchmarkshelf import Run, RunState, Shelf

RUN = Run("b-1", BenchmarkBody("demo"), "ann", "demo@01", 100.0)


def level(tps: float, **load: Any) -> dict[str, Any]:
    times = {"p50": 0.02, "p99": None}
    pooled = {"num_requests": 8, "num_ok": 8, "ttft_s": times, "ttft_user_s": {"p50": 0.5, "p99": 0.9}, "tpot_s": None}
    return {"concurrency": 0, "output_tps": {"median": tps}, "is_valid": True, "pooled": pooled, **load}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "is_valid": True,
        "faults": [],
        "levels": [level(90.0, concurrency=1), level(400.4, concurrency=32), level(30.0, rate=2.5)],
        **changes,
    }


def test_the_levels_are_told_with_their_latencies() -> None:
    run = with_result(RUN, document())
    assert (run.state, run.is_valid) == (RunState.DONE, True)
    assert [found.load for found in run.levels] == ["1 stream", "32 streams", "2.5 requests/s"]
    assert [(found.ttft_p50_s, found.ttft_p99_s, found.tpot_p50_s) for found in run.levels] == [
        (0.02, None, None), (0.02, None, None), (0.5, 0.9, None),
    ]  # fmt: skip
    assert words(run) == "400 tok/s at 32 streams"


def test_the_words_for_what_came_to_nothing() -> None:
    unmet = with_result(replace(RUN, body=BenchmarkBody("demo", slo="interactive")), document(is_slo_met=False))
    assert words(unmet) == "400 tok/s at 32 streams; interactive is shown to hold at no load"
    assert words(with_result(RUN, document(is_valid=False, faults=["client too slow"]))) == "void: client too slow"
    assert words(replace(RUN, state=RunState.STOPPED, detail="by ann")) == "stopped: by ann"


@pytest.mark.parametrize("broken", [{}, {"levels": [{}], "is_valid": True, "faults": []}, {"levels": 3}])
def test_what_is_no_result_is_said_to_be_none(broken: dict[str, Any]) -> None:
    with pytest.raises(NoResult):
        with_result(RUN, broken)


def test_clients_are_told_of_the_newest_valid_one() -> None:
    old = replace(with_result(RUN, document()), ended=110.0)
    void = replace(old, id="b-2", is_valid=False, ended=120.0)
    newest = replace(old, id="b-3", ended=130.9, levels=old.levels[:1])
    split = replace(newest, id="b-4", resolved="", body=BenchmarkBody("canary"))
    stopped = replace(RUN, id="b-5", state=RunState.STOPPED)
    assert measured({run.id: run for run in (old, void)})[0].benchmark == "b-1"
    assert measured({run.id: run for run in (old, void, newest, split, stopped)}) == (
        wire.Measured("demo", "demo@01", 90.0, "1 stream", 130, "b-3"),
    )


def test_what_answers_for_a_name() -> None:
    versions = tuple(wire.Adapter(f"support@{n}", "demo") for n in (11, 22))
    shares = tuple(wire.Share(version.name) for version in versions)
    snapshot = wire.Snapshot(
        1, (wire.Model("demo", "demo@01", (), capabilities=("chat",)),), versions,
        (wire.Alias("support", "demo", shares[:1]), wire.Alias("canary", "demo", shares)),
    )  # fmt: skip
    assert target_of(snapshot, "demo") == Target("demo", "demo@01", ("chat",))
    assert target_of(snapshot, "support") == Target("demo", "support@11", ("chat",))
    assert target_of(snapshot, "support@22") == Target("demo", "support@22", ("chat",))
    assert target_of(snapshot, "canary").resolved == ""
    with pytest.raises(errors.ModelNotFound, match="'dmo' is not served here; there are: canary, demo, support"):
        target_of(snapshot, "dmo")


def test_the_shelf_keeps_so_many_and_says_what_it_cannot_read(tmp_path: Path) -> None:
    shelf, said = Shelf(tmp_path, max_kept=2), list[str]()
    for number in range(4):
        shelf.keep(replace(with_result(RUN, document()), id=f"b-{number}"))
    assert shelf.trim("b-0") == ["b-1"], "the spared one stays, however old its name is"
    assert [run.id for run in shelf.runs(said.append)] == ["b-0", "b-2", "b-3"]
    assert shelf.runs(said.append)[1] == replace(with_result(RUN, document()), id="b-2")
    (tmp_path / "b-3" / "run.json").write_text("{")
    assert [run.id for run in shelf.runs(said.append)] == ["b-0", "b-2"]
    assert "b-3/run.json cannot be read" in said[0]
    assert (shelf.result("b-0"), shelf.report("nope")) == (None, None)
