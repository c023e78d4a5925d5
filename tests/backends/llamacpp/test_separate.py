"""Ids of caches: those of one adapter lie together, and nothing is reused under another."""

from __future__ import annotations

import numpy as np

from backends.llamacpp.cache import KVCache
from backends.llamacpp.separate import SeparateCaches

TOKENS = np.arange(40, dtype=np.int32)


def test_ids_of_one_adapter_lie_together() -> None:
    caches = SeparateCaches(16, 64, keeps_finished=True)
    ids: dict[str, list[int]] = {"a": [], "b": []}
    for number in range(12):
        adapter = "ab"[number % 2]
        ids[adapter].append(caches.acquire(TOKENS + 100 * number, adapter=adapter)[0])
    assert [sorted(found) for found in ids.values()] == [list(range(6)), list(range(10, 16))]


def test_with_one_adapter_ids_are_given_lowest_first() -> None:
    caches = SeparateCaches(4, 64, keeps_finished=True)
    assert [caches.acquire(TOKENS + 100 * number, adapter="a")[0] for number in range(4)] == [0, 1, 2, 3]
    caches.release(2, TOKENS[:0], keep=False)
    assert caches.acquire(TOKENS + 900, adapter="a")[0] == 2


def test_a_finished_id_nearby_is_taken_before_a_free_one_far_off() -> None:
    caches = SeparateCaches(8, 64, keeps_finished=True)
    caches.acquire(TOKENS, adapter="a")  # 0
    far, _ = caches.acquire(TOKENS, adapter="b")
    assert far == 7
    near, _ = caches.acquire(TOKENS + 100, adapter="b")
    assert near == 6
    caches.extend(near, TOKENS + 100, 40)
    caches.release(near, TOKENS + 100, keep=True)
    assert caches.acquire(TOKENS + 200, adapter="b")[0] == near
    caches.check_integrity()


def test_prefixes_are_reused_under_their_own_adapter() -> None:
    for cache in (KVCache(256, 8, 64, max_cached=200), SeparateCaches(4, 64, keeps_finished=True)):
        for adapter in (None, "a"):
            number, reused = cache.acquire(TOKENS, adapter=adapter)
            assert reused == 0
            cache.extend(number, TOKENS, 40)
            cache.release(number, TOKENS, keep=True)
        assert cache.num_cached == 80
        cache.forget("a")
        assert cache.num_cached == 40
        cache.check_integrity()
        number, reused = cache.acquire(TOKENS, adapter="a")
        assert reused == 0
        cache.release(number, TOKENS[:0], keep=False)
        assert cache.acquire(TOKENS)[1] == 39
