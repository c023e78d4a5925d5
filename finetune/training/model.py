"""The base as it is trained: where it stands, in which numbers, with which attention, with the adapter on it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from finetune.errors import LacksPackage, RecipeUnusable
from finetune.recipe.recipe import ALL_LINEAR, Lora, Memory, Recipe
from finetune.training.attention import FLAT
from finetune.training.fast import varlen

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt computes, and in what."""

    device: torch.device
    dtype: torch.dtype
    attention: str

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def is_flat(self) -> bool:
        """Whether batches have no padding: attention goes by the lengths of rows."""
        return self.attention in FLAT


def choose_device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_dtype(memory: Memory, device: torch.device) -> torch.dtype:
    """Raises RecipeUnusable where the device lacks what the recipe names."""
    has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if not memory.dtype:
        return torch.bfloat16 if device.type == "cuda" and has_bfloat16 else torch.float32
    if memory.dtype == "float16" and device.type == "cpu":
        raise RecipeUnusable("fp16: true needs a GPU: leave it out, and a CPU computes in float32")
    if memory.dtype == "bfloat16" and not has_bfloat16:
        raise RecipeUnusable(f"bf16: true: {torch.cuda.get_device_name(device)} has no bfloat16: use fp16: true")
    return DTYPES[memory.dtype]


def load_base(recipe: Recipe, place: Place) -> Any:
    """In four bits where the recipe says so; nothing of it is trained. Raises RecipeUnusable, LacksPackage."""
    settings: dict[str, Any] = {
        "dtype": place.dtype,
        "attn_implementation": place.attention,
        "device_map": {"": place.device},
        "local_files_only": True,
        "trust_remote_code": recipe.trust_remote_code,
    }
    if recipe.memory.load_in_4bit:
        settings["quantization_config"] = _four_bits(place.dtype)
    if place.attention == varlen.NAME:
        varlen.register()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(recipe.base, **settings)
    except ImportError as exc:
        raise LacksPackage(f"{recipe.base}: {exc}: run `forgegate install trainer`") from exc
    except (KeyError, OSError, TypeError, ValueError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise RecipeUnusable(f"{recipe.base}: transformers cannot load it: {exc}") from exc
    model.config.use_cache = False
    _keep_layout(model)
    return model.requires_grad_(False)


def _keep_layout(model: Any) -> None:
    """In its first evaluation on a CPU with AVX512-BF16 a Linear4bit of bitsandbytes 0.50 changes to a layout for inference, in bfloat16
    and without a backward pass, for good: training that follows would get no gradients through it, and no error."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _four_bits(dtype: torch.dtype) -> Any:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def add_adapter(model: Any, lora: Lora, base: str, seed: int) -> Any:
    """The model in PEFT's wrapping. The adapter's own weights are float32, drawn by the seed. Raises RecipeUnusable."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(choose_targets(model, lora.targets)),
        use_rslora=lora.use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    with warnings.catch_warnings():
        # PEFT reads a property that transformers has deprecated since.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    for value in adapted.parameters():
        if value.requires_grad:
            value.data = value.data.float()
    return adapted


def choose_targets(model: Any, wanted: Sequence[str]) -> tuple[str, ...]:
    """Last names of linear layers, sorted. Raises RecipeUnusable for one that is not there, or that engines serve with no adapter."""
    head = model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    if tuple(wanted) == (ALL_LINEAR,):
        return tuple(sorted(linear))
    if unknown := sorted(set(wanted) - linear):
        raise RecipeUnusable(
            f"lora_target_modules: {', '.join(unknown)}: no linear layer inside the model's blocks has that name; it has "
            f"{', '.join(sorted(linear))}"
        )
    return tuple(sorted(set(wanted)))


def checkpoint_activations(model: Any, recipe: Recipe) -> None:
    """Blocks keep their inputs alone and compute again what the backward pass needs.

    Their first pass makes no graph, which spares the processor a third of its work; a compiled model has none to spare.
    """
    choices: dict[str, Any] = {"use_reentrant": not recipe.memory.compile}
    if not _draws(model, recipe):
        choices["preserve_rng_state"] = False
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=choices)


def _draws(model: Any, recipe: Recipe) -> bool:
    """Whether a block's second pass has to draw the same random numbers as its first: something drops out, by whichever of the names that
    models' configurations have for it (`attention_dropout`, `resid_pdrop`, ...)."""
    settings = model.config.get_text_config().to_dict().items()
    chances = (value for name, value in settings if "drop" in name and isinstance(value, int | float))
    return bool(recipe.lora and recipe.lora.dropout) or any(chances)


def count_adapted(model: Any) -> int:
    """Layers that have an adapter."""
    return sum(isinstance(module, BaseTunerLayer) for module in model.modules())


def count_parameters(model: Any) -> tuple[int, int]:
    """(trained, all); weights in four bits are counted as what they stand for."""
    trained, total = model.get_nb_trainable_parameters()
    return int(trained), int(total)
