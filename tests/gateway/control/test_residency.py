from __future__ import annotations

import random

import pytest

from gateway.control.residency import Claims, Held, Replica, order, protected, victim, wanted


def held(*names: str, running: str = "") -> tuple[Held, ...]:
    """The first was used least recently."""
    return tuple(Held(name, index + 1, int(name in running)) for index, name in enumerate(names))


@pytest.mark.parametrize(
    ("live", "former", "num_slots", "expected"),
    [
        ("a", "b", 3, "ab"),
        ("a", "b", 2, "a"),  # one slot is left for what is neither
        ("ab", "", 2, ""),
        ("abcdef", "", 4, ""),  # more than fit: then recency alone decides
        ("", "", 1, ""),
    ],
)
def test_protected_is_what_leaves_a_slot(live: str, former: str, num_slots: int, expected: str) -> None:
    assert protected(Claims(live, former), num_slots) == set(expected)


@pytest.mark.parametrize(
    ("items", "claims", "num_slots", "expected"),
    [
        (held("a", "b"), Claims(), 2, "a"),
        (held("a", "b"), Claims(pinned="a"), 2, "b"),
        (held("a", "b"), Claims(pinned="ab"), 2, None),
        (held("a", "b"), Claims(kept={"a"}), 2, "b"),
        (held("a", "b", "c"), Claims(live="a"), 3, "b"),
        (held("a", "b", "c"), Claims(live="b", former="a"), 3, "c"),
        (held("a", "b"), Claims(live="b", former="a"), 2, "a"),  # no room for the rollback target
        (held("a", "b", "c", running="a"), Claims(), 3, "b"),
        (held("a", "b", running="ab"), Claims(), 2, "a"),
        (held("a", "b", running="b"), Claims(live="a"), 2, "b"),  # protected before idle
        (held("a", "b", "c"), Claims(live="abcdef"), 3, "a"),
        ((), Claims(), 1, None),
    ],
)
def test_victim(items: tuple[Held, ...], claims: Claims, num_slots: int, expected: str | None) -> None:
    assert victim(items, claims, num_slots) == expected


def test_the_spared_stay() -> None:
    assert victim(held("a", "b"), Claims(), 2, spared={"a"}) == "b"
    assert victim(held("a"), Claims(), 1, spared={"a"}) is None


def test_free_slots_first_then_the_shortest_queue_then_who_is_missed_least() -> None:
    full_old, full_new = Replica("old", 2, held("a", "b")), Replica("new", 2, (Held("c", 8), Held("d", 9)))
    free, freer = Replica("free", 3, held("a")), Replica("freer", 4, held("a"))
    assert order([full_new, full_old, free, freer], Claims()) == ["freer", "free", "old", "new"]
    queue = Replica("old", 2, held("a", "b"), num_pending=3)
    assert order([queue, full_new], Claims()) == ["new", "old"]
    assert order([Replica("busy", 2, (), num_pending=2), full_old], Claims()) == ["old", "busy"]
    assert order([full_old, full_new], Claims(pinned="ab")) == ["new", "old"]


@pytest.mark.parametrize(
    ("claims", "elsewhere", "num_slots", "expected"),
    [
        (Claims("ab", "c", "d"), "", 4, "dabc"),
        (Claims("ab", "c", "d"), "", 3, "dab"),
        (Claims("ab", "c"), "abc", 4, "abc"),  # all fit: on every replica
        (Claims("abcdef"), "", 3, "fed"),  # more than fit: the most recent
        (Claims("abcdef"), "ef", 3, "dcb"),  # and what another has not got
        (Claims("a", "a", "a"), "", 2, "a"),
        (Claims("", "", "abc"), "abc", 2, "ab"),  # pins are for every replica
    ],
)
def test_wanted(claims: Claims, elsewhere: str, num_slots: int, expected: str) -> None:
    last_use = {name: index for index, name in enumerate("abcdef")}
    assert "".join(wanted(claims, last_use, set(elsewhere), num_slots)) == expected


@pytest.mark.parametrize("claims", [Claims(), Claims(live=[str(index) for index in range(50)])])
@pytest.mark.parametrize("slots", [(4,), (2, 2), (1, 3)])
def test_over_all_replicas_it_is_an_ideal_lru(slots: tuple[int, ...], claims: Claims) -> None:
    """Sequential requests: hit for hit what one LRU cache of that many slots does."""
    chance = random.Random(5)
    sequence = [str(index) for index in chance.choices(range(50), [1 / (rank + 1) for rank in range(50)], k=3000)]
    places: dict[str, list[str]] = {str(index): [] for index in range(len(slots))}
    last_use: dict[str, int] = {}
    ideal: list[str] = []
    for now, name in enumerate(sequence, 1):
        last_use[name] = now
        is_hit = any(name in some for some in places.values())
        assert is_hit == (name in ideal)
        ideal = [*(other for other in ideal if other != name), name][-sum(slots) :]
        if is_hit:
            continue
        replicas = [
            Replica(key, slots[int(key)], tuple(Held(other, last_use[other]) for other in some))
            for key, some in places.items()
        ]
        best = order(replicas, claims)[0]
        chosen = next(replica for replica in replicas if replica.id == best)
        if len(chosen.held) == chosen.num_slots:
            leaving = victim(chosen.held, claims, chosen.num_slots)
            assert leaving is not None
            places[best].remove(leaving)
        places[best].append(name)
