"""What a recipe trades for memory and speed: precision, attention, packing, recomputation."""

from __future__ import annotations

from collections.abc import Collection

from finetune.recipe.given import Given
from finetune.recipe.recipe import Memory

_DTYPES = {"bf16": "bfloat16", "bfloat16": "bfloat16", "fp16": "float16", "float16": "float16", "float32": "float32"}
_ATTENTION_FLAGS = {"flash_attention": "", "sdp_attention": "sdpa", "eager_attention": "eager"}
_CHUNKED = ("chunked_cross_entropy", "chunked_loss", "cut_cross_entropy", "liger_fused_linear_cross_entropy")


def read_memory(given: Given, is_4bit: bool, loss: str, adapted: Collection[str]) -> Memory:
    """`loss`: the recipe's hook, which sees all logits. `adapted`: last names of the layers with an adapter; none: not known."""
    usual = Memory()
    return Memory(
        load_in_4bit=is_4bit,
        dtype=_dtype(given),
        packing=given.get("sample_packing", usual.packing),
        gradient_checkpointing=given.get("gradient_checkpointing", usual.gradient_checkpointing),
        keep_outputs=_keep_outputs(given, is_4bit, adapted),
        chunked_loss=_chunked_loss(given, loss),
        attention=_attention(given),
        compile=given.get("torch_compile", usual.compile),
        liger=given.get("use_liger_kernel", usual.liger),
    )


def _dtype(given: Given) -> str:
    asked = {name: dtype for name, dtype in _DTYPES.items() if given.get(name) is True}
    if len(set(asked.values())) > 1:
        first, *others = asked
        given.problem(others[-1], f"{first}: true says another precision: keep one of them")
    if asked:
        return next(iter(asked.values()))
    is_off = any(given.get(name) is False for name in ("bf16", "bfloat16")) and given.get("bf16") != "auto"
    return "float32" if is_off else ""


def _attention(given: Given) -> str:
    flags = [name for name in _ATTENTION_FLAGS if given.get(name)]
    named = given.get("attn_implementation")
    if len(flags) + (named is not None) > 1:
        given.problem(
            flags[-1],
            f"{' and '.join([*flags[:-1], *(['attn_implementation'] if named else [])])} says another one: keep one",
        )
    if given.get("flash_attention"):
        given.note("flash_attention", "true: the fastest exact attention that the device has, which on a CPU is sdpa")
    if named is not None:
        return str(named)
    if flags:
        return _ATTENTION_FLAGS[flags[0]]
    return "sdpa" if given.get("flash_attention") is False else ""


def _keep_outputs(given: Given, is_4bit: bool, adapted: Collection[str]) -> tuple[str, ...]:
    kept: tuple[str, ...] = given.get("keep_outputs", ())
    if kept and not given.get("gradient_checkpointing", Memory().gradient_checkpointing):
        given.problem("keep_outputs", "without gradient_checkpointing all outputs are kept: leave it out")
    if kept and given.get("torch_compile"):
        given.problem("keep_outputs", "torch_compile decides itself what is kept: leave one of them out")
    if kept and not is_4bit:
        given.problem("keep_outputs", "it is for layers in four bits: set load_in_4bit: true, or leave it out")
    if missing := [name for name in kept if adapted and name not in adapted]:
        words = f"no layers that get an adapter; those are {', '.join(sorted(adapted))}"
        given.problem("keep_outputs", f"{', '.join(missing)}: {words}")
    return kept


def _chunked_loss(given: Given, loss: str) -> bool:
    name = given.first(*_CHUNKED)
    asked = given.get(name)
    if loss and asked:
        given.problem(name, "a loss of your own (hooks.loss) sees all logits at once: write false")
    return not loss and (Memory().chunked_loss if asked is None else bool(asked))
