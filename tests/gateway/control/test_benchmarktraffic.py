from __future__ import annotations

from typing import Any

from backends.base import Load
from backends.plan import Pick, Plan
from backends.status import State, Status
from gateway.config import Pool
from gateway.control.benchmarktraffic import ASSUMED_PLACES, LOOKS, Busy, UserTraffic, places_of
from gateway.control.fleet import Member


def member(engine_id: str, slot: int, kind: str = "llamacpp", state: State = State.READY) -> Member:
    return Member(engine_id, slot, kind, engine_id.rpartition("-")[0], (), status=Status(state))


async def busiest(
    members: list[Member], running: dict[int, list[int]], loads: dict[str, Load] | None = None, **places: Any
) -> Busy | None:
    """`running`: by slot, at one look after the other."""
    num_looks = 0

    async def next_look(seconds: float) -> None:
        nonlocal num_looks
        num_looks += 1

    traffic = UserTraffic(
        {member.id: member for member in members},
        lambda slot: running.get(slot, [0] * LOOKS)[num_looks],
        (loads or {}).get,
        {name.replace("_", "-"): number for name, number in places.items()},
        next_look,
    )
    return await traffic.busiest("demo")


async def test_the_mean_of_a_seconds_looks_over_what_it_computes_at_a_time() -> None:
    members = [member("demo-0", 0), member("demo-1", 1)]
    found = await busiest(members, {1: [8, 0, 8, 0, 8, 0, 8, 0, 8, 0]}, demo_0=4, demo_1=16)
    assert found == Busy("demo-1", 0.25, "4.0 of 16 requests at a time")


async def test_a_few_long_requests_count_by_the_cache_that_they_hold() -> None:
    found = await busiest(
        [member("demo-0", 0)], {0: [1] * LOOKS}, {"demo-0": Load(num_running=1, kv_usage=0.9)}, demo_0=32
    )
    assert found == Busy("demo-0", 0.9, "of its KV cache")


async def test_engines_of_other_models_are_beside_it_but_not_remote_ones() -> None:
    busy = {1: [32] * LOOKS}
    found = await busiest([member("demo-0", 0), member("other-0", 1)], busy)
    assert found is not None
    assert (found.engine_id, found.share) == ("other-0", 32 / ASSUMED_PLACES)
    found = await busiest([member("demo-0", 0), member("other-0", 1, "remote")], busy)
    assert found is not None
    assert (found.engine_id, found.share) == ("demo-0", 0.0)
    found = await busiest([member("demo-1", 1, "remote")], busy)
    assert found is not None
    assert found.share == 1.0


async def test_nobody_is_busy_where_no_engine_is_ready() -> None:
    assert await busiest([member("demo-0", 0, state=State.STOPPED)], {0: [9] * LOOKS}) is None


def test_how_many_an_engine_computes_at_a_time() -> None:
    picked = Plan((Pick("n_seq_max", 4, "small machine"),), (), 1)
    assert places_of(Pool("llamacpp"), picked) == 4
    assert places_of(Pool("llamacpp", options={"n_seq_max": 8}), picked) == 8
    assert places_of(Pool("vllm", options={"max_num_seqs": 256}), None) == 256
    assert places_of(Pool("remote"), None) == ASSUMED_PLACES
