"""Keys that do something: what they take, and which part of a Recipe they become."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.recipe.values import Choice, Hook, Hooks, Kind, Number, Structure, Switch, Text, Whole, Words

MAX_RANK = 512
"""vLLM's largest slot for an adapter."""


@dataclass(frozen=True, slots=True)
class Honoured:
    name: str
    kind: Kind
    words: str
    field: str = ""
    """In `Recipe`, as a path; empty: it is held against something else."""


_OFFLOADED = "activations stay on the device: write true"
_KERNELS = (
    "this kernel is not built in: write sdpa, flash_attention_2, varlen or eager, or leave it out for the fastest"
)
_ADAMW = "AdamW is what there is: write adamw_torch, adamw_8bit or paged_adamw_8bit"
_SCHEDULES = "write cosine, linear or constant"
OPTIMIZERS = Choice(
    {
        "adamw_torch": "adamw_torch", "adamw_torch_fused": "adamw_torch", "adamw_hf": "adamw_torch",
        "adamw_8bit": "adamw_8bit", "adamw_bnb_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit",
    },
    dict.fromkeys(
        (
            "paged_adamw_32bit", "paged_adamw", "adamw_torch_8bit", "adamw_torch_4bit", "ao_adamw_8bit", "ao_adamw_4bit", "ao_adamw_fp8",
            "adamw_apex_fused", "adamw_anyprecision", "adafactor", "lion_8bit", "lion_32bit", "paged_lion_8bit", "paged_lion_32bit",
            "sgd", "adagrad", "rmsprop", "galore_adamw", "galore_adamw_8bit", "q_galore_adamw8bit", "lomo", "adalomo", "ademamix",
            "schedule_free_adamw", "apollo_adamw", "optimi_adamw", "adopt_adamw", "came_pytorch", "muon", "dion", "grokadamw",
            "stable_adamw", "flash_adamw", "flash_adam", "flash_lion", "flash_sgd", "flash_sgdw",
        ),
        _ADAMW,
    ),
)  # fmt: skip
SCHEDULES = Choice(
    {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"},
    dict.fromkeys(
        (
            "one_cycle", "rex", "polynomial", "cosine_with_restarts", "inverse_sqrt", "reduce_lr_on_plateau", "cosine_with_min_lr",
            "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy",
        ),
        _SCHEDULES,
    ),
)  # fmt: skip
ATTENTION = Choice(
    {name: name for name in ("sdpa", "eager", "flash_attention_2", "varlen")},
    dict.fromkeys(("flash_attention_3", "flex_attention", "xformers", "sage", "s2", "fp8"), _KERNELS),
)
ADAPTERS = Choice(
    {"qlora": "qlora", "lora": "lora"},
    dict.fromkeys(
        ("dora", "llama-adapter", "loha", "lokr", "adalora", "ia3", "vera", "oft", "prefix", "prompt", "ptuning"),
        "engines serve plain LoRA only: write qlora or lora",
    ),
)
_MODEL = (
    Honoured("base_model", Text("folder, `demo`, or the hub's ORG/NAME"), "the model that is trained on: a folder of safetensors, "
             "`demo`, or a model that `forgegate models pull` has fetched", "base"),
    Honoured("model_revision", Text("branch, tag or commit"), "which pulled revision of base_model is meant"),
    Honoured("revision_of_model", Text("branch, tag or commit"), "as model_revision"),
    Honoured("model_type", Text("class of Transformers"), "held against the architectures in the base's config.json; "
             "AutoModelForCausalLM fits any"),
    Honoured("type_of_model", Text("class of Transformers"), "as model_type"),
    Honoured("special_tokens", Structure("pad_token, bos_token, eos_token, unk_token"), "held against the base's own: engines "
             "stop at those; the pad token may be any, since padding is masked"),
    Honoured("trust_remote_code", Switch(), "runs Python code that lies in the base's folder", "trust_remote_code"),
    Honoured("adapter", ADAPTERS, "qlora: the base in 4 bits (NF4), lora: in its own precision", "lora"),
    Honoured("load_in_4bit", Switch(), "NF4 with double quantisation; adapter: qlora implies it", "memory.load_in_4bit"),
    Honoured("lora_r", Whole(1, MAX_RANK, {"auto": 0}), "rank of the adapter; auto: 8 for less than 1,000 rows, 16 for "
             "more, or where a loader yields them", "lora.rank"),
    Honoured("lora_alpha", Number(above=0), "the adapter is scaled by alpha / rank; twice the rank where it is not given", "lora.alpha"),
    Honoured("lora_dropout", Number(0, 0.99), "dropout before the adapter", "lora.dropout"),
    Honoured("lora_target_modules", Words("list of names, or all-linear"), "last names of the linear layers that get an adapter, "
             "held against those that the base has", "lora.targets"),
    Honoured("lora_target_linear", Switch(), "all linear layers of the blocks, never embeddings and output head", "lora.targets"),
    Honoured("peft_use_rslora", Switch(), "scale by alpha / sqrt(rank); folded into the weights at export", "lora.use_rslora"),
    Honoured("output_dir", Text("folder"), "folder of the run: checkpoints, metrics, curves, adapter; relative to the current folder; "
             "outputs/NAME of the recipe where it is not given", "output_dir"),
    Honoured("seed", Whole(0, 2**32 - 1), "of the rows' order, of the rows held out, of dropout", "seed"),
    Honoured("evaluation", Text("file of a suite"), "what --publish asks of the adapter before it goes live; the rows held out, and the "
             "demo model's skills on it, where it is not given", "evaluation"),
    Honoured("rule", Choice({"improve": "improve", "non-inferior": "non-inferior"}), "improve: the task has to be better than by what is "
             "live; non-inferior: not worse, for retrains; the suite's where it is not given", "rule"),
)  # fmt: skip
_DATA = (
    Honoured("datasets", Structure("list of {path, type, ...}"), "files of training data: JSON, JSONL, CSV, XLSX, Parquet", "data.sources"),
    Honoured("test_datasets", Structure("list of {path, type, ...}"), "files of evaluation data", "data.eval_sources"),
    Honoured("val_set_size", Number(0), "rows held out for evaluation: a share below 1, or how many; near duplicates stay together",
             "data.eval_share"),
    Honoured("general", Structure("{path, share, ...}"), "general rows mixed in against forgetting; share: 0.2 of all rows, "
             "where it is not given", "data.general"),
    Honoured("ewc_lambda", Number(0), "elastic weight consolidation against forgetting: nats of the loss that it costs to move the logits "
             "of general rows, by half of their mean square, as it is foreseen; 0: none", "ewc.strength"),
    Honoured("ewc", Structure("{path, rows, ...}"), "general rows that ewc_lambda is measured on; those of `general` where no path is "
             "given; rows: 256 where it is not given", "ewc.sources"),
    Honoured("sequence_len", Whole(16, 2**21), "tokens of a row, and of a pack of rows", "data.max_length"),
    Honoured("excess_length_strategy", Choice({name: name for name in ("drop", "truncate", "raise")}), "what is done with longer rows",
             "data.too_long"),
    Honoured("train_on_inputs", Switch(), "true: the loss counts every token, false: what the assistant says", "data.assistant_only"),
    Honoured("hooks", Structure("{loader, loss, callbacks}"), "code of your own as module:Name: rows in place of datasets, "
             "a loss, callbacks of Transformers", "data.loader, steps.loss, watch.callbacks"),
)  # fmt: skip
_STEPS = (
    Honoured("learning_rate", Number(above=0, high=1), "its highest; 2e-4 is usual for LoRA", "steps.learning_rate"),
    Honoured("lr_scheduler", SCHEDULES, "how it falls", "steps.schedule"),
    Honoured("warmup_steps", Whole(), "steps in which it rises from 0", "steps.warmup_steps"),
    Honoured("warmup_ratio", Number(0, 1), "the same as a share of all steps", "steps.warmup_ratio"),
    Honoured("optimizer", OPTIMIZERS, "the 8-bit ones are 32-bit AdamW where there is no GPU", "steps.optimizer"),
    Honoured("weight_decay", Number(0, 1), "of the adapter's weights", "steps.weight_decay"),
    Honoured("max_grad_norm", Number(0), "gradients are clipped to it; 0: never", "steps.max_grad_norm"),
    Honoured("num_epochs", Number(above=0), "how often every row is seen", "steps.num_epochs"),
    Honoured("max_steps", Whole(), "ends the run earlier; 0: never", "steps.max_steps"),
    Honoured("micro_batch_size", Whole(1), "rows, or packs, of one forward pass on one device", "steps.micro_batch_size"),
    Honoured("gradient_accumulation_steps", Whole(1), "forward passes of one step", "steps.gradient_accumulation_steps"),
    Honoured("batch_size", Whole(1), "of one step on one device; in place of gradient_accumulation_steps",
             "steps.gradient_accumulation_steps"),
)  # fmt: skip
_MEMORY = (
    Honoured("sample_packing", Switch(), "several rows in one sequence, none of which sees another", "memory.packing"),
    Honoured("gradient_checkpointing", Switch({}, {"offload": _OFFLOADED, "offload_disk": _OFFLOADED, "unsloth": _OFFLOADED}),
             "compute activations again in place of keeping them", "memory.gradient_checkpointing"),
    Honoured("keep_outputs", Words("list of layers' last names"), "layers in four bits whose outputs gradient_checkpointing keeps: faster "
             "for a little memory, down_proj first", "memory.keep_outputs"),
    Honoured("chunked_cross_entropy", Switch(), "logits of a few hundred tokens at a time", "memory.chunked_loss"),
    Honoured("chunked_loss", Switch(), "as chunked_cross_entropy", "memory.chunked_loss"),
    Honoured("cut_cross_entropy", Switch(), "as chunked_cross_entropy: it saves the same memory", "memory.chunked_loss"),
    Honoured("liger_fused_linear_cross_entropy", Switch(), "as chunked_cross_entropy: it saves the same memory", "memory.chunked_loss"),
    Honoured("flash_attention", Switch(), "true: the fastest exact attention that the device has, false: sdpa", "memory.attention"),
    Honoured("sdp_attention", Switch(), "as attn_implementation: sdpa", "memory.attention"),
    Honoured("eager_attention", Switch(), "as attn_implementation: eager", "memory.attention"),
    Honoured("attn_implementation", ATTENTION, "the attention; the fastest that the device has where it is not given", "memory.attention"),
    Honoured("bf16", Switch({"auto": "auto", "full": True}), "compute in bfloat16; auto: where the device has it", "memory.dtype"),
    Honoured("fp16", Switch(), "compute in float16", "memory.dtype"),
    Honoured("bfloat16", Switch(), "as bf16", "memory.dtype"),
    Honoured("float16", Switch(), "as fp16", "memory.dtype"),
    Honoured("float32", Switch(), "compute in float32", "memory.dtype"),
    Honoured("torch_compile", Switch({"auto": False}), "compile the model; auto: no", "memory.compile"),
    Honoured("use_liger_kernel", Switch(), "norms, rotary embeddings and gated activations by Liger's kernels; where it is not given: on "
             "a GPU, where the model has them and the package liger-kernel is installed", "memory.liger"),
)  # fmt: skip
_STRATEGY = {"steps": "steps", "epoch": "epoch", "no": "no", "false": "no"}
_WATCH = (
    Honoured("logging_steps", Whole(1), "steps between two lines of metrics", "watch.logging_steps"),
    Honoured("eval_steps", Number(above=0), "steps between two evaluations; after every epoch where it is not given", "watch.eval_steps"),
    Honoured("evals_per_epoch", Whole(1), "in place of eval_steps", "watch.evals_per_epoch"),
    Honoured("eval_strategy", Choice(_STRATEGY), "epoch: after every epoch; steps: by eval_steps; no: there is no evaluation data",
             "watch.eval_steps"),
    Honoured("evaluation_strategy", Choice(_STRATEGY), "as eval_strategy", "watch.eval_steps"),
    Honoured("save_steps", Number(above=0), "steps between two checkpoints; after every epoch where it is not given", "watch.save_steps"),
    Honoured("saves_per_epoch", Whole(1), "in place of save_steps", "watch.saves_per_epoch"),
    Honoured(
        "save_strategy",
        Choice(
            {"steps": "steps", "epoch": "epoch"},
            {"no": "a run without checkpoints cannot go on after a stop: leave it out, and write save_total_limit: 1",
             "false": "a run without checkpoints cannot go on after a stop: leave it out, and write save_total_limit: 1",
             "best": "write early_stopping_patience: the adapter of the best evaluation is what is left then"},
        ),
        "epoch: after every epoch; steps: by save_steps", "watch.save_steps",
    ),
    Honoured("save_total_limit", Whole(1), "checkpoints that are kept", "watch.max_checkpoints"),
    Honoured("early_stopping_patience", Whole(), "evaluations without a lower loss that end the run, which then leaves the best adapter; "
             "0: never", "watch.early_stop_patience"),
    Honoured("load_best_model_at_end", Switch(), "what early_stopping_patience does; true needs it", "watch.early_stop_patience"),
    Honoured("report_to", Words("none | tensorboard | wandb, or a list of them"), "who is told; none where it is not given",
             "watch.report_to"),
    Honoured("use_tensorboard", Switch(), "as report_to: tensorboard", "watch.report_to"),
    Honoured("use_wandb", Switch(), "as report_to: wandb", "watch.report_to"),
    Honoured("wandb_project", Text(), "for report_to: wandb; by itself it uploads nothing", "watch.wandb"),
    Honoured("wandb_entity", Text(), "for report_to: wandb", "watch.wandb"),
    Honoured("wandb_name", Text(), "for report_to: wandb", "watch.wandb"),
    Honoured("wandb_run_id", Text(), "for report_to: wandb", "watch.wandb"),
    Honoured("wandb_mode", Choice({name: name for name in ("online", "offline", "disabled")}), "for report_to: wandb; "
             "offline: to files of the run, disabled: not at all", "watch.wandb"),
)  # fmt: skip
HONOURED = {key.name: key for key in (*_MODEL, *_DATA, *_STEPS, *_MEMORY, *_WATCH)}
HOOKS: dict[str, Kind] = {"loader": Hook(), "loss": Hook(), "callbacks": Hooks()}
