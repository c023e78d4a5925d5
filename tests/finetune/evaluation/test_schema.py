"""Values against JSON schemas."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.evaluation.schema import SchemaUnusable, check, is_valid, loads_strictly

ADDRESS = {
    "$defs": {"city": {"enum": ["Seoul", "Busan"]}, "tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}, "tree": {"$ref": "#/$defs/tree"}},
    "required": ["city"],
}


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        (True, [1, None], []),
        (False, [], [1]),
        ({"type": "integer"}, [1, 1.0, 10**30], [True, 1.5, "1"]),
        ({"type": ["string", "null"]}, ["", None], [0]),
        ({"enum": [1, "a", [1]]}, [1, 1.0, "a", [1]], [True, "b", [True]]),
        ({"const": {"a": [1]}}, [{"a": [1.0]}], [{"a": [2]}, {"a": [1], "b": 0}]),
        ({"minimum": 1, "exclusiveMaximum": 3}, [1, 2.9, "text", True], [0, 3]),
        ({"multipleOf": 0.1}, [0.3, 1], [0.35]),
        ({"multipleOf": 3}, [9, 10**30 * 3], [10]),
        ({"minLength": 2, "maxLength": 3, "pattern": "^ㄱ|^[a-z]"}, ["ab", "abc", "ㄱㄴ", 5], ["a", "abcd", "AB"]),
        ({"minItems": 1, "maxItems": 2, "uniqueItems": True}, [[1], [1, True]], [[], [1, 1.0], [1, 2, 3]]),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, [["a", 1], ["a"], []], [[1], ["a", "b"]]),
        ({"contains": {"const": 1}}, [[0, 1]], [[0], []]),
        ({"required": ["a"], "minProperties": 2}, [{"a": 1, "b": 2}, []], [{"a": 1}, {"b": 1, "c": 2}]),
        (
            {
                "properties": {"a": {"type": "string"}},
                "patternProperties": {"^x-": True},
                "additionalProperties": False,
            },
            [{"a": "", "x-y": 1}, {}],
            [{"b": 1}, {"a": 1}],
        ),
        ({"propertyNames": {"maxLength": 1}}, [{"a": 1}], [{"ab": 1}]),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["a", 6, None], [4]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, [1, 2.5], [3, 1.5]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1.5], [0, 3]),
        ({"not": {"type": "string"}}, [1], ["a"]),
        (ADDRESS, [{"city": "Seoul", "tree": [[], [[]]]}], [{"city": "Oslo"}, {}, {"city": "Busan", "tree": [1]}]),
        ({"format": "email", "title": "t"}, ["no mail"], []),
    ],
)
def test_what_follows_a_schema(schema: Any, valid: list[Any], invalid: list[Any]) -> None:
    check(schema)
    assert [value for value in valid if not is_valid(schema, value)] == []
    assert [value for value in invalid if is_valid(schema, value)] == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "int"}, "type takes one or some of object, array"),
        ({"typ": "object"}, "the keyword 'typ' is not known here"),
        ({"if": True}, "the keyword 'if' is not known here"),
        ({"properties": {"a": {"minLength": "2"}}}, "properties.a: minLength takes a whole number"),
        ({"pattern": "("}, "pattern takes a regular expression"),
        ({"$ref": "#/$defs/none"}, "'#/$defs/none' is no place of this schema"),
        ({"$ref": "other.json"}, "'other.json' is no place of this schema"),
        ({"items": [True]}, "items takes a schema"),
        ([], "the schema is no schema"),
    ],
)
def test_a_schema_that_cannot_be_held_against_anything_is_refused(schema: Any, words: str) -> None:
    with pytest.raises(SchemaUnusable) as caught:
        check(schema)
    assert words in str(caught.value)


def test_a_reference_that_comes_back_to_itself_holds_for_nothing() -> None:
    schema = {"$ref": "#"}
    check(schema)
    assert not is_valid(schema, 1)


@pytest.mark.parametrize("text", ["", "{", '{"a": 1, "a": 1}', "NaN", "[Infinity]", "[" * 100_000])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        loads_strictly(text)
