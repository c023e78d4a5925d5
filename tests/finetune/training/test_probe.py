"""Rows in a pack compute what they compute alone, with the demo model and its real attention."""

from __future__ import annotations

from typing import Any

import pytest

from backends.demo import TARGET_DIR
from finetune.errors import RecipeUnusable

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def load(attention: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        TARGET_DIR, dtype=torch.float32, attn_implementation=attention, local_files_only=True
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_row_in_a_pack_has_the_logits_that_it_has_alone(attention: str) -> None:
    import torch

    from finetune.training.probe import require_isolation

    model = load(attention).eval()
    rng = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 4000, (length,), generator=rng) for length in (5, 31, 1, 17)]
    ids = torch.cat([*rows, torch.tensor([2, 2, 2])])[None]
    positions = torch.cat([*(torch.arange(len(row)) for row in rows), torch.zeros(3, dtype=torch.long)])[None]
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        at = 0
        for row in rows:
            alone = model(input_ids=row[None], use_cache=False).logits[0]
            assert torch.allclose(packed[at : at + len(row)], alone, atol=1e-5 * float(alone.abs().max()), rtol=0)
            at += len(row)
    require_isolation(model, False, torch.device("cpu"))


def test_attention_that_lets_rows_see_one_another_is_refused() -> None:
    """Packs as a model sees them whose mask knows nothing of positions."""
    import torch

    from finetune.training.probe import require_isolation

    model = load("sdpa")
    plain = model.forward

    def with_a_causal_mask(**inputs: Any) -> Any:
        return plain(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]))

    model.forward = with_a_causal_mask
    model.train()
    with pytest.raises(
        RecipeUnusable, match="with sdpa attention this model \\(llama\\) lets packed rows see one another"
    ):
        require_isolation(model, False, torch.device("cpu"))
    assert model.training


def test_a_head_that_is_not_known_is_noticed() -> None:
    import torch

    from finetune.training.probe import is_chunked_exact

    model = load("sdpa")
    assert is_chunked_exact(model, torch.device("cpu"))
    plain = model.forward

    def scaled(**inputs: Any) -> Any:
        out = plain(**inputs)
        out.logits = out.logits * 1.5
        return out

    model.forward = scaled
    assert not is_chunked_exact(model, torch.device("cpu"))
