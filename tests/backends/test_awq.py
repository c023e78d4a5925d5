"""What a model folder becomes as AWQ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backends.awq import plan_awq
from backends.demo import TARGET_DIR
from backends.errors import ModelUnusable


def folder_of(path: Path, matrices: dict[str, tuple[int, int]], **config: object) -> Path:
    header, offset = {}, 0
    for name, (rows, columns) in matrices.items():
        size = 2 * rows * columns
        header[name] = {"dtype": "F16", "shape": [rows, columns], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path.mkdir()
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(offset))
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (path / "tokenizer.json").write_text("{}")
    return path


def test_the_demo_model_goes_in_groups_of_128() -> None:
    plan = plan_awq(TARGET_DIR)
    assert (plan.model_type, plan.group_size) == ("llama", 128)
    assert plan.tensor_bytes == 5_374_464, "what the file takes that AutoAWQ wrote"


@pytest.mark.parametrize(("columns", "group"), [(256, 128), (192, 64), (64, 64)])
def test_the_group_divides_every_row(tmp_path: Path, columns: int, group: int) -> None:
    matrices = {"model.embed_tokens.weight": (10, columns), "model.layers.0.mlp.up_proj.weight": (64, columns)}
    plan = plan_awq(folder_of(tmp_path / "m", matrices))
    assert plan.group_size == group
    packed = 64 * columns
    assert plan.tensor_bytes == 2 * 10 * columns + packed // 2 + packed // group * 5 // 2


@pytest.mark.parametrize("shape", [(64, 96), (72, 128)])
def test_a_shape_that_no_group_divides_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    folder = folder_of(tmp_path / "m", {"model.layers.0.mlp.up_proj.weight": shape})
    with pytest.raises(ModelUnusable, match=rf"up_proj.weight has {shape[0]} rows of {shape[1]}: take a GGUF level"):
        plan_awq(folder)


ROUTED = {
    "model.layers.0.block_sparse_moe.gate.weight": (8, 128), "model.layers.0.block_sparse_moe.experts.0.w1.weight": (64, 128),
}  # fmt: skip


def test_a_router_that_autoawq_leaves_as_it_is_does_not_count(tmp_path: Path) -> None:
    plan = plan_awq(folder_of(tmp_path / "m", ROUTED, model_type="mixtral"))
    packed = 64 * 128
    assert (plan.group_size, plan.tensor_bytes) == (128, 2 * 8 * 128 + packed // 2 + packed // 128 * 5 // 2)
    with pytest.raises(ModelUnusable, match=r"block_sparse_moe.gate.weight has 8 rows of 128"):
        plan_awq(folder_of(tmp_path / "o", ROUTED, model_type="another"))
    only_router = {name: shape for name, shape in ROUTED.items() if "gate" in name}
    with pytest.raises(ModelUnusable, match="no linear layers"):
        plan_awq(folder_of(tmp_path / "r", only_router, model_type="mixtral"))


@pytest.mark.parametrize("said", ["gptq", ["gptq"], {"bits": 4}])
def test_a_quantised_model_is_refused_however_it_says_so(tmp_path: Path, said: object) -> None:
    folder = folder_of(tmp_path / "q", {"model.layers.0.mlp.up_proj.weight": (64, 128)}, quantization_config=said)
    with pytest.raises(ModelUnusable, match=r"quantised already \(another method\)"):
        plan_awq(folder)


def test_what_awq_is_not_made_from_is_refused(tmp_path: Path) -> None:
    quantised = folder_of(tmp_path / "q", {"a.weight": (64, 64)}, quantization_config={"quant_method": "gptq"})
    with pytest.raises(ModelUnusable, match=r"quantised already \(gptq\)"):
        plan_awq(quantised)
    with pytest.raises(ModelUnusable, match="no linear layers"):
        plan_awq(folder_of(tmp_path / "e", {"model.embed_tokens.weight": (64, 64)}))
    with pytest.raises(ModelUnusable, match="not from a GGUF file"):
        plan_awq(tmp_path / "m.gguf")
