"""Broken starts: what a user sees of each, on the console of `forgegate serve` and in `forgegate engines list`.

Most are refused before anything is started. The others are real starts of vLLM that end before weights are loaded, and, for what
this machine has not, an interpreter that says what vLLM says there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backends.vllm.instructions import cpu_flags
from tests.processes import ROOT, eventually, stub_python, write_gguf
from tests.vllm_environment import MISSING, vllm_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # vLLM is imported by each start: 10 s and more
LOGS = Path(__file__).parent / "logs"
TARGET = ROOT / "backends" / "demo" / "weights" / "target"
DRAFT = ROOT / "backends" / "demo" / "weights" / "draft"
GPU_MEMORY = (
    "ValueError: Free memory on device cuda:0 (20.35/139.8 GiB) on startup is less than desired GPU memory utilization (0.9, 125.82 GiB). "
    "Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
HAS_AVX512 = "avx512f" in cpu_flags()
NUM_ENGINES = 7 + HAS_AVX512

SAYING = """#!/bin/sh
[ "$1" = -c ] && exec {real} "$@"
while [ "$1" != --served-model-name ]; do shift; done
cat {said}/"$2" >&2
exit 1
"""


@dataclass(frozen=True)
class Stage:
    """A home in which vLLM was asked for its flags already, and a folder for models."""

    folder: Path
    python: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "FORGEGATE_HOME": str(self.folder / "home")}

    def config(self, name: str, pools: dict[str, dict[str, Any]]) -> Path:
        """With a pool for each model of these names."""
        models = [{"name": model, "pools": [pool]} for model, pool in pools.items()]
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({"server": {"port": 0, "admin": {"port": 0}}, "models": models}))
        return path

    def vllm(self, model: Path | str = "demo", python: str | None = None, **options: Any) -> dict[str, Any]:
        return {
            "engine": "vllm", "model": str(model), "python": python or self.python, "options": {"cpu_kv_cache_gib": 1, **options},
        }  # fmt: skip

    def model(self, name: str, source: Path = TARGET, **config: Any) -> Path:
        """A copy of the demo model whose config.json says this too."""
        folder = self.folder / name
        shutil.copytree(source, folder)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        return folder

    def saying(self, lines: Mapping[str, Sequence[str]]) -> str:
        """An interpreter whose vLLM ends with these lines, by the name of the model that it is to serve."""
        path = self.folder / "python-saying"
        said = self.folder / "said"
        said.mkdir()
        for name, words in lines.items():
            (said / name).write_text("\n".join(words) + "\n")
        path.write_text(SAYING.format(real=shlex.quote(self.python), said=shlex.quote(str(said))))
        path.chmod(0o755)
        return str(path)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    python = vllm_python()
    if python is None:
        pytest.skip(MISSING)
    made = Stage(tmp_path_factory.mktemp("broken"), python)
    checked = made.run("serve", "--check", "--config", str(made.config("whole", {"demo": made.vllm()})))
    assert "check passed" in checked.stdout, checked.stderr
    return made


# Refused before the start ---------------------------------------------------------------------------------------------


def refused(stage: Stage, name: str, pool: dict[str, Any]) -> str:
    """The one line that the user gets, after where the fault is."""
    path = stage.config(name, {"demo": pool})
    done = stage.run("serve", "--config", str(path))
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stdout
    (line,) = done.stderr.strip().splitlines()
    found = re.fullmatch(rf"error: {re.escape(str(path))}:1: models\[0\]\.pools\[0\](?:\.options)?: (.+)", line)
    assert found, line
    return found[1]


def test_a_flag_that_this_version_does_not_have(stage: Stage) -> None:
    said = refused(stage, "flag", stage.vllm(extra_args=["--frobnicate", "3"]))
    assert said.startswith("extra_args: --frobnicate: vLLM 0.")
    assert "has no such flag" in said


def test_a_flag_of_an_old_tutorial(stage: Stage) -> None:
    said = refused(stage, "old", stage.vllm(extra_args=["--use-v2-block-manager"]))
    assert "--use-v2-block-manager" in said


def test_a_model_that_is_not_there(stage: Stage) -> None:
    assert refused(stage, "absent", stage.vllm(stage.folder / "none")) == f"{stage.folder}/none: no such folder"


def test_weights_that_are_cut_short(stage: Stage) -> None:
    model = stage.model("truncated")
    os.truncate(model / "model.safetensors", 1_000_000)
    said = refused(stage, "cut", stage.vllm(model))
    assert said.startswith(f"{model}/model.safetensors: truncated: tensor ")
    assert said.endswith("download it anew")


def test_a_draft_with_another_tokenizer(stage: Stage) -> None:
    draft = stage.model("draft", DRAFT)
    tokenizer = draft / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    vocab = content["model"]["vocab"]
    first, second = sorted(vocab, key=vocab.get)[1000:1002]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    tokenizer.write_text(json.dumps(content))
    speculative = {"method": "draft_model", "model": str(draft), "num_speculative_tokens": 3}
    said = refused(stage, "draft", stage.vllm(speculative=speculative))
    assert f"{draft} is no draft for {TARGET}: their tokenizers differ from token" in said
    assert "take a draft of the same family" in said


def test_more_ram_than_there_is(stage: Stage) -> None:
    said = refused(stage, "ram", stage.vllm(cpu_kv_cache_gib=100_000))
    assert "GiB of RAM (KV cache 100,000.0 GiB each), and " in said
    assert "GiB are free: lower cpu_kv_cache_gib" in said


def test_a_quantisation_that_nobody_knows(stage: Stage) -> None:
    said = refused(stage, "quantization", stage.vllm(quantization="awk"))
    assert said.startswith("quantization: must be one of ")
    assert "got 'awk'; did you mean 'awq'?" in said


# Real starts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    console: str
    engines: dict[str, dict[str, Any]]
    table: str
    """What `forgegate engines list` prints."""

    def reason(self, model: str, state: str = "failed") -> str:
        """Why its engine did not start, as both places show it."""
        engine = self.engines[f"{model}-0"]
        assert engine["state"] == state, engine
        detail: str = engine["detail"]
        assert f"engine {model}-0: {state} ({detail.partition('; next try')[0]}" in self.console
        return detail


@pytest.fixture(scope="module")
def seen(stage: Stage) -> Seen:
    """One `forgegate serve` with all of them, and an engine that is well, so that it stays."""
    port = (LOGS / "port-taken-0.32.txt").read_text().splitlines()
    killed = (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -4}"
    )
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    gguf, well = write_gguf(stage.folder / "stub.gguf"), stub_python(stage.folder)
    saying = stage.saying({"gpu": [GPU_MEMORY], "port": port, "old": [killed]})
    path = stage.config("real", {
        "well": {"engine": "llamacpp", "model": str(gguf), "python": str(well)},
        "long": stage.vllm(max_model_len=100_000),
        "strange": stage.vllm(stage.model("strange", architectures=["FrobnicateForCausalLM"])),
        "own": stage.vllm(stage.model("own", architectures=["OwnForCausalLM"], model_type="own", auto_map=auto_map)),
        **({"plain": stage.vllm(quantization="awq")} if HAS_AVX512 else {}),
        "gpu": stage.vllm(python=saying),
        "port": stage.vllm(python=saying),
        "old": stage.vllm(python=saying),
    })  # fmt: skip
    with (stage.folder / "console.txt").open("w") as console:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", str(path)],
            cwd=ROOT, env=stage.env, stdout=console, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            settled: dict[str, dict[str, Any]] = {}
            eventually(lambda: _all_settled(stage, settled), timeout_s=300)
            table = stage.run("engines", "list").stdout
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    return Seen((stage.folder / "console.txt").read_text(), settled, table)


def _all_settled(stage: Stage, settled: dict[str, dict[str, Any]]) -> bool:
    """Once every engine's first start has come to an end, good or bad; `settled` is how each was listed then."""
    listed = stage.run("engines", "list", "--json")
    if listed.returncode == 0:
        for engine in json.loads(listed.stdout):
            if engine["state"] in ("ready", "failed", "backoff"):
                settled.setdefault(engine["id"], engine)
    return len(settled) == NUM_ENGINES


