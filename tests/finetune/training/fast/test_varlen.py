"""Attention by lengths as transformers calls it; its kernels need a GPU and are played here, row by row."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

torch = pytest.importorskip("torch")


def row_by_row(query: Any, key: Any, value: Any, bounds: Any, longest: int, scale: Any, window: tuple[int, int]) -> Any:
    """What the kernels compute, of (tokens, heads, width)."""
    from torch.nn.functional import scaled_dot_product_attention

    assert bounds.dtype == torch.int32
    assert longest == int(bounds.diff().max())
    assert window == (-1, 0)
    rows = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        parts = (states[start:end].transpose(0, 1) for states in (query, key, value))
        rows.append(scaled_dot_product_attention(*parts, is_causal=True, scale=scale, enable_gqa=True).transpose(0, 1))
    return torch.cat(rows)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    from transformers import AutoModelForCausalLM

    from backends.demo import TARGET_DIR
    from finetune.training.fast import varlen

    monkeypatch.setattr(varlen, "_kernel", row_by_row)
    varlen.register()
    return AutoModelForCausalLM.from_pretrained(TARGET_DIR, dtype=torch.float32, attn_implementation=varlen.NAME).eval()


@torch.no_grad()
def test_rows_end_to_end_are_rows_alone(model: Any) -> None:
    from finetune.training.batches import _lengths

    rows = [torch.arange(start, start + length) for start, length in ((20, 9), (300, 17), (1000, 1), (5, 30))]
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    packed = model(input_ids=torch.cat(rows)[None], position_ids=positions, **_lengths(positions)).logits[0]
    alone = torch.cat([model(input_ids=row[None]).logits[0] for row in rows])
    model.set_attn_implementation("sdpa")
    plain = torch.cat([model(input_ids=row[None]).logits[0] for row in rows])
    assert float((packed - alone).abs().max()) < 1e-4
    assert float((packed - plain).abs().max()) < 1e-4


def test_padding_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="without padding"):
        model(input_ids=torch.tensor([[5, 6, 7]]), attention_mask=torch.tensor([[0, 1, 1]]))


def test_what_the_kernels_have_not_is_refused() -> None:
    from finetune.training.fast.varlen import attend

    states = torch.zeros(1, 2, 3, 8)
    with pytest.raises(ValueError, match="no softcap"):
        attend(torch.nn.Identity(), states, states, states, None, softcap=30.0)


def test_a_cpu_has_it_not() -> None:
    from finetune.training.fast.varlen import obstacle

    assert obstacle(torch.device("cpu")) == "it needs a GPU"
