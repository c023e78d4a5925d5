from __future__ import annotations

from pathlib import Path

import pytest

from backends.demo import TARGET_DIR
from benchmarks.train_speed_limit import Shape, limits, work

LLAMA_8B = Shape.of({
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 32, "vocab_size": 128256,
})  # fmt: skip


def test_the_8b_shape_has_the_weights_that_it_is_known_for() -> None:
    assert LLAMA_8B.num_linear == 6_979_321_856
    assert LLAMA_8B.num_head == 525_336_576
    assert LLAMA_8B.num_adapter(16) == 41_943_040


def test_recomputation_costs_a_third_pass_through_the_linear_layers_alone() -> None:
    again, kept = (work(LLAMA_8B, 16, 400, is_recomputed=flag) for flag in (True, False))
    assert again.linear == 6 * LLAMA_8B.num_linear
    assert kept.linear == 4 * LLAMA_8B.num_linear
    assert again.head == kept.head == 4 * LLAMA_8B.num_head
    assert again.attention / kept.attention == pytest.approx(4.5 / 3.5)
    assert again.adapter == 8 * LLAMA_8B.num_adapter(16)


def test_attention_is_two_products_of_each_token_that_is_seen() -> None:
    """Of 10 tokens seen, 4096 wide, scores and sums: 4 x 10 x 4096 operations a layer forward, as much again, and 2.5 times backward."""
    assert work(LLAMA_8B, 16, 10, is_recomputed=True).attention == 32 * 4 * 10 * 4096 * 4.5


def test_the_limit_is_the_rate_over_the_work() -> None:
    found = limits(LLAMA_8B, 16, 400, 700e12)
    assert found["recomputed"]["tok_s"] == pytest.approx(
        700e12 / work(LLAMA_8B, 16, 400, is_recomputed=True).total, abs=0.1
    )
    assert found["recomputed"]["parts_gflop"] == {"linear": 41.876, "head": 2.101, "attention": 0.944, "adapter": 0.336}
    assert found["kept"]["tok_s"] > 1.4 * found["recomputed"]["tok_s"]


def test_shapes_are_read_from_model_folders(tmp_path: Path) -> None:
    assert Shape.read(TARGET_DIR).layers["k_proj"] == (128, 256)
    (tmp_path / "config.json").write_text('{"hidden_size": 8, "num_attention_heads": 2}')
    with pytest.raises(ValueError, match="has no intermediate_size"):
        Shape.read(tmp_path)
