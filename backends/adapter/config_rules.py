"""Rules on adapter_config.json: what changes the mathematics and is not folded here is refused by its name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from backends.adapter.problem import Problem
from backends.adapter.subject import Subject

Rule = Callable[[Subject], Iterator[Problem]]

_PLAIN = "train it as plain LoRA, or merge it into the base and serve that model"
_CONVERT = "convert it with save_pretrained(..., path_initial_model_for_weight_conversion=...) and upload the result"
_CHECK = "correct adapter_config.json, or save the adapter anew with save_pretrained"
_ALONE = "train without it, or merge the adapter into the base and serve that model"

VARIANTS = {
    "use_dora": ("dora", "DoRA (use_dora) scales the whole matrix, not only what the adapter adds"),
    "use_qalora": ("qalora", "QA-LoRA (use_qalora) pools its input"),
    "use_bdlora": ("bdlora", "BD-LoRA (use_bdlora) stores block-diagonal factors"),
    "arrow_config": ("arrow", "Arrow routes between several adapters"),
    "kasa_config": ("kasa", "KaSA changes the base's own weights"),
    "monteclora_config": ("monteclora", "MonteCLoRA draws its weights at random"),
    "alora_invocation_tokens": ("alora", "aLoRA (alora_invocation_tokens) is active on a part of the text only"),
    "invocation_string": ("alora", "aLoRA (invocation_string) is active on a part of the text only"),
    "layer_replication": ("layer-replication", "layer_replication makes another model of the base"),
    "megatron_config": ("megatron", "Megatron's parallel layers are stored otherwise"),
    "fan_in_fan_out": ("fan-in-fan-out", "fan_in_fan_out stores the base's matrices transposed"),
}
"""Key -> rule, and why it is not a plain product of two matrices."""
WHOLE_WEIGHTS = {
    "modules_to_save": ("modules-to-save", "modules_to_save stores whole modules beside the adapter"),
    "trainable_token_indices": ("trainable-tokens", "trainable_token_indices changes rows of the embedding"),
    "lora_bias": ("lora-bias", "lora_bias adds a bias to lora_B"),
    "target_parameters": ("target-parameters", "target_parameters puts the adapter on parameters that are no modules"),
}
HARMLESS = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_rslora", "velora_config",
})  # fmt: skip
"""Read elsewhere, or of training only (VeLoRA changes the backward pass, `init_lora_weights` has a rule of its own)."""
_CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


def variant(subject: Subject) -> Iterator[Problem]:
    for key, (rule, words) in VARIANTS.items():
        if subject.config.get(key):
            yield Problem(rule, key, f"{words}: {subject.engine_words} cannot serve it", _PLAIN)


def whole_weights(subject: Subject) -> Iterator[Problem]:
    for key, (rule, words) in WHOLE_WEIGHTS.items():
        if subject.config.get(key):
            yield Problem(rule, key, f"{words}: {subject.engine_words} cannot serve it", _ALONE)


def bias(subject: Subject) -> Iterator[Problem]:
    value = subject.number("bias", "none")
    if value != "none":
        words = f"bias is {value!r}: trained biases cannot be served by {subject.engine_words}"
        yield Problem("bias", "bias", words, "train with bias='none'")


def peft_type(subject: Subject) -> Iterator[Problem]:
    value = subject.config.get("peft_type")
    if value != "LORA":
        words = f"peft_type is {value!r}: {subject.engine_words} can serve LORA only"
        yield Problem("peft-type", "peft_type", words, _PLAIN)


def task_type(subject: Subject) -> Iterator[Problem]:
    value = subject.config.get("task_type")
    if value not in (None, "CAUSAL_LM"):
        words = f"task_type is {value!r}: this base generates text (CAUSAL_LM)"
        yield Problem("task-type", "task_type", words, "train the adapter for CAUSAL_LM")


def initialisation(subject: Subject) -> Iterator[Problem]:
    value = subject.config.get("init_lora_weights")
    if isinstance(value, str) and value.lower().startswith(_CHANGES_BASE):
        words = f"it was begun with {value!r}, which changed the base's weights: on the base as it is served the adapter is wrong"
        yield Problem("changed-base", "init_lora_weights", words, _CONVERT)


def rank(subject: Subject) -> Iterator[Problem]:
    given = {"r": subject.config.get("r"), **_patterns(subject, "rank_pattern")}
    for key, value in given.items():
        if type(value) is not int or value <= 0:
            yield Problem("rank", key, f"{key} is {_shown(value)}: a rank is a whole number above 0", _CHECK)


def alpha(subject: Subject) -> Iterator[Problem]:
    given = {"lora_alpha": subject.config.get("lora_alpha"), **_patterns(subject, "alpha_pattern")}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            yield Problem("alpha", key, f"{key} is {_shown(value)}: an alpha is a finite number", _CHECK)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def patterns(subject: Subject) -> Iterator[Problem]:
    """Rank and alpha patterns, and what names modules, have the types and the syntax that PEFT expects."""
    for key in ("rank_pattern", "alpha_pattern"):
        value = subject.config.get(key)
        if value is not None and not isinstance(value, dict):
            yield Problem("pattern", key, f"{key} is {_shown(value)}, not an object", _CHECK)
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = subject.config.get(key)
        if not (value is None or isinstance(value, str) or _are_all(value, str)):
            yield Problem("pattern", key, f"{key} is {_shown(value)}, neither a text nor a list of texts", _CHECK)
    layers = subject.config.get("layers_to_transform")
    if not (layers is None or type(layers) is int or _are_all(layers, int)):
        words = f"layers_to_transform is {_shown(layers)}, neither a number nor a list of numbers"
        yield Problem("pattern", "layers_to_transform", words, _CHECK)
    for key, pattern in _expressions(subject):
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as exc:
            yield Problem("pattern", key, f"{pattern!r} in {key} is no regular expression: {exc}", _CHECK)


def _expressions(subject: Subject) -> Iterator[tuple[str, str]]:
    for key in ("rank_pattern", "alpha_pattern"):
        yield from ((key, f"(.*\\.)?({pattern})$") for pattern in _patterns(subject, key))
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = subject.config.get(key)
        if isinstance(value, str):
            yield key, value


def unknown_setting(subject: Subject) -> Iterator[Problem]:
    known = HARMLESS | VARIANTS.keys() | WHOLE_WEIGHTS.keys()
    for key, value in subject.config.items():
        if key not in known and value:
            words = f"{key} = {_shown(value)} is not known here: it may change what the adapter computes"
            fix = "remove the key if it concerns training only; else upgrade forgegate"
            yield Problem("unknown-setting", key, words, fix)


def _patterns(subject: Subject, key: str) -> dict[str, Any]:
    value = subject.config.get(key)
    return value if isinstance(value, dict) else {}


def _are_all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _shown(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."


CONFIG_RULES: dict[str, Rule] = {
    "peft_type": peft_type, "variant": variant, "whole_weights": whole_weights, "bias": bias, "task_type": task_type,
    "initialisation": initialisation, "rank": rank, "alpha": alpha, "patterns": patterns, "unknown_setting": unknown_setting,
}  # fmt: skip
