"""The program: what it refuses, and short real sections on the llama.cpp engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.claims import page
from benchmarks.claims.__main__ import main
from tests.readme import rendered


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.txt"], "must end in .json"),
        (["--out", "x.json", "--only", "page"], "there is no 'page'"),
        (["--out", "x.json", "--only", "synthetic"], "needs --engine vllm"),
        (["--out", "x.json", "--model", "nowhere"], "--model nowhere: holds no config.json"),
        (["--out", "x.json", "--gpu", "--tiny"], "exclude each other"),
        (["--out", "x.json", "--repeats", "2"], "must be at least 3"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


RESULT: dict[str, Any] = {
    "command": ["python", "-m", "benchmarks.claims"],
    "environment": {"date": "2026-01-01", "cpu": "CPU", "cores": 2},
    "gpu": None,
    "plan": {"engine": "vllm", "model": "demo", "synthetic_weights": True, "repeats": 3},
    "parts": {
        "paged": {
            "judgements": [
                {
                    "claim": {"source": "article", "says": "faster together", "least": 2, "most": 4},
                    "case": "16 streams", "figure": "output tok/s", "verdict": "held", "faults": [],
                    "ratio": {"estimate": 3.0, "low": 2.5, "high": 3.6, "level": 0.95, "num_turns": 3},
                }
            ],
            "medians": {"turns": {"16": {"paged": {"output tok/s": 100.0}, "reserved": {}}}},
            "computed": {"reserved_each": 4096},
        },
        "gateway": {"error": "the engine did not start"},
    },
}  # fmt: skip


def test_a_result_is_told_section_by_section() -> None:
    text = "\n".join(page.markdown(RESULT))
    assert "| faster together (article) | 16 streams | 2-4x | 3x | 2.5 - 3.6 | output tok/s | **held** |" in text
    assert "| 16 | reserved | - |" in text
    assert "Computed: reserved each: 4096." in text
    assert "Not measured: the engine did not start" in text


def test_a_summary_names_claim_measurement_machine_and_verdict() -> None:
    row = page.summary([RESULT])[-1]
    title = "**PagedAttention against reserving the longest** (vLLM, CPU, 2 cores)"
    assert row == f"| {title}: faster together (article) | 16 streams | 3x (2.5 - 3.6) | held |"


def test_a_summary_says_a_claim_once_for_all_of_its_cases() -> None:
    (found,) = RESULT["parts"]["paged"]["judgements"]
    twice = {**RESULT, "parts": {"paged": {"judgements": [found, found | {"case": "32 streams"}]}}}
    assert page.summary([twice])[-1] == "|  | 32 streams | 3x (2.5 - 3.6) | held |"


def test_the_readme_can_hold_a_summary(tmp_path: Path) -> None:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(RESULT))
    made = rendered(f"<!-- claims of: {path} -->\nold\n<!-- end -->\n")
    assert made.splitlines()[-2] == page.summary([RESULT])[-1]


@pytest.mark.engine
@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sections_on_the_llamacpp_engine(tmp_path: Path) -> None:
    out, workdir = tmp_path / "claims.json", tmp_path / "work"
    words = ["--tiny", "--repeats", "3", "--only", "paged,gateway", "--out", str(out), "--workdir", str(workdir)]
    assert main(words) == 0
    parts = json.loads(out.read_text())["parts"]
    (tps,) = parts["paged"]["judgements"]
    assert not tps["faults"]
    assert tps["figure"] == "output tok/s"
    assert len(parts["gateway"]["judgements"]) == 2
    assert "PagedAttention" in out.with_suffix(".md").read_text()
    before = out.read_bytes()
    assert main(words) == 0, "called again it measures nothing"
    assert json.loads(out.read_text()) == json.loads(before)
