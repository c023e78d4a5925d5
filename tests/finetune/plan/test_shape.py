from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.errors import RecipeUnusable
from finetune.plan.layouts import LAYOUTS
from finetune.plan.shape import ModelShape
from tests.finetune.plan import models

SMALL = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BIASED = {"attention_bias": True, "mlp_bias": True, "use_qkv_bias": True, "use_bias": True, "attention_out_bias": True}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (models.LLAMA_31_8B, 8_030_261_248),
        (models.LLAMA_31_70B, 70_553_706_496),
        (models.LLAMA_32_3B, 3_212_749_824),
        (models.LLAMA_2_7B, 6_738_415_616),
        (models.LLAMA_2_13B, 13_015_864_320),
        (models.QWEN_25_7B, 7_615_616_512),
        (models.QWEN_3_14B, 14_768_307_200),
    ],
)
def test_parameters_are_those_of_the_published_models(config: dict[str, Any], parameters: int) -> None:
    assert models.shape(config).num_parameters == parameters


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("is_biased", [False, True])
@pytest.mark.parametrize("model_type", LAYOUTS)
def test_every_family_has_the_layers_that_transformers_builds(model_type: str, is_biased: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = SMALL | (BIASED if is_biased else {})
    if model_type == "gpt_neox":
        settings = {name: value for name, value in settings.items() if name != "num_key_value_heads"}
    config = AutoConfig.for_model(model_type, **settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers: dict[tuple[str, int, int], int] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
            key = (name.rpartition(".")[2], module.out_features, module.in_features)
            layers[key] = layers.get(key, 0) + 1

    shape = ModelShape.of(config.to_dict())
    assert {(one.name, one.num_out, one.num_in): one.count for one in shape.linears} == layers
    assert shape.num_parameters == sum(value.numel() for value in model.parameters())
    assert LAYOUTS[model_type].is_tied == config.tie_word_embeddings


def test_what_config_json_leaves_out_is_as_the_family_has_it() -> None:
    config = {name: value for name, value in SMALL.items() if name not in ("head_dim", "num_key_value_heads")}
    gemma = ModelShape.of({"model_type": "gemma", **config})
    assert (gemma.head_dim, gemma.num_kv_heads, gemma.is_tied) == (256, 4, True)
    assert ModelShape.of({"model_type": "llama", **config}).head_dim == 16


def test_an_unknown_family_is_counted_as_llama_and_says_so() -> None:
    shape = ModelShape.of({"model_type": "nova9", **SMALL})
    assert [one.name for one in shape.linears][:2] == ["q_proj", "k_proj"]
    assert "nova9" in shape.notes[0]


def test_of_a_model_with_eyes_the_language_part_is_counted() -> None:
    inner = {"model_type": "gemma3_text", **SMALL}
    shape = ModelShape.of({"model_type": "gemma3", "text_config": inner, "vision_config": {"hidden_size": 9}})
    assert shape.num_parameters == ModelShape.of(inner).num_parameters
    assert "language model only" in shape.notes[0]


def test_a_mixture_of_experts_is_refused() -> None:
    with pytest.raises(RecipeUnusable, match=r"mixture of experts \(num_local_experts: 8\).*dense"):
        ModelShape.of({"model_type": "mixtral", **SMALL, "num_local_experts": 8})


def test_a_config_without_sizes_names_them() -> None:
    with pytest.raises(RecipeUnusable, match="hidden_size, intermediate_size"):
        ModelShape.of(
            {"model_type": "gpt2", "n_embd": 768, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 9}
        )


@pytest.mark.parametrize(
    ("content", "words"), [("{", "not JSON"), ("[]", "not a JSON object"), (None, "needs the model's config")]
)
def test_a_folder_without_a_config_is_one_sentence(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RecipeUnusable, match=words):
        ModelShape.read(tmp_path)
