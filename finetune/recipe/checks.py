"""Keys that are held against the base, since an adapter is served with what its base has."""

from __future__ import annotations

from typing import Any

from finetune.recipe.base import Base
from finetune.recipe.document import Node
from finetune.recipe.given import Given

_ENDINGS = ("bos_token", "eos_token", "unk_token")
_TOKENS = (*_ENDINGS, "pad_token", "additional_special_tokens")


def check_base(given: Given, base: Base) -> None:
    _check_class(given, given.first("model_type", "type_of_model"), base.architectures)
    _check_tokens(given, base)


def check_length(given: Given, base: Base, max_length: int) -> None:
    if 0 < base.max_length < max_length:
        given.note(
            "sequence_len", f"{max_length} is more than the {base.max_length} positions that the base was made for"
        )


def _check_class(given: Given, name: str, own: tuple[str, ...]) -> None:
    asked = given.get(name)
    if asked and own and asked not in own and not asked.startswith("Auto"):
        given.problem(name, f"the base is {' or '.join(own)}, not {asked}: leave it out")
    elif asked:
        given.note(name, f"{asked}: the class is the one that the base's config.json names")


def _check_tokens(given: Given, base: Base) -> None:
    node: Node | None = given.get("special_tokens")
    if node is None:
        return
    if not isinstance(node.value, dict):
        given.problem("special_tokens", f"expected {{pad_token: ...}}, got {node.shown}")
    for name, child in node.items:
        key = f"special_tokens.{name}"
        if name not in _TOKENS:
            given.findings.problem(child.place, key, f"unknown token; known are {', '.join(_TOKENS)}")
        elif name == "pad_token":
            given.note(key, "without effect: padding is masked, whichever token it is")
        elif name == "additional_special_tokens" and child.value:
            given.findings.problem(
                child.place, key, "refused: a longer vocabulary changes the embeddings, which engines cannot serve"
            )
        elif name in _ENDINGS and not child.is_null and child.value != _text(base.tokenizer.get(name)):
            own = _text(base.tokenizer.get(name))
            given.findings.problem(child.place, key, f"the base has {own!r}, which engines go by: leave it out")


def _text(token: Any) -> str:
    """tokenizer_config.json has a text, or an object with its content."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
