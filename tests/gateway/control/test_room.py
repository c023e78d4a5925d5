"""Who may start and who must leave: by hand, over everything that can be asked, and in a small world over time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.plan import GIB, RAM
from gateway.control.room import MAX_PASSED, MIN_UP_S, Applicant, Occupant, Phase, Round, Rules, decide

RULES = Rules(turn_s=10.0, release_s=30.0, max_wait_s=300.0)
GPU = "CUDA0"


def asks(name: str, gib: float = 4, *, device: str = GPU, **more: object) -> Applicant:
    return Applicant(name, {device: int(gib * GIB)}, **more)  # type: ignore[arg-type]


def up(name: str, gib: float = 4, **more: object) -> Occupant:
    """Idle and on demand, unless told otherwise; it holds what it needs."""
    given = {"phase": Phase.READY, "can_leave": True, "up_s": 60.0, "held": {GPU: int(gib * GIB)}, **more}
    return Occupant(name, needs={GPU: int(gib * GIB)}, **given)  # type: ignore[arg-type]


def decided(*applicants: Applicant, occupants: tuple[Occupant, ...] = (), free: float = 6) -> Round:
    return decide(applicants, occupants, {GPU: int(free * GIB)}, RULES)


def test_what_fits_is_admitted_the_largest_first_and_memory_is_given_once() -> None:
    made = decided(asks("a", 2, order=0), asks("b", 4, order=1), asks("c", 1, order=2))
    assert made.admitted == ["b", "a"]
    assert made.waits == {"c": "waits up to 30 s for 1.0 GiB of CUDA0"}


def test_a_device_of_which_nothing_is_known_is_not_watched() -> None:
    assert decided(asks("a", 400, device="CUDA7")).admitted == ["a"]


def test_lone_starters_start_one_after_another() -> None:
    made = decided(asks("a", 1, is_alone=True, order=0), asks("b", 2, is_alone=True, order=1), asks("c", 1, order=2))
    assert made.admitted == ["b", "c"]
    assert "waits for b" in made.waits["a"]
    starting = up("z", 1, phase=Phase.STARTING, is_alone=True)
    assert decided(asks("a", 1, is_alone=True), occupants=(starting,)).admitted == []


def test_a_lone_starter_waits_for_a_larger_one_that_is_about_to_ask() -> None:
    alone = asks("a", 2, is_alone=True)
    free = {GPU: 9 * GIB}
    assert decide([alone], [], free, RULES, {"b": 3 * GIB, "a": 2 * GIB}).admitted == []
    assert decide([alone], [], free, RULES, {"b": 1 * GIB}).admitted == ["a"]


def test_who_was_passed_often_enough_goes_first() -> None:
    made = decided(asks("small", 1, num_passed=MAX_PASSED), asks("large", 6))
    assert made.admitted == ["small"]


def test_what_an_engine_will_take_yet_is_not_free() -> None:
    loading = up("z", 4, phase=Phase.STARTING, held={GPU: GIB}, can_leave=False)
    made = decided(asks("a", 4), occupants=(loading,))
    assert made.waits == {"a": "waits for 1.0 GiB of CUDA0 until z has started"}


def test_idle_engines_make_room_least_recently_used_first_and_no_more_than_needed() -> None:
    several = (up("old", 4, last_use=1.0), up("new", 4, last_use=9.0), up("small", 1, last_use=0.0))
    made = decided(asks("a", 8), occupants=several, free=4)
    assert made.leave == {"old": "a"}
    assert made.admitted == []
    assert made.waits == {"a": "waits for 4.0 GiB of CUDA0 until old has left"}


def test_who_makes_way_is_not_told_twice() -> None:
    several = (up("old", 4, phase=Phase.LEAVING, last_use=1.0), up("new", 4, last_use=9.0))
    made = decided(asks("a", 8), occupants=several, free=4)
    assert made.leave == {}


def test_engines_that_always_stay_are_never_sent_away() -> None:
    made = decided(asks("a", 8), occupants=(up("z", 8, can_leave=False),), free=4)
    assert (made.leave, made.turns_over) == ({}, {})
    assert made.lacking == {"a": GPU}
    assert decided(asks("a", 8, quiet_s=30.0), occupants=(up("z", 8, can_leave=False),), free=4).admitted == ["a"]


def test_an_engine_that_has_just_come_up_is_given_the_time_to_be_used() -> None:
    made = decided(asks("a", 8), occupants=(up("z", 4, up_s=MIN_UP_S / 2),), free=4)
    assert made.leave == {}


def test_busy_engines_are_not_sent_away_but_give_up_their_turn() -> None:
    busy = up("z", 4, num_running=2)
    early = decided(asks("a", 8, waited_s=9.0), occupants=(busy,), free=4)
    assert (early.leave, early.turns_over) == ({}, {})
    assert early.waits == {"a": "waits for 4.0 GiB of CUDA0 until z (2 requests) is idle or its turn is over"}
    late = decided(asks("a", 8, waited_s=10.0), occupants=(busy,), free=4)
    assert (late.leave, late.turns_over) == ({}, {"z": "a"})
    young = decided(asks("a", 8, waited_s=10.0), occupants=(replace(busy, up_s=5.0),), free=4)
    assert young.turns_over == {}
    refused = decided(asks("a", 8, waited_s=300.0), occupants=(replace(busy, up_s=5.0),), free=4)
    assert refused.refused == {"a": "no room: it lacks 4.0 GiB of CUDA0, and z (2 requests) is busy"}
    patient = decided(asks("a", 8, waited_s=900.0, is_patient=True), occupants=(replace(busy, up_s=5.0),), free=4)
    assert list(patient.waits) == ["a"]


def test_a_sleeping_engine_goes_where_idle_ones_do_not_suffice() -> None:
    asleep = up("s", 8, phase=Phase.ASLEEP, held={GPU: 2 * GIB}, up_s=0.0)
    idle = up("i", 4)
    assert decided(asks("a", 8), occupants=(asleep, idle), free=4).leave == {"i": "a"}
    assert decided(asks("a", 8), occupants=(asleep, idle), free=2).leave == {"i": "a", "s": "a"}


def test_one_that_wakes_needs_no_more_than_it_gave_back() -> None:
    asleep = up("a", 8, phase=Phase.ASLEEP, held={GPU: 2 * GIB}, up_s=0.0)
    assert decided(asks("a", 8), occupants=(asleep,), free=6).admitted == ["a"]
    assert decided(asks("a", 8), occupants=(asleep,), free=5).waits == {"a": "waits up to 30 s for 1.0 GiB of CUDA0"}


def test_nobody_behind_the_first_that_lacks_room_gets_any_of_that_device() -> None:
    made = decided(
        asks("large", 8), asks("small", 1), asks("other", 9, device=RAM), occupants=(up("z", 4, num_running=1),)
    )
    assert made.admitted == ["other"]
    assert made.waits["small"] == "waits for memory behind large"


# Everything -----------------------------------------------------------------------------------------------------------

DEVICES = (GPU, RAM)
SECONDS = st.sampled_from([0.0, 1.0, 5.0, 10.0, 30.0, 300.0])
NEEDS = st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 10), max_size=2)
APPLICANTS = st.lists(
    st.builds(
        Applicant, id=st.sampled_from("abcd"), needs=NEEDS, is_alone=st.booleans(), is_patient=st.booleans(), order=st.integers(0, 9),
        num_passed=st.integers(0, MAX_PASSED + 1), waited_s=SECONDS, quiet_s=SECONDS,
    ),
    max_size=4, unique_by=lambda one: one.id,
)  # fmt: skip
OCCUPANTS = st.lists(
    st.builds(
        Occupant, id=st.sampled_from("defgh"), phase=st.sampled_from(Phase), needs=NEEDS, held=st.none() | NEEDS,
        is_alone=st.booleans(), can_leave=st.booleans(), num_running=st.integers(0, 2), up_s=SECONDS, last_use=SECONDS,
    ),
    max_size=5, unique_by=lambda one: one.id,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(APPLICANTS, OCCUPANTS, st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 20)))
def test_whatever_is_asked(applicants: list[Applicant], occupants: list[Occupant], free: dict[str, int]) -> None:
    made = decide(applicants, occupants, free, RULES)
    _each_hears_one_thing(applicants, made)
    by_id = {one.id: one for one in occupants}
    for name in made.leave:
        one = by_id[name]
        assert one.can_leave
        assert one.phase is Phase.ASLEEP or (one.phase is Phase.READY and one.num_running == 0)
    asking = {one.id: one for one in applicants}
    for name, for_whom in made.turns_over.items():
        assert by_id[name].can_leave
        assert by_id[name].phase is Phase.READY
        assert asking[for_whom].waited_s >= RULES.turn_s
    assert not [name for name in made.refused if asking[name].is_patient]
    lone = [name for name in made.admitted if asking[name].is_alone]
    assert len(lone) <= (0 if any(one.is_alone and one.phase is Phase.STARTING for one in occupants) else 1)
    room = {device: free[device] - sum(one.owed(device) for one in occupants) for device in free}
    for name in made.admitted:
        own = by_id[name].held or {} if name in by_id else {}
        for device, need in asking[name].needs.items():
            size = max(0, need - own.get(device, 0))
            if device in room:
                assert size <= room[device] or asking[name].quiet_s >= RULES.release_s
                room[device] -= size


def _each_hears_one_thing(applicants: list[Applicant], made: Round) -> None:
    heard = [*made.admitted, *made.refused, *made.waits]
    assert sorted(heard) == sorted(one.id for one in applicants)


# Over time ------------------------------------------------------------------------------------------------------------


class World:
    """Engines that run on demand, all of them wanted all the time; one that starts takes `START` seconds, requests end after `last_s`."""

    START = 2

    def __init__(self, needs: list[int], total: int, last_s: int) -> None:
        self.needs = dict(enumerate(needs))
        self.total = total
        self.last_s = last_s
        self.now = 0
        self.asked: dict[int, int] = {}
        self.passed = dict.fromkeys(self.needs, 0)
        self.since: dict[int, tuple[Phase, int]] = {}
        self.starts = dict.fromkeys(self.needs, 0)

    def second(self) -> None:
        self.now += 1
        for number in self.needs:
            phase, since = self.since.get(number, (None, 0))
            if phase is None:
                self.asked.setdefault(number, self.now)
            elif phase is Phase.STARTING and self.now - since >= self.START:
                self.since[number] = (Phase.READY, self.now)
            elif phase is Phase.LEAVING and self.now - since >= self.last_s:
                del self.since[number]
        made = decide(self.applicants(), self.occupants(), {GPU: self.free()}, RULES)
        for name in made.admitted:
            number = int(name)
            for other, came in self.asked.items():
                self.passed[other] += came < self.asked[number]
            self.since[number] = (Phase.STARTING, self.now)
            self.starts[number] += 1
            del self.asked[number]
            self.passed[number] = 0
        assert not made.leave, "every engine has requests all the time"
        for name in made.turns_over:
            self.since[int(name)] = (Phase.LEAVING, self.now)
        assert self.free() >= 0

    def free(self) -> int:
        return self.total - sum(self.needs[number] for number in self.since)

    def applicants(self) -> list[Applicant]:
        return [
            Applicant(str(n), {GPU: self.needs[n]}, False, False, at, self.passed[n], self.now - at)
            for n, at in self.asked.items()
        ]

    def occupants(self) -> list[Occupant]:
        found = []
        for number, (phase, since) in self.since.items():
            up_s = float(self.now - since) if phase is Phase.READY else 0.0
            need = {GPU: self.needs[number]}
            found.append(Occupant(str(number), phase, need, need, False, True, 1, up_s, float(since)))
        return found


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=2, max_size=5), st.integers(10, 20), st.integers(0, 5))
def test_all_take_turns_and_nobody_starves(needs: list[int], total: int, last_s: int) -> None:
    world = World(needs, total, last_s)
    for _ in range(400):
        world.second()
    assert all(world.starts.values()), world.starts
