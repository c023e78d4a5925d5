"""The demo model in four bits with an adapter on it."""

from __future__ import annotations

from typing import Any

import pytest

from backends.demo import TARGET_DIR
from finetune.errors import RecipeUnusable
from finetune.recipe.recipe import ALL_LINEAR, Data, Lora, Memory, Recipe

pytestmark = [pytest.mark.torch, pytest.mark.slow]
LAYERS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def adapted(memory: Memory, lora: Lora) -> Any:
    import torch

    from finetune.training.model import Place, add_adapter, load_base

    recipe = Recipe(TARGET_DIR, Data(()), TARGET_DIR, lora, memory=memory)
    base = load_base(recipe, Place(torch.device("cpu"), torch.float32, "sdpa"))
    return add_adapter(base, lora, str(TARGET_DIR), 1)


def test_four_bits_and_what_is_trained() -> None:
    import torch
    from bitsandbytes.nn import Linear4bit

    from finetune.training.model import count_parameters

    model = adapted(Memory(load_in_4bit=True), Lora(rank=4))
    quantised = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, Linear4bit)}
    assert quantised == {"base_layer"}
    weight = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
    assert (weight.quant_type, weight.quant_state.nested) == ("nf4", True)
    trained = [(name, value.dtype) for name, value in model.named_parameters() if value.requires_grad]
    assert {name.split(".")[-4] for name, _ in trained} == set(LAYERS)
    assert {dtype for _, dtype in trained} == {torch.float32}
    assert count_parameters(model) == (155_648, 7_500_032)


def test_gradients_are_the_same_after_an_evaluation() -> None:
    """bitsandbytes' layers go over to a layout without a backward pass when they are evaluated on some CPUs."""
    import torch

    def gradients(model: Any) -> Any:
        model.train()
        model.zero_grad()
        ids = torch.arange(5, 25)[None]
        torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
        return [value.grad.clone() for value in model.parameters() if value.requires_grad]

    model = adapted(Memory(load_in_4bit=True), Lora(rank=4))
    before = gradients(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(5, 25)[None])
    after = gradients(model)
    assert any(float(each.abs().max()) > 0 for each in before)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_targets() -> None:
    from finetune.training.model import choose_targets

    model = adapted(Memory(load_in_4bit=False), Lora(rank=4)).unload()
    assert choose_targets(model, (ALL_LINEAR,)) == LAYERS
    assert choose_targets(model, ("v_proj", "q_proj")) == ("q_proj", "v_proj")
    with pytest.raises(
        RecipeUnusable, match="lm_head, q_porj: no linear layer inside the model's blocks has that name"
    ):
        choose_targets(model, ("lm_head", "q_porj", "q_proj"))


class Heads:
    """A GPU's view of a model: `head_dim` wide."""

    attention_dropout = 0.0

    def __init__(self, head_dim: int) -> None:
        self.model_type, self.head_dim, self.hidden_size, self.num_attention_heads = "llama", head_dim, 8 * head_dim, 8

    def get_text_config(self) -> Heads:
        return self


@pytest.mark.parametrize(
    ("asked", "dtype", "width", "found"),
    [
        ("", "bfloat16", 128, "varlen"), ("", "float32", 128, "sdpa"), ("", "bfloat16", 512, "sdpa"), ("varlen", "float16", 64, "varlen"),
        ("varlen", "float32", 128, "varlen computes in bfloat16 and float16, the recipe in float32"),
        ("varlen", "bfloat16", 512, "varlen has heads of at most 256, this model's have 512"),
    ],
)  # fmt: skip
def test_attention_fits_the_numbers_and_the_heads(
    monkeypatch: pytest.MonkeyPatch, asked: str, dtype: str, width: int, found: str
) -> None:
    import torch

    from finetune.training.attention import choose_attention
    from finetune.training.fast import varlen

    monkeypatch.setattr(varlen, "obstacle", lambda _: "")
    device, memory = torch.device("cuda"), Memory(attention=asked)
    if " " in found:
        with pytest.raises(RecipeUnusable, match=found):
            choose_attention(memory, device, getattr(torch, dtype), Heads(width))
    else:
        assert choose_attention(memory, device, getattr(torch, dtype), Heads(width)) == found


def test_attention_that_drops_out_is_none_by_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from finetune.training.attention import choose_attention
    from finetune.training.fast import varlen

    monkeypatch.setattr(varlen, "obstacle", lambda _: "")
    model = Heads(64)
    model.attention_dropout = 0.1
    assert choose_attention(Memory(), torch.device("cuda"), torch.bfloat16, model) == "sdpa"
    with pytest.raises(RecipeUnusable, match=r"varlen has no attention_dropout 0\.1, which this model has"):
        choose_attention(Memory(attention="varlen"), torch.device("cuda"), torch.bfloat16, model)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ["resid_pdrop", "attention_dropout"])
def test_what_drops_out_in_a_block_is_the_same_in_its_second_pass(name: str) -> None:
    import torch
    from transformers import PhiConfig, PhiForCausalLM

    from finetune.training.model import add_adapter, checkpoint_activations

    def gradients(model: Any) -> Any:
        torch.manual_seed(3)
        model.zero_grad()
        torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
        return torch.cat([value.grad.flatten() for value in model.parameters() if value.requires_grad])

    torch.manual_seed(2)
    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = PhiConfig(**sizes, **{name: 0.5}, name_or_path="phi", attn_implementation="eager")
    base = PhiForCausalLM(config).requires_grad_(False)
    lora, ids = Lora(rank=2), torch.arange(40)[None]
    model = add_adapter(base, lora, "phi", 1).train()
    for key, value in model.named_parameters():
        if "lora_B" in key:
            value.data.normal_()
    plain = gradients(model)
    checkpoint_activations(model, Recipe(TARGET_DIR, Data(()), TARGET_DIR, lora))
    assert torch.allclose(gradients(model), plain, rtol=1e-4, atol=1e-6 * float(plain.abs().max()))
