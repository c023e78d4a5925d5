"""From conversations to packed rows of token ids, made by worker processes, in an order that the seed alone decides."""

import itertools
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.demo.chat import Segment, render
from backends.demo.corpus import Item, training_items
from backends.demo.shapes import BYTE_IDS, IM_END_ID

Ids = np.ndarray[Any, np.dtype[np.uint16]]
SHORT_ROW, LONG_ROW = 512, 2048
# One shard in so many holds long rows, for conversations that fill the context.
LONG_EVERY = 10
TOKENS_PER_SHARD = SHORT_ROW * 512
_MAX_CACHED = 100_000


class ChatEncoder:
    """Tokenises rendered conversations as the engine does: control tokens only where the template has them."""

    def __init__(self, tokenizer_dir: Path) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # every worker has one core
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
        self._plain = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
        self._plain.encode_special_tokens = True
        self._cache: dict[tuple[str, bool], list[int]] = {}

    def encode(self, segments: Sequence[Segment]) -> tuple[list[int], list[bool]]:
        """Token ids, and for each whether the assistant generates it."""
        ids: list[int] = []
        generated: list[bool] = []
        for segment in segments:
            part = self._encode_segment(segment)
            ids += part
            generated += [segment.is_generated] * len(part)
        return ids, generated

    def prompt(self, item: Item) -> list[int]:
        """The ids that the model continues."""
        return self.encode(render(item.messages, item.tools, add_generation_prompt=True))[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Text with the control tokens of tool calls."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def begun(self, ids: Sequence[int]) -> str:
        """What the text of every answer begins with that goes on from `ids`: bytes at the end may be part of a character."""
        end = len(ids)
        while end and ids[end - 1] in BYTE_IDS:
            end -= 1
        return self.decode(ids[:end])

    def _encode_segment(self, segment: Segment) -> list[int]:
        """Fixed texts recur all the time: template pieces, tool definitions, answers from tables."""
        known = self._cache.get((segment.text, segment.is_control))
        if known is None:
            tokenizer = self._tokenizer if segment.is_control else self._plain
            known = tokenizer.encode(segment.text, add_special_tokens=False).ids
            if len(self._cache) < _MAX_CACHED:
                self._cache[segment.text, segment.is_control] = known
        return known


@dataclass(frozen=True, slots=True)
class Shard:
    """Packed rows: token ids, document numbers (0 is padding) and whether a token is the assistant's, each [rows, length]."""

    ids: Ids
    documents: np.ndarray[Any, np.dtype[np.uint16]]
    generated: np.ndarray[Any, np.dtype[np.bool_]]


class _Packer:
    """Puts conversations whole into rows of one length, keeping a few rows open for those that still fit."""

    NUM_OPEN = 8

    def __init__(self, length: int) -> None:
        self.length = length
        self.closed: list[_Row] = []
        self._open: list[_Row] = []

    def add(self, ids: list[int], generated: list[bool]) -> None:
        if len(ids) > self.length:
            return  # those are for the long rows
        row = next((row for row in self._open if len(row.ids) + len(ids) <= self.length), None)
        if row is None:
            if len(self._open) == self.NUM_OPEN:
                fullest = max(self._open, key=lambda row: len(row.ids))
                self._open.remove(fullest)
                self.closed.append(fullest)
            row = _Row([], [], [])
            self._open.append(row)
        row.count += 1
        row.ids += ids
        row.generated += generated
        row.documents += [row.count] * len(ids)


@dataclass(slots=True)
class _Row:
    ids: list[int]
    generated: list[bool]
    documents: list[int]
    count: int = 0


def make_shard(encoder: ChatEncoder, seed: int, index: int) -> Shard:
    """Shard `index` of stream `seed`: TOKENS_PER_SHARD places filled with whole conversations, the same in every process."""
    is_long = index % LONG_EVERY == LONG_EVERY - 1
    length = LONG_ROW if is_long else SHORT_ROW
    num_rows = TOKENS_PER_SHARD // length
    packer = _Packer(length)
    for item in training_items(seed * 1_000_003 + index, sys.maxsize, is_long):
        packer.add(*encoder.encode(render(item.conversation(), item.tools)))
        if len(packer.closed) == num_rows:
            break
    size = (num_rows, length)
    shard = Shard(np.full(size, IM_END_ID, np.uint16), np.zeros(size, np.uint16), np.zeros(size, np.bool_))
    for place, row in enumerate(packer.closed):
        end = len(row.ids)
        shard.ids[place, :end], shard.documents[place, :end], shard.generated[place, :end] = (
            row.ids,
            row.documents,
            row.generated,
        )
    return shard


_encoder: ChatEncoder | None = None


def _start_worker(tokenizer_dir: Path) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _encoder = ChatEncoder(tokenizer_dir)


def _work(task: tuple[int, int]) -> Shard:
    assert _encoder is not None
    return make_shard(_encoder, *task)


@contextmanager
def shard_stream(tokenizer_dir: Path, seed: int, first: int, num_workers: int) -> Iterator[Iterator[Shard]]:
    """Shards first, first + 1, ... without end, made `num_workers` at a time and at most twice as many ahead; 0 works in this process."""
    if num_workers == 0:
        encoder = ChatEncoder(tokenizer_dir)
        yield (make_shard(encoder, seed, index) for index in itertools.count(first))
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_workers, _start_worker, (tokenizer_dir,)) as pool:
        yield _ordered(pool, seed, first, 3 * num_workers)


def _ordered(pool: Any, seed: int, first: int, num_ahead: int) -> Iterator[Shard]:
    pending = deque(pool.apply_async(_work, ((seed, index),)) for index in range(first, first + num_ahead))
    for index in itertools.count(first + num_ahead):
        yield pending.popleft().get()
        pending.append(pool.apply_async(_work, ((seed, index),)))
