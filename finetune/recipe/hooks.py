"""Code of the user's own in a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.recipe.document import Node
from finetune.recipe.findings import nearest
from finetune.recipe.given import Given
from finetune.recipe.honoured import HOOKS
from finetune.recipe.values import Unfit


@dataclass(frozen=True, slots=True)
class HookNames:
    """Each `module:Name`; empty where there is none."""

    loader: str = ""
    loss: str = ""
    callbacks: tuple[str, ...] = ()


def read_hooks(given: Given) -> HookNames:
    node: Node | None = given.get("hooks")
    if node is None:
        return HookNames()
    if not isinstance(node.value, dict):
        given.problem("hooks", f"expected {{loader, loss, callbacks}}, got {node.shown}")
    found = {}
    for name, child in node.items:
        kind = HOOKS.get(name)
        if kind is None:
            close = nearest(name, HOOKS)
            given.findings.problem(
                child.place,
                f"hooks.{name}",
                f"unknown hook; {f'did you mean {close}?' if close else 'known are ' + ', '.join(HOOKS)}",
            )
        elif not child.is_null:
            try:
                found[name] = kind.read(child)
            except Unfit as exc:
                given.findings.problem(child.place, f"hooks.{name}", str(exc))
    return HookNames(**found)
