"""Deriving a GGUF with a converter of our choice, as a child: once, whole, without the folder's code, and bounded in time."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from backends.artifacts import source_digest
from backends.errors import ModelUnusable, PrepareFailed
from backends.llamacpp import derive as derive_module
from backends.llamacpp.derive import Tools, derive
from backends.llamacpp.header import read_parts
from backends.llamacpp.toolkit import LORA_SCRIPT, SCRIPT, VERSION
from tests.backends.llamacpp.test_folder import make

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.slow

_BEGIN = """
import os, pathlib, sys, time, gguf
model, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
with open({runs!r}, "a") as runs:
    print(*sorted(path.name for path in model.iterdir()), file=runs)
"""
_GOOD = """
import numpy as np
writer = gguf.GGUFWriter(None, "qwen3")
writer.add_context_length(4096)
writer.add_tensor("token_embd.weight", np.zeros((128, 64), np.float16))
for percent in range(0, 101, 5):
    print(f"Writing: {percent:4d}%|###  | 1/2", end="\\r", file=sys.stderr, flush=True)
writer.write_header_to_file(out)
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""


class Rig:
    """A model folder, a cache, and a converter that does what a test says."""

    def __init__(self, root: Path) -> None:
        self.model = make(root / "model")
        self.cache = root / "models"
        self.tools = root / "tools"
        self.runs_file = root / "runs"
        self.told: list[str] = []
        self.tool = self.tools / f"llama.cpp-{VERSION}"
        (self.tool / "gguf-py").mkdir(parents=True)
        (self.tool / "gguf-py" / "gguf").symlink_to(Path(gguf.__file__).parent)
        (self.tool / LORA_SCRIPT).touch()  # without it the folder would be made anew
        self.converts_with(_GOOD)

    def converts_with(self, code: str) -> None:
        (self.tool / SCRIPT).write_text(_BEGIN.format(runs=str(self.runs_file)) + code)

    def derive(self) -> Path:
        return derive(self.model, self.cache, Tools(self.tools, sys.executable), self.told.append)

    def runs(self) -> list[str]:
        return self.runs_file.read_text().splitlines() if self.runs_file.exists() else []

    def left(self) -> list[str]:
        return sorted(path.name for path in self.cache.iterdir() if path.suffix != ".lock")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_it_is_derived_once_and_carries_its_source(rig: Rig) -> None:
    out = rig.derive()
    head = read_parts(out)[0]
    assert head.source_digest == source_digest(rig.model)
    assert out.name == f"model-{head.source_digest[7:19]}.gguf"
    assert (head.architecture, head.context_length) == ("qwen3", 4096)
    assert rig.told[0].startswith("reading ")
    assert rig.told[1] == "converting Qwen3ForCausalLM to GGUF with llama.cpp's converter"
    assert rig.told[2:] == [f"converting: {percent} % written" for percent in range(10, 101, 10)]
    assert rig.derive() == out
    assert len(rig.runs()) == 1
    assert rig.left() == [out.name, "source-digests.json"]


def test_it_is_derived_again_when_what_shapes_it_changes(rig: Rig) -> None:
    first = rig.derive()
    (rig.model / "generation_config.json").write_text(json.dumps({"temperature": 0.6}))
    assert rig.derive() == first
    assert len(rig.runs()) == 2
    (rig.model / "README.md").write_text("words")
    rig.derive()
    assert len(rig.runs()) == 2


