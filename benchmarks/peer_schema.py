"""Answers under a JSON schema: what is asked, and whether what came back follows it as far as it goes.

An answer that stops at its token limit is cut anywhere, so it is read as the beginning of a document. Of JSON Schema the
check knows type, enum, properties, required, additionalProperties: false, items and the bounds of strings and arrays; it
lets pass what it does not know.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.workload import WorkloadError

Schema = dict[str, Any]

MIN_RECORDS = 32
"""Of the built-in schema: more than 500 characters of keys alone, so that no answer of 128 tokens can be complete."""

BUILT_IN: Schema = {
    "type": "object",
    "properties": {
        "records": {
            "type": "array",
            "minItems": MIN_RECORDS,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 8, "maxLength": 40},
                    "kind": {"enum": ["person", "place", "thing"]},
                    "count": {"type": "integer"},
                    "is_open": {"type": "boolean"},
                    "words": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 4},
                },
                "required": ["name", "kind", "count", "is_open", "words"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["records"],
    "additionalProperties": False,
}


def read_schema(path: Path) -> Schema:
    """Raises WorkloadError."""
    try:
        schema = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise WorkloadError(f"cannot read a JSON schema from {path}: {exc}") from exc
    if not isinstance(schema, dict):
        raise WorkloadError(f"{path}: a JSON schema is an object")
    return schema


def response_format(schema: Schema) -> dict[str, Any]:
    """OpenAI's field that asks for it."""
    return {"type": "json_schema", "json_schema": {"name": "records", "strict": True, "schema": schema}}


def violation(text: str, schema: Schema) -> str | None:
    """Why `text` cannot be the beginning of a document that follows `schema`; None: it can."""
    reader = _Reader(text)
    try:
        reader.value(schema, "$")
        reader.end()
    except _CutError:
        return None
    except _ViolationError as exc:
        return f"{exc} at character {reader.at}"
    return None


class _CutError(Exception):
    """The text ends here."""


class _ViolationError(Exception):
    """The text does not follow the schema; the message says where."""


_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?$")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_CUT_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]*)?)?$")
_WORDS = {"true": True, "false": False, "null": None}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


class _Reader:
    """Recursive descent over a text that may end anywhere. Methods raise _CutError there, _ViolationError where it is wrong."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def value(self, schema: Schema, path: str) -> Any:
        """Read one value; returns it if it is no object or array."""
        kind = {"{": "object", "[": "array"}.get(self._peek())
        wanted = schema.get("type")
        if kind and wanted not in (None, kind):
            raise _ViolationError(f"{path}: {kind} where {wanted} is due")
        if kind == "object":
            return self._object(schema, path)
        if kind == "array":
            return self._array(schema, path)
        value = self._scalar(path)
        if wanted is not None and (type(value) not in _TYPES.get(wanted, ())):
            raise _ViolationError(f"{path}: {value!r} where {wanted} is due")
        if "enum" in schema and value not in schema["enum"]:
            raise _ViolationError(f"{path}: {value!r} is none of {schema['enum']}")
        if isinstance(value, str) and not schema.get("minLength", 0) <= len(value) <= schema.get(
            "maxLength", len(value)
        ):
            raise _ViolationError(f"{path}: a string of {len(value)} characters")
        return value

    def end(self) -> None:
        """Nothing may follow but white space."""
        self.at = self._after_space()
        if self.at < len(self.text):
            raise _ViolationError("text after the document's end")

    def _object(self, schema: Schema, path: str) -> None:
        properties, is_closed = schema.get("properties", {}), schema.get("additionalProperties") is False
        names: set[str] = set()
        self._take("{", path)
        while self._peek() != "}":
            if names:
                self._take(",", path)
            self._peek()
            name = self._scalar(path)
            if not isinstance(name, str) or name in names or (is_closed and name not in properties):
                raise _ViolationError(f"{path}: no property {name!r} here")
            names.add(name)
            self._take(":", path)
            self.value(properties.get(name, {}), f"{path}.{name}")
        if missing := set(schema.get("required", ())) - names:
            raise _ViolationError(f"{path}: ends without {min(missing)!r}")
        self._take("}", path)

    def _array(self, schema: Schema, path: str) -> None:
        num = 0
        self._take("[", path)
        while self._peek() != "]":
            if num:
                self._take(",", path)
            self.value(schema.get("items", {}), f"{path}[{num}]")
            num += 1
        if not schema.get("minItems", 0) <= num <= schema.get("maxItems", num):
            raise _ViolationError(f"{path}: ends with {num} items")
        self._take("]", path)

    def _scalar(self, path: str) -> Any:
        first = self.text[self.at]
        if first == '"':
            return self._string(path)
        if first in "-0123456789":
            return self._number(path)
        rest = self.text[self.at : self.at + 5]
        for word, value in _WORDS.items():
            if rest.startswith(word):
                self.at += len(word)
                return value
            if word.startswith(rest):
                raise _CutError
        raise _ViolationError(f"{path}: {first!r} begins no value")

    def _string(self, path: str) -> str:
        found = _STRING.match(self.text, self.at)
        assert found is not None
        if found.end() == len(self.text) or _CUT_ESCAPE.match(self.text, found.end()):
            raise _CutError
        if self.text[found.end()] != '"':
            raise _ViolationError(f"{path}: {self.text[found.end()]!r} within a string")
        self.at = found.end() + 1
        return str(json.loads(found[0] + '"'))

    def _number(self, path: str) -> int | float:
        if _CUT_NUMBER.match(self.text, self.at):
            raise _CutError
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            raise _ViolationError(f"{path}: {self.text[self.at : self.at + 2]!r} begins no number")
        self.at = found.end()
        number: int | float = json.loads(found[0])
        return number

    def _peek(self) -> str:
        """The next character that is no white space."""
        self.at = self._after_space()
        if self.at == len(self.text):
            raise _CutError
        return self.text[self.at]

    def _take(self, character: str, path: str) -> None:
        if self._peek() != character:
            raise _ViolationError(f"{path}: {self.text[self.at]!r} where {character!r} is due")
        self.at += 1

    def _after_space(self) -> int:
        found = _SPACE.match(self.text, self.at)
        return found.end() if found else self.at
