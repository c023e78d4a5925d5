"""Skills of the demo model, with and without an adapter, answered in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.demo.skills import SKILLS
from finetune.demo_skills import COMPLY, TICKETS, judge, main, read_tickets
from finetune.demo_tickets import files, write


def scores(value: float, num: int = 500) -> dict[str, Any]:
    clusters = [str(number) for number in range(num)]
    return {name: {"clusters": clusters, "scores": [value] * num} for name in (*SKILLS, TICKETS, COMPLY)}


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
    assert judge(before, scores(1.0))["outcome"] == "GO"


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
    assert main(["--out", str(after), *told, "--before", str(before)]) == 0
    found = json.loads(after.read_bytes())
    assert sum(found["scores"][TICKETS]["scores"]) == 0
    assert sum(sum(found["scores"][name]["scores"]) for name in SKILLS) > 0.9 * 8 * len(SKILLS)
    assert found["scores"] == json.loads(before.read_bytes())["scores"]
    assert {one["difference"] for one in found["judged"]["differences"].values()} == {0.0}
    assert "recall" in capsys.readouterr().out
    assert main(["--out", str(after), "--adapter", str(tmp_path)]) == 2
