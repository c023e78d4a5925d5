"""Rules on the tensors: by their names and shapes against the base and the configuration, then by their values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from backends.adapter.base import LAYER
from backends.adapter.config_rules import Rule
from backends.adapter.problem import Problem
from backends.adapter.slots import VLLM_RANKS
from backends.adapter.subject import PREFIX, Subject, tensor_name
from backends.adapter.weights import FLOATS, Entry

VLLM_MAX_VOCAB = 258_048
"""Above it vLLM puts no adapter on the output matrix (vllm/lora/layers/logits_processor.py)."""
_ANEW = "save the adapter anew with peft's save_pretrained"
_RIGHT_BASE = "publish it for the base that it was trained on, or train it on this one"
_FINITE = "train again with a lower learning rate or in bf16; the adapter is broken"
_ALONE = "train without it, or merge the adapter into the base and serve that model"
_F32_MAX = float(np.finfo(np.float32).max)


def wrong_base(subject: Subject) -> Iterator[Problem]:
    for where, digest in subject.declared.items():
        if digest != subject.base.source_digest:
            words = (
                f"it was trained on the base {digest} ({where}); {subject.base.name} is {subject.base.source_digest}"
            )
            yield Problem("wrong-base", where, words, _RIGHT_BASE)


def tensor_kind(subject: Subject) -> Iterator[Problem]:
    """Every tensor is lora_A or lora_B of a module."""
    for name in subject.others:
        rule, words, fix = _kind_of(name)
        yield Problem(rule, name, f"tensor {name} {words}: {subject.engine_words} cannot serve it", fix)


def _kind_of(name: str) -> tuple[str, str, str]:
    if "lora_magnitude_vector" in name:
        return "dora", "is a magnitude of DoRA", "train it as plain LoRA, or merge it into the base"
    if "lora_embedding_" in name:
        return "embedding-lora", "is LoRA on an embedding", "leave the embedding out of target_modules and train again"
    if name.endswith((".lora_A.bias", ".lora_B.bias")):
        return "lora-bias", "is a bias of LoRA", "train with lora_bias=False"
    if "modules_to_save" in name or name.endswith(("embed_tokens.weight", "lm_head.weight")):
        return "modules-to-save", "is a whole weight of the base", _ALONE
    if name.endswith(".bias"):
        return "bias", "is a trained bias", "train with bias='none'"
    if name.endswith((".lora_A.weight", ".lora_B.weight")):
        return "unknown-tensor", f"does not begin with {PREFIX}, and PEFT would not load it", _ANEW
    return "unknown-tensor", "is neither lora_A nor lora_B of a module", _ANEW


def nothing(subject: Subject) -> Iterator[Problem]:
    if not subject.factors and not subject.weights.problems:
        yield Problem("no-tensors", "", "it holds no lora_A and lora_B tensors", _ANEW)


def pair(subject: Subject) -> Iterator[Problem]:
    lost = {tensor for problem in subject.weights.problems if (tensor := problem.tensor)}
    for module, factors in subject.factors.items():
        for here, there in (("A", "B"), ("B", "A")):
            absent = tensor_name(module, there)
            if here in factors and there not in factors and absent not in lost:
                words = f"tensor {factors[here].name} is there without lora_{there}"
                yield Problem("missing-factor", absent, words, _ANEW)


def dtype(subject: Subject) -> Iterator[Problem]:
    for entry in _entries(subject):
        if entry.dtype not in FLOATS:
            words = f"tensor {entry.name} is {entry.dtype}, not F32, F16 or BF16"
            yield Problem("dtype", entry.name, words, "save the adapter in float32, float16 or bfloat16")


def target(subject: Subject) -> Iterator[Problem]:
    """The module exists in the base, and the engines can put an adapter on it."""
    base = subject.base
    for module, factors in subject.factors.items():
        name = next(iter(factors.values())).name
        layer = LAYER.search(module)
        if layer and int(layer[1]) >= base.num_layers:
            words = f"tensor {name} is of layer {int(layer[1])}; {base.name} has layers 0 to {base.num_layers - 1}"
            yield Problem("layer-beyond-base", name, words, _RIGHT_BASE)
        elif module.endswith("embed_tokens"):
            words = f"tensor {name} is on the embedding: {subject.engine_words} cannot serve it"
            yield Problem("embedding-lora", name, words, "leave the embedding out of target_modules and train again")
        elif module.endswith("lm_head"):
            yield from _output_matrix(subject, name, module)
        elif module not in base.modules:
            words = f"tensor {name}: {base.name} has no matrix {module}"
            yield Problem("unknown-target", name, words, _RIGHT_BASE)


def _output_matrix(subject: Subject, name: str, module: str) -> Iterator[Problem]:
    fix = "leave lm_head out of target_modules and train again"
    if subject.base.is_tied or module not in subject.base.modules:
        words = f"tensor {name}: {subject.base.name} shares its output matrix with the embedding; {subject.engine_words} cannot serve it"
        yield Problem("tied-output", name, words, fix)
    elif "vllm" in subject.engines and subject.base.vocab_size > VLLM_MAX_VOCAB:
        words = f"tensor {name}: vLLM puts no adapter on an output matrix of more than {VLLM_MAX_VOCAB:,} tokens"
        yield Problem("output-too-wide", name, words, fix)


def shape(subject: Subject) -> Iterator[Problem]:
    """lora_A is [rank, in], lora_B [out, rank]."""
    for module, factors in subject.factors.items():
        expected = subject.base.modules.get(module)
        for factor, entry in factors.items():
            if len(entry.shape) != 2 or 0 in entry.shape:
                words = f"tensor {entry.name} has the shape {list(entry.shape)}, not that of a matrix"
                yield Problem("shape", entry.name, words, _ANEW)
            elif expected is not None and entry.shape[factor == "A"] != expected[factor == "A"]:
                fits = f"[rank, {expected[1]}]" if factor == "A" else f"[{expected[0]}, rank]"
                words = f"tensor {entry.name} has the shape {list(entry.shape)}; {subject.base.name} takes {fits}"
                yield Problem("shape", entry.name, words, _RIGHT_BASE)


def rank_mismatch(subject: Subject) -> Iterator[Problem]:
    for module, factors in subject.factors.items():
        told = subject.matches[module].rank
        for factor, entry in factors.items():
            stored = _rank(factor, entry)
            if stored is not None and stored != told:
                words = f"tensor {entry.name} has rank {stored}, adapter_config.json says {told}"
                yield Problem("rank-mismatch", entry.name, words, "correct r or rank_pattern, or save the adapter anew")


def rank_limit(subject: Subject) -> Iterator[Problem]:
    for module, factors in subject.factors.items():
        entry = next(iter(factors.values()))
        stored, sides = _rank(next(iter(factors)), entry), subject.base.modules.get(module)
        if stored is None:
            continue
        fix = "train with a smaller r, or reduce it by a singular value decomposition"
        if "vllm" in subject.engines and stored > VLLM_RANKS[-1]:
            words = f"tensor {entry.name} has rank {stored}: vLLM takes up to {VLLM_RANKS[-1]}"
            yield Problem("rank-limit", entry.name, words, fix)
        elif sides is not None and stored > max(sides):
            words = f"tensor {entry.name} has rank {stored}, more than both sides of the matrix {list(sides)}"
            yield Problem("rank-limit", entry.name, words, fix)


def _rank(factor: str, entry: Entry) -> int | None:
    return entry.shape[0 if factor == "A" else 1] if len(entry.shape) == 2 and 0 not in entry.shape else None


def outside_targets(subject: Subject) -> Iterator[Problem]:
    """PEFT leaves out what its configuration does not target: then the trainer saw another model than an engine would serve."""
    for module, factors in subject.factors.items():
        if not subject.matches[module].is_targeted:
            entry = next(iter(factors.values()))
            words = f"tensor {entry.name}: target_modules does not name {module}, and PEFT would not load it"
            yield Problem("outside-targets", entry.name, words, "correct target_modules, or save the adapter anew")


def untrained_target(subject: Subject) -> Iterator[Problem]:
    missing = [
        module for module, match in subject.matches.items() if match.is_targeted and module not in subject.factors
    ]
    # A GGUF has its matrices under all names that any model gives them.
    if missing and subject.base.folder is not None:
        words = f"{len(missing)} modules that it targets have no tensors, {missing[0]} first: they stay the base's"
        yield Problem("untrained-target", missing[0], words, "check that the file is whole", is_warning=True)


def values(subject: Subject) -> Iterator[Problem]:
    """All numbers are finite, and some of them do something."""
    for name, peak in subject.peaks.items():
        if not np.isfinite(peak):
            found = subject.weights.tensor(name).to_f32()
            count = int(found.size - np.isfinite(found).sum())
            words = f"tensor {name} holds {count} values that are no numbers (NaN or infinite)"
            yield Problem("not-finite", name, words, _FINITE)
    second = [factors["B"] for factors in subject.factors.values() if "B" in factors]
    if second and all(subject.peaks.get(entry.name, 1.0) == 0.0 for entry in second):
        words = "all of its lora_B are zero: it answers exactly as the base does"
        yield Problem("no-effect", "", words, "check that it was trained", is_warning=True)


def scale(subject: Subject) -> Iterator[Problem]:
    """Folded into lora_B, it stays within float32."""
    for module, factors in subject.factors.items():
        peak = subject.peaks.get(factors["B"].name, 0.0) if "B" in factors else 0.0
        factor = abs(subject.matches[module].scale)
        if np.isfinite(peak) and not peak * factor <= _F32_MAX:
            name = factors["B"].name
            words = f"tensor {name} times its scale {factor:g} (alpha over rank) is beyond float32"
            yield Problem("overflow", name, words, _FINITE)


def _entries(subject: Subject) -> Iterator[Entry]:
    for factors in subject.factors.values():
        yield from factors.values()


def vllm_limits(subject: Subject) -> Iterator[Problem]:
    """What the vLLM engines of this gateway set aside memory for, and put adapters on, as they are configured."""
    limits = subject.base.vllm
    if limits is None or "vllm" not in subject.engines:
        return
    for module, factors in subject.factors.items():
        factor, entry = next(iter(factors.items()))
        stored, last = _rank(factor, entry), module.rsplit(".", 1)[-1]
        if stored is not None and limits.max_rank < stored <= VLLM_RANKS[-1]:
            fitting = next(rank for rank in VLLM_RANKS if rank >= stored)
            words = f"tensor {entry.name} has rank {stored}; the vLLM engines of {subject.base.name} take up to {limits.max_rank}"
            fix = f"set lora.max_rank: {fitting} in the options of its vllm pool, or train with a smaller r"
            yield Problem("vllm-max-rank", entry.name, words, fix)
        if last not in limits.target_modules:
            words = (
                f"tensor {entry.name} is on {last}, which the vLLM engines of {subject.base.name} put no adapters on"
            )
            fix = f"add {last} to lora.target_modules in the options of its vllm pool, or train without it"
            yield Problem("vllm-target", entry.name, words, fix)


TENSOR_RULES: dict[str, Rule] = {
    "wrong_base": wrong_base, "tensor_kind": tensor_kind, "nothing": nothing, "pair": pair, "dtype": dtype, "target": target,
    "shape": shape, "rank_limit": rank_limit, "vllm_limits": vllm_limits, "values": values,
}  # fmt: skip
MATCHING_RULES: dict[str, Rule] = {
    "rank_mismatch": rank_mismatch, "outside_targets": outside_targets, "untrained_target": untrained_target,
    "scale": scale,
}  # fmt: skip
"""These apply the configuration's patterns, so the configuration must be sound."""
