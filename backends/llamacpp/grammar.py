"""Grammars that answers must follow: built from JSON schemas and tool calls, compiled once, off the stepping thread.

    JSON schema or Lark text --Grammars.constraint--> Constraint, one for each answer

llguidance does the work (https://github.com/guidance-ai/llguidance): for a state of the grammar it says which tokens may
come next, in some ten microseconds, and where only one text is possible, which tokens that is: these are not even drawn.
JSON is written as Python's `json.dumps` does, `{"a": 1, "b": 2}`: that is what models saw most, and with no other spacing
allowed the keys of a fixed schema cost no steps.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import llguidance
import numpy as np
import orjson
from numpy.typing import NDArray

JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}
_CACHED = 256
MAX_GRAMMAR_BYTES = 1_000_000
_MAX_DEPTH = 120
"""Levels of JSON in a schema; llguidance takes 127, with what is around it."""


class GrammarError(ValueError):
    """The grammar or schema cannot be used; `path` leads to the part at fault, as `properties.name.pattern`."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class Vocabulary(Protocol):
    """What grammars need of a model."""

    n_vocab: int
    end_of_generation: NDArray[np.int32]

    @property
    def special_tokens(self) -> Mapping[str, int]: ...

    def token_text(self, token: int) -> bytes: ...

    @property
    def tokenizer_address(self) -> tuple[int, int]:
        """The vocabulary's pointer and that of llama_tokenize."""
        ...


@dataclass(frozen=True, slots=True)
class Compiled:
    """A grammar ready for use, in two forms; matchers at its beginning, which stay there."""

    looking_ahead: llguidance.LLMatcher
    """Knows which text must follow. It fails where that is longer than it looks."""
    step_by_step: llguidance.LLMatcher


