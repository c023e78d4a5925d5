"""Which texts are alike: MinHash over character n-grams, for Korean as for English.

Grams that many rows have are the wording of a template or an instruction, not what a row says; they are left out of the signature, so
that rows of one template do not all look alike. MinHash: Broder 1997; bands: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets,
3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
NUM_BANDS = 24
"""Of each of two signatures. Texts of Jaccard similarity s meet in a band of r hashes with probability 1 - (1 - s**r)**24."""
RARE_ROWS, ALL_ROWS = 2, 4
"""Hashes in a band: over grams that few rows have (0.999 at s = 0.5), over all grams (0.998 at s = 0.7)."""
_MIN_RARE = 4
_KOREAN_GRAM, _OTHER_GRAM = 3, 4
_TABLE_BITS = 22
_MAX_GRAMS = 4096
_WINDOW = 12
_MAX_BUCKET = 40
_SEEDS = np.random.default_rng(20240607).integers(1, 2**63, size=(2, NUM_BANDS * ALL_ROWS), dtype=np.uint64)
_FACTORS, _OFFSETS = (_SEEDS[0] | np.uint64(1))[:, None], _SEEDS[1][:, None]


def grams(squashed: str) -> Hashes:
    """Hashes of the distinct n-grams of a squashed text: of three characters where it is Korean, else of four."""
    codes = np.frombuffer(squashed[:_MAX_GRAMS].encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if not len(codes):
        return codes
    is_korean = 2 * int(((codes >= 0xAC00) & (codes <= 0xD7A3)).sum()) >= 0.3 * len(codes)
    size = min(_KOREAN_GRAM if is_korean else _OTHER_GRAM, len(codes))
    found = np.full(len(codes) - size + 1, size, dtype=np.uint64)
    for offset in range(size):
        found = found * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + len(found)]
    found ^= found >> np.uint64(29)
    found *= np.uint64(0xBF58476D1CE4E5B9)
    found ^= found >> np.uint64(32)
    return np.unique(found)


class Frequencies:
    """In how many texts a hash occurs, of a table of fixed size: collisions can only make a gram look more frequent."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 << _TABLE_BITS, dtype=np.uint32)

    def add(self, hashes: Hashes) -> None:
        self._counts[hashes & np.uint64((1 << _TABLE_BITS) - 1)] += np.uint32(1)

    def of(self, hashes: Hashes) -> NDArray[np.uint32]:
        found: NDArray[np.uint32] = self._counts[hashes & np.uint64((1 << _TABLE_BITS) - 1)]
        return found


def telling(hashes: Hashes, frequencies: Frequencies, num_rows: int) -> Hashes:
    """The grams that few rows have."""
    return hashes[frequencies.of(hashes) <= max(20, num_rows // 1000)]


def signature(hashes: Hashes, rare: Hashes, facet: int, row: int) -> Hashes:
    """Two keys for each band, over the rare grams and over all. Texts of different facets share none; without grams a row has its own."""
    parts = [
        _bands(rare, RARE_ROWS) if len(rare) >= _MIN_RARE else _own(row),
        _bands(hashes, ALL_ROWS) if len(hashes) else _own(row),
    ]
    return np.concatenate(parts) ^ np.uint64(facet & (2**64 - 1))


def _bands(hashes: Hashes, num_rows: int) -> Hashes:
    size = NUM_BANDS * num_rows
    smallest = (
        ((hashes[None, :] * _FACTORS[:size] + _OFFSETS[:size]) >> np.uint64(20))
        .min(axis=1)
        .reshape(NUM_BANDS, num_rows)
    )
    keys: Hashes = smallest[:, 0]
    for place in range(1, num_rows):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + smallest[:, place]
    return keys


def _own(row: int) -> Hashes:
    return np.arange(NUM_BANDS, dtype=np.uint64) + np.uint64(row << 8)


def candidate_pairs(signatures: Hashes) -> Iterator[tuple[int, int]]:
    """Pairs of rows (the smaller first, each once) that share a band; of crowded buckets the neighbours only."""
    seen: set[int] = set()
    num_rows = len(signatures)
    for band in range(signatures.shape[1]):
        for bucket in _buckets(signatures[:, band]):
            width = len(bucket) if len(bucket) <= _MAX_BUCKET else _WINDOW
            for place, first in enumerate(bucket):
                for second in bucket[place + 1 : place + width]:
                    pair = first * num_rows + second
                    if pair not in seen:
                        seen.add(pair)
                        yield first, second


def _buckets(keys: Hashes) -> Iterator[list[int]]:
    """Places with equal keys, ascending; single ones are left out."""
    order = np.argsort(keys, kind="stable")
    kept = keys[order]
    edges = np.flatnonzero(np.concatenate(([True], kept[1:] != kept[:-1], [True])))
    for start, end in pairwise(edges.tolist()):
        if end - start > 1:
            yield order[start:end].tolist()


class Clusters:
    """Union-find over rows; a cluster is named by its first row."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, row: int) -> int:
        root = row
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while row != root:
            row, self._parent[row] = self._parent.get(row, row), root
        return root

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.find(first), self.find(second)))
        if low != high:
            self._parent[high] = low

    def members(self) -> dict[int, list[int]]:
        """Clusters of at least two, by their first row."""
        found: dict[int, list[int]] = {}
        for row in sorted(set(self._parent) | set(self._parent.values())):
            found.setdefault(self.find(row), []).append(row)
        return {first: rows for first, rows in found.items() if len(rows) > 1}
