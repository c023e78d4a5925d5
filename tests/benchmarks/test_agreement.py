from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import agreement
from benchmarks.agreement_bounds import BOUNDS
from benchmarks.agreement_report import AGREE, DIFFER, NOT_SHOWN, rows_of
from benchmarks.agreement_tools import Load, Tool, tools
from benchmarks.foreign import guidellm, vllm
from benchmarks.foreign.definitions import DEFINITIONS, GUIDELLM, OURS, VLLM
from benchmarks.foreign.measured import MeasuredLoad, known
from tests.benchmarks.foreign import results
from tests.vllm_environment import MISSING, vllm_python

TOKENIZER = Path(__file__).resolve().parents[2] / "backends" / "demo" / "weights" / "target"
WORDS = [
    "--model",
    "alpha",
    "--tokenizer",
    str(TOKENIZER),
    "--concurrency",
    "2",
    "--requests",
    "12",
    "--output-tokens",
    "8",
]


def a_run(**figures: float) -> MeasuredLoad:
    return MeasuredLoad("8 streams", {name.replace("__", "."): known(value) for name, value in figures.items()})


def test_what_agrees_and_what_does_not() -> None:
    steady, wild = (1.0, 1.01, 0.99), (0.5, 1.0, 1.9)
    runs = {
        OURS: [a_run(output_tps=100 * x, request_rate=10.0, ttft_s__p50=0.02 * x, tpot_s__p50=0.01) for x in steady],
        VLLM: [
            a_run(output_tps=101 * x, request_rate=10 * y, ttft_s__p50=0.03 * x, tpot_s__p50=0.0107)
            for x, y in zip(steady, wild, strict=True)
        ],
    }
    rows = {row.figure: row for row in rows_of(runs)}
    assert {name: row.verdict for name, row in rows.items()} == {
        "output_tps": AGREE, "request_rate": NOT_SHOWN, "ttft_s.p50": DIFFER, "tpot_s.p50": DIFFER,
    }  # fmt: skip
    assert rows["output_tps"].ratio.estimate == pytest.approx(1.01)
    assert rows["ttft_s.p50"].because[0].startswith("vllm bench serve: the client's own work")
    assert not any(row.is_unexplained for row in rows.values())


def test_a_difference_without_a_definition_is_unexplained() -> None:
    runs = {OURS: [a_run(output_tps=100.0)] * 3, VLLM: [a_run(output_tps=80.0)] * 3}
    (row,) = rows_of(runs)
    assert row.is_unexplained
    with pytest.raises(ValueError, match="2 turns show nothing"):
        rows_of({tool: loads[:2] for tool, loads in runs.items()})


@pytest.mark.parametrize(
    ("tool", "figure", "ours", "theirs", "is_explained"),
    [
        (VLLM, "ttft_s.p50", 0.010, 0.025, True),
        (VLLM, "ttft_s.p50", 0.010, 0.100, False),  # no client needs that long
        (VLLM, "ttft_s.mean", 0.100, 0.070, True),  # a role comes first
        (VLLM, "ttft_s.mean", 0.100, 0.010, False),
        (VLLM, "tpot_s.p50", 0.010, 0.0108, True),
        (VLLM, "tpot_s.p50", 0.010, 0.020, False),
        (VLLM, "tpot_s.p50", 0.010, 0.008, False),  # a later end makes no gap smaller
        (VLLM, "itl_s.mean", 0.010, 0.008, True),
        (VLLM, "itl_s.mean", 0.010, 0.012, False),
        (VLLM, "e2e_s.p50", 0.100, 0.110, True),
        (VLLM, "e2e_s.p50", 0.100, 0.080, False),
        (VLLM, "output_tps", 100.0, 80.0, False),
        (GUIDELLM, "output_tps", 100.0, 85.0, True),
        (GUIDELLM, "output_tps", 100.0, 50.0, False),
        (GUIDELLM, "ttft_s.p50", 0.010, 0.012, False),  # the same definition
        (GUIDELLM, "e2e_s.mean", 0.100, 0.090, False),
    ],
)
def test_a_definition_explains_its_own_direction_and_size(
    tool: str, figure: str, ours: float, theirs: float, is_explained: bool
) -> None:
    (row,) = rows_of({OURS: [a_run(**{figure: ours})] * 3, tool: [a_run(**{figure: theirs})] * 3})
    assert (row.verdict, row.is_unexplained, bool(row.because)) == (DIFFER, not is_explained, is_explained)


