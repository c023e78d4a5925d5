"""Skills of the demo model, with and without an adapter, answered in this process."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from backends.demo.corpus import Item, held_out_items
from backends.demo.skills import SKILLS
from finetune.demo_looks import COMPLY, TICKETS, judge
from finetune.demo_skills import Known, main, read_tickets
from finetune.demo_tickets import files, write
from finetune.gating.looks import LAST


def scores(value: float, num: int = 500) -> dict[str, Any]:
    return {
        name: {"clusters": [str(number) for number in range(num)], "scores": [value] * num}
        for name in (*SKILLS, TICKETS, COMPLY)
    }


def test_what_the_gate_says_of_a_skill_that_is_lost() -> None:
    before = {**scores(1.0), TICKETS: scores(0.0)[TICKETS]}
    after = scores(1.0)
    after["facts"] = {**after["facts"], "scores": [0.0] * 100 + [1.0] * 400}
    found = judge(before, after)
    assert found["outcome"] == "NO-GO"
    assert found["differences"]["facts"]["state"] == "forgotten"
    assert found["differences"]["facts"]["difference"] == pytest.approx(-20)
    assert found["differences"]["recall"]["state"] == "kept"
    assert found["differences"][TICKETS]["state"] == "better"
    assert list(found["differences"]) == [TICKETS, *SKILLS]
    assert found["looks"] == 1
    assert judge(before, scores(1.0))["outcome"] == "GO"


def test_more_is_asked_of_what_is_undecided() -> None:
    """1.6 points lost are too near to 3 for 500 items; where there are no more, the gate says so."""
    before, after = {**scores(1.0), TICKETS: scores(0.0)[TICKETS]}, scores(1.0)
    after["facts"]["scores"][:8] = [0.0] * 8
    asked = []

    def more(names: Sequence[str], num_items: int) -> bool:
        asked.append((list(names), num_items))
        for known in (before, after):
            has = len(known["facts"]["scores"])
            known["facts"]["clusters"] += [str(number) for number in range(has, num_items)]
            known["facts"]["scores"] += [1.0] * (num_items - has)
        return True

    found = judge(before, copy.deepcopy(after))
    assert (found["outcome"], found["looks"]) == ("INCONCLUSIVE", LAST + 1)
    assert found["items_to_settle"] > 500
    found = judge(before, after, more)
    assert (found["outcome"], found["looks"]) == ("GO", 2)
    assert asked == [(["facts"], 1000)]
    assert found["differences"]["facts"]["num_items"] == 1000
    assert found["differences"]["recall"]["num_items"] == 500


def test_a_model_is_asked_only_what_it_was_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    numbers: list[int] = []

    def answers(model: object, items: Sequence[Item]) -> list[str]:
        numbers.append(len(items))
        return [item.expected for item in items]

    monkeypatch.setattr("finetune.demo_skills._answers", answers)
    monkeypatch.setattr("finetune.demo_skills.load", lambda adapter: object())
    write(tmp_path / "rows.jsonl", files(10, 0)["eval.jsonl"][:4])
    known = Known(None, 3, {})
    assert known.ask(["facts", "recall"], 3, read_tickets(tmp_path / "rows.jsonl"))
    assert known.ask(["facts"], 5)
    assert not known.ask(["facts"], 5)
    assert numbers == [10, 2]
    known.write(tmp_path / "known.json")
    again = Known.read(tmp_path / "known.json")
    assert (again.adapter, again.num_items, again.scores) == (None, 3, known.scores)
    assert {name: each["scores"] for name, each in again.scores.items()} == {
        TICKETS: [1.0] * 4, COMPLY: [1.0] * 4, "facts": [1.0] * 5, "recall": [1.0] * 3,
    }  # fmt: skip
    assert again.scores["facts"]["clusters"] == [item.cluster for item in held_out_items("facts", 5)]


def test_tickets_are_read_with_their_customers(tmp_path: Path) -> None:
    rows = files(10, 0)["eval.jsonl"]
    write(tmp_path / "rows.jsonl", rows)
    items = read_tickets(tmp_path / "rows.jsonl")
    assert [item.cluster for item in items] == [row.name for row in rows]
    assert [item.expected for item in items] == [row.answer for row in rows]
    (tmp_path / "other.jsonl").write_text('{"messages": [{"role": "user", "content": "hello"}]}\n')
    with pytest.raises(ValueError, match=r"other\.jsonl:1: no ticket"):
        read_tickets(tmp_path / "other.jsonl")


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_what_peft_makes_of_it(tmp_path: Path) -> None:
    """Its answers are another model's where it changes something, the base's where it changes nothing."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from backends.demo import TARGET_DIR
    from finetune.demo_skills import load

    base = AutoModelForCausalLM.from_pretrained(TARGET_DIR, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(1)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data = 0.05 * torch.randn(value.shape, generator=generator)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    ids = torch.arange(300, 340)[None]
    mask = torch.ones(40, 40, dtype=torch.bool).tril()
    with torch.no_grad():
        wanted = model.eval()(input_ids=ids).logits
        assert torch.allclose(load(tmp_path / "adapter")(ids, mask), wanted, atol=2e-3)
        assert not torch.allclose(load(None)(ids, mask), wanted, atol=1e-1)


@pytest.mark.torch
@pytest.mark.slow
def test_the_base_knows_its_skills_and_no_tickets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "rows.jsonl", files(10, 0)["eval.jsonl"][:8])
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    told = ["--tickets", str(tmp_path / "rows.jsonl"), "--items", "8"]
    assert main(["--out", str(before), *told]) == 0
    assert main(["--out", str(after), *told, "--before", str(before), "--max-items", "8"]) == 0
    found = json.loads(after.read_bytes())
    assert sum(found["scores"][TICKETS]["scores"]) == 0
    assert sum(sum(found["scores"][name]["scores"]) for name in SKILLS) > 0.9 * 8 * len(SKILLS)
    assert found["scores"] == json.loads(before.read_bytes())["scores"]
    assert {one["difference"] for one in found["judged"]["differences"].values()} == {0.0}
    assert "recall" in capsys.readouterr().out
    assert found["judged"]["outcome"] == "INCONCLUSIVE"
    assert main(["--out", str(after), "--adapter", str(tmp_path)]) == 2


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_scores_are_those_of_answers_that_are_heard_to_the_end(noise: float) -> None:
    """Of the base, and of a model that rambles on: one question at a time, nothing cut, against batches that shrink."""
    import torch

    from backends.demo import TARGET_DIR
    from backends.demo.batches import ChatEncoder
    from backends.demo.evaluation import answer_all
    from backends.demo.missed import has_missed
    from finetune.demo_skills import load

    model = load(None)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in (value for value in model.parameters() if value.ndim == 2):
            value += noise * value.std() * torch.randn(value.shape, generator=generator)
    encoder = ChatEncoder(TARGET_DIR)
    items = [item for name in SKILLS for item in held_out_items(name, 3)]
    whole = [answer_all(model, encoder, [item], 1)[0] for item in items]
    cut = answer_all(model, encoder, items, 12, has_missed)
    wanted = [item.score(answer) for item, answer in zip(items, whole, strict=True)]
    assert [item.score(answer) for item, answer in zip(items, cut, strict=True)] == wanted
    assert any(wanted)
    assert (sum(map(len, cut)) < sum(map(len, whole))) == (noise > 0)
    if noise == 0:
        assert cut == whole
