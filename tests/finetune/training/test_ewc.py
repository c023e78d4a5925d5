"""The penalty against one that is written out, its gradients against finite differences, and runs that have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.errors import RecipeUnusable
from finetune.recipe.recipe import Ewc, Source
from tests.finetune.training.rig import Told, attempt, make_recipe, write_rows

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.slow]
RANK, INPUTS, OUTPUTS = 3, 7, 5


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


def held(seed: int, dtype: Any = torch.float64) -> Any:
    from finetune.training.ewc import Held

    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    a, b = drawn(RANK, INPUTS).requires_grad_(), drawn(OUTPUTS, RANK).requires_grad_()
    return Held(a, b, 1.7, drawn(INPUTS).square(), drawn(OUTPUTS).square())


def written_out(strength: float, layers: list[Any]) -> Any:
    """With dW and F in full."""
    total = 0.0
    for each in layers:
        change, fisher = each.scale * each.b @ each.a, each.outputs[:, None] * each.inputs[None]
        total = total + (fisher * change**2).sum()
    return strength / 2 * total


def test_it_is_that_of_kirkpatrick_with_its_gradients() -> None:
    from finetune.training.ewc import Penalty

    layers = [held(1), held(2)]
    values = [value for each in layers for value in (each.a, each.b)]
    own, plain = Penalty(3.0, layers)(), written_out(3.0, layers)
    assert own.item() == pytest.approx(plain.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(own, values), torch.autograd.grad(plain, values), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=0)


def test_gradients_are_finite_differences() -> None:
    from finetune.training.ewc import _Drift

    each = held(3)
    assert torch.autograd.gradcheck(_Drift.apply, (each.a, each.b, each.inputs, each.outputs, each.scale))


def test_a_fresh_adapter_costs_nothing() -> None:
    from finetune.training.ewc import Held, Penalty

    each = held(4)
    b = torch.zeros_like(each.b).requires_grad_()
    penalty = Penalty(3.0, [Held(each.a, b, each.scale, each.inputs, each.outputs)])()
    penalty.backward()
    assert penalty.item() == 0
    assert not each.a.grad.any()
    assert not b.grad.any()


# what it is measured by -------------------------------------------------------------------------------------------------


class Tiny(torch.nn.Module):
    """A model of one layer with an adapter: `logits` of a vocabulary as large as its outputs."""

    def __init__(self) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        super().__init__()
        torch.manual_seed(5)
        self.embed = torch.nn.Embedding(9, INPUTS).requires_grad_(False)
        self.head = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
        inject_adapter_in_model(LoraConfig(r=RANK, target_modules=["head"]), self)

    def forward(self, input_ids: Any, use_cache: bool = False) -> Any:
        return type("Out", (), {"logits": self.head(self.embed(input_ids))})()


def test_factors_are_those_of_the_logits() -> None:
    """Of logits W x themselves, J^T J is 1 / vocabulary for each of them, less what they have in common; other positions tell nothing."""
    from finetune.training.fisher import measure

    model = Tiny()
    ids = torch.randint(0, 9, (1, 4001), generator=torch.Generator().manual_seed(6))
    labels = torch.zeros_like(ids)
    labels[:, 2001:] = -100
    found = measure(model, [{"input_ids": ids, "labels": labels}] * 4, False, seed=7)
    ((inputs, outputs),) = found.values()
    assert torch.allclose(inputs, model.embed(ids)[0].square().mean(0))
    assert torch.allclose(outputs, torch.full((OUTPUTS,), (1 - 1 / OUTPUTS) / OUTPUTS), rtol=0.05)
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_neither_checkpointing_nor_chunks_nor_fused_layers_change_what_is_measured() -> None:
    from backends.demo import TARGET_DIR
    from finetune.recipe.recipe import Data, Lora, Memory, Recipe
    from finetune.training.fast.linear import fuse
    from finetune.training.fisher import measure
    from finetune.training.losses import add_chunked_head
    from finetune.training.model import Place, add_adapter, checkpoint_activations, load_base

    recipe = Recipe(TARGET_DIR, Data(()), TARGET_DIR, lora=Lora(rank=4), memory=Memory())
    ids = torch.randint(300, 2000, (2, 40), generator=torch.Generator().manual_seed(8))
    batch = {"input_ids": ids, "labels": ids}
    base = load_base(recipe, Place(torch.device("cpu"), torch.float32, "sdpa"))
    add_chunked_head(base)
    model = add_adapter(base, Lora(rank=4), str(TARGET_DIR), seed=1)
    plain = measure(model, [batch], False, seed=9)
    assert len(plain) == 7 * model.config.num_hidden_layers
    fuse(model)
    chunked = measure(model, [batch], True, seed=9)
    checkpoint_activations(model, recipe)
    thrifty = measure(model, [batch], True, seed=9)
    for name, factors in plain.items():
        for others in (chunked, thrifty):
            for one, other in zip(factors, others[name], strict=True):
                assert torch.allclose(one, other, rtol=1e-3, atol=1e-6 * float(one.max()))
        assert float(factors[0].min()) > 0
        assert float(factors[1].max()) > 0


def test_factors_go_to_a_file_and_back(tmp_path: Path) -> None:
    from finetune.training.ewc import Penalty
    from finetune.training.fisher import load, measure, save

    model = Tiny()
    ids = torch.arange(8)[None]
    found = measure(model, [{"input_ids": ids, "labels": ids % OUTPUTS}], False, seed=1)
    save(tmp_path / "ewc.safetensors", found)
    again = load(tmp_path / "ewc.safetensors", torch.device("cpu"))
    assert found.keys() == again.keys() == {"head"}
    assert all(torch.equal(one, other) for one, other in zip(found["head"], again["head"], strict=True))
    Penalty.of(1.0, model, again)
    with pytest.raises(RecipeUnusable, match="ewc: head was not measured"):
        Penalty.of(1.0, model, {"other": again["head"]})


# runs -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    return write_rows(folder / "rows.jsonl", 60, max_words=10), write_rows(
        folder / "general.jsonl", 30, seed=9, max_words=10
    )


def run(folder: Path, files: tuple[Path, Path], strength: float, resume: Path | None = None, **changes: Any) -> Told:
    rows, general = files
    ewc = Ewc(strength, (Source(general),), 16) if strength else None
    return attempt(make_recipe(folder, rows, ewc=ewc, **changes), folder, resume)


def test_it_is_told_beside_the_loss_and_holds_the_update_back(tmp_path: Path, files: tuple[Path, Path]) -> None:
    """Of four updates, in which AdamW moves as far whatever the gradient's size; only its direction is the penalty's."""
    steps = {"max_steps": 8, "schedule": "constant"}
    plain, weak, strong = (run(tmp_path / str(strength), files, strength, steps=steps) for strength in (0, 1e-6, 1e4))
    assert all("penalty" not in step for step in plain.of("step"))
    assert weak.losses() == pytest.approx(plain.losses(), rel=1e-4)
    assert strong.losses()[:2] == pytest.approx(plain.losses()[:2], rel=1e-3)
    drifts = {
        strength: [step["penalty"] / strength for step in told.of("step")]
        for strength, told in ((1e-6, weak), (1e4, strong))
    }
    assert drifts[1e-6][0] == drifts[1e4][0] == 0
    assert 0 < drifts[1e4][-1] < 0.7 * drifts[1e-6][-1]
    assert strong.losses()[-1] > plain.losses()[-1]
    assert [event["name"] for event in strong.of("stage")][-3:-1] == ["measure", "train"]


@pytest.mark.parametrize("packing", [True, False])
def test_it_is_once_in_an_update_however_many_micro_batches(
    tmp_path: Path, files: tuple[Path, Path], packing: bool
) -> None:
    """And what is measured is that of the rows, not of what fills up their batches."""
    more = {"memory": {"packing": packing}}
    steps = {"max_steps": 4, "schedule": "constant"}
    big = run(tmp_path / "big", files, 30, steps={**steps, "micro_batch_size": 4}, **more)
    many = {**steps, "micro_batch_size": 1, "gradient_accumulation_steps": 4}
    small = run(tmp_path / "small", files, 30, steps=many, **more)
    for name in ("loss", "grad_norm", "penalty"):
        one, other = ([step[name] for step in told.of("step")] for told in (small, big))
        assert one == pytest.approx(other, rel=1e-3)


def test_it_goes_on_with_what_was_measured(tmp_path: Path, files: tuple[Path, Path]) -> None:
    more: dict[str, Any] = {"watch": {"save_steps": 2}}
    whole = run(tmp_path / "whole", files, 30, steps={"max_steps": 4, "schedule": "constant"}, **more)
    run(tmp_path / "parts", files, 30, steps={"max_steps": 2, "schedule": "constant"}, **more)
    checkpoint = tmp_path / "parts" / "checkpoints" / "checkpoint-2"
    steps = {"max_steps": 4, "schedule": "constant"}
    again = run(tmp_path / "parts", files, 30, checkpoint, steps=steps, **more)
    assert "measure" not in [event["name"] for event in again.of("stage")]
    for name in ("loss", "penalty", "grad_norm"):
        assert [step[name] for step in again.of("step")] == pytest.approx(
            [step[name] for step in whole.of("step")][2:], rel=1e-5
        )
    (tmp_path / "parts" / "ewc.safetensors").unlink()
    third = run(tmp_path / "parts", files, 30, checkpoint, steps=steps, **more)
    assert "measure" in [event["name"] for event in third.of("stage")]
    assert third.losses() == pytest.approx(whole.losses()[2:], rel=1e-5)


def test_with_checkpointing_and_without_four_bits(tmp_path: Path, files: tuple[Path, Path]) -> None:
    """Both ways the penalty is that of the same rows."""
    found = {}
    for name, memory in (
        ("plain", {}),
        ("checkpointed", {"gradient_checkpointing": True}),
        ("whole", {"load_in_4bit": False}),
    ):
        found[name] = [step["penalty"] for step in run(tmp_path / name, files, 30, memory=memory).of("step")]
    assert found["checkpointed"] == pytest.approx(found["plain"], rel=1e-3, abs=1e-6)
    assert found["whole"] == pytest.approx(found["plain"], rel=0.5, abs=1e-4)


def test_rows_that_cannot_be_measured_are_said(tmp_path: Path, files: tuple[Path, Path]) -> None:
    long = write_rows(tmp_path / "long.jsonl", 3, max_words=40)
    with pytest.raises(RecipeUnusable, match="ewc: its files have no row that can be measured"):
        run(tmp_path / "run", (files[0], long), 1, data={"max_length": 24})
