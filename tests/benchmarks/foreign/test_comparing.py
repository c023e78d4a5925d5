"""Results of different tools against each other, by the command that people use."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.compare import CompareError
from benchmarks.foreign import guidellm, vllm
from benchmarks.foreign.comparing import compared
from benchmarks.foreign.definitions import DEFINITIONS, OURS, TOOLS
from benchmarks.foreign.measured import MeasuredLoad
from tests.benchmarks.foreign import results


def test_figures_of_one_definition_are_held_against_each_other() -> None:
    found = compared(vllm.read([results.vllm()]), guidellm.read(results.guidellm()))
    rows = {row.figure: row for row in found.rows}
    assert rows["tpot_s.p50"].sentence == "1x, not judged: no interval in A and B"
    assert not any(figure.startswith(("tpot_with_first_s", "itl_s")) for figure in rows), (
        "one of both has no such figure"
    )
    assert not found.is_worse
    remarks = "\n".join(found.remarks)
    assert "B was written by guidellm 0.8.1" in remarks
    assert "tpot_s: guidellm: requests weigh by their tokens" in remarks
    assert "itl_s: guidellm has no such figure; vllm bench serve's itl is gaps between chunks" in remarks
    assert "tpot_with_first_s: vllm bench serve has no such figure" in remarks


def test_repeats_of_either_show_a_difference() -> None:
    runs = [[results.vllm(output_throughput=base + step) for step in (-2.0, 0.0, 2.0)] for base in (300.0, 200.0)]
    found = compared(*map(vllm.read, runs))
    row = next(row for row in found.rows if row.figure == "output_tps")
    assert row.sentence.endswith("worse")
    assert found.is_worse
    assert not any("counts" in remark for remark in found.remarks), "one tool has one definition"


def test_what_else_differs_is_said() -> None:
    a = vllm.read([results.vllm(), results.vllm(max_concurrency=1)])
    b = vllm.read(
        [results.vllm(model_id="other", completed=8, total_output_tokens=8 * 128, total_input_tokens=8 * 32)] * 2
    )
    remarks = compared(a, b, ("a.json", "b.json")).remarks
    assert "different models: demo and other" in remarks
    assert "measured in one of them only: 1 stream" in remarks
    assert "b.json, 8 streams: 4 of 20 requests failed, which is in no latency" in remarks
    assert "8 streams: different requests: 64.0 and 128.0 output tokens each" in remarks
    assert "8 streams: 1 repeats in a.json, 2 in b.json" in remarks


def test_without_a_load_in_common_nothing_is_compared() -> None:
    with pytest.raises(CompareError, match="A has 8 streams, B has 1 stream"):
        compared(vllm.read([results.vllm()]), guidellm.read(results.guidellm({"type_": "synchronous"})))


def test_every_figure_has_a_definition_of_its_tool() -> None:
    loads: dict[str, MeasuredLoad] = {}
    for measured in (vllm.read([results.vllm(mean_e2el_ms=660.0)]), guidellm.read(results.guidellm())):
        loads[measured.tool] = measured.loads[0]
    assert set(TOOLS) == set(DEFINITIONS) == {OURS, *loads}
    for tool, load in loads.items():
        assert {figure.partition(".")[0] for figure in load.figures} == set(DEFINITIONS[tool])


def test_the_command_takes_any_of_the_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, lines = tmp_path / "vllm.json", tmp_path / "guidellm.json", tmp_path / "appended.json"
    a.write_text(json.dumps(results.vllm()))
    b.write_text(json.dumps(results.guidellm()))
    lines.write_text("\n".join([json.dumps(results.vllm())] * 3))
    assert main(["compare", str(a), str(b)]) == 0
    assert "tpot_s.p50" in capsys.readouterr().out
    assert main(["compare", str(lines), str(a), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["load"] == "8 streams"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "is no result of `forgegate bench run`, `vllm bench serve --save-result` or GuideLLM"),
        ("{}", "is no result of"),
        ('{"benchmarks": [{}], "metadata": {"guidellm_version": "1", "version": 2}}', "is not as its tool writes it"),
        ('{"format": "forgegate.benchmark", "kind": "versus"}', "is no result of `forgegate bench run` of version 1"),
        (json.dumps(results.guidellm(version=3)), "is a GuideLLM report of version 3: 2 is read"),
    ],
)
def test_what_is_no_result_is_refused_by_its_file(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(results.vllm()))
    bad.write_text(content)
    assert main(["compare", str(good), str(bad)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {bad} ")
    assert words in said
    assert len(said.splitlines()) == 1


DATA = Path(__file__).parent / "data"


def test_a_recorded_run_of_vllm_is_read() -> None:
    """`vllm bench serve --save-detailed` of 0.32 against the mock: 8 streams, ttft 20 ms, 10 ms between chunks."""
    (load,) = vllm.read([json.loads((DATA / "vllm.json").read_text())]).loads
    assert (load.name, load.num_requests, load.num_failed, load.output_tokens) == ("8 streams", 48, 0, 32.0)
    assert load.figures["tpot_s.p50"].estimate == pytest.approx(0.010, rel=0.01)
    assert not load.figures["ttft_s.p50"].is_unknown
    assert load.figures["e2e_s.mean"].estimate == pytest.approx(0.338, rel=0.01)


def test_a_recorded_report_of_guidellm_is_read() -> None:
    """`guidellm run` of 0.8.1 against the same mock, with the same load; prompts and answers are taken out of it."""
    found = guidellm.read(json.loads(gzip.decompress((DATA / "guidellm.json.gz").read_bytes())))
    (load,) = found.loads
    assert (found.model, found.version) == ("demo", "0.8.1")
    assert (load.name, load.num_requests, load.num_failed, load.output_tokens) == ("8 streams", 48, 0, 32.0)
    figures = {name: interval.estimate for name, interval in load.figures.items()}
    assert figures["tpot_s.p50"] == pytest.approx(0.010, rel=0.01)
    assert figures["tpot_with_first_s.p50"] == pytest.approx(0.01045, rel=0.01)
    assert figures["ttft_s.mean"] == pytest.approx(0.02787, rel=0.01)
    assert not load.figures["e2e_s.mean"].is_unknown
    assert load.figures["tpot_s.mean"].is_unknown, "it weighs by tokens, which samples alone do not show"


def test_the_recorded_runs_of_both_are_compared() -> None:
    theirs = guidellm.read(json.loads(gzip.decompress((DATA / "guidellm.json.gz").read_bytes())))
    found = compared(vllm.read([json.loads((DATA / "vllm.json").read_text())]), theirs)
    rows = {row.figure: row for row in found.rows}
    assert "no difference shown" in rows["e2e_s.mean"].sentence
    assert rows["output_tps"].sentence == "0.936x, not judged: no interval in A and B"
