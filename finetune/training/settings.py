"""The recipe in TRL's words. Everything of theirs that bites by default is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig

from finetune.recipe.recipe import Recipe
from finetune.training.model import Place
from finetune.training.schedule import Schedule

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""transformers' own `constant` does without the warm-up."""
FULL_PRECISION = "adamw_torch"


def optimizer_of(recipe: Recipe, place: Place) -> tuple[str, str]:
    """transformers' name of it, and what to say where it is not the one that was asked for."""
    wanted = recipe.steps.optimizer
    if place.device.type == "cuda" or wanted == FULL_PRECISION:
        return wanted, ""
    return FULL_PRECISION, f"optimizer: {wanted} needs a GPU: 32-bit AdamW is used"


def settings_of(recipe: Recipe, place: Place, schedule: Schedule, folder: Path, is_mixed: bool) -> Any:
    """`is_mixed`: whether some layers multiply what is not of one type, which autocast mends, at the price of a look at each operation.

    What is evaluated, saved and told when is ours to decide (see callbacks), and so is what a batch is made of."""
    steps, memory = recipe.steps, recipe.memory
    settings = SFTConfig(
        output_dir=str(folder),
        max_steps=schedule.num_steps,
        per_device_train_batch_size=steps.micro_batch_size,
        per_device_eval_batch_size=steps.micro_batch_size,
        gradient_accumulation_steps=steps.gradient_accumulation_steps,
        learning_rate=steps.learning_rate,
        lr_scheduler_type=SCHEDULES[steps.schedule],
        warmup_steps=schedule.warmup_steps,
        optim=optimizer_of(recipe, place)[0],
        weight_decay=steps.weight_decay,
        max_grad_norm=steps.max_grad_norm,
        bf16=is_mixed and place.dtype_name == "bfloat16",
        fp16=place.dtype_name == "float16",
        use_cpu=place.device.type == "cpu",
        # Set on the model itself, with our choice of kind; a second time here would be with another.
        activation_checkpointing=False,
        gradient_checkpointing=False,
        torch_compile=memory.compile,
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        # A loss that is no number must be seen.
        logging_nan_inf_filter=False,
        average_tokens_across_devices=True,
        report_to=list(recipe.watch.report_to) or "none",
        run_name=recipe.watch.wandb.get("name") or folder.name,
        push_to_hub=False,
        disable_tqdm=True,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        router_aux_loss_coef=0.0,
        dataloader_num_workers=0,
        dataloader_pin_memory=place.device.type == "cuda",
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        trust_remote_code=recipe.trust_remote_code,
    )
    # A process computes on one GPU: with more in sight transformers would put a micro batch on each, and count them as one.
    settings._n_gpu = min(1, settings.n_gpu)
    return settings
