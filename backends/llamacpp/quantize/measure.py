"""Perplexity and speed of several files of one model.

Each file is loaded alone, so that the largest one decides what memory is needed. Speeds are measured round by round, every file once in
each: what the machine does beside it meets all of them, and their ratios within a round hold where the numbers themselves drift.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.llamacpp.binding.context import Context
from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.model import Model
from backends.llamacpp.binding.vocabulary import Vocabulary
from backends.llamacpp.options import Options
from backends.windows import Tokens, cut

LENGTH = 512
"""Tokens of a window; the second half is scored, each token after at least as many as the first half has."""
LEAST_CONTEXT = 256
"""Of llama.cpp, also where a model was trained with less."""
PREFILL, DECODE = 128, 32
"""Tokens of a prompt, and tokens decoded after it, one at a time."""
LEAST_S = 0.25
"""A speed is measured over at least this long, however small the model."""
ROUNDS, SLOW_ROUNDS, SLOW_S = 5, 3, 60.0
"""Rounds of all files; fewer where one takes longer than `SLOW_S`."""

TellCount = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second."""

    prefill: float
    decode: float


@contextmanager
def opened(path: Path, num_threads: int) -> Iterator[Context]:
    """A context of one sequence. Raises ModelError."""
    model = Model(path, Options())
    try:
        if not model.can_generate:
            raise ModelError("this model generates no text: there is no perplexity and no speed of decoding")
        length = max(LEAST_CONTEXT, min(LENGTH, model.n_ctx_train or LENGTH))
        options = Options(n_ctx=length, n_batch=length, n_ubatch=length, n_seq_max=1)
        context = Context(model, options, num_threads=num_threads, num_threads_batch=num_threads)
        try:
            yield context
        finally:
            context.close()
    finally:
        model.close()


def windows_of(context: Context, text: str, most: int) -> list[Tokens]:
    """Of a text, as this model cuts it into tokens."""
    return _windows(context.model, min(context.max_length, context.model.n_ctx_train or LENGTH), text, most)


def foretold_windows(vocabulary: Vocabulary, longest: int, text: str, most: int) -> list[Tokens]:
    """The same of a model whose weights are not read; `longest`: the context that it was trained with."""
    return _windows(vocabulary, longest, text, most)


def _windows(model: Model | Vocabulary, longest: int, text: str, most: int) -> list[Tokens]:
    tokens = model.tokenize(text, parse_special=True)
    return cut(tokens, min(LENGTH, longest), model.bos if model.add_bos else None, most)


def window_loss(context: Context, window: Tokens) -> float:
    """Mean negative log-likelihood of the second half's tokens, in nats. Raises BindingError."""
    context.remove(0)
    half = len(window) // 2
    _decode(context, window[: half - 1], 0, np.zeros(half - 1, dtype=np.int8))
    total = 0.0
    for begin in range(half - 1, len(window) - 1, context.max_outputs):
        end = min(begin + context.max_outputs, len(window) - 1)
        _decode(context, window[begin:end], begin, np.ones(end - begin, dtype=np.int8))
        logits = context.logits()
        top = logits.max(axis=1)
        spread = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64))
        total += float((spread + top - logits[np.arange(end - begin), window[begin + 1 : end + 1]]).sum())
    return total / (len(window) - half)


def speed(context: Context, least_s: float = LEAST_S, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """Of prompts of `PREFILL` tokens, and of `DECODE` single tokens after each."""
    count = min(PREFILL, context.max_length - DECODE)
    tokens = (np.arange(count + DECODE, dtype=np.int32) * 37 + 11) % context.model.n_vocab
    prefill_s = decode_s = 0.0
    num_turns = 0
    while num_turns == 0 or prefill_s + decode_s < least_s:
        start = clock()
        _prompt(context, tokens[:count])
        middle = clock()
        for position in range(count, count + DECODE):
            _decode(context, tokens[position : position + 1], position, np.ones(1, dtype=np.int8))
            context.logits()  # waits for a GPU
        prefill_s, decode_s = prefill_s + middle - start, decode_s + clock() - middle
        num_turns += 1
    return Speed(num_turns * count / prefill_s, num_turns * DECODE / decode_s)


def speeds(paths: Sequence[Path], num_threads: int, tell: TellCount, rounds: int = ROUNDS) -> list[list[Speed]]:
    """By file, one of each round. Raises BindingError."""
    found: list[list[Speed]] = [[] for _ in paths]
    start, turn = time.monotonic(), 0
    while turn < rounds:
        for index, path in enumerate(paths):
            tell(path.name, turn * len(paths) + index, rounds * len(paths))
            with opened(path, num_threads) as context:
                _prompt(context, np.ones(8, dtype=np.int32))  # pages and buffers are there from now on
                found[index].append(speed(context))
        turn += 1
        if turn == 1 and time.monotonic() - start > SLOW_S:
            rounds = min(rounds, SLOW_ROUNDS)
    return found


def _prompt(context: Context, tokens: Tokens) -> None:
    context.remove(0)
    wants = np.zeros(len(tokens), dtype=np.int8)
    wants[-1] = 1
    _decode(context, tokens, 0, wants)
    context.logits()


def _decode(context: Context, tokens: Tokens, begin: int, wants: np.ndarray[tuple[int], np.dtype[np.int8]]) -> None:
    n = len(tokens)
    if n:
        context.decode(tokens, np.arange(begin, begin + n, dtype=np.int32), np.zeros(n, dtype=np.int32), wants)
