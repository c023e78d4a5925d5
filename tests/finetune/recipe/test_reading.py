"""Adapter, steps, memory and watch: what keys become, and which of them contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.recipe.recipe import ALL_LINEAR
from tests.finetune.recipe.conftest import Problems, Read

BARE = "base_model: demo\ndatasets: [{path: data.jsonl}]\n"


def test_adapters(read_text: Read, problems_of: Problems) -> None:
    assert read_text().recipe.memory.load_in_4bit
    lora = read_text(BARE + "adapter: lora\n", alone=True).recipe
    assert lora.lora is not None
    assert not lora.memory.load_in_4bit
    both = read_text(BARE + "adapter: lora\nload_in_4bit: true\n", alone=True)
    assert both.recipe.memory.load_in_4bit
    assert any("is QLoRA" in note for note in both.notes)
    assert problems_of("load_in_4bit: false\n") == [
        "5: load_in_4bit: false contradicts adapter: qlora: write true, or adapter: lora"
    ]
    assert "engines serve plain LoRA only" in problems_of("", "adapter=dora")[0]
    assert "did you mean 'qlora'?" in problems_of("", "adapter=qlor")[0]
    assert "load_in_8bit: refused: the base is held in 4 bits" in problems_of("load_in_8bit: true\n")[0]


def test_a_missing_adapter_would_train_all_weights(read_text: Read, problems_of: Problems) -> None:
    assert "planned only (--plan): write adapter: qlora or lora" in problems_of(BARE, alone=True)[0]
    assert "planned only" in problems_of(BARE + "adapter:\n", alone=True)[0]
    planned = read_text(BARE, alone=True, is_plan=True).recipe
    assert planned.lora is None
    assert not planned.memory.load_in_4bit
    for text, wanted in (
        ("load_in_4bit: true\n", "qlora"),
        ("lora_r: 8\n", "qlora"),
        ("lora_r: 8\nload_in_4bit: false\n", "lora"),
    ):
        for is_plan in (False, True):
            assert problems_of(BARE + text, alone=True, is_plan=is_plan) == [
                f"1: adapter: it is missing: write adapter: {wanted}"
            ]


def test_rank_and_alpha(read_text: Read, problems_of: Problems) -> None:
    for text, rank, alpha in (
        ("", 16, 32),
        ("lora_r: 8\n", 8, 16),
        ("lora_r: 64\nlora_alpha: 16\n", 64, 16),
        ("lora_alpha: 8\n", 16, 8),
    ):
        lora = read_text(text).recipe.lora
        assert lora is not None
        assert (lora.rank, lora.alpha, type(lora.alpha)) == (rank, alpha, float)
    assert "lora_alpha: not given: 16, twice the rank" in read_text("lora_r: 8\n").notes
    for rank, slot in ((4, 8), (12, 16), (100, 128)):
        assert f"lora_r: vLLM sets aside a slot of rank {slot} for rank {rank}" in read_text(f"lora_r: {rank}\n").notes
    assert not any(note.startswith("lora_r") for note in read_text("lora_r: 512\n").notes)
    for text in ("lora_r: 0\n", "lora_r: 513\n", "lora_r: -8\n"):
        assert "must be 1 to 512" in problems_of(text)[0]
    assert "must be above 0" in problems_of("lora_alpha: 0\n")[0]
    assert "must be 0 to 0.99" in problems_of("lora_dropout: 1\n")[0]
    assert read_text("peft_use_rslora: true\n").recipe.lora.use_rslora  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("", (ALL_LINEAR,)),
        ("lora_target_linear: true\n", (ALL_LINEAR,)),
        ("lora_target_modules: all-linear\n", (ALL_LINEAR,)),
        ("lora_target_modules: all_linear\n", (ALL_LINEAR,)),
        ("lora_target_modules: [q_proj, v_proj]\n", ("q_proj", "v_proj")),
        ("lora_target_modules: q_proj\n", ("q_proj",)),
        ("lora_target_modules: [q_proj]\nlora_target_linear: true\n", (ALL_LINEAR,)),
        ("lora_target_modules: [q_proj]\nlora_target_linear: false\n", ("q_proj",)),
    ],
)
def test_targets(read_text: Read, text: str, targets: tuple[str, ...]) -> None:
    lora = read_text(text).recipe.lora
    assert lora is not None
    assert lora.targets == targets


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[q_proj, embed_tokens]", "embed_tokens: engines serve no adapter on the embeddings and the output head"),
        ("[lm_head]", "lm_head: engines serve no adapter on the embeddings and the output head"),
        ("[model.embed_tokens]", "model.embed_tokens: engines serve no adapter"),
        ("[q_prj]", "q_prj is no linear layer of the base's blocks; did you mean q_proj?"),
        ("[self_attn.q_proj]", "self_attn.q_proj is no linear layer of the base's blocks; did you mean q_proj?"),
        ("[W_pack]", "W_pack is no linear layer of the base's blocks; it has down_proj, gate_proj, k_proj"),
        ("[input_layernorm]", "input_layernorm is no linear layer"),
        ("[all-linear, q_proj]", "all-linear stands alone"),
        ("'.*_proj'", "is no linear layer"),
    ],
)
def test_targets_that_cannot_be(problems_of: Problems, text: str, words: str) -> None:
    (found,) = problems_of(f"lora_target_modules: {text}\n")
    assert found.startswith(f"5: lora_target_modules: {words}") or words in found


def test_no_targets_at_all(problems_of: Problems) -> None:
    assert "name the layers, or write true" in problems_of("lora_target_linear: false\n")[0]


def test_warm_up_both_ways(read_text: Read, problems_of: Problems) -> None:
    steps, ratio = read_text("warmup_steps: 10\n").recipe.steps, read_text("warmup_ratio: 0.1\n").recipe.steps
    assert (steps.warmup_steps, steps.warmup_ratio) == (10, 0.0)
    assert (ratio.warmup_steps, ratio.warmup_ratio) == (0, 0.1)
    assert "warmup_steps is given too" in problems_of("warmup_steps: 10\nwarmup_ratio: 0.1\n")[0]
    read_text("warmup_steps: 0\nwarmup_ratio: 0.1\n")
    assert "leave no step at the full learning rate" in problems_of("warmup_steps: 10\nmax_steps: 10\n")[0]
    assert "expected a whole number" in problems_of("warmup_steps: 0.1\n")[0]
    assert "must be 0 to 1" in problems_of("warmup_ratio: 10\n")[0]


def test_batches(read_text: Read, problems_of: Problems) -> None:
    for text, micro, accumulation in (
        ("", 1, 1), ("micro_batch_size: 2\ngradient_accumulation_steps: 8\n", 2, 8), ("micro_batch_size: 2\nbatch_size: 16\n", 2, 8),
        ("gradient_accumulation_steps: 4\nbatch_size: 16\n", 4, 4), ("batch_size: 16\n", 1, 16),
        ("micro_batch_size: 2\ngradient_accumulation_steps: 8\nbatch_size: 16\n", 2, 8),
    ):  # fmt: skip
        steps = read_text(text).recipe.steps
        assert (steps.micro_batch_size, steps.gradient_accumulation_steps) == (micro, accumulation)
    assert "is no multiple of micro_batch_size: 3" in problems_of("micro_batch_size: 3\nbatch_size: 16\n")[0]
    assert (
        "is not micro_batch_size 2 x"
        in problems_of("micro_batch_size: 2\ngradient_accumulation_steps: 2\nbatch_size: 16\n")[0]
    )
    for text in ("micro_batch_size: 0\n", "micro_batch_size: -1\n", "gradient_accumulation_steps: 0\n"):
        assert "must be 1 or more" in problems_of(text)[0]


def test_rates_and_optimizers(read_text: Read, problems_of: Problems) -> None:
    steps = read_text(
        "learning_rate: 2e-5\nlr_scheduler: constant_with_warmup\noptimizer: adamw_bnb_8bit\nmax_grad_norm: 0.3\n"
    ).recipe.steps
    assert (steps.learning_rate, steps.schedule, steps.optimizer, steps.max_grad_norm) == (
        2e-5,
        "constant",
        "adamw_8bit",
        0.3,
    )
    assert read_text("optimizer: adamw_torch_fused\n").recipe.steps.optimizer == "adamw_torch"
    assert "write adamw_torch, adamw_8bit or paged_adamw_8bit" in problems_of("optimizer: muon\n")[0]
    assert "did you mean 'paged_adamw_8bit'?" in problems_of("optimizer: paged_adam_8bit\n")[0]
    assert "write cosine, linear or constant" in problems_of("lr_scheduler: rex\n")[0]
    assert "must be above 0, at most 1, got 2" in problems_of("learning_rate: 2\n")[0]
    assert "got -0.0002" in problems_of("learning_rate: -2e-4\n")[0]
    assert "must be above 0, got 0" in problems_of("num_epochs: 0\n")[0]


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("", ""), ("bf16: auto\n", ""), ("bf16: auto\nfp16:\n", ""), ("bf16: true\n", "bfloat16"), ("bf16: full\n", "bfloat16"),
        ("bfloat16: true\n", "bfloat16"), ("bf16: true\nfp16: false\n", "bfloat16"), ("fp16: true\n", "float16"),
        ("bf16: false\nfp16: true\n", "float16"), ("bf16: false\n", "float32"), ("float32: true\n", "float32"),
        ("bf16: false\nfp16: false\n", "float32"), ("bf16: true\nbfloat16: true\n", "bfloat16"),
    ],
)  # fmt: skip
def test_precision(read_text: Read, text: str, dtype: str) -> None:
    assert read_text(text).recipe.memory.dtype == dtype


@pytest.mark.parametrize(
    ("text", "attention"),
    [
        ("", ""), ("flash_attention: true\n", ""), ("flash_attention: false\n", "sdpa"), ("sdp_attention: true\n", "sdpa"),
        ("eager_attention: true\n", "eager"), ("attn_implementation: eager\n", "eager"),
        ("attn_implementation: flash_attention_2\n", "flash_attention_2"),
        ("attn_implementation: varlen\nflash_attention: false\n", "varlen"), ("sdp_attention: false\n", ""),
    ],
)  # fmt: skip
def test_attention(read_text: Read, text: str, attention: str) -> None:
    assert read_text(text).recipe.memory.attention == attention


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bf16: true\nfp16: true\n", "6: fp16: bf16: true says another precision: keep one of them"),
        (
            "flash_attention: true\nsdp_attention: true\n",
            "6: sdp_attention: flash_attention says another one: keep one",
        ),
        (
            "attn_implementation: sdpa\nflash_attention: true\n",
            "6: flash_attention: attn_implementation says another one: keep one",
        ),
        (
            "attn_implementation: flash_attention_3\n",
            "5: attn_implementation: 'flash_attention_3': this kernel is not built in",
        ),
        ("xformers_attention: true\n", "5: xformers_attention: refused: this kernel is not built in"),
        (
            "gradient_checkpointing: unsloth\n",
            "5: gradient_checkpointing: 'unsloth': activations stay on the device: write true",
        ),
        (
            "gradient_checkpointing: false\nkeep_outputs: down_proj\n",
            "6: keep_outputs: without gradient_checkpointing all outputs are kept: leave it out",
        ),
        (
            "keep_outputs: [down_proj, down_porj]\n",
            "5: keep_outputs: down_porj: no layers that get an adapter; those are down_proj, gate_proj, k_proj, ",
        ),
        (
            "lora_target_modules: [q_proj, v_proj]\nkeep_outputs: down_proj\n",
            "6: keep_outputs: down_proj: no layers that get an adapter; those are q_proj, v_proj",
        ),
        (
            "chunked_cross_entropy: true\ncut_cross_entropy: false\n",
            "6: cut_cross_entropy: it contradicts chunked_cross_entropy",
        ),
        (
            "hooks: {loss: 'a:b'}\nchunked_cross_entropy: true\n",
            "6: chunked_cross_entropy: a loss of your own (hooks.loss) sees all logits",
        ),
    ],
)
def test_contradictions_of_memory(problems_of: Problems, text: str, words: str) -> None:
    (found,) = problems_of(text)
    assert found.startswith(words)


def test_what_saves_memory(read_text: Read) -> None:
    memory = read_text(
        "sample_packing: no\ngradient_checkpointing: off\nchunked_loss: false\ntorch_compile: true\n"
    ).recipe.memory
    assert (memory.packing, memory.gradient_checkpointing, memory.chunked_loss, memory.compile) == (
        False,
        False,
        False,
        True,
    )
    assert not read_text("torch_compile: auto\n").recipe.memory.compile
    assert read_text("keep_outputs: [down_proj, o_proj]\n").recipe.memory.keep_outputs == ("down_proj", "o_proj")
    assert read_text("liger_fused_linear_cross_entropy: true\n").recipe.memory.chunked_loss
    assert not read_text("hooks: {loss: 'mine:loss'}\n").recipe.memory.chunked_loss


def test_too_long_rows(read_text: Read, problems_of: Problems) -> None:
    for strategy in ("drop", "truncate", "raise"):
        assert read_text(f"excess_length_strategy: {strategy}\n").recipe.data.too_long == strategy
    notes = read_text("excess_length_strategy: truncate\nsample_packing: true\n").notes
    assert any("rows that are cut lose their end" in note for note in notes)
    assert "expected drop | truncate | raise" in problems_of("excess_length_strategy: cut\n")[0]


def test_when_it_is_evaluated_and_saved(read_text: Read, problems_of: Problems) -> None:
    data = "val_set_size: 0.1\n"
    watch = read_text(
        data + "evals_per_epoch: 4\nsaves_per_epoch: 1\nsave_total_limit: 5\nearly_stopping_patience: 3\n"
    ).recipe.watch
    assert (watch.eval_steps, watch.evals_per_epoch, watch.saves_per_epoch) == (0, 4, 1)
    assert (watch.max_checkpoints, watch.early_stop_patience) == (5, 3)
    strategies = read_text(
        data + "eval_strategy: epoch\nsave_strategy: steps\nsave_steps: 20\nload_best_model_at_end: false\n"
    ).recipe.watch
    assert (strategies.eval_steps, strategies.save_steps) == (0, 20)
    read_text("eval_strategy: no\n")
    read_text(data + "load_best_model_at_end: true\nearly_stopping_patience: 2\n")
    for text, words in (
        (data + "eval_steps: 10\nevals_per_epoch: 2\n", "evals_per_epoch: eval_steps is given too"),
        (data + "eval_steps: 0.1\n", "write evals_per_epoch, or a whole number of steps"),
        (data + "eval_strategy: epoch\neval_steps: 5\n", "epoch contradicts eval_steps"),
        (data + "evaluation_strategy: steps\n", "steps, and no eval_steps: write it"),
        (data + "eval_strategy: no\n", "no, and there is evaluation data"),
        ("save_strategy: no\n", "a run without checkpoints cannot go on after a stop"),
        ("save_strategy: best\n", "write early_stopping_patience"),
        ("early_stopping_patience: 2\n", "there is no evaluation data to stop by"),
        (data + "load_best_model_at_end: true\n", "write early_stopping_patience too"),
        (
            data + "load_best_model_at_end: false\nearly_stopping_patience: 2\n",
            "false contradicts early_stopping_patience",
        ),
        ("save_total_limit: 0\n", "must be 1 or more"),
    ):
        (found,) = problems_of(text)
        assert words in found
    assert any("so that nothing is evaluated" in note for note in read_text("evals_per_epoch: 4\n").notes)


def test_nothing_is_uploaded_unasked(read_text: Read, problems_of: Problems) -> None:
    named = read_text("wandb_project: mine\nwandb_name: first\nwandb_watch:\nwandb_log_model:\n")
    assert named.recipe.watch.report_to == ()
    assert named.recipe.watch.wandb == {"project": "mine", "name": "first"}
    assert any(note.startswith("wandb_project: kept, and nothing is uploaded") for note in named.notes)
    for text, reports in (
        ("wandb_project: mine\nuse_wandb: true\n", ("wandb",)), ("report_to: wandb\n", ("wandb",)), ("report_to: none\n", ()),
        ("report_to: [tensorboard, wandb]\n", ("tensorboard", "wandb")), ("use_tensorboard: true\n", ("tensorboard",)),
        ("wandb_project: mine\nwandb_mode: offline\n", ("wandb",)), ("use_wandb: true\nwandb_mode: disabled\n", ()),
        ("use_wandb: false\nwandb_project: mine\nwandb_mode: offline\n", ()),
    ):  # fmt: skip
        assert read_text(text).recipe.watch.report_to == reports
    assert "known are none, tensorboard and wandb" in problems_of("report_to: mlflow\n")[0]
    assert "false contradicts report_to: wandb" in problems_of("report_to: wandb\nuse_wandb: false\n")[0]
    (offline,) = problems_of("report_to: none\nwandb_mode: offline\n")
    assert offline == "6: wandb_mode: offline records for wandb, and report_to is none: leave out one of them"
    (switched,) = problems_of("use_tensorboard: true\nreport_to: none\n")
    assert switched == "5: use_tensorboard: true contradicts report_to: none"
    assert read_text("report_to: none\nwandb_mode: disabled\n").recipe.watch.report_to == ()
    (unknown,) = problems_of("report_to: mlflow\nuse_wandb: true\n")
    assert unknown.startswith("5: report_to: mlflow")
    assert "none stands alone" in problems_of("report_to: [none, wandb]\n")[0]
    assert "weights and gradients are never uploaded" in problems_of("wandb_log_model: checkpoint\n")[0]


def test_hooks(read_text: Read, problems_of: Problems) -> None:
    recipe = read_text("hooks: {loader: 'mine:rows', loss: 'mine.losses:focal', callbacks: ['mine:Bell']}\n").recipe
    assert recipe.folder.is_absolute()
    assert list(recipe.folder.glob("*.y*ml"))
    assert (recipe.data.loader, recipe.steps.loss, recipe.watch.callbacks) == (
        "mine:rows",
        "mine.losses:focal",
        ("mine:Bell",),
    )
    assert "did you mean callbacks?" in problems_of("hooks: {callback: 'mine:Bell'}\n")[0]
    assert "hooks.loss: expected module:Name" in problems_of("hooks: {loss: focal}\n")[0]
    assert "expected {loader, loss, callbacks}" in problems_of("hooks: mine\n")[0]


def test_where_the_run_lies(read_text: Read, problems_of: Problems) -> None:
    assert read_text("output_dir: ./runs/a\n").recipe.output_dir == Path.cwd() / "runs" / "a"
    assert read_text("output_dir: /runs/../a\n").recipe.output_dir == Path("/a")
    assert read_text("output_dir: ~/a\n").recipe.output_dir == Path.home() / "a"
    assert read_text("seed: 7\ntrust_remote_code: true\ntrain_on_inputs: true\n").recipe.seed == 7
    assert not read_text("train_on_inputs: true\n").recipe.data.assistant_only
    assert "must be 16 to 2097152" in problems_of("sequence_len: 8\n")[0]
