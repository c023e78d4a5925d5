"""The GPU campaign, tried on llama.cpp with the demo model: all but what only a GPU has; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from backends.demo import TARGET_DIR
from backends.vllm.launch import option_problems
from benchmarks import vllm_gpu
from benchmarks.adapter_program import Findings
from benchmarks.chaos_gateway import GatewayError
from benchmarks.parts import Parts
from benchmarks.vllm_gpu_parts import Part
from benchmarks.vllm_gpu_setup import MAIN, SECOND, Setup


def setup(**changes: object) -> Setup:
    fields: dict[str, object] = {
        "model": TARGET_DIR, "engine": "vllm", "python": "python3", "workdir": Path("work"), "tiny": False, "seed": 1,
        "levels": (1, 256), "num_streams": 64, "num_flips": 10, "repeats": 2,
    }  # fmt: skip
    return Setup(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_main_engine_can_sleep_and_hold_adapters_and_the_second_starts_when_it_is_asked_for() -> None:
    pools = setup().pools()
    main = pools[MAIN]["options"]
    assert main["sleep_mode"]
    assert main["lora"]["max_cpu_loras"] == 4
    assert main["max_num_seqs"] == 256
    assert pools[SECOND]["resident"] == "on_demand"
    assert "lora" not in pools[SECOND]["options"]


@pytest.mark.parametrize("tiny", [True, False])
def test_vllm_takes_these_options(tiny: bool) -> None:
    for pool in setup(tiny=tiny).pools().values():
        assert option_problems(pool["options"]) == []


def test_a_tiny_campaign_asks_for_nothing_that_needs_a_gpu() -> None:
    for pool in setup(tiny=True).pools().values():
        assert not {"sleep_mode", "gpu_memory_utilization"} & set(pool["options"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "nowhere", "--out", "x.json", "--tiny"], "holds no config.json"),
        (["--model", str(TARGET_DIR), "--out", "x.txt"], "must end in .json"),
        (["--model", str(TARGET_DIR), "--out", "x.json", "--parts", "flip"], "there is no 'flip'"),
        (["--model", str(TARGET_DIR), "--out", "x.json", "--engine", "llamacpp"], "is for --tiny"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert vllm_gpu.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (GatewayError("the engine died"), "the engine died"),
        (KeyError("ttft"), "KeyError: 'ttft'"),
        (TimeoutError(), "within the budget"),
    ],
)
async def test_a_part_that_goes_wrong_is_kept_as_such_and_ends_nothing(
    tmp_path: Path, fault: Exception, error: str
) -> None:
    async def measure(_: object) -> Findings:
        raise fault

    parts = Parts.read(tmp_path / "gpu.json", lambda found: {"parts": dict(found)})
    await vllm_gpu._measure(cast(Any, None), parts, Part("load", "Load", 1, measure), 5.0)
    assert error in json.loads((tmp_path / "gpu.json").read_text())["parts"]["load"]["error"]
    assert not parts.is_done("load")


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_campaign_keeps_part_by_part_and_says_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    words = ["--tiny", "--engine", "llamacpp", "--model", str(TARGET_DIR), "--out", str(out), "--streams", "2"]
    words += ["--flips", "4", "--workdir", str(tmp_path / "work"), "--concurrency", "1"]
    assert vllm_gpu.main([*words, "--parts", "load,flips,release,restart"]) == 1
    parts = json.loads(out.read_text())["parts"]
    assert set(parts) == {"start", "load", "flips", "release", "restart"}
    assert not [name for name, part in parts.items() if "error" in part], parts
    for name in ("flips", "release", "restart"):
        assert parts[name]["is_met"], parts[name]["checks"]
    assert parts["load"]["publication"]["proof"] == "unattested"
    assert "## Flips under load" in out.with_suffix(".md").read_text()
    assert "not measured yet: throughput, proof, sleep, out_of_memory" in capsys.readouterr().err
