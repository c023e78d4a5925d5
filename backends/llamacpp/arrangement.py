"""How the tokens of a step are put together, so that llama.cpp computes them in few passes. Pure.

Facts that the rules rest on (llama.cpp's llama-batch.cpp, llama-kv-cache.cpp and ggml-cpu)
- One cache for all: a step is one pass. On the CPU its attention goes over to tiles at 64 tokens, which are computed over
  all cells, masked or not; below, masked cells are skipped at little cost.
- A cache for each: a pass takes what lies in neighbouring ids, as many tokens of each. Other ids, and what an id has more
  than its neighbours, are further passes within the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Protocol

from backends.llamacpp.separate import SeparateCaches
from backends.llamacpp.sequence import Sequence
from backends.llamacpp.step import Chunk, Filler, Step, assemble, assemble_by_id

TILE = 64
"""Tokens from which llama.cpp's attention on the CPU is computed in tiles (GGML_FA_TILE_Q)."""
_GAP = 1
"""Ids between two neighbours that are computed for nothing sooner than in two passes. A pass costs as much as 1 to 1.5
tokens (demo model, F16, two CPU cores): 8 + 8 ids with one between take 7.1 ms in two passes and 6.0 in one; with two
between, 5.6 and 6.2."""


class Arrangement(Protocol):
    """One way to put steps together."""

    max_chunks: int
    """Prompts in one step."""

    def can_mix(self, num_decoding: int, num_prompt_tokens: int) -> bool:
        """Whether decoding goes into one step with prompt tokens; else they take turns."""
        ...

    def can_feed(self, num_forced: int, num_decoding: int) -> bool:
        """Whether tokens that were not drawn are computed one a step beside decoding sequences, not as a prompt is."""
        ...

    def assemble(self, decoding: list[Sequence], chunks: list[Chunk], num_rows: int, running: list[Sequence]) -> Step:
        """The step."""
        ...


class Together:
    """One cache for all requests: decoding and prompts in one step, unless that makes decoding dearer than a step of its own."""

    def __init__(self, *, is_tiled: bool) -> None:
        """`is_tiled`: attention is computed by the CPU's flash attention."""
        self.max_chunks = 1 << 30
        self._is_tiled = is_tiled

    def can_mix(self, num_decoding: int, num_prompt_tokens: int) -> bool:
        """31 decoding with 60 prompt tokens: 61 ms in one step, 35 in two; 24 with 480: 170 and 137 (demo model, one core)."""
        return not self._is_tiled or num_decoding + num_prompt_tokens < TILE

    def can_feed(self, num_forced: int, num_decoding: int) -> bool:
        return False

    def assemble(self, decoding: list[Sequence], chunks: list[Chunk], num_rows: int, running: list[Sequence]) -> Step:
        return assemble(decoding, chunks, num_rows)


class Neighbours:
    """A cache for each request: by turns, in the order of ids; small gaps between ids are filled."""

    def __init__(self, caches: SeparateCaches) -> None:
        self.max_chunks = 1 << 30
        self._caches = caches

    def can_mix(self, num_decoding: int, num_prompt_tokens: int) -> bool:
        return False

    def can_feed(self, num_forced: int, num_decoding: int) -> bool:
        return feeds(num_forced, num_decoding)

    def assemble(self, decoding: list[Sequence], chunks: list[Chunk], num_rows: int, running: list[Sequence]) -> Step:
        fillers = []
        if decoding:
            ids = sorted([*(s.sequence_id for s in decoding), *(c.sequence.sequence_id for c in chunks)])
            fillers = _fillers(_small_gaps(ids), running, self._caches)
        return assemble_by_id(decoding, chunks, num_rows, fillers)


class Invariant:
    """A cache for each request, and every token computed by the same kernels whatever else runs: batch_invariant.

    llama.cpp computes a lone token, and a lone row of logits, by other kernels than several. So decoding ids are made
    neighbours, a lone one gets a neighbour, and a step has the tokens of one prompt.
    """

    def __init__(self, caches: SeparateCaches) -> None:
        self.max_chunks = 1
        self._caches = caches

    def can_mix(self, num_decoding: int, num_prompt_tokens: int) -> bool:
        return False

    def can_feed(self, num_forced: int, num_decoding: int) -> bool:
        return feeds(num_forced, num_decoding)

    def assemble(self, decoding: list[Sequence], chunks: list[Chunk], num_rows: int, running: list[Sequence]) -> Step:
        ids = {*(s.sequence_id for s in decoding), *(c.sequence.sequence_id for c in chunks)}
        is_chunk = not decoding and sum(chunk.count for chunk in chunks) > 1
        fillers = [] if is_chunk else _fillers(self._all_gaps(ids), running, self._caches)
        return assemble_by_id(decoding, chunks, num_rows, fillers, least_rows=2)

    def _all_gaps(self, ids: set[int]) -> list[int]:
        low, high = min(ids), max(ids)
        if low == high:
            low, high = (low, high + 1) if high + 1 < self._caches.num_sequence_ids else (low - 1, high)
        return [other for other in range(low, high + 1) if other not in ids]


def feeds(num_forced: int, num_decoding: int) -> bool:
    """Whether `num_forced` tokens of one sequence are computed one a step beside those that decode.

    A step of their own costs a pass more, in which the others wait; it saves as many steps as there are tokens. Shared among n
    that decode, the passes of n steps cost each sequence one: so it pays for longer runs only.
    """
    return num_forced <= num_decoding


def _small_gaps(ids: list[int]) -> list[int]:
    return [other for low, high in pairwise(ids) if high - low <= _GAP + 1 for other in range(low + 1, high)]


def _fillers(ids: Iterable[int], running: list[Sequence], caches: SeparateCaches) -> list[Filler]:
    """A token behind what each of `ids` holds."""
    computed: Callable[[int], int | None] = {s.sequence_id: s.num_computed for s in running}.get
    places = ((other, computed(other)) for other in ids)
    return [Filler(i, caches.next_position(i) if position is None else position) for i, position in places]
