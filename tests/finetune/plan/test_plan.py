from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.plan import show
from finetune.plan.adapter import with_rank
from finetune.plan.device import named, processor
from finetune.plan.facts import DataFacts
from finetune.plan.plan import limited, micro_batch_tokens, plan
from finetune.plan.units import GIB, duration_words
from tests.finetune.plan import models
from tests.finetune.plan.rows import lognormal

TICKETS = lognormal(1_800, 550, 2048, num_eval_rows=200)


@pytest.fixture
def llama_8b(tmp_path: Path) -> Path:
    return models.folder(tmp_path / "8b", models.LLAMA_31_8B)


def test_the_text_of_a_run_that_fits(llama_8b: Path) -> None:
    recipe = models.recipe(llama_8b, base_name="meta-llama/Llama-3.1-8B", gradient_accumulation_steps=16)
    text = show.text(plan(recipe, TICKETS, named("RTX4090"), price=0.5))
    print(text)
    lines = text.splitlines()
    assert lines[0] == "meta-llama/Llama-3.1-8B: 8,030,261,248 parameters, llama"
    assert lines[1] == "trained: 41,943,040 of 8,072,204,288 parameters (0.52 %), r=16 on all-linear"
    assert lines[2] == "rank: r=16 suits 1,800 rows: where to start"
    assert lines[4].split() == ["memory", "this", "recipe", "full", "LoRA", "QLoRA"]
    assert lines[5].split() == ["weights", "5.3", "GiB", "15.0", "GiB", "15.0", "GiB", "5.3", "GiB"]
    assert any(line.startswith("fits 23.5 GiB of RTX 4090") for line in lines)
    assert any(line.startswith("data: 1,800 rows, ") and line.endswith(" a row, 200 held out") for line in lines)
    assert any(line.startswith("steps: ") and "of 1 x 16 packs" in line for line in lines)
    assert any(line.startswith("time: about ") and "tokens/s" in line for line in lines)
    assert any(line.startswith("cost: ") and "for 3 to 5 tries" in line for line in lines)
    assert all(line == line.rstrip() and len(line) < 140 for line in lines)


def test_the_text_of_a_run_that_does_not_fit(tmp_path: Path) -> None:
    base = models.folder(tmp_path / "70b", models.LLAMA_31_70B)
    text = show.text(plan(models.recipe(base), None, named("RTX4090")))
    print(text)
    assert "does not fit 23.5 GiB of RTX 4090: it takes 4" in text
    assert "weights alone 36.8 GiB" in text
    assert "unchanged it fits RTX A6000" in text
    assert "time:" not in text


def test_what_is_not_known_is_said(llama_8b: Path) -> None:
    text = show.text(plan(models.recipe(llama_8b), TICKETS, named("24GB")))
    assert "time: not known for a GPU of 24 GB: name a card, as in --gpu RTX4090" in text


def test_a_rank_that_does_not_suit_shows_the_table(llama_8b: Path) -> None:
    text = show.text(plan(models.recipe(llama_8b, rank=64), DataFacts((100,) * 600), named("24GB")))
    assert "r=64 may overfit 600 rows" in text
    assert "r=8 light tasks, and sets of fewer than 1,000 rows; r=16 where to start" in text


def test_a_rank_by_the_number_of_rows_suits_them_however_many_are_left_out(llama_8b: Path) -> None:
    facts = DataFacts((100,) * 900, num_too_long=200, num_own=1_100)
    recipe = with_rank(models.recipe(llama_8b, rank=0, alpha=0.0), facts)
    advice = plan(recipe, facts, named("24GB")).advice
    assert recipe.lora is not None
    assert advice is not None
    assert (recipe.lora.rank, advice.is_followed) == (16, True)


def test_json_is_whole_and_plain(llama_8b: Path) -> None:
    made = plan(models.recipe(llama_8b), TICKETS, named("RTX4090"), price=2.0)
    content = json.loads(json.dumps(made.as_json()))
    assert content["num_trainable"] == 41_943_040
    assert content["share_trainable"] == pytest.approx(0.0051960, abs=1e-7)  # as PEFT prints it: trainable%: 0.5196
    assert content["fits"] is True
    assert content["remedy"] is None
    assert sum(content["memory"]["parts"].values()) == content["memory"]["total"]
    assert [*content["ways"]] == ["full", "lora", "qlora"]
    assert content["data"]["num_rows"] == 1_800
    assert content["steps"]["num_steps"] == 3 * content["steps"]["per_epoch"]
    assert content["cost"]["tries"]["5"] == pytest.approx(5 * content["cost"]["one_try"])


