"""What to change in a recipe after general skills were lost, in the order in which it is worth trying.

The cheapest for what is learnt come first: general rows teach what was forgotten; fewer passes, a lower rate and a smaller adapter
change the base less; elastic weight consolidation (Kirkpatrick et al., arXiv:1612.00796) costs a pass over general rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SHARE, MAX_SHARE = 0.2, 0.3
"""Of general rows: what to begin with, and what to end at."""
MIN_RANK = 4
_EPOCHS, _RATE, _RANK, _EWC = 3.0, 2e-4, 16.0, 1.0
"""What holds where a recipe is silent; for EWC, what to begin with."""
_ATTENTION_NAMES = frozenset((*ATTENTION, "qkv_proj", "c_attn", "query_key_value", "dense", "wq", "wk", "wv", "wo"))


@dataclass(frozen=True, slots=True)
class Change:
    """A line of the recipe."""

    key: str
    old: str
    """The line as it is; empty where the recipe has none."""
    new: str
    """The line to write; empty: take it off."""
    line: int | None = None
    """Where it stands, from 1; None where it does not, or nobody knows."""

    @property
    def words(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        if not self.new:
            return f"{where}take off `{self.old}`"
        return f"{where}`{self.old}` -> `{self.new}`" if self.old else f"add `{self.new}`"


@dataclass(frozen=True, slots=True)
class Remedy:
    name: str
    words: str
    """Why it helps."""
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class _Recipe:
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def number(self, key: str, default: float) -> float:
        """Of a key that is given as one; YAML reads `2e-4` as a text."""
        try:
            value = float(self.values.get(key, default))
        except (TypeError, ValueError):
            return default
        return value if math.isfinite(value) and value > 0 else default

    def change(self, key: str, value: str) -> Change:
        """`value` is YAML; empty takes the line off."""
        old = f"{key}: {_yaml(self.values[key])}" if key in self.values else ""
        return Change(key, old, f"{key}: {value}" if value else "", self.lines.get(key))


def remedies(values: Mapping[str, Any], lines: Mapping[str, int] | None = None) -> tuple[Remedy, ...]:
    """`values`: the recipe's keys as YAML reads them; `lines`: where each stands. What the recipe has exhausted is left out."""
    recipe = _Recipe(values, lines or {})
    steps = (_more_general, _fewer_epochs, _lower_rate, _lower_rank, _attention_only, _lower_alpha, _ewc)
    return tuple(remedy for step in steps for remedy in step(recipe))


def _more_general(recipe: _Recipe) -> Iterator[Remedy]:
    name = "more general data"
    given = recipe.values.get("general")
    if not given:
        value = f"{{path: general.jsonl, share: {SHARE}}}"
        yield Remedy(
            name,
            "general chats among the rows keep what they exercise: 10 to 20 % are usual",
            (recipe.change("general", value),),
        )
        return
    parts = dict(given) if isinstance(given, Mapping) else {"path": given}
    share = _Recipe(parts).number("share", SHARE)
    if share < MAX_SHARE:
        raised = SHARE if share < SHARE else MAX_SHARE
        value = _yaml({**parts, "share": raised})
        yield Remedy(
            name,
            f"{share:.0%} of the rows are general: up to {MAX_SHARE:.0%} is worth trying",
            (recipe.change("general", value),),
        )


def _fewer_epochs(recipe: _Recipe) -> Iterator[Remedy]:
    steps, epochs = recipe.number("max_steps", 0), recipe.number("num_epochs", _EPOCHS)
    words = "each pass over the rows takes the weights further from the base"
    if steps >= 2:
        yield Remedy("fewer steps", words, (recipe.change("max_steps", f"{steps // 2:.0f}"),))
        return
    fewer = epochs / 2 if epochs <= 1 else math.ceil(epochs) - 1
    yield Remedy("fewer epochs", words, (recipe.change("num_epochs", f"{fewer:g}"),))


def _lower_rate(recipe: _Recipe) -> Iterator[Remedy]:
    rate = recipe.number("learning_rate", _RATE)
    changes = [recipe.change("learning_rate", _rate_words(rate / 2))]
    if not (recipe.number("warmup_steps", 0) or recipe.number("warmup_ratio", 0)):
        changes.append(recipe.change("warmup_ratio", "0.05"))
    if str(recipe.values.get("lr_scheduler") or "cosine") != "cosine":
        changes.append(recipe.change("lr_scheduler", "cosine"))
    yield Remedy(
        "lower rate", "a high rate learns fast and forgets fast; it rises slowly and falls by a cosine", tuple(changes)
    )


def _lower_rank(recipe: _Recipe) -> Iterator[Remedy]:
    rank = recipe.number("lora_r", _RANK)
    lower = max(MIN_RANK, int(rank) // 2)
    if lower >= rank:
        return
    changes = [recipe.change("lora_r", str(lower))]
    if recipe.values.get("lora_alpha"):
        ratio = lower / rank
        scale = math.sqrt(ratio) if recipe.values.get("peft_use_rslora") else ratio
        changes.append(recipe.change("lora_alpha", f"{recipe.number('lora_alpha', 2 * rank) * scale:g}"))
    words = "an adapter of lower rank changes the base in fewer directions"
    yield Remedy(
        "lower rank", f"{words}{'; alpha goes with it, so that the scale stays' if changes[1:] else ''}", tuple(changes)
    )


def _attention_only(recipe: _Recipe) -> Iterator[Remedy]:
    given = recipe.values.get("lora_target_modules") or ()
    names = [given] if isinstance(given, str) else [str(name) for name in given]
    is_all = bool(recipe.values.get("lora_target_linear")) or not names
    if not is_all and all(name.rpartition(".")[2] in _ATTENTION_NAMES for name in names):
        return
    changes = [recipe.change("lora_target_modules", f"[{', '.join(ATTENTION)}]")]
    if recipe.values.get("lora_target_linear"):
        changes.append(recipe.change("lora_target_linear", ""))
    yield Remedy(
        "attention only",
        "what a model knows lies in its MLPs for the most part: leave them as they are",
        tuple(changes),
    )


def _lower_alpha(recipe: _Recipe) -> Iterator[Remedy]:
    alpha = recipe.number("lora_alpha", 2 * recipe.number("lora_r", _RANK))
    yield Remedy(
        "lower alpha",
        "the adapter's change of the base is scaled by alpha / rank",
        (recipe.change("lora_alpha", f"{alpha / 2:g}"),),
    )


def _ewc(recipe: _Recipe) -> Iterator[Remedy]:
    strength = recipe.number("ewc_lambda", 0)
    words = "a penalty holds what general rows need of the base (elastic weight consolidation)"
    if strength:
        yield Remedy("EWC", words, (recipe.change("ewc_lambda", f"{2 * strength:g}"),))
        return
    changes = [recipe.change("ewc_lambda", f"{_EWC:g}")]
    if not recipe.values.get("general") and not recipe.values.get("ewc"):
        changes.append(recipe.change("ewc", "{path: general.jsonl}"))
    yield Remedy("EWC", words, tuple(changes))


def _rate_words(rate: float) -> str:
    """`1.5e-3`, as recipes write it."""
    mantissa, _, exponent = f"{rate:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _yaml(value: Any) -> str:
    """On one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_yaml(each)}' for name, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_yaml(each) for each in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
