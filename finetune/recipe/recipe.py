"""A training run as it was asked for. Frozen; steps that save memory are `dataclasses.replace` of parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ALL_LINEAR = "all-linear"
"""Every linear layer of the transformer's blocks; never embeddings and the output head, which engines cannot serve with an adapter."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of training data."""

    path: Path
    form: str = ""
    """`alpaca`, `sharegpt`, `chat_template` or `completion`, where the recipe insists on one; empty: as it is recognised."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Which fields of the file are instruction, input, output, ...; empty: as they are recognised."""


@dataclass(frozen=True, slots=True)
class Data:
    sources: tuple[Source, ...]
    eval_sources: tuple[Source, ...] = ()
    eval_share: float = 0.0
    """Of `sources`' rows, held out for evaluation, near duplicates of one question on one side. 0 with `eval_sources`, or for none."""
    eval_rows: int = 0
    """As many rows of `sources` held out, in place of `eval_share`."""
    general: tuple[Source, ...] = ()
    """Replayed against forgetting."""
    general_share: float = 0.0
    """Of general rows in the training set, when there are any."""
    max_length: int = 2048
    """Tokens of a row."""
    too_long: str = "drop"
    """What is done with longer rows: `drop`, `truncate` or `raise`."""
    assistant_only: bool = True
    """The loss counts what the assistant says; else every token."""
    loader: str = ""
    """`module:Name` of a callable that yields rows in place of reading `sources`; it is given their paths."""

    def held_out_share(self, num_rows: int) -> float:
        """Of `num_rows` rows of `sources`; 0: none is held out."""
        return self.eval_rows / num_rows if self.eval_rows and num_rows else self.eval_share


@dataclass(frozen=True, slots=True)
class Lora:
    rank: int = 16
    """0: by the number of rows, which `finetune.plan.adapter.with_rank` puts in its place."""
    alpha: float = 32.0
    """0 with a rank of 0: twice the rank."""
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Last names of modules, or `ALL_LINEAR` alone."""
    use_rslora: bool = False


EWC_ROWS = 256
"""Measured where a recipe does not say how many."""


@dataclass(frozen=True, slots=True)
class Ewc:
    """Elastic weight consolidation: what general rows need of the base is held to it."""

    strength: float
    """Nats of the loss that it costs to move the logits of general rows: by half of their mean square."""
    sources: tuple[Source, ...]
    """Rows that show what is needed, by which nothing is trained; those of `general` where the recipe names none of their own."""
    num_rows: int = EWC_ROWS
    """Of them, drawn by the seed."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How the weights move."""

    learning_rate: float = 2e-4
    schedule: str = "cosine"
    """`cosine`, `linear` or `constant`."""
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    """Of all steps; in place of `warmup_steps`."""
    optimizer: str = "adamw_torch"
    """`adamw_torch`, `adamw_8bit` or `paged_adamw_8bit`: the last two are 32-bit AdamW where there is no GPU, which is said."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    num_epochs: float = 3.0
    max_steps: int = 0
    """Ends earlier; 0: the epochs end it."""
    micro_batch_size: int = 1
    """Rows, or packs where rows are packed, of one forward pass on one device."""
    gradient_accumulation_steps: int = 1
    loss: str = ""
    """`module:Name` of a loss in place of cross entropy."""

    @property
    def effective_batch_size(self) -> int:
        """On one device."""
        return self.micro_batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True, slots=True)
class Memory:
    """What is traded for it. None of these changes what is learned."""

    load_in_4bit: bool = True
    """NF4 with double quantisation."""
    dtype: str = ""
    """Of computation: `bfloat16`, `float16` or `float32`; empty: bfloat16 on a GPU that has it, else float32."""
    packing: bool = True
    """Several rows in one sequence of `max_length` tokens, none of which sees another."""
    gradient_checkpointing: bool = True
    keep_outputs: tuple[str, ...] = ()
    """Last names of adapted layers in four bits whose outputs checkpointing keeps in place of computing them again."""
    chunked_loss: bool = True
    """Logits of a few hundred tokens at a time."""
    attention: str = ""
    """`sdpa`, `eager`, `flash_attention_2` or `varlen`; empty: the fastest that this device has."""
    compile: bool = False
    liger: bool | None = None
    """Norms, rotary embeddings and gated activations by Liger's kernels; None: where the device and the model have them."""


@dataclass(frozen=True, slots=True)
class Watch:
    """When it is looked at, kept and ended."""

    logging_steps: int = 1
    eval_steps: int = 0
    """0: at the end of every epoch, where there is evaluation data."""
    evals_per_epoch: int = 0
    """So many, evenly spread, in place of `eval_steps`; 0: none given."""
    save_steps: int = 0
    """0: at the end of every epoch."""
    saves_per_epoch: int = 0
    """So many, evenly spread, in place of `save_steps`; 0: none given."""
    max_checkpoints: int = 2
    early_stop_patience: int = 0
    """Evaluations without a lower loss; 0: never."""
    report_to: tuple[str, ...] = ()
    """`tensorboard`, `wandb`."""
    wandb: Mapping[str, str] = field(default_factory=dict)
    """`project`, `entity`, `name`, `run_id`, `mode`: what it is told where `report_to` names it."""
    callbacks: tuple[str, ...] = ()
    """`module:Name` of transformers' TrainerCallback classes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    base: Path
    """Folder of the full-precision model."""
    data: Data
    output_dir: Path
    """Folder of the run."""
    lora: Lora | None = Lora()
    """None: all weights would be trained; only a plan takes that."""
    ewc: Ewc | None = None
    steps: Steps = Steps()
    memory: Memory = Memory()
    watch: Watch = Watch()
    seed: int = 42
    base_name: str = ""
    """As the recipe named it."""
    trust_remote_code: bool = False
    folder: Path = Path()
    """Of the recipe's file, where its hooks are."""
    evaluation: Path | None = None
    """The suite that decides whether a published adapter goes live; None: what the run held out."""
    rule: str = ""
    """`improve` or `non-inferior`; empty: the suite's."""
