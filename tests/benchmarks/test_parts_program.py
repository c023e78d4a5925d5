"""A part that goes wrong is kept as such, whatever it was; options and the result around the parts."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import parts_program
from benchmarks.adapter_program import Findings
from benchmarks.arguments import Parser
from benchmarks.child import ChildError
from benchmarks.gpu_memory import Gpu
from benchmarks.parts import Parts


def made(folder: Path) -> Parts:
    return Parts.read(folder / "result.json", lambda found: {"parts": dict(found)})


async def test_what_is_found_is_kept_and_returned(tmp_path: Path) -> None:
    async def work() -> Findings:
        return Findings(measured={"value": 3})

    parts = made(tmp_path)
    kept = await parts_program.measure(parts, "one", work(), "late")
    assert kept is not None
    assert (kept["value"], parts.is_done("one")) == (3, True)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ChildError("it ended at once"), "it ended at once"),
        (TimeoutError(), "it did not end in time"),
        (OSError("no space"), "no space"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
    ],
)
async def test_a_fault_is_kept_and_said_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Exception, reason: str
) -> None:
    async def work() -> Findings:
        raise fault

    parts = made(tmp_path)
    assert await parts_program.measure(parts, "one", work(), "it did not end in time") is None
    assert json.loads((tmp_path / "result.json").read_text())["parts"]["one"]["error"] == reason
    assert not parts.is_done("one")
    assert f"one: {reason}" in "".join(capsys.readouterr())


def test_the_result_names_program_machine_and_options_without_paths() -> None:
    parser = Parser(prog="p")
    parts_program.add_options(parser, "for this call", 90.0)
    options = parser.parse_args(["--out", "x.json"])
    assert (options.budget, options.workdir) == (90.0, None)
    plan = parts_program.shown(options)
    assert plan == {"budget": 90.0}
    gpu = Gpu("H200", "580.1", 1 << 37)
    found = parts_program.document("vllm_gpu", ["--tiny"], plan, ("orjson", "no-such-package"), gpu, {"one": {}})
    assert (found["kind"], found["command"][-2:]) == ("vllm-gpu", ["benchmarks.vllm_gpu", "--tiny"])
    assert list(found["versions"]) == ["orjson"]
    assert (found["gpu"]["name"], found["plan"], found["parts"]) == ("H200", plan, {"one": {}})
    assert parts_program.document("claims", [], {}, (), None, {})["gpu"] is None
    assert parts_program.shown(Namespace(python=Path("p"), tiny=True)) == {"tiny": True}