def test_every_proviso_has_its_bound() -> None:
    for tool, figures in DEFINITIONS.items():
        known = {name for name, found in figures.items() if found.proviso}
        assert known == set(BOUNDS.get(tool, {})), tool


def test_a_figure_that_one_of_them_has_not_is_left_out() -> None:
    runs = {
        VLLM: vllm.read([results.vllm()]).loads * 3,
        GUIDELLM: guidellm.read(results.guidellm()).loads * 3,
        OURS: [a_run(output_tps=320.0)] * 3,
    }
    assert [(row.figure, row.tool) for row in rows_of(runs)] == [("output_tps", VLLM), ("output_tps", GUIDELLM)]


def test_who_is_not_there_is_left_out_with_the_reason() -> None:
    named = tools({VLLM: sys.executable, GUIDELLM: "/no/python"})
    assert [tool.name for tool in named] == [OURS, VLLM, GUIDELLM]
    assert [tool.name for tool in tools({VLLM: None})] == [OURS]
    assert named[2].lacking().startswith("/no/python does not run")
    assert (
        Tool(VLLM, sys.executable, "no_such_module", named[1].command)
        .lacking()
        .endswith("cannot import no_such_module: ModuleNotFoundError: No module named 'no_such_module'")
    )


def test_all_are_told_the_same_load() -> None:
    load = Load("http://127.0.0.1:1", "m", Path("/t"), 8, 64, 32, 16, "completions")
    for tool in tools({VLLM: "v", GUIDELLM: "g"}):
        words = " ".join(tool.argv(load, Path("/out/x.json"), 3))
        assert "http://127.0.0.1:1" in words
        assert all(str(number) in words for number in (8, 64, 32, 16, 3)), words
        assert ("--repeats 1" in words) == (tool.name == OURS), "as often as the others"


def test_ours_alone_is_measured_and_the_rest_is_said(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "agreement.json"
    words = [*WORDS, "--url", url, "--turns", "3", "--out", str(out), "--guidellm-python", "/no/python"]
    assert agreement.main(words) == 0
    result = json.loads(out.read_text())
    assert (result["kind"], result["rows"], list(result["runs"])) == ("agreement", [], [OURS])
    assert [run["num_requests"] for run in result["runs"][OURS]] == [12] * 3
    assert "guidellm was not measured: /no/python does not run" in capsys.readouterr().out
    assert agreement.main([*words, "--turns", "2"]) == 2


def test_one_that_does_not_measure_is_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--url", "http://127.0.0.1:9", "--turns", "3", "--out", str(tmp_path / "x.json")]
    assert agreement.main(words) == 3
    assert (
        "error: forgegate bench ended with exit code 3: error: http://127.0.0.1:9 does not answer"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_vllms_own_client_counts_the_same(url: str, tmp_path: Path) -> None:
    """Against the mock; how long things took is not asserted, only what was counted."""
    python = vllm_python()
    if python is None:
        pytest.skip(MISSING)
    out = tmp_path / "agreement.json"
    code = agreement.main([*WORDS, "--url", url, "--turns", "3", "--out", str(out), "--vllm-python", python])
    assert code in (0, 1)
    result = json.loads(out.read_text())
    assert result["left_out"] == {}
    figures = {row["figure"] for row in result["rows"]}
    assert figures >= {"output_tps", "request_rate", "ttft_s.p50", "tpot_s.mean", "itl_s.mean", "e2e_s.p50"}
    for runs in result["runs"].values():
        assert [(run["num_requests"], run["num_failed"], run["output_tokens"]) for run in runs] == [(12, 0, 8.0)] * 3
    assert "| ttft_s.p50 |" in out.with_suffix(".md").read_text()
