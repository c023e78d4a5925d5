"""Whether an answer reasons first: what the model's template lets a request say about it."""

from __future__ import annotations

from typing import Any

from backends.llamacpp.api.fields import RequestError
from backends.llamacpp.chat import ChatTemplate

_SWITCHES = ("enable_thinking", "thinking")
"""Variables by which the templates of models that can do both are told: Qwen 3 and GLM, DeepSeek V3.1 and Granite."""


def switched(template: ChatTemplate, *, on: bool, param: str) -> dict[str, Any]:
    """The template's variables for an answer with or without reasoning. Raises RequestError where the model cannot."""
    switch = next((name for name in _SWITCHES if name in template.variables), None)
    if switch:
        return {switch: on}
    if on and not template.opens_thinking:
        raise RequestError(f"{param}: this model cannot be told to reason first", param=param, code="unsupported_field")
    if not on and template.opens_thinking:
        raise RequestError(f"{param}: this model always reasons first", param=param, code="unsupported_field")
    return {}
