"""The grammars that answers follow, driven by hand on the demo model's vocabulary."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from backends.llamacpp.grammar import Constraint, GrammarError, Grammars, json_rule
from backends.llamacpp.message import Markup, MessageParser
from backends.llamacpp.options import Options
from backends.llamacpp.structure import THINK, answer_grammar, is_thinking, think_tags
from backends.llamacpp.tools import HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS, Dialect, Tool, dialect_of

pytestmark = pytest.mark.engine

T = TypeVar("T")
CLOSED = {"additionalProperties": False}
CITY = Tool("get_city", "", {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"], **CLOSED})
SAY = Tool(
    "say",
    "",
    {"type": "object", "properties": {"text": {"type": "string", "maxLength": 9}}, "required": ["text"], **CLOSED},
)


@pytest.fixture(scope="module")
def model(demo_gguf: Path) -> Iterator[Any]:
    from backends.llamacpp.binding.model import Model

    model = Model(demo_gguf, Options())
    yield model
    model.close()


@pytest.fixture(scope="module")
def grammars(model: Any) -> Iterator[Grammars]:
    grammars = Grammars(model)
    yield grammars
    grammars.close()


def run(awaited: Awaitable[T]) -> T:
    async def main() -> T:
        return await awaited

    return asyncio.run(main())


def accepts(constraint: Constraint, model: Any, text: str, *, special: bool = True) -> bool:
    """Whether `text` may be written from here on."""
    for token in model.tokenize(text, parse_special=special).tolist():
        if not constraint.allows(token):
            return False
        constraint.accept(token)
    return True


def grammar_for(dialect: Dialect, *, think: bool = False, opened: bool = False, **options: Any) -> str:
    markup = Markup(THINK if think else None, opened, dialect)
    wanted = {"schema": None, "tools": [CITY, SAY], "must_call": False, "several": True} | options
    found = answer_grammar(markup, options.pop("special", {}), **wanted)
    assert found is not None
    return found


CALLS = {
    HERMES: '<tool_call>\n{"name": "get_city", "arguments": {"id": 12}}\n</tool_call>',
    LLAMA3: '{"name": "get_city", "parameters": {"id": 12}}',
    MISTRAL: '[TOOL_CALLS] [{"name": "get_city", "arguments": {"id": 12}}]',
    MISTRAL_ARGS: '[TOOL_CALLS]get_city[ARGS]{"id": 12}',
}


@pytest.mark.parametrize("dialect", CALLS, ids=lambda dialect: dialect.name)
def test_text_or_calls(grammars: Grammars, model: Any, dialect: Dialect) -> None:
    grammar = grammar_for(dialect)
    for text in ("Hello there", CALLS[dialect]):
        assert accepts(run(grammars.constraint(grammar)), model, text, special=False), text
    broken = CALLS[dialect].replace("get_city", "get_town")
    assert not accepts(run(grammars.constraint(grammar)), model, broken, special=False)
    wrong = CALLS[dialect].replace("12", '"twelve"')
    assert not accepts(run(grammars.constraint(grammar)), model, wrong, special=False)
    if not dialect.is_whole_answer:
        assert accepts(run(grammars.constraint(grammar)), model, f"Let me see. {CALLS[dialect]}", special=False)


@pytest.mark.parametrize("dialect", CALLS, ids=lambda dialect: dialect.name)
def test_calls_alone(grammars: Grammars, model: Any, dialect: Dialect) -> None:
    grammar = grammar_for(dialect, must_call=True)
    assert accepts(run(grammars.constraint(grammar)), model, CALLS[dialect], special=False)
    assert not accepts(run(grammars.constraint(grammar)), model, "Hello", special=False)


def test_several_calls_or_one(grammars: Grammars, model: Any) -> None:
    twice = "\n".join([CALLS[HERMES]] * 2)
    assert accepts(run(grammars.constraint(grammar_for(HERMES))), model, twice, special=False)
    single = run(grammars.constraint(grammar_for(HERMES, several=False)))
    assert not accepts(single, model, twice, special=False)
    assert run(grammars.constraint(grammar_for(HERMES, several=False))).copy() is not None


def test_a_call_or_json(grammars: Grammars, model: Any) -> None:
    grammar = grammar_for(HERMES, schema={"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]})
    assert accepts(run(grammars.constraint(grammar)), model, '{"a": 1', special=False)
    assert accepts(run(grammars.constraint(grammar)), model, CALLS[HERMES], special=False)
    assert not accepts(run(grammars.constraint(grammar)), model, "Hello", special=False)


def test_control_tokens_are_tokens(grammars: Grammars, model: Any) -> None:
    """The demo model has <tool_call> as one token: its text spelled out is text, the token begins a call."""
    grammar = answer_grammar(
        Markup(calls=HERMES), model.special_tokens, schema=None, tools=[CITY], must_call=False, several=True
    )
    assert grammar is not None
    constraint = run(grammars.constraint(grammar))
    assert accepts(constraint, model, "Well <tool_call> is a tag.", special=False)
    assert accepts(constraint, model, "<tool_call>")
    assert model.detokenize(constraint.take_forced(50)).startswith('\n{"name": "get_city", "arguments": {"id":')


def test_thinking_comes_before_json(grammars: Grammars, model: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}

    def fresh(*, opened: bool) -> Constraint:
        grammar = answer_grammar(Markup(THINK, opened), {}, schema=schema, tools=[], must_call=False, several=True)
        assert grammar is not None
        return run(grammars.constraint(grammar))

    assert accepts(fresh(opened=False), model, '<think>{"b": 2} no</think>\n\n{"a": 1}', special=False)
    assert accepts(fresh(opened=False), model, '{"a": 1}', special=False)
    assert accepts(fresh(opened=True), model, 'hm</think>{"a": 1}', special=False)
    assert not accepts(fresh(opened=True), model, 'hm</think>{"b": 1}', special=False)


def test_random_walks_end_in_valid_calls(grammars: Grammars, model: Any) -> None:
    """Whatever is drawn, the parser finds calls with valid arguments in what the grammar let through."""
    rng = np.random.default_rng(7)
    for _ in range(30):
        constraint = run(grammars.constraint(grammar_for(HERMES, must_call=True, several=False)))
        tokens: list[int] = []
        while not constraint.is_complete:
            tokens += constraint.take_forced(100)
            if constraint.is_complete:
                break
            allowed = np.flatnonzero(constraint.allowed())
            tokens.append(int(rng.choice(allowed[~np.isin(allowed, model.end_of_generation)])))
            constraint.accept(tokens[-1])
            assert len(tokens) < 500
        parser = MessageParser(Markup(calls=HERMES))
        parser.feed(b"".join(model.piece(token) for token in tokens).decode())
        assert parser.num_calls == 1
        text = model.detokenize(tokens).removeprefix("<tool_call>").removesuffix("</tool_call>")
        call = json.loads(text)
        assert set(call["arguments"]) == ({"id"} if call["name"] == "get_city" else {"text"})


def test_the_same_grammar_is_compiled_once_even_when_asked_at_once(model: Any) -> None:
    grammars = Grammars(model)
    compiled: list[str] = []
    build = grammars._build
    grammars._build = lambda grammar: (compiled.append(grammar), build(grammar))[1]  # type: ignore[method-assign]

    async def main() -> list[Constraint]:
        grammar = "start: " + json_rule({"type": "integer"})
        return await asyncio.gather(*(grammars.constraint(grammar) for _ in range(20)))

    found = run(main())
    assert len(compiled) == 1
    found[0].accept(model.tokenize("7").tolist()[0])
    assert len({id(constraint) for constraint in found}) == 20
    grammars.close()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(x+x+)+y"},
        {"type": "string", "pattern": "(a{0,1000}){0,1000}b"},
        {"type": "array", "minItems": 1_000_000, "items": {"type": "integer"}},
        {"enum": [f"{number}" * 8 for number in range(5000)]},
        {"anyOf": [{"type": "object", "properties": {f"k{number}": {"type": "string"}}} for number in range(300)]},
    ],
    ids=["backtracking", "nested repeats", "a million items", "5000 values", "300 objects"],
)
def test_hard_grammars_are_quick_or_refused(grammars: Grammars, model: Any, schema: dict[str, Any]) -> None:
    rng = random.Random(1)
    began_s = time.monotonic()
    try:
        constraint = run(grammars.constraint("start: " + json_rule(schema)))
        for _ in range(20):
            allowed = np.flatnonzero(constraint.allowed())
            if constraint.is_complete or not len(allowed):
                break
            constraint.accept(int(rng.choice(allowed.tolist())))
    except GrammarError:
        pass
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("depth", [121, 400])
def test_deep_schemas_are_refused(depth: int) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    with pytest.raises(GrammarError, match="deeper"):
        json_rule(schema)


def test_templates_tell_their_dialects() -> None:
    assert dialect_of("{% if tools %}<tool_call>{% endif %}") is HERMES
    assert dialect_of("{% if tools %}[TOOL_CALLS]{% endif %}") is MISTRAL
    assert dialect_of("{% if tools %}[TOOL_CALLS]x[ARGS]{% endif %}") is MISTRAL_ARGS
    assert dialect_of('{% if tools %}<|python_tag|> {"name": f, "parameters": x}{% endif %}') is LLAMA3
    assert dialect_of("{% if tools %}<tool_call><function=x>{% endif %}") is None
    assert dialect_of("{{ messages }}") is None
    assert think_tags("{{ m.split('</think>') }}") == THINK
    assert think_tags("{{ messages }}") is None
    assert is_thinking("assistant\n<think>\n", THINK)
    assert not is_thinking("assistant\n<think>\n\n</think>\n\n", THINK)
