"""The machinery of options: types, groups, flags; every mistake is named with the group it is in."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from backends import optionschema
from backends.optionschema import Check, OptionsError, check_all, read


@dataclass(frozen=True, slots=True)
class Inner:
    depth: int | None = None
    """How deep."""
    rows: tuple[tuple[int, int, int], ...] = ()
    """Rows of three."""

    def __post_init__(self) -> None:
        check_all(_inner_checks(self))


def _inner_checks(inner: Inner) -> Iterator[Check]:
    yield inner.depth is None or inner.depth > 0, f"depth: must be 1 or more, got {inner.depth}"


@dataclass(frozen=True, slots=True)
class Outer:
    name: str = ""
    """A name."""
    ratio: float = 0.5
    """A ratio."""
    is_on: bool | None = None
    """On, off, or as it comes."""
    words: tuple[str, ...] = ()
    """Words."""
    inner: Inner | None = None
    """A group."""


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({}, Outer()),
        ({"name": True}, Outer(name="on")),
        ({"ratio": 1}, Outer(ratio=1.0)),
        ({"ratio": "0.25"}, Outer(ratio=0.25)),
        ({"is_on": "no"}, Outer(is_on=False)),
        ({"is_on": None}, Outer()),
        ({"words": "a, b"}, Outer(words=("a", "b"))),
        ({"words": ["a", "b"]}, Outer(words=("a", "b"))),
        ({"inner": None}, Outer()),
        ({"inner": {}}, Outer(inner=Inner())),
        ({"inner": {"depth": "3"}}, Outer(inner=Inner(depth=3))),
        ({"inner": {"rows": [[1, 4, 2], (5, 8, 0)]}}, Outer(inner=Inner(rows=((1, 4, 2), (5, 8, 0))))),
    ],
)
def test_values_are_read_by_their_type(mapping: dict[str, object], expected: Outer) -> None:
    assert read(Outer, mapping) == expected


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"nam": "x"}, "unknown option 'nam' (did you mean 'name'?)"),
        ({"zzz": 1}, "unknown option 'zzz' (known: name, ratio, is_on, words, inner)"),
        ({"name": None}, "name: expected a text, got None"),
        ({"name": 5}, "name: expected a text, got 5"),
        ({"ratio": True}, "ratio: expected a number, got True"),
        ({"ratio": "half"}, "ratio: expected a number, got 'half'"),
        ({"is_on": "maybe"}, "is_on: expected true or false, got 'maybe'"),
        ({"words": 5}, "words: expected a list of texts, got 5"),
        ({"words": {"a": 1}}, "words: expected a list of texts, got {'a': 1}"),
        ({"words": [1]}, "words: expected a list of texts, got [1]"),
        ({"inner": "deep"}, "inner: expected a group of options, got 'deep'"),
        ({"inner": {"dept": 1}}, "unknown option 'inner.dept' (did you mean 'depth'?)"),
        ({"inner": {"depth": 1.5}}, "inner.depth: expected a whole number, got 1.5"),
        ({"inner": {"depth": 0}}, "inner.depth: must be 1 or more, got 0"),
        (
            {"inner": {"rows": [[1, 2]]}},
            "inner.rows: expected a list of lists of 3 whole numbers each, got [[1, 2]]",
        ),
    ],
)
def test_mistakes_are_named_with_their_group(mapping: dict[str, object], problem: str) -> None:
    with pytest.raises(OptionsError) as caught:
        read(Outer, mapping)
    assert caught.value.problems == [problem]


def test_mistakes_of_all_groups_come_at_once() -> None:
    with pytest.raises(OptionsError) as caught:
        read(Outer, {"ratio": "x", "inner": {"depth": 0, "dept": 1}, "nam": 1})
    assert len(caught.value.problems) == 4


def test_a_hint_takes_the_place_of_the_nearest_key_where_it_has_one() -> None:
    with pytest.raises(OptionsError) as caught:
        read(Outer, {"nam": 1, "zzz": 2}, lambda key: " (gone)" if key == "zzz" else "")
    assert caught.value.problems == [
        "unknown option 'nam' (did you mean 'name'?)",
        "unknown option 'zzz' (gone)",
    ]


def test_documentation_has_groups_before_what_is_in_them() -> None:
    shown = [(entry.name, entry.depth, entry.is_group, entry.doc) for entry in optionschema.entries(Outer)]
    assert shown[-3:] == [
        ("inner", 0, True, "A group."),
        ("depth", 1, False, "How deep."),
        ("rows", 1, False, "Rows of three."),
    ]


def test_flags_say_what_differs_from_the_defaults() -> None:
    @dataclass(frozen=True)
    class Flat:
        n_ctx: int = 1
        """Cells."""
        shares: tuple[float, ...] = ()
        """Shares."""
        is_on: bool = True
        """On."""

    parser = argparse.ArgumentParser()
    optionschema.add_arguments(parser, Flat)
    argv = optionschema.to_argv(Flat(n_ctx=2, shares=(3.0, 0.5), is_on=False))
    assert argv == ["--n-ctx", "2", "--shares", "3,0.5", "--is-on", "false"]
