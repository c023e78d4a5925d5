"""The adapter that a recipe trains: whether there is one, its rank, and the layers that get it."""

from __future__ import annotations

from backends.adapter.slots import VLLM_RANKS
from finetune.recipe.base import Base
from finetune.recipe.findings import nearest
from finetune.recipe.given import Given
from finetune.recipe.recipe import ALL_LINEAR, Lora

_ENDS = frozenset({
    "embed_tokens", "lm_head", "wte", "wpe", "embed_out", "embed_in", "word_embeddings", "tok_embeddings", "embeddings", "embedding",
    "output_layer", "embed_positions",
})  # fmt: skip
_LORA_KEYS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear", "peft_use_rslora")


def read_lora(given: Given, base: Base | None, is_plan: bool) -> tuple[Lora | None, bool]:
    """The adapter, None where all weights would be trained, and whether the base is held in 4 bits."""
    if not given.has("adapter"):
        _check_absence(given, is_plan)
        return None, False
    adapter, is_4bit = given.get("adapter", "qlora"), given.get("load_in_4bit")
    if adapter == "qlora" and is_4bit is False:
        given.problem("load_in_4bit", "false contradicts adapter: qlora: write true, or adapter: lora")
    if adapter == "lora" and is_4bit:
        given.note("adapter", "lora with load_in_4bit: true is QLoRA, and trained as that")
    rank = given.get("lora_r", Lora().rank)
    lora = Lora(
        rank=rank,
        alpha=_alpha(given, rank),
        dropout=given.get("lora_dropout", Lora().dropout),
        targets=_targets(given, base),
        use_rslora=given.get("peft_use_rslora", False),
    )
    if rank and rank not in VLLM_RANKS:
        slot = next(slot for slot in VLLM_RANKS if slot >= rank)
        given.note("lora_r", f"vLLM sets aside a slot of rank {slot} for rank {rank}")
    return lora, adapter == "qlora" or bool(is_4bit)


def adapted_names(lora: Lora | None, base: Base | None) -> frozenset[str]:
    """Last names of the layers that get the adapter; none where the base is not known, which is reported elsewhere."""
    if lora is None or base is None:
        return frozenset()
    return base.linear_names if lora.targets == (ALL_LINEAR,) else frozenset(lora.targets)


def _check_absence(given: Given, is_plan: bool) -> None:
    is_4bit = given.get("load_in_4bit")
    if is_4bit or any(given.has(name) for name in _LORA_KEYS):
        wanted = "lora" if is_4bit is False else "qlora"
        given.findings.problem(given.root, "adapter", f"it is missing: write adapter: {wanted}")
    elif not is_plan:
        given.findings.problem(
            given.root, "adapter",
            "it is missing, and without one all weights would be trained, which is planned only (--plan): write adapter: qlora or lora",
        )  # fmt: skip


def _alpha(given: Given, rank: int) -> float:
    if not given.has("lora_alpha") and given.has("lora_r") and rank:
        given.note("lora_alpha", f"not given: {2 * rank}, twice the rank")
    return float(given.get("lora_alpha", 2 * rank))


def _targets(given: Given, base: Base | None) -> tuple[str, ...]:
    names: tuple[str, ...] = given.get("lora_target_modules", ())
    is_linear = given.get("lora_target_linear")
    if ALL_LINEAR in names or "all_linear" in names:
        if len(names) > 1:
            given.problem("lora_target_modules", f"{ALL_LINEAR} stands alone: it is all of them")
        return (ALL_LINEAR,)
    for name in names:
        _check_target(name, given, base)
    if is_linear and names:
        given.note("lora_target_linear", "true: lora_target_modules are among all linear layers")
    if is_linear is False and not given.has("lora_target_modules"):
        given.problem("lora_target_linear", "false, and no lora_target_modules: name the layers, or write true")
    return (ALL_LINEAR,) if is_linear or not names else names


def _check_target(name: str, given: Given, base: Base | None) -> None:
    if name.rpartition(".")[2] in _ENDS:
        given.problem(
            "lora_target_modules",
            f"{name}: engines serve no adapter on the embeddings and the output head: take it off the list",
        )
    elif base is not None and name not in base.linear_names:
        last = name.rpartition(".")[2]
        close = last if last in base.linear_names else nearest(name, base.linear_names)
        hint = f"did you mean {close}?" if close else f"it has {', '.join(sorted(base.linear_names))}"
        given.problem("lora_target_modules", f"{name} is no linear layer of the base's blocks; {hint}")
