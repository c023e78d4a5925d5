"""Grammars that answers must follow: built from JSON schemas and tool calls, compiled once, off the stepping thread.

    Lark text, with JSON schemas in it --Grammars.constraint--> Constraint, one for each answer

llguidance does the work (https://github.com/guidance-ai/llguidance): for a state of the grammar it says which tokens may
come next, in some ten microseconds, and where only one text is possible, which tokens that is: these are not even drawn.
JSON is written as Python's `json.dumps` does, `{"a": 1, "b": 2}`: that is what models saw most, and with no other spacing
allowed the keys of a fixed schema cost no steps.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import llguidance
import numpy as np
import orjson
from numpy.typing import NDArray

from backends.llamacpp.nesting import MAX_DEPTH, is_too_deep

JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}
MAX_GRAMMAR_BYTES = 1_000_000
MAX_QUEUED = 32
"""Grammars that may wait to be compiled, each for whoever asked for it."""
_MAX_KEPT, _MAX_KEPT_BYTES = 256, 500_000
"""Compiled grammars that are kept, and the bytes of their keys: for each of these a compiled one takes some 300."""
_NUM_TRIED, _MAX_FORCED = 4, 256
"""Steps that are tried out on every grammar, and the tokens of one that need no choice."""
_PATIENCE_S = 1.0
_MAX_TRIES, _MAX_SEARCH_S = 64, 0.2
"""What may be spent on finding the part of a schema that is at fault."""
_LIMITS = llguidance.LLParserLimits(max_items_in_row=4_200)
"""Branches at one place, 4 for each key that an object may leave out. A step's time grows with their square: 20 ms at 1,000 keys."""


TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


class GrammarError(ValueError):
    """The grammar or schema cannot be used; `path` leads to the part at fault, as `properties.name.pattern`."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class GrammarQueueFull(Exception):
    """Too many grammars wait to be compiled."""


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


@dataclass(slots=True)
class _Job:
    """A grammar that is being compiled, or waits for that."""

    compiled: asyncio.Future[Compiled] = field(init=False)
    num_waiting: int = 0
    is_abandoned: bool = False

    def check(self) -> None:
        """Raises GrammarError when nobody waits for it any longer."""
        if self.is_abandoned:
            raise GrammarError("nobody waits for it")


class Grammars:
    """Compiles for one vocabulary, and keeps the most recently used results."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._kept: OrderedDict[bytes, Compiled] = OrderedDict()
        self._num_kept_bytes = 0
        self._jobs: dict[bytes, _Job] = {}
        # One thread: a flood of hard grammars takes one core, not all of them.
        self._thread = ThreadPoolExecutor(1, "grammar")
        self._at_work = threading.Lock()

    def close(self) -> bool:
        """Compile nothing more. False: a grammar is at work still, with the vocabulary, which must not be freed then."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        return self._at_work.acquire(timeout=_PATIENCE_S)

    async def constraint(self, key: bytes, write: Callable[[], str]) -> Constraint:
        """A fresh place at the beginning of a grammar. Raises GrammarError, or GrammarQueueFull.

        `key` tells it from all others; `write` gives its text (Lark), in the compiling thread.
        """
        compiled = self._kept.get(key)
        if compiled is None:
            compiled = await self._compiled(key, write)
        else:
            self._kept.move_to_end(key)
        return Constraint(compiled, self._vocabulary.n_vocab)

    async def _compiled(self, key: bytes, write: Callable[[], str]) -> Compiled:
        """Start compiling, or join whoever compiles the same. What nobody waits for any longer is not begun."""
        job = self._jobs.get(key) or self._start(key, write)
        job.num_waiting += 1
        try:
            return await asyncio.shield(job.compiled)
        finally:
            job.num_waiting -= 1
            if not job.num_waiting:
                job.is_abandoned = True
                job.compiled.cancel()

    def _start(self, key: bytes, write: Callable[[], str]) -> _Job:
        if len(self._jobs) >= MAX_QUEUED:
            raise GrammarQueueFull(f"{len(self._jobs)} schemas wait to be compiled")
        job = self._jobs[key] = _Job()
        job.compiled = asyncio.get_running_loop().run_in_executor(self._thread, self._build, write, job)
        job.compiled.add_done_callback(lambda done: self._done(key, done))
        return job

    def _done(self, key: bytes, done: asyncio.Future[Compiled]) -> None:
        del self._jobs[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        self._num_kept_bytes += len(key)
        while len(self._kept) > _MAX_KEPT or self._num_kept_bytes > _MAX_KEPT_BYTES:
            oldest, _ = self._kept.popitem(last=False)
            self._num_kept_bytes -= len(oldest)

    def _build(self, write: Callable[[], str], job: _Job) -> Compiled:
        with self._at_work:
            # Cancelling a job takes effect a turn of the loop later; it may have been begun meanwhile.
            job.check()
            return self._compile(write(), job)

    def _compile(self, grammar: str, job: _Job) -> Compiled:
        """Raises GrammarError, also between two pieces of work when nobody waits for it any longer."""
        if len(grammar) > MAX_GRAMMAR_BYTES:
            raise GrammarError(f"{len(grammar)} bytes of grammar, at most {MAX_GRAMMAR_BYTES} are taken")
        matchers = []
        for options in ("{}", '{"no_forcing": true}'):
            job.check()
            self._tokenizer = self._tokenizer or _tokenizer(self._vocabulary)
            text = f"%llguidance {options}\n{grammar}"
            matchers.append(llguidance.LLMatcher(self._tokenizer, text, log_level=0, limits=_LIMITS))
        compiled = Compiled(*matchers)
        self._try_out(Constraint(compiled, self._vocabulary.n_vocab))
        return compiled

    def _try_out(self, first: Constraint) -> None:
        """Take the first steps, which also builds what later ones reuse. Raises GrammarError where they fail or nothing fits."""
        # The first choice that an object leaves comes behind its brace: that is where too many keys show.
        for step in range(_NUM_TRIED):
            allowed = first.allowed()
            if first.failure:
                raise GrammarError(first.failure)
            allowed[self._vocabulary.end_of_generation] = False
            if not allowed.any():
                if step == 0:
                    raise GrammarError("nothing fits it")
                return
            if not first.take_forced(_MAX_FORCED):
                first.accept(int(allowed.argmax()))
            if first.is_complete and not first.failure:
                return


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
    if is_too_deep(schema):
        raise GrammarError(TOO_DEEP)
    problem = _problem(schema)
    if problem:
        raise _blame(schema, problem)
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


def _blame(schema: Mapping[str, Any], problem: str) -> GrammarError:
    """The innermost part of a schema that fails on its own, as far as it is found in the time that may be spent."""
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    path: list[str] = []
    untried = _parts(schema)
    end_s = time.monotonic() + _MAX_SEARCH_S
    for _ in range(_MAX_TRIES):
        name, part = next(untried, ("", None))
        if not name or time.monotonic() > end_s:
            break
        found = _problem({**definitions, **part} if isinstance(part, dict) else part)
        if found:
            path.append(name)
            untried, problem = _parts(part), found
    return GrammarError(problem, ".".join(path))


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


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return next(
        (line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0] if lines else ""
    )
