"""Whether a value follows a JSON schema: of draft 2020-12 what answers are described by; a keyword that is not known is refused.

https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any] | bool
_SILENT = frozenset(
    ("$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format")
)  # fmt: skip
"""Say nothing about whether a value is valid; `format` neither, as the draft has it."""
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
}
_MAX_DEPTH = 64


class SchemaUnusable(Exception):
    """The schema itself cannot be held against anything; the message says where and why."""


def loads_strictly(text: str) -> Any:
    """A JSON text: each key once, no NaN. Raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check(schema: Any, at: str = "") -> None:
    """Raises SchemaUnusable for a keyword that is not known, or has what it does not take."""
    _check(schema, schema, at or "the schema", 0)


def is_valid(schema: Schema, value: Any) -> bool:
    """`schema` has passed `check`."""
    return _Held(schema).holds(schema, value, 0)


def _check(schema: Any, root: Any, at: str, depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise SchemaUnusable(f"{at} is no schema: an object, true or false")
    if depth > _MAX_DEPTH:
        raise SchemaUnusable(f"{at} is nested too deeply")
    for keyword, given in schema.items():
        if keyword in _SILENT:
            continue
        if keyword not in _TAKES:
            raise SchemaUnusable(
                f"{at}: the keyword {keyword!r} is not known here; known are {', '.join(sorted(_TAKES))}"
            )
        words, takes = _TAKES[keyword]
        if not takes(given):
            raise SchemaUnusable(f"{at}: {keyword} takes {words}")
        if keyword == "$ref":
            _target(root, given, at)
    for name, below in _below(schema):
        _check(below, root, f"{at}: {name}", depth + 1)


def _below(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword in ("$defs", "definitions", "properties", "patternProperties"):
        yield from ((f"{keyword}.{name}", below) for name, below in schema.get(keyword, {}).items())
    for keyword in ("items", "additionalProperties", "not", "contains", "propertyNames"):
        if keyword in schema:
            yield keyword, schema[keyword]
    for keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
        yield from ((f"{keyword}.{place}", below) for place, below in enumerate(schema.get(keyword, ())))


def _target(root: Any, reference: str, at: str) -> Any:
    """What `#/$defs/name` names."""
    if reference == "#":
        return root
    found = root
    for step in reference.removeprefix("#/").split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if not reference.startswith("#/") or not isinstance(found, dict) or step not in found:
            raise SchemaUnusable(f"{at}: $ref {reference!r} is no place of this schema, such as #/$defs/name")
        found = found[step]
    return found


class _Held:
    def __init__(self, root: Any) -> None:
        self._root = root

    def holds(self, schema: Any, value: Any, depth: int) -> bool:
        if isinstance(schema, bool):
            return schema
        if depth > _MAX_DEPTH:  # a reference that comes back to itself
            return False
        return all(self._keyword(keyword, given, schema, value, depth + 1) for keyword, given in schema.items())

    def _keyword(self, keyword: str, given: Any, schema: Mapping[str, Any], value: Any, depth: int) -> bool:
        if keyword == "$ref":
            return self.holds(_target(self._root, given, "the schema"), value, depth)
        if keyword in _COMBINED:
            return _COMBINED[keyword](self.holds(below, value, depth) for below in given)
        if keyword == "not":
            return not self.holds(given, value, depth)
        if isinstance(value, dict):
            return self._of_object(keyword, given, schema, value, depth)
        if isinstance(value, list):
            return self._of_array(keyword, given, schema, value, depth)
        return _of_value(keyword, given, value)

    def _of_object(self, keyword: str, given: Any, schema: Mapping[str, Any], value: Any, depth: int) -> bool:
        if keyword == "properties":
            return all(self.holds(below, value[name], depth) for name, below in given.items() if name in value)
        if keyword == "patternProperties":
            return all(
                self.holds(below, found, depth)
                for pattern, below in given.items() for name, found in value.items() if re.search(pattern, name)
            )  # fmt: skip
        if keyword == "additionalProperties":
            named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
            others = [
                name for name in value if name not in named and not any(re.search(each, name) for each in patterns)
            ]
            return all(self.holds(given, value[name], depth) for name in others)
        if keyword == "propertyNames":
            return all(self.holds(given, name, depth) for name in value)
        if keyword == "required":
            return all(name in value for name in given)
        if keyword in ("minProperties", "maxProperties"):
            return _bounded(keyword, given, len(value))
        return _of_value(keyword, given, value)

    def _of_array(self, keyword: str, given: Any, schema: Mapping[str, Any], value: list[Any], depth: int) -> bool:
        if keyword == "prefixItems":
            return all(self.holds(below, each, depth) for below, each in zip(given, value, strict=False))
        if keyword == "items":
            return all(self.holds(given, each, depth) for each in value[len(schema.get("prefixItems", ())) :])
        if keyword == "contains":
            return any(self.holds(given, each, depth) for each in value)
        if keyword == "uniqueItems":
            return not given or not any(same(left, right) for at, left in enumerate(value) for right in value[:at])
        if keyword in ("minItems", "maxItems"):
            return _bounded(keyword, given, len(value))
        return _of_value(keyword, given, value)


def _of_value(keyword: str, given: Any, value: Any) -> bool:
    """What holds for any value, for texts and for numbers; True for a keyword that is about others."""
    if keyword == "type":
        return any(_TYPES[name](value) for name in ([given] if isinstance(given, str) else given))
    if keyword == "enum":
        return any(same(value, each) for each in given)
    if keyword == "const":
        return same(value, given)
    if isinstance(value, str) and keyword in ("minLength", "maxLength"):
        return _bounded(keyword, given, len(value))
    if isinstance(value, str) and keyword == "pattern":
        return re.search(given, value) is not None
    if _is_number(value) and keyword in _NUMBERS:
        return _NUMBERS[keyword](value, given)
    return True


def same(left: Any, right: Any) -> bool:
    """Equality of JSON: true is not 1, 1.0 is."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def _bounded(keyword: str, bound: int, size: int) -> bool:
    return size >= bound if keyword.startswith("min") else size <= bound


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_multiple(value: float, of: float) -> bool:
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    quotient = value / of
    return math.isfinite(quotient) and abs(quotient - round(quotient)) < 1e-9


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return True


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_COMBINED: Mapping[str, Callable[[Iterator[bool]], bool]] = {
    "allOf": all, "anyOf": any, "oneOf": lambda found: sum(found) == 1,
}  # fmt: skip
_NUMBERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: bool(value >= bound),
    "maximum": lambda value, bound: bool(value <= bound),
    "exclusiveMinimum": lambda value, bound: bool(value > bound),
    "exclusiveMaximum": lambda value, bound: bool(value < bound),
    "multipleOf": _is_multiple,
}
_Takes = tuple[str, Callable[[Any], bool]]
_COUNT: _Takes = ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0)
_NUMBER: _Takes = ("a number", _is_number)
_SCHEMA: _Takes = ("a schema", lambda value: isinstance(value, dict | bool))
_SCHEMAS: _Takes = ("a list of schemas", lambda value: isinstance(value, list) and bool(value))
_TAKES: Mapping[str, _Takes] = {
    "type": (
        f"one or some of {', '.join(_TYPES)}",
        lambda value: value in _TYPES if isinstance(value, str) else isinstance(value, list) and all(each in _TYPES for each in value),
    ),
    "enum": ("a list", lambda value: isinstance(value, list)),
    "const": ("a value", lambda value: True),
    "patternProperties": ("an object of schemas", lambda value: isinstance(value, dict) and all(map(_is_pattern, value))),
    "required": ("a list of names", lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value)),
    "pattern": ("a regular expression", _is_pattern),
    "uniqueItems": ("true or false", lambda value: isinstance(value, bool)),
    "$ref": ("a place of this schema, such as #/$defs/name", lambda value: isinstance(value, str)),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    **dict.fromkeys(("properties", "$defs", "definitions"), ("an object of schemas", lambda value: isinstance(value, dict))),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNT),
    **dict.fromkeys(("additionalProperties", "propertyNames", "items", "contains", "not"), _SCHEMA),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SCHEMAS),
}  # fmt: skip
