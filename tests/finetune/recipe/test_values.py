"""Types are strict, and what people write for them is understood."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from finetune.recipe.document import Node, parse
from finetune.recipe.findings import Findings
from finetune.recipe.values import Choice, Hook, Hooks, Kind, Number, Switch, Text, Unfit, Whole, Words


def node(text: str) -> Node:
    findings = Findings()
    tree = parse(f"key: {text}\n", "a.yaml", findings)
    assert not findings.problems
    assert tree is not None
    return dict(tree.items)["key"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4), ("2E-4", 2e-4), ("2.0e-4", 2e-4), ("0.0002", 2e-4), (".5", 0.5), ("1.", 1.0), ("3", 3.0), ("+3", 3.0),
        ("-3", -3.0), ("1_000", 1000.0), ("1e+3", 1000.0), ("0", 0.0), ("0.10", 0.1),
    ],
)  # fmt: skip
def test_numbers(text: str, value: float) -> None:
    assert Number().read(node(text)) == value


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("1_000", 1000), ("3.0", 3), ("1e3", 1000), ("0", 0), ("-2", -2)]
)
def test_whole_numbers(text: str, value: int) -> None:
    read = Whole(-5).read(node(text))
    assert (read, type(read)) == (value, int)


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "yes", "on", "Yes"])
def test_true(text: str) -> None:
    assert Switch().read(node(text)) is True


@pytest.mark.parametrize("text", ["false", "no", "off", "No", "OFF"])
def test_false(text: str) -> None:
    assert Switch().read(node(text)) is False


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Number(), "fast", "expected a number, got 'fast'"),
        (Number(), "'2e-4'", "expected a number, got the text '2e-4': write it without quotes"),
        (Number(), "[1]", "expected a number, got a list"),
        (Number(), "{a: 1}", "expected a number, got keys and values"),
        (Number(), "true", "expected a number, got 'true'"),
        (Number(), ".inf", "expected a number, got '.inf'"),
        (Number(), ".nan", "expected a number, got '.nan'"),
        (Number(), "1e999", "'1e999' is too large a number"),
        (Number(), "010", "'010' may be meant as octal"),
        (Number(), "0x10", "expected a number, got '0x10'"),
        (Number(), "10%", "expected a number, got '10%'"),
        (Number(), "1:30", "expected a number, got '1:30'"),
        (Number(0, 1), "1.5", "must be 0 to 1, got 1.5"),
        (Number(above=0), "0", "must be above 0, got 0"),
        (Number(above=0, high=1), "-2e-4", "must be above 0, at most 1, got -0.0002"),
        (Whole(1), "1.5", "expected a whole number, got '1.5'"),
        (Whole(1), "0", "must be 1 or more, got 0"),
        (Whole(1, 512), "513", "must be 1 to 512, got 513"),
        (Whole(1), "two", "expected a whole number, got 'two'"),
        (Switch(), "1", "expected true | false, got '1'"),
        (Switch(), "'true'", "expected true | false without quotes, got 'true'"),
        (Switch(), "[true]", "expected true | false, got a list"),
        (Switch({"auto": None}), "automatic", "expected true | false | auto, got 'automatic'"),
        (Switch({}, {"offload": "use true"}), "offload", "'offload': use true"),
        (Text(), "''", "expected a text, got ''"),
        (Text(), "[a]", "expected a text, got a list"),
        (Choice({"cosine": 1, "linear": 2}), "cosin", "expected cosine | linear, got 'cosin' (did you mean 'cosine'?)"),
        (Choice({"cosine": 1}, {"rex": "write cosine"}), "rex", "'rex': write cosine"),
        (Choice({"cosine": 1}), "{a: b}", "expected cosine, got keys and values"),
        (Words(), "[a, a]", "'a' is in the list twice"),
        (Words(), "[a, [b]]", "expected a text, got a list"),
        (Hook(), "mine.loss", "expected module:Name, for example mine.losses:focal, got 'mine.loss'"),
        (Hook(), "mine:os.system('x')", "expected module:Name"),
        (Hooks(), "[a:b, c]", "expected module:Name"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(kind: Kind, text: str, words: str) -> None:
    with pytest.raises(Unfit) as refused:
        kind.read(node(text))
    assert str(refused.value).startswith(words)


@dataclass
class Case:
    kind: Kind
    text: str
    value: object


@pytest.mark.parametrize(
    "case",
    [
        Case(Text(), "2024-01-01", "2024-01-01"),
        Case(Text(), "on", "on"),
        Case(Text(), "007", "007"),
        Case(Text(), " spaced  ", "spaced"),
        Case(Choice({"no": "never"}), "no", "never"),
        Case(Choice({"cosine": 1}), "Cosine", 1),
        Case(Words(), "one", ("one",)),
        Case(Words(), "[a, 3]", ("a", "3")),
        Case(Hooks(), "a.b:C", ("a.b:C",)),
        Case(Switch({"auto": "auto"}), "auto", "auto"),
    ],
)
def test_texts_stay_what_they_are(case: Case) -> None:
    assert case.kind.read(node(case.text)) == case.value


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Whole(1, 512), "whole number 1 to 512"), (Whole(0, 2**32 - 1), "whole number 0 to 4294967295"),
        (Number(above=0), "number above 0"),
        (Number(0), "number 0 or more"), (Number(), "number"), (Switch({"auto": 1}), "true | false | auto"),
    ],
)  # fmt: skip
def test_what_it_takes_is_said_in_words(kind: Kind, words: str) -> None:
    assert kind.words == words