def test_a_context_longer_than_the_models(seen: Seen) -> None:
    assert seen.reason("long") == (
        "max_model_len 100000 is more than the model was made for (2048 tokens): lower it, or leave it out"
    )
    assert "max_model_len 100000 is more than the model" in seen.table


def test_an_architecture_that_vllm_does_not_have(seen: Seen) -> None:
    assert seen.reason("strange").startswith("this vLLM cannot run models of the architecture FrobnicateForCausalLM")


def test_a_model_that_brings_code(seen: Seen) -> None:
    assert "set `trust_remote_code: true`" in seen.reason("own")


@pytest.mark.skipif(not HAS_AVX512, reason="without AVX-512 it is refused before the start (test_instructions.py)")
def test_a_model_that_is_not_quantised(seen: Seen) -> None:
    assert seen.reason("plain").startswith("the model is not quantised by awq: leave `quantization` out")


def test_gpu_memory_that_others_hold(seen: Seen) -> None:
    """It is tried again: they may end."""
    reason = seen.reason("gpu", "backoff")
    assert reason.startswith(
        "out of GPU memory: 20.35 of 139.8 GiB are free on cuda:0, gpu_memory_utilization 0.9 asks for 125.82"
    )
    assert "next try in" in reason


def test_a_port_that_was_taken_meanwhile(seen: Seen) -> None:
    assert seen.reason("port", "backoff").startswith("the port was taken by another process")


def test_a_cpu_that_is_too_old(seen: Seen) -> None:
    assert "its kernels need a newer CPU (AVX2 at least on x86-64)" in seen.reason("old", "backoff")


def test_the_others_are_served(seen: Seen) -> None:
    assert seen.engines["well-0"]["state"] == "ready"
    assert "Traceback" not in seen.console.replace("  | Traceback", "")
