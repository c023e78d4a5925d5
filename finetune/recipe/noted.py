"""Keys that change nothing here: accepted, and said to be so where they are given."""

from __future__ import annotations

from collections.abc import Mapping

_KERNELS = "the kernels are chosen by the device; they change the speed, not what is learned"
_LOADING = "rows are prepared once and kept in the run's folder; how fast changes nothing of the result"
_PACKS = "packs are as full as they get by themselves"
_LAUNCHER = "`accelerate launch` says that itself where there are several GPUs"
_OF_REFUSED = "it belongs to a key that is refused here, and does nothing without it"

NOTED: Mapping[str, str] = {
    **dict.fromkeys(("strict", "debug"), "every fault of a recipe is reported anyway"),
    "pad_to_sequence_len": "padding goes no further than it must: padded tokens cost time and teach nothing",
    "pad_to_multiple_of": "padding goes no further than it must: padded tokens cost time and teach nothing",
    "tokenizer_type": "the tokenizer is the one that the base's folder holds",
    "tokenizer_use_fast": "the tokenizer is the one that the base's folder holds",
    "tokenizer_legacy": "the tokenizer is the one that the base's folder holds",
    "tokenizer_save_jinja_files": "an adapter is served with the tokenizer of its base",
    **dict.fromkeys(
        (
            "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel", "unsloth_cross_entropy_loss",
            "unsloth_lora_mlp", "unsloth_lora_qkv", "unsloth_lora_o", "unsloth_rms_norm", "unsloth_rope", "liger_rope", "liger_rms_norm",
            "liger_layer_norm", "liger_swiglu", "liger_glu_activation", "liger_cross_entropy", "use_kernels", "tf32",
            "flash_attn_cross_entropy", "flash_attn_rms_norm", "experts_implementation", "torch_compile_backend", "torch_compile_mode",
            "flex_attn_compile_kwargs",
        ),
        _KERNELS,
    ),
    "chunked_cross_entropy_num_chunks": "chunks are a few hundred tokens long",
    **dict.fromkeys(
        (
            "dataset_prepared_path", "dataset_processes", "dataset_num_proc", "dataset_keep_in_memory", "num_dataset_shards_to_save",
            "dataloader_pin_memory", "dataloader_num_workers", "dataloader_prefetch_factor", "remove_unused_columns",
            "skip_prepare_dataset", "low_cpu_mem_usage", "accelerator_config", "experimental_skip_move_to_device",
        ),
        _LOADING,
    ),
    "hf_use_auth_token": "nothing is fetched from a hub in training",
    **dict.fromkeys(("sample_packing_group_size", "sample_packing_bin_size", "sample_packing_mp_start_method", "sample_packing_eff_est",
                     "multipack_real_batches"), _PACKS),
    "eval_sample_packing": "rows are evaluated apart from each other, packed or not: the loss is the same",
    "eval_batch_size": "evaluation runs at micro_batch_size: the loss is the same at any",
    "gradient_checkpointing_kwargs": "how activations are computed again is chosen by what is fastest; the gradients are the same",
    **dict.fromkeys(
        ("world_size", "local_rank", "ddp", "ddp_timeout", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters"),
        _LAUNCHER,
    ),
    **dict.fromkeys(("loss_watchdog_threshold", "loss_watchdog_patience"),
                    "every loss is watched: NaN, a loss of zero, one that never falls, and spikes need no threshold"),
    "gc_steps": "memory is watched at every step",
    **dict.fromkeys(("include_tokens_per_second", "include_tkps"), "tokens a second are always shown"),
    "save_safetensors": "adapters are always safetensors",
    "embeddings_skip_upcast": "embeddings keep the precision of the base",
    "mean_resizing_embeddings": "the vocabulary is that of the base",
    "peft_autocast_adapter_dtype": "in which precision the adapter is trained is chosen by the device",
    "peft_ensure_weight_tying": "embeddings and output head get no adapter",
    "lora_on_cpu": "`forgegate export` says where it merges",
    "merge_method": "`forgegate export` merges shard by shard",
    "hub_strategy": "nothing is uploaded to a hub",
    "hub_revision": "nothing is uploaded to a hub",
    **dict.fromkeys(
        (
            "loraplus_lr_embedding", "bench_dataset", "bench_split", "eval_max_new_tokens", "eval_causal_lm_metrics", "num_labels",
            "max_prompt_len", "trl", "vllm", "generation_max_new_tokens", "generation_temperature", "generation_top_p",
            "generation_top_k", "generation_prompt_ratio", "generation_do_sample", "num_generation_samples", "profiler_steps_start",
            "tiled_mlp_num_shards", "tiled_mlp_use_original_mlp", "eaft_alpha", "eaft_k", "scaling_softmax_factor",
            "scaling_softmax_bias", "pretrain_multipack_buffer_size", "pretrain_multipack_attn", "streaming_multipack_buffer_size",
            "fsdp_version", "fsdp_final_state_dict_type", "fp8_enable_fsdp_float8_all_gather", "heads_k_stride", "ring_attn_func",
            "pose_split_on_token_ids", "pose_max_context_len", "pose_num_chunks", "lisa_step_interval", "lisa_layers_attribute",
            "mlflow_tracking_uri", "mlflow_experiment_name", "mlflow_run_name", "hf_mlflow_log_artifacts", "comet_api_key",
            "comet_workspace", "comet_project_name", "comet_experiment_key", "comet_mode", "comet_online", "comet_experiment_config",
            "trackio_project_name", "trackio_run_name", "trackio_space_id", "otel_metrics_host", "otel_metrics_port", "gradio_title",
            "gradio_share", "gradio_server_name", "gradio_server_port", "gradio_max_new_tokens", "gradio_temperature", "ray_run_name",
            "ray_num_workers", "resources_per_worker", "jagged_restart_warmup_steps", "jagged_restart_anneal_steps",
            "relora_prune_ratio", "relora_prune_method", "relora_cpu_offload", "dion_lr", "dion_momentum", "dion_rank_fraction",
            "dion_rank_multiple_of", "qgalore_rank", "qgalore_update_proj_gap", "qgalore_scale", "qgalore_proj_type",
            "qgalore_proj_quant", "qgalore_proj_bits", "qgalore_proj_group_size", "qgalore_cos_threshold", "qgalore_gamma_proj",
            "qgalore_queue_size", "torchdistx_path", "optim_target_modules", "image_resize_algorithm",
        ),
        _OF_REFUSED,
    ),
}  # fmt: skip
