"""The documentation of forgegate.yaml, made from the attribute docstrings of `gateway.config` and the engines' options."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from typing import Any

from backends.llamacpp.options import Options
from backends.optionschema import entries
from backends.vllm.options import Options as VllmOptions
from gateway import config

WIDTH = 100


def render() -> str:
    """A commented forgegate.yaml with every key and its default."""
    lines = [
        "# forgegate.yaml: every key with its default. ${NAME} and ${NAME:-default} take environment variables.",
        "",
    ]
    lines += _section(config.Config, 0)
    for engine, schema in (("llamacpp", Options), ("vllm", VllmOptions)):
        lines += [f"# Options of engine {engine} (models[].pools[].options):"]
        for option in entries(schema):
            shown = "" if option.is_group else _shown(option.default)
            lines += _entry(option.name, shown, option.doc, 2 + 2 * option.depth)
    return "\n".join(lines) + "\n"


def attribute_docs(cls: type[Any]) -> dict[str, str]:
    """The string under each field of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for node, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[node.target.id] = str(following.value.value)
    return docs


def _section(cls: type[Any], indent: int, is_item: bool = False) -> list[str]:
    """One line per key; the first key of a list's item carries the dash."""
    hints, docs = typing.get_type_hints(cls), attribute_docs(cls)
    lines: list[str] = []
    for item in config.keys_of(cls).values():
        inner = _nested(hints[item.name])
        name = f"- {item.name}" if is_item else item.name
        lines += _entry(name, "" if inner else _default(item), docs.get(item.name, ""), indent)
        if is_item:
            indent, is_item = indent + 2, False
        if inner:
            lines += _section(inner, indent + 2, typing.get_origin(hints[item.name]) is tuple)
    return lines


def _nested(hint: Any) -> type[Any] | None:
    candidate = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
    return candidate if dataclasses.is_dataclass(candidate) and isinstance(candidate, type) else None


def _entry(name: str, shown: str, doc: str, indent: int) -> list[str]:
    pad = " " * indent
    comment = textwrap.wrap(doc, WIDTH - indent - 2)
    return [f"{pad}# {line}" for line in comment] + [f"{pad}{name}: {shown}".rstrip()]


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default is not dataclasses.MISSING:
        return _shown(item.default)
    if item.default_factory is not dataclasses.MISSING:
        return _shown(item.default_factory())
    return "..."


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "null" if value is None else "[]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value or '""'
    return f"{value:g}" if isinstance(value, float) else str(value)
