"""Keys that Axolotl has and this trainer does not: why, and what to use. Given as false or as nothing they ask for nothing."""

from __future__ import annotations

from collections.abc import Mapping

_SUPERVISED = "training here is supervised: train preferences and rewards elsewhere, and publish the adapter with `forgegate adapters`"
_WHOLE = "engines serve an adapter on the linear layers only, not changed embeddings or whole modules: leave it out"
_VOCABULARY = "a longer vocabulary changes the embeddings, which engines cannot serve with an adapter: use words that the tokenizer has"
_ONE_TEMPLATE = "rows are rendered with the base's own chat template, as engines render requests: leave it out"
_ONE_DEVICE = "the model is held whole on every device: take load_in_4bit and gradient_checkpointing to make it smaller, or a larger device"
_DEVICES = "where it runs is for the command: CUDA_VISIBLE_DEVICES chooses devices, `accelerate launch` uses several"
_PLAIN_LORA = "engines serve plain LoRA only: leave it out"
_SCHEDULE = "the learning rate rises in warmup_steps and falls as lr_scheduler says, to 0: leave it out"
_ADAMW = "AdamW runs with its usual settings: leave it out"
_REPORTS = "metrics go to the run's folder, and to tensorboard or wandb where report_to says so"
_LOCAL = "data is read from files: download the set, name its files under datasets, and look at them with `forgegate data doctor`"
_DOCTOR = "the data is cleaned before training: `forgegate data doctor FILE --fix OUT`"
_PACKING = "rows are put together by sample_packing: write that"
_ORDER = "the order of rows follows from seed, so that a run can go on after a stop: leave it out"
_UPLOAD = "nothing is uploaded in training: `forgegate export` makes the folder that you can upload"
_TEXT_ONLY = "training here is on text: leave it out"
_GENERATE = "answers are compared after training: `forgegate parity`, and `--publish` for the proof"
_OWN_CODE = "code of your own goes into hooks: {loader, loss, callbacks}"
_ATTENTION = (
    "this kernel is not built in: write attn_implementation: sdpa, flash_attention_2, varlen or eager, or leave it out"
)
_LOSS = "the loss is cross entropy: a loss of your own goes into hooks: {loss: module:Name}"
_MEMORY = "write gradient_checkpointing, load_in_4bit, chunked_cross_entropy or a smaller micro_batch_size"
_CONTEXT = "a row is at most sequence_len tokens, at positions as the base counts them: leave it out"
_INTERNAL = "Axolotl sets it itself: leave it out"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "rl", "reward_model", "process_reward_model", "center_rewards_coefficient", "dpo_use_weighting", "dpo_label_smoothing",
            "precompute_ref_log_probs", "dpo_use_liger_kernel", "dpo_padding_free", "dpo_loss_type", "dpo_loss_weights", "dpo_beta",
            "dpo_use_logits_to_keep", "dpo_generate_during_eval", "dpo_norm_loss", "rpo_alpha", "orpo_alpha", "simpo_gamma", "cpo_alpha",
            "kto_desirable_weight", "kto_undesirable_weight", "rl_beta", "ebft",
        ),
        _SUPERVISED,
    ),
    "load_in_8bit": "the base is held in 4 bits or in its own precision: write adapter: qlora, or adapter: lora without load_in_8bit",
    "gptq": "an adapter is trained on the full-precision model, which adapter: qlora holds in 4 bits",
    "base_model_config": "config.json is part of the base's folder: leave it out, or mend the folder",
    "cls_model_config": "config.json is part of the base's folder: leave it out, or mend the folder",
    "tokenizer_config": "engines serve an adapter with the tokenizer of its base: leave it out",
    "tokenizer_use_mistral_common": "the tokenizer is read from the base's folder by transformers: leave it out",
    "processor_type": _TEXT_ONLY,
    **dict.fromkeys(("image_size", "freeze_mm_modules"), _TEXT_ONLY),
    **dict.fromkeys(("model_config", "overrides_of_model_config", "model_kwargs", "overrides_of_model_kwargs", "rope_scaling"),
                    "engines read the base's own config.json: change it there, or leave it out"),
    **dict.fromkeys(("model_quantization_config", "model_quantization_config_kwargs", "bnb_config_kwargs"),
                    "4 bits are NF4 with double quantisation: write adapter: qlora, without it"),
    "peft": "4 bits are NF4 of bitsandbytes: write adapter: qlora, without it",
    **dict.fromkeys(("qat", "quantization", "fp8"), "quantise after training: `forgegate quantize`"),
    "llmcompressor": "quantise after training: `forgegate quantize`",
    "quantize_moe_experts": "experts that are fused parameters are not trained with 4 bits: write adapter: lora",
    "lora_model_dir": "a run goes on from its own checkpoints: `forgegate train RECIPE --resume`",
    "resume_from_checkpoint": "a run goes on from its last checkpoint: `forgegate train RECIPE --resume`",
    "auto_resume_from_checkpoints": "a run goes on where you say so: `forgegate train RECIPE --resume`",
    **dict.fromkeys(("lora_modules_to_save", "peft_trainable_token_indices", "fix_untrained_tokens", "unfrozen_parameters",
                     "lora_target_parameters", "embedding_lr", "embedding_lr_scale"), _WHOLE),
    **dict.fromkeys(("tokens", "added_tokens_overrides", "resize_token_embeddings_to_32x", "shrink_embeddings"), _VOCABULARY),
    "reinit_weights": "an adapter is trained on a base that knows something: leave it out",
    **dict.fromkeys(("peft_use_dora", "peft_layer_replication", "peft_init_lora_weights", "loftq_config", "lora_fan_in_fan_out",
                     "relora", "relora_steps", "relora_warmup_steps", "jagged_restart_steps", "lisa_n_layers",
                     "llama4_linearized_experts"), _PLAIN_LORA),
    **dict.fromkeys(("peft_layers_to_transform", "peft_layers_pattern"), "all layers of the blocks get the adapter: leave it out"),
    "loraplus_lr_ratio": "A and B learn at one rate: leave it out",
    "merge_lora": "write `forgegate export --merged` after training",
    **dict.fromkeys(("chat_template", "chat_template_jinja", "chat_template_kwargs", "default_system_message"), _ONE_TEMPLATE),
    "eot_tokens": "the end of a turn is what the base's chat template writes: leave it out",
    **dict.fromkeys(("pretraining_dataset", "streaming", "pretraining_sample_concatenation"), _LOCAL),
    "push_dataset_to_hub": _UPLOAD,
    "hub_model_id": _UPLOAD,
    **dict.fromkeys(("dataset_exact_deduplication", "min_sample_len"), _DOCTOR),
    **dict.fromkeys(("dataset_shard_num", "dataset_shard_idx"), "name the files that you want under datasets"),
    **dict.fromkeys(("shuffle_merged_datasets", "shuffle_before_merging_datasets", "curriculum_sampling", "sample_packing_sequentially",
                     "dataloader_drop_last"), _ORDER),
    **dict.fromkeys(("group_by_length", "batch_flattening", "max_packed_sequence_len"), _PACKING),
    "eval_sequence_len": "rows of evaluation are as long as those of training: write sequence_len",
    **dict.fromkeys(("use_pose", "context_parallel_size", "sequence_parallel_degree"), _CONTEXT),
    **dict.fromkeys(("deepspeed", "deepcompile", "fsdp", "fsdp_config", "dp_shard_size", "dp_replicate_size", "tensor_parallel_size",
                     "qlora_sharded_model_loading", "max_memory", "layer_offloading"), _ONE_DEVICE),
    "gpu_memory_limit": "the limit is for the command: `forgegate train --memory-limit SIZE`",
    "activation_offloading": _MEMORY,
    "tiled_mlp": _MEMORY,
    "auto_find_batch_size": "`forgegate train --on-oom retry` finds one that fits, at the same effective batch",
    **dict.fromkeys(("device", "device_map"), _DEVICES),
    **dict.fromkeys(("xformers_attention", "s2_attention", "flex_attention", "sage_attention", "gemma4_hybrid_attn_impl",
                     "scaling_softmax", "flash_optimum", "flash_attn_fuse_qkv", "flash_attn_fuse_mlp"), _ATTENTION),
    **dict.fromkeys(("use_eaft", "liger_use_token_scaling", "neftune_noise_alpha", "noisy_embedding_alpha"), _LOSS),
    **dict.fromkeys(("optim_args", "adam_beta1", "adam_beta2", "adam_beta3", "adam_epsilon", "adam_epsilon2"), _ADAMW),
    **dict.fromkeys(("lr_scheduler_kwargs", "lr_quadratic_warmup", "cosine_min_lr_ratio", "cosine_constant_lr_ratio", "lr_div_factor"),
                    _SCHEDULE),
    "lr_groups": "all of the adapter learns at one rate: leave it out",
    "save_only_model": "a run without the optimizer's state cannot go on after a stop: leave it out",
    "save_first_step": "write save_steps: 1 for a trial run",
    "dynamic_checkpoint": "SIGTERM, or Ctrl-C, leaves a whole checkpoint: `forgegate train RECIPE --resume` goes on from it",
    "metric_for_best_model": "the loss of the evaluation data decides what is best: leave it out",
    "greater_is_better": "the loss of the evaluation data decides what is best: leave it out",
    **dict.fromkeys(("wandb_watch", "wandb_log_model"), "weights and gradients are never uploaded: leave it out"),
    **dict.fromkeys(("use_mlflow", "use_comet", "use_trackio", "use_otel_metrics"), _REPORTS),
    "profiler_steps": "profile the command: `python -m torch.utils.bottleneck`, or a callback of yours in hooks",
    "use_ray": "the trainer runs on this machine: leave it out",
    **dict.fromkeys(("do_causal_lm_eval", "do_bench_eval", "eval_table_size", "generate_samples"), _GENERATE),
    **dict.fromkeys(("plugins", "trainer_cls"), _OWN_CODE),
    **dict.fromkeys(("spectrum_top_fraction", "spectrum_model_name", "diffusion"), _PLAIN_LORA),
    **dict.fromkeys(
        (
            "is_preprocess", "preprocess_iterable", "total_num_tokens", "total_supervised_tokens", "axolotl_config_path",
            "is_falcon_derived_model", "is_llama_derived_model", "is_mistral_derived_model", "is_qwen_derived_model",
        ),
        _INTERNAL,
    ),
}  # fmt: skip

HARMLESS: Mapping[str, tuple[str, ...]] = {
    "peft_init_lora_weights": ("true",),
    "chat_template": ("tokenizer_default",),
    "shuffle_merged_datasets": ("true",),
    "shuffle_before_merging_datasets": ("true",),
    "batch_flattening": ("auto",),
    **dict.fromkeys(("context_parallel_size", "sequence_parallel_degree", "tensor_parallel_size", "dp_replicate_size", "dp_shard_size"),
                    ("1",)),
    "device": ("auto", "cuda", "cuda:0"),
    "device_map": ("auto",),
    "adam_beta1": ("0.9",),
    "adam_beta2": ("0.999",),
    "adam_epsilon": ("1e-8", "1e-08", "0.00000001"),
    "metric_for_best_model": ("eval_loss", "loss"),
    "loraplus_lr_ratio": ("1",),
    "peft": ("bnb", "nf4"),
    "bnb_config_kwargs": ("nf4", "true"),
    "plugins": (
        "axolotl.integrations.liger.LigerPlugin", "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
        "axolotl.integrations.kernels.KernelsPlugin",
    ),
}  # fmt: skip
"""Words that ask for what is done anyway; of lists and of keys with values, where every value is one of them."""
