"""The fused layer against PEFT's own, on the demo model in four bits."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def models() -> Any:
    from backends.demo import TARGET_DIR
    from finetune.recipe.recipe import Data, Lora, Memory, Recipe
    from finetune.training.model import Place, add_adapter, load_base

    def make(dropout: float = 0.0, dtype: Any = torch.float32) -> Any:
        place = Place(torch.device("cpu"), dtype, "sdpa")
        recipe = Recipe(TARGET_DIR, Data(()), TARGET_DIR, lora=Lora(rank=8, dropout=dropout), memory=Memory())
        model = add_adapter(load_base(recipe, place), recipe.lora, str(TARGET_DIR), seed=1)
        generator = torch.Generator().manual_seed(2)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.data = 0.05 * torch.randn(value.shape, generator=generator)
        return model.train()

    return make


def step(model: Any, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """Loss and gradients of a batch."""
    ids = torch.randint(10, 2000, (2, 40), generator=torch.Generator().manual_seed(3))
    torch.manual_seed(seed)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    grads = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return loss.detach(), grads


def checkpoint(model: Any, dropout: float = 0.0) -> None:
    from backends.demo import TARGET_DIR
    from finetune.recipe.recipe import Data, Lora, Recipe
    from finetune.training.model import checkpoint_activations

    recipe = Recipe(TARGET_DIR, Data(()), TARGET_DIR, lora=Lora(dropout=dropout))
    checkpoint_activations(model, recipe)


def differs(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of a gradient, as a share of its norm."""
    assert one.keys() == other.keys()
    assert len(one) > 50
    return max(float((one[name] - other[name]).norm() / other[name].norm()) for name in other)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_loss_and_gradients_are_those_of_peft(models: Any, dropout: float) -> None:
    from finetune.training.fast.linear import fuse

    model = models(dropout)
    plain_loss, plain = step(model)
    assert fuse(model) == 7 * model.config.num_hidden_layers
    loss, grads = step(model)
    assert float((loss - plain_loss).abs()) < 1e-5
    assert differs(grads, plain) < 1e-4


def test_an_adapter_that_is_switched_off_is_left_out(models: Any) -> None:
    from finetune.training.fast.linear import fuse

    model = models().eval()
    ids = torch.arange(20, 40)[None]
    with torch.no_grad(), model.disable_adapter():
        plain = model(input_ids=ids).logits
    fuse(model)
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        with model.disable_adapter():
            off = model(input_ids=ids).logits
    assert torch.equal(off, plain)
    assert float((adapted - plain).abs().max()) > 0.1


@pytest.mark.parametrize("names", [(), ("down_proj", "o_proj")])
def test_outputs_that_are_kept_through_checkpointing_change_nothing(models: Any, names: tuple[str, ...]) -> None:
    from finetune.training.fast.keeping import keep
    from finetune.training.fast.linear import fuse

    model = models()
    fuse(model)
    plain_loss, plain = step(model)
    assert keep(model, names) == len(names) * model.config.num_hidden_layers
    checkpoint(model)
    loss, grads = step(model)
    assert float((loss - plain_loss).abs()) < 1e-6
    assert differs(grads, plain) < 1e-5


def test_what_is_kept_is_not_computed_again(models: Any) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    from finetune.training.fast.keeping import keep
    from finetune.training.fast.linear import fuse

    class Counting(TorchDispatchMode):
        num_products = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.num_products += func is torch.ops.bitsandbytes.gemm_4bit.default
            return func(*args, **(kwargs or {}))

    def count(names: tuple[str, ...]) -> int:
        model = models()
        fuse(model)
        keep(model, names)
        checkpoint(model)
        with Counting() as counting:
            step(model)
        return counting.num_products

    assert count(()) - count(("down_proj", "o_proj")) == 2 * 8


def test_in_half_precision_it_is_as_near_to_full_precision_as_peft(models: Any) -> None:
    from finetune.training.fast.linear import fuse

    _, exact = step(models())
    model = models(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        _, plain = step(model)
    fuse(model)
    checkpoint(model)
    loss, grads = step(model)
    assert all(value.dtype == torch.float32 for value in grads.values())
    assert differs(grads, exact) < 1.5 * differs(plain, exact)
    assert float(loss) == float(loss)


def test_what_an_update_changes_is_what_the_next_pass_computes_with(models: Any) -> None:
    from finetune.training.fast.linear import fuse

    model = models(dtype=torch.bfloat16)
    fuse(model)
    before, _ = step(model)
    layer = model.get_base_model().base_model.layers[0].mlp.down_proj
    with torch.no_grad():
        layer.lora_B["default"].weight.mul_(8)
    after, _ = step(model)
    assert float((after - before).abs()) > 1e-3


def test_dropout_is_the_same_in_both_passes_of_a_block(models: Any) -> None:
    from finetune.training.fast.linear import fuse

    model = models(dropout=0.3)
    fuse(model)
    _, plain = step(model)
    checkpoint(model, dropout=0.3)
    _, grads = step(model)
    assert differs(grads, plain) < 1e-5


def test_an_evaluation_keeps_nothing(models: Any) -> None:
    from finetune.training.fast.keeping import keep
    from finetune.training.fast.linear import fuse

    model = models()
    fuse(model)
    keep(model, ["down_proj"])
    checkpoint(model)
    layer = model.get_base_model().base_model.layers[0].mlp.down_proj
    with torch.no_grad():
        model.eval()(input_ids=torch.arange(20, 40)[None])
    assert layer.fused.kept is None
    step(model.train())
    assert layer.fused.kept is None
