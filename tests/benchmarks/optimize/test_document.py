from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.optimize import document
from benchmarks.optimize.document import Point, block_of, front_of, markdown, result_of
from benchmarks.optimize.launches import reason_in
from benchmarks.optimize.page import pareto_chart, render
from benchmarks.optimize.session import Found
from benchmarks.report import dump
from gateway.configfile import parse
from tests.benchmarks.optimize.simulated import SimulatedLaunches, Truth
from tests.benchmarks.optimize.test_session import BEST, TASK, searched, truth_of

DESCRIBED = {"engine": "llamacpp", "model": "demo", "workload": {}}


@pytest.fixture
async def found(tmp_path: Path) -> Found:
    return await searched(SimulatedLaunches(truth_of), tmp_path)


def result(found: Found, block: str | None = None) -> dict[str, Any]:
    return result_of(["forgegate", "optimize", "--model", "demo"], TASK, found, DESCRIBED, block)


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [
        Point("a", 1, 100, 100, True),
        Point("b", 1, 90, 90, True),
        Point("c", 4, 50, 200, True),
        Point("d", 8, 40, 150, True),
    ]
    assert [point.label for point in front_of(points)] == ["a", "c"]
    assert front_of([]) == []


def test_the_block_is_a_configuration(found: Found) -> None:
    options = {"n_seq_max": 64, "flash_attn": "on", "kv_unified": False}
    block = block_of({"models": [{"name": "demo", "pools": [{"engine": "llamacpp", "model": "demo", "options": options}]}]},
                     found, TASK.axis, "ttft_p99<500ms")  # fmt: skip
    [pool] = parse(block).models[0].pools
    assert dict(pool.options) == options
    assert yaml.safe_load(block)["models"][0]["pools"][0]["options"] == options
    assert "# for ttft_p99<500ms, up to 38 streams" in block


def test_the_result_tells_everything(found: Found) -> None:
    made = result(found, "models: []\n")
    assert dump(made)
    assert made["candidate"] == BEST.options
    assert made["is_recommended"]
    assert len(made["trials"]) == 1 + len(found.trials) + 2 * len(found.pairs)
    text = markdown(made)
    assert text.startswith("**Recommended**: goodput 2.38x")
    assert "| size 3 | search | 4 |" in text
    assert "no such kernel" in text
    assert "models: []" in text
    assert "candidate, pairs taken together: ttft_p99<500ms: 0 of" in text
    html = render(made)
    assert "Recommended" in html
    assert "no such kernel" in html


async def test_no_recommendation_says_so_and_has_no_block(tmp_path: Path) -> None:
    made = result(await searched(SimulatedLaunches(lambda _: Truth(streams=0.5)), tmp_path))
    assert markdown(made).startswith("**No recommendation**: none of")
    assert "```yaml" not in markdown(made)
    assert "No recommendation" in render(made)


def test_the_chart_holds_the_front_the_defaults_and_the_candidate(found: Found) -> None:
    names = [series.name for series in pareto_chart(result(found)).series]
    assert names[:3] == ["Pareto front", "defaults", "candidate"]
    assert len(names) <= 6


def test_hostile_text_is_escaped(found: Found) -> None:
    made = result(found)
    made["trials"][3]["reason"] = "<script>alert(1)</script> a | b\nc"
    made["trials"][3]["score"] = 0.0
    assert "<script>alert" not in render(made)
    assert "a \\| b c" in markdown(made)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "INFO up\nerror: forgegate.yaml:1: no such model\nhelp: forgegate serve --help",
            "no such model",
        ),
        ("error: first\nmore\nerror: second\nand its second line", "second and its second line"),
        ("error: a/forgegate.yaml:1: models[0].pools[0]: candidate: it does not fit", "it does not fit"),
        ("INFO last words\n\n", "INFO last words"),
        ("", ""),
    ],
)
def test_the_reason_is_the_last_error(log: str, reason: str) -> None:
    assert reason_in(log) == reason


def test_rows_are_under_their_heads(found: Found) -> None:
    assert {len(row) for row in document.rows_of(result(found))} == {len(document.HEADS)}