def test_code_and_pickles_of_the_folder_are_not_shown_to_the_converter(rig: Rig) -> None:
    for name in ("modeling_x.py", "training_args.bin", "x.pt", ".hidden"):
        (rig.model / name).write_text("raise SystemExit('run!')")
    (rig.model / "1_Pooling").mkdir()
    rig.derive()
    assert rig.runs() == ["1_Pooling config.json model.safetensors tokenizer.json"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise NotImplementedError('BPE pre-tokenizer was not recognized')", "does not know how its tokenizer cuts words"),
        ("raise ValueError(\"Can not map tensor 'model.odd.weight'\")", "llama.cpp does not know its tensor model.odd.weight"),
        ("import no_such_module", "python module no_such_module is missing"),
        ("raise OSError(28, 'No space left on device')", "the disk is full"),
        ("raise KeyError('hidden_size')", "KeyError: 'hidden_size'"),
        ("print('ERROR:hf-to-gguf:Model X is not supported'); sys.exit(1)", "Model X is not supported"),
        ("from conversion.odd import check; check()", r"AssertionError \(conversion/odd\.py:2: assert 1 == 2\)"),
        ("raise FileNotFoundError(f'no {model}/x')", "FileNotFoundError: no [^ ]*/model/x;"),
        ("os.kill(os.getpid(), 9)", "it was killed: out of memory"),
        ("sys.exit(1)", "failed: exit code 1"),
    ],
)  # fmt: skip
def test_a_converter_that_fails_leaves_one_line_and_its_log(code: str, words: str, rig: Rig) -> None:
    rig.converts_with(f"print('begun', flush=True)\n{code}\n" if "exit(1)" not in code else code)
    (rig.tool / "conversion").mkdir()
    (rig.tool / "conversion" / "odd.py").write_text("def check():\n    assert 1 == 2\n")
    with pytest.raises(PrepareFailed, match=words) as caught:
        rig.derive()
    assert "\n" not in str(caught.value)
    (log,) = [name for name in rig.left() if name != "source-digests.json"]
    assert log in str(caught.value)
    rig.converts_with(_GOOD)
    rig.derive()
    assert log not in rig.left()


def test_a_file_that_is_not_whole_is_not_taken(rig: Rig) -> None:
    rig.converts_with(_GOOD + "os.truncate(out, out.stat().st_size - 40)\n")
    with pytest.raises(PrepareFailed, match=r"left no whole GGUF: .* bytes are missing at its end"):
        rig.derive()
    assert rig.left() == ["source-digests.json"]


def test_a_converter_that_hangs_is_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive_module, "STALL_S", 0.5)
    rig.converts_with("time.sleep(60)\n")
    with pytest.raises(PrepareFailed, match=r"said nothing for 0\.5 s and was ended"):
        rig.derive()


def test_what_a_killed_conversion_left_is_removed(rig: Rig) -> None:
    out = rig.derive()
    out.unlink()
    (rig.cache / f".{out.name}.abc123").write_bytes(b"half")
    (rig.cache / f".{out.name}.view").mkdir()
    rig.derive()
    assert rig.left() == [out.name, "source-digests.json"]


def test_a_disk_that_is_too_small_is_told_before(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(
        PrepareFailed, match=r"its GGUF takes 1 MiB, .* has 1 MiB free: free some space, or set FORGEGATE_HOME"
    ):
        rig.derive()
    assert rig.runs() == []


def test_a_cache_that_cannot_be_written(rig: Rig) -> None:
    rig.cache = Path("/proc/nowhere")
    with pytest.raises(PrepareFailed, match="/proc/nowhere: No such file"):
        rig.derive()


def test_a_folder_that_is_no_model_is_not_handed_over(rig: Rig) -> None:
    (rig.model / "tokenizer.json").unlink()
    with pytest.raises(ModelUnusable, match="no tokenizer"):
        rig.derive()
    assert rig.runs() == []


def _derive(model: Path, cache: Path, tools: Path) -> Path:
    return derive(model, cache, Tools(tools, sys.executable), print)


def test_processes_that_race_convert_once(rig: Rig) -> None:
    rig.converts_with("time.sleep(0.5)\n" + _GOOD)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.starmap(_derive, [(rig.model, rig.cache, rig.tools)] * 2)
    assert len(set(paths)) == 1
    assert len(rig.runs()) == 1
