"""The grammars that answers follow, driven by hand on the demo model's vocabulary."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from backends.llamacpp.grammar import (
    MAX_GRAMMAR_BYTES,
    MAX_QUEUED,
    Constraint,
    GrammarError,
    GrammarQueueFull,
    Grammars,
    json_rule,
)
from backends.llamacpp.message import Markup, MessageParser
from backends.llamacpp.options import Options
from backends.llamacpp.structure import THINK, AnswerForm, is_thinking, think_tags
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


def constraint_of(grammars: Grammars, text: str) -> Awaitable[Constraint]:
    return grammars.constraint(text.encode(), lambda: text)


def accepts(constraint: Constraint, model: Any, text: str, *, special: bool = True) -> bool:
    """Whether `text` may be written from here on."""
    for token in model.tokenize(text, parse_special=special).tolist():
        if not constraint.allows(token):
            return False
        constraint.accept(token)
    return True


def grammar_for(dialect: Dialect, *, think: bool = False, opened: bool = False, **options: Any) -> str:
    markup = Markup(THINK if think else None, opened, dialect)
    return AnswerForm(markup, **{"tools": [CITY, SAY]} | options).grammar({})


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
        assert accepts(run(constraint_of(grammars, grammar)), model, text, special=False), text
    broken = CALLS[dialect].replace("get_city", "get_town")
    assert not accepts(run(constraint_of(grammars, grammar)), model, broken, special=False)
    wrong = CALLS[dialect].replace("12", '"twelve"')
    assert not accepts(run(constraint_of(grammars, grammar)), model, wrong, special=False)
    if not dialect.is_whole_answer:
        assert accepts(run(constraint_of(grammars, grammar)), model, f"Let me see. {CALLS[dialect]}", special=False)


@pytest.mark.parametrize("dialect", CALLS, ids=lambda dialect: dialect.name)
def test_calls_alone(grammars: Grammars, model: Any, dialect: Dialect) -> None:
    grammar = grammar_for(dialect, must_call=True)
    assert accepts(run(constraint_of(grammars, grammar)), model, CALLS[dialect], special=False)
    assert not accepts(run(constraint_of(grammars, grammar)), model, "Hello", special=False)


def test_several_calls_or_one(grammars: Grammars, model: Any) -> None:
    twice = "\n".join([CALLS[HERMES]] * 2)
    assert accepts(run(constraint_of(grammars, grammar_for(HERMES))), model, twice, special=False)
    single = run(constraint_of(grammars, grammar_for(HERMES, several=False)))
    assert not accepts(single, model, twice, special=False)
    assert run(constraint_of(grammars, grammar_for(HERMES, several=False))).copy() is not None


def test_a_call_or_json(grammars: Grammars, model: Any) -> None:
    grammar = grammar_for(HERMES, schema={"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]})
    assert accepts(run(constraint_of(grammars, grammar)), model, '{"a": 1', special=False)
    assert accepts(run(constraint_of(grammars, grammar)), model, CALLS[HERMES], special=False)
    assert not accepts(run(constraint_of(grammars, grammar)), model, "Hello", special=False)


def test_control_tokens_are_tokens(grammars: Grammars, model: Any) -> None:
    """The demo model has <tool_call> as one token: its text spelled out is text, the token begins a call."""
    grammar = AnswerForm(Markup(calls=HERMES), tools=[CITY]).grammar(model.special_tokens)
    constraint = run(constraint_of(grammars, grammar))
    assert accepts(constraint, model, "Well <tool_call> is a tag.", special=False)
    assert accepts(constraint, model, "<tool_call>")
    assert model.detokenize(constraint.take_forced(50)).startswith('\n{"name": "get_city", "arguments": {"id":')


def test_thinking_comes_before_json(grammars: Grammars, model: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}

    def fresh(*, opened: bool) -> Constraint:
        grammar = AnswerForm(Markup(THINK, opened), schema).grammar({})
        return run(constraint_of(grammars, grammar))

    assert accepts(fresh(opened=False), model, '<think>{"b": 2} no</think>\n\n{"a": 1}', special=False)
    assert accepts(fresh(opened=False), model, '{"a": 1}', special=False)
    assert accepts(fresh(opened=True), model, 'hm</think>{"a": 1}', special=False)
    assert not accepts(fresh(opened=True), model, 'hm</think>{"b": 1}', special=False)


def test_random_walks_end_in_valid_calls(grammars: Grammars, model: Any) -> None:
    """Whatever is drawn, the parser finds calls with valid arguments in what the grammar let through."""
    rng = np.random.default_rng(7)
    for _ in range(30):
        constraint = run(constraint_of(grammars, grammar_for(HERMES, must_call=True, several=False)))
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
    written: list[str] = []

    def write() -> str:
        written.append("start: " + json_rule({"type": "integer"}))
        return written[-1]

    async def main() -> list[Constraint]:
        return await asyncio.gather(*(grammars.constraint(b"integer", write) for _ in range(20)))

    found = run(main())
    assert len(written) == 1
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
        constraint = run(constraint_of(grammars, "start: " + json_rule(schema)))
        for _ in range(20):
            allowed = np.flatnonzero(constraint.allowed())
            if constraint.is_complete or not len(allowed):
                break
            constraint.accept(int(rng.choice(allowed.tolist())))
    except GrammarError:
        pass
    assert time.monotonic() - began_s < 5


def hard_schema(num_definitions: int) -> dict[str, Any]:
    """A bad pattern behind many definitions, each of which has to be looked at to find it."""
    entry = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}
    properties: dict[str, Any] = {f"k{n}": {"$ref": f"#/$defs/d{n}"} for n in range(num_definitions)}
    properties["zz"] = {"type": "string", "pattern": "(?=x)"}
    definitions = {f"d{n}": entry for n in range(num_definitions)}
    return {"$defs": definitions, "type": "object", "properties": properties}


async def longest_gap_s(work: Awaitable[object]) -> float:
    """How long the event loop stood still at most while `work` was awaited."""
    gaps = [0.0]

    async def tick() -> None:
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(0.002)
            gaps.append(time.monotonic() - last_s)
            last_s = time.monotonic()

    ticking = asyncio.create_task(tick())
    await asyncio.gather(work, return_exceptions=True)
    ticking.cancel()
    return max(gaps)


def test_a_schema_that_is_hard_to_refuse_does_not_hold_the_loop(grammars: Grammars) -> None:
    form = AnswerForm(Markup(), hard_schema(600))

    async def refused() -> None:
        with pytest.raises(GrammarError, match="look-ahead"):
            await grammars.constraint(form.key(), lambda: form.grammar({}))

    began_s = time.monotonic()
    assert run(longest_gap_s(refused())) < 0.5
    assert time.monotonic() - began_s < 3


def test_the_part_at_fault_is_named(grammars: Grammars) -> None:
    with pytest.raises(GrammarError, match="look-ahead") as caught:
        json_rule(hard_schema(3))
    assert caught.value.path == "properties.zz"


def test_schemas_that_are_too_long_or_too_deep_are_refused_before_anything_is_done() -> None:
    with pytest.raises(GrammarError, match="bytes of schema"):
        AnswerForm(Markup(), {"enum": ["x" * MAX_GRAMMAR_BYTES]}).key()
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"items": deep}
    with pytest.raises(GrammarError, match="deeper"):
        AnswerForm(Markup(), deep).key()


def test_what_nobody_waits_for_is_not_compiled(model: Any) -> None:
    grammars = Grammars(model)
    may_go_on = threading.Event()
    written: list[int] = []

    def write(number: int) -> str:
        written.append(number)
        assert may_go_on.wait(10)
        return "start: " + json_rule({"const": number})

    async def main() -> None:
        asking = [
            asyncio.create_task(grammars.constraint(b"%d" % number, partial(write, number))) for number in range(8)
        ]
        while not written:
            await asyncio.sleep(0.001)
        for task in asking:
            task.cancel()
        joined = asyncio.create_task(grammars.constraint(b"9", partial(write, 9)))
        left = asyncio.create_task(grammars.constraint(b"9", partial(write, 9)))
        await asyncio.sleep(0)
        left.cancel()  # the other one still waits
        may_go_on.set()
        assert not (await joined).failure

    run(main())
    assert written == [0, 9]
    assert not grammars._jobs
    assert grammars.close()


def test_work_that_nobody_waits_for_is_left(model: Any) -> None:
    grammars = Grammars(model)
    may_go_on, is_writing = threading.Event(), threading.Event()

    def write() -> str:
        is_writing.set()
        assert may_go_on.wait(10)
        return 'start: "a"'

    async def main() -> None:
        asking = asyncio.create_task(grammars.constraint(b"a", write))
        await asyncio.to_thread(is_writing.wait)
        asking.cancel()
        await asyncio.wait([asking])
        may_go_on.set()

    run(main())
    assert grammars.close()
    assert grammars._tokenizer is None, "it was begun to be compiled"


def test_the_line_of_grammars_has_an_end(model: Any) -> None:
    grammars = Grammars(model)
    may_go_on = threading.Event()

    def write() -> str:
        assert may_go_on.wait(10)
        return 'start: "a"'

    async def main() -> None:
        asking = [asyncio.create_task(grammars.constraint(b"%d" % n, write)) for n in range(MAX_QUEUED)]
        await asyncio.sleep(0)
        with pytest.raises(GrammarQueueFull):
            await grammars.constraint(b"one more", write)
        may_go_on.set()
        await asyncio.gather(*asking)
        await grammars.constraint(b"one more", write)

    run(main())
    assert grammars.close()


def test_large_grammars_push_others_out(model: Any) -> None:
    grammars = Grammars(model)
    keys = [bytes([number]) * 200_000 for number in range(3)]
    for key in keys:
        run(grammars.constraint(key, lambda: 'start: "a"'))
    assert list(grammars._kept) == keys[1:]
    run(grammars.constraint(b"x" * 900_000, lambda: 'start: "a"'))
    assert not grammars._kept
    run(grammars.constraint(keys[0], lambda: 'start: "a"'))
    assert list(grammars._kept) == keys[:1]
    assert grammars.close()


def test_closing_does_not_wait_for_a_hard_grammar(model: Any) -> None:
    grammars = Grammars(model)
    may_go_on, is_writing = threading.Event(), threading.Event()

    def write() -> str:
        is_writing.set()
        assert may_go_on.wait(10)
        return 'start: "a"'

    async def main() -> float:
        asking = asyncio.create_task(grammars.constraint(b"a", write))
        await asyncio.to_thread(is_writing.wait)
        began_s = time.monotonic()
        assert not grammars.close(), "the vocabulary is still in use"
        took_s = time.monotonic() - began_s
        may_go_on.set()
        await asking
        return took_s

    assert run(main()) < 3


@pytest.mark.parametrize("num_keys", [600, 1000])
def test_objects_of_many_optional_keys(grammars: Grammars, model: Any, num_keys: int) -> None:
    schema = {"type": "object", "properties": {f"k{n}": {"type": "integer"} for n in range(num_keys)}, **CLOSED}
    constraint = run(constraint_of(grammars, "start: " + json_rule(schema)))
    assert accepts(constraint, model, '{"k7": 1, "k599": 2}'), constraint.failure
    assert constraint.is_complete
    assert not constraint.failure


def test_what_fails_behind_its_first_text_is_refused_at_once(grammars: Grammars) -> None:
    properties = {f"k{n}": {"type": "integer"} for n in range(1_500)}
    with pytest.raises(GrammarError, match="max is"):
        run(constraint_of(grammars, "start: " + json_rule({"type": "object", "properties": properties, **CLOSED})))


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
