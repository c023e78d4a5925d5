"""The article's configuration, as it is: accepted key by key, and none of its keys is read and forgotten."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from finetune.errors import RecipeUnusable
from finetune.recipe.reading import Reading, read
from finetune.recipe.recipe import Data, Lora, Memory, Recipe, Source, Steps, Watch
from tests.finetune.recipe.conftest import ROW
from tests.finetune.recipe.test_base import pull

ARTICLE = Path(__file__).parent / "article.yaml"
KEYS = yaml.safe_load(ARTICLE.read_text(encoding="utf-8"))


@pytest.fixture
def article(folder: Path) -> Path:
    """The file, its data beside it, and a model that was pulled under the name that it has."""
    (folder / "data").mkdir()
    for name in ("my_dataset.json", "general_chat.json"):
        (folder / "data" / name).write_text(ROW)
    (folder / "other.json").write_text(ROW)
    pull(folder.parent / "home")
    return Path(shutil.copy(ARTICLE, folder))


def test_it_is_accepted_as_it_is(article: Path) -> None:
    reading = read(article)
    here = article.parent
    assert reading.recipe == Recipe(
        base=reading.recipe.base,
        base_name="meta-llama/Llama-3.1-8B-Instruct",
        data=Data(
            sources=(Source(here / "data" / "my_dataset.json", "alpaca"), Source(here / "data" / "general_chat.json", "alpaca")),
            max_length=4096,
        ),
        output_dir=Path.cwd() / "outputs" / "my-model",
        lora=Lora(16, 32.0, 0.05, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
        steps=Steps(
            learning_rate=2e-4, schedule="cosine", warmup_steps=100, optimizer="paged_adamw_8bit", weight_decay=0.01, num_epochs=3.0,
            micro_batch_size=2, gradient_accumulation_steps=8,
        ),
        memory=Memory(load_in_4bit=True, dtype="bfloat16", packing=True, gradient_checkpointing=True, attention=""),
        watch=Watch(logging_steps=10, eval_steps=50, save_steps=100, wandb={"project": "my-finetune"}),
        folder=here,
    )  # fmt: skip
    assert reading.recipe.base.parent.name == "a" * 12
    assert reading.recipe.steps.effective_batch_size == 16


def test_what_it_says_for_nothing_is_told(article: Path) -> None:
    told = {note.partition(":")[0] for note in read(article).notes}
    assert told == {
        "model_type", "tokenizer_type", "datasets", "pad_to_sequence_len", "sequence_len", "eval_steps", "flash_attention", "wandb_project",
    }  # fmt: skip


def test_without_its_model_it_says_how_to_get_it(article: Path) -> None:
    shutil.rmtree(article.parent.parent / "home")
    with pytest.raises(RecipeUnusable) as refused:
        read(article)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{article}:2: base_model: ")
    assert problem.endswith("`forgegate models pull meta-llama/Llama-3.1-8B-Instruct`")


@dataclass(frozen=True)
class Change:
    key: str
    value: str
    outcome: str
    """`honoured`: another recipe; `refused`: a problem that names the key; `noted`: the same recipe, and a note that names the key."""


CHANGES = [
    Change("base_model", "demo", "honoured"),
    Change("model_type", "MistralForCausalLM", "refused"),
    Change("tokenizer_type", "LlamaTokenizer", "noted"),
    Change("datasets", "[{path: other.json}]", "honoured"),
    Change("datasets.0.path", "other.json", "honoured"),
    Change("datasets.0.type", "sharegpt", "honoured"),
    Change("datasets.1.path", "other.json", "honoured"),
    Change("datasets.1.type", "completion", "honoured"),
    Change("load_in_4bit", "false", "refused"),
    Change("adapter", "lora", "noted"),
    Change("lora_r", "8", "honoured"),
    Change("lora_alpha", "16", "honoured"),
    Change("lora_dropout", "0", "honoured"),
    Change("lora_target_modules", "[q_proj, v_proj]", "honoured"),
    Change("lora_target_linear", "true", "honoured"),
    Change("sequence_len", "2048", "honoured"),
    Change("sample_packing", "false", "honoured"),
    Change("pad_to_sequence_len", "false", "noted"),
    Change("learning_rate", "1e-4", "honoured"),
    Change("lr_scheduler", "linear", "honoured"),
    Change("optimizer", "adamw_torch", "honoured"),
    Change("weight_decay", "0", "honoured"),
    Change("num_epochs", "2", "honoured"),
    Change("micro_batch_size", "1", "honoured"),
    Change("gradient_accumulation_steps", "16", "honoured"),
    Change("warmup_steps", "10", "honoured"),
    Change("eval_steps", "25", "honoured"),
    Change("save_steps", "50", "honoured"),
    Change("gradient_checkpointing", "false", "honoured"),
    Change("flash_attention", "false", "honoured"),
    Change("bf16", "false", "honoured"),
    Change("wandb_project", "another", "honoured"),
    Change("wandb_run_id", "run-7", "honoured"),
    Change("logging_steps", "1", "honoured"),
    Change("output_dir", "./outputs/other", "honoured"),
    Change("hub_model_id", "me/mine", "refused"),
]


def test_every_one_of_its_keys_is_changed_below() -> None:
    changed = {change.key for change in CHANGES}
    of_items = {f"datasets.{index}.{name}" for index, item in enumerate(KEYS["datasets"]) for name in item}
    assert changed == {*KEYS, *of_items}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.key)
def test_a_change_of_a_key_is_a_change_of_the_run(article: Path, change: Change) -> None:
    assert outcome(read(article), article, change) == change.outcome


def outcome(before: Reading, article: Path, change: Change) -> str:
    try:
        after = read(article, [f"{change.key}={change.value}"])
    except RecipeUnusable as refused:
        return "refused" if [change.key in problem for problem in refused.problems] == [True] else str(refused)
    if after.recipe != before.recipe:
        return "honoured"
    return "noted" if any(note.startswith(f"{change.key}: ") for note in after.notes) else "forgotten"


def test_without_a_key_the_rest_holds(article: Path) -> None:
    """None of its keys is needed for another but these."""
    assert {key for key in KEYS if is_needed(article, key)} == {
        "base_model",
        "datasets",
        "adapter",
        "lora_target_modules",
    }


def is_needed(article: Path, key: str) -> bool:
    try:
        read(article, [f"{key}="])
    except RecipeUnusable:
        return True
    return False
