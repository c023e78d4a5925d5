"""Folding changes the bytes, never what is computed; equal adapters become equal versions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.adapter import patterns
from backends.adapter.upload import CONFIG, WEIGHTS
from backends.artifacts import Tensor, read_tensors, write_tensors
from tests.backends.adapter.faulty import HOST, configured, copy_of, tensors_changed
from tests.backends.adapter.ingesting import Ingester, whole
from tests.backends.adapter.peft_reference import peft_logits

# Of PEFT's own: its use of transformers, and patterns that match nothing, which is what some cases are about.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*did not match any targeted module:RuntimeWarning"),
]

MODULES = [
    name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
    for name in read_tensors(HOST / WEIGHTS)
    if "lora_A" in name
]
# PEFT takes the first pattern that matches, in the order of the file, which it writes sorted.
PATTERNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "alpha": {"alpha_pattern": {"q_proj": 2, r"layers\.[0-3]\..*_proj": 24, "model.layers.7.mlp.down_proj": 0.5}},
    "alpha, first wins": {"alpha_pattern": {r"layers\.\d\.self_attn\..*": 3, "k_proj": 40}},
    "alpha, anchored": {"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 64, "proj": 4}},
    "alpha, only a part of a name": {"alpha_pattern": {"attn.q_proj": 64, "_proj": 99}},
    "rank": {"rank_pattern": {"v_proj": 3, r"layers\.1\.mlp\..*": 12}},
    "all": {
        "use_rslora": True,
        "lora_alpha": 7,
        "alpha_pattern": {"down_proj": 5},
        "rank_pattern": {"down_proj": 16, "o_proj": 1},
    },
}


def adapter_with(folder: Path, changes: dict[str, Any]) -> Path:
    """Random factors of the ranks that PEFT expects under this configuration."""
    copy_of(HOST, folder)
    configured(**changes)(folder)
    config = json.loads((folder / CONFIG).read_text())
    shapes = {name: tensor.shape for name, tensor in read_tensors(HOST / WEIGHTS).items()}
    random = np.random.default_rng(5)
    tensors = {}
    for name, (rows, columns) in shapes.items():
        rank = patterns.rank_of(config, name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0])
        shape = (rank, columns) if ".lora_A." in name else (rows, rank)
        values = random.normal(0, 0.03, shape).astype(np.float32)
        tensors[name] = Tensor("F32", shape, values.reshape(-1).view(np.uint8))
    write_tensors(folder / WEIGHTS, tensors)
    return folder


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
def test_logits_with_peft_are_the_same_before_and_after_folding(name: str, ingester: Ingester, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    upload = adapter_with(tmp_path / "upload", PATTERNS[name])
    told = ingester(upload)
    assert told.code == 0, told.last
    before, after, base = peft_logits(upload), peft_logits(ingester.store / told.last["digest"]), peft_logits(None)
    assert np.abs(before - base).max() > 0.5  # it does something
    assert np.abs(before - after).max() < 2e-5 * np.abs(before).max()


@pytest.mark.torch
@pytest.mark.slow
def test_patterns_match_as_peft_matches_them() -> None:
    peft = pytest.importorskip("peft")
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    targets: list[dict[str, Any]] = [
        {"target_modules": ["q_proj", "mlp.down_proj", "model.layers.3.self_attn.o_proj"]},
        {"target_modules": r".*\.layers\.[2-5]\.(self_attn|mlp)\.(q|up)_proj"},
        {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0, 6]},
        {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": 2, "layers_pattern": "layers"},
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "blocks"},
        {"target_modules": ["q_proj"], "layers_to_transform": []},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["model.layers.0.self_attn.q_proj", "up_proj"]},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*layers\.[1-7].*"},
    ]
    for told in targets:
        config = peft.LoraConfig(**told)
        expected = [module for module in MODULES if check_target_module_exists(config, module)]
        assert [module for module in MODULES if patterns.is_targeted(told, module)] == expected, told
    for told in PATTERNS.values():
        alphas = told.get("alpha_pattern", {})
        for module in MODULES:
            expected_alpha = alphas.get(get_pattern_key(alphas.keys(), module), 16)
            assert patterns.pattern_value(alphas, module, 16) == expected_alpha


def test_scales_are_those_of_the_paper_and_of_rslora() -> None:
    config = {"r": 16, "lora_alpha": 8, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"k_proj": 2}}
    scales = [patterns.scale_of(config, f"model.layers.0.self_attn.{name}") for name in ("v_proj", "q_proj", "k_proj")]
    assert scales == [0.5, 2.0, 0.125]
    assert patterns.scale_of({**config, "use_rslora": True}, "q_proj") == 8 / math.sqrt(4)


def test_the_canonical_form_has_scale_one_and_one_rank(ingester: Ingester, tmp_path: Path) -> None:
    told = ingester(adapter_with(tmp_path / "upload", PATTERNS["all"]))
    version = ingester.store / told.last["digest"]
    config = json.loads((version / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (16, 16, False)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    tensors = read_tensors(version / WEIGHTS)
    assert {tensor.dtype for tensor in tensors.values()} == {"F32"}
    assert {min(tensor.shape) for tensor in tensors.values()} == {16}
    o_proj = tensors["base_model.model.model.layers.0.self_attn.o_proj.lora_B.weight"].to_f32()
    assert not o_proj[:, 1:].any()
    original = read_tensors(tmp_path / "upload" / WEIGHTS)
    uploaded = original["base_model.model.model.layers.0.self_attn.o_proj.lora_B.weight"].to_f32()
    assert np.array_equal(o_proj[:, :1], (uploaded.astype(np.float64) * 7).astype(np.float32))


def test_the_same_adapter_written_otherwise_is_the_same_version(ingester: Ingester, tmp_path: Path) -> None:
    digest = ingester(HOST).last["digest"]
    # The scale of 2 in lora_B already, as float32, and another trainer's words around it.
    other = copy_of(HOST, tmp_path / "other")

    def folded(tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            values = tensor.to_f32() * np.float32(2 if ".lora_B." in name else 1)
            tensors[name] = Tensor("F32", tensor.shape, values.reshape(-1).view(np.uint8))

    tensors_changed(folded)(other)
    configured(lora_alpha=8, peft_version="0.9", base_model_name_or_path="/mnt/base", target_modules=".*_proj")(other)
    told = ingester(other)
    assert (told.last["digest"], told.last["is_new"]) == (digest, False)
    # And its own canonical form, published again.
    again = ingester(ingester.store / digest)
    assert (again.code, again.last["digest"]) == (0, digest)
    assert ingester.left() == whole(digest)


@pytest.mark.parametrize(
    "change",
    [{"source_digest": "sha256:" + "a" * 64}, {"template_digest": "sha256:" + "b" * 64}],
    ids=["base", "template"],
)
def test_another_base_or_template_makes_another_version(
    change: dict[str, str], ingester: Ingester, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload = copy_of(HOST, tmp_path / "upload")
    write_tensors(upload / WEIGHTS, read_tensors(upload / WEIGHTS))  # no base declared
    told = json.loads(ingester.base.read_text())
    (tmp_path / "other.json").write_text(json.dumps({**told, **change}))
    other = Ingester(tmp_path / "other.json", ingester.store, capsys)
    first, second = ingester(upload), other(upload)
    assert (first.code, second.code, second.last["is_new"]) == (0, 0, True)
    assert first.last["digest"] != second.last["digest"]


def test_targets_are_written_out_where_layers_differ(ingester: Ingester, tmp_path: Path) -> None:
    upload = copy_of(HOST, tmp_path / "upload")
    keep: Callable[[str], bool] = lambda name: ".layers.2." in name or "q_proj" in name  # noqa: E731
    tensors_changed(lambda tensors: [tensors.pop(name) for name in list(tensors) if not keep(name)] and None)(upload)
    told = ingester(upload)
    config = json.loads((ingester.store / told.last["digest"] / CONFIG).read_text())
    assert len(config["target_modules"]) == told.last["manifest"]["num_modules"] == 7 + 7
    assert "model.layers.2.mlp.up_proj" in config["target_modules"]