class Constraint:
    """One answer's place in its grammar."""

    def __init__(self, compiled: Compiled, n_vocab: int) -> None:
        self._compiled = compiled
        self._matcher = compiled.looking_ahead.deep_copy()
        self._can_look_ahead = True
        self._taken: list[int] = []
        self._n_vocab = n_vocab
        self._bits = np.zeros((n_vocab + 31) // 32, dtype=np.int32)

    def copy(self) -> Constraint:
        """Another answer's place, at the beginning."""
        return Constraint(self._compiled, self._n_vocab)

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._matcher.is_stopped()

    @property
    def failure(self) -> str:
        """Why the grammar cannot go on; empty while it can."""
        return _first_line(self._matcher.get_error()) if self._matcher.is_error() else ""

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        is_valid = self._matcher.validate_tokens([token]) == 1
        return self._matcher.validate_tokens([token]) == 1 if self._fell_back() else is_valid

    def allowed(self) -> NDArray[np.bool_]:
        """What may come next, shape [n_vocab]."""
        self._fill()
        if self._fell_back():
            self._fill()
        return np.unpackbits(self._bits.view(np.uint8), count=self._n_vocab, bitorder="little").view(np.bool_)

    def accept(self, token: int) -> None:
        """Go on with `token`."""
        self._taken.append(token)
        self._matcher.consume_token(token)
        self._fell_back()

    def take_forced(self, limit: int) -> list[int]:
        """Go on as far as only one text is possible, by at most `limit` tokens; returns these."""
        if not self._can_look_ahead:
            return []
        forced = self._matcher.compute_ff_tokens()[:limit]
        if self._fell_back():
            return []
        if forced:
            self._taken += forced
            self._matcher.consume_tokens(forced)
            self._fell_back()
        return forced

    def _fill(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)

    def _fell_back(self) -> bool:
        """Go on step by step, from the same place, where looking ahead has failed. True: just now."""
        if not self._can_look_ahead or not self._matcher.is_error():
            return False
        self._can_look_ahead = False
        self._matcher = self._compiled.step_by_step.deep_copy()
        self._matcher.consume_tokens(self._taken)
        return True


class Grammars:
    """Compiles for one vocabulary, and keeps the most recently used results."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[str, Compiled] = OrderedDict()
        self._compiling: dict[str, asyncio.Future[Compiled]] = {}
        # One thread: a flood of hard grammars takes one core, not all of them.
        self._thread = ThreadPoolExecutor(1, "grammar")

    def close(self) -> None:
        """End the compiling thread; what it works on is finished first."""
        self._thread.shutdown(cancel_futures=True)

    async def constraint(self, grammar: str) -> Constraint:
        """A fresh place at the beginning of `grammar` (Lark text). Raises GrammarError."""
        compiled = self._compiled.get(grammar)
        if compiled is None:
            compiled = await asyncio.shield(self._compile(grammar))
        else:
            self._compiled.move_to_end(grammar)
        return Constraint(compiled, self._vocabulary.n_vocab)

    def _compile(self, grammar: str) -> asyncio.Future[Compiled]:
        """Start compiling, or join whoever compiles the same."""
        running = self._compiling.get(grammar)
        if running is None:
            loop = asyncio.get_running_loop()
            running = self._compiling[grammar] = loop.run_in_executor(self._thread, self._build, grammar)
            running.add_done_callback(lambda done: self._keep(grammar, done))
        return running

    def _keep(self, grammar: str, done: asyncio.Future[Compiled]) -> None:
        del self._compiling[grammar]
        if not done.cancelled() and done.exception() is None:
            self._compiled[grammar] = done.result()
            while len(self._compiled) > _CACHED:
                self._compiled.popitem(last=False)

    def _build(self, grammar: str) -> Compiled:
        if len(grammar) > MAX_GRAMMAR_BYTES:
            raise GrammarError(f"{len(grammar)} bytes of grammar, at most {MAX_GRAMMAR_BYTES} are taken")
        if self._tokenizer is None:
            self._tokenizer = _tokenizer(self._vocabulary)
        texts = (f"%llguidance {options}\n{grammar}" for options in ("{}", '{"no_forcing": true}'))
        compiled = Compiled(*(llguidance.LLMatcher(self._tokenizer, text, log_level=0) for text in texts))
        first = Constraint(compiled, self._vocabulary.n_vocab)
        # The first mask also builds what later ones reuse.
        allowed = first.allowed() if not first.failure else None
        if allowed is None or first.failure:
            raise GrammarError(first.failure)
        allowed[self._vocabulary.end_of_generation] = False
        if not allowed.any():
            raise GrammarError("nothing fits it")
        return compiled


def _tokenizer(vocabulary: Vocabulary) -> llguidance.LLTokenizer:
    control = set(vocabulary.special_tokens.values())
    # llguidance takes a leading 0xff for the mark of a token that is no text.
    tokens = [b"\xff" * (token in control) + vocabulary.token_text(token) for token in range(vocabulary.n_vocab)]
    vocab, tokenize = vocabulary.tokenizer_address
    return llguidance.LLTokenizer.from_llamacpp(  # type: ignore[attr-defined, no-any-return]
        tokens=tokens,
        vocab_ptr=vocab,
        tokenize_fptr=tokenize,
        eos_token=vocabulary.end_of_generation.tolist(),
        slices=llguidance.LLTokenizer.json_slices(),
    )


def json_rule(schema: Mapping[str, Any] | bool) -> str:
    """A Lark expression for JSON that fits `schema`. Raises GrammarError with the path of what cannot be expressed."""
    if isinstance(schema, bool):
        if not schema:
            raise GrammarError("the schema false allows nothing")
        schema = {}
    _check_depth(schema)
    problem = _problem(schema)
    if problem:
        raise _blame(schema, schema, "", problem)
    return "%json " + orjson.dumps({**schema, "x-guidance": JSON_LAYOUT}).decode()


def literal(text: str, special_tokens: Mapping[str, int]) -> str:
    """A Lark expression for exactly `text`, in which the text of a control token means that token."""
    for special, token in special_tokens.items():
        if special in text:
            before, _, after = text.partition(special)
            parts = (literal(before, special_tokens), f"<[{token}]>", literal(after, special_tokens))
            return " ".join(part for part in parts if part)
    return json.dumps(text, ensure_ascii=False) if text else ""


def _problem(schema: Any) -> str:
    """What llguidance finds wrong with a schema; empty where nothing is."""
    if schema is True:
        return ""
    try:
        text = orjson.dumps(schema).decode()
        grammar = llguidance.LLMatcher.grammar_from_json_schema(text, overrides=JSON_LAYOUT)  # type: ignore[arg-type]
    except (ValueError, TypeError, orjson.JSONEncodeError) as error:
        return _first_line(str(error))
    is_error, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar)
    return _first_line(messages[0]) if is_error else ""


def _blame(schema: Any, root: Mapping[str, Any], path: str, problem: str) -> GrammarError:
    """The innermost part of a schema that fails on its own."""
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    for name, part in _parts(schema):
        alone = {**definitions, **part} if isinstance(part, dict) else part
        found = _problem(alone)
        if found:
            return _blame(part, root, f"{path}.{name}" if path else name, found)
    return GrammarError(problem, path)


def _parts(schema: Any) -> Iterator[tuple[str, Any]]:
    """The schemas directly inside a schema, with their keys."""
    if not isinstance(schema, dict):
        return
    for key in ("$defs", "definitions", "properties", "patternProperties"):
        if isinstance(schema.get(key), dict):
            yield from ((f"{key}.{name}", part) for name, part in schema[key].items())
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if isinstance(schema.get(key), list):
            yield from ((f"{key}.{number}", part) for number, part in enumerate(schema[key]))
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield key, schema[key]


def _check_depth(schema: Any) -> None:
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise GrammarError(f"nested deeper than {_MAX_DEPTH} levels")
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
            if isinstance(child, dict | list)
        ]


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return next(
        (line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0] if lines else ""
    )