def test_json_of_what_is_not_known_is_null(llama_8b: Path) -> None:
    content = plan(models.recipe(llama_8b, lora=None, load_in_4bit=False), None, named("8GB")).as_json()
    assert [content[name] for name in ("data", "steps", "speed", "cost", "rank")] == [None] * 5
    assert content["remedy"] == {"changes": [], "total_bytes": content["memory"]["total"], "card": "H100 PCIe"}
    assert any("training needs an adapter" in note for note in content["notes"])


def test_rows_that_are_padded_are_as_long_as_the_longest() -> None:
    facts = DataFacts((100, 700))
    assert micro_batch_tokens(models.recipe(packing=False, micro_batch_size=4), facts) == 2800
    assert micro_batch_tokens(models.recipe(packing=False, micro_batch_size=4), None) == 8192
    assert micro_batch_tokens(models.recipe(micro_batch_size=4), facts) == 8192


def test_a_limit_is_what_a_run_may_take(llama_8b: Path) -> None:
    device = named("RTX4090")
    assert plan(models.recipe(llama_8b), None, device).fits
    assert not plan(models.recipe(llama_8b), None, limited(device, 4 * GIB)).fits
    assert limited(device, 99 * GIB) == device


@pytest.mark.parametrize(("is_exact", "what"), [(True, "refuses"), (False, "may refuse")])
def test_too_few_general_rows_are_said(llama_8b: Path, is_exact: bool, what: str) -> None:
    facts = DataFacts((100,) * 85, num_general=5, num_general_wanted=20, is_exact=is_exact)
    said = (
        "general: share 0.2 of 80 rows takes 20 general ones, 5 can be trained: at most share: 0.059; "
        f"training {what} that"
    )
    recipe = models.recipe(llama_8b, general_share=0.2)
    made = plan(recipe, facts, named("24GB"))
    assert said in made.notes
    assert said in show.text(made)
    assert made.as_json()["data"]["num_general_wanted"] == 20
    assert not plan(recipe, replace(facts, num_general=20), named("24GB")).notes


def test_tight_is_said(llama_8b: Path) -> None:
    made = plan(models.recipe(llama_8b), None, named("24GB"))
    just = limited(made.device, made.memory.total + 1)
    assert plan(models.recipe(llama_8b), None, just).is_tight
    assert "the estimate may be wrong by more" in show.text(plan(models.recipe(llama_8b), None, just))


def test_a_sequence_longer_than_the_model_reads_is_noted(tmp_path: Path) -> None:
    base = models.folder(tmp_path / "m", models.LLAMA_2_7B | {"max_position_embeddings": 4096})
    assert plan(models.recipe(base, max_length=8192), None, named("H200")).notes == (
        "sequence_len 8192: the model reads 4096 tokens",
    )


def test_on_a_processor_memory_is_ram(llama_8b: Path) -> None:
    made = plan(models.recipe(llama_8b), TICKETS, processor())
    assert made.memory.parts["weights"] > made.shape.num_embedding_weights * 4
    assert made.speed is not None
    assert "factor of three" in made.speed.basis


def test_two_gpus_cost_twice_as_much_an_hour(llama_8b: Path) -> None:
    one, two = (plan(models.recipe(llama_8b), TICKETS, named("H200"), 3.0, count) for count in (1, 2))
    assert one.speed is not None
    assert two.speed is not None
    assert two.speed.seconds == pytest.approx(one.speed.seconds / 2, rel=0.01)
    assert two.cost == pytest.approx(one.cost, rel=0.01)
    assert "packs x 2 GPUs" in show.text(two)
    assert two.as_json()["effective_batch_size"] == 2


def test_planning_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, finetune.plan.show, finetune.plan.plan; print({'torch', 'transformers'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (720, "12 min"), (3.4 * 3600, "3.4 h"), (50 * 3600, "2.1 days")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words
