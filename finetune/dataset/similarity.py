"""Which texts are alike: MinHash over character n-grams, for Korean as for English.

Grams that many rows have are the wording of a template or an instruction, not what a row says; they are left out of the signature, so
that rows of one template do not all look alike. MinHash: Broder 1997; bands: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets,
3.4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
NUM_BANDS = 24
"""Of each of two signatures. Texts of Jaccard similarity s meet in a band of r hashes with probability 1 - (1 - s**r)**24."""
RARE_ROWS, ALL_ROWS = 2, 4
"""Hashes in a band: over grams that few rows have (0.999 at s = 0.5), over all grams (0.998 at s = 0.7)."""
_MIN_RARE, _ENOUGH_RARE = 4, 16
"""Rare grams from which on they make a signature, and from which on they suffice. Between the two a row has both, so that an edit of a few
grams never puts a text and its copy on different sides."""
_KOREAN_GRAM, _OTHER_GRAM = 3, 4
_TABLE_BITS = 22
_MAX_GRAMS = 4096
_WINDOW = 12
_MAX_BUCKET = 40
_MAX_PARTS = 256
_MIN_AGREEING = 0.28
"""Of 48 hashes so many agree for 999 of 1,000 pairs of similarity 0.5."""
_CHUNK = 50_000
_SIZE_SLACK, _MIN_SIZE_RATIO = 16, 0.7
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


class Signatures:
    """Of all rows, in two blocks of memory of 672 bytes a row."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._keys = bytearray()
        self._lows = bytearray()

    def __len__(self) -> int:
        return self._num_rows

    @property
    def keys(self) -> Hashes:
        """Of every band, over the rare grams and over all; a row's are a row of the array."""
        return np.frombuffer(self._keys, dtype=np.uint64).reshape(self._num_rows, -1)

    @property
    def lows(self) -> NDArray[np.uint16]:
        """The low bits of every hash, which tell how alike two rows are."""
        return np.frombuffer(self._lows, dtype=np.uint16).reshape(self._num_rows, -1)

    def add(self, hashes: Hashes, rare: Hashes, facet: int) -> None:
        """The next row. Texts of different facets share no key; without the grams that a part needs, it is one that no other row has."""
        by_rare = _smallest(rare, RARE_ROWS) if len(rare) >= _MIN_RARE else _own(self._num_rows, RARE_ROWS)
        has_all = len(hashes) > 0 and len(rare) < _ENOUGH_RARE
        by_all = _smallest(hashes, ALL_ROWS) if has_all else _own(self._num_rows, ALL_ROWS)
        keys = np.concatenate([_band_keys(by_rare, RARE_ROWS), _band_keys(by_all, ALL_ROWS)])
        self._keys += (keys ^ np.uint64(facet & (2**64 - 1))).tobytes()
        self._lows += np.concatenate([by_rare, by_all]).astype(np.uint16).tobytes()
        self._num_rows += 1


def _smallest(hashes: Hashes, num_rows: int) -> Hashes:
    size = NUM_BANDS * num_rows
    found: Hashes = ((hashes[None, :] * _FACTORS[:size] + _OFFSETS[:size]) >> np.uint64(20)).min(axis=1)
    return found


def _band_keys(smallest: Hashes, num_rows: int) -> Hashes:
    bands = smallest.reshape(NUM_BANDS, num_rows)
    keys: Hashes = bands[:, 0]
    for place in range(1, num_rows):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + bands[:, place]
    return keys


def _own(row: int, num_rows: int) -> Hashes:
    return (np.arange(NUM_BANDS * num_rows, dtype=np.uint64) + np.uint64(row << 8)) * np.uint64(0xBF58476D1CE4E5B9)


def candidate_pairs(signatures: Signatures, sizes: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Pairs of rows that share a band, agree in enough hashes and are about as long (`sizes` in characters).

    Two columns, the smaller row first, sorted, each pair once. Of crowded buckets only the neighbours are paired.
    """
    if len(signatures) < 2:
        return np.empty((0, 2), dtype=np.int64)
    keys = signatures.keys
    found = [np.empty(0, dtype=np.int64)]
    for band in range(keys.shape[1]):
        found += _pairs_of_band(keys[:, band], sizes)
        if len(found) > _MAX_PARTS:
            found = [np.unique(np.concatenate(found))]
    pairs = np.stack(np.divmod(np.unique(np.concatenate(found)), len(signatures)), axis=1)
    return pairs[_agree(signatures.lows, pairs)]


def _agree(lows: NDArray[np.uint16], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the share of equal hashes lets the similarity be worth a look."""
    parts = [np.empty(0, dtype=np.bool_)]
    for start in range(0, len(pairs), _CHUNK):
        same = lows[pairs[start : start + _CHUNK, 0]] == lows[pairs[start : start + _CHUNK, 1]]
        by_rare, by_all = same[:, : NUM_BANDS * RARE_ROWS].mean(axis=1), same[:, NUM_BANDS * RARE_ROWS :].mean(axis=1)
        parts.append((by_rare >= _MIN_AGREEING) | (by_all >= _MIN_AGREEING))
    return np.concatenate(parts)


def _pairs_of_band(keys: Hashes, sizes: NDArray[np.uint32]) -> list[NDArray[np.int64]]:
    """Each as first * number of rows + second."""
    order = np.argsort(keys, kind="stable")
    kept = keys[order]
    edges = np.flatnonzero(np.concatenate(([True], kept[1:] != kept[:-1], [True])))
    lengths = np.repeat(np.diff(edges), np.diff(edges))
    found = []
    for offset in range(1, _MAX_BUCKET):
        same = kept[offset:] == kept[:-offset]
        if offset >= _WINDOW:
            same &= lengths[:-offset] <= _MAX_BUCKET
        places = np.flatnonzero(same)
        if not len(places):
            break
        first, second = order[places], order[places + offset]
        larger, smaller = np.maximum(sizes[first], sizes[second]), np.minimum(sizes[first], sizes[second])
        alike = smaller + _SIZE_SLACK >= _MIN_SIZE_RATIO * larger
        found.append((first[alike] * len(keys) + second[alike]).astype(np.int64))
    return found


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
