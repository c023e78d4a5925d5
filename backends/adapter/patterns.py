"""Which modules a PEFT configuration means, and with what rank and alpha: PEFT's own rules, which are those of `re`.

https://github.com/huggingface/peft: `get_pattern_key`, `check_target_module_exists`. Module names are the base model's
(`model.layers.0.self_attn.q_proj`). Standard library only. The patterns come from the upload: the caller bounds the time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_RANK = DEFAULT_ALPHA = 8


@dataclass(frozen=True, slots=True)
class Match:
    """What a configuration says of one module; `scale` is what PEFT multiplies `lora_B @ lora_A` with."""

    rank: int
    scale: float
    is_targeted: bool


def match(config: Mapping[str, Any], module: str) -> Match:
    """Of a configuration whose ranks, alphas and patterns are sound."""
    return Match(rank_of(config, module), scale_of(config, module), is_targeted(config, module))


def pattern_value(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that matches the whole name or what follows a dot in it. Raises re.error."""
    for key, value in patterns.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return patterns.get(module, default)


def rank_of(config: Mapping[str, Any], module: str) -> Any:
    return pattern_value(config.get("rank_pattern") or {}, module, config.get("r", DEFAULT_RANK))


def scale_of(config: Mapping[str, Any], module: str) -> float:
    rank = rank_of(config, module)
    alpha = pattern_value(config.get("alpha_pattern") or {}, module, config.get("lora_alpha", DEFAULT_ALPHA))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def is_targeted(config: Mapping[str, Any], module: str) -> bool:
    """Whether PEFT puts an adapter on this module."""
    if _is_listed(config.get("exclude_modules") or [], module):
        return False
    targets = config.get("target_modules") or []
    if isinstance(targets, str):
        if targets.lower() == "all-linear":
            return not module.endswith(("lm_head", "embed_tokens"))
        return bool(re.fullmatch(targets, module))
    layers = config.get("layers_to_transform")
    is_by_layer = layers is not None and layers != []
    return _is_listed(targets, module) and (not is_by_layer or _layer_of(config, module) in _as_list(layers))


def _is_listed(names: str | Iterable[str], module: str) -> bool:
    if isinstance(names, str):
        return bool(re.fullmatch(names, module))
    return any(module == name or module.endswith(f".{name}") for name in names)


def _layer_of(config: Mapping[str, Any], module: str) -> int | None:
    patterns = _as_list(config.get("layers_pattern") or [])
    if not patterns:
        found = re.match(r".*?\.[^.]*\.(?P<layer>\d+)\.", module)
        return int(found["layer"]) if found else None
    for pattern in patterns:
        if found := re.match(rf"(?:^|.*?\.){pattern}\.(?P<layer>\d+)\.", module):
            return int(found["layer"])
    return None


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set) else [value]
